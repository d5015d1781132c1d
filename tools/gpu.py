"""Build, benchmark, test and sanitize on a machine with a GPU, with the torch that it has and no network.

Every stage is a command with a time limit and a log of its own. One that fails does not stop those after it. What is
worth most comes first, since all of them together have a limit, too, and the last has to do with what is left of it.
"""

from __future__ import annotations

import argparse
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

try:
    import torch
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table
except ModuleNotFoundError as missing:
    sys.exit(f"gpu: {sys.executable} has no {missing.name}; name a Python that has (make gpu PYTHON=...)")

from benchmarks.compact import compact
from benchmarks.record import merge, parse, write

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "ce_ext"
RESULTS = "benchmark.json"
PARTS = ("benchmark-first.json", "benchmark-others.json")  # which it is made of
WIDTH = 170
LAST_LINES = 15  # of the log of a stage that failed
LIMIT = 540  # seconds of all stages: with the start of a machine that is lent for ten minutes, it is enough
LISTED_FAILURES = 5  # of the benchmark, in the summary

# Sanitizers make every launch slow. These shapes take every form of the kernels: by row, with more rows than are summed
# at a time; by class, for every length of the table, in parts, in clusters; with classes that lie apart. Rows are odd
# or misaligned. All options at once, and the gradient in the forward pass, are kernels of their own. The other losses
# of softmax share those of cross entropy. Those of elements go through several shares, in packs and in runs. A sum
# takes the kernels of a mean, and float16 those of bfloat16. Of the combinations of options one of every kind will do.
FEW_TESTS = (
    "((softmax and test_values and test_loss_and_gradient and cross_entropy or test_values_and_gradient)"
    " and (9000x3 or 3x257 or 2x9000 or 2x130x5x3) and not thorough"
    " or test_options and True and mean-all or test_gradient_in_forward and all-mean"
    " or test_policy and test_entry or test_bad_targets and test_report"
    " or test_long_rows and 40000 and (cross_entropy or class_probabilities)"
    " or test_layout[ and misaligned and not nll and not focal"
    " or test_images and test_options and weight and (24- or 150-)"
    " or sigmoid and test_values and bfloat16 and (test_loss_and_gradients and 3x8200 or one_hot and -int64))"
    " and not sum and not -float16"
)


@dataclass(frozen=True)
class Stage:
    name: str
    limit: int  # seconds
    command: Sequence[str]
    environment: dict[str, str] = field(default_factory=dict)
    findings: Sequence[str] = ()  # patterns, whose last matches in the log tell the summary how it went
    is_usual: bool = True  # else it is run where it is asked for


@dataclass(frozen=True)
class Outcome:
    stage: Stage
    verdict: str
    seconds: float
    log: str

    @property
    def findings(self) -> str:
        matches = (re.findall(pattern, self.log, re.MULTILINE) for pattern in self.stage.findings)
        found = [match[-1] for match in matches if match]
        return "; ".join(found) if found or self.verdict == "ok" else self.last_lines(1)

    def last_lines(self, count: int) -> str:
        return "\n".join(self.log.rstrip().splitlines()[-count:])


def stages(folder: Path) -> list[Stage]:
    """In the order of their worth."""
    python = sys.executable
    pytest = (python, "-m", "pytest", "-q", "--device", "cuda")
    benchmark = (python, "-m", "benchmarks", "--device", "cuda")
    tests = r"(\d+ (?:failed|passed|skipped|deselected|error).*) in [\d.]+s"
    not_timed = (r"^not timed: (.*)",)
    path = os.pathsep.join([os.environ["PATH"], os.environ.get("CUDA_HOME", "/usr/local/cuda") + "/bin"])
    # setup.py needs build_backend, where pip would find it. Peers may have come by PYTHONPATH, too.
    python_path = os.pathsep.join(filter(None, [str(ROOT / "build_backend"), os.environ.get("PYTHONPATH")]))
    # All cores: the free memory, which setup.py goes by, is little where a virtual machine gets more as it needs it.
    cores = len(os.sched_getaffinity(0))
    jobs = os.environ.get("MAX_JOBS", str(cores))

    def sanitize(tool: str, **environment: str) -> Stage:
        command = [shutil.which("compute-sanitizer", path=path) or "compute-sanitizer", "--tool", tool]
        command += ["--kernel-name", "kernel_substring=ce_ext"]  # torch's own kernels are not our business
        command += ["--report-api-errors", "no"]  # nor are the calls by which torch probes the driver
        command += ["--launch-timeout", "0"]  # importing torch can take longer than it would wait
        command += ["--error-exitcode", "1", *pytest, "-m", "kernel", "-k", FEW_TESTS]
        command += ["tests/losses", "tests/cuda"]  # to look for them elsewhere, too, takes seconds
        return Stage(tool, 55, command, environment, (tests, r"SUMMARY: (.*)"))

    return [
        # In place, because pip would change the environment, and Debian's Python forbids that.
        Stage(
            "build",
            110,
            (python, "setup.py", "build_ext", "--inplace"),
            {"CE_EXT_CUDA": "1", "MAX_JOBS": jobs, "PYTHONPATH": python_path},
            (r"^ce_ext: (.*)",),
        ),
        # Every function once, against float64: whether anything works at all.
        Stage("smoke", 30, (*benchmark, "--quick", "--budget", "0.05"), findings=not_timed),
        Stage(
            "bench",
            150,
            (*benchmark, "--parts", "first", "--budget", "1.5", "--json", str(folder / PARTS[0])),
            findings=not_timed,
        ),
        # One of every kind of combinations, as everywhere; to combine all takes twice as long.
        Stage(
            "test",
            85,
            (*pytest, *(("-n", str(min(12, cores)), "--dist", "worksteal") if find_spec("xdist") else ())),
            {"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "passive"},  # of as many workers as cores none waits busily
            (tests,),
        ),
        # Without torch's cache of memory every tensor ends where its allocation does.
        sanitize("memcheck", PYTORCH_NO_CUDA_MEMORY_CACHING="1"),
        sanitize("racecheck"),
        sanitize("synccheck"),
        Stage(
            "bench-others",
            150,
            (*benchmark, "--parts", "others", "--budget", "1.5", "--json", str(folder / PARTS[1])),
            findings=not_timed,
        ),
        Stage(
            "sweep",
            530,
            (python, "-m", "benchmarks.sweep", "--budget", "440", "--json", str(folder / "sweep.json")),
            findings=(r"^(\d+ of \d+ entries change)", r"^(out of time: .*)", r"^not timed: (.*)"),
            is_usual=False,
        ),
    ]


def take_prebuilt(folder: Path) -> str | None:
    """Copies the libraries that were built elsewhere, unless they do not fit; then it says why."""
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    files = [*folder.glob(f"*{suffix}"), *folder.glob("_built_with.py")]
    if not {f"_C{suffix}", f"_cuda{suffix}", "_built_with.py"} <= {file.name for file in files}:
        return f"{folder} has no _C and _cuda for this Python, or no _built_with.py"
    facts = runpy.run_path(str(folder / "_built_with.py"))
    capability = ".".join(map(str, torch.cuda.get_device_capability()))
    for name, here, built in (
        ("torch", torch.__version__, [facts["TORCH"]]),
        ("capability", capability, facts.get("CUDA_ARCHS", "none").removesuffix("+PTX").split(";")),
    ):
        if here not in built:
            return f"they are for {name} {', '.join(built)}, and this is {here}"
    for file in files:
        shutil.copy(file, PACKAGE)
    return None


def run(stage: Stage, folder: Path) -> Outcome:
    log = folder / f"{stage.name}.log"
    begin = time.monotonic()
    with log.open("w") as output:
        try:
            process = subprocess.Popen(
                stage.command,
                cwd=ROOT,
                env=os.environ | {"PYTHONUNBUFFERED": "1"} | stage.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                preexec_fn=_lead_a_group,
            )
        except OSError as error:
            output.write(f"{error}\n")
            verdict = "FAILED"
        else:
            try:
                verdict = "FAILED" if process.wait(stage.limit) else "ok"
            except subprocess.TimeoutExpired:
                verdict = "TIMED OUT"
            finally:
                end(process)
    return Outcome(stage, verdict, time.monotonic() - begin, log.read_text(errors="replace"))


def _lead_a_group() -> None:
    os.setpgrp()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # which a shell has its background processes ignore


def end(leader: subprocess.Popen[bytes]) -> None:
    """Ends whatever is left of the leader's process group: asks first, so that pytest says what has failed, and ninja
    stops its compilers."""
    with suppress(ProcessLookupError):  # nothing is left
        os.killpg(leader.pid, signal.SIGINT)
        for _ in range(50):
            leader.poll()
            os.killpg(leader.pid, 0)
            time.sleep(0.1)
        os.killpg(leader.pid, signal.SIGKILL)
    leader.wait()


def summarize(outcomes: Sequence[Outcome], record: dict[str, Any] | None, console: Console) -> None:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("stage", "result", "seconds", "limit", "in short"):
        table.add_column(column, justify="right" if column in ("seconds", "limit") else "left", no_wrap=True)
    for outcome in outcomes:
        color = "green" if outcome.verdict == "ok" else "bold red"
        verdict = f"[{color}]{outcome.verdict}[/]"
        stage = outcome.stage
        table.add_row(stage.name, verdict, f"{outcome.seconds:.0f}", str(stage.limit), escape(outcome.findings))
    console.print(table)
    if record is None:
        return
    console.print("{device}, driver {driver}, torch {torch}; {date}, commit {commit}".format(**record["environment"]))
    console.print(compact(record))
    failures = record["failures"]
    for failure in failures[:LISTED_FAILURES]:
        [first_line, *_] = failure.splitlines()
        console.print(f"not timed: {first_line}", no_wrap=True, overflow="ellipsis", markup=False)
    if len(failures) > LISTED_FAILURES:
        console.print(f"... and {len(failures) - LISTED_FAILURES} more: see bench.log")


def benchmark_record(folder: Path) -> dict[str, Any] | None:
    """That of all stages that have left one, which it also writes down."""
    parts = [parse((folder / name).read_text()) for name in PARTS if (folder / name).exists()]
    if not parts:
        return None
    record = merge(parts)
    write(record, folder / RESULTS)
    return record


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.gpu", description=__doc__)
    parser.add_argument("folder", type=Path, help=f"where logs, {RESULTS} and summary.txt go")
    names = [stage.name for stage in stages(Path())]
    usual = [stage.name for stage in stages(Path()) if stage.is_usual]
    help = f"of {names}; usually {usual}"
    parser.add_argument("--stages", nargs="+", choices=names, default=usual, metavar="STAGE", help=help)
    parser.add_argument("--limit", type=float, default=LIMIT, metavar="SECONDS", help="of all stages together")
    help = "with libraries that were built elsewhere, and their _built_with.py: where they fit, nothing is built"
    parser.add_argument("--prebuilt", type=Path, metavar="FOLDER", help=help)
    options = parser.parse_args()
    if options.stages != ["build"] and not torch.cuda.is_available():
        sys.exit(f"gpu: torch {torch.__version__} sees no GPU on this machine")

    deadline = time.monotonic() + options.limit
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    asked_for = [stage for stage in stages(folder) if stage.name in options.stages]
    if any(stage.name.startswith("bench") for stage in asked_for):
        for name in (RESULTS, *PARTS):
            (folder / name).unlink(missing_ok=True)  # of an earlier run
    console = Console()
    if not console.is_terminal:
        console.width = WIDTH
    if options.prebuilt:
        misfit = take_prebuilt(options.prebuilt)
        if misfit is None:
            asked_for = [stage for stage in asked_for if stage.name != "build"]
        how = f"are not taken: {misfit}" if misfit else "are taken, and nothing is built"
        console.print(f"the libraries of {options.prebuilt} {how}", highlight=False, soft_wrap=True)
    outcomes = []
    for stage in asked_for:
        left = int(deadline - time.monotonic())
        if left <= 0:
            outcomes.append(Outcome(stage, "NO TIME", 0, ""))
            continue
        stage = replace(stage, limit=min(stage.limit, left))
        console.print(f"{stage.name}: at most {stage.limit} s, log in {folder / stage.name}.log", highlight=False)
        outcome = run(stage, folder)
        outcomes.append(outcome)
        if outcome.verdict != "ok":
            last_lines = outcome.last_lines(LAST_LINES)
            console.print(last_lines, markup=False, highlight=False, no_wrap=True, overflow="ellipsis")
    record = benchmark_record(folder) if any(stage.name.startswith("bench") for stage in asked_for) else None
    with (folder / "summary.txt").open("w") as file:
        for place in (Console(file=file, width=WIDTH), console):
            summarize(outcomes, record, place)
    return int(any(outcome.verdict != "ok" for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
