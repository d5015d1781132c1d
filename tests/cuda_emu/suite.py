"""The tests of kernels on the emulated device, in a process of their own: under a sanitizer, or with other sources."""

import functools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import pytest
from torch.utils.cpp_extension import get_cxx_compiler

from tests.cuda_emu import ROOT, compile_kernels

Run = subprocess.CompletedProcess[str]
Item = TypeVar("Item")

# A sanitizer has to be in the process before the library that it watches.
_RUNTIMES = {"address": ("libasan.so", "libubsan.so"), "thread": ("libtsan.so",)}
_OPTIONS = {
    "ASAN_OPTIONS": "detect_leaks=0",  # Python leaks at exit
    "UBSAN_OPTIONS": "print_stacktrace=1",
    "TSAN_OPTIONS": "halt_on_error=1",
    "OMP_NUM_THREADS": "1",  # torch's own threads: ThreadSanitizer does not see how OpenMP orders them
}


def run_suite(
    *arguments: str,
    root: Path = ROOT,
    changed: Sequence[str] | None = None,
    sanitizer: str | None = None,
    schedule: str = "forward",
) -> Run:
    """pytest with these arguments, on the kernels and the emulator of `root`; stdout holds its stderr too."""
    environment = dict(os.environ, CUDA_EMU_SCHEDULE=schedule)
    if sanitizer:
        environment |= _OPTIONS | {"LD_PRELOAD": ":".join(map(_runtime, _RUNTIMES[sanitizer]))}
    kernels = compile_kernels(root, sanitizer, changed)
    options = ("-q", "-x", "-s", "-p", "no:cacheprovider", "--device", "emulated", f"--emulated-kernels={kernels}")
    return subprocess.run(
        (*_fixed_addresses(), sys.executable, "-m", "pytest", *options, *arguments),
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _runtime(name: str) -> str:
    path = subprocess.check_output([get_cxx_compiler(), f"-print-file-name={name}"], text=True).strip()
    if path == name:
        pytest.skip(f"the compiler comes without {name}")
    return path


@functools.cache
def _fixed_addresses() -> tuple[str, ...]:
    """Kernels that randomise many bits of addresses put memory where older ThreadSanitizers do not expect any."""
    command = ("setarch", "--addr-no-randomize")
    with suppress(OSError):
        if subprocess.run((*command, "true"), capture_output=True).returncode == 0:
            return command
    return ()  # not installed, or not allowed


@contextmanager
def concurrently(function: Callable[[Item], Run], items: Sequence[Item]) -> Iterator[dict[Item, Future[Run]]]:
    """Starts them all, as many at a time as there are cores."""
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        yield {item: pool.submit(function, item) for item in items}
        pool.shutdown(cancel_futures=True)
