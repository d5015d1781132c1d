"""The dtype of a loss, where it is not that of the input."""

import torch
from torch import Tensor

from ce_ext.shapes import opmath_dtype

HALVES = (torch.float16, torch.bfloat16)


def promoted(input: Tensor, *others: Tensor | None) -> tuple[Tensor, torch.dtype | None]:
    """What torch promotes a loss of floating tensors to, or None for the dtype of the input, and the input for it.

    Half inputs are computed in float32 without being copied; others that a wider tensor promotes are cast.
    """
    dtype = given = input.dtype
    for other in others:
        if other is not None and other.dtype != given and other.is_floating_point():
            dtype = torch.promote_types(dtype, other.dtype)
    if dtype == given:
        return input, None
    return (input if dtype == opmath_dtype(input) else input.to(dtype)), dtype


def taken(input: Tensor, factor: Tensor) -> Tensor:
    """A floating tensor in a dtype that ops take: that of the input, or the one that it is computed in."""
    if factor.dtype == input.dtype or not factor.is_floating_point():
        return factor
    return factor.to(opmath_dtype(input))


def of_loss(input: Tensor) -> torch.dtype:
    """The dtype that an op gives to a loss if it is asked for none: csrc/host/autocast.cpp has the rule."""
    device = input.device.type  # of which meta has no autocast to ask for
    is_autocast = input.dtype in HALVES and device != "meta" and torch.is_autocast_enabled(device)
    return torch.float32 if is_autocast else input.dtype


def of_kernel(input: Tensor, dtype: torch.dtype | None) -> torch.dtype | None:
    """The dtype to ask an op for, in order to get a loss of this one."""
    return dtype if dtype is None or dtype == input.dtype else opmath_dtype(input)
