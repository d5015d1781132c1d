"""The tests of kernels again on the emulated CUDA kernels: in other schedules, and under sanitizers.

AddressSanitizer and UBSan see accesses out of bounds or misaligned; ThreadSanitizer sees races between CUDA threads,
of one block and of several.
"""

import pytest

from tests.cuda_emu.suite import run_suite
from tests.support.forks import KERNEL_TESTS
from tests.support.marks import NEEDS_EMULATOR

pytestmark = [NEEDS_EMULATOR, pytest.mark.thorough]

# Under sanitizers a test takes several times as long. They see where kernels read and write, and when, which depends
# neither on the options of the loss nor on the kind of half type.
SANITIZED = "not sum and not -float16 and not focal and not every_pair"

# Schedule and sanitizer. Forward without one is what `pytest --device emulated` does.
RUNS = (("reverse", "address,undefined"), ("forward", "thread"), ("reverse", None), ("random:1", None))


@pytest.mark.parametrize("part", KERNEL_TESTS)
@pytest.mark.parametrize(("schedule", "sanitizer"), RUNS)
def test_suite(schedule: str, sanitizer: str | None, part: str) -> None:
    chosen = ("-k", SANITIZED) if sanitizer else ()
    run = run_suite(*KERNEL_TESTS[part], *chosen, schedule=schedule, sanitizer=sanitizer)
    assert run.returncode == 0, run.stdout
