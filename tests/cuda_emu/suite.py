"""The tests of kernels on the emulated device, in a process apart: under a sanitizer, or with other sources."""

import functools
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from torch.utils.cpp_extension import get_cxx_compiler

from tests.cuda_emu import ROOT, compile_kernels
from tests.support.forks import Forks, Run

# These have to be in the process before the library that they watch.
_RUNTIMES = {"address": "libasan.so", "undefined": "libubsan.so", "thread": "libtsan.so"}
_OPTIONS = {
    "ASAN_OPTIONS": "detect_leaks=0",  # Python leaks at exit
    "UBSAN_OPTIONS": "print_stacktrace=1",
    "TSAN_OPTIONS": "halt_on_error=1",
}


def run_suite(
    *arguments: str,
    root: Path = ROOT,
    changed: Sequence[str] | None = None,
    sanitizer: str | None = None,
    schedule: str = "forward",
) -> Run:
    """pytest with these arguments, on the kernels and the emulator of `root`, up to the first failure."""
    kernels = compile_kernels(root, sanitizer, changed)
    options = ("-x", "--device", "emulated", f"--emulated-kernels={kernels}")
    runtimes = tuple(_RUNTIMES[name] for name in (sanitizer or "").split(",") if name in _RUNTIMES)
    return _forks(runtimes).pytest(*options, *arguments, environment={"CUDA_EMU_SCHEDULE": schedule})


@functools.cache
def _forks(runtimes: tuple[str, ...]) -> Forks:
    if not runtimes:
        return Forks()
    preload = ":".join(map(runtime, runtimes))
    return Forks(_OPTIONS | {"LD_PRELOAD": preload}, launcher=_fixed_addresses())


def runtime(name: str) -> str:
    path = subprocess.check_output([get_cxx_compiler(), f"-print-file-name={name}"], text=True).strip()
    if path == name:
        pytest.skip(f"the compiler comes without {name}")
    return path


def _fixed_addresses() -> tuple[str, ...]:
    """Kernels that randomise many bits of addresses put memory where older ThreadSanitizers do not expect any."""
    command = ("setarch", "--addr-no-randomize")
    with suppress(OSError):
        if subprocess.run((*command, "true"), capture_output=True).returncode == 0:
            return command
    return ()  # not installed, or not allowed
