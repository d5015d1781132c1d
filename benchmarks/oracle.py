"""Nothing is timed before its result agrees with torch's own function in float64."""

from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.functions import Function
from benchmarks.inputs import Inputs

# Of the largest error, relative to the largest exact element: of ce_ext, a rounding of its results or a few.
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 5e-3, torch.float16: 1e-3}
# Eager torch sets the width for others: in half types it rounds every log-probability to them, and for the asymmetric
# loss a difference of probabilities, of which it takes a high power; in float32 it adds up the exponentials of a row
# with millions of classes one by one.
TOLERANCE_FOR_OTHERS = {torch.float32: 2e-4, torch.bfloat16: 8e-2, torch.float16: 1e-2}


class WrongResultError(Exception):
    pass


@dataclass(frozen=True)
class Truth:
    loss: Tensor
    gradient: Tensor
    dtype: torch.dtype  # of the input, whatever the dtype in which a provider returns its loss


def exact(function: Function, inputs: Inputs) -> Truth:
    dtype = inputs.input.dtype
    inputs = inputs.double()
    input = inputs.input.requires_grad_()
    value = function.reference(input, inputs.target, **inputs.options)
    (gradient,) = torch.autograd.grad(value, input, inputs.grad_output)
    return Truth(value.detach(), gradient, dtype)


def check(loss: Tensor, gradient: Tensor | None, truth: Truth, is_ours: bool = False) -> dict[str, float]:
    """The relative errors, each within the tolerance."""
    tolerance = (TOLERANCE if is_ours else TOLERANCE_FOR_OTHERS)[truth.dtype]
    errors = {"loss": _relative_error(loss, truth.loss)}
    if gradient is not None:
        errors["gradient"] = _relative_error(gradient, truth.gradient)
    for name, error in errors.items():
        if not error <= tolerance:  # NaN is wrong, too
            raise WrongResultError(f"relative error of the {name} {error:.1e} > {tolerance:.0e}")
    return errors


def _relative_error(actual: Tensor, expected: Tensor) -> float:
    deviation = actual.detach().double().sub_(expected)
    return (_largest(deviation) / _largest(expected)).item()


def _largest(values: Tensor) -> Tensor:
    """The largest magnitude, without a copy: in float64, the logits of a GPU's shapes are gigabytes."""
    return torch.linalg.vector_norm(values, torch.inf)
