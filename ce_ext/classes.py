"""Where the classes of a loss of rows are, and which of them are ignored, for ops that know one place and one class."""

from typing import Any

import torch
from torch import Tensor

from ce_ext import checks, shapes


def move_to_second(input: Tensor, dim: Any) -> Tensor:
    """A view with the classes of dimension `dim` where the ops look for them."""
    dim = checks.dimension(dim, input)
    return input.movedim(dim, 1) if input.dim() > 1 else input


def check_rows(target: Tensor, input: Tensor, dim: Any, moved: Tensor) -> None:
    """As the ops do, whose message would be about an input that nobody has given."""
    rows = shapes.row_shape(moved, 0)
    if target.shape != rows:
        raise ValueError(
            f"target must have shape {list(rows)} for input of shape {list(input.shape)} with its classes in dimension "
            f"{dim}, but got shape {list(target.shape)}"
        )


def ignore_one(target: Tensor, ignore_index: Any) -> tuple[Tensor, int]:
    """The targets, with one ignored class in place of several, and that class. Class probabilities have none."""
    if not isinstance(ignore_index, (tuple, list)):
        return target, checks.integer("ignore_index", ignore_index)
    if not ignore_index:
        raise ValueError("ignore_index must be an int or some of them, but got none")
    ignored = [checks.integer("ignore_index", value) for value in ignore_index]
    for value in ignored:
        if not -(2**63) <= value < 2**63:
            raise ValueError(f"ignore_index must fit into 64 bits, but got {value}")
    if target.is_floating_point():
        return target, max(ignored)
    is_wide = target.dtype == torch.uint64
    if is_wide:  # as int64, its largest numbers are negative ones, which it has none of
        ignored = [value for value in ignored if value >= 0] or ignored[:1]
    first, *others = ignored
    if others:
        target = target.view(torch.int64) if is_wide else target.to(torch.int64)
        for other in others:
            target = target.where(target != other, first)
        target = target.view(torch.uint64) if is_wide else target
    return target, first
