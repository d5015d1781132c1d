"""Print what CUDA kernels use on three generations of GPUs, and refuse what makes them slow.

It reads the machine code of a library that was built; or it compiles sources, and reads that of their objects.

No kernel may spill registers or keep anything else in local memory. What more is asked of one follows from its name:

    *_by_class, *_in_packs, *_in_tiles  it walks contiguous memory, in a loop that loads 128 bits at a time; so does
                                        *_in_runs, unless of single elements
    *_backward_*, *_with_grad_*         and if it does, it stores 128 bits at a time, too (*_in_tiles in another loop,
                                        *_backward_by_class in none)
    *_by_*, *_in_*                      it computes in float64 only if double is among its template arguments; but what
                                        rows or elements come to is added up in float64, unless it is a *_backward_*
"""

import argparse
import itertools
import os
import re
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp

from rich import box
from rich.console import Console
from rich.table import Table

from tools.kernels import CSRC, CompileError, Instruction, Kernel, compile_object, extract_cubins, read_cubin

WIDE_LOAD = r"LDG\..*\b(128|256)\b"
WIDE_STORE = r"STG\..*\b(128|256)\b"
FLOAT64 = r"D(ADD|FMA|MMA|MNMX|MUL|SETP)\b|.*(\.F64|64H)\b"
ADDING_UP = r"DADD\b|F2F\.F64\.F32\b"
LOCAL_MEMORY = r"LDL|STL"
SINGLE = ", 1>"  # how the template arguments end of a kernel that takes runs of one element

# What a multiprocessor holds, from the technical specifications per compute capability in NVIDIA's CUDA programming
# guide. These three differ in shared memory alone.
MAX_WARPS = 64
MAX_BLOCKS = 32
REGISTERS = 64 * 1024
SHARED_BYTES = {80: 164 * 1024, 90: 228 * 1024, 100: 228 * 1024}

WIDTH_OF_A_FILE = 220  # where there is no terminal to ask, do not wrap the table


def faults(kernel: Kernel) -> Iterator[str]:
    """What there is to refuse in a kernel."""
    name, _, arguments = kernel.name.partition("<")
    if kernel.stack or _opcodes(kernel.code, LOCAL_MEMORY):
        yield f"uses local memory, a stack frame of {kernel.stack} bytes"
    loops = kernel.loops()
    is_backward = "_backward_" in name
    takes_single = name.endswith("_in_runs") and arguments.endswith(SINGLE)
    if name.endswith(("_by_class", "_in_packs", "_in_tiles", "_in_runs")) and not takes_single:
        wanted = {"loads": WIDE_LOAD}
        if is_backward or "_with_grad_" in name:
            wanted["stores"] = WIDE_STORE
        is_flat = name.endswith("_backward_by_class")
        parts = [kernel.code] if is_flat else loops
        if name.endswith("_in_tiles"):
            parts = [[*itertools.chain(*parts)]]
        if not any(all(_opcodes(part, access) for access in wanted.values()) for part in parts):
            yield f"has no {'' if is_flat else 'loop with '}128-bit global {' and '.join(wanted)}"
    float64: set[str] = set()
    if name.endswith(("_by_class", "_by_row", "_in_tiles", "_in_packs", "_in_runs")):
        float64 = _opcodes(kernel.code if is_backward else itertools.chain(*loops), FLOAT64)
        if not is_backward:
            float64 -= {opcode for opcode in float64 if re.match(ADDING_UP, opcode)}
    if float64 and not re.search(r"\bdouble\b", arguments):
        yield f"computes in float64: {', '.join(sorted(float64))}"


def _opcodes(code: Iterable[Instruction], pattern: str) -> set[str]:
    return {opcode for opcode in {instruction.opcode for instruction in code} if re.match(pattern, opcode)}


def resident_blocks(kernel: Kernel) -> int:
    """How many blocks of the largest size that the kernel allows a multiprocessor holds."""
    # A warp belongs to one of four schedulers, each with a quarter of the registers, and takes them by 256.
    warp_registers = _round_up(32 * kernel.registers, 256)
    warps = 4 * (REGISTERS // 4 // warp_registers)
    # Every block takes 1024 bytes of shared memory for the system.
    shared = _round_up(kernel.shared + 1024, 128)
    return min(MAX_BLOCKS, MAX_WARPS // kernel.warps, warps // kernel.warps, SHARED_BYTES[kernel.sm] // shared)


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


def describe(kernels: list[tuple[Kernel, ...]], sms: list[int]) -> Table:
    """One row a kernel; where its versions for the architectures differ, they are set side by side."""
    title = f"CUDA kernels on sm_{' / '.join(map(str, sms))}"
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
    table.add_column("kernel", no_wrap=True)
    for column in (
        "threads\nof a block",
        "registers\nof a thread",
        "shared memory,\nbytes",
        "resident\nblocks",
        "occupancy",
    ):
        table.add_column(column, justify="right", no_wrap=True)
    for versions in kernels:
        blocks = [resident_blocks(kernel) for kernel in versions]
        occupancy = (count * kernel.warps / MAX_WARPS for count, kernel in zip(blocks, versions, strict=True))
        table.add_row(
            versions[0].name,
            _cell(kernel.threads for kernel in versions),
            _cell(kernel.registers for kernel in versions),
            _cell(kernel.shared for kernel in versions),
            _cell(blocks),
            _cell(f"{share:.0%}" for share in occupancy),
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


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "files",
        nargs="*",
        type=Path,
        default=sorted((CSRC / "cuda").rglob("*.cu")),
        help="sources, object files or libraries; default: the sources in csrc/cuda",
    )
    parser.add_argument("--sm", nargs="+", type=int, choices=SHARED_BYTES, default=list(SHARED_BYTES))
    options = parser.parse_args(arguments)
    console = Console()
    if not console.is_terminal:
        console.width = WIDTH_OF_A_FILE

    try:
        kernels = side_by_side(read_all(options.files, options.sm), options.sm)
    except CompileError as error:
        sys.exit(f"check-cuda: {error}")
    console.print(describe(kernels, options.sm))
    refused = refusals(kernels)
    for refusal in refused:
        console.print("[bold red]refused:[/]", refusal, highlight=False, soft_wrap=True)
    if not refused:
        console.print(f"{len(kernels)} kernels: no spills, no local memory, 128-bit accesses, no stray float64")
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main())
