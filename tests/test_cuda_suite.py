"""All tests of kernels again on the emulated CUDA kernels: in other schedules, and under sanitizers.

AddressSanitizer and UBSan see accesses out of bounds or misaligned; ThreadSanitizer sees races between CUDA threads,
of one block and of several.
"""

from collections.abc import Iterator
from concurrent.futures import Future

import pytest

from tests.cuda_emu.suite import Run, concurrently, run_suite
from tests.marks import NEEDS_EMULATOR

pytestmark = NEEDS_EMULATOR

# Schedule and sanitizer. Forward without one is what `pytest --device emulated` does.
RUNS = (("reverse", "address"), ("forward", "thread"), ("reverse", None), ("random:1", None))


def _run(run: tuple[str, str | None]) -> Run:
    schedule, sanitizer = run
    tests = "kernel and not heavy" if sanitizer else "kernel"
    return run_suite("-m", tests, schedule=schedule, sanitizer=sanitizer)


@pytest.fixture(scope="module")
def runs() -> Iterator[dict[tuple[str, str | None], Future[Run]]]:
    with concurrently(_run, RUNS) as started:
        yield started


@pytest.mark.parametrize("run", RUNS, ids=lambda run: "-".join(filter(None, run)))
def test_suite(run: tuple[str, str | None], runs: dict[tuple[str, str | None], Future[Run]]) -> None:
    finished = runs[run].result()
    assert finished.returncode == 0, finished.stdout
    assert " passed" in finished.stdout
