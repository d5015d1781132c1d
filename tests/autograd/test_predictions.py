"""The words of derivatives, by themselves: where infinities cancel, and where weights are 0."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ce_ext.derivatives import changed_logits
from ce_ext.options import CrossEntropyOptions
from ce_ext.predictions import LogitPrediction, difference, power, product

INF = math.inf


def _value_and_slopes(function: Callable[..., Tensor], *numbers: float) -> tuple[float, ...]:
    leaves = [torch.tensor(x, requires_grad=True) for x in numbers]
    value = function(*leaves)
    return tuple(x.item() for x in (value, *torch.autograd.grad(value, leaves)))


@pytest.mark.parametrize(
    ("weight", "x", "expected"),
    [
        (2.0, 3.0, (6.0, 3.0, 2.0)),
        (0.0, 3.0, (0.0, 3.0, 0.0)),
        (0.0, INF, (0.0, 0.0, 0.0)),
        (2.0, -INF, (-INF, -INF, 2.0)),
    ],
)
def test_nothing_times_infinity(weight: float, x: float, expected: tuple[float, ...]) -> None:
    assert _value_and_slopes(product, weight, x) == expected


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (3.0, 1.0, (2.0, 1.0, -1.0)),
        (1.0, 1.0, (0.0, 1.0, -1.0)),
        (INF, 1.0, (INF, 1.0, -1.0)),
        (1.0, INF, (-INF, 1.0, -1.0)),
        (INF, -INF, (INF, 1.0, -1.0)),
        (INF, INF, (0.0, 0.0, 0.0)),
        (-INF, -INF, (0.0, 0.0, 0.0)),
    ],
)
def test_difference_of_infinities(a: float, b: float, expected: tuple[float, ...]) -> None:
    assert _value_and_slopes(difference, a, b) == expected


def test_probabilities_of_logits() -> None:
    """None of them cancels, on either side of 0."""
    x = torch.tensor([0.0, 1e-30, 1e-7, 1e-3, 0.3, math.log(2), 0.9, 1.1, 3.0, 15.0, 50.0, 80.0])
    x = torch.cat([x, -x])
    prediction, exact = LogitPrediction(x), x.double()
    assert (prediction.odds <= 1).all()
    for actual, expected in (
        (prediction.probability(), exact.sigmoid()),
        (prediction.rest(), (-exact).sigmoid()),
        (prediction.variance(), exact.sigmoid() * (-exact).sigmoid()),
        (prediction.lead(), (exact / 2).tanh()),
    ):
        torch.testing.assert_close(actual.double(), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0, 2.0])
def test_powers_of_what_is_too_small_for_a_number(exponent: float) -> None:
    near = torch.tensor([0.25, 0.5, 0.5])
    beyond = torch.tensor([0.0, 100.0, INF])
    actual = power(near * torch.exp(-beyond), near, beyond, exponent)
    expected = near.double() ** exponent * (torch.exp(-exponent * beyond.double()) if exponent else 1)
    torch.testing.assert_close(actual.double(), expected, rtol=1e-6, atol=1e-40)


def test_changes_of_capped_logits() -> None:
    """Whatever autograd makes of the slope does not cancel near 0."""
    x = torch.tensor([1e-6, 1e-3, 0.1, 1.0, 5.0, 9.0, 12.0, 40.0])
    x = torch.cat([x, -x]).requires_grad_()
    z, slope, curve = changed_logits(x, CrossEntropyOptions(0, -100, softcap=7.0, logit_scale=1.5))
    (curve_of_slope,) = torch.autograd.grad(slope.sum(), x)
    exact = x.detach().double().requires_grad_()
    capped = 7 * (1.5 / 7 * exact).tanh()
    (exact_slope,) = torch.autograd.grad(capped.sum(), exact, create_graph=True)
    (exact_curve,) = torch.autograd.grad(exact_slope.sum(), exact)
    for actual, expected in ((z, capped), (slope, exact_slope), (curve, exact_curve), (curve_of_slope, exact_curve)):
        torch.testing.assert_close(actual.double(), expected, rtol=3e-6, atol=0)
