"""Peak memory that a call allocates, exact to the byte; and what the system does when it allocates."""

import ctypes
import json
import os
import resource
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # keeps the profiler's notices off the terminal

# Of malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4
# glibc adapts to tensors that come and go until it has this, or until the first mallopt. So that no case's memory
# depends on the cases before it, all of them have what it ends with: what is larger than 32 MiB is mapped anew, unless
# there is room for it in the heap.
ADAPTED = {M_MMAP_THRESHOLD: 32 << 20, M_TRIM_THRESHOLD: 64 << 20, M_MMAP_MAX: 1 << 16}
ALL_KEPT = {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: -1}


def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None)
    libc.malloc.argtypes, libc.malloc.restype = (ctypes.c_size_t,), ctypes.c_void_p
    libc.free.argtypes, libc.free.restype = (ctypes.c_void_p,), None
    libc.sbrk.argtypes, libc.sbrk.restype = (ctypes.c_ssize_t,), ctypes.c_void_p
    return libc


def set_malloc(parameters: dict[int, int]) -> None:
    for name, value in parameters.items():
        if not _libc().mallopt(name, value):
            raise OSError(f"mallopt({name}, {value}) failed")


@contextmanager
def warm_memory(nbytes: int) -> Iterator[None]:
    """Within it what the main thread frees stays with the process, and `nbytes` of that are there from the start."""
    set_malloc(ALL_KEPT)
    torch.ones(nbytes, dtype=torch.uint8)  # written, and free again
    try:
        yield
    finally:
        make_memory_fresh()


def make_memory_fresh() -> None:
    """From now on what is large is mapped anew, and what is free by now is with the system.

    But where something small lies above it, its place stays in the heap. Nothing large may get such a place, whose
    pages would be those of the call before: it is taken for good, and not written, which costs no memory.
    """
    libc = _libc()
    set_malloc(ALL_KEPT)  # the heap is asked alone
    libc.malloc_trim(0)
    end = libc.sbrk(0)
    while True:
        place = libc.malloc(ADAPTED[M_MMAP_THRESHOLD])
        if not place or place >= end or libc.sbrk(0) != end:
            break
    libc.free(place)  # what is behind the old end
    set_malloc(ADAPTED)
    libc.malloc_trim(0)


def page_faults() -> int:
    """Of this process so far: how often memory was touched that the system had yet to map."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def peak_extra_bytes(call: Callable[[], object], device: str) -> int:
    """The most that torch's allocator held during `call` beyond what it held before."""
    return _cuda_peak(call) if device == "cuda" else _cpu_peak(call)


def _cuda_peak(call: Callable[[], object]) -> int:
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    return torch.cuda.max_memory_allocated() - before


def _cpu_peak(call: Callable[[], object]) -> int:
    # The CPU allocator keeps no peak, but a profile lists its every allocation and release.
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        call()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        recorded.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text())["traceEvents"]
    held = peak = 0
    for event in sorted((e for e in events if e["name"] == "[memory]"), key=lambda e: e["ts"]):
        held += event["args"]["Bytes"]  # negative for a release
        peak = max(peak, held)
    return peak
