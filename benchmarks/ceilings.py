"""What the machine's memory gives to the simplest kernels: the yardstick for every loss."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.limits import Ceilings
from benchmarks.timing import Step, kernel_clock

# Much larger than the last-level cache.
BUFFER_BYTES = {"cpu": 256 << 20, "cuda": 1 << 30}
REPEATS = 20


def measure_ceilings(device: str) -> Ceilings:
    clock = kernel_clock(device)
    # Filled, not just allocated: the first touch of a page is far slower than any later one.
    source = torch.ones(BUFFER_BYTES[device] // 4, device=device)
    destination = torch.ones_like(source)

    def rate(call: Callable[[], Tensor], nbytes: int) -> float:
        return nbytes / min(clock(Step(call), 1) for _ in range(REPEATS)) * 1e-9

    return Ceilings(
        read=rate(source.sum, source.nbytes),
        copy=rate(lambda: destination.copy_(source), 2 * source.nbytes),
        fill_fresh=rate(lambda: torch.ones_like(source), source.nbytes),
    )
