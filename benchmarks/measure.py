"""One case from inputs to rows: check every provider, measure its memory, then time them all."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial

import torch

from benchmarks.cases import Case
from benchmarks.floors import floors
from benchmarks.inputs import Inputs, make_inputs
from benchmarks.limits import Floor
from benchmarks.memory import make_memory_fresh, peak_extra_bytes, warm_memory
from benchmarks.oracle import Truth, check, exact
from benchmarks.passes import BACKWARD, BOTH, FORWARD, PASSES, RUNS
from benchmarks.providers import PROVIDERS, Provider
from benchmarks.record import Key
from benchmarks.timing import Step, Timing, kernel_clock, may_wait_for_host, time_interleaved, wall_clock

# Of memory that is warm, in sizes of the input. It is more than anybody needs at a time, because holes that are left
# between tensors are often a little too small for the next.
WARM_SIZES = 8


@dataclass(frozen=True)
class Row:
    """One provider in one pass of a case."""

    case: Case
    pass_name: str
    provider: str
    floor: Floor
    errors: dict[str, float]
    extra_bytes: int
    timing: Timing
    may_have_gaps: bool  # in which the GPU waits for the host

    @property
    def key(self) -> Key:
        return Key(self.case.loss.name, self.case.dtype_name, self.case.label, self.pass_name)


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


def measure(
    case: Case, providers: Sequence[str], device: str, budget: float, passes: Sequence[str] = PASSES
) -> tuple[list[Row], list[Failure]]:
    """The rows of the providers that passed the check, and what went wrong with the others."""
    rows, failures = [], []
    try:
        inputs = make_inputs(case, device)
        truth = exact(case.loss, inputs)
    except torch.OutOfMemoryError as error:
        return [], [Failure("float64", case, str(error))]
    forward, backward = floors(case.loss, inputs)
    floor = {FORWARD: forward, BOTH: forward + backward, BACKWARD: backward}
    # Overhead is the host's time; otherwise only the kernels count.
    clock = wall_clock(device) if case.is_tiny else kernel_clock(device)
    for pass_name in passes:
        inputs.input.requires_grad_(pass_name != FORWARD)
        if pass_name in (passes[0], BOTH):  # after which backward alone takes the same
            torch.compiler.reset()  # compile for this shape alone
        entries: dict[str, _Entry] = {}
        if device == "cpu":
            make_memory_fresh()
        is_warm = pass_name == BACKWARD and device == "cpu"
        memory = warm_memory(WARM_SIZES * inputs.input.nbytes) if is_warm else nullcontext()
        with memory, torch.set_grad_enabled(pass_name != FORWARD):
            for name in providers:
                try:
                    if entry := _enter(PROVIDERS[name], case, inputs, pass_name, truth):
                        entries[name] = entry
                except Exception as error:  # of any kind: a peer's failure must not end the run
                    failures.append(Failure(name, case, f"{pass_name}: {type(error).__name__}: {error}"))
            steps = {name: entry.step for name, entry in entries.items()}
            timings = time_interleaved(steps, clock, budget / len(PASSES))
            gaps = {name: not case.is_tiny and may_wait_for_host(step, device) for name, step in steps.items()}
        inputs.input.grad = None
        for name, entry in entries.items():
            about = (floor[pass_name], entry.errors, entry.extra_bytes)
            rows.append(Row(case, pass_name, name, *about, timings[name], gaps[name]))
    return rows, failures


def _enter(provider: Provider, case: Case, inputs: Inputs, pass_name: str, truth: Truth) -> _Entry | None:
    """None if this is not for the provider."""
    has_pass = {FORWARD: provider.has_forward_alone, BOTH: True, BACKWARD: provider.has_backward_alone}
    call = provider.find(case) if has_pass[pass_name] else None
    if call is None:
        return None
    if provider.overwrites_input:
        pristine = inputs.input.detach()
        inputs = replace(inputs, input=pristine.clone().requires_grad_(inputs.input.requires_grad))
        step = Step(RUNS[pass_name](call, inputs), restore=partial(inputs.input.detach().copy_, pristine))
    else:
        step = Step(RUNS[pass_name](call, inputs))
    loss, gradient = step.call()
    errors = check(loss, gradient, truth, provider.is_ours)
    del loss, gradient
    inputs.input.grad = None
    step.restore()
    extra_bytes = peak_extra_bytes(step.call, inputs.input.device.type)
    inputs.input.grad = None
    return _Entry(step, errors, extra_bytes)
