"""Facts of other implementations of the focal loss, as in test_peers: torchvision, kornia, mmcv, optax, sam3, ASL."""

from functools import partial

import pytest
import torch

import ce_ext
from tests.losses.softmax.test_peers import ALL_DTYPES, INF, kernel
from tests.support import oracles
from tests.support.cases import ROUNDING
from tests.support.comparison import assert_all_rounded, assert_rounded, loss_and_gradients, to_double
from tests.support.marks import ALL_REDUCTIONS

F = ce_ext.functional


@pytest.mark.covering(2)
@kernel
@ALL_DTYPES
@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("alpha", [None, 0.25])
def test_focal_loss_is_a_fraction_of_cross_entropy(
    alpha: float | None, gamma: float, dtype: torch.dtype, device: str
) -> None:
    input = torch.randn(40, 6, device=device).mul_(2).to(dtype)
    target = torch.randint(0, 6, (40,), device=device)
    weight = (
        None if alpha is None else input.new_full((6,), alpha).index_fill(0, torch.tensor([2], device=device), 0.75)
    )
    out_dtype = torch.promote_types(dtype, torch.float32)
    loss = F.softmax_focal_loss(input, target, weight, gamma, reduction="none", out_dtype=out_dtype)
    plain = oracles.cross_entropy(input.double(), target, reduction="none")
    p = input.double().softmax(1).gather(1, target.unsqueeze(1)).squeeze(1)
    fraction = (1 - p) ** gamma * (1.0 if weight is None else weight.double()[target])
    assert_rounded(loss, plain * fraction, roundings=4)


@pytest.mark.covering(2)
@kernel
@ALL_DTYPES
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("gamma", [0.0, 0.25, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("classes", [3, 40, 300])
def test_focal_loss_of_saturated_logits(
    classes: int, gamma: float, label_smoothing: float, dtype: torch.dtype, device: str
) -> None:
    """(1 - p)^(gamma - 1) is infinite where p is 1, and other implementations make NaN of it."""
    input = torch.zeros(7, classes, device=device)
    target = torch.tensor([0, 0, 1, 2, 2, 1, 0], device=device)
    input[0, 0] = 100  # as sure as it gets, and right
    input[1, 1] = 100  # and wrong
    input[2, 1] = -100
    input[3, 2] = 20
    input[4] = torch.randn(classes, device=device) * 100
    input[6, 0] = 60  # sure, and float32 still knows how sure
    input = input.to(dtype)
    options = {"gamma": gamma, "label_smoothing": label_smoothing, "reduction": "none"}
    actual = loss_and_gradients(partial(F.softmax_focal_loss, **options), input, target)
    exact = loss_and_gradients(partial(oracles.softmax_focal_loss, **options), *to_double(input, target))
    assert all(x.isfinite().all() for x in actual)
    # Where 1 - p is below what float32 holds, it is 0, and so is the loss, of which (1e-44)^0.25 had left 1e-11.
    vanished = 0.0
    if dtype != torch.float64:
        vanished = max(1e-9 if label_smoothing else 0.0, torch.finfo(dtype).smallest_normal)
    is_half = dtype in (torch.bfloat16, torch.float16)
    for ours, theirs, roundings in zip(actual, exact, (10, 100), strict=True):
        relative = (1 if is_half else roundings) * 2 * ROUNDING[dtype]
        torch.testing.assert_close(ours.double(), theirs, rtol=relative, atol=vanished)


@pytest.mark.covering(2)
@kernel
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("largest", [1e9, 1e20, 1e30])
def test_focal_loss_of_huge_logits(
    largest: float, gamma: float, label_smoothing: float, dtype: torch.dtype, device: str
) -> None:
    input = torch.tensor([[1.0, 0.0, 0.1], [0.0, 1.0, 0.1], [1.0, 1.0, 0.1]], device=device)
    input = input.mul(largest).to(dtype)
    target = torch.tensor([0, 0, 0], device=device)
    options = {"gamma": gamma, "label_smoothing": label_smoothing, "reduction": "none"}
    actual = loss_and_gradients(partial(F.softmax_focal_loss, **options), input, target)
    exact = loss_and_gradients(partial(oracles.softmax_focal_loss, **options), *to_double(input, target))
    assert_all_rounded(actual, exact, roundings=5)


@kernel
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_loss_of_impossible_classes(gamma: float, device: str) -> None:
    input = torch.randn(4, 50, device=device)
    target = torch.tensor([1, 1, 1, 1], device=device)
    input[0, 5:] = -INF  # masked
    input[1] = -INF  # nothing but the target is left
    input[1, 1] = 3.0
    input[2, 1] = -INF  # the target itself
    loss, grad = loss_and_gradients(partial(F.softmax_focal_loss, gamma=gamma, reduction="none"), input, target)
    alone = loss_and_gradients(partial(F.softmax_focal_loss, gamma=gamma, reduction="none"), input[:1, :5], target[:1])
    torch.testing.assert_close([loss[:1], grad[:1, :5]], alone)
    assert (grad[0, 5:] == 0).all()
    assert loss[1] == 0 and (grad[1] == 0).all()
    assert loss[2] == INF
    assert loss[3].isfinite() and grad[3].isfinite().all()


@kernel
@ALL_REDUCTIONS
@pytest.mark.parametrize("shape", [(40, 6), (3, 6, 4, 5), (7, 100)])
def test_focal_loss_with_an_upstream_gradient_for_each_row(shape: tuple[int, ...], reduction: str, device: str) -> None:
    input = torch.randn(shape, device=device, dtype=torch.float64)
    target = torch.randint(0, shape[1], shape[:1] + shape[2:], device=device)
    target.view(-1)[::5] = -100
    options = {"weight": torch.rand(shape[1], device=device, dtype=torch.float64), "reduction": reduction, "gamma": 1.5}
    grad_output = torch.randn(target.shape if reduction == "none" else (), device=device, dtype=torch.float64)
    torch.testing.assert_close(
        loss_and_gradients(partial(F.softmax_focal_loss, **options), input, target, grad_output=grad_output),
        loss_and_gradients(partial(oracles.softmax_focal_loss, **options), input, target, grad_output=grad_output),
    )


@ALL_REDUCTIONS
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_derivatives_of_all_options_at_once(gamma: float, reduction: str, device: str) -> None:
    input = torch.randn(4, 5, device=device, dtype=torch.float64, requires_grad=True)
    target = torch.tensor([0, 4, -100, 2], device=device)
    weight, rows = torch.rand(5, device=device).double(), torch.rand(4, device=device).double()
    options = {"z_loss": 0.1, "softcap": 4.0, "logit_scale": 1.3, "sample_weight": rows, "label_smoothing": 0.2}
    function = partial(F.softmax_focal_loss, target=target, weight=weight, gamma=gamma, reduction=reduction, **options)
    assert torch.autograd.gradcheck(function, input, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(function, input)


# The inputs that mmcv tests with, and the means over rows with alpha 0.25 and gamma 2, computed in float64 by hand: of
# softmax, and of sigmoid summed over the classes.
MMCV = (
    ([[1.0, 0.0], [0.0, 1.0]], [0, 1], 0.00566451438, 0.13562961073),
    ([[1.0, 0.0, -1.0], [0.0, 1.0, 2.0]], [2, 1], 0.34956904487, 1.10251082253),
    ([[1e-6, 2e-6, 3e-6], [4e-6, 5e-5, 6e-4], [7e-3, 8e-2, 9e-1]], [1, 2, 0], 0.15754992151, 0.42287251169),
)


@kernel
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("number", range(len(MMCV)))
def test_values_of_mmcv(number: int, dtype: torch.dtype, device: str) -> None:
    logits, classes, of_softmax, of_sigmoid = MMCV[number]
    input, target = torch.tensor(logits, dtype=dtype, device=device), torch.tensor(classes, device=device)
    # Its mean divides by the rows, whatever they weigh.
    alpha = torch.full((input.shape[1],), 0.25, dtype=dtype, device=device)
    softmax = F.softmax_focal_loss(input, target, alpha, denominator=len(classes))
    sigmoid = F.sigmoid_focal_loss(input, target, reduction="mean", denominator=len(classes))
    torch.testing.assert_close(softmax.item(), of_softmax, rtol=1e-6, atol=0)
    torch.testing.assert_close(sigmoid.item(), of_sigmoid, rtol=1e-6, atol=0)
