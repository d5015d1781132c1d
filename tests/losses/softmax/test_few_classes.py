"""Every number of classes around those that vectors hold: rows of them are transposed in blocks of several widths."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ce_ext.functional import cross_entropy, log_softmax
from tests.support import oracles
from tests.support.cases import CROSS_ENTROPY, DTYPES
from tests.support.comparison import assert_all_rounded, loss_and_gradients, to_double
from tests.support.layouts import crop, misaligned

pytestmark = pytest.mark.kernel

CLASSES = range(1, 36)
ROWS = 53  # three vectors of 16, and a part of one


LAYOUTS = pytest.mark.parametrize("layout", [Tensor.clone, crop, misaligned], ids=["dense", "crop", "misaligned"])
EVERY_DTYPE = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def _check(
    function: Callable[..., Tensor], oracle: Callable[..., Tensor], layout: Callable[[Tensor], Tensor], *tensors: Tensor
) -> None:
    grad_output = torch.linspace(1, 2, function(*tensors).numel(), dtype=torch.float64).to(tensors[0])
    grad_output = grad_output.reshape(function(*tensors).shape)
    exact = loss_and_gradients(oracle, *to_double(*tensors), grad_output=grad_output)
    assert_all_rounded(loss_and_gradients(function, *map(layout, tensors), grad_output=grad_output), exact, scale=1)


def _logits(classes: int, dtype: torch.dtype, device: str, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(100 * classes + seed)
    return torch.randn(ROWS, classes, generator=generator, dtype=torch.float64).to(device, dtype)


@EVERY_DTYPE
@LAYOUTS
def test_class_indices(layout: Callable[[Tensor], Tensor], dtype: torch.dtype, device: str) -> None:
    for classes in CLASSES:
        target = torch.arange(ROWS, device=device) % classes
        for some_ignored in (False, True):
            if some_ignored:
                target[5::7] = -100
            _check(
                lambda x, y: cross_entropy(x, y, reduction="none"),
                lambda x, y: CROSS_ENTROPY.oracle(x, y, reduction="none"),
                lambda x: layout(x) if x.is_floating_point() else x,
                _logits(classes, dtype, device),
                target,
            )


@EVERY_DTYPE
@LAYOUTS
def test_class_probabilities(layout: Callable[[Tensor], Tensor], dtype: torch.dtype, device: str) -> None:
    for classes in CLASSES:
        _check(
            lambda x, q: cross_entropy(x, q, reduction="none"),
            lambda x, q: oracles.soft_cross_entropy(x, q, reduction="none"),
            layout,
            _logits(classes, dtype, device),
            _logits(classes, torch.float32, device, seed=1).softmax(1).to(dtype),
        )


@EVERY_DTYPE
@LAYOUTS
def test_log_softmax(layout: Callable[[Tensor], Tensor], dtype: torch.dtype, device: str) -> None:
    for classes in CLASSES:
        _check(
            lambda x: log_softmax(x, 1),
            lambda x: torch.log_softmax(x, 1),
            layout,
            _logits(classes, dtype, device),
        )
