"""The table that every test file and the benchmarks are driven by: one row a loss."""

from tests.binary_cases import BINARY_LOSSES
from tests.cases import CLASS_LOSSES

LOSSES = (*CLASS_LOSSES, *BINARY_LOSSES)
