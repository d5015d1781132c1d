"""Steps of training with every loss, as small programs that always do the same: what threads, processes and watches for
leaks repeat."""

import hashlib
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ce_ext import functional as F
from tests.support.cases import CROSS_ENTROPY
from tests.support.comparison import loss_and_gradients
from tests.support.losses import LOSSES

Step = Callable[[], list[Tensor]]  # its results

SMALL = (33, 100)  # a thread has all of it
LARGE = (300, 257)  # several threads share it
PLANES = (2, 19, 50, 40)  # of classes that lie apart


def kernel_steps(*shapes: tuple[int, ...]) -> dict[str, Step]:
    """Loss and gradients of every kind of kernel, of inputs that are made here and now."""
    steps: dict[str, Step] = {}
    for shape in shapes:
        for dtype in (torch.float32, torch.bfloat16):
            for loss in LOSSES:
                input, target = loss.make_inputs(shape, dtype)
                for reduction in ("mean", "none"):
                    function = partial(loss.function, reduction=reduction, **loss.extras)
                    name = f"{loss.name} {reduction} {dtype} {shape}"
                    steps[name] = partial(loss_and_gradients, function, input, target)
            input, target = CROSS_ENTROPY.make_inputs(shape, dtype)
            others: dict[str, tuple[Callable[..., Any], Tensor]] = {
                "class probabilities": (F.cross_entropy, input.softmax(1)),
                "statistics": (lambda x, t: F.cross_entropy(x, t, return_stats=True)[0], target),
                "gradient in forward": (partial(F.cross_entropy, grad_in_forward=True), target),
                "in place": (lambda x, t: F.cross_entropy(x.clone(), t, inplace=True), target),
                "log_softmax": (lambda x, _: F.log_softmax(x, 1), target),
            }
            for name, (function, other) in others.items():
                steps[f"{name} {dtype} {shape}"] = partial(loss_and_gradients, function, input, other)
    return steps


def bits(steps: dict[str, Step]) -> dict[str, str]:
    """By their names, digests of the results, in which all bits count."""

    def digest(tensors: list[Tensor]) -> str:
        numbers = (x.reshape(-1).view(torch.uint8).numpy() for x in tensors)
        return hashlib.sha256(b"".join(map(bytes, numbers))).hexdigest()

    return {name: digest(step()) for name, step in steps.items()}
