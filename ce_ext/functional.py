"""Losses shaped like those of `torch.nn.functional`."""

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary, has_torch_function_variadic
from typing_extensions import Unpack

from ce_ext import autograd, checks, distributed, dtypes, nested
from ce_ext.binary_loss import binary_loss
from ce_ext.options import (
    AsymmetricLossOptions,
    BinaryLossOptions,
    NLLLossOptions,
    SigmoidFocalLossOptions,
    SoftmaxLossOptions,
)
from ce_ext.softmax_loss import SoftmaxStats as SoftmaxStats
from ce_ext.softmax_loss import plain_cross_entropy, softmax_loss

_NLL_OPTIONS = NLLLossOptions.__optional_keys__
_SOFTMAX_OPTIONS = SoftmaxLossOptions.__optional_keys__
_BINARY_OPTIONS = BinaryLossOptions.__optional_keys__
_SIGMOID_FOCAL_OPTIONS = SigmoidFocalLossOptions.__optional_keys__
_ASYMMETRIC_OPTIONS = AsymmetricLossOptions.__optional_keys__


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: None = None,
    ignore_index: int | Sequence[int] = -100,
    reduce: None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    **options: Unpack[SoftmaxLossOptions],
) -> Any:
    r"""Cross entropy between logits and class indices or class probabilities, as `torch.nn.functional.cross_entropy`.

    For a row of logits :math:`x` over :math:`C` classes, its target :math:`y`, class weights :math:`w` and label
    smoothing :math:`s`,

    .. math::
        \ell = (1 - s)\, w_y\, (\mathrm{lse}(x) - x_y) + \frac{s}{C} \sum_j w_j\, (\mathrm{lse}(x) - x_j),
        \qquad \mathrm{lse}(x) = \log \sum_j e^{x_j}.

    ``"mean"`` divides the sum of the losses by the sum of :math:`w_y` over the rows that are not ignored, as torch
    does; where there is no such row it is NaN.

    Of class probabilities :math:`q`, to which the loss is differentiable, too, it is

    .. math::
        \ell = \sum_j w_j \left((1 - s)\, q_j + \frac{s}{C}\right) (\mathrm{lse}(x) - x_j),

    and the mean divides by the number of rows.

    The logits are read in place whatever their strides, and the gradient has their memory format. Arithmetic is in
    float32 (float64 for float64 logits) and rounds once, at the end; the loss and the gradient keep their relative
    accuracy however confident the prediction is.

    Args:
        input: logits of shape (C), (N, C) or (N, C, d1, ...); float64, float32, bfloat16 or float16.
        target: class indices of shape (), (N) or (N, d1, ...) and of any integer dtype, each in [0, C) or
            ``ignore_index``. Or class probabilities: of the shape of ``input``, in any strides of their own, and of
            its dtype, or float32 for half logits. Their sums are not looked at.
        weight: a factor for each class, of shape (C) and the dtype of ``input``, or float32 for half logits. Not
            differentiable.
        size_average, reduce: torch's deprecated arguments, in torch's places. They must be None: they would change what
            is returned, which ``reduction`` says.
        ignore_index: the target of rows that add nothing to the loss and get a gradient of zero. Negative with class
            probabilities, for which it has no meaning. Or several of them as a tuple or list, which torch has not: each
            but the first costs a pass over the targets, and nothing over the logits. Any integer but a bool, which
            would be a ``size_average`` in the wrong place.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        label_smoothing: how much of the target's probability is spread over all classes, in [0, 1].
        **options: what torch does not have, all of it off by default: `ce_ext.options.SoftmaxLossOptions`.

    Returns:
        The loss in the dtype of ``input`` or in ``out_dtype``: of the shape of the class indices for ``"none"``, else a
        scalar. With ``return_stats`` that and `SoftmaxStats`.

    Raises:
        TypeError: an argument has another type than these, or a name that is none of them; or ``size_average`` or
            ``reduce`` is given.
        ValueError: the batch sizes differ, ``reduction`` is none of the three, or options have values that they cannot
            have, or not together.
        IndexError: a target is neither a class nor ``ignore_index``; on CUDA a later call raises it, see
            `ce_ext.cuda.check`. Or ``input`` has no dimension ``dim``.
        RuntimeError: any other shape, dtype, device or value that does not fit.
        NotImplementedError: ``input`` is not floating-point.

    The formula is that of `torch.nn.CrossEntropyLoss`; label smoothing is from Szegedy et al., "Rethinking the
    Inception Architecture for Computer Vision", 2016.

    Example:
        >>> logits = torch.randn(3, 5, requires_grad=True)
        >>> ce_ext.functional.cross_entropy(logits, torch.tensor([1, 0, 4])).backward()
    """
    if has_torch_function_variadic(input, target, weight):
        arguments = (input, target, weight, size_average, ignore_index, reduce, reduction, label_smoothing)
        return _call_override(cross_entropy, (input, target, weight), arguments, options)
    if size_average is not None or reduce is not None:
        checks.legacy(size_average, reduce)
    probabilities = isinstance(target, Tensor) and target.is_floating_point()
    if not options and not probabilities and type(ignore_index) is int:
        return plain_cross_entropy(input, target, weight, ignore_index, reduction, label_smoothing)
    checks.options(cross_entropy, options, _SOFTMAX_OPTIONS)
    return softmax_loss(
        input, target, weight, ignore_index, reduction, label_smoothing, probabilities=probabilities, **options
    )


def softmax_focal_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    gamma: float = 2.0,
    ignore_index: int | Sequence[int] = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    **options: Unpack[SoftmaxLossOptions],
) -> Any:
    r"""The focal loss of softmax probabilities: `cross_entropy`, times a factor that fades as the target is found.

    .. math::
        (1 - p_y)^\gamma\, \ell, \qquad p = \mathrm{softmax}(x),

    where :math:`\ell` is the cross entropy, label smoothing included. Of class probabilities :math:`q`, to which the
    loss is differentiable, too, each class has a factor of its own:

    .. math::
        -\sum_j w_j \left((1 - s)\, q_j + \frac{s}{C}\right) (1 - p_j)^\gamma \log p_j.

    One-hot probabilities give the loss of class indices; but not with label smoothing, what that adds of other classes
    to the loss of class indices fades with the target. The factors are taken of :math:`\log(1 - p)`, so that the loss
    and its gradient are finite for every :math:`\gamma` and for all logits, and keep their relative accuracy.
    ``gamma=0`` is `cross_entropy`.

    Args:
        input, target, ignore_index, reduction, label_smoothing, options: as those of `cross_entropy`.
        weight: alpha, a factor for each class, as that of `cross_entropy`; the mean divides by it likewise.
        gamma: how fast the factor fades, >= 0.

    Returns, Raises: as `cross_entropy`; ValueError also for a ``gamma`` that is negative or not finite.

    From Lin et al., "Focal Loss for Dense Object Detection", 2017; of class probabilities it is Keras'
    CategoricalFocalCrossentropy, without its clipping.

    Example:
        >>> logits = torch.randn(3, 5, requires_grad=True)
        >>> ce_ext.functional.softmax_focal_loss(logits, torch.tensor([1, 0, 4]), gamma=1.5).backward()
    """
    if has_torch_function_variadic(input, target, weight):
        arguments = (input, target, weight, gamma, ignore_index, reduction, label_smoothing)
        return _call_override(softmax_focal_loss, (input, target, weight), arguments, options)
    checks.options(softmax_focal_loss, options, _SOFTMAX_OPTIONS)
    probabilities = isinstance(target, Tensor) and target.is_floating_point()
    return softmax_loss(
        input, target, weight, ignore_index, reduction, label_smoothing,
        gamma=gamma, probabilities=probabilities, **options,
    )  # fmt: skip


def nll_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: None = None,
    ignore_index: int | Sequence[int] = -100,
    reduce: None = None,
    reduction: str = "mean",
    **options: Unpack[NLLLossOptions],
) -> Tensor:
    r"""The negative log-likelihood :math:`-w_y x_y` of log-probabilities, as `torch.nn.functional.nll_loss`.

    Args:
        input: log-probabilities, of the shapes and dtypes of the logits of `cross_entropy`, and any strides.
        target, weight, size_average, ignore_index, reduce, reduction: as those of `cross_entropy`.
        **options: what torch does not have, all of it off by default: `ce_ext.options.NLLLossOptions`.

    Returns, Raises: as `cross_entropy`.

    Example:
        >>> logits = torch.randn(3, 5, requires_grad=True)
        >>> log_probs = ce_ext.functional.log_softmax(logits, dim=1)
        >>> ce_ext.functional.nll_loss(log_probs, torch.tensor([1, 0, 4])).backward()
    """
    if has_torch_function_variadic(input, target, weight):
        arguments = (input, target, weight, size_average, ignore_index, reduce, reduction)
        return _call_override(nll_loss, (input, target, weight), arguments, options)
    if size_average is not None or reduce is not None:
        checks.legacy(size_average, reduce)
    if not options and type(ignore_index) is int:
        return plain_cross_entropy(input, target, weight, ignore_index, reduction, 0.0, input_is_log_prob=True)
    checks.options(nll_loss, options, _NLL_OPTIONS)
    return softmax_loss(input, target, weight, ignore_index, reduction, 0.0, input_is_log_prob=True, **options)


_FLOATS = (torch.float64, torch.float32, *dtypes.HALVES)


def log_softmax(
    input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: torch.dtype | None = None
) -> Tensor:
    r"""Logarithm of the softmax along a dimension, as `torch.nn.functional.log_softmax`.

    For each row :math:`x` of ``input`` along ``dim``,

    .. math::
        y_j = x_j - \log \sum_k e^{x_k}.

    The logits are read in place whatever their strides; the result and the gradient have their memory format.
    Arithmetic is in float32 (float64 for float64 logits) and rounds once, at the end. Results keep their relative
    accuracy however confident the prediction is, which those of torch do not: at a margin of 30 the largest float32
    result is -1e-13, and not 0. The gradient is computed from the result, as in torch, and is as accurate as its dtype.

    Args:
        input: logits of any shape; float64, float32, bfloat16 or float16, with ``dtype`` anything that converts to it.
        dim: the dimension of the classes. None is deprecated, warns, and means 0 for inputs of 0, 1 or 3 dimensions
            and 1 for others.
        _stacklevel: for that warning, as torch has it, and in the same place: 3 points to the caller.
        dtype: the dtype of the result, to which ``input`` is cast first: one of those four. Half logits become float32
            within the kernel, without a copy.

    Returns:
        A tensor of the shape of ``input``, in ``dtype`` or else the dtype of ``input``.

    Raises:
        TypeError: ``input`` is not a tensor, ``dim`` or ``_stacklevel`` not an integer, or ``dtype`` not a dtype.
        IndexError: ``input`` has no dimension ``dim``.
        NotImplementedError: ``dtype``, or the dtype of ``input`` where that is None, is none of the four.

    The formula is that of `torch.nn.LogSoftmax`.

    Example:
        >>> logits = torch.randn(3, 5, requires_grad=True)
        >>> ce_ext.functional.log_softmax(logits, dim=1)[:, 0].sum().backward()
    """
    if has_torch_function_unary(input):
        return _call_override(log_softmax, (input,), (input, dim, _stacklevel, dtype), {})
    if not isinstance(input, Tensor):
        raise checks.not_a_tensor("input", input)
    if type(_stacklevel) is not int:  # a dtype, for one, from whoever takes it for the third argument
        _stacklevel = checks.integer("_stacklevel", _stacklevel)
    if dim is None:
        dim = 0 if input.dim() in (0, 1, 3) else 1
        advice = "Change the call to include dim=X as an argument."
        message = f"Implicit dimension choice for log_softmax has been deprecated. {advice}"
        warnings.warn(message, stacklevel=_stacklevel - 1)  # torch warns one call further in
    dim = checks.dimension(dim, input)
    of_op = dtype
    if dtype is not None:
        if not isinstance(dtype, torch.dtype):
            raise TypeError(f"dtype must be a torch.dtype, but got {type(dtype).__name__}")
        if dtype not in _FLOATS:
            raise NotImplementedError(f"dtype must be float64, float32, float16 or bfloat16, but got {dtype}")
        if not (dtype == torch.float32 and input.dtype in dtypes.HALVES):  # the kernels cast that themselves
            input, of_op = input.to(dtype), None
    distributed.is_dtensor(input)  # asked for what it does: by then the op knows what to do with one
    result = autograd.log_softmax(input, (dim, of_op))  # LogSoftmaxOptions, which take a while to make
    return result if dtype is None else result.to(dtype)  # where autocast has another


def binary_cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: None = None,
    reduce: None = None,
    reduction: str = "mean",
    **options: Unpack[BinaryLossOptions],
) -> Tensor:
    r"""Binary cross entropy between probabilities and targets, as `torch.nn.functional.binary_cross_entropy`.

    For each element, with weight :math:`w`, target :math:`t` and probability :math:`p`,

    .. math::
        \ell = -w \left(t \max(\log p, -100) + (1 - t) \max(\log(1 - p), -100)\right).

    Where there is a logit, `binary_cross_entropy_with_logits` is quicker and more accurate.

    Tensors are read in place whatever their strides, and the gradients have their memory formats. Arithmetic is in
    float32 (float64 for a float64 input) and rounds once, at the end: half types are as safe as float32, and autocast
    is no reason to refuse them.

    Args:
        input: probabilities of any shape; float64, float32, bfloat16 or float16.
        target: of the shape of ``input``, mostly 0 or 1, or between them. Of a floating dtype, to which the loss is
            differentiable, too, or of an integer one or bool, which are used as they are.
        weight: a factor for each element, of any shape that broadcasts to that of ``input``, which makes no copies of
            it. Differentiable.
        size_average, reduce: as those of `cross_entropy`: None.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        **options: what torch does not have, all of it off by default: `ce_ext.options.BinaryLossOptions`.

    Returns:
        The loss: of the shape of ``input`` for ``"none"``, else a scalar; in ``out_dtype``, or the dtype of ``input``,
        or the one that a wider ``target`` promotes it to.

    Raises:
        TypeError: an argument has another type than these, or a name that is none of them; or ``size_average`` or
            ``reduce`` is given.
        ValueError: their shapes differ, ``reduction`` is none of the three, or options have values that they cannot
            have, or not together.
        RuntimeError: on the CPU, ``input`` is not between 0 and 1 (elsewhere the loss is NaN); or any other shape,
            dtype, device or value that does not fit.
        NotImplementedError: ``input`` is not floating-point.

    The formula is that of `torch.nn.BCELoss`.

    Example:
        >>> probabilities = torch.rand(3, 5, requires_grad=True)
        >>> ce_ext.functional.binary_cross_entropy(probabilities, torch.rand(3, 5) > 0.5).backward()
    """
    if has_torch_function_variadic(input, target, weight):
        arguments = (input, target, weight, size_average, reduce, reduction)
        return _call_override(binary_cross_entropy, (input, target, weight), arguments, options)
    if size_average is not None or reduce is not None:
        checks.legacy(size_average, reduce)
    checks.options(binary_cross_entropy, options, _BINARY_OPTIONS)
    return binary_loss(input, target, weight, None, reduction, input_is_probability=True, **options)


def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: None = None,
    reduce: None = None,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
    **options: Unpack[BinaryLossOptions],
) -> Tensor:
    r"""Binary cross entropy between logits and targets, as `torch.nn.functional.binary_cross_entropy_with_logits`.

    For each element, with weight :math:`w`, weight of positives :math:`P`, target :math:`t` and logit :math:`x`,

    .. math::
        \ell = w \left(P t \log(1 + e^{-x}) + (1 - t) \log(1 + e^{x})\right).

    The loss and the gradient keep their relative accuracy however confident the prediction is, and are finite or
    infinite, but not NaN, for infinite logits.

    Args:
        input: logits of any shape; float64, float32, bfloat16 or float16.
        target, weight, size_average, reduce, reduction, options: as those of `binary_cross_entropy`.
        pos_weight: a factor for the positive targets, of any shape that broadcasts to that of ``input``: (C) for
            (N, C), as a rule. Differentiable.

    Returns, Raises: as `binary_cross_entropy`, but any logit will do.

    The formula is that of `torch.nn.BCEWithLogitsLoss`.

    Example:
        >>> logits = torch.randn(3, 5, requires_grad=True)
        >>> target, pos_weight = torch.rand(3, 5) > 0.9, torch.full((5,), 9.0)
        >>> ce_ext.functional.binary_cross_entropy_with_logits(logits, target, pos_weight=pos_weight).backward()
    """
    if has_torch_function_variadic(input, target, weight, pos_weight):
        arguments = (input, target, weight, size_average, reduce, reduction, pos_weight)
        tensors = (input, target, weight, pos_weight)
        return _call_override(binary_cross_entropy_with_logits, tensors, arguments, options)
    if size_average is not None or reduce is not None:
        checks.legacy(size_average, reduce)
    checks.options(binary_cross_entropy_with_logits, options, _BINARY_OPTIONS)
    return binary_loss(input, target, weight, pos_weight, reduction, **options)


def sigmoid_focal_loss(
    inputs: Tensor,
    targets: Tensor,
    alpha: Tensor | float = 0.25,
    gamma: float = 2.0,
    reduction: str = "none",
    **options: Unpack[SigmoidFocalLossOptions],
) -> Tensor:
    r"""The focal loss of sigmoid probabilities, as `torchvision.ops.sigmoid_focal_loss`.

    For each element, with :math:`p` the sigmoid of its logit,

    .. math::
        \alpha_t\, (1 - p_t)^\gamma\, \ell, \qquad
        p_t = p\, t + (1 - p)(1 - t), \qquad \alpha_t = \alpha\, t + (1 - \alpha)(1 - t),

    where :math:`\ell` is the loss of `binary_cross_entropy_with_logits`. It is finite for every :math:`\gamma \ge 0`
    and every finite logit, so is its gradient, and both keep their relative accuracy. ``gamma=0, alpha=-1`` is
    `binary_cross_entropy_with_logits`.

    Args:
        inputs: logits of any shape; float64, float32, bfloat16 or float16.
        targets: of the shape of ``inputs``, as the target of `binary_cross_entropy`. Or the class of each row, of an
            integer dtype and of shape (), (N) or (N, d1, ...) for logits of shape (C), (N, C) or (N, C, d1, ...) with
            C > 1: the element of that class is positive, all others are negative, and all of them are for the target C,
            which is the background.
        alpha: the weight of positives, in [0, 1]; negatives have 1 - alpha. -1 for no weights. Or one for each class
            or element: a tensor that broadcasts to the shape of ``inputs``. Not differentiable.
        gamma: how fast the factor fades as the target is found, >= 0.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``. The mean is that of elements; detectors divide the sum by the
            number of positive rows instead, which is what ``denominator`` is for.
        **options: `ce_ext.options.SigmoidFocalLossOptions`, all of it off by default.

    Returns, Raises: as `binary_cross_entropy_with_logits`; ValueError also for an ``alpha`` or ``gamma`` that it cannot
    have, and IndexError for a class that is none, not background and not ignored; on CUDA a later call raises it, see
    `ce_ext.cuda.check`.

    From Lin et al., "Focal Loss for Dense Object Detection", 2017.

    Example:
        >>> logits = torch.randn(3, 5, requires_grad=True)
        >>> classes = torch.tensor([1, 5, 4])  # 5 is the background
        >>> ce_ext.functional.sigmoid_focal_loss(logits, classes, reduction="mean", denominator=2).backward()
    """
    if has_torch_function_variadic(inputs, targets, alpha):
        arguments = (inputs, targets, alpha, gamma, reduction)
        return _call_override(sigmoid_focal_loss, (inputs, targets, alpha), arguments, options)
    checks.options(sigmoid_focal_loss, options, _SIGMOID_FOCAL_OPTIONS)
    return binary_loss(
        inputs, targets, reduction=reduction, target_may_be_class=True, alpha=alpha, gamma=gamma, **options
    )


def asymmetric_loss(
    input: Tensor,
    target: Tensor,
    gamma_neg: float = 4.0,
    gamma_pos: float = 1.0,
    margin: float = 0.05,
    reduction: str = "mean",
    **options: Unpack[AsymmetricLossOptions],
) -> Tensor:
    r"""The asymmetric loss of sigmoid probabilities, for labels of which few are positive.

    For each element, with :math:`p` the sigmoid of its logit, weight :math:`w` and weight of positives :math:`P`,

    .. math::
        \ell = -w \left(P t\, (1 - p)^{\gamma_+} \log p + (1 - t)\, p_m^{\gamma_-} \log(1 - p_m)\right), \qquad
        p_m = \max(p - m, 0).

    Negatives fade faster than positives do, and those whose probability is below the margin :math:`m` add nothing.
    Without a margin and with both exponents alike it is the focal loss of targets that are 0 or 1. A target between
    them has its share of both terms, where the authors' code takes one power of a mixture of probabilities; of 0 and 1
    they are the same.

    The loss and the gradient are finite for all exponents :math:`\ge 0` and every finite logit, and as accurate as the
    logit itself: near the margin, where :math:`p - m` cancels, a rounding of the logit changes the loss as much. The
    gradient goes through the powers, too. At the margin, where it may jump, it is that of below: 0 for negatives.

    Args:
        input: logits of any shape; float64, float32, bfloat16 or float16.
        target: as the targets of `sigmoid_focal_loss`: of the shape of ``input``, or classes with a background.
        gamma_neg, gamma_pos: how fast the factors of negatives and positives fade, >= 0.
        margin: m in [0, 1), by which the probabilities of negatives are lowered: the authors' ``clip``.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``. The mean is that of elements; the authors take the sum.
        **options: `ce_ext.options.AsymmetricLossOptions`, all of it off by default.

    Returns, Raises: as `sigmoid_focal_loss`; ValueError also for a ``margin`` outside [0, 1).

    From Ridnik et al., "Asymmetric Loss For Multi-Label Classification", 2021.

    Example:
        >>> logits = torch.randn(3, 5, requires_grad=True)
        >>> ce_ext.functional.asymmetric_loss(logits, torch.rand(3, 5) > 0.9, reduction="sum").backward()
    """
    if has_torch_function_variadic(input, target):
        arguments = (input, target, gamma_neg, gamma_pos, margin, reduction)
        return _call_override(asymmetric_loss, (input, target), arguments, options)
    checks.options(asymmetric_loss, options, _ASYMMETRIC_OPTIONS)
    return binary_loss(
        input,
        target,
        reduction=reduction,
        target_may_be_class=True,
        gamma=checks.real("gamma_pos", gamma_pos),
        gamma_neg=checks.real("gamma_neg", gamma_neg),
        margin=checks.real("margin", margin),
        **options,
    )


_OF_ROWS = (cross_entropy, softmax_focal_loss, nll_loss, log_softmax)


def _call_override(function: Any, tensors: tuple[Any, ...], arguments: tuple[Any, ...], options: Any) -> Any:
    """Of a function that is given something whose class overrides torch's functions."""
    subclasses = (tensor for tensor in tensors if isinstance(tensor, Tensor) and type(tensor) is not Tensor)
    if function in _OF_ROWS and any(tensor.is_nested for tensor in subclasses):
        nested.refuse_rows(function)
    if isinstance(options, dict):
        return handle_torch_function(function, tensors, *arguments, **options)
    return call_with_options(function.__name__, arguments, {}, options)


def call_with_options(name: str, arguments: tuple[Any, ...], named: Any, options: Any) -> Any:
    """What `torch.fx.symbolic_trace` finds in a function or a loss module that it traces by itself: to fx, the options
    of a call to come are one proxy, which cannot be unpacked. They take the place of those that are `named` already."""
    if has_torch_function_unary(options):
        return handle_torch_function(call_with_options, (options,), name, arguments, named, options)
    return globals()[name](*arguments, **{**named, **options})
