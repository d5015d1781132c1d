"""Clocks, and an interleaved comparison that survives a noisy machine."""

from __future__ import annotations

import gc
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.memory import page_faults


@dataclass(frozen=True)
class Step:
    """What is timed, and what is not: putting back inputs that the call has overwritten."""

    call: Callable[[], Any]
    restore: Callable[[], object] = lambda: None


Clock = Callable[[Step, int], float]  # seconds a call, over that many calls

# The host's timer and scheduler tick in bursts; a sample has to outlast them.
MIN_SAMPLE_SECONDS = 1e-3
MIN_ROUNDS = 5
# The minima are stable once so many rounds have lowered none of them by more than the tolerance.
STABLE_ROUNDS = 100
STABLE_TOLERANCE = 0.005
# Many times the L2 cache of any GPU, and a third of a millisecond of reading even at 3 TB/s.
FLUSH_BYTES = 1 << 30


@dataclass(frozen=True)
class Timing:
    """Seconds a call."""

    best: float
    median: float
    spread: float  # between the quartiles, of the median
    samples: int
    calls_per_sample: int
    page_faults: float  # of a call, the median

    @classmethod
    def of(cls, seconds: list[float], page_faults: list[float], calls_per_sample: int) -> Timing:
        quarter, median, three_quarters = statistics.quantiles(seconds, n=4, method="inclusive")
        spread = (three_quarters - quarter) / median
        faults = statistics.median(page_faults)
        return cls(min(seconds), median, spread, len(seconds), calls_per_sample, faults)


def wall_clock(device: str) -> Clock:
    """The host's time for a call and the kernels it starts.

    Nothing is restored between the calls of a sample: it would be timed, and values do not change the overhead.
    """
    synchronize = torch.get_device_module(device).synchronize

    def clock(step: Step, calls: int) -> float:
        step.restore()
        synchronize()
        start = time.perf_counter()
        for _ in range(calls):
            step.call()
        synchronize()
        return (time.perf_counter() - start) / calls

    return clock


def kernel_clock(device: str) -> Clock:
    """On CUDA, the GPU's time for calls that start with a cold L2 cache."""
    if device != "cuda":
        return wall_clock(device)
    flush = _flush_of(device)

    def clock(step: Step, calls: int) -> float:
        pairs = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(calls)]
        for start, end in pairs:
            step.restore()
            # Reads, because writes would leave dirty lines, whose way out of the cache the call would pay for. While
            # the GPU is at it, the host enqueues the call, so that gaps between kernels are not timed.
            flush()
            start.record()
            step.call()
            end.record()
        torch.cuda.synchronize()
        return sum(start.elapsed_time(end) for start, end in pairs) * 1e-3 / calls

    return clock


def _flush_of(device: str) -> Callable[[], object]:
    return torch.ones(FLUSH_BYTES // 4, device=device).sum


def may_wait_for_host(step: Step, device: str) -> bool:
    """Whether the GPU gets to the call before the host is through with it, as the kernel clock calls it.

    Then its time may contain gaps between kernels; it does, unless the first of them takes long.
    """
    if device != "cuda":
        return False
    flush = _flush_of(device)
    start = torch.cuda.Event(enable_timing=True)
    step.restore()
    torch.cuda.synchronize()
    flush()
    start.record()
    step.call()
    return start.query()


def calls_per_sample(step: Step, clock: Clock) -> int:
    calls = 1
    if clock(step, calls) > 10 * MIN_SAMPLE_SECONDS:  # which needs no closer look
        return calls
    while calls * min(clock(step, calls) for _ in range(3)) < MIN_SAMPLE_SECONDS:
        calls *= 2
    return calls


def time_interleaved(steps: dict[str, Step], clock: Clock, budget: float) -> dict[str, Timing]:
    """Times every step once a round, so that a noisy moment hits all of them alike.

    Rounds go on until the minima are stable or `budget` seconds are used up.
    """
    calls = {name: calls_per_sample(step, clock) for name, step in steps.items()}
    samples: dict[str, list[float]] = {name: [] for name in steps}
    faults: dict[str, list[float]] = {name: [] for name in steps}
    lowest = dict.fromkeys(steps, float("inf"))
    order = list(steps)
    rounds = stable_rounds = 0
    gc.collect()
    gc.disable()
    deadline = time.perf_counter() + budget
    while rounds < MIN_ROUNDS or (stable_rounds < STABLE_ROUNDS and time.perf_counter() < deadline):
        rounds += 1
        stable_rounds += 1
        random.shuffle(order)  # nobody always inherits the same one's caches
        for name in order:
            faults_before = page_faults()
            seconds = clock(steps[name], calls[name])
            faults[name].append((page_faults() - faults_before) / calls[name])
            samples[name].append(seconds)
            if seconds < lowest[name] * (1 - STABLE_TOLERANCE):
                lowest[name] = seconds
                stable_rounds = 0
    gc.enable()
    return {name: Timing.of(samples[name], faults[name], calls[name]) for name in steps}
