"""The options that torch does not have, against float64: the loss, the gradient, and what is reported of rows."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ce_ext.functional import SoftmaxStats, nll_loss, softmax_focal_loss
from tests.support import oracles
from tests.support.cases import class_count, class_index_inputs
from tests.support.comparison import assert_rounded
from tests.support.marks import ALL_REDUCTIONS

pytestmark = pytest.mark.kernel

# By rows and by classes as lanes, over several vectors and class blocks, with a strided class dimension.
SHAPES = ((7, 5), (33, 100), (3, 257), (3, 4097), (2, 19, 7, 9), (2, 130, 5, 3))
ALL_SHAPES = pytest.mark.parametrize("shape", SHAPES)
OPTIONS: dict[str, dict[str, Any]] = {
    "none": {},
    "z_loss": {"z_loss": 0.1},
    "logit_scale": {"logit_scale": -0.3},
    "softcap": {"softcap": 5.0},
    "focal": {"gamma": 2.0},
    "focal below 1": {"gamma": 0.5},
    "smoothed focal": {"gamma": 1.3, "label_smoothing": 0.2},
    "all": {"gamma": 0.7, "label_smoothing": 0.1, "z_loss": 0.01, "softcap": 9.0, "logit_scale": 1.5},
}
ALL_OPTIONS = pytest.mark.parametrize("name", OPTIONS)


def _loss(input: Tensor, target: Tensor, **options: Any) -> Any:
    return softmax_focal_loss(input, target, **{"gamma": 0.0, **options})


def _make(
    shape: tuple[int, ...], dtype: torch.dtype, device: str, weighted: bool
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    input, target = class_index_inputs(shape, dtype, device)
    target.view(-1)[1] = -100
    if not weighted:
        return input, target, {}
    weight = torch.rand(class_count(shape), device=device).add(0.1).to(dtype)
    sample_weight = torch.rand(target.shape, device=device).add(0.1).to(dtype)
    sample_weight.view(-1)[2] = 0
    return input, target, {"weight": weight, "sample_weight": sample_weight}


def _exact(input: Tensor, target: Tensor, dtype: torch.dtype, **options: Any) -> tuple[Tensor, Tensor, Tensor]:
    """The loss, an upstream gradient in `dtype`, and the gradient."""
    input = input.double().clone().requires_grad_()
    loss = oracles.cross_entropy(input, target, **options)
    grad_output = torch.randn(loss.shape, device=input.device).to(dtype)
    (grad,) = torch.autograd.grad(loss, input, grad_output.double())
    return loss.detach(), grad_output, grad


@pytest.mark.covering(3)
@ALL_OPTIONS
@ALL_REDUCTIONS
@ALL_SHAPES
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_loss_and_gradient(
    dtype: torch.dtype, weighted: bool, shape: tuple[int, ...], reduction: str, name: str, device: str
) -> None:
    input, target, weights = _make(shape, dtype, device, weighted)
    options = {"reduction": reduction, **weights, **OPTIONS[name]}
    exact, grad_output, exact_grad = _exact(input, target, dtype, **options)
    loss = _loss(input.requires_grad_(), target, **options)
    (grad,) = torch.autograd.grad(loss, input, grad_output)
    assert_rounded(loss, exact, roundings=5)
    assert_rounded(grad, exact_grad, roundings=20, scale=exact_grad.abs().max().item())


@pytest.mark.covering(2)
@pytest.mark.parametrize("reduction", ["mean", "none"])
@ALL_OPTIONS
@ALL_SHAPES
@pytest.mark.parametrize("inplace", [False, True], ids=["fresh", "inplace"])
def test_gradient_in_forward(inplace: bool, shape: tuple[int, ...], name: str, reduction: str, device: str) -> None:
    input, target, weights = _make(shape, torch.float32, device, weighted=True)
    options = {"reduction": reduction, **weights, **OPTIONS[name]}
    exact, grad_output, exact_grad = _exact(input, target, torch.float32, **options)
    how = {"inplace": True} if inplace else {"grad_in_forward": True}
    for loss_scale in (None, 4.0):
        logits = input.clone().requires_grad_() * 1
        pointer = logits.data_ptr()
        loss = _loss(logits, target, **options, **how, loss_scale=loss_scale)
        (grad,) = torch.autograd.grad(loss, logits, grad_output)
        assert (grad.data_ptr() == pointer) == inplace
        assert_rounded(loss, exact, roundings=5)
        assert_rounded(grad, exact_grad, roundings=20, scale=exact_grad.abs().max().item())


@pytest.mark.covering(2)
@ALL_OPTIONS
@ALL_SHAPES
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_stats(dtype: torch.dtype, shape: tuple[int, ...], name: str, device: str) -> None:
    input, target, _ = _make(shape, dtype, device, weighted=False)
    options = OPTIONS[name]
    z = options.get("logit_scale", 1.0) * input.double()
    if cap := options.get("softcap"):
        z = cap * torch.tanh(z / cap)
    y = target.clamp_min(0).unsqueeze(1)
    log_prob = z.log_softmax(1)
    expected = SoftmaxStats(
        lse=z.logsumexp(1),
        entropy=torch.special.entr(log_prob.exp()).sum(1),
        argmax=z.argmax(1),
        target_log_prob=log_prob.gather(1, y).squeeze(1).where(target >= 0, 0),
    )
    plain = _loss(input, target, **options)
    for how in ({}, {"grad_in_forward": True}):
        loss, stats = _loss(input.clone().requires_grad_() * 1, target, **options, **how, return_stats=True)
        torch.testing.assert_close(loss.detach(), plain, rtol=1e-6, atol=0)
        assert not any(values.requires_grad for values in stats)
        assert_rounded(stats.lse, expected.lse, roundings=5, scale=1.0)
        assert_rounded(stats.entropy, expected.entropy, roundings=20, scale=1.0)
        assert_rounded(stats.target_log_prob, expected.target_log_prob, roundings=5, scale=1.0)
        # Where two logits are the same but for rounding, either is the largest.
        chosen = z.gather(1, stats.argmax.unsqueeze(1)).squeeze(1)
        torch.testing.assert_close(chosen, z.amax(1), rtol=1e-6, atol=0)


@pytest.mark.parametrize("is_probability", [False, True], ids=["indices", "probabilities"])
def test_gradient_far_above_the_cap(is_probability: bool, device: str) -> None:
    """1 - tanh^2 of a rounded tanh has no digits left from a scaled logit of 9 caps on."""
    x = torch.tensor([0.5, 4.0, 8.0, 12.0, 20.0, 40.0], device=device)
    input = torch.stack((x, -x, x / 2), 1)
    target = torch.full((6,), 1, device=device)
    if is_probability:
        target = torch.nn.functional.one_hot(target, 3).float()
    input.requires_grad_()
    loss = _loss(input, target, softcap=1.0, logit_scale=1.5, reduction="sum")
    (grad,) = torch.autograd.grad(loss, input)
    input = input.detach().double()
    p = torch.softmax(torch.tanh(1.5 * input), 1)
    odds = torch.exp(-3 * input.abs())
    exact = 1.5 * 4 * odds / (1 + odds) ** 2 * (p - torch.tensor([0, 1, 0], device=device))
    torch.testing.assert_close(grad.double(), exact, rtol=1e-5, atol=torch.finfo(torch.float32).smallest_normal)


def test_stats_without_classes(device: str) -> None:
    """As of a row whose classes are all masked, but that its target is ignored."""
    target = torch.full((3,), -100, device=device)
    _, stats = _loss(torch.zeros(3, 0, device=device), target, return_stats=True)
    assert (stats.lse == -torch.inf).all() and stats.entropy.isnan().all()
    assert (stats.target_log_prob == 0).all() and (stats.argmax == 0).all()


def test_argmax_is_the_first(device: str) -> None:
    for classes in (5, 100, 300, 9000):
        input = torch.zeros(4, classes, device=device)
        input[1, 3:] = 1
        input[2, classes - 1] = 1
        input[3, classes // 2 :: 2] = 2
        _, stats = _loss(input, torch.zeros(4, dtype=torch.int64, device=device), return_stats=True)
        assert stats.argmax.tolist() == [0, 3, classes - 1, classes // 2]


@pytest.mark.parametrize("shape", [(), (3,), (3, 4)])
@pytest.mark.parametrize("ignored", [False, True])
def test_mean_over_nothing(ignored: bool, shape: tuple[int, ...], device: str) -> None:
    """With "zero" it is 0, has a graph, and its gradient is zeros; a denominator of 0 is the same nothing."""
    input = torch.randn((4 if ignored else 0, 5, *shape), device=device, requires_grad=True)
    target = torch.full((input.shape[0], *shape), -100, device=device)
    zero = torch.zeros((), device=device)
    denominators = ({"denominator": 0.0}, {"denominator": zero})
    for options in ({}, *denominators, {"label_smoothing": 0.1}, {"grad_in_forward": True}):
        assert _loss(input, target, **options).isnan()
        loss = _loss(input, target, **options, on_empty="zero")
        (grad,) = torch.autograd.grad(loss, input)
        assert loss == 0 and grad.shape == input.shape and (grad == 0).all()
    assert nll_loss(input, target, on_empty="zero") == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_denominator_of_any_kind(dtype: torch.dtype, device: str) -> None:
    input, target, _ = _make((33, 100), dtype, device, weighted=False)
    exact_input = input.double().clone().requires_grad_()
    denominator = torch.tensor(7.0, dtype=torch.float64, device=device, requires_grad=True)
    exact = oracles.cross_entropy(exact_input, target, denominator=denominator)
    exact_grads = torch.autograd.grad(exact, (exact_input, denominator))
    for given in (7, 7.0, torch.tensor(7, device=device), torch.tensor(7.0, device=device, requires_grad=True)):
        logits = input.clone().requires_grad_()
        for how in ({}, {"grad_in_forward": True, "loss_scale": 1.0}, {"inplace": True, "loss_scale": 4.0}):
            loss = _loss(logits * 1, target, denominator=given, **how)
            assert loss.dtype == dtype
            assert_rounded(loss, exact)
            inputs = (logits, given) if isinstance(given, Tensor) and given.requires_grad else (logits,)
            grads = torch.autograd.grad(loss, inputs)
            assert_rounded(grads[0], exact_grads[0], roundings=3)
            if len(grads) == 2:
                torch.testing.assert_close(grads[1].double(), exact_grads[1], rtol=1e-2, atol=0)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"gamma": -1.0}, ValueError, "gamma must be .*-1"),
        ({"gamma": float("nan")}, ValueError, "gamma must be .*nan"),
        ({"z_loss": -0.1}, ValueError, "z_loss must be .*-0.1"),
        ({"softcap": -2.0}, ValueError, "softcap must be .*-2"),
        ({"logit_scale": float("inf")}, ValueError, "logit_scale must be .*inf"),
        ({"on_empty": "one"}, ValueError, "on_empty must be 'nan' or 'zero', but got 'one'"),
        ({"denominator": 3.0, "reduction": "sum"}, ValueError, "denominator .* reduction is 'sum'"),
        ({"denominator": torch.ones(2)}, ValueError, r"denominator must be .* got shape \(2,\)"),
        ({"denominator": "x"}, TypeError, "denominator must be .*'x'"),
        ({"denominator": True}, TypeError, "denominator must be .*True"),
        ({"denominator": np.True_}, TypeError, "denominator must be .*True"),
        ({"denominator": torch.tensor(True)}, TypeError, "denominator must be .*True"),
        ({"denominator": torch.tensor(2j)}, TypeError, "denominator must be .*2.j"),
        ({"denominator": np.complex64(2)}, TypeError, r"denominator must be .*2\+0j"),
        ({"reduction": ["mean"]}, ValueError, r"reduction must be .*\['mean'\]"),
        ({"out_dtype": torch.int32}, TypeError, "out_dtype must be .*int32"),
        ({"sample_weight": torch.ones(3)}, RuntimeError, r"sample_weight must have shape \[4\].*\[3\]"),
        ({"sample_weight": torch.ones(4).int()}, RuntimeError, "sample_weight must have the dtype .*Int"),
        ({"sample_weight": torch.ones(4, device="meta")}, RuntimeError, "sample_weight on meta"),
        ({"sample_weight": torch.ones(4, requires_grad=True)}, RuntimeError, "sample_weight is not differentiable"),
        ({"loss_scale": 0.0, "inplace": True}, ValueError, "loss_scale must be .*0.0"),
        ({"loss_scale": "2", "inplace": True}, TypeError, "loss_scale must be .*'2'"),
        ({"loss_scale": [2.0], "grad_in_forward": True}, TypeError, r"loss_scale must be .*\[2.0\]"),
        ({"z_los": 1.0}, TypeError, "z_los"),
    ],
    ids=str,
)
def test_bad_options(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        _loss(torch.randn(4, 5), torch.zeros(4, dtype=torch.int64), **options)
