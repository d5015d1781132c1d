"""The tests of kernels again on the emulated CUDA kernels: in other schedules, and under sanitizers.

AddressSanitizer and UBSan see accesses out of bounds or misaligned; ThreadSanitizer sees races between CUDA threads,
of one block and of several.
"""

from collections.abc import Iterator
from concurrent.futures import Future

import pytest

from tests.cuda_emu.suite import Run, concurrently, run_suite
from tests.support.marks import NEEDS_EMULATOR

pytestmark = NEEDS_EMULATOR

# Under sanitizers a test takes several times as long. They see where kernels read and write, and when, which depends
# neither on the options of the loss nor on the kind of half type.
SANITIZED = "not sum and not -float16 and not focal"

# Schedule and sanitizer. Forward without one is what `pytest --device emulated` does.
RUNS = (("reverse", "address"), ("forward", "thread"), ("reverse", None), ("random:1", None))


def _run(run: tuple[str, str | None]) -> Run:
    schedule, sanitizer = run
    chosen = ("-k", SANITIZED) if sanitizer else ()
    return run_suite("-m", "kernel and not heavy", *chosen, schedule=schedule, sanitizer=sanitizer)


@pytest.fixture(scope="module")
def runs() -> Iterator[dict[tuple[str, str | None], Future[Run]]]:
    with concurrently(_run, RUNS) as started:
        yield started


@pytest.mark.thorough
@pytest.mark.parametrize("run", RUNS, ids=lambda run: "-".join(filter(None, run)))
def test_suite(run: tuple[str, str | None], runs: dict[tuple[str, str | None], Future[Run]]) -> None:
    finished = runs[run].result()
    assert finished.returncode == 0, finished.stdout
    assert " passed" in finished.stdout
