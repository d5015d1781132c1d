"""The kernels of an object file or a library, as they would go to a GPU: the resources they take, and their SASS."""

import json
import re
import struct
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from math import prod
from pathlib import Path

from tools.control_flow import INSTRUCTION_BYTES, ControlFlow, Instruction

CSRC = Path(__file__).parent.parent / "csrc"
NVCC = ["nvcc", "-c", "-std=c++17", "-O3", f"-I{CSRC}", "-Werror=all-warnings", "-Xcompiler=-Wall,-Werror"]
NVCC += ["--threads=0"]  # the architectures side by side

MAX_THREADS = 1024  # of a block, where a kernel has no __launch_bounds__
SYSTEM_SHARED = 1024  # bytes of shared memory that the system takes of every block

EXTRACTED = re.compile(r"^Extracting ELF file +\d+: (.+)$", re.MULTILINE)
RESOURCES = re.compile(r"^ Function (\w+):\n +REG:(\d+) STACK:(\d+) SHARED:(\d+) ", re.MULTILINE)

# The attributes of a kernel are in the section .nv.info.KERNEL, as `cuobjdump -elf` prints it: EIFMT_SVAL is a format
# with a size, EIATTR_MAX_THREADS has the three of __launch_bounds__.
ATTRIBUTES = ".nv.info."
SIZED_FORMAT = 4
MAX_THREADS_ATTRIBUTE = 5


class CompileError(Exception):
    """A source that does not compile, or an answer of a tool that is not understood."""


@dataclass(frozen=True)
class Kernel:
    name: str  # without namespaces and parameters, as in forward_by_class<float, true>
    sm: int  # the architecture, as in 80
    threads: int  # of a block, at most
    registers: int  # of a thread
    shared: int  # bytes of static shared memory of a block
    stack: int  # bytes of a thread
    code: list[Instruction]

    @property
    def warps(self) -> int:
        return -(-self.threads // 32)

    @cached_property
    def flow(self) -> ControlFlow:
        return ControlFlow(self.code)


def compile_object(source: Path, sms: Iterable[int], folder: Path) -> Path:
    """An object file with the machine code of all architectures."""
    target = folder / f"{source.stem}.o"
    _run(*NVCC, *(f"-gencode=arch=compute_{sm},code=sm_{sm}" for sm in sms), "-o", str(target), str(source))
    return target


def nvcc_version() -> str:
    return re.findall(r"\bV([\d.]+)", _run("nvcc", "--version").stdout)[-1]


def extract_cubins(file: Path, folder: Path) -> list[Path]:
    """The machine code in an object file or a library, one file for each of its sources and architectures."""
    report = _run(_tool("cuobjdump"), "-xelf", "all", str(file.resolve()), cwd=folder).stdout
    return [folder / name for name in EXTRACTED.findall(report)]


def read_cubin(cubin: Path) -> list[Kernel]:
    usage = _run(_tool("cuobjdump"), "-res-usage", str(cubin)).stdout
    sass = _run(_tool("nvdisasm"), "-json", str(cubin)).stdout
    try:
        return parse_kernels(usage, dict(_read_bounds(cubin.read_bytes())), sass)
    except CompileError as error:
        raise CompileError(f"{cubin.name}: {error}") from None


def parse_kernels(usage: str, bounds: dict[str, int], sass: str) -> list[Kernel]:
    """The kernels as cuobjdump, their attributes and nvdisasm show them: the same ones, or an error."""
    resources = {symbol: [int(number) for number in numbers] for symbol, *numbers in RESOURCES.findall(usage)}
    header, listed = json.loads(sass)[:2]
    functions = {function["function-name"]: function for function in listed}
    seen = {"resources": resources.keys(), "attributes": bounds.keys(), "SASS": functions.keys()}
    for where, symbols in seen.items():
        for symbol in set().union(*seen.values()) - symbols:
            raise CompileError(f"{symbol} is not in the {where}")
    if not resources:
        return []

    version = header["SM"]["version"]
    sm = 10 * version["major"] + version["minor"]
    # From sm_90 on it is counted, unless no kernel of the file uses shared memory.
    system_shared = SYSTEM_SHARED if sm >= 90 else 0
    names = _run("c++filt", "--no-params", *resources).stdout.splitlines()
    return [
        Kernel(
            name=re.sub(r"(\w+|\(anonymous namespace\))::", "", name),
            sm=sm,
            threads=bounds[symbol],
            registers=registers,
            shared=max(0, shared - system_shared),
            stack=stack,
            code=_read_code(functions[symbol]),
        )
        for (symbol, (registers, stack, shared)), name in zip(resources.items(), names, strict=True)
    ]


def _read_bounds(elf: bytes) -> Iterator[tuple[str, int]]:
    """The kernels of a cubin, and how many threads they allow a block. It is a 64-bit ELF file, as elf(5) has it."""
    [table] = struct.unpack_from("<Q", elf, 0x28)
    entry_size, count, names_index = struct.unpack_from("<HHH", elf, 0x3A)
    sections = [struct.unpack_from("<I20xQQ", elf, table + i * entry_size) for i in range(count)]
    names = sections[names_index][1]
    for name_offset, begin, size in sections:
        name = elf[names + name_offset : elf.index(b"\0", names + name_offset)].decode()
        if not name.startswith(ATTRIBUTES):
            continue
        bound, place = MAX_THREADS, begin
        while place < begin + size:
            kind, attribute, value_size = struct.unpack_from("<BBH", elf, place)
            place += 4
            if kind == SIZED_FORMAT:
                if attribute == MAX_THREADS_ATTRIBUTE:
                    bound = prod(struct.unpack_from("<III", elf, place))
                place += value_size
        yield name.removeprefix(ATTRIBUTES), bound


def _read_code(function: dict) -> list[Instruction]:
    code = [
        Instruction(line["opcode"], line.get("operands", ""), line.get("predicate", ""))
        for line in function["sass-instructions"]
    ]
    if function["start"] != 0 or function["length"] != len(code) * INSTRUCTION_BYTES:
        raise CompileError(f"the addresses of {function['function-name']} are not understood")
    return code


def _tool(name: str) -> str:
    [tool] = [file for file in metadata.files(f"nvidia-cuda-{name}") or () if file.name == name]
    return str(tool.locate())


def _run(*command: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    try:
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    except OSError as error:
        raise CompileError(str(error)) from None
    if done.returncode != 0:
        raise CompileError(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return done
