"""The table that every test file and the benchmarks are driven by: one row a loss."""

from tests.support.binary_cases import BINARY_LOSSES
from tests.support.cases import CLASS_LOSSES

LOSSES = (*CLASS_LOSSES, *BINARY_LOSSES)
