"""What nvcc makes of the kernels in a source file: the resources they take, and their machine code (SASS)."""

import json
import re
import subprocess
from dataclasses import dataclass
from importlib import metadata
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

import networkx

CSRC = Path(__file__).parent.parent / "csrc"
NVCC = [
    "nvcc",
    "-c",
    "-std=c++17",
    "-O3",
    f"-I{CSRC}",
    "-Werror=all-warnings",
    "-Xcompiler=-Wall,-Werror",
    "-Xptxas=-v",
]

INSTRUCTION_BYTES = 16
MAX_THREADS = 1024  # of a block, where a kernel has no __launch_bounds__

FUNCTION_PROPERTIES = re.compile(
    r"Function properties for (\w+)\n"
    r" +(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads\n"
    r".* Used (\d+) registers(?:.*, (\d+) bytes smem)?"
)
ENTRY = re.compile(r"\.entry (\w+)\([^)]*\)(?:\s*\.maxntid (\d+))?")


class CompileError(Exception):
    """A source that does not compile, or an answer of the compiler that is not understood."""


@dataclass(frozen=True)
class Instruction:
    opcode: str  # with its modifiers, as in LDG.E.128
    operands: str = ""
    predicate: str = ""


@dataclass(frozen=True)
class Kernel:
    name: str  # without namespaces and parameters, as in forward_by_class<float, true>
    sm: int  # the architecture, as in 80
    threads: int  # of a block, at most
    registers: int  # of a thread
    shared: int  # bytes of static shared memory of a block
    stack: int  # bytes of a thread
    spills: int  # bytes of a thread
    code: list[Instruction]

    @property
    def warps(self) -> int:
        return -(-self.threads // 32)

    def loops(self) -> list[list[Instruction]]:
        """The outermost loops, each with all that is inside it: the cycles of the control flow.

        A branch backwards is not enough, since code that seldom runs lies behind all other and returns from there.
        """
        flow = networkx.DiGraph()
        jumps = []  # indirect ones, as of a switch: where they go is in a table
        for place, instruction in enumerate(self.code):
            operation = instruction.opcode.split(".")[0]
            *conditions, target = instruction.operands.split(",")
            flow.add_node(place)
            if operation == "BRA":
                flow.add_edge(place, int(target, 16) // INSTRUCTION_BYTES)
            if operation in ("BRX", "JMX"):
                jumps.append(place)
            leaves = operation in ("BRA", "BRX", "EXIT", "JMX", "RET")
            if not leaves or instruction.predicate or (operation == "BRA" and conditions):
                flow.add_edge(place, place + 1)
        # To what nothing else leads.
        only_jumped_to = [place for place, count in flow.in_degree() if place > 0 and count == 0]
        flow.add_edges_from(product(jumps, only_jumped_to))
        cycles = networkx.strongly_connected_components(flow)
        return [[self.code[place] for place in sorted(cycle)] for cycle in cycles if len(cycle) > 1]


def compile_kernels(source: Path, sm: int) -> list[Kernel]:
    """The kernels of a source file, sorted by name."""
    with TemporaryDirectory() as folder:
        target = [
            f"-gencode=arch=compute_{sm},code=sm_{sm}",
            "--keep",
            f"--keep-dir={folder}",
            "-o",
            f"{folder}/object.o",
        ]
        report = _run(*NVCC, *target, str(source)).stderr
        ptx = Path(folder, f"{source.stem}.ptx").read_text()
        [nvdisasm] = [file for file in metadata.files("nvidia-cuda-nvdisasm") or () if file.name == "nvdisasm"]
        sass = _run(str(nvdisasm.locate()), "-json", f"{folder}/{source.stem}.cubin").stdout
    try:
        return read_kernels(sm, ptx, report, sass)
    except CompileError as error:
        raise CompileError(f"{source} for sm_{sm}: {error}") from None


def read_kernels(sm: int, ptx: str, report: str, sass: str) -> list[Kernel]:
    """The kernels as the PTX declares them, ptxas reports them and nvdisasm shows them: the same ones, or an error."""
    threads = {symbol: int(bound or MAX_THREADS) for symbol, bound in ENTRY.findall(ptx)}
    properties = {symbol: [int(n or 0) for n in numbers] for symbol, *numbers in FUNCTION_PROPERTIES.findall(report)}
    functions = {function["function-name"]: function for function in json.loads(sass)[1]}
    if not threads:
        raise CompileError("there is no kernel in it")
    seen = {"PTX": threads.keys(), "report of ptxas": properties.keys(), "SASS": functions.keys()}
    for where, symbols in seen.items():
        for symbol in set().union(*seen.values()) - symbols:
            raise CompileError(f"{symbol} is not in the {where}")

    names = _run("c++filt", "--no-params", *threads).stdout.splitlines()
    kernels = []
    for symbol, name in zip(threads, names, strict=True):
        stack, spill_stores, spill_loads, registers, shared = properties[symbol]
        kernels.append(
            Kernel(
                name=re.sub(r"(\w+|\(anonymous namespace\))::", "", name),
                sm=sm,
                threads=threads[symbol],
                registers=registers,
                shared=shared,
                stack=stack,
                spills=spill_stores + spill_loads,
                code=_read_code(functions[symbol]),
            )
        )
    return sorted(kernels, key=lambda kernel: kernel.name)


def _read_code(function: dict) -> list[Instruction]:
    code = [
        Instruction(line["opcode"], line.get("operands", ""), line.get("predicate", ""))
        for line in function["sass-instructions"]
    ]
    if function["start"] != 0 or function["length"] != len(code) * INSTRUCTION_BYTES:
        raise CompileError(f"the addresses in {function['function-name']} are not understood")
    return code


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        raise CompileError(str(error)) from None
    if done.returncode != 0:
        raise CompileError(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return done
