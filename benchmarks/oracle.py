"""Nothing is timed before its result agrees with torch's own loss in float64."""

from dataclasses import dataclass

import torch
from torch import Tensor

from tests.cases import Loss

# Of the largest error, relative to the largest exact element. Eager torch sets the width for the
# half types: it rounds every log-probability to them.
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 4e-2, torch.float16: 5e-3}


class WrongResultError(Exception):
    pass


@dataclass(frozen=True)
class Truth:
    loss: Tensor
    gradient: Tensor
    tolerance: float


def exact(loss: Loss, input: Tensor, target: Tensor) -> Truth:
    tolerance = TOLERANCE[input.dtype]  # whatever the dtype in which a provider returns its loss
    input = input.double().requires_grad_()
    value = loss.reference(input, target.double() if target.is_floating_point() else target)
    (gradient,) = torch.autograd.grad(value, input)
    return Truth(value.detach(), gradient, tolerance)


def check(loss: Tensor, gradient: Tensor | None, truth: Truth) -> dict[str, float]:
    """The relative errors, each within the tolerance."""
    errors = {"loss": _relative_error(loss, truth.loss)}
    if gradient is not None:
        errors["gradient"] = _relative_error(gradient, truth.gradient)
    for name, error in errors.items():
        if not error <= truth.tolerance:  # NaN is wrong, too
            raise WrongResultError(f"relative error of the {name} {error:.1e} > {truth.tolerance:.0e}")
    return errors


def _relative_error(actual: Tensor, expected: Tensor) -> float:
    deviation = actual.detach().double().sub_(expected)
    return (_largest(deviation) / _largest(expected)).item()


def _largest(values: Tensor) -> Tensor:
    """The largest magnitude, without a copy: in float64, the logits of a GPU's shapes are gigabytes."""
    return torch.linalg.vector_norm(values, torch.inf)
