"""What a case is called with."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.cases import Case
from tests.support.cases import class_dim
from tests.support.layouts import LAYOUTS_BY_DIM


@dataclass(frozen=True)
class Inputs:
    input: Tensor
    target: Tensor | None  # log_softmax has none
    options: dict[str, Any]
    grad_output: Tensor | None  # for backward; a scalar needs none

    def double(self) -> "Inputs":
        """The same numbers; the input is contiguous."""
        options = {name: _double(value) for name, value in self.options.items()}
        input = self.input.detach().double().contiguous()
        return Inputs(input, _double(self.target), options, _double(self.grad_output))


def make_inputs(case: Case, device: str) -> Inputs:
    input, target = case.loss.make_inputs(case.shape, case.dtype, device)
    generator = torch.Generator(device).manual_seed(1)
    # Defaults are not named: to pass them would cost a call a little, and users do not either.
    options = {} if case.reduction == "mean" else {"reduction": case.reduction}
    for name, value in case.options.items():
        if value is True:
            shape = case.loss.weight_shape(case.shape)
            value = torch.rand(shape, generator=generator, device=device).add_(0.1).to(case.dtype)
        options[name] = value
    if case.layout != "contiguous":
        input = LAYOUTS_BY_DIM[input.dim()][case.layout](input)
    return Inputs(input, target, options, _grad_output(case, input, generator))


def _grad_output(case: Case, input: Tensor, generator: torch.Generator) -> Tensor | None:
    if case.reduction != "none":
        return None
    values = torch.randn(result_shape(case), generator=generator, device=input.device)
    if case.loss.is_reduced:
        return values.to(input.dtype)
    return torch.empty_like(input).copy_(values)  # lies as the result does


def result_shape(case: Case) -> tuple[int, ...]:
    """Of "none"."""
    if case.loss.is_binary or not case.loss.is_reduced:
        return case.shape
    dim = class_dim(case.shape)
    return case.shape[:dim] + case.shape[dim + 1 :]


def _double(value: Any) -> Any:
    return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value
