"""From the arguments of binary losses to their op: checks, options, and what is around the op."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ce_ext import autograd, checks, classes, distributed, dtypes, nested, reductions
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
    gamma_neg: float | None = None,
    margin: float = 0.0,
    label_smoothing: float = 0.0,
    ignore_index: int | Sequence[int] | None = None,
    ignore_nan: bool = False,
    denominator: Tensor | float | None = None,
    on_empty: str = "nan",
    out_dtype: torch.dtype | None = None,
) -> Tensor:
    if not isinstance(input, Tensor):
        raise checks.not_a_tensor("input", input)
    if not isinstance(target, Tensor):
        raise checks.not_a_tensor("target", target)
    if weight is not None and not isinstance(weight, Tensor):
        raise checks.not_a_tensor("weight", weight)
    if pos_weight is not None and not isinstance(pos_weight, Tensor):
        raise checks.not_a_tensor("pos_weight", pos_weight)
    nested_input = None
    if input.is_nested:
        nested_input = input
        input, target, weight, pos_weight, alpha = nested.values_of(
            input, target, weight=weight, pos_weight=pos_weight, alpha=alpha
        )
    if target.shape != input.shape and not target_may_be_class:
        raise ValueError(
            f"target must have the shape of input, {list(input.shape)}, but got shape {list(target.shape)}"
        )
    if not type(label_smoothing) is type(gamma) is float:
        label_smoothing, gamma = checks.real("label_smoothing", label_smoothing), checks.real("gamma", gamma)
    if isinstance(alpha, Tensor):
        checks.constant("alpha", alpha)
    elif type(alpha) is not float:
        alpha = checks.real("alpha", alpha)
    ignored: Any = ignore_index
    if ignore_index is not None and type(ignore_index) is not int:
        if target.dim() == input.dim():  # of elements, which one number is ignored of
            ignored = checks.integer("ignore_index", ignore_index)
        else:
            target, ignored = classes.ignore_one(target, ignore_index)
    reductions.check_options(reduction, denominator, on_empty, out_dtype)
    how = reductions.number_of(reduction)
    if distributed.is_dtensor(input) and reduction == "mean" and denominator is None:
        denominator = distributed.element_denominator(input, target, ignored, ignore_nan)
    divisor, denominator = reductions.split_denominator(denominator, input)
    input, promoted = dtypes.promoted(input, target)
    out_dtype = out_dtype or promoted
    kernel_dtype = dtypes.of_kernel(input, out_dtype)
    if denominator is not None:
        how, kernel_dtype, out_dtype = reductions.SUM, opmath_dtype(input), out_dtype or dtypes.of_loss(input)
    class_alpha, alpha = (alpha, -1.0) if isinstance(alpha, Tensor) else (None, alpha)
    options = BinaryCrossEntropyOptions(
        how,
        input_is_probability,
        gamma,
        alpha,
        gamma_neg,
        margin,
        label_smoothing,
        ignored,
        ignore_nan,
        on_empty == "zero",
        divisor,
        kernel_dtype,
    )
    loss = autograd.binary_cross_entropy(input, target, weight, pos_weight, class_alpha, options)
    if denominator is not None:
        loss = reductions.divide(loss, denominator, on_empty)
    if nested_input is not None and how == reductions.NONE:
        loss = nested.with_values(nested_input, loss)
    return loss if out_dtype is None else loss.to(out_dtype)
