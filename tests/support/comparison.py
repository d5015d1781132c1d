"""How results are compared: with float64, to the rounding of their dtype."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils import _pytree

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


def assert_all_rounded(
    actual: list[Tensor],
    exact: list[Tensor],
    roundings: float = 3,
    scale: float = 0.0,
    terms: list[Tensor] | None = None,
) -> None:
    """The loss to the rounding of its dtype, gradients to that of their largest element, or of `scale`.

    Where gradients are sums that may cancel, `terms` are the results if nothing did. To the largest of them gradients
    are as good as the dtype that kernels compute in.
    """
    assert_rounded(actual[0], exact[0], roundings, scale)
    for ours, theirs, uncancelled in zip(actual[1:], exact[1:], (terms or exact)[1:], strict=True):
        opmath = ROUNDING[torch.promote_types(ours.dtype, torch.float32)] / ROUNDING[ours.dtype]
        largest = max(_largest(theirs), _largest(uncancelled) * opmath)
        assert_rounded(ours, theirs, roundings, max(scale, largest))


def _largest(x: Tensor) -> float:
    return x.nan_to_num().abs().max().item()


def on_cpu(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """torch's own, whose CUDA kernels have a 0 for the mean over a single row that is ignored, and its others NaN."""

    def call(input: Tensor, *others: Any, **options: Any) -> Tensor:
        others, options = _pytree.tree_map_only(Tensor, Tensor.cpu, (others, options))
        return function(input.cpu(), *others, **options).to(input.device)

    return call


def to_double(*tensors: Any) -> list[Any]:
    return [x.double() if isinstance(x, Tensor) and x.is_floating_point() else x for x in tensors]


def assert_reported(place: int, value: int, classes: int) -> None:
    """That a CUDA kernel has found this target out of bounds."""
    with pytest.raises(IndexError, match=rf"target.flatten\(\)\[{place}\] = {value} .* {classes} classes"):
        ce_ext.cuda.check()
