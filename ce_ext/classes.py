"""Where the classes of a loss of rows are, and which of them are ignored, for ops that know one place and one class."""

from typing import Any

import torch
from torch import Tensor

from ce_ext import checks
from ce_ext.shapes import class_indices


def move_to_second(input: Tensor, dim: Any) -> Tensor:
    """A view with the classes of dimension `dim` where the ops look for them."""
    dim = checks.dimension(dim, input)
    return input.movedim(dim, 1) if input.dim() > 1 else input


def check_rows(target: Tensor, input: Tensor, dim: Any, moved: Tensor) -> None:
    """As the ops do, whose message would be about an input that nobody has given."""
    rows = moved.shape[:1] + moved.shape[2:] if moved.dim() > 1 else ()
    if target.shape != torch.Size(rows):
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
    if target.is_floating_point():
        return target, max(ignored)
    first, *others = ignored
    if others:
        target = class_indices(target)
        for other in others:
            target = target.where(target != other, first)
    return target, first
