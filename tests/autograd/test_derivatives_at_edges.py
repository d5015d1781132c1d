"""First and second derivatives where forms meet: at the margin, far from it, at infinities; and where weights are 0."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from ce_ext.binary_derivatives import ProbabilityPrediction
from ce_ext.functional import asymmetric_loss, sigmoid_focal_loss
from tests.support import oracles

INF = math.inf


def _derivatives(loss: Callable[..., Tensor], input: Tensor, target: Tensor, **options: Any) -> list[Tensor]:
    x = input.detach().requires_grad_()

    def function(x: Tensor) -> Tensor:
        return loss(x, target, reduction="sum", **options)

    (grad,) = torch.autograd.grad(function(x), x, create_graph=True)
    (curvature,) = torch.autograd.grad(grad.sum(), x)
    _, tangent = torch.func.jvp(torch.func.grad(function), (input,), (torch.ones_like(input),))
    return [x.double() for x in (grad.detach(), curvature, tangent)]


def _assert_exact(
    loss: Callable[..., Tensor],
    oracle: Callable[..., Tensor],
    input: Tensor,
    target: Tensor,
    atol: float = 1e-30,
    **options: Any,
) -> None:
    actual = _derivatives(loss, input, target, **options)
    expected = _derivatives(oracle, input.double(), target.double(), **options)
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=atol)


@pytest.mark.parametrize("gamma_neg", [0.0, 1.5, 4.0])
@pytest.mark.parametrize("margin", [0.05, 0.3])
def test_just_above_the_margin(margin: float, gamma_neg: float, device: str) -> None:
    """u = p - margin has all its digits, however few of x and of the margin's logit differ."""
    edge = math.log(margin / (1 - margin))
    above = torch.tensor([1e-5, 1e-4, 1e-3, 0.01, 0.1, 0.5, 1.0, 4.0], dtype=torch.float64, device=device)
    input = (edge + above).float()
    options = {"gamma_neg": gamma_neg, "gamma_pos": 1.0, "margin": margin}
    _assert_exact(asymmetric_loss, oracles.asymmetric_loss, input, torch.zeros_like(input), **options)


def test_at_the_margin(device: str) -> None:
    input = torch.zeros(1, device=device)  # the logit of 1/2
    for derivative in _derivatives(asymmetric_loss, input, input, gamma_neg=0.5, gamma_pos=1.0, margin=0.5):
        assert derivative == 0


def test_far_above_a_small_margin(device: str) -> None:
    """Where 1 - u is little more than the margin."""
    input = torch.tensor([2.0, 9.0, 12.0, 30.0], device=device)
    options = {"gamma_neg": 1.5, "gamma_pos": 1.0, "margin": 1e-6}
    _assert_exact(asymmetric_loss, oracles.asymmetric_loss, input, torch.zeros_like(input), **options)
    in_target = [
        torch.func.jvp(lambda t, loss=loss: loss(input, t, reduction="none", **options), (t,), (torch.ones_like(t),))
        for loss, t in (
            (asymmetric_loss, torch.zeros_like(input)),
            (oracles.asymmetric_loss, torch.zeros_like(input).double()),
        )
    ]
    torch.testing.assert_close(in_target[0][1].double(), in_target[1][1], rtol=1e-6, atol=0)


def test_positives_without_a_power_that_are_certain(device: str) -> None:
    input = torch.tensor([INF, 1e4], device=device)
    for derivative in _derivatives(asymmetric_loss, input, torch.ones_like(input), gamma_neg=4.0, gamma_pos=0.0):
        assert (derivative == 0).all()


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_alpha_of_classes(gamma: float, device: str) -> None:
    """-1 among them is for none."""
    input, target = torch.randn(4, 5, device=device), torch.rand(4, 5, device=device)
    options = {"alpha": torch.tensor([0.25, -1.0, 0.0, 1.0, 0.7], device=device), "gamma": gamma}
    _assert_exact(sigmoid_focal_loss, oracles.sigmoid_focal_loss, input, target, atol=1e-6, **options)
    of_target = [
        torch.func.hessian(lambda t, loss=loss, x=x: loss(x, t, reduction="sum", **options))(y)
        for loss, x, y in (
            (sigmoid_focal_loss, input, target),
            (oracles.sigmoid_focal_loss, input.double(), target.double()),
        )
    ]
    torch.testing.assert_close(of_target[0].double(), of_target[1], rtol=1e-4, atol=1e-5)


def test_what_is_no_probability() -> None:
    prediction = ProbabilityPrediction(torch.tensor([-0.5, 1.5, math.nan, 0.0, 1.0, 0.5]))
    one = torch.ones(())
    for value in (prediction.loss(one, one), prediction.slope(one, 2 * one), prediction.curvature(one, one)):
        assert value.isnan().tolist() == [True, True, True, False, False, False]
