"""Print what CUDA kernels use on three generations of GPUs, and refuse what makes them slow.

It reads the machine code of a library that was built; or it compiles sources, and reads that of their objects.

No kernel may spill registers or keep anything else in local memory. What more is asked of one follows from its name:

    *_by_class, *_in_packs, *_in_tiles  it walks contiguous memory, in a loop that loads 128 bits at a time; so does
                                        *_in_runs, unless of single elements
    *_backward_*, *_with_grad_*         and if it does, it stores 128 bits at a time, too (*_in_tiles in another loop,
                                        *_backward_by_class in none)
    *_by_*, *_of_pixels, *_in_*         it computes in float64 only if double is among its template arguments; but what
                                        rows or elements come to is added up in float64, unless it is a *_backward_*

On sm_90, instructions for each element and resident warps are held to a record, cuda_kernels.json: budget.py says how
they are counted. --record writes down those of the kernels that were read.
"""

import argparse
import itertools
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp

from rich import box
from rich.console import Console
from rich.table import Table

from tools.budget import COPIED, HOW_TO_RECORD, RECORD, SM, WIDE_LOAD, WIDE_STORE, Cost, Record, cost
from tools.control_flow import Instruction
from tools.kernels import CSRC, CompileError, Kernel, compile_object, extract_cubins, nvcc_version, read_cubin
from tools.occupancy import SHARED_BYTES, resident_blocks, resident_warps

FLOAT64 = r"D(ADD|FMA|MMA|MNMX|MUL|SETP)\b|.*(\.F64|64H)\b"
ADDING_UP = r"DADD\b|F2F\.F64\.F32\b"
LOCAL_MEMORY = r"LDL|STL"
SINGLE = ", 1>"  # how the template arguments end of a kernel that takes runs of one element

WIDTH_OF_A_FILE = 220  # where there is no terminal to ask, do not wrap the table


def faults(kernel: Kernel) -> Iterator[str]:
    """What there is to refuse in a kernel."""
    name, _, arguments = kernel.name.partition("<")
    if kernel.stack or _opcodes(kernel.code, LOCAL_MEMORY):
        yield f"uses local memory, a stack frame of {kernel.stack} bytes"
    loops = [kernel.flow.code_of(loop.blocks) for loop in kernel.flow.loops]
    is_backward = "_backward_" in name
    takes_single = name.endswith("_in_runs") and arguments.endswith(SINGLE)
    if name.endswith(("_by_class", "_in_packs", "_in_tiles", "_in_runs")) and not takes_single:
        wanted = {"loads": WIDE_LOAD}
        if is_backward or "_with_grad_" in name:
            wanted["stores"] = WIDE_STORE
        is_flat = name.endswith("_backward_by_class")
        parts = [kernel.code] if is_flat else loops
        if name.endswith("_in_tiles"):  # into shared memory, past the registers
            wanted["loads"] = rf"{WIDE_LOAD}|{COPIED}"
            parts = [[*itertools.chain(*parts)]]
        if not any(all(_opcodes(part, access) for access in wanted.values()) for part in parts):
            yield f"has no {'' if is_flat else 'loop with '}128-bit global {' and '.join(wanted)}"
    float64: set[str] = set()
    if name.endswith(("_by_class", "_by_row", "_of_pixels", "_in_tiles", "_in_packs", "_in_runs")):
        float64 = _opcodes(kernel.code if is_backward else itertools.chain(*loops), FLOAT64)
        if not is_backward:
            float64 -= {opcode for opcode in float64 if re.match(ADDING_UP, opcode)}
    if float64 and not re.search(r"\bdouble\b", arguments):
        yield f"computes in float64: {', '.join(sorted(float64))}"


def _opcodes(code: Iterable[Instruction], pattern: str) -> set[str]:
    return {opcode for opcode in {instruction.opcode for instruction in code} if re.match(pattern, opcode)}


def describe(kernels: list[tuple[Kernel, ...]], sms: list[int], costs: Mapping[str, Cost]) -> Table:
    """One row a kernel; where its versions for the architectures differ, they are set side by side."""
    title = f"CUDA kernels on sm_{' / '.join(map(str, sms))}"
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
    table.add_column("kernel", no_wrap=True)
    for column in (
        "threads\nof a block",
        "registers\nof a thread",
        "shared memory,\nbytes",
        "resident\nblocks",
        "resident\nwarps",
        f"instructions per element\nof hot loops, sm_{SM}",
    ):
        table.add_column(column, justify="right", no_wrap=True)
    for versions in kernels:
        name = versions[0].name
        table.add_row(
            name,
            _cell(kernel.threads for kernel in versions),
            _cell(kernel.registers for kernel in versions),
            _cell(kernel.shared for kernel in versions),
            _cell(resident_blocks(kernel) for kernel in versions),
            _cell(resident_warps(kernel) for kernel in versions),
            "  ".join(map(str, costs[name].loops)) if name in costs else "",
        )
    return table


def _cell(values: Iterable[object]) -> str:
    texts = [str(value) for value in values]
    return texts[0] if len(set(texts)) == 1 else " / ".join(texts)


def read_all(files: list[Path], sms: list[int]) -> list[Kernel]:
    """The kernels of all files, of which the sources are compiled first."""

    def cubins(file: Path) -> list[Path]:
        folder = Path(mkdtemp(dir=top))
        return extract_cubins(compile_object(file, sms, folder) if file.suffix == ".cu" else file, folder)

    with TemporaryDirectory() as top, ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        found = itertools.chain(*pool.map(cubins, files))
        return [*itertools.chain(*pool.map(read_cubin, found))]


def side_by_side(kernels: list[Kernel], sms: list[int]) -> list[tuple[Kernel, ...]]:
    """Every kernel's versions for the architectures, sorted by name."""
    by_sm = [sorted((k for k in kernels if k.sm == sm), key=lambda kernel: kernel.name) for sm in sms]
    names = [[kernel.name for kernel in versions] for versions in by_sm]
    for sm, of_this in zip(sms, names, strict=True):
        if of_this != names[0]:
            raise CompileError(f"sm_{sm} and sm_{sms[0]} have different kernels")
    return [*zip(*by_sm, strict=True)]


def refusals(kernels: list[tuple[Kernel, ...]]) -> list[str]:
    found = [f"{k.name}, sm_{k.sm}: {fault}" for versions in kernels for k in versions for fault in faults(k)]
    if not any("_by_class" in versions[0].name for versions in kernels):
        found.append("there is no kernel *_by_class whose loops could be looked at")
    return found


def hold_to_record(costs: Mapping[str, Cost], are_all: bool, console: Console) -> list[str]:
    """What there is to refuse; what became cheaper is told."""
    if not RECORD.exists():
        return [f"there is no record of what kernels take; {HOW_TO_RECORD}"]
    record, here = Record.read(), nvcc_version()
    if record.nvcc != here:
        console.print(f"instructions are not compared, because the record is of nvcc {record.nvcc}, not {here}")
        return []
    refused, gains = [*record.faults(costs, are_all)], [*record.gains(costs)]
    for gain in gains:
        console.print("[bold green]cheaper:[/]", gain, highlight=False, soft_wrap=True)
    if refused or gains:
        console.print(HOW_TO_RECORD)
    return refused


def write_down(costs: Mapping[str, Cost], are_all: bool) -> None:
    """Those of some kernels join the others in the record."""
    old = Record.read() if RECORD.exists() else Record("", {}, {})
    Record(nvcc_version(), old.few_warps, {**({} if are_all else old.kernels), **costs}).write()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    help = "sources, object files or libraries; default: the sources in csrc/cuda"
    parser.add_argument("files", nargs="*", type=Path, help=help)
    parser.add_argument("--sm", nargs="+", type=int, choices=SHARED_BYTES, default=list(SHARED_BYTES))
    parser.add_argument("--record", action="store_true", help="write down what these kernels take, for others")
    options = parser.parse_args(arguments)
    if options.record and SM not in options.sm:
        parser.error(f"the record is of sm_{SM}")
    console = Console()
    if not console.is_terminal:
        console.width = WIDTH_OF_A_FILE

    are_all = not options.files
    try:
        kernels = side_by_side(read_all(options.files or sorted((CSRC / "cuda").rglob("*.cu")), options.sm), options.sm)
        costs = {k.name: cost(k) for versions in kernels for k in versions if k.sm == SM}
        console.print(describe(kernels, options.sm, costs))
        if options.record:
            write_down(costs, are_all)
        refused = refusals(kernels)
        if costs:
            refused += hold_to_record(costs, are_all, console)
    except CompileError as error:
        sys.exit(f"check-cuda: {error}")
    for refusal in refused:
        console.print("[bold red]refused:[/]", refusal, highlight=False, soft_wrap=True)
    if not refused:
        console.print(f"{len(kernels)} kernels: no spills, no local memory, 128-bit accesses, no stray float64")
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main())
