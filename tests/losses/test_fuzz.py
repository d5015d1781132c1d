"""Ops get whatever tensors there are: see tests/support/fuzz.py."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils import _pytree
from torch.utils.cpp_extension import include_paths, library_paths

import ce_ext
from ce_ext import _C, _load
from tests.cuda_emu import CSRC, ROOT, compile_library
from tests.cuda_emu.suite import run_suite, runtime
from tests.support import fuzz
from tests.support.marks import NEEDS_EMULATOR

COUNT = 400


def _copy(x: Tensor) -> Tensor:
    """The same numbers in memory of their own, which begins and ends where they do."""
    if x.layout != torch.strided or x.is_meta or x.is_quantized or x._is_zerotensor():
        return x
    with torch.inference_mode(x.is_inference()):
        return x.detach().resolve_neg().clone(memory_format=torch.contiguous_format).requires_grad_(x.requires_grad)


def _is_apart(x: Tensor, others: list[Any]) -> bool:
    """Whether a tensor can be written to: no number of it is in the place of another, here or there."""
    if not x.numel() or x.layout != torch.strided:
        return True
    numbers = torch.arange(x.untyped_storage().nbytes() // x.itemsize)
    places = numbers.as_strided(x.shape, x.stride(), x.storage_offset())
    return places.unique().numel() == x.numel() and not any(torch._C._is_alias_of(x, y) for y in others)


def _is_aligned(x: Any) -> bool:
    return not isinstance(x, Tensor) or x.layout != torch.strided or x.data_ptr() % x.itemsize == 0


def _compared(op: Any, results: Any) -> list[Tensor]:
    """Those that mean something by themselves: of ignored rows, a kernel may keep anything for the backward."""
    named = zip(op._schema.returns, results if isinstance(results, tuple) else (results,), strict=False)
    return [x for result, x in named if isinstance(x, Tensor) and result.name != "stats"]


@pytest.mark.kernel
@pytest.mark.filterwarnings("ignore:torch.quantize")
@pytest.mark.parametrize("seed", range(4))
def test_results_are_those_of_copies(seed: int, device: str, runs_cuda_kernels: bool) -> None:
    seen = 0

    def attempt(op: Any, arguments: list[Any]) -> Any:
        results = fuzz.attempt(op, arguments)
        if runs_cuda_kernels and (report := fuzz.attempt(ce_ext.cuda.check, [])):
            return report
        return results

    def compare(op: Any, arguments: list[Any]) -> Any:
        nonlocal seen
        seen += 1
        written, others = (arguments[:1], arguments[1:]) if op._schema.is_mutable else ([], arguments)
        is_defined = all(_is_apart(x, [y for y in others if isinstance(y, Tensor)]) for x in written)
        copies = _pytree.tree_map_only(Tensor, _copy, arguments)
        results, expected = attempt(op, arguments), attempt(op, copies)
        if not all(map(_is_aligned, arguments)):
            assert isinstance(results, Exception), op.name()
            return results
        if not is_defined:
            return results
        assert type(expected) is type(results), (op.name(), expected, results)
        if isinstance(results, Exception):
            assert runs_cuda_kernels or str(expected) == str(results), op.name()
            return results
        tensors, exact = _compared(op, results) + written, _compared(op, expected) + copies[: len(written)]
        torch.testing.assert_close(tensors, exact, rtol=2e-2, atol=1e-2, equal_nan=True)
        return results

    refused = fuzz.each_call(seed, COUNT, compare, device)
    assert seen > COUNT  # backward calls, too
    assert refused < 0.7 * seen


SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
FLAGS = ("-O1", "-fopenmp", "-ffp-contract=off", *SANITIZERS, "-D_GLIBCXX_ASSERTIONS")


def _sanitized_package(folder: Path) -> None:
    """ce_ext, whose compiled code watches what it reads and writes."""
    package = Path(ce_ext.__file__).parent
    shutil.copytree(package, folder / "ce_ext", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    isa, library = _load.cpu_library()
    isa_flags = {"avx512": "-mavx512f -mavx512dq -mavx512vl -mavx512bw -mfma -mf16c", "avx2": "-mavx2 -mfma -mf16c"}
    macros = (
        f"-DCPU_CAPABILITY={isa.upper()}",
        f"-DCPU_CAPABILITY_{isa.upper()}",
        "-Wno-psabi",
        "-Wno-maybe-uninitialized",
    )
    include = (
        f"-I{ROOT / CSRC}",
        f"-I{sysconfig.get_path('include')}",
        *(f"-isystem{path}" for path in include_paths()),
    )
    about = ("-DTORCH_EXTENSION_NAME=_C", '-DCE_EXT_VERSION="0"', '-DCE_EXT_CPU_ISAS=""', '-DCE_EXT_CUDA_ARCHS=""')
    link = (*SANITIZERS, "-fopenmp", *(f"-L{path}" for path in library_paths()), "-lc10", "-ltorch_cpu")
    files = {
        Path(_C.__file__).name: (("ops.cpp", "host/*.cpp", "python/*.cpp"), about, ("-ltorch", "-ltorch_python")),
        library.name: (("cpu/*.cpp",), (*macros, *isa_flags.get(isa, "").split(), "-Wno-uninitialized"), ()),
    }
    for name, (patterns, flags, libraries) in files.items():
        found = sorted(file for pattern in patterns for file in (ROOT / CSRC).glob(pattern))
        sources = [(file, (*FLAGS, *flags, *include)) for file in found]
        made = compile_library(f"sanitized-{name.split('.')[0]}", ROOT, [CSRC], sources, (*link, *libraries))
        shutil.copy(made, folder / "ce_ext" / name)


@NEEDS_EMULATOR  # or what it is compiled with
@pytest.mark.thorough
def test_sanitizers_of_cpu_kernels(tmp_path: Path) -> None:
    _sanitized_package(tmp_path)
    environment = os.environ | {
        # It watches exceptions of the last of them.
        "LD_PRELOAD": ":".join(map(runtime, ("libasan.so", "libubsan.so", "libstdc++.so"))),
        "ASAN_OPTIONS": "detect_leaks=0",  # Python leaks at exit
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "PYTHONPATH": f"{tmp_path}:{ROOT}",
        "OMP_NUM_THREADS": "2",
    }
    command = (sys.executable, "-P", "-m", "tests.support.fuzz", "7", "4000")
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "calls were refused" in run.stdout


@NEEDS_EMULATOR
@pytest.mark.thorough
def test_sanitizers_of_cuda_kernels() -> None:
    run = run_suite("tests/losses/test_fuzz.py", sanitizer="address,undefined")
    assert run.returncode == 0, run.stdout
