"""A bug to plant in the CUDA kernels, one at a time, and the evidence that the tests have to give of it."""

from dataclasses import dataclass

WRONG_VALUES = r"AssertionError"
WRONG_PLACE = rf"{WRONG_VALUES}|Fatal Python error: (Segmentation fault|Aborted)"
OUT_OF_BOUNDS = r"AddressSanitizer: heap-buffer-overflow"
MISALIGNED = r"runtime error: .* misaligned address"
RACE = r"ThreadSanitizer: data race"


@dataclass(frozen=True)
class Mutant:
    name: str
    file: str
    old: str
    new: str
    tests: str  # arguments of pytest: those that kill it
    sources: str  # of csrc/cuda or the emulator, by name: those with the kernels that these tests run
    evidence: str = WRONG_VALUES
    schedule: str = "forward"
    sanitizer: str | None = None  # which gives the evidence
    equivalent: bool = False  # nothing can show it


def in_cuda(name: str) -> str:
    return f"csrc/cuda/{name}.cuh"
