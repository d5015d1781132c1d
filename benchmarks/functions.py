"""What is measured: the losses of the tests' table, and those functions of ce_ext that are not in it."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import ce_ext
from tests.support.cases import Loss, class_dim, class_index_inputs
from tests.support.losses import LOSSES


@dataclass(frozen=True)
class Function:
    """Called `function(input, target, **options)`, as losses are."""

    name: str
    function: Callable[..., Tensor]
    reference: Callable[..., Tensor]
    make_inputs: Callable[..., tuple[Tensor, Tensor | None]]
    options: tuple[dict[str, Any], ...] = ()  # those that are in use, besides reduction
    reads_all: bool = True  # of its input, and not the targets' classes alone
    is_binary: bool = False  # of elements and not of rows of classes
    is_reduced: bool = True  # unless asked for "none"

    def weight_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape[-1:] if self.is_binary else shape[class_dim(shape) :][:1]

    def class_count(self, shape: tuple[int, ...]) -> int:
        """Of elements there are none."""
        return 0 if self.is_binary else shape[class_dim(shape)]

    def row_count(self, shape: tuple[int, ...]) -> int:
        return 0 if self.is_binary else math.prod(shape) // self.class_count(shape)


def _in_table(loss: Loss) -> Function:
    options = tuple(filter(None, ({"weight": True}, loss.extras)))
    return Function(loss.name, loss.function, loss.reference, loss.make_inputs, options, loss.reads_all, loss.is_binary)


def _class_probabilities(
    shape: tuple[int, ...], dtype: torch.dtype, device: str = "cpu", seed: int = 0
) -> tuple[Tensor, Tensor]:
    input, _ = class_index_inputs(shape, dtype, device, seed)
    return input, input.roll(1, class_dim(shape)).softmax(class_dim(shape))


def _logits_alone(
    shape: tuple[int, ...], dtype: torch.dtype, device: str = "cpu", seed: int = 0
) -> tuple[Tensor, None]:
    return class_index_inputs(shape, dtype, device, seed)[0], None


def _of_classes(log_softmax: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """It, with the arguments of a loss."""
    return lambda input, target, reduction: log_softmax(input, class_dim(input.shape))


CROSS_ENTROPY, *OTHERS = map(_in_table, LOSSES)
SOFT_CROSS_ENTROPY = Function(
    "soft_cross_entropy",  # with class probabilities
    CROSS_ENTROPY.function,
    CROSS_ENTROPY.reference,
    _class_probabilities,
    CROSS_ENTROPY.options,
)
LOG_SOFTMAX = Function(
    "log_softmax",
    _of_classes(ce_ext.functional.log_softmax),
    _of_classes(torch.nn.functional.log_softmax),
    _logits_alone,
    is_reduced=False,
)
FUNCTIONS = {f.name: f for f in (CROSS_ENTROPY, SOFT_CROSS_ENTROPY, LOG_SOFTMAX, *OTHERS)}
