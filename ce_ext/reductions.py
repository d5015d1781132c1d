"""How the losses of rows or elements become the result: the names users give, the numbers the ops take, and what the
mean divides by."""

from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling

from ce_ext import checks, distributed

NONE, MEAN, SUM = 0, 1, 2
REDUCTIONS = {"none": NONE, "mean": MEAN, "sum": SUM}


def number_of(reduction: str) -> int:
    number = REDUCTIONS.get(reduction) if isinstance(reduction, str) else None
    if number is None:
        raise ValueError(f"reduction must be 'none', 'mean' or 'sum', but got {reduction!r}")
    return number


def check_options(reduction: str, denominator: Any, on_empty: str, out_dtype: Any) -> None:
    if on_empty not in ("nan", "zero"):
        raise ValueError(f"on_empty must be 'nan' or 'zero', but got {on_empty!r}")
    if denominator is not None:
        if reduction != "mean":
            raise ValueError(f"denominator is what the mean divides by, but reduction is {reduction!r}")
        if checks.is_boolean(denominator) or (isinstance(denominator, Tensor) and denominator.is_complex()):
            raise TypeError(f"denominator must be a number or a Tensor, but got {denominator!r}")
        if isinstance(denominator, Tensor) and denominator.dim() > 0:
            raise ValueError(f"denominator must be a tensor of shape (), but got shape {tuple(denominator.shape)}")
    if out_dtype is not None and not (isinstance(out_dtype, torch.dtype) and out_dtype.is_floating_point):
        raise TypeError(f"out_dtype must be a floating-point dtype, but got {out_dtype!r}")


def split_denominator(denominator: Tensor | float | None, input: Tensor) -> tuple[float | None, Tensor | float | None]:
    """What the op divides by, and what is left to be divided by after it: tensors, numbers that a compiler may not know
    yet, and all for DTensors, which keep a plan for every number that an op is called with."""
    if denominator is None or isinstance(denominator, (Tensor, torch.SymInt, torch.SymFloat)):
        return None, denominator
    if is_dynamo_compiling() or distributed.is_dtensor(input):
        return None, denominator
    return float(checks.real("denominator", denominator)), None


def reduce(losses: Tensor, denominator: Tensor | None, options: Any, class_dim: int | None = None) -> Tensor:
    """What an op with these options makes of losses, or of their tangents; those of rows have a dimension of one class.

    The sum is divided, so that a mean is 0 / 0 also where there is nothing to add. It keeps its dimensions until then:
    torch maps no quotients of scalars over a batch of nothing.
    """
    is_one = options.reduction != NONE
    dims = tuple(range(options.batch_dims, losses.dim())) if is_one else () if class_dim is None else (class_dim,)
    sums = losses.sum(dims, keepdim=True) if dims else losses
    if denominator is not None:
        sums = sums / denominator.to(losses.dtype).reshape(
            denominator.shape + (1,) * (losses.dim() - denominator.dim())
        )
    return sums.squeeze(dims) if dims else sums


def divide(loss: Tensor, denominator: Tensor | float, on_empty: str) -> Tensor:
    """Where the mean over nothing shall be 0, it is divided by infinity, which makes its gradient 0, too."""
    if on_empty == "zero":
        if not isinstance(denominator, Tensor):
            denominator = torch.scalar_tensor(denominator, dtype=torch.float64, device=loss.device)
        denominator = denominator.where(denominator != 0, torch.inf)
    return loss / denominator
