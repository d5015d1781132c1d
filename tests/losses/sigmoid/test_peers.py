"""Facts of other implementations of binary losses: torch's own tests, torchvision, fvcore, kornia, sam3, timm."""

from functools import partial

import pytest
import torch
from torch import Tensor

import ce_ext
from tests.support import oracles
from tests.support.binary_cases import logit_inputs
from tests.support.cases import DTYPES
from tests.support.comparison import assert_rounded, loss_and_gradients
from tests.support.marks import ALL_REDUCTIONS

pytestmark = pytest.mark.kernel

F = ce_ext.functional
ALL_DTYPES = pytest.mark.parametrize("dtype", DTYPES)
LOGITS = pytest.mark.parametrize("function", [F.binary_cross_entropy_with_logits, F.sigmoid_focal_loss])


def test_logits_of_0_and_minus_120_with_pos_weight(device: str) -> None:
    """log(1 + e^120) must not overflow, and e^-120 must not be all there is."""
    input, target = torch.tensor([0.0, -120.0], device=device), torch.tensor([0.0, 1.0], device=device)
    pos_weight = torch.tensor([1.0, 1.0], device=device)
    function = partial(F.binary_cross_entropy_with_logits, pos_weight=pos_weight, reduction="none")
    loss, grad, _ = loss_and_gradients(function, input, target)
    torch.testing.assert_close(loss, torch.tensor([0.6931471805599453, 120.0], device=device))
    torch.testing.assert_close(grad, torch.tensor([0.5, -1.0], device=device))


def test_gradient_at_0(device: str) -> None:
    """Where max(x, 0) has a kink that the loss has not."""
    input = torch.zeros(3, 1, device=device)
    target = torch.zeros(3, 1, device=device)
    for value, expected in ((0.0, 0.5), (1.0, -0.5), (0.5, 0.0)):
        function = partial(F.binary_cross_entropy_with_logits, reduction="sum")
        _, grad, _ = loss_and_gradients(function, input, target + value)
        torch.testing.assert_close(grad, torch.full_like(input, expected))


def test_a_broadcast_weight_is_the_expanded_one(device: str) -> None:
    input, target = logit_inputs((16, 4), torch.float64, device)
    for weight in (torch.rand(4, device=device), torch.rand(16, 1, device=device), torch.rand(1, device=device)):
        weight = weight.double()
        for name in ("weight", "pos_weight"):
            broadcast = F.binary_cross_entropy_with_logits(input, target, **{name: weight})
            expanded = F.binary_cross_entropy_with_logits(input, target, **{name: weight.expand(16, 4)})
            torch.testing.assert_close(broadcast, expanded)
        torch.testing.assert_close(
            F.binary_cross_entropy(input.sigmoid(), target, weight),
            F.binary_cross_entropy(input.sigmoid(), target, weight.expand(16, 4)),
        )


def test_pos_weight_of_ones_is_none(device: str) -> None:
    input, target = logit_inputs((64, 4), torch.float64, device)
    with_ones = partial(F.binary_cross_entropy_with_logits, pos_weight=torch.ones(4, device=device).double())
    torch.testing.assert_close(
        loss_and_gradients(with_ones, input, target),
        loss_and_gradients(F.binary_cross_entropy_with_logits, input, target),
    )


@pytest.mark.covering(2)
@ALL_DTYPES
@pytest.mark.parametrize("alpha", [-1.0, 0.0, 0.25, 0.58, 1.0])
@pytest.mark.parametrize("gamma", [0.0, 2.0, 3.0])
def test_focal_loss_is_a_fraction_of_cross_entropy(gamma: float, alpha: float, dtype: torch.dtype, device: str) -> None:
    """(1 - p_t)^gamma alpha_t of it."""
    input = torch.randn(100, device=device).mul_(5).to(dtype)
    target = torch.randint(0, 2, (100,), device=device).to(dtype)
    out_dtype = torch.promote_types(dtype, torch.float32)
    loss = F.sigmoid_focal_loss(input, target, alpha, gamma, out_dtype=out_dtype)
    t = target.double()
    plain = oracles.binary_cross_entropy_with_logits(input.double(), t, reduction="none")
    p_wrong = torch.sigmoid(input.double() * (1 - 2 * t))
    fraction = p_wrong**gamma * (1.0 if alpha < 0 else alpha * t + (1 - alpha) * (1 - t))
    assert_rounded(loss, plain * fraction, roundings=6)


@ALL_DTYPES
@ALL_REDUCTIONS
def test_focal_loss_without_focus_and_balance_is_cross_entropy(reduction: str, dtype: torch.dtype, device: str) -> None:
    input, target = logit_inputs((33, 7), dtype, device)
    focal = partial(F.sigmoid_focal_loss, gamma=0, alpha=-1, reduction=reduction)
    plain = partial(F.binary_cross_entropy_with_logits, reduction=reduction)
    torch.testing.assert_close(loss_and_gradients(focal, input, target), loss_and_gradients(plain, input, target))


@ALL_DTYPES
@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_alpha_of_0_or_1_masks_one_side(alpha: float, dtype: torch.dtype, device: str) -> None:
    input = torch.randn(40, device=device).mul_(3).to(dtype)
    target = torch.randint(0, 2, (40,), device=device).to(dtype)
    function = partial(F.sigmoid_focal_loss, alpha=alpha, out_dtype=torch.promote_types(dtype, torch.float32))
    loss, grad, _ = loss_and_gradients(function, input, target)
    masked = target != alpha
    assert (loss[masked] == 0).all() and (grad[masked] == 0).all()
    assert (loss[~masked] > 0).all()
    assert (grad[~masked] != 0).all() or dtype == torch.float16  # which has no number as small


def test_easy_examples_fade_and_hard_ones_stay(device: str) -> None:
    """By the probabilities that fvcore tests with: p_t of 0.97 fades a thousandfold, of 0.04 hardly."""

    def logit(p: float) -> float:
        return float(torch.tensor(p, dtype=torch.float64).logit())

    input = torch.tensor([logit(p) for p in (0.97, 0.91, 0.73, 0.27, 0.09, 0.03)], device=device, dtype=torch.float64)
    target = torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0, 0.0], device=device, dtype=torch.float64)
    focal = F.sigmoid_focal_loss(input, target, alpha=-1, gamma=2)
    plain = F.binary_cross_entropy_with_logits(input, target, reduction="none")
    easy = torch.tensor([0.03, 0.09, 0.27, 0.27, 0.09, 0.03], device=device, dtype=torch.float64)
    torch.testing.assert_close(focal / plain, easy**2)
    focal = F.sigmoid_focal_loss(input, 1 - target, alpha=-1, gamma=2)
    plain = F.binary_cross_entropy_with_logits(input, 1 - target, reduction="none")
    torch.testing.assert_close(focal / plain, (1 - easy) ** 2)


@ALL_DTYPES
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_logits_of_100(gamma: float, dtype: torch.dtype, device: str) -> None:
    input = torch.tensor([100.0, -100.0, 100.0, -100.0], device=device).to(dtype)
    target = torch.tensor([1.0, 0.0, 0.0, 1.0], device=device).to(dtype)
    function = partial(F.sigmoid_focal_loss, gamma=gamma, alpha=-1, reduction="none")
    loss, grad, _ = loss_and_gradients(function, input, target)
    torch.testing.assert_close(loss, input.new_tensor([0, 0, 100, 100]))
    torch.testing.assert_close(grad, input.new_tensor([0, 0, 1, -1]))


@LOGITS
@pytest.mark.parametrize("shape", [(2, 3, 4), (7, 11)])
def test_an_upstream_gradient_for_each_element(function: object, shape: tuple[int, ...], device: str) -> None:
    input, target = logit_inputs(shape, torch.float64, device)
    grad_output = torch.randn(shape, dtype=torch.float64, device=device)
    _, grad, _ = loss_and_gradients(partial(function, reduction="none"), input, target, grad_output=grad_output)
    _, plain, _ = loss_and_gradients(partial(function, reduction="none"), input, target)
    torch.testing.assert_close(grad, plain * grad_output)


@pytest.mark.parametrize("label_smoothing", [0.1, 0.5, 1.0])
def test_smoothed_targets(label_smoothing: float, device: str) -> None:
    """Of s, a half for either side."""
    input, target = logit_inputs((9, 5), torch.float64, device)
    smoothed = target * (1 - label_smoothing) + 0.5 * label_smoothing
    for function in (F.binary_cross_entropy_with_logits, partial(F.sigmoid_focal_loss, reduction="mean")):
        torch.testing.assert_close(
            loss_and_gradients(partial(function, label_smoothing=label_smoothing), input, target)[:2],
            loss_and_gradients(function, input, smoothed)[:2],
        )


def test_detectors_divide_by_the_positive_rows(device: str) -> None:
    """RetinaNet: the sum over anchors and classes, by the number of anchors that show something."""
    input = torch.randn(50, 4, device=device, dtype=torch.float64)
    classes = torch.randint(0, 5, (50,), device=device)  # 4 is the background
    classes[::7] = -1  # neither
    one_hot = torch.nn.functional.one_hot(classes.clamp_min(0), 5)[:, :4].double()
    valid = classes >= 0
    positives = (valid & (classes < 4)).sum()
    expected = F.sigmoid_focal_loss(input[valid], one_hot[valid], reduction="sum") / positives
    loss = F.sigmoid_focal_loss(input, classes, reduction="mean", ignore_index=-1, denominator=positives)
    torch.testing.assert_close(loss, expected)


def _focal_of_its_cross_entropy(input: Tensor, target: Tensor, alpha: float, gamma: float) -> Tensor:
    """The form that takes p_t from the loss itself: p_t = e^-bce."""
    bce = torch.nn.functional.binary_cross_entropy_with_logits(input, target, reduction="none")
    balance = alpha * target + (1 - alpha) * (1 - target)
    return balance * (1 - torch.exp(-bce)) ** gamma * bce


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_focal_loss_of_the_cross_entropy_s_own_value(gamma: float, device: str) -> None:
    input = torch.randn(33, 7, dtype=torch.float64, device=device)
    target = torch.randint(0, 2, (33, 7), device=device).double()
    expected = _focal_of_its_cross_entropy(input, target, 0.25, gamma)
    torch.testing.assert_close(F.sigmoid_focal_loss(input, target, 0.25, gamma), expected)


@pytest.mark.parametrize("alpha", [0.3, 2.0])
def test_cross_entropy_with_a_weight_on_the_positives(alpha: float, device: str) -> None:
    """With its logarithms guarded by a small number."""
    p = torch.rand(33, 7, dtype=torch.float64, device=device).clamp(0.01, 0.99)
    target = torch.randint(0, 2, (33, 7), device=device).double()
    eps = 1e-15
    expected = -(alpha * target * torch.log(p + eps) + (1 - target) * torch.log(1 - p + eps))
    weight = alpha * target + (1 - target)
    torch.testing.assert_close(F.binary_cross_entropy(p, target, weight, reduction="none"), expected)
    pos_weight = torch.full((7,), alpha, device=device, dtype=torch.float64)
    of_logits = F.binary_cross_entropy_with_logits(p.logit(), target, reduction="none", pos_weight=pos_weight)
    torch.testing.assert_close(of_logits, expected)


def _asymmetric_of_its_authors(
    x: Tensor, y: Tensor, gamma_neg: float, gamma_pos: float, clip: float, eps: float = 1e-8
) -> Tensor:
    """`AsymmetricLoss.forward` of github.com/Alibaba-MIIL/ASL, with `disable_torch_grad_focal_loss=False`."""
    xs_pos = torch.sigmoid(x)
    xs_neg = 1 - xs_pos
    if clip is not None and clip > 0:
        xs_neg = (xs_neg + clip).clamp(max=1)
    los_pos = y * torch.log(xs_pos.clamp(min=eps))
    los_neg = (1 - y) * torch.log(xs_neg.clamp(min=eps))
    loss = los_pos + los_neg
    if gamma_neg > 0 or gamma_pos > 0:
        pt0 = xs_pos * y
        pt1 = xs_neg * (1 - y)  # pt = p if t > 0 else 1-p
        pt = pt0 + pt1
        one_sided_gamma = gamma_pos * y + gamma_neg * (1 - y)
        one_sided_w = torch.pow(1 - pt, one_sided_gamma)
        loss *= one_sided_w
    return -loss.sum()


@pytest.mark.parametrize("gamma_neg", [0.0, 2.0, 4.0, 4.5])
@pytest.mark.parametrize("gamma_pos", [0.0, 1.0, 1.5])
@pytest.mark.parametrize("clip", [0.0, 0.05, 0.3])
def test_asymmetric_loss_of_its_authors(clip: float, gamma_pos: float, gamma_neg: float, device: str) -> None:
    input = 3 * torch.randn(50, 20, dtype=torch.float64, device=device)
    target = (torch.rand(50, 20, device=device) > 0.8).double()
    actual, expected = (
        loss_and_gradients(partial(f, target=target), input)
        for f in (
            lambda x, target: F.asymmetric_loss(x, target, gamma_neg, gamma_pos, clip, "sum"),
            lambda x, target: _asymmetric_of_its_authors(x, target, gamma_neg, gamma_pos, clip),
        )
    )
    torch.testing.assert_close(actual, expected)


def test_asymmetric_loss_is_a_focal_loss_of_labels(device: str) -> None:
    """Of two exponents that are the same, without a margin."""
    input = 3 * torch.randn(50, 20, device=device)
    target = torch.rand(50, 20, device=device) > 0.8
    torch.testing.assert_close(
        F.asymmetric_loss(input, target, 2, 2, 0, "none"), F.sigmoid_focal_loss(input, target, -1, 2)
    )
