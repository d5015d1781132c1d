"""The gates of `make check-cuda`: every bad kernel that is planted here is refused by its name, and good ones pass."""

import contextlib
import io
import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from tools import budget, check_cuda
from tools.budget import Cost, Record, cost
from tools.check_cuda import faults, main, refusals, side_by_side
from tools.control_flow import Instruction
from tools.kernels import CompileError, Kernel, nvcc_version, parse_kernels
from tools.occupancy import resident_blocks, resident_warps

NEEDS_NVCC = pytest.mark.skipif(shutil.which("nvcc") is None, reason="there is no nvcc")

GOOD = """
template <class T>
__global__ void __launch_bounds__(256) sum_by_class(const float4* x, int packs, T* sums) {
  T sum = 0;
  for (int i = threadIdx.x; i < packs; i += 256) sum += T(x[i].x) + T(x[i].y) + T(x[i].z) + T(x[i].w);
  sums[threadIdx.x] = sum;
}
template __global__ void sum_by_class(const float4*, int, float*);
template __global__ void sum_by_class(const float4*, int, double*);

namespace {
__global__ void __launch_bounds__(128) copy_backward_by_class(const float4* x, int packs, float4* grad) {
  __shared__ float scale[100];
  scale[threadIdx.x % 100] = x->x;
  __syncthreads();
  for (int i = threadIdx.x; i < packs; i += 128) grad[i] = make_float4(x[i].x, x[i].y, scale[i % 100], x[i].w);
}
}
void launch(float4* x) { copy_backward_by_class<<<1, 128>>>(x, 1, x); }

__global__ void copy_backward_by_row(const float* x, int classes, float* grad) {
  for (int i = 0; i < classes; ++i) grad[i] = x[i];
}

__global__ void mean_by_row(const float* x, int rows, float* mean) {
  double sum = 0;
  for (int i = 0; i < rows; ++i) sum += x[i];
  *mean = sum / rows;
}
template <class T, int kRun>
__global__ void scalar_in_runs(const T* x, int count, T* sum) {
  for (int i = 0; i < count; ++i) *sum += x[i];
}
template __global__ void scalar_in_runs<float, 1>(const float*, int, float*);
"""

# Every kernel, and why it is refused.
REASONS = {
    "spill": "uses local memory, a stack frame of",
    "local_array": "uses local memory, a stack frame of 64 bytes",
    "scalar_by_class": "has no loop with 128-bit global loads",
    "before_the_loop_by_class": "has no loop with 128-bit global loads",
    "scalar_in_runs<float, 4>": "has no loop with 128-bit global loads",
    "scalar_stores_backward_by_class": "has no 128-bit global loads and stores",
    "scalar_stores_with_grad_in_tiles": "has no loop with 128-bit global loads and stores",
    "float64_by_class<float>": "computes in float64: DFMA",
    "float64_backward_by_row": "computes in float64: DSETP",
    "sum_backward_by_row": "computes in float64: DADD",
}
BAD = """
__global__ void __launch_bounds__(1024, 2) spill(float* x) {
  float values[64];
  for (int i = 0; i < 64; ++i) values[i] = x[1024 * i + threadIdx.x];
  __syncthreads();
  for (int i = 0; i < 64; ++i) x[1024 * i + threadIdx.x] = values[i] * values[63 - i];
}
__global__ void local_array(const int* x, int size, int* histogram) {
  int counts[16] = {};
  for (int i = 0; i < size; ++i) ++counts[x[i]];
  for (int i = 0; i < 16; ++i) histogram[i] = counts[i];
}
__global__ void scalar_by_class(const float* x, int classes, float* sum) {
  for (int i = 0; i < classes; ++i) *sum += x[i];
}
__global__ void before_the_loop_by_class(const float4* x, const float* y, int classes, float* sum) {
  float4 total = *x;
  for (int i = 0; i < classes; ++i) total.x += y[i];
  *sum = total.x + total.y + total.z + total.w;
}
__device__ void store_scalars(const float4* x, int packs, float* grad) {
  for (int i = 0; i < packs; ++i) {
    float4 pack = x[i];
    for (int j = 0; j < 4; ++j) grad[4 * i + j] = (&pack.x)[j];
  }
}
__global__ void scalar_stores_backward_by_class(const float4* x, int packs, float* grad) {
  store_scalars(x, packs, grad);
}
__global__ void scalar_stores_with_grad_in_tiles(const float4* x, int packs, float* grad, float4* before_the_loop) {
  *before_the_loop = *x;
  store_scalars(x, packs, grad);
}
template <class T>
__global__ void float64_by_class(const float4* x, int packs, T* result) {
  double sum = 0;
  for (int i = 0; i < packs; ++i) sum = 0.5 * sum + (x[i].x + x[i].y + x[i].z + x[i].w);
  *result = sum;
}
template __global__ void float64_by_class(const float4*, int, float*);
__global__ void float64_backward_by_row(const float* x, double smoothing, float* result) {
  *result = smoothing > 0 ? x[0] : x[1];
}
__global__ void sum_backward_by_row(const float* x, int classes, double* sum) {
  for (int i = 0; i < classes; ++i) *sum += x[i];
}
template <class T, int kRun>
__global__ void scalar_in_runs(const T* x, int count, T* sum) {
  for (int i = 0; i < count; ++i) *sum += x[i];
}
template __global__ void scalar_in_runs<float, 4>(const float*, int, float*);
"""


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the record is, of which there is none yet."""
    path = tmp_path / "record.json"
    for module in (budget, check_cuda):
        monkeypatch.setattr(module, "RECORD", path)
    return path


def _source(folder: Path, name: str, text: str) -> str:
    source = folder / f"{name}.cu"
    source.write_text(text)
    return str(source)


@pytest.fixture(scope="module")
def refused(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        status = main([_source(tmp_path_factory.mktemp("bad"), "bad", BAD), "--sm", "80"])
    assert status == 1
    return [line for line in printed.getvalue().splitlines() if line.startswith("refused: ")]


@NEEDS_NVCC
@pytest.mark.parametrize("name", REASONS)
def test_bad_kernel_is_refused(name: str, refused: list[str]) -> None:
    [refusal] = [line for line in refused if line.startswith(f"refused: {name}, sm_80: ")]
    assert REASONS[name] in refusal


@NEEDS_NVCC
@pytest.mark.usefixtures("record")
def test_good_kernels_pass(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From their source, and from a library that was built of it."""
    source, library = _source(tmp_path, "good", GOOD), tmp_path / "good.so"
    architectures = [f"-gencode=arch=compute_{sm},code=sm_{sm}" for sm in (80, 90)]
    options = ["-O3", "-lineinfo", "-Xcompiler=-fPIC", "-shared", "-cudart=none", *architectures]
    subprocess.run(["nvcc", *options, source, "-o", str(library)], check=True)
    assert main([source, "--sm", "80", "90", "--record"]) == 0
    printed = capsys.readouterr().out
    assert main([str(library), "--sm", "80", "90"]) == 0
    assert printed == capsys.readouterr().out

    assert "refused" not in printed
    assert "scalar_in_runs<float, 1>" in printed
    cells = [re.split(r" {2,}", line.strip()) for line in printed.splitlines() if "by_" in line]
    rows = {name: values for name, *values in cells}
    assert rows.keys() == {
        "sum_by_class<float>",
        "sum_by_class<double>",
        "copy_backward_by_class",
        "copy_backward_by_row",
        "mean_by_row",
    }
    threads, _, shared, *_ = rows["copy_backward_by_class"]
    assert (threads, shared) == ("128", "400")
    assert rows["copy_backward_by_row"][0] == "1024"


@NEEDS_NVCC
def test_source_that_does_not_compile(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"check-cuda: nvcc .*\n.*error: return value type"):
        main([_source(tmp_path, "other", "__global__ void f_by_class(int* x) { return x; }"), "--sm", "80"])


@NEEDS_NVCC
def test_warning_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r'error.*: variable "unused" was declared but never referenced'):
        main([_source(tmp_path, "other", "__global__ void f_by_class(int* x) { int unused; }"), "--sm", "80"])


# Three kernels for sm_90, whose loops and flat code are counted, with something to add or leave out.
COUNTED = """
template <class T>
__global__ void __launch_bounds__(256) add_by_class(const float4* x, int packs, T* sums) {
  T sum = 0;
#pragma unroll 1
  for (int i = threadIdx.x; i < packs; i += 256) {
    float4 pack = x[i];
    if (i == 12345) sums[1000] = sqrtf(pack.x) / pack.y;  // which is seldom
    sum += SUM;
  }
  sums[threadIdx.x] = sum;
}
template __global__ void add_by_class(const float4*, int, float*);

template <class T>
__global__ void __launch_bounds__(256) copy_backward_by_class(const float4* x, int packs, float4* grad) {
  if (int i = 256 * blockIdx.x + threadIdx.x; i < packs) grad[i] = make_float4(FACTOR * x[i].x, x[i].y, x[i].z, x[i].w);
}
template __global__ void copy_backward_by_class<float>(const float4*, int, float4*);

template <class T>
__global__ void __launch_bounds__(BOUNDS) copy_in_packs(const float4* x, int packs, float4* y) {
  __shared__ float4 shared[SHARED];
#pragma unroll 1
  for (int i = threadIdx.x; i < packs; i += 256) shared[i] = x[i];
  __syncthreads();
#pragma unroll 1
  for (int i = threadIdx.x; i < packs; i += 256) y[i] = shared[packs - i];
}
template __global__ void copy_in_packs<float>(const float4*, int, float4*);
"""
USUAL = {"SUM": "__expf(pack.x) * pack.y * pack.z / pack.w", "FACTOR": "2", "BOUNDS": "256", "SHARED": "128"}
CHAIN = "*".join(["__sinf(pack.x + sum)"] * 4 + ["__cosf(pack.y * sum)"] * 4)


def _check_counted(folder: Path, *options: str, **changes: str) -> int:
    defines = "".join(f"#define {name} {text}\n" for name, text in {**USUAL, **changes}.items())
    return main([_source(folder, "counted", defines + COUNTED), "--sm", "90", *options])


@pytest.fixture(scope="module")
def usual_costs(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The text of the record."""
    folder = tmp_path_factory.mktemp("counted")
    with pytest.MonkeyPatch.context() as patch:
        for module in (budget, check_cuda):
            patch.setattr(module, "RECORD", folder / "record.json")
        assert _check_counted(folder, "--record") == 0
    return (folder / "record.json").read_text()


@NEEDS_NVCC
@pytest.mark.parametrize(
    ("changes", "status", "message"),
    [
        ({}, 0, "3 kernels: no spills"),
        (
            {"SUM": f"{USUAL['SUM']} + {CHAIN}"},
            1,
            r"refused: add_by_class<float>: [\d.]+ instructions per element, recorded",
        ),
        (
            {"SUM": "__expf(pack.x) * pack.y * pack.z * pack.w"},
            0,
            r"cheaper: add_by_class<float>: [\d.]+ instructions per element, recorded",
        ),
        ({"FACTOR": "__expf(x[i].y) * __sinf(x[i].x)"}, 1, "refused: copy_backward_by_class<float>: "),
        ({"SHARED": "3000"}, 1, "refused: copy_in_packs<float>: holds 32 warps, recorded 64"),
        ({"BOUNDS": "1024", "SHARED": "3000"}, 0, "3 kernels: no spills"),
    ],
    ids=["the same", "a needless chain", "leaner", "a flat kernel", "fewer warps", "as many in larger blocks"],
)
def test_what_kernels_take(
    changes: dict[str, str],
    status: int,
    message: str,
    usual_costs: str,
    record: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    record.write_text(usual_costs)
    assert _check_counted(record.parent, **changes) == status
    printed = capsys.readouterr().out
    assert re.search(f"^{message}", printed, re.MULTILINE)
    assert (budget.HOW_TO_RECORD in printed) == bool(re.search("^(refused|cheaper):", printed, re.MULTILINE))


@NEEDS_NVCC
def test_kernels_without_a_record_are_refused(record: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _check_counted(record.parent) == 1
    assert f"refused: there is no record of what kernels take; {budget.HOW_TO_RECORD}\n" in capsys.readouterr().out
    assert not record.exists()
    good = _source(record.parent, "good", GOOD)
    assert main([good, "--sm", "90", "--record"]) == 0
    assert _check_counted(record.parent) == 1
    printed = capsys.readouterr().out
    assert "refused: copy_in_packs<float>: it is not in the record\n" in printed and budget.HOW_TO_RECORD in printed
    assert _check_counted(record.parent, "--record") == main([good, "--sm", "90"]) == 0  # it joins the others


@NEEDS_NVCC
def test_record_of_another_compiler_is_not_compared(record: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Record("1.2.3", {}, {}).write()
    assert _check_counted(record.parent) == 0
    assert f"the record is of nvcc 1.2.3, not {nvcc_version()}\n" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main([_source(record.parent, "good", GOOD), "--sm", "80", "--record"])


KERNEL = Kernel(name="f", sm=80, threads=256, registers=32, shared=0, stack=0, code=[])


def test_kernels_that_cannot_be_judged_are_refused() -> None:
    assert refusals([]) == refusals([(KERNEL,)]) == ["there is no kernel *_by_class whose loops could be looked at"]


@pytest.mark.parametrize("of_90", [[], [replace(KERNEL, sm=90, name="g")], [replace(KERNEL, sm=90)] * 2])
def test_every_architecture_has_every_kernel(of_90: list[Kernel]) -> None:
    assert side_by_side([replace(KERNEL, sm=90), KERNEL], [80, 90]) == [(KERNEL, replace(KERNEL, sm=90))]
    with pytest.raises(CompileError, match="sm_90 and sm_80 have different kernels"):
        side_by_side([*of_90, KERNEL], [80, 90])


USAGE = """
Resource usage:
 Common:
  GLOBAL:0
 Function f:
  REG:48 STACK:8 SHARED:1152 LOCAL:0 CONSTANT[0]:816 TEXTURE:0 SURFACE:0 SAMPLER:0
"""
EXIT = {"function-name": "f", "start": 0, "length": 16, "sass-instructions": [{"opcode": "EXIT"}]}


def _sass(*functions: dict, sm: int = 90) -> str:
    return json.dumps([{"SM": {"version": {"major": sm // 10, "minor": sm % 10}}}, functions])


def test_resources_are_read() -> None:
    read = Kernel("f", 90, threads=256, registers=48, shared=128, stack=8, code=[Instruction("EXIT")])
    assert parse_kernels(USAGE, {"f": 256}, _sass(EXIT)) == [read]
    assert parse_kernels(USAGE, {"f": 256}, _sass(EXIT, sm=80)) == [replace(read, sm=80, shared=1152)]
    without_shared = USAGE.replace("SHARED:1152", "SHARED:0")
    assert parse_kernels(without_shared, {"f": 256}, _sass(EXIT)) == [replace(read, shared=0)]
    assert parse_kernels("", {}, _sass()) == []


@pytest.mark.parametrize(
    ("bounds", "sass", "message"),
    [
        ({"f": 256, "g": 256}, _sass(EXIT), "g is not in the resources"),
        ({}, _sass(EXIT), "f is not in the attributes"),
        ({"f": 256}, _sass(), "f is not in the SASS"),
        ({"f": 256}, _sass({**EXIT, "length": 32}), "the addresses of f are not understood"),
    ],
)
def test_answers_that_do_not_fit_together(bounds: dict[str, int], sass: str, message: str) -> None:
    with pytest.raises(CompileError, match=message):
        parse_kernels(USAGE, bounds, sass)


def _loops(kernel: Kernel) -> list[list[Instruction]]:
    return [kernel.flow.code_of(loop.blocks) for loop in kernel.flow.loops]


def test_loops_are_cycles_of_the_control_flow() -> None:
    """One at 0x20, one at 0x50, and one at 0xb0, to whose end only the branch at 0xc0 leads, which goes by a table. The
    code at 0x90 only returns to where it came from.
    """
    code = [
        Instruction("BRA", "0x90", "@P0"),
        Instruction("LDG.E.128", "R0,[R2.64]"),
        Instruction("LDG.E", "R0,[R2.64]"),
        Instruction("BSYNC", "B0"),
        Instruction("BRA", "P1,0x20", "@P0"),
        Instruction("STG.E", "[R2.64],R0"),
        Instruction("BRA.U", "UP0,0x80"),
        Instruction("BRA", "0x50"),
        Instruction("EXIT"),
        Instruction("MUFU.EX2", "R0,R0"),
        Instruction("BRA", "0x10"),
        Instruction("LDG.E.64", "R0,[R2.64]"),
        Instruction("BRX", "R4,-0xc0"),
        Instruction("BRA", "0xb0"),
    ]
    loops = [[instruction.opcode for instruction in loop] for loop in _loops(replace(KERNEL, code=code))]
    assert sorted(loops) == [["LDG.E", "BSYNC", "BRA"], ["LDG.E.64", "BRX", "BRA"], ["STG.E", "BRA.U", "BRA"]]


def _cost(*code: str, name: str = "f_by_class<float>") -> Cost:
    """Of lines as `@P0 BRA 0x10`."""
    parts = [re.fullmatch(r"(@\S+ )?(\S+) ?(.*)", line).groups(default="") for line in code]
    instructions = [Instruction(opcode, operands, predicate.strip()) for predicate, opcode, operands in parts]
    return cost(replace(KERNEL, name=name, code=instructions))


LOOP = ("LDG.E.128 R0,[R8.64]", "FADD R4,R4,R0", "@P0 BRA 0x0")


@pytest.mark.parametrize(
    ("code", "loops", "way"),
    [
        ([*LOOP, "EXIT"], [0.75], 4),
        (["LDG.E.128 R0,[R8.64]", "LDG.E.128 R4,[R8.64+0x10]", "@P0 BRA 0x0", "EXIT"], [3 / 8], 4),
        # A guard, which branches off to the end of the code, and a loop around it that loads nothing else.
        (
            ["NOP", "LDG.E.128 R0,[R8.64]", "@P1 BRA 0x60", "@P0 BRA 0x10", "@P2 BRA 0x0", "EXIT", "NOP", "BRA 0x30"],
            [0.75],
            6,
        ),
        # Where not all of a pack is there, it is loaded otherwise, into the same registers.
        (
            ["@!P0 LDG.E.128 R0,[R8.64]", "@!P0 BRA 0x40", "NOP", "@P1 LDG.E.128 R0,[R8.64]", "@P2 BRA 0x0", "EXIT"],
            [0.75],
            4,
        ),
        (["@P0 LDG.E.EF.128 R0,[R8.64]", "@!P0 LDG.E.128 R0,[R8.64]", "@P1 BRA 0x0", "EXIT"], [0.75], 4),
        # What is to be done with it may be branched around, too, but for a rare correction.
        (["LDG.E.128 R0,[R8.64]", "@P1 BRA 0x40", "MUFU.EX2 R0,R0", "FADD R4,R4,R0", "@P0 BRA 0x0", "EXIT"], [1.25], 6),
        (
            [
                "LDG.E.128 R0,[R8.64]",
                *["MUFU.EX2 R0,R0"] * 16,
                "@P1 BRA 0x130",
                "MUFU.EX2 R0,R0",
                "@P0 BRA 0x0",
                "EXIT",
            ],
            [4.75],
            20,
        ),
        # Two loops, of which one has a loop inside.
        ([*LOOP, "NOP", "LDGSTS.E.BYPASS.128 [R4],[R8.64]", "@P1 BRA 0x50", "@P0 BRA 0x30", "EXIT"], [1.0, 0.75], 8),
        # Without a loop: from the first to the end, or to an exit that is on the way.
        (["LDG.E.128 R0,[R8.64]", "@P0 EXIT", "NOP", "EXIT"], [0.5], 2),
        (["LDG.E.128 R0,[R8.64]", "BRX R4,-0x20", "NOP", "EXIT"], [1.0], 4),
        # Single elements are not contiguous memory, nor is what threads tell each other.
        (["LDG.E R0,[R8.64]", "@P0 BRA 0x0", "EXIT"], [], 3),
    ],
    ids=str,
)
def test_counts(code: list[str], loops: list[float], way: int) -> None:
    found = _cost(*code)
    assert found.way == way and found.loops == pytest.approx(loops, abs=0.01)


def test_counts_by_name() -> None:
    single = ("LDG.E R0,[R8.64]", "LDS.U16 R2,[R4]", "@P0 BRA 0x0", "EXIT")
    names = ("f_by_row<float>", "f_by_row<double>", "f_in_runs<__half, 4>", "f_in_tiles<__nv_bfloat16>")
    assert [_cost(*single, name=name).loops for name in names] == [[3.0], [6.0], [1.5], [3.0]]
    assert _cost(*single, name="f_by_row").loops == _cost(*single, name="count<float>").loops == []
    strong = ("LDG.E.64.STRONG.GPU R0,[R8.64]", "@P0 BRA 0x0", "EXIT")
    assert _cost(*strong, name="f_by_row<float>").loops == []


def test_ways_that_are_too_many_do_not_take_forever() -> None:
    """A loop with 40 packs, each of which is loaded in one of two ways."""
    code = []
    for i in range(40):
        place = 16 * len(code)
        code += [f"@P1 BRA 0x{place + 48:x}", f"LDG.E.128 R{8 * i},[R8.64]", f"BRA 0x{place + 64:x}"]
        code.append(f"LDG.E.128 R{8 * i + 4},[R8.64]")
    assert _cost(*code, "@P0 BRA 0x0", "EXIT").loops == [round((2 * 40 + 1) / 160, 2)]


KNOWN = Cost(warps=32, way=100, loops=[4.0, 2.0])


@pytest.mark.parametrize(
    ("found", "faults", "gains"),
    [
        (KNOWN, [], []),
        (Cost(32, 104, [4.19, 1.91]), [], []),
        (Cost(32, 100, [4.24, 2.0]), ["4.24 instructions per element, recorded 4.0, +6.0%"], []),
        (
            Cost(32, 110, [4.0, 1.0]),
            ["110 instructions on the straight way, recorded 100, +10.0%"],
            ["1.0 instructions per element, recorded 2.0, -50.0%"],
        ),
        (Cost(28, 100, [4.0, 2.0]), ["holds 28 warps, recorded 32"], []),
        (Cost(36, 100, [4.0, 2.0]), [], ["holds 36 warps, recorded 32"]),
        (Cost(32, 100, [4.0]), ["has 1 hot loops, recorded 2"], []),
    ],
    ids=str,
)
def test_comparison_with_the_record(found: Cost, faults: list[str], gains: list[str]) -> None:
    record = Record("13", {}, {"f_by_row": KNOWN})
    assert [*record.faults({"f_by_row": found}, are_all=True)] == [f"f_by_row: {fault}" for fault in faults]
    assert [*record.gains({"f_by_row": found})] == [f"f_by_row: {gain}" for gain in gains]


def test_registers_that_cost_a_warp() -> None:
    usual = replace(KERNEL, sm=90, name="f_by_row", registers=64, code=[Instruction("EXIT")])
    record = Record("13", {}, {"f_by_row": cost(usual)})
    assert [*record.faults({"f_by_row": cost(replace(usual, registers=63))}, are_all=True)] == []
    refused = record.faults({"f_by_row": cost(replace(usual, registers=65))}, are_all=True)
    assert [*refused] == ["f_by_row: holds 24 warps, recorded 32"]


def test_few_warps_take_a_reason() -> None:
    few = {"f_by_class<double>": Cost(16, 100, [])}
    refusal = "f_by_class<double>: holds 16 warps, fewer than 24, and few_warps has no reason"
    assert [*Record("13", {}, few).faults(few, are_all=True)] == [refusal]
    assert [*Record("13", {"<double": "two registers a number"}, few).faults(few, are_all=True)] == []
    without_need = Record("13", {"<float": "it was slow"}, few).faults({}, are_all=True)
    assert [*without_need] == [
        "f_by_class<double>: it is in the record, but there is no such kernel",
        "few_warps: no kernel needs the reason for <float",
    ]
    assert [*Record("13", {"<float": "it was slow"}, few).faults({}, are_all=False)] == []


def test_record_is_read_as_it_was_written(record: Path) -> None:
    written = Record("13.0.88", {"<double": "why"}, {"g<float>": KNOWN, "f<double, 4>": Cost(12, 9, [])})
    written.write()
    assert Record.read() == written
    assert '"f<double, 4>": {"warps": 12, "way": 9, "loops": []},\n"g<float>": {' in record.read_text()


@pytest.mark.parametrize(
    ("opcode", "reason"),
    [
        ("LDL", "local memory"),
        ("STL.64", "local memory"),
        *((opcode, "float64") for opcode in ("DFMA", "DMUL.RP", "DSETP.MAX.AND", "MUFU.RCP64H", "F2F.F64.F32")),
        *((opcode, None) for opcode in ("LDG.E.64", "STG.E.64", "I2F.U64.RP", "F2I.U64.TRUNC", "HFMA2.MMA", "LDS.64")),
    ],
)
def test_opcodes_that_are_refused(opcode: str, reason: str | None) -> None:
    [*found] = faults(replace(KERNEL, name="f_backward_by_row<float>", code=[Instruction(opcode)]))
    assert len(found) == (reason is not None) and all(reason in fault for fault in found)
    code = [Instruction("LDG.E.128"), Instruction(opcode), Instruction("BRA", "0x0", "@P0")]
    [*found] = faults(replace(KERNEL, name="f_by_class<double, true>", code=code))
    assert len(found) == (reason == "local memory")


@pytest.mark.parametrize(
    ("sm", "threads", "registers", "shared", "blocks"),
    [
        (80, 256, 32, 0, 8),  # all 64 warps
        (80, 32, 32, 0, 32),  # as many blocks as there may be
        (80, 256, 64, 0, 4),
        (80, 256, 65, 0, 3),  # registers come by eight a thread
        (80, 1024, 255, 0, 0),
        (80, 256, 32, 48 * 1024, 3),  # of 164 KiB, 49 a block
        (90, 256, 32, 48 * 1024, 4),  # of 228 KiB
        (100, 256, 32, 48 * 1024, 4),
    ],
)
def test_resident_blocks(sm: int, threads: int, registers: int, shared: int, blocks: int) -> None:
    kernel = replace(KERNEL, sm=sm, threads=threads, registers=registers, shared=shared)
    assert resident_blocks(kernel) == blocks and resident_warps(kernel) == blocks * threads // 32


# Prints the blocks that NVIDIA's own calculator finds, which comes with the toolkit and needs no GPU.
CALCULATOR = """
#include <cuda_occupancy.h>
#include <cstdio>
#include <initializer_list>

int main() {
  for (int sm : {80, 90, 100}) {
    cudaOccDeviceProp device;
    device.computeMajor = sm / 10;
    device.maxThreadsPerBlock = 1024;
    device.maxThreadsPerMultiprocessor = 2048;
    device.regsPerBlock = device.regsPerMultiprocessor = 65536;
    device.warpSize = 32;
    device.numSms = 1;
    device.sharedMemPerBlock = 48 << 10;
    device.sharedMemPerMultiprocessor = (sm == 80 ? 164 : 228) << 10;
    device.sharedMemPerBlockOptin = device.sharedMemPerMultiprocessor - 1024;
    device.reservedSharedMemPerBlock = 1024;
    for (int threads : {32, 96, 128, 256, 384, 1024}) {
      for (int registers = 16; registers < 256; ++registers) {
        for (int shared : {0, 100, 4000, 16384, 49152}) {
          cudaOccFuncAttributes kernel;
          kernel.maxThreadsPerBlock = threads;
          kernel.numRegs = registers;
          kernel.sharedSizeBytes = shared;
          cudaOccDeviceState state;
          cudaOccResult result;
          if (cudaOccMaxActiveBlocksPerMultiprocessor(&result, &device, &kernel, &state, threads, 0)) return 1;
          std::printf("%d %d %d %d %d\\n", sm, threads, registers, shared, result.activeBlocksPerMultiprocessor);
        }
      }
    }
  }
}
"""


@NEEDS_NVCC
def test_resident_blocks_are_those_of_nvidias_calculator(tmp_path: Path) -> None:
    source, program = tmp_path / "calculator.cpp", tmp_path / "calculator"
    source.write_text(CALCULATOR)
    subprocess.run(["nvcc", "-cudart=none", str(source), "-o", str(program)], check=True)
    lines = subprocess.run([program], check=True, capture_output=True, text=True).stdout.splitlines()
    assert len(lines) == 3 * 6 * 240 * 5
    for line in lines:
        sm, threads, registers, shared, blocks = map(int, line.split())
        kernel = replace(KERNEL, sm=sm, threads=threads, registers=registers, shared=shared)
        assert resident_blocks(kernel) == blocks, kernel
