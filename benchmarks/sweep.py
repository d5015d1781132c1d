"""Time the teams of threads that could share a row in the CUDA kernels, and print the table of policy.cuh with those
that are faster than its own.

A team is timed once its results agree with those of the table, in turns with all others that are worth a try for rows
of that length.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial, reduce
from pathlib import Path
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.cases import Case
from benchmarks.ceilings import measure_ceilings
from benchmarks.console import make_console
from benchmarks.environment import describe
from benchmarks.floors import floors
from benchmarks.functions import CROSS_ENTROPY
from benchmarks.inputs import make_inputs
from benchmarks.limits import Ceilings, Floor
from benchmarks.oracle import Truth, WrongResultError, check
from benchmarks.passes import BACKWARD, BOTH, FORWARD, RUNS
from benchmarks.policy import PASSES, Entry, best, candidates, covering, parse
from benchmarks.timing import Clock, Step, Timing, kernel_clock, time_interleaved

# Where entries of the table end, and between; of the vocabularies of Llama 2, GPT-2, whose rows are misaligned, and
# Llama 3 in either dtype.
BYTES = (256, 512, 1024, 2048, 3000, 4096, 8192, 16_384, 32_768, 64_000, 100_514, 131_072, 256_512, 513_024, 1_048_576)
DTYPES = ("bfloat16", "float32")
INPUT_BYTES = 256 << 20  # a tenth of a millisecond at 3 TB/s, in which a launch is lost
MIN_ROWS = 512  # of fewer that are long, several teams share one, and the table says little
# The op that takes a pass, what of it is timed, and what gives the gradient to compare.
CALLS = {
    "forward": (CROSS_ENTROPY.function, FORWARD, FORWARD),
    "backward": (CROSS_ENTROPY.function, BACKWARD, BACKWARD),
    "with_grad": (partial(CROSS_ENTROPY.function, grad_in_forward=True, loss_scale=1.0), FORWARD, BOTH),
}


@dataclass(frozen=True)
class Problem:
    pass_name: str
    dtype_name: str
    rows: int
    classes: int

    @classmethod
    def of(cls, pass_name: str, dtype_name: str, row_bytes: int) -> "Problem":
        classes = row_bytes // getattr(torch, dtype_name).itemsize
        return cls(pass_name, dtype_name, max(MIN_ROWS, INPUT_BYTES // row_bytes), classes)

    @property
    def dtype(self) -> torch.dtype:
        return getattr(torch, self.dtype_name)

    @property
    def row_bytes(self) -> int:
        return self.classes * self.dtype.itemsize

    def __str__(self) -> str:
        return f"{self.pass_name}, {self.dtype_name}, {self.rows}x{self.classes}"


@dataclass(frozen=True)
class Measurement:
    problem: Problem
    entry: Entry  # the one that the table has for it
    floor: Floor
    timings: dict[int, Timing]  # by team
    failures: list[str]

    def of_ceiling(self, threads: int, rates: Ceilings) -> float:
        return self.floor.bytes / self.timings[threads].median * 1e-9 / self.floor.ceiling(rates)


def measure(
    problem: Problem, entry: Entry, teams: Sequence[int], device: str, clock: Clock, budget: float
) -> Measurement:
    """Times the entry's own team and those of `teams` that give the same results."""
    override = torch.ops.ce_ext.override_cuda_policy
    call, timed_pass, checked_pass = CALLS[problem.pass_name]
    # A sum, because a mean would have the gradient wait for a kernel that counts the rows.
    inputs = make_inputs(Case(CROSS_ENTROPY, (problem.rows, problem.classes), problem.dtype, "sum"), device)
    forward, backward = floors(CROSS_ENTROPY, inputs)
    inputs.input.requires_grad_(problem.pass_name != "forward")
    override("")
    timed, checked = RUNS[timed_pass](call, inputs), RUNS[checked_pass](call, inputs)
    loss, gradient = checked()
    truth = Truth(loss.detach(), gradient, problem.dtype)
    steps: dict[int, Step] = {}
    failures = []
    for threads in dict.fromkeys((entry.threads, *teams)):
        use = partial(override, f"{entry.name}={threads}")
        try:
            use()
            check(*checked(), truth, is_ours=True)
            steps[threads] = Step(timed, restore=use)
        except (WrongResultError, RuntimeError) as error:  # a launch may ask for more registers than there are
            failures.append(f"{problem}, {threads} threads: {error}")
    timings = time_interleaved({str(threads): step for threads, step in steps.items()}, clock, budget)
    override("")
    floor = forward if problem.pass_name == "forward" else backward
    return Measurement(problem, entry, floor, {threads: timings[str(threads)] for threads in steps}, failures)


def improved(entries: Sequence[Entry], measurements: Sequence[Measurement]) -> list[tuple[Entry, float]]:
    """The table with the teams that win, and what they gain."""
    return [best(entry, [m.timings for m in measurements if m.entry == entry]) for entry in entries]


def as_json(
    environment: dict[str, Any],
    ceilings: dict[str, Ceilings],
    measurements: Sequence[Measurement],
    table: Sequence[tuple[Entry, float]],
) -> dict[str, Any]:
    rates = reduce(Ceilings.best, ceilings.values())
    return {
        "environment": environment,
        "ceilings_gb_per_second": {when: asdict(found) for when, found in ceilings.items()},
        "measurements": [
            {
                **asdict(m.problem),
                "entry": str(m.entry),
                "threads": threads,
                "seconds": asdict(timing),
                "of_ceiling": m.of_ceiling(threads, rates),
            }
            for m in measurements
            for threads, timing in m.timings.items()
        ],
        "failures": [failure for m in measurements for failure in m.failures],
        "table": [{"entry": str(entry), "gain": gain} for entry, gain in table],
    }


def show(measurements: Sequence[Measurement], rates: Ceilings, console: Console) -> None:
    table = Table(title="Medians of the table and of the fastest", box=box.SIMPLE_HEAD, title_justify="left")
    for column in ("problem", "entry", "ms", "of ceiling", "fastest", "ms", "of ceiling", "gain"):
        table.add_column(column, justify="left" if column in ("problem", "entry", "fastest") else "right", no_wrap=True)
    for m in measurements:
        fastest = min(m.timings, key=lambda threads: m.timings[threads].median)
        usual, least = (m.timings[threads].median for threads in (m.entry.threads, fastest))
        table.add_row(
            str(m.problem),
            str(m.entry),
            f"{usual * 1e3:.3f}",
            f"{m.of_ceiling(m.entry.threads, rates):.0%}",
            str(fastest),
            f"{least * 1e3:.3f}",
            f"{m.of_ceiling(fastest, rates):.0%}",
            f"{usual / least:.2f}x",
        )
    console.print(table)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sweep", description=__doc__)
    parser.add_argument("--passes", nargs="+", choices=PASSES, default=tuple(PASSES))
    parser.add_argument("--bytes", nargs="+", type=int, default=BYTES, help="the lengths of rows")
    parser.add_argument("--budget", type=float, default=400, metavar="SECONDS", help="for all; what is left is skipped")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every number")
    return parser.parse_args()


def main() -> int:
    options = parse_options()
    if not torch.cuda.is_available():
        sys.exit(f"sweep: torch {torch.__version__} sees no GPU on this machine")
    deadline = time.monotonic() + options.budget
    console = make_console()
    torch.ops.ce_ext.override_cuda_policy("")
    entries = parse(torch.ops.ce_ext.cuda_policy())
    problems = [Problem.of(p, dtype, n) for p in options.passes for n in options.bytes for dtype in DTYPES]
    environment = describe("cuda")
    clock = kernel_clock("cuda")
    ceilings = {"before": measure_ceilings("cuda")}
    measurements: list[Measurement] = []

    def save() -> None:
        if options.json:
            record = as_json(environment, ceilings, measurements, improved(entries, measurements))
            options.json.write_text(json.dumps(record, indent=2) + "\n")

    # Refreshed by hand: a thread that redraws would disturb the timing.
    with Progress(console=console, transient=True, auto_refresh=False) as progress:
        task = progress.add_task("sweep", total=len(problems))
        for number, problem in enumerate(problems):
            budget = (deadline - time.monotonic()) / (len(problems) - number)
            if budget <= 0:
                console.print(f"out of time: {problem} and what follows it are skipped")
                break
            progress.update(task, description=str(problem), refresh=True)
            entry = covering(entries, problem.pass_name, problem.row_bytes)
            teams = candidates(problem.pass_name, problem.row_bytes)
            measurements.append(measure(problem, entry, teams, "cuda", clock, budget))
            save()  # already now: a later kernel may end the process
            progress.advance(task)
    ceilings["after"] = measure_ceilings("cuda")

    save()
    show(measurements, reduce(Ceilings.best, ceilings.values()), console)
    table = improved(entries, measurements)
    for entry, gain in table:
        console.print(entry.as_cpp() + (f"  // {gain:.2f}x" if gain > 1 else ""), highlight=False)
    failures = [failure for m in measurements for failure in m.failures]
    for failure in failures:
        console.print(f"not timed: {failure}", markup=False, highlight=False)
    console.print(f"{sum(gain > 1 for _, gain in table)} of {len(table)} entries change", highlight=False)
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
