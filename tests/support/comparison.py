"""How results are compared: with float64, to the rounding of their dtype."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import ce_ext
from tests.support.cases import ROUNDING


def assert_rounded(actual: Tensor, expected: Tensor, roundings: float = 1.0, scale: float = 0.0) -> None:
    """Within `roundings` relative roundings of the dtype of `actual`, or as much of `scale`.

    Half types have a subnormal range that float64 does not; below it the error is absolute.
    """
    relative = roundings * ROUNDING[actual.dtype]
    smallest = torch.finfo(actual.dtype).smallest_normal
    absolute = relative * max(scale, smallest if actual.dtype in (torch.float16, torch.bfloat16) else 0.0)
    torch.testing.assert_close(
        actual.double(), expected.double(), rtol=relative, atol=absolute, equal_nan=True, check_device=False
    )


def loss_and_gradients(
    function: Callable[..., Tensor], *tensors: Tensor, grad_output: Tensor | None = None
) -> list[Tensor]:
    """The loss, and its gradients in the floating tensors."""
    leaves = [x.detach().requires_grad_(x.is_floating_point()) for x in tensors]
    loss = function(*leaves)
    upstream = torch.ones_like(loss) if grad_output is None else grad_output.to(loss.dtype)
    return [loss.detach(), *torch.autograd.grad(loss, [x for x in leaves if x.requires_grad], upstream)]


def assert_all_rounded(actual: list[Tensor], exact: list[Tensor], roundings: float = 3, scale: float = 0.0) -> None:
    """The loss to the rounding of its dtype, gradients to that of their largest element, or of `scale`."""
    assert_rounded(actual[0], exact[0], roundings, scale)
    for ours, theirs in zip(actual[1:], exact[1:], strict=True):
        assert_rounded(ours, theirs, roundings, max(scale, theirs.nan_to_num().abs().max().item()))


def to_double(*tensors: Tensor) -> list[Tensor]:
    return [x.double() if x.is_floating_point() else x for x in tensors]


def assert_reported(place: int, value: int, classes: int) -> None:
    """That a CUDA kernel has found this target out of bounds."""
    with pytest.raises(IndexError, match=rf"target.flatten\(\)\[{place}\] = {value} .* {classes} classes"):
        ce_ext.cuda.check()
