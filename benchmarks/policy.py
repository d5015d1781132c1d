"""The table of csrc/cuda/rows/policy.cuh, by which teams share rows: what could be in it, and what should."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from benchmarks.timing import Timing

PASSES = {"forward": "kForward", "backward": "kBackward", "with_grad": "kWithGrad"}
PACK_BYTES = 16
# Of blocks and clusters, and of lanes in a block. The backward pass has the smaller blocks alone, and no clusters.
THREADS, LANES, PACKS, CLUSTERS = (64, 128, 256, 512), (8, 16, 32), (4, 8), (1, 2, 4, 8)
MAX_BACKWARD_THREADS, BACKWARD_PACKS = 256, 4
CLUSTER_CAPABILITY = 90
# Teams that have more of a row in flight than this many times its bytes idle; those that have less of one of up to 64
# KiB than this part go over it again and again.
MOST_IN_FLIGHT, LEAST_IN_FLIGHT, MOST_TO_HOLD = 4, 1 / 16, 64 * 1024
# What is gained has to be more than this, however quiet the machine.
LEAST_NOISE = 0.02


@dataclass(frozen=True)
class Shape:
    threads: int
    lanes: int
    packs: int
    cluster: int

    @classmethod
    def of(cls, text: str) -> Shape:
        return cls(*map(int, text.split(",")))

    @property
    def bytes_in_flight(self) -> int:
        return self.lanes * self.cluster * self.packs * PACK_BYTES

    def __str__(self) -> str:
        return f"{self.threads},{self.lanes},{self.packs},{self.cluster}"


@dataclass(frozen=True)
class Entry:
    pass_name: str
    row_bytes: float  # of rows up to this length; inf for any
    capability: int
    shape: Shape

    @property
    def name(self) -> str:
        return f"{self.pass_name}:{self.row_bytes}" + (f"@{self.capability}" if self.capability else "")

    def __str__(self) -> str:
        return f"{self.name}={self.shape}"

    def as_cpp(self) -> str:
        """The row of kRowPolicies."""
        row_bytes = "kAnyLength" if self.row_bytes == math.inf else self.row_bytes
        shape = str(self.shape).replace(",", ", ")
        return f"{{Pass::{PASSES[self.pass_name]}, {row_bytes}, {self.capability}, {{{shape}}}}},"


def parse(text: str) -> list[Entry]:
    """What the op `cuda_policy` returns."""
    entries = []
    for part in text.split("; "):
        match = re.fullmatch(r"(\w+):(\d+|inf)(?:@(\d+))?=(\d+,\d+,\d+,\d+)", part)
        if not match:
            raise ValueError(f"no entry of a policy: {part!r}")
        pass_name, row_bytes, capability, shape = match.groups()
        length = math.inf if row_bytes == "inf" else int(row_bytes)
        entries.append(Entry(pass_name, length, int(capability or 0), Shape.of(shape)))
    return entries


def covering(entries: Iterable[Entry], pass_name: str, row_bytes: int, capability: int) -> Entry:
    """The one that rows of this length take on such a GPU: the first that fits."""
    return next(
        entry
        for entry in entries
        if entry.pass_name == pass_name and row_bytes <= entry.row_bytes and entry.capability <= capability
    )


def candidates(pass_name: str, row_bytes: int, capability: int) -> list[Shape]:
    """The shapes that are worth a try for rows of this length."""
    least = LEAST_IN_FLIGHT * min(row_bytes, MOST_TO_HOLD)
    return [
        shape
        for shape in _shapes(pass_name, capability)
        if least <= shape.bytes_in_flight <= MOST_IN_FLIGHT * row_bytes
    ]


def _shapes(pass_name: str, capability: int) -> Iterator[Shape]:
    """All that the kernels of the pass have, but for odd numbers of warps."""
    is_backward = pass_name == "backward"
    clusters = CLUSTERS if capability >= CLUSTER_CAPABILITY and not is_backward else (1,)
    for packs in (BACKWARD_PACKS,) if is_backward else PACKS:
        for threads in THREADS:
            if not is_backward or threads <= MAX_BACKWARD_THREADS:
                yield from (Shape(threads, lanes, packs, 1) for lanes in LANES)
                yield from (Shape(threads, threads, packs, cluster) for cluster in clusters)


Timings = Mapping[Shape, Timing]  # of one problem


def gain(usual: Shape, shape: Shape, problems: Sequence[Timings]) -> float:
    """How many times as fast `shape` is, in the geometric mean; 1 where that may be noise.

    Medians are compared. The noise is what lies between the quartiles of either, in the problem where that is most; it
    has to be exceeded by the mean, and no problem may become slower by more.
    """
    pairs = [(timings[usual], timings[shape]) for timings in problems]
    noise = max(LEAST_NOISE, *(max(old.spread, new.spread) for old, new in pairs))
    gains = [old.median / new.median for old, new in pairs]
    mean = math.exp(math.fsum(map(math.log, gains)) / len(gains))
    return mean if mean > 1 + noise and min(gains) > 1 - noise else 1.0


def best(entry: Entry, problems: Sequence[Timings]) -> tuple[Entry, float]:
    """The entry with the shape that gains most, and what it gains. It has to have been tried in every problem."""
    tried = set.intersection(*(set(timings) for timings in problems)) if problems else {entry.shape}
    gains = {shape: gain(entry.shape, shape, problems) for shape in sorted(tried - {entry.shape}, key=str)}
    winner = max(gains, key=gains.__getitem__, default=entry.shape)
    return (replace(entry, shape=winner), gains[winner]) if gains.get(winner, 1.0) > 1 else (entry, 1.0)
