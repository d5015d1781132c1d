"""Runs the small kernels of selftest.cu."""

import ctypes
from collections.abc import Callable

import pytest

from tests.cuda_emu import Emulator

BLOCKS, THREADS = 2, 64
SCHEDULES = ("forward", "reverse", "random:1", "random:2")

Launch = Callable[..., list[int]]


def run_selftest(
    emulator: Emulator, kernel: str, blocks: int = BLOCKS, threads: int = THREADS, cluster: int = 1, shared: int = 0
) -> list[int]:
    """What each thread of the launch has written."""
    out = (ctypes.c_int * max(1, blocks * threads))()
    emulator.kernels.run_selftest.restype = ctypes.c_char_p
    error = emulator.kernels.run_selftest(kernel.encode(), blocks, threads, cluster, shared, out).decode()
    if error:
        raise RuntimeError(error)
    return list(out)


def check_error(run: Launch, kernel: str, cluster: int, message: str) -> None:
    with pytest.raises(RuntimeError, match=r"^cuda_emu: block \(\d, 0, 0\), thread \(\d+, 0, 0\): ") as error:
        run(kernel, cluster=cluster)
    assert error.match(message)
    assert run("shfl", blocks=1) == [t // 32 * 32 + 7 for t in range(THREADS)]  # and life goes on
