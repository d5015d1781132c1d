"""Marks that several test files use."""

import pytest

from tests import cuda_emu
from tests.cases import LOSSES

ALL_LOSSES = pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.name)
# Not those of log-probabilities, which are linear in them: their gradients have no derivatives.
SOFTMAX_LOSSES = pytest.mark.parametrize("loss", [x for x in LOSSES if x.takes_logits], ids=lambda loss: loss.name)
# With each of its variants: a test that takes `loss` and `extras`.
ALL_VARIANTS = pytest.mark.parametrize(
    ("loss", "extras"),
    [
        pytest.param(loss, extras, id="-".join([loss.name, *(f"{name}={value}" for name, value in extras.items())]))
        for loss in LOSSES
        for extras in loss.variants
    ],
)
ALL_REDUCTIONS = pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
NEEDS_EMULATOR = pytest.mark.skipif(not cuda_emu.IS_SUPPORTED, reason="the emulator runs on x86-64 Linux")
