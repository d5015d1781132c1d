"""Who competes. An entry turns a loss into the function to time, `function(input, target)`."""

from collections.abc import Callable

import torch
from torch import Tensor

from tests.cases import Loss

Function = Callable[[Tensor, Tensor], Tensor]

PROVIDERS: dict[str, Callable[[Loss], Function]] = {
    "ce_ext": lambda loss: loss.function,
    "eager": lambda loss: loss.reference,
    "compile": lambda loss: torch.compile(loss.reference, dynamic=False),
}
