"""One case from inputs to rows: check every provider, measure its memory, then time them all."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from benchmarks.cases import Case
from benchmarks.floors import Floor, floor
from benchmarks.memory import peak_extra_bytes
from benchmarks.oracle import Truth, check, exact
from benchmarks.providers import PROVIDERS, Function, Provider
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


@dataclass(frozen=True)
class Failure:
    """What a provider could not do, or got wrong."""

    provider: str
    case: Case
    error: str

    def __str__(self) -> str:
        return f"{self.provider}, {self.case}: {self.error}"


@dataclass(frozen=True)
class _Entry:
    """A provider that is right, and ready to be timed."""

    step: Step
    errors: dict[str, float]
    extra_bytes: int


def measure(case: Case, providers: Sequence[str], device: str, budget: float) -> tuple[list[Row], list[Failure]]:
    """The rows of the providers that passed the check, and what went wrong with the others."""
    rows, failures = [], []
    try:
        input, target = case.loss.make_inputs(case.shape, case.dtype, device)
        truth = exact(case.loss, input, target)
    except torch.OutOfMemoryError as error:
        return [], [Failure("float64", case, str(error))]
    # Overhead is the host's time; otherwise only the kernels count.
    clock = wall_clock(device) if case.is_tiny else kernel_clock(device)
    for pass_name in PASSES:
        with_backward = pass_name == "forward+backward"
        input.requires_grad_(with_backward)
        traffic = floor(case.loss, input, target, with_backward)
        torch.compiler.reset()  # compile for this shape alone
        entries: dict[str, _Entry] = {}
        with torch.set_grad_enabled(with_backward):
            for name in providers:
                try:
                    if entry := _enter(PROVIDERS[name], case, input, target, truth):
                        entries[name] = entry
                except Exception as error:  # of any kind: a peer's failure must not end the run
                    failures.append(Failure(name, case, f"{pass_name}: {type(error).__name__}: {error}"))
            steps = {name: entry.step for name, entry in entries.items()}
            timings = time_interleaved(steps, clock, budget / len(PASSES))
        rows += [
            Row(case, pass_name, name, traffic, e.errors, e.extra_bytes, e.extra_bytes / input.nbytes, timings[name])
            for name, e in entries.items()
        ]
    return rows, failures


def _enter(provider: Provider, case: Case, input: Tensor, target: Tensor, truth: Truth) -> _Entry | None:
    """None if this is not for the provider."""
    function = provider.find(case)
    if function is None or (provider.needs_backward and not input.requires_grad):
        return None
    if provider.overwrites_input:
        logits = input.detach().clone().requires_grad_(input.requires_grad)
        step = Step(_call(function, logits, target), restore=partial(logits.detach().copy_, input.detach()))
    else:
        logits = input
        step = Step(_call(function, logits, target))
    errors = check(step.call(), logits.grad, truth)
    logits.grad = None
    step.restore()
    extra_bytes = peak_extra_bytes(step.call, input.device.type)
    logits.grad = None
    return _Entry(step, errors, extra_bytes)


def _call(function: Function, logits: Tensor, target: Tensor) -> Callable[[], Tensor]:
    if not logits.requires_grad:
        return partial(function, logits, target)

    def forward_backward() -> Tensor:
        logits.grad = None  # as in training: every gradient is newly allocated
        loss = function(logits, target)
        loss.backward()
        return loss

    return forward_backward
