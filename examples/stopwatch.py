"""How long losses take, apart from the nets that they train."""

import time
from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

from torch import Tensor
from torch.autograd import grad

Name = TypeVar("Name", bound=Hashable)

ROUNDS = 10
SAMPLE_SECONDS = 0.1  # thousands of calls: the clock of a busy machine may stand still for milliseconds


def time_losses(losses: Mapping[Name, Callable[[], Tensor]], logits: Tensor) -> dict[Name, list[float]]:
    """Seconds a call, forward and backward, of each in every round, so that a noisy moment hits all of them alike."""
    seconds: dict[Name, list[float]] = {name: [] for name in losses}
    for _ in range(ROUNDS):
        for name, loss in losses.items():
            calls, start = 0, time.perf_counter()
            while (elapsed := time.perf_counter() - start) < SAMPLE_SECONDS:
                grad(loss(), logits)
                calls += 1
            seconds[name].append(elapsed / calls)
    return seconds
