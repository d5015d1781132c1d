"""Where torch's binary losses lose accuracy, or a naive kernel its footing."""

import math
from functools import partial

import numpy as np
import pytest
import torch

from tests.support.binary_cases import ASYMMETRIC, BCE, BCE_WITH_LOGITS, BINARY_LOSSES, SIGMOID_FOCAL
from tests.support.cases import DTYPES, Loss
from tests.support.comparison import assert_rounded, loss_and_gradients, to_double
from tests.support.marks import ALL_BINARY_LOSSES

pytestmark = pytest.mark.kernel

INF = float("inf")
SMALLEST = torch.finfo(torch.float32).smallest_normal
GAMMAS = (0.0, 0.1, 0.5, 1.0, 1.5, 2.0, 5.0)
ALL_GAMMAS = pytest.mark.parametrize("gamma", GAMMAS)

EDGES = (0.0, 1e-30, 1e-8, 1.0, 15.0, 20.0, 30.0, 60.0, 80.0, 90.0, 104.0, 200.0, 1e4, INF)


def _logits(device: str, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.tensor([*EDGES, *(-x for x in EDGES)], device=device).to(dtype)


@pytest.mark.parametrize("is_positive", [False, True])
def test_confident_logits_keep_their_relative_accuracy(is_positive: bool, device: str) -> None:
    """Of a right prediction torch's float32 gradient is 0 from a logit of 17 on."""
    input = _logits(device)
    target = torch.full_like(input, float(is_positive))
    function = partial(BCE_WITH_LOGITS.function, reduction="none")
    actual = loss_and_gradients(function, input, target)
    exact = loss_and_gradients(partial(BCE_WITH_LOGITS.oracle, reduction="none"), *to_double(input, target))
    for ours, theirs in zip(actual[:2], exact[:2], strict=True):
        torch.testing.assert_close(ours.double(), theirs.nan_to_num(posinf=INF), rtol=1e-6, atol=SMALLEST)
    right = (input > 0) == is_positive
    finite = right & (input.abs() < 80) & (input != 0)
    assert (actual[1][finite] != 0).all()


@pytest.mark.parametrize("margin", [0.0, 1.0, 5.0, 20.0, 40.0, 80.0])
@pytest.mark.parametrize("is_positive", [False, True])
def test_sums_of_confident_logits_keep_their_relative_accuracy(is_positive: bool, margin: float, device: str) -> None:
    """Though on CUDA the elements of a pack share a logarithm."""
    distance = margin + torch.rand(9_001, device=device)
    input = distance if is_positive else -distance
    target = torch.full_like(input, float(is_positive))
    for reduction, factor in (("sum", 1), ("mean", 9_001)):
        result = BCE_WITH_LOGITS.function(input, target, reduction=reduction)
        exact = BCE_WITH_LOGITS.oracle(*to_double(input, target), reduction="sum")
        torch.testing.assert_close(result.double() * factor, exact, rtol=1e-6, atol=0)


@pytest.mark.parametrize("loss", [BCE_WITH_LOGITS, SIGMOID_FOCAL], ids=lambda loss: loss.name)
@pytest.mark.parametrize("place", [0, 3, 4096, 9_000])
def test_sums_with_a_logit_or_target_that_is_no_number(loss: Loss, place: int, device: str) -> None:
    """Of infinite logits, right ones add nothing, and wrong ones all."""
    input, target = loss.make_inputs((9_001,), torch.float32, device)
    input[place], target[place] = 0, 1
    rest = loss.function(input, target, reduction="sum") - loss.function(input[place], target[place], reduction="sum")
    for logit, label, added in ((INF, 1.0, 0), (-INF, 0.0, 0), (INF, 0.0, INF), (-INF, 1.0, INF), (INF, 0.5, INF)):
        input[place], target[place] = logit, label
        torch.testing.assert_close(loss.function(input, target, reduction="sum"), rest + added)
    for logit, label in ((float("nan"), 1.0), (float("nan"), 0.0), (1.0, float("nan")), (0.0, float("nan"))):
        input[place], target[place] = logit, label
        assert loss.function(input, target, reduction="sum").isnan()


@pytest.mark.covering(2)
@ALL_GAMMAS
@pytest.mark.parametrize("target", [0.0, 1.0, 0.25])
@pytest.mark.parametrize("dtype", DTYPES)
def test_focal_loss_of_any_logit(dtype: torch.dtype, target: float, gamma: float, device: str) -> None:
    """Other implementations make NaN of (1 - p)^(gamma - 1) where p is 1, and of infinite logits."""
    input = _logits(device, dtype)
    function = partial(SIGMOID_FOCAL.function, gamma=gamma, reduction="none", out_dtype=torch.float64)
    loss, grad, grad_target = loss_and_gradients(function, input, torch.full_like(input, target))
    finite = input.isfinite()
    assert loss[finite].isfinite().all() and grad.isfinite().all() and grad_target[finite].isfinite().all()
    assert not loss.isnan().any()
    oracle = partial(SIGMOID_FOCAL.oracle, gamma=gamma, reduction="none")
    exact = loss_and_gradients(oracle, *to_double(input, torch.full_like(input, target)))
    # What is below the least normal number of float32 is 0, and so may be the power of it.
    lost = SMALLEST ** min(1.0, gamma or 1.0)
    rtol = 2e-5 if dtype != torch.float64 else 1e-12
    torch.testing.assert_close(loss[finite], exact[0][finite], rtol=rtol, atol=lost)
    scale = exact[1][finite].nan_to_num().abs().max().item()
    assert_rounded(grad[finite], exact[1][finite].nan_to_num(), roundings=20, scale=scale)


@ALL_GAMMAS
@pytest.mark.parametrize("target", [0.0, 1.0, 0.25])
def test_focal_gradients_keep_their_relative_accuracy(target: float, gamma: float, device: str) -> None:
    """Though the factors of one, the powers of a small 1 - p, may be too large or small for a number."""
    input = torch.tensor([0.25, 8.0, 30.0, 50.0, 88.5, 104.0, 200.0], device=device)
    input = torch.cat((input, -input))
    tensors = (input, torch.full_like(input, target))
    actual, exact = (
        loss_and_gradients(partial(function, alpha=0.375, gamma=gamma, reduction="none"), *of)
        for function, of in ((SIGMOID_FOCAL.function, tensors), (SIGMOID_FOCAL.oracle, to_double(*tensors)))
    )
    for ours, theirs in zip(actual, exact, strict=True):  # subnormal numbers are 0, and multiplied with logits
        torch.testing.assert_close(ours.double(), theirs, rtol=3e-5, atol=400 * SMALLEST)


@pytest.mark.covering(2)
@ALL_GAMMAS
@pytest.mark.parametrize("margin", [0.0, 1e-30, 1e-6, 0.05, 0.9])
@pytest.mark.parametrize("target", [0.0, 1.0, 0.25])
@pytest.mark.parametrize("dtype", DTYPES)
def test_asymmetric_loss_of_any_logit(
    dtype: torch.dtype, target: float, margin: float, gamma: float, device: str
) -> None:
    """A margin is rounded to float32, and is none where that has no normal number for it."""
    input = _logits(device, dtype)
    options = {"gamma_neg": gamma, "gamma_pos": 2 * gamma, "margin": margin, "reduction": "none"}
    function = partial(ASYMMETRIC.function, out_dtype=torch.float64, **options)
    loss, grad, grad_target = loss_and_gradients(function, input, torch.full_like(input, target))
    if dtype != torch.float64:
        options["margin"] = torch.tensor(margin).item()
    oracle = partial(ASYMMETRIC.oracle, **options)
    exact = loss_and_gradients(oracle, *to_double(input, torch.full_like(input, target)))
    finite = input.isfinite()
    assert loss[finite].isfinite().all() and grad.isfinite().all() and grad_target[finite].isfinite().all()
    assert not loss.isnan().any() and not grad_target.isnan().any()
    rtol = 2e-5 if dtype != torch.float64 else 1e-12
    torch.testing.assert_close(loss, exact[0], rtol=rtol, atol=SMALLEST)
    scale = exact[1][finite].abs().max().item()
    assert_rounded(grad[finite], exact[1][finite], roundings=20, scale=scale)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 4.0, 5.5])
@pytest.mark.parametrize("margin", [0.05, 0.5, 0.75])
def test_asymmetric_loss_at_its_margin(margin: float, gamma: float, device: str) -> None:
    """Below it negatives cost nothing. Above, the loss is as exact as if the logit were rounded once."""
    at_margin = torch.tensor(margin, dtype=torch.float64).logit().item()
    offsets = torch.tensor([1e-5, 1e-4, 1e-3, 1e-2, 0.1], device=device)
    target = torch.zeros(5, device=device)
    function, oracle = (
        partial(f, gamma_neg=gamma, margin=margin, reduction="none") for f in (ASYMMETRIC.function, ASYMMETRIC.oracle)
    )
    loss, grad, grad_target = loss_and_gradients(function, at_margin - offsets, target)
    assert (loss == 0).all() and (grad == 0).all() and (grad_target > 0).all()
    input = at_margin + offsets
    loss, grad, _ = loss_and_gradients(function, input, target)
    rounding = 4e-7 * max(abs(at_margin), 1)
    around = [loss_and_gradients(oracle, input.double() + change, target.double()) for change in (-rounding, rounding)]
    for actual, (low, high) in zip((loss, grad), zip(*(x[:2] for x in around), strict=True), strict=True):
        assert ((low * (1 - 1e-6) <= actual) & (actual <= high * (1 + 1e-6))).all()


# Of the distance between a logit and a float64, a long double has three digits.
NEEDS_LONG_DOUBLE = pytest.mark.skipif(np.finfo(np.longdouble).nmant == 52, reason="long double is double")


@pytest.mark.parametrize("margin", [0.05, 0.3, 0.75, 0.9])
@pytest.mark.parametrize(
    ("dtype", "rtol"), [(torch.float32, 1e-6), pytest.param(torch.float64, 1e-3, marks=NEEDS_LONG_DOUBLE)]
)
def test_asymmetric_loss_next_to_its_margin(dtype: torch.dtype, rtol: float, margin: float, device: str) -> None:
    """Whose logit lies between two numbers of the dtype: how far from them, only longer numbers tell."""
    at_margin = torch.tensor(margin, dtype=torch.float64).logit().to(dtype)
    steps = torch.arange(-4, 5, dtype=dtype)
    input = (at_margin * (1 + steps * torch.finfo(dtype).eps)).to(device)
    function, oracle = (
        partial(f, gamma_neg=0.0, margin=margin, reduction="none") for f in (ASYMMETRIC.function, ASYMMETRIC.oracle)
    )
    loss = function(input, torch.zeros_like(input))
    exact = oracle(*to_double(input, torch.zeros_like(input)))
    assert (exact == 0).any() and (exact > 0).any()
    torch.testing.assert_close(loss.double(), exact, rtol=rtol, atol=0)


def test_asymmetric_loss_of_infinite_logits(device: str) -> None:
    """A margin bounds what a wrong negative costs."""
    input = torch.tensor([INF, -INF, INF, -INF, float("nan"), float("nan")], device=device)
    target = torch.tensor([1.0, 0.0, 0.0, 1.0, 0.0, 1.0], device=device)
    for margin, cost in ((0.0, INF), (0.25, 0.75**4 * math.log(4))):
        function = partial(ASYMMETRIC.function, margin=margin, reduction="none")
        result, grad, _ = loss_and_gradients(function, input, target)
        torch.testing.assert_close(result[:4], torch.tensor([0, 0, cost, INF], device=device))
        assert grad[:2].tolist() == [0, 0] and grad[2] >= 0 > grad[3] and grad[:4].isfinite().all()
        assert result[4:].isnan().all() and grad[4:].isnan().all()


@pytest.mark.parametrize("loss", [BCE_WITH_LOGITS, SIGMOID_FOCAL], ids=lambda loss: loss.name)
def test_infinite_logits(loss: Loss, device: str) -> None:
    """Right ones cost nothing, wrong ones all; torch has NaN for both."""
    input = torch.tensor([INF, -INF, INF, -INF], device=device)
    target = torch.tensor([1.0, 0.0, 0.0, 1.0], device=device)
    result, grad, _ = loss_and_gradients(partial(loss.function, reduction="none"), input, target)
    assert result.tolist() == [0, 0, INF, INF]
    assert grad[:2].tolist() == [0, 0] and grad[2] > 0 > grad[3] and grad.isfinite().all()
    for weight in ({"weight": torch.zeros(4, device=device)}, {"ignore_index": -1}):
        ignored = target if "weight" in weight else torch.full_like(target, -1)
        result, grad, *_ = loss_and_gradients(partial(loss.function, reduction="none", **weight), input, ignored)
        assert (result == 0).all() and (grad == 0).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_probabilities_of_0_and_1(dtype: torch.dtype, device: str) -> None:
    """torch clamps the logarithms at -100, and has a NaN gradient in half types."""
    input = torch.tensor([0.0, 1.0, 0.0, 1.0], device=device).to(dtype)
    target = torch.tensor([0.0, 1.0, 1.0, 0.0], device=device).to(dtype)
    result, grad, grad_target = loss_and_gradients(partial(BCE.function, reduction="none"), input, target)
    assert result.tolist() == [0, 0, 100, 100]
    assert grad_target.tolist() == [100, -100, 100, -100]  # the slope of the clamped loss, for which torch has inf
    assert not grad.isnan().any() and (grad[:2] == 0).all()
    torch.testing.assert_close(grad[2:], torch.tensor([-1e12, 1e12], device=device).to(dtype))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_probabilities_near_0_and_1(dtype: torch.dtype, device: str) -> None:
    eps = torch.finfo(dtype).eps
    input = torch.tensor([1e-30, 1e-7, 1e-4, eps, 0.5, 1 - eps, 1 - eps / 2], device=device).to(dtype).clamp_max(1)
    for target in (0.0, 0.3, 1.0):
        actual = loss_and_gradients(partial(BCE.function, reduction="none"), input, torch.full_like(input, target))
        double = input.double().requires_grad_()
        exact = BCE.oracle(double, torch.full_like(input, target).double(), reduction="none")
        assert_rounded(actual[0], exact, roundings=2)


@ALL_BINARY_LOSSES
@pytest.mark.parametrize("value", [0.125, 0.3, 0.7])
def test_sums_of_equal_elements(loss: Loss, value: float, device: str) -> None:
    """A long sum in float32 would round all its terms the same way."""
    input = torch.full((70_001,), value, device=device)
    target = torch.ones_like(input)
    exact = loss.oracle(input, target, reduction="sum")
    for reduction, factor in (("sum", 1), ("mean", 70_001)):
        result = loss.function(input, target, reduction=reduction)
        torch.testing.assert_close(result.double() * factor, exact, rtol=5e-7, atol=0)


@ALL_BINARY_LOSSES
def test_float16_mean_of_more_elements_than_it_counts(loss: Loss, device: str) -> None:
    """torch's composition of the focal loss is fine, but sums of half losses are not: 65504 is the largest."""
    input, target = loss.make_inputs((70_000,), torch.float16, device)
    actual = loss_and_gradients(loss.function, input, target, grad_output=torch.tensor(65504.0, device=device))
    exact = loss_and_gradients(loss.oracle, *to_double(input, target), grad_output=torch.tensor(65504.0, device=device))
    assert_rounded(actual[0], exact[0], roundings=1)
    assert_rounded(actual[1], exact[1], roundings=1, scale=exact[1].abs().max().item())


@pytest.mark.heavy
@pytest.mark.not_emulated
def test_results_do_not_depend_on_threads(device: str) -> None:
    threads = torch.get_num_threads()
    for loss in BINARY_LOSSES:
        input, target = loss.make_inputs((317, 1009), torch.float32, device)
        weight = torch.rand(1009, device=device)
        results = []
        try:
            for count in (1, 2, 3, 7):
                torch.set_num_threads(count)
                results.append(loss_and_gradients(lambda *x: loss.function(*x[:2], weight=x[2]), input, target, weight))  # noqa: B023
        finally:
            torch.set_num_threads(threads)
        for result in results[1:]:
            torch.testing.assert_close(result, results[0], rtol=0, atol=0)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 10.0])
def test_forward_and_backward_in_float32_are_good_to_a_few_roundings(scale: float, device: str) -> None:
    input = (torch.randn(30_000, device=device) * scale).clamp(-28, 28)  # or float32 has no square of the result
    target = torch.randint(0, 2, input.shape, device=device).float()
    for loss in (BCE_WITH_LOGITS, SIGMOID_FOCAL):
        actual = loss_and_gradients(partial(loss.function, reduction="none"), input, target)
        exact = loss_and_gradients(partial(loss.oracle, reduction="none"), *to_double(input, target))
        for ours, theirs in zip(actual[:2], exact[:2], strict=True):
            assert_rounded(ours, theirs, roundings=2)
