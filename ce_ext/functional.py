"""Losses shaped like those of `torch.nn.functional`."""

from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_variadic

from ce_ext import autograd
from ce_ext.options import CrossEntropyOptions
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
    if has_torch_function_variadic(input, target, weight):
        arguments = (input, target, weight, ignore_index, reduction, label_smoothing)
        return handle_torch_function(cross_entropy, arguments[:3], *arguments)
    if not isinstance(input, Tensor):
        raise TypeError(f"input must be a Tensor, but got {type(input).__name__}")
    if not isinstance(target, Tensor):
        raise TypeError(f"target must be a Tensor, but got {type(target).__name__}")
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction must be 'none', 'mean' or 'sum', but got {reduction!r}")
    if weight is not None and weight.requires_grad:
        raise RuntimeError("weight is not differentiable and must not require grad")
    options = CrossEntropyOptions(REDUCTIONS[reduction], ignore_index, label_smoothing)
    return autograd.cross_entropy(input, target, weight, options)
