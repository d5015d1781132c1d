"""How results are compared: with float64, to the rounding of their dtype."""

import torch
from torch import Tensor

from tests.cases import ROUNDING


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
