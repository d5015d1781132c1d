"""The calls of kernels whose instructions are counted. `run` makes them, in a process under callgrind."""

import math
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from benchmarks.callgrind import start_instrumentation
from ce_ext.functional import binary_cross_entropy_with_logits, cross_entropy, log_softmax, softmax_focal_loss
from tests.support.binary_cases import logit_inputs
from tests.support.cases import class_index_inputs
from tests.support.losses import LOSSES

# Small, but large enough that what a call costs by itself is hardly a hundredth. Vectors hold classes of one row in the
# first, and rows in the others: of few classes, and of classes that lie apart.
SHAPES = ((64, 1000), (4096, 10), (2, 19, 32, 64))
SHAPES_OF_BINARY = ((65_536,),)
DTYPES = (torch.float32, torch.bfloat16)
ALL_DTYPES = (*DTYPES, torch.float16)  # for one loss of each family: the others convert as it does
PASSES = ("forward", "backward")


@dataclass(frozen=True)
class Call:
    """A loss with its options, of one shape and dtype. Each of its passes runs one kernel."""

    name: str
    function: Callable[[Tensor, Tensor], Tensor]
    make_inputs: Callable[..., tuple[Tensor, Tensor]]
    shape: tuple[int, ...]
    dtype: torch.dtype
    passes: tuple[str, ...] = PASSES

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def kernels(self) -> tuple[str, ...]:
        """Their names: loss, dtype, shape and pass, as the columns of the table are."""
        dtype, shape = str(self.dtype).removeprefix("torch."), "x".join(map(str, self.shape))
        return tuple(", ".join((self.name, dtype, shape, name)) for name in self.passes)


def _all_calls() -> Iterator[Call]:
    for loss in LOSSES:
        shapes = SHAPES_OF_BINARY if loss.is_binary else SHAPES if loss.reads_all else SHAPES[1:]
        dtypes = ALL_DTYPES if loss.function in (cross_entropy, binary_cross_entropy_with_logits) else DTYPES
        yield from _calls(loss.name, loss.function, loss.make_inputs, shapes, dtypes)
    smoothed, with_gradient = partial(cross_entropy, label_smoothing=0.1), partial(cross_entropy, grad_in_forward=True)
    yield from _calls("cross_entropy(label_smoothing)", smoothed)
    yield from _calls("cross_entropy(weight)", lambda x, y: cross_entropy(x, y, _weight(x.shape[1], x.dtype)))
    yield from _calls("cross_entropy(grad_in_forward)", with_gradient, passes=("forward",))
    yield from _calls("cross_entropy(probabilities)", cross_entropy, _class_probability_inputs)
    yield from _calls("softmax_focal_loss(probabilities)", softmax_focal_loss, _class_probability_inputs)
    yield from _calls("log_softmax", lambda x, y: log_softmax(x, 1))
    yield from _calls(
        "binary_cross_entropy_with_logits(weight)",
        lambda x, y: binary_cross_entropy_with_logits(x, y, _weight(len(x), x.dtype)),
        logit_inputs,
        SHAPES_OF_BINARY,
    )


def _calls(
    name: str,
    function: Callable[..., Tensor],
    make_inputs: Callable[..., tuple[Tensor, Tensor]] = class_index_inputs,
    shapes: Iterable[tuple[int, ...]] = SHAPES,
    dtypes: Iterable[torch.dtype] = DTYPES,
    passes: tuple[str, ...] = PASSES,
) -> Iterator[Call]:
    return (Call(name, function, make_inputs, shape, dtype, passes) for dtype in dtypes for shape in shapes)


def _weight(size: int, dtype: torch.dtype) -> Tensor:
    return torch.linspace(0.5, 1.5, size, dtype=dtype)


def _class_probability_inputs(shape: tuple[int, ...], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    (input, _), (logits, _) = (class_index_inputs(shape, dtype, seed=seed) for seed in (0, 1))
    return input, logits.softmax(1)


CALLS = tuple(_all_calls())


def run(calls: Iterable[Call]) -> None:
    """Makes them all on one thread, and after every pass the system call at which callgrind writes its count."""
    torch.set_num_threads(1)
    start_instrumentation()
    for call in calls:
        input, target = call.make_inputs(call.shape, call.dtype)
        result = call.function(input.requires_grad_(), target)
        os.sched_yield()
        if "backward" in call.passes:
            torch.autograd.grad(result, input, torch.ones_like(result))
            os.sched_yield()
