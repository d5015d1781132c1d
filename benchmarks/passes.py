"""What of a call is timed: forward, forward with backward, or backward alone."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from benchmarks.inputs import Inputs
from benchmarks.providers import Call

FORWARD, BOTH, BACKWARD = PASSES = ("forward", "forward+backward", "warm backward")

Run = Callable[[], tuple[Tensor, Tensor | None]]  # gives the loss and the gradient


def _forward(call: Call, inputs: Inputs) -> Run:
    function = partial(call, inputs.input, inputs.target, **inputs.options)
    return lambda: (function(), None)


def _forward_backward(call: Call, inputs: Inputs) -> Run:
    function = partial(call, inputs.input, inputs.target, **inputs.options)

    def run() -> tuple[Tensor, Tensor | None]:
        inputs.input.grad = None  # as in training: every gradient is newly allocated
        loss = function()
        loss.backward(inputs.grad_output)
        return loss, inputs.input.grad

    return run


def _backward(call: Call, inputs: Inputs) -> Run:
    loss = call(inputs.input, inputs.target, **inputs.options)
    return lambda: (loss, torch.autograd.grad(loss, inputs.input, inputs.grad_output, retain_graph=True)[0])


RUNS = {FORWARD: _forward, BOTH: _forward_backward, BACKWARD: _backward}
