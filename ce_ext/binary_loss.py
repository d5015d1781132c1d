"""From the arguments of binary losses to their op: checks, options, and what is around the op."""

import torch
from torch import Tensor

from ce_ext import autograd, distributed, reductions
from ce_ext.options import BinaryCrossEntropyOptions
from ce_ext.shapes import opmath_dtype


def binary_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    pos_weight: Tensor | None = None,
    reduction: str = "mean",
    *,
    input_is_probability: bool = False,
    target_may_be_class: bool = False,
    alpha: Tensor | float = -1.0,
    gamma: float = 0.0,
    label_smoothing: float = 0.0,
    ignore_index: int | None = None,
    denominator: Tensor | float | None = None,
    on_empty: str = "nan",
    out_dtype: torch.dtype | None = None,
) -> Tensor:
    if not isinstance(input, Tensor):
        raise TypeError(f"input must be a Tensor, but got {type(input).__name__}")
    if not isinstance(target, Tensor):
        raise TypeError(f"target must be a Tensor, but got {type(target).__name__}")
    if target.shape != input.shape and not target_may_be_class:
        raise ValueError(
            f"target must have the shape of input, {list(input.shape)}, but got shape {list(target.shape)}"
        )
    if isinstance(alpha, Tensor) and alpha.requires_grad:
        raise RuntimeError("alpha is not differentiable and must not require grad")
    reductions.check_options(reduction, denominator, on_empty, out_dtype)
    how = reductions.number_of(reduction)
    if distributed.is_dtensor(input) and reduction == "mean" and denominator is None:
        denominator = distributed.element_denominator(input, target, ignore_index)
    divisor = None
    if denominator is not None:
        how, divisor = reductions.SUM, reductions.divisor(denominator, on_empty)

    dtype = input.dtype
    if target.dtype != dtype and target.is_floating_point():
        dtype = torch.promote_types(dtype, target.dtype)
        if dtype != opmath_dtype(input):
            input = input.to(dtype)
    dtype = out_dtype or dtype
    kernel_dtype = None if divisor is None and dtype == input.dtype else opmath_dtype(input)
    class_alpha, alpha = (alpha, -1.0) if isinstance(alpha, Tensor) else (None, alpha)
    options = BinaryCrossEntropyOptions(
        how, input_is_probability, gamma, alpha, label_smoothing, ignore_index, on_empty == "zero", kernel_dtype
    )
    loss = autograd.binary_cross_entropy(input, target, weight, pos_weight, class_alpha, options)
    if divisor is not None:
        loss = loss / divisor
    return loss if kernel_dtype is None else loss.to(dtype)
