"""Count the instructions per element of every CPU kernel, and refuse those that take more than was recorded.

Counts show on any machine what times show on a quiet one alone, but know nothing of memory and caches. They depend on
the compiler, and are compared with a record of the same one only.
"""

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from rich import box
from rich.table import Table

from benchmarks.callgrind import ISA, count
from benchmarks.console import make_console
from benchmarks.kernel_calls import CALLS
from ce_ext import _C, _load

RECORD = Path(__file__).parent / "results" / f"instructions-{ISA}.json"
PROGRAM = "from benchmarks.kernel_calls import CALLS, run; run(CALLS)"
TOLERANCE = 0.05
HOW_TO_RECORD = (
    "make bench-instructions ARGS=--record writes these counts down; a commit that makes a kernel dearer says why"
)

Counts = dict[str, float]  # instructions per element, by the name of the kernel


def setup() -> dict[str, str]:
    """What the counts depend on, besides the sources."""
    runs_it = _load.cpu_library()[0] != "default"  # whatever has AVX-512 has AVX2
    return {
        "compiler": _C.compiler,
        "torch": _C.torch_version,
        "instruction set": ISA if runs_it else "default",
        "valgrind": _valgrind_version(),
    }


def _valgrind_version() -> str:
    if not shutil.which("valgrind"):
        return "missing"
    version = subprocess.run(["valgrind", "--version"], capture_output=True, text=True, check=True).stdout
    return version.strip().removeprefix("valgrind-")


def count_all() -> Counts:
    names = [(kernel, call.elements) for call in CALLS for kernel in call.kernels]
    counts = zip(names, count(PROGRAM), strict=True)
    return {kernel: round(instructions / elements, 3) for (kernel, elements), instructions in counts}


def faults(counts: Counts, recorded: Counts) -> Iterator[str]:
    """What there is to refuse."""
    for kernel, new in counts.items():
        if kernel not in recorded:
            yield f"{kernel}: it is not in the record"
        elif _change(new, recorded[kernel]) > TOLERANCE:
            yield f"{kernel}: {_compared(new, recorded[kernel])}"
    for kernel in recorded:
        if kernel not in counts:
            yield f"{kernel}: it is in the record, but there is no such kernel"


def gains(counts: Counts, recorded: Counts) -> Iterator[str]:
    """What to record, lest it get lost unnoticed."""
    for kernel, new in counts.items():
        if kernel in recorded and _change(new, recorded[kernel]) < -TOLERANCE:
            yield f"{kernel}: {_compared(new, recorded[kernel])}"


def _change(new: float, old: float) -> float:
    return new / old - 1


def _compared(new: float, old: float) -> str:
    return f"{new:.2f} instructions per element, recorded {old:.2f}, {_change(new, old):+.1%}"


def describe(counts: Counts, recorded: Counts) -> Table:
    table = Table(title=f"CPU kernels, {ISA}", box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
    for column in ("loss", "dtype", "shape", "pass"):
        table.add_column(column, no_wrap=True)
    for column in ("instructions\nper element", "recorded", "change"):
        table.add_column(column, justify="right", no_wrap=True)
    for _, kernels in groupby(counts, key=lambda kernel: kernel.split(", ")[0]):
        for kernel in kernels:
            new, old = counts[kernel], recorded.get(kernel)
            comparison = (f"{old:.2f}", f"{_change(new, old):+.1%}") if old else ("-", "-")
            table.add_row(*kernel.split(", "), f"{new:.2f}", *comparison)
        table.add_section()
    return table


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.instructions", description=__doc__)
    parser.add_argument("--record", action="store_true", help="write the counts down, for others to be compared with")
    options = parser.parse_args()
    console = make_console()

    record, here = json.loads(RECORD.read_text()), setup()
    if options.record:
        if here["valgrind"] == "missing" or here["instruction set"] != ISA:
            parser.error(f"counting takes valgrind and {ISA}")
    elif others := [f"{name} is {here[name]}, not {was}" for name, was in record["setup"].items() if here[name] != was]:
        console.print("bench-instructions: skipped, the record is of another setup:", "; ".join(others), soft_wrap=True)
        return 0

    counts, recorded = count_all(), record["instructions_per_element"]
    console.print(describe(counts, recorded))
    if options.record:
        RECORD.write_text(json.dumps({"setup": here, "instructions_per_element": counts}, indent=2) + "\n")
        return 0
    refused, cheaper = list(faults(counts, recorded)), list(gains(counts, recorded))
    for fault in refused:
        console.print("[bold red]refused:[/]", fault, highlight=False, soft_wrap=True)
    for gain in cheaper:
        console.print("[bold green]cheaper:[/]", gain, highlight=False, soft_wrap=True)
    if refused or cheaper:
        console.print(HOW_TO_RECORD)
    else:
        console.print(f"{len(counts)} kernels: none takes {TOLERANCE:.0%} more or less than recorded")
    return int(bool(refused))


if __name__ == "__main__":
    sys.exit(main())
