"""The table of csrc/cuda/rows/policy.cuh, by which teams share rows: what could be in it, and what should."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from benchmarks.timing import Timing

PASSES = {"forward": "kForward", "backward": "kBackward", "with_grad": "kWithGrad"}
# Threads that share a row: the teams that kernels have.
TEAMS = {"forward": (8, 32, 128, 256), "backward": (8, 32), "with_grad": (32, 128, 320)}
BYTES_IN_FLIGHT = 64  # of a thread
# Teams that have more of a row in flight than this many times its bytes idle.
MOST_IN_FLIGHT = 8
# What is gained has to be more than this, however quiet the machine.
LEAST_NOISE = 0.02


@dataclass(frozen=True)
class Entry:
    pass_name: str
    row_bytes: float  # of rows up to this length; inf for any
    threads: int

    @property
    def name(self) -> str:
        return f"{self.pass_name}:{self.row_bytes}"

    def __str__(self) -> str:
        return f"{self.name}={self.threads}"

    def as_cpp(self) -> str:
        """The row of kRowPolicies."""
        row_bytes = "kAnyLength" if self.row_bytes == math.inf else self.row_bytes
        return f"{{Pass::{PASSES[self.pass_name]}, {row_bytes}, {self.threads}}},"


def parse(text: str) -> list[Entry]:
    """What the op `cuda_policy` returns."""
    entries = []
    for part in text.split("; "):
        match = re.fullmatch(r"(\w+):(\d+|inf)=(\d+)", part)
        if not match:
            raise ValueError(f"no entry of a policy: {part!r}")
        pass_name, row_bytes, threads = match.groups()
        entries.append(Entry(pass_name, math.inf if row_bytes == "inf" else int(row_bytes), int(threads)))
    return entries


def covering(entries: Iterable[Entry], pass_name: str, row_bytes: int) -> Entry:
    """The one that rows of this length take: the first that fits."""
    return next(entry for entry in entries if entry.pass_name == pass_name and row_bytes <= entry.row_bytes)


def candidates(pass_name: str, row_bytes: int) -> list[int]:
    """The teams that are worth a try for rows of this length."""
    return [threads for threads in TEAMS[pass_name] if threads * BYTES_IN_FLIGHT <= MOST_IN_FLIGHT * row_bytes]


Timings = Mapping[int, Timing]  # of one problem, by team


def gain(usual: int, threads: int, problems: Sequence[Timings]) -> float:
    """How many times as fast teams of `threads` are, in the geometric mean; 1 where that may be noise.

    Medians are compared. The noise is what lies between the quartiles of either, in the problem where that is most; it
    has to be exceeded by the mean, and no problem may become slower by more.
    """
    pairs = [(timings[usual], timings[threads]) for timings in problems]
    noise = max(LEAST_NOISE, *(max(old.spread, new.spread) for old, new in pairs))
    gains = [old.median / new.median for old, new in pairs]
    mean = math.exp(math.fsum(map(math.log, gains)) / len(gains))
    return mean if mean > 1 + noise and min(gains) > 1 - noise else 1.0


def best(entry: Entry, problems: Sequence[Timings]) -> tuple[Entry, float]:
    """The entry with the team that gains most, and what it gains. It has to have been tried in every problem."""
    tried = set.intersection(*(set(timings) for timings in problems)) if problems else {entry.threads}
    gains = {threads: gain(entry.threads, threads, problems) for threads in sorted(tried - {entry.threads})}
    winner = max(gains, key=gains.__getitem__, default=entry.threads)
    return (replace(entry, threads=winner), gains[winner]) if gains.get(winner, 1.0) > 1 else (entry, 1.0)
