"""The words of losses/math.h that losses of elements are made of, all along their ranges: against float64."""

import ctypes
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tests.cuda_emu import Emulator
from tests.support.marks import NEEDS_EMULATOR

pytestmark = NEEDS_EMULATOR

# The end of the range that begins with 0, and the relative error, but for the 2e-7 that 2^x is off by on a GPU.
WORDS: dict[str, tuple[Callable[[Tensor], Tensor], float, float]] = {
    "exp_nonpositive": (torch.exp, -87.0, 4e-7),
    "log1p_unit": (torch.log1p, 1.0, 1.5e-7),
    "neg_log1m_half": (lambda x: -torch.log1p(-x), 0.5, 1.5e-7),
}


@pytest.mark.parametrize("word", WORDS)
def test_word(word: str, emulator: Emulator) -> None:
    exact, end, error = WORDS[word]
    evenly = torch.linspace(0, end, 1_000_001, dtype=torch.float64)
    tiny = torch.logspace(-37, 0, 1_000_001, dtype=torch.float64) * end
    x = torch.cat([evenly, tiny]).float().clamp(min(0.0, end), max(0.0, end))
    results = torch.empty_like(x)
    x_and_results = (ctypes.c_void_p(tensor.data_ptr()) for tensor in (x, results))
    emulator.kernels.compute(word.encode(), *x_and_results, ctypes.c_int64(len(x)))
    torch.testing.assert_close(results.double(), exact(x.double()), rtol=error, atol=0)
