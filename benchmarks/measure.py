"""One case from inputs to rows: check every provider, measure its memory, then time them all."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from benchmarks.cases import Case
from benchmarks.floors import Floor, floor
from benchmarks.memory import peak_extra_bytes
from benchmarks.oracle import check, exact
from benchmarks.providers import PROVIDERS, Function
from benchmarks.timing import Step, Timing, kernel_clock, time_interleaved, wall_clock

PASSES = ("forward", "forward+backward")


@dataclass(frozen=True)
class Row:
    """One provider in one pass of a case."""

    case: Case
    pass_name: str
    provider: str
    floor: Floor
    errors: dict[str, float]
    extra_bytes: int
    extra_per_input: float
    timing: Timing

    @property
    def gb_per_second(self) -> float:
        return self.floor.bytes / self.timing.best * 1e-9


def measure(case: Case, providers: Sequence[str], device: str, budget: float) -> tuple[list[Row], list[str]]:
    """The rows of the providers that passed the check, and what went wrong with the others."""
    input, target = case.loss.make_inputs(case.shape, case.dtype, device)
    truth = exact(case.loss, input, target)
    # Overhead is the host's time; otherwise only the kernels count.
    clock = wall_clock(device) if case.is_tiny else kernel_clock(device)
    rows, failures = [], []
    for pass_name in PASSES:
        with_backward = pass_name == "forward+backward"
        input.requires_grad_(with_backward)
        traffic = floor(input, target, with_backward)
        torch.compiler.reset()  # compile for this shape alone
        steps, errors, extra = {}, {}, {}
        with torch.set_grad_enabled(with_backward):
            for provider in providers:
                try:
                    step = _step(PROVIDERS[provider](case.loss), input, target)
                    input.grad = None
                    errors[provider] = check(step(), input.grad, truth)
                    input.grad = None
                    extra[provider] = peak_extra_bytes(step, device)
                    steps[provider] = step
                except Exception as error:  # of any kind: a peer's failure must not end the run
                    what = f"{type(error).__name__}: {error}"
                    failures.append(f"{provider}, {case}, {pass_name}: {what}")
            timings = time_interleaved(steps, clock, budget / len(PASSES))
        rows += [
            Row(case, pass_name, p, traffic, errors[p], extra[p], extra[p] / input.nbytes, timing)
            for p, timing in timings.items()
        ]
    return rows, failures


def _step(function: Function, input: Tensor, target: Tensor) -> Step:
    if not input.requires_grad:
        return partial(function, input, target)

    def forward_backward() -> Tensor:
        input.grad = None  # as in training: every gradient is newly allocated
        loss = function(input, target)
        loss.backward()
        return loss

    return forward_backward
