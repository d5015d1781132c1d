"""Losses shaped like those of `torch.nn.functional`."""

import warnings

import torch
from torch import Tensor

from ce_ext import autograd, log_softmax_autograd
from ce_ext.reductions import REDUCTIONS


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    r"""Cross entropy between logits and class indices, as `torch.nn.functional.cross_entropy`.

    For a row of logits :math:`x` over :math:`C` classes, its target :math:`y`, class weights :math:`w` and label
    smoothing :math:`s`,

    .. math::
        \ell = (1 - s)\, w_y\, (\mathrm{lse}(x) - x_y) + \frac{s}{C} \sum_j w_j\, (\mathrm{lse}(x) - x_j),
        \qquad \mathrm{lse}(x) = \log \sum_j e^{x_j}.

    ``"mean"`` divides the sum of the losses by the sum of :math:`w_y` over the rows that are not ignored, as torch
    does; where there is no such row it is NaN.

    The logits are read in place whatever their strides, and the gradient has their memory format. Arithmetic is in
    float32 (float64 for float64 logits) and rounds once, at the end; the loss and the gradient keep their relative
    accuracy however confident the prediction is.

    Args:
        input: logits of shape (C), (N, C) or (N, C, d1, ...); float64, float32, bfloat16 or float16.
        target: class indices of shape (), (N) or (N, d1, ...), int64 or uint8, each in [0, C) or ``ignore_index``.
        weight: a factor for each class, of shape (C) and the dtype of ``input``. Not differentiable.
        ignore_index: the target of rows that add nothing to the loss and get a gradient of zero.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        label_smoothing: how much of the target's probability is spread over all classes, in [0, 1].

    Returns:
        The loss in the dtype of ``input``: of the shape of ``target`` for ``"none"``, else a scalar.

    Raises:
        TypeError: ``input`` or ``target`` is not a tensor.
        ValueError: the batch sizes differ, or ``reduction`` is none of the three.
        IndexError: on the CPU, a target is neither a class nor ``ignore_index``.
        RuntimeError: any other shape, dtype, device or value that does not fit.
        NotImplementedError: ``input`` is not floating-point, or ``target`` holds class probabilities.

    The formula is that of `torch.nn.CrossEntropyLoss`; label smoothing is from Szegedy et al., "Rethinking the
    Inception Architecture for Computer Vision", 2016.

    Example:
        >>> logits = torch.randn(3, 5, requires_grad=True)
        >>> ce_ext.functional.cross_entropy(logits, torch.tensor([1, 0, 4])).backward()
    """
    for name, value in (("input", input), ("target", target)):
        if not isinstance(value, Tensor):
            raise TypeError(f"{name} must be a Tensor, but got {type(value).__name__}")
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction must be 'none', 'mean' or 'sum', but got {reduction!r}")
    if weight is not None and weight.requires_grad:
        raise RuntimeError("weight is not differentiable and must not require grad")
    return autograd.cross_entropy(input, target, weight, REDUCTIONS[reduction], ignore_index, label_smoothing)


_HALVES = (torch.float16, torch.bfloat16)
_FLOATS = (torch.float64, torch.float32, *_HALVES)


def log_softmax(input: Tensor, dim: int | None = None, dtype: torch.dtype | None = None) -> Tensor:
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
        dtype: the dtype of the result, to which ``input`` is cast first: one of those four. Half logits become float32
            within the kernel, without a copy.

    Returns:
        A tensor of the shape of ``input``, in ``dtype`` or else the dtype of ``input``.

    Raises:
        TypeError: ``input`` is not a tensor, ``dim`` not an integer, or ``dtype`` not a dtype.
        IndexError: ``input`` has no dimension ``dim``.
        NotImplementedError: ``dtype``, or the dtype of ``input`` where that is None, is none of the four.

    The formula is that of `torch.nn.LogSoftmax`.

    Example:
        >>> logits = torch.randn(3, 5, requires_grad=True)
        >>> ce_ext.functional.log_softmax(logits, dim=1)[:, 0].sum().backward()
    """
    if not isinstance(input, Tensor):
        raise TypeError(f"input must be a Tensor, but got {type(input).__name__}")
    if dim is None:
        dim = 0 if input.dim() in (0, 1, 3) else 1
        advice = "Change the call to include dim=X as an argument."
        warnings.warn(f"Implicit dimension choice for log_softmax has been deprecated. {advice}", stacklevel=2)
    if not isinstance(dim, int) or isinstance(dim, bool):
        raise TypeError(f"dim must be an int, but got {type(dim).__name__}")
    dims = max(input.dim(), 1)
    if not -dims <= dim < dims:
        shape = tuple(input.shape)
        raise IndexError(f"dim must be in [{-dims}, {dims - 1}] for input of shape {shape}, but got {dim}")
    if dtype is not None:
        if not isinstance(dtype, torch.dtype):
            raise TypeError(f"dtype must be a torch.dtype, but got {type(dtype).__name__}")
        if dtype not in _FLOATS:
            raise NotImplementedError(f"dtype must be float64, float32, float16 or bfloat16, but got {dtype}")
        if not (dtype == torch.float32 and input.dtype in _HALVES):  # the kernels cast that themselves
            input, dtype = input.to(dtype), None
    return log_softmax_autograd.log_softmax(input, dim % dims, dtype)
