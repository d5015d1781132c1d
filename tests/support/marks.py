"""Marks that several test files use."""

from collections.abc import Iterable

import pytest
import torch

from tests import cuda_emu
from tests.support.binary_cases import BCE, BINARY_LOSSES
from tests.support.cases import CLASS_LOSSES, Loss
from tests.support.losses import LOSSES


def _of(losses: Iterable[Loss]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("loss", list(losses), ids=lambda loss: loss.name)


ALL_LOSSES = _of(LOSSES)
ALL_CLASS_LOSSES = _of(CLASS_LOSSES)
ALL_BINARY_LOSSES = _of(BINARY_LOSSES)
LOGIT_LOSSES = _of(loss for loss in BINARY_LOSSES if loss is not BCE)
SOFTMAX_LOSSES = _of(loss for loss in CLASS_LOSSES if loss.reads_all)
CURVED_LOSSES = _of(loss for loss in LOSSES if loss.reads_all)  # those that are not linear
# With each of its variants: a test that takes `loss` and `extras`.
ALL_VARIANTS = pytest.mark.parametrize(
    ("loss", "extras"),
    [
        pytest.param(loss, extras, id="-".join([loss.name, *(f"{name}={value}" for name, value in extras.items())]))
        for loss in CLASS_LOSSES
        for extras in loss.variants
    ],
)
ALL_REDUCTIONS = pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
# One that kernels compute in, and one that they do not: to dispatcher and compilers, others are like one of them.
KINDS_OF_DTYPES = pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
NEEDS_EMULATOR = pytest.mark.skipif(not cuda_emu.IS_SUPPORTED, reason="the emulator runs on x86-64 Linux")
