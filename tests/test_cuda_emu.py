"""The emulator itself: what CUDA's words do, and that what CUDA leaves undefined is reported."""

import ctypes
import functools
from collections.abc import Callable

import pytest

from tests.cuda_emu import Emulator
from tests.marks import NEEDS_EMULATOR

pytestmark = [pytest.mark.kernel, NEEDS_EMULATOR]

BLOCKS, THREADS = 2, 64
SCHEDULES = ("forward", "reverse", "random:1", "random:2")


def _lanes(thread: int) -> range:
    """The threads of its warp."""
    return range(thread // 32 * 32, thread // 32 * 32 + 32)


# What a kernel of selftest.cu gives to each thread of a block.
RESULTS: dict[str, Callable[[int], int]] = {
    "shfl": lambda t: _lanes(t)[7],
    "shfl beyond the warp": lambda t: _lanes(t)[1],
    "shfl width 8": lambda t: t // 8 * 8 + 1,
    "shfl_up": lambda t: t - 4 if t % 32 >= 4 else t,
    "shfl_down": lambda t: t + 4 if t % 32 < 28 else t,
    "shfl_down width 8": lambda t: t + 4 if t % 8 < 4 else t,
    "shfl_xor width 8": lambda t: t ^ 3,
    "shfl double": lambda t: 3 * _lanes(t)[2],
    "half warps apart": lambda t: sum(range(16)) if t % 32 < 16 else sum(range(16, 32)),
    "some lanes alone": lambda t: sum(range(7)) if t % 32 < 7 else -1,
    "the others have exited": lambda t: sum(range(7)) if t % 32 < 7 else -1,
    "ballot": lambda t: sum(1 << i for i in range(0, 32, 3)),
    "any": lambda t: int(t >= 32),
    "all": lambda t: int(t < 32),
    "reduce_add": lambda t: sum(_lanes(t)),
    "reduce_min": lambda t: 5 - _lanes(t)[31],
    "reduce_min unsigned": lambda t: 0 if t < 32 else 5 - _lanes(t)[31],
    "reduce_max": lambda t: 5 - _lanes(t)[0],
    "reduce_and": lambda t: 64 + _lanes(t)[0],
    "reduce_or": lambda t: _lanes(t)[31],
    "reduce_xor": lambda t: -1,
    "syncthreads_count": lambda t: sum(i % 3 != 0 for i in range(THREADS)),
    "syncthreads_or": lambda t: 1,
    "syncthreads_and": lambda t: 0,
    "shared memory across a warp": lambda t: t ^ 1,
    "shared memory across the block": lambda t: 63 - t,
    "dynamic shared memory": lambda t: 63 - t,
    "shared memory before it is written": lambda t: -1,
    "block_reduce twice": lambda t: sum(range(THREADS)) * 10002 if t == 0 else -1,
}
ERRORS = {
    "barrier that half of the threads reach": r"warp 0, lanes ffffffff: __syncthreads at .*\n.* warp 1, .*: exited",
    "different barriers": r"__syncthreads at .*selftest\.cu:(\d+)\n.*__syncthreads at .*selftest\.cu:(?!\1)\d+",
    "half a warp shuffles for all": r"__shfl_down_sync at .*: lane 15 reads lane 16, which takes no part",
    "different collectives": r"lanes ffff: __any_sync at .*\n.*lanes ffff0000: __all_sync at ",
    "lane outside of its own mask": r"__any_sync at .*: is not in the mask of its own call",
    "shuffle from a lane that is not there": r"__shfl_sync at .*: lane 0 reads lane 20, which takes no part",
    "shuffle of width 5": r"the width of a shuffle must be a power of two up to 32 at .*selftest\.cu:\d+",
}


@pytest.fixture
def run(emulator: Emulator) -> Callable[..., list[int]]:
    return functools.partial(_run, emulator)


def _run(emulator: Emulator, kernel: str, blocks: int = BLOCKS, threads: int = THREADS, shared: int = 0) -> list[int]:
    out = (ctypes.c_int * max(1, blocks * threads))()
    emulator.kernels.run_selftest.restype = ctypes.c_char_p
    error = emulator.kernels.run_selftest(kernel.encode(), blocks, threads, shared, out).decode()
    if error:
        raise RuntimeError(error)
    return list(out)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("kernel", RESULTS)
def test_result(kernel: str, schedule: str, run: Callable[..., list[int]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_EMU_SCHEDULE", schedule)
    shared = 4 * THREADS if kernel == "dynamic shared memory" else 0
    assert run(kernel, shared=shared) == [RESULTS[kernel](t) for _ in range(BLOCKS) for t in range(THREADS)]


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("kernel", ERRORS)
def test_error(kernel: str, schedule: str, run: Callable[..., list[int]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_EMU_SCHEDULE", schedule)
    with pytest.raises(RuntimeError, match=r"^cuda_emu: block \(\d, 0, 0\), thread \(\d+, 0, 0\): ") as error:
        run(kernel)
    assert error.match(ERRORS[kernel])
    assert run("shfl", blocks=1) == [RESULTS["shfl"](t) for t in range(THREADS)]  # and life goes on


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_last_block(schedule: str, run: Callable[..., list[int]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_EMU_SCHEDULE", schedule)
    results = run("the last block sees the others")
    assert sorted(results) == [-1] * (BLOCKS * THREADS - 1) + [2 * sum(range(32))]


def test_schedules(run: Callable[..., list[int]], monkeypatch: pytest.MonkeyPatch) -> None:
    """The order in which threads come to an atomic, blocks included."""
    orders = {}
    for schedule in SCHEDULES:
        monkeypatch.setenv("CUDA_EMU_SCHEDULE", schedule)
        orders[schedule] = run("atomicAdd")
        assert sorted(orders[schedule]) == list(range(BLOCKS * THREADS))
        assert run("atomicAdd") == orders[schedule]
    assert orders["forward"] == list(range(BLOCKS * THREADS))
    assert orders["reverse"] == orders["forward"][::-1]
    assert len(set(map(tuple, orders.values()))) == len(SCHEDULES)

    monkeypatch.setenv("CUDA_EMU_SCHEDULE", "sideways")
    with pytest.raises(RuntimeError, match="must be forward, reverse or random:SEED, but got sideways"):
        run("atomicAdd")


@pytest.mark.parametrize(
    ("launch", "message"),
    [
        ({"blocks": 0}, "invalid configuration"),
        ({"threads": 0}, "invalid configuration"),
        ({"threads": 1025}, "invalid configuration"),
        ({"shared": 228 * 1024}, "more dynamic shared memory than any GPU has"),
    ],
    ids=str,
)
def test_launch_that_no_gpu_takes(launch: dict[str, int], message: str, run: Callable[..., list[int]]) -> None:
    with pytest.raises(RuntimeError, match=message):
        run("shfl", **launch)


def test_warp_that_is_not_full(run: Callable[..., list[int]]) -> None:
    assert run("reduce_add", blocks=1, threads=40) == [sum(range(32))] * 32 + [sum(range(32, 40))] * 8
