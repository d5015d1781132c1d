"""The emulator's asynchronous copies: what they bring, and that their misuse is reported."""

import functools
from collections.abc import Callable

import pytest

from tests.cuda_emu import Emulator
from tests.cuda_emu.selftest import BLOCKS, SCHEDULES, THREADS, Launch, check_error, run_selftest
from tests.support.marks import NEEDS_EMULATOR

pytestmark = [pytest.mark.kernel, NEEDS_EMULATOR]

AT = r" at .*selftest_copies\.cu:\d+"
ASYNC, BULK = r"cp\.async", r"cp\.async\.bulk"


def _pack(i: int) -> int:
    """The sum of a pack of numbers."""
    return sum(range(4 * i, 4 * i + 4))


def _first_bytes(count: int) -> int:
    """The sum of the last pack, of which only so many bytes are read."""
    read = b"".join(i.to_bytes(4, "little") for i in range(252, 256))[:count].ljust(16, b"\0")
    return sum(int.from_bytes(read[i : i + 4], "little") for i in range(0, 16, 4))


# What a kernel of selftest_copies.cu gives to each thread of a block.
RESULTS: dict[str, Callable[[int], int]] = {
    "copy_async": lambda t: _pack(63 - t),
    "copy_async for the block": lambda t: _pack(63 - t),
    "copy_async of some bytes": lambda t: _first_bytes(t % 17),
    "copy_async in two stages": lambda t: sum(map(_pack, range(7))),
    "bulk copy": lambda t: _pack(t % 8),
    "bulk copies in a ring": lambda t: sum(map(_pack, range(7))) if t < 32 else 0,
}
# What comes as late as it can is not there yet: all that is read are bytes of 0xff.
TOO_EARLY = (
    "copy_async that is read too early",
    "copy_async of a group that is not waited for",
    "bulk copy that is read too early",
)
ERRORS = {
    "copy_async that nobody waits for": rf"the thread exits without waiting for its {ASYNC}{AT}",
    "copy_async that is in no group": rf"the thread exits without waiting for its {ASYNC}{AT}",
    "copy_async to where another is to arrive": rf"{ASYNC} to where the {ASYNC} of .*:\d+ has yet to arrive{AT}",
    "copy_async to what is not aligned": rf"{ASYNC} with an address that is not aligned to 16 bytes{AT}",
    "copy_async from what is not aligned": rf"{ASYNC} with an address that is not aligned to 16 bytes{AT}",
    "copy_async of 17 bytes": rf"{ASYNC} of more than 16 bytes{AT}",
    "copy_async to what is not shared": rf"a copy to what is no shared memory of this block{AT}",
    "copy_async beyond what is shared": rf"a copy to what is no shared memory of this block{AT}",
    "bulk copy that nobody waits for": rf"exits (before the arrival of|without waiting for) its {BULK}{AT}",
    "bulk copy of 8 bytes": rf"{BULK} of bytes that are no multiple of 16{AT}",
    "bulk copy from what is not aligned": rf"{BULK} with an address that is not aligned to 16 bytes{AT}",
    "bulk copy to what is not aligned": rf"{BULK} with an address that is not aligned to 16 bytes{AT}",
    "store_async to what is not aligned": rf"st\.async with an address that is not aligned to 16 bytes{AT}",
    "more bytes than an mbarrier counts": rf"more bytes than an mbarrier can count{AT}",
    "more bytes than are expected": rf"more bytes come to an mbarrier than all its arrivals expect{AT}",
    "more arrivals than a phase has": rf"more arrivals than the 1 that the mbarrier was initialised with{AT}",
    "arrival at what is no mbarrier": rf"mbarrier\.arrive with what is no mbarrier, or not initialised yet{AT}",
    "wait for what is no mbarrier": rf"mbarrier\.try_wait with what is no mbarrier, or not initialised yet{AT}",
    "wait for a parity of 2": rf"an mbarrier's parity is 0 or 1{AT}",
    "wait for a phase that never ends": rf"warp 0, lanes 1: mbarrier\.try_wait{AT} for parity 0 of an mbarrier that "
    r"is in a phase of parity 0 and waits for 1 of 2 arrivals and 48 bytes",
    "mbarrier of no arrivals": rf"mbarrier\.init with a count that is not in 1 \.\. 2\^20 - 1{AT}",
    "mbarrier that is not aligned": rf"mbarrier\.init of an address that is not aligned{AT}",
    "mbarrier that is initialised twice": rf"mbarrier\.init of an mbarrier that is in use{AT}",
    "mbarrier that is written over": rf"mbarrier\.arrive with an mbarrier that something else was written over{AT}",
}
# Of copies that are still under way.
ERRORS_WHEN_LATE = {
    "write where a copy_async is to arrive": rf"a thread has written where there has yet to arrive the {ASYNC}{AT}",
    "bulk copy to where another is to arrive": rf"{BULK} to where the {BULK} of .*:\d+ has yet to arrive{AT}",
}


@pytest.fixture
def run(emulator: Emulator) -> Launch:
    return functools.partial(run_selftest, emulator)


@pytest.fixture(params=SCHEDULES)
def schedule(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_EMU_SCHEDULE", request.param)


@pytest.mark.usefixtures("schedule")
@pytest.mark.parametrize("kernel", RESULTS)
def test_result(kernel: str, run: Launch) -> None:
    assert run(kernel) == [RESULTS[kernel](t) for _ in range(BLOCKS) for t in range(THREADS)]


@pytest.mark.usefixtures("schedule")
@pytest.mark.parametrize("cluster", [1, 2, 4])
def test_stores_to_other_blocks(cluster: int, run: Launch) -> None:
    result = 0
    for turn in range(2):
        for slot in range(2 * cluster):
            result = 8 * result + turn + 2 * slot
    results = run("store_async", blocks=4, cluster=cluster)
    assert [number % 2**32 for number in results] == [result % 2**32] * (4 * THREADS)


@pytest.mark.heavy  # sanitizers would find it first
@pytest.mark.parametrize("kernel", TOO_EARLY)
def test_copy_that_is_read_too_early(kernel: str, run: Launch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_EMU_SCHEDULE", "forward")
    assert run(kernel) == [-1] * (BLOCKS * THREADS)


@pytest.mark.usefixtures("schedule")
@pytest.mark.parametrize("kernel", ERRORS)
def test_error(kernel: str, run: Launch) -> None:
    check_error(run, kernel, 1, ERRORS[kernel])


@pytest.mark.heavy  # likewise
@pytest.mark.parametrize("kernel", ERRORS_WHEN_LATE)
def test_error_when_late(kernel: str, run: Launch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_EMU_SCHEDULE", "forward")
    check_error(run, kernel, 1, ERRORS_WHEN_LATE[kernel])


@pytest.mark.usefixtures("schedule")
def test_store_to_a_block_that_exits(run: Launch) -> None:
    """Or has done so before, or after the store has come."""
    message = (
        rf"exits (before the arrival of|without waiting for) its st\.async{AT}|memory of a block that has exited{AT}"
    )
    check_error(run, "store_async to a block that exits", 2, message)
