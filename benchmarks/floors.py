"""The least memory traffic that any implementation needs. Every function's GB/s counts these bytes."""

from torch import Tensor

from benchmarks.functions import Function
from benchmarks.inputs import Inputs
from benchmarks.limits import Floor
from benchmarks.record import GAPS

CAPTION = (
    "GB/s counts floor bytes: forward reads input, target and weights once and writes losses that are not reduced; "
    "backward reads all of that again, with the gradient of such losses, and writes the gradient. Of log-probabilities "
    "forward reads one a row, and backward none; backward of log_softmax reads its output in place of the input. "
    "At the ceiling bytes are written at the rate of a copy, as many are read at it, and the others at the rate of a "
    "read; inputs that stay in the caches can exceed it. Forward + backward puts the gradient where the allocator "
    "does, mostly into fresh memory, whose pages the system has to map first; warm backward is backward alone, into "
    "memory that has its pages. Spread is what lies between the quartiles of the samples, of their median. "
    f"Extra memory is the peak beyond the inputs, in sizes of the input; the gradient is 1.00 of it. {GAPS}"
)


def floors(function: Function, inputs: Inputs) -> tuple[Floor, Floor]:
    """Of forward and of backward. A mean's own few bytes do not count."""
    result = _bytes(inputs.grad_output)
    given = _bytes(inputs.target, *inputs.options.values())
    if function.reads_all:
        forward, again = inputs.input.nbytes, inputs.input.nbytes
    else:
        assert inputs.target is not None
        forward, again = inputs.target.numel() * inputs.input.itemsize, 0
    return _floor(given + forward, result), _floor(result + given + again, inputs.input.nbytes)


def _floor(read: int, written: int) -> Floor:
    return Floor(max(read - written, 0), written + min(read, written), written)


def _bytes(*values: object) -> int:
    return sum(value.nbytes for value in values if isinstance(value, Tensor))
