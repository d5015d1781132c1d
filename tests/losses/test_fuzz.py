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
from tests.cuda_emu.suite import runtime
from tests.support import fuzz
from tests.support.marks import NEEDS_EMULATOR

COUNT = 400


def _copies(tree: Any) -> Any:
    """The same numbers in memory of their own, which ends where they do."""
    return _pytree.tree_map_only(Tensor, lambda x: x.clone(memory_format=torch.contiguous_format), tree)


@pytest.mark.parametrize("seed", range(4))
def test_results_are_those_of_copies(seed: int) -> None:
    seen = []

    def see(op: Any, arguments: list[Any], results: Any) -> None:
        if "with_grad" in op.name():  # which writes to its arguments
            return
        expected = fuzz.attempt(op, _copies(arguments))
        seen.append(results)
        if isinstance(results, Exception):
            assert (type(expected), str(expected)) == (type(results), str(results)), op.name()
        else:
            tensors = [x for x in _pytree.tree_leaves(results) if isinstance(x, Tensor)]
            others = [x for x in _pytree.tree_leaves(expected) if isinstance(x, Tensor)]
            torch.testing.assert_close(tensors, others, rtol=2e-2, atol=1e-2, equal_nan=True)

    refused = fuzz.each_call(seed, COUNT, see)
    assert len(seen) > COUNT  # backward calls, too
    assert refused < 0.7 * len(seen)


FLAGS = ("-O1", "-fopenmp", "-ffp-contract=off", "-fsanitize=address", "-D_GLIBCXX_ASSERTIONS")


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
    link = ("-fsanitize=address", "-fopenmp", *(f"-L{path}" for path in library_paths()), "-lc10", "-ltorch_cpu")
    files = {
        Path(_C.__file__).name: (("ops.cpp", "host/*.cpp", "python/*.cpp"), about, ("-ltorch", "-ltorch_python")),
        library.name: (("cpu/*.cpp",), (*macros, *isa_flags.get(isa, "").split(), "-Wno-uninitialized"), ()),
    }
    for name, (patterns, flags, libraries) in files.items():
        found = sorted(file for pattern in patterns for file in (ROOT / CSRC).glob(pattern))
        sources = [(file, (*FLAGS, *flags, *include)) for file in found]
        made = compile_library(f"asan-{name.split('.')[0]}", ROOT, [CSRC], sources, (*link, *libraries))
        shutil.copy(made, folder / "ce_ext" / name)


@NEEDS_EMULATOR  # or what it is compiled with
@pytest.mark.thorough
def test_address_sanitizer(tmp_path: Path) -> None:
    _sanitized_package(tmp_path)
    environment = os.environ | {
        "LD_PRELOAD": f"{runtime('libasan.so')}:{runtime('libstdc++.so')}",  # of which it watches exceptions
        "ASAN_OPTIONS": "detect_leaks=0",  # Python leaks at exit
        "PYTHONPATH": f"{tmp_path}:{ROOT}",
        "OMP_NUM_THREADS": "2",
    }
    command = (sys.executable, "-P", "-m", "tests.support.fuzz", "7", "4000")
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "calls were refused" in run.stdout
