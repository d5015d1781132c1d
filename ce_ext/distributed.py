"""Losses of DTensors, the tensors that `torch.distributed.tensor` shards over processes."""

import sys
from typing import TYPE_CHECKING, TypeGuard

from torch import Tensor

from ce_ext import shapes

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


def is_dtensor(tensor: Tensor) -> "TypeGuard[DTensor]":
    """Whether it is one; by then the ops know how to take it."""
    if type(tensor) is Tensor or "torch.distributed.tensor" not in sys.modules:
        return False
    from torch.distributed.tensor import DTensor

    if not isinstance(tensor, DTensor):
        return False
    from ce_ext import sharding  # noqa: F401  (while torch.compile traces, too)

    return True


def row_denominator(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    sample_weight: Tensor | None,
    ignore_index: int,
    probabilities: bool,
) -> Tensor | float:
    """What the mean of the losses of rows divides by: the sum of their weights, those of all shards."""
    if probabilities:
        return shapes.row_shape(input, 0).numel() if sample_weight is None else _total(sample_weight, input)
    indices = shapes.class_indices(target)
    valid = indices != ignore_index
    weights = valid
    if weight is not None:
        # A target that is no class is for the op to complain of, which has not seen it yet.
        weights = weight[indices.clamp(0, weight.shape[0] - 1)]
    if sample_weight is not None:
        weights = weights * sample_weight
    return _total(weights.where(valid, 0), input)


def element_denominator(input: Tensor, target: Tensor, ignore_index: int | None, ignore_nan: bool) -> Tensor | float:
    """What the mean of the losses of elements divides by: the number of those that are not ignored, in all shards."""
    if ignore_index is None and not (ignore_nan and target.is_floating_point()):
        return input.numel()
    classes = input.shape[shapes.class_dim(input, 0)] if target.dim() < input.dim() else 1
    return _total(shapes.is_counted(target, ignore_index, ignore_nan), input) * classes


def _total(terms: Tensor, input: Tensor) -> Tensor:
    """Their sum, the same in every process, in the dtype that losses of `input` are computed in."""
    dtype = shapes.opmath_dtype(input)
    total = terms.sum(dtype=dtype if terms.is_floating_point() else None)
    return (total.full_tensor() if is_dtensor(total) else total).to(dtype)
