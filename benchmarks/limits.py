"""What limits a pass: the memory that it has to move, and how fast memory is."""

from __future__ import annotations

from dataclasses import astuple, dataclass


@dataclass(frozen=True)
class Ceilings:
    """GB/s, counting bytes read plus bytes written."""

    read: float
    copy: float
    # For information: a new gradient is fresh memory, and on CPU the system has to map its pages.
    fill_fresh: float

    def best(self, other: Ceilings) -> Ceilings:
        return Ceilings(*map(max, astuple(self), astuple(other)))


@dataclass(frozen=True)
class Floor:
    """Bytes."""

    read: int  # beyond what is written
    copied: int  # written, and read with it
    written: int  # which any implementation has to allocate, too

    def __add__(self, other: Floor) -> Floor:
        return Floor(self.read + other.read, self.copied + other.copied, self.written + other.written)

    @property
    def bytes(self) -> int:
        return self.read + self.copied

    def ceiling(self, rates: Ceilings) -> float:
        """GB/s if every byte moved at its ceiling."""
        return self.bytes / (self.read / rates.read + self.copied / rates.copy)
