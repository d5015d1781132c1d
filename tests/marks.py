"""Parameters that several test files run over."""

import pytest

from tests.cases import LOSSES

ALL_LOSSES = pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.name)
ALL_REDUCTIONS = pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
