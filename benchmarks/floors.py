"""The least memory traffic that any implementation needs. Every loss's GB/s counts these bytes."""

from dataclasses import dataclass

from torch import Tensor

from benchmarks.ceilings import Ceilings
from tests.cases import Loss

CAPTION = (
    "GB/s counts floor bytes: forward reads input and target once; backward reads both again and "
    "writes the gradient. Of log-probabilities forward reads one a row, and backward none. "
    "The ceiling moves the forward's bytes at the rate of a read and the "
    "backward's at the rate of a copy; inputs that stay in the caches can exceed it. "
    "Extra memory is the peak beyond the inputs, in sizes of the input; the gradient is 1.00 of it."
)


@dataclass(frozen=True)
class Floor:
    forward: int
    backward: int

    @property
    def bytes(self) -> int:
        return self.forward + self.backward

    def ceiling(self, rates: Ceilings) -> float:
        """GB/s if every byte moved at its ceiling."""
        return self.bytes / (self.forward / rates.read + self.backward / rates.copy)


def floor(loss: Loss, input: Tensor, target: Tensor, with_backward: bool) -> Floor:
    """Of a reduced loss, whose own few bytes do not count."""
    if loss.reads_all:
        forward, again = input.nbytes, input.nbytes
    else:
        forward, again = target.numel() * input.itemsize, 0
    return Floor(target.nbytes + forward, target.nbytes + again + input.nbytes if with_backward else 0)
