"""Marks that several test files use."""

import pytest

from tests import cuda_emu
from tests.cases import LOSSES

ALL_LOSSES = pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.name)
ALL_REDUCTIONS = pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
NEEDS_EMULATOR = pytest.mark.skipif(not cuda_emu.IS_SUPPORTED, reason="the emulator runs on x86-64 Linux")
