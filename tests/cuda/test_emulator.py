"""The emulator itself: what CUDA's words do, and that what CUDA leaves undefined is reported."""

import ctypes
import functools
from collections.abc import Callable

import pytest

from tests.cuda_emu import Emulator
from tests.cuda_emu.selftest import BLOCKS, SCHEDULES, THREADS, Launch, check_error, run_selftest
from tests.support.marks import NEEDS_EMULATOR

pytestmark = [pytest.mark.kernel, NEEDS_EMULATOR]

CLUSTERS = (1, 2)


def _lanes(thread: int) -> range:
    """The threads of its warp."""
    return range(thread // 32 * 32, thread // 32 * 32 + 32)


def _extremes(thread: int, *halves: int) -> int:
    """The bits of the smaller and of the larger of two halves. The first is NaN, and the others ascend."""
    pair = sorted((thread // 8, thread % 8))
    smaller, larger = (0x7FFF, 0x7FFF) if pair[0] == 0 else (halves[i] for i in pair)
    bits = smaller << 16 | larger
    return bits - (bits >> 31 << 32)


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
    "min and max of __half2": lambda t: _extremes(t, 0, 0xFC00, 0xBC00, 0x8000, 0x0000, 0x0001, 0x3C00, 0x7C00),
    "min and max of __nv_bfloat162": lambda t: _extremes(t, 0, 0xFF80, 0xBF80, 0x8000, 0x0000, 0x0001, 0x3F80, 0x7F80),
    "split of a row that begins anywhere": lambda t: (4, 303, 202, 105)[t % 4],
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
CLUSTER_ERRORS = {
    "sync_cluster that half of a block reaches": r"block \(1, 0, 0\), warp 0, lanes ffffffff: sync_cluster at .*"
    r"selftest\.cu:\d+\n  block \(1, 0, 0\), warp 1, lanes ffffffff: exited",
    "different sync_clusters": r"block \(0, 0, 0\), warp 1, .*: sync_cluster at .*selftest\.cu:(\d+)\n"
    r"  block \(1, 0, 0\), warp 0, .*: sync_cluster at .*selftest\.cu:(?!\1)\d+",
    "sync_cluster or barrier": r"block \(1, 0, 0\), warp 0, .*: sync_cluster at .*selftest\.cu:\d+\n"
    r"  block \(1, 0, 0\), warp 1, .*: __syncthreads at .*selftest\.cu:\d+",
    "shared memory of a block outside of the cluster": r"a block that is not in the cluster at .*selftest\.cu:\d+",
    "memory that is not shared": r"is no shared memory of this block at .*selftest\.cu:\d+",
}


@pytest.fixture
def run(emulator: Emulator) -> Launch:
    return functools.partial(run_selftest, emulator)


@pytest.fixture(params=SCHEDULES)
def schedule(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_EMU_SCHEDULE", request.param)


@pytest.mark.covering(2)
@pytest.mark.usefixtures("schedule")
@pytest.mark.parametrize("cluster", CLUSTERS)
@pytest.mark.parametrize("kernel", RESULTS)
def test_result(kernel: str, cluster: int, run: Launch) -> None:
    shared = 4 * THREADS if kernel == "dynamic shared memory" else 0
    results = run(kernel, cluster=cluster, shared=shared)
    assert results == [RESULTS[kernel](t) for _ in range(BLOCKS) for t in range(THREADS)]


@pytest.mark.covering(2)
@pytest.mark.usefixtures("schedule")
@pytest.mark.parametrize("cluster", CLUSTERS)
@pytest.mark.parametrize("kernel", ERRORS)
def test_error(kernel: str, cluster: int, run: Launch) -> None:
    check_error(run, kernel, cluster, ERRORS[kernel])


@pytest.mark.usefixtures("schedule")
@pytest.mark.parametrize("kernel", CLUSTER_ERRORS)
def test_error_in_cluster(kernel: str, run: Launch) -> None:
    check_error(run, kernel, 2, CLUSTER_ERRORS[kernel])


def test_shared_memory_of_a_block_that_has_exited(run: Launch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_EMU_SCHEDULE", "forward")  # in which the first block exits before the other begins
    message = r"shared memory of a block that has exited at .*selftest\.cu:\d+"
    check_error(run, "shared memory of a block that has exited", 2, message)


@pytest.mark.usefixtures("schedule")
@pytest.mark.parametrize("cluster", CLUSTERS)
def test_last_block(cluster: int, run: Launch) -> None:
    results = run("the last block sees the others", cluster=cluster)
    assert sorted(results) == [-1] * (BLOCKS * THREADS - 1) + [2 * sum(range(32))]


@pytest.mark.usefixtures("schedule")
@pytest.mark.parametrize("threads", [40, 64])  # and in a warp that is not full
@pytest.mark.parametrize(("blocks", "cluster"), [(6, 1), (6, 2), (6, 3), (16, 8)])
def test_cluster(blocks: int, cluster: int, threads: int, run: Launch) -> None:
    launch = {"blocks": blocks, "threads": threads, "cluster": cluster}
    numbers = [(block, thread) for block in range(blocks) for thread in range(threads)]
    assert run("rank in the cluster", **launch) == [10 * (block % cluster) + cluster for block, _ in numbers]

    next_block = [block // cluster * cluster + (block + 1) % cluster for block in range(blocks)]
    exchanged = run("shared memory across the cluster", **launch)
    assert exchanged == [next_block[block] * threads + thread for block, thread in numbers]


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_schedules(cluster: int, run: Launch, monkeypatch: pytest.MonkeyPatch) -> None:
    """The order in which threads come to an atomic, blocks included."""
    orders = {}
    for schedule in SCHEDULES:
        monkeypatch.setenv("CUDA_EMU_SCHEDULE", schedule)
        orders[schedule] = run("atomicAdd", cluster=cluster)
        assert sorted(orders[schedule]) == list(range(BLOCKS * THREADS))
        assert run("atomicAdd", cluster=cluster) == orders[schedule]
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
        ({"shared": 48 * 1024 + 1}, "more dynamic shared memory than cudaFuncSetAttribute has allowed"),
        ({"shared": 228 * 1024}, "more dynamic shared memory than any GPU has"),
        ({"blocks": 3, "cluster": 2}, "no GPU runs 3 blocks in clusters of 2"),
        ({"blocks": 16, "cluster": 16}, "no GPU runs 16 blocks in clusters of 16"),
    ],
    ids=str,
)
def test_launch_that_no_gpu_takes(launch: dict[str, int], message: str, run: Launch) -> None:
    with pytest.raises(RuntimeError, match=message):
        run("shfl", **launch)


def test_dynamic_shared_memory_that_is_allowed(run: Launch, emulator: Emulator) -> None:
    emulator.kernels.allow_dynamic_shared(64 * 1024)
    try:
        run("dynamic shared memory", shared=64 * 1024)
        with pytest.raises(RuntimeError, match="more dynamic shared memory than cudaFuncSetAttribute has allowed"):
            run("dynamic shared memory", shared=64 * 1024 + 1)
    finally:
        emulator.kernels.allow_dynamic_shared(48 * 1024)


def test_gpu_without_clusters(run: Launch, emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    assert emulator.kernels.max_active_clusters() == 3
    monkeypatch.setattr(ctypes.c_int.in_dll(emulator.kernels, "cuda_emu_capability"), "value", 89)
    assert emulator.kernels.max_active_clusters() == 0
    assert emulator.kernels.take_last_error() == 1 and emulator.kernels.take_last_error() == 0
    with pytest.raises(RuntimeError, match="this GPU has no clusters"):
        run("shfl", cluster=2)
    run("shfl", cluster=1)


def test_warp_that_is_not_full(run: Launch) -> None:
    assert run("reduce_add", blocks=1, threads=40) == [sum(range(32))] * 32 + [sum(range(32, 40))] * 8
