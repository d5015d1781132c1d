"""Options, layouts and sizes in the company that a bug of a line needs to show: each test here was written for one that
passed all others."""

import math
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from ce_ext.functional import (
    asymmetric_loss,
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    cross_entropy,
    nll_loss,
    sigmoid_focal_loss,
    softmax_focal_loss,
)
from tests.support import oracles
from tests.support.cases import NLL, class_index_inputs
from tests.support.comparison import assert_all_rounded, assert_rounded, loss_and_gradients, to_double

kernel = pytest.mark.kernel

INF = math.inf
PLANES = (3, 300, 5, 6)  # of more classes than a tile of such rows has


@kernel
@pytest.mark.parametrize("loss", [cross_entropy, binary_cross_entropy_with_logits], ids=lambda loss: loss.__name__)
def test_negative_denominator_that_is_not_empty(loss: Any, device: str) -> None:
    input = torch.randn(4, 5, device=device)
    target = input.softmax(1)
    expected = loss(input, target, reduction="sum") / -2
    torch.testing.assert_close(loss(input, target, denominator=-2.0, on_empty="zero"), expected)


@kernel
@pytest.mark.parametrize("how", [{}, {"grad_in_forward": True}], ids=str)
def test_denominator_of_nothing_with_rows(how: dict[str, Any], device: str) -> None:
    input, target = class_index_inputs((3, 5), torch.float32, device)
    loss, grad = loss_and_gradients(lambda x: cross_entropy(x, target, denominator=0.0, on_empty="zero", **how), input)
    assert loss == 0 and torch.equal(grad, torch.zeros_like(input))


@kernel
def test_gradient_of_two_classes_that_share_the_row(device: str) -> None:
    """log_sum is log 2, between the halves in which mass is taken from either side."""
    input = torch.tensor([[0.0, 0.0, -30.0]], device=device)
    target = torch.tensor([[0.75, 0.25, 0.0]], device=device)
    actual = loss_and_gradients(cross_entropy, input, target)
    exact = loss_and_gradients(oracles.soft_cross_entropy, *to_double(input, target))
    assert_all_rounded(actual, exact)


@kernel
@pytest.mark.parametrize("classes", [3, 40])
def test_ignored_class_with_logits_that_are_no_numbers(classes: int, device: str) -> None:
    input, target = class_index_inputs((70, classes), torch.float32, device)
    target[::3] = 2
    input[::3] = math.nan
    options = {"ignore_index": 2, "weight": torch.rand(classes, device=device)}
    actual = loss_and_gradients(lambda x: cross_entropy(x, target, **options), input)
    exact = loss_and_gradients(lambda x: oracles.cross_entropy(x, target, **options), input.double().nan_to_num())
    assert_all_rounded(actual, exact, roundings=5)


@kernel
def test_no_sample_weight_and_an_impossible_class(device: str) -> None:
    input = torch.tensor([[0.0, -INF], [1.0, 2.0]], device=device)
    target = torch.tensor([[0.5, 0.5], [0.25, 0.75]], device=device)
    loss = cross_entropy(input, target, sample_weight=torch.tensor([0.0, 1.0], device=device))
    assert_rounded(loss, oracles.soft_cross_entropy(input[1:], target[1:]))


@kernel
@pytest.mark.parametrize("weighted", [False, True])
def test_smoothing_and_statistics_of_many_planes(weighted: bool, device: str) -> None:
    input, target = class_index_inputs(PLANES, torch.float32, device)
    weight = torch.rand(PLANES[1], device=device) if weighted else None
    options = {"weight": weight, "label_smoothing": 0.2}
    actual = loss_and_gradients(lambda x: cross_entropy(x, target, **options), input)
    exact = loss_and_gradients(lambda x: oracles.cross_entropy(x, target, **options), input.double())
    assert_all_rounded(actual, exact, roundings=5)


@kernel
@pytest.mark.parametrize("weighted", [False, True])
def test_class_probabilities_of_many_planes(weighted: bool, device: str) -> None:
    input = torch.randn(PLANES, device=device)
    target = torch.randn(PLANES, device=device).softmax(1)
    weight = torch.rand(PLANES[1], device=device) if weighted else None
    actual = loss_and_gradients(lambda x, q: cross_entropy(x, q, weight), input, target)
    exact = loss_and_gradients(lambda x, q: oracles.soft_cross_entropy(x, q, weight), *to_double(input, target))
    assert_all_rounded(actual, exact, roundings=5)
    _, stats = cross_entropy(input, target, weight, return_stats=True)
    log_p = input.double().log_softmax(1)
    assert_rounded(stats.entropy, -(log_p.exp() * log_p).sum(1), roundings=3)
    assert_rounded(stats.target_log_prob, (target.double() * log_p).sum(1), roundings=3)
    assert torch.equal(stats.argmax, input.argmax(1))


@kernel
@pytest.mark.heavy
def test_focal_loss_of_class_probabilities_of_few_long_rows(device: str) -> None:
    """Pieces of a row that threads share."""
    input = torch.randn(3, 70_001, device=device).mul_(3)
    target = torch.randn(3, 70_001, device=device).softmax(1)
    weight = torch.rand(70_001, device=device)
    options = {"weight": weight, "gamma": 2.0}
    actual = loss_and_gradients(lambda x, q: softmax_focal_loss(x, q, **options), input, target)
    exact = loss_and_gradients(lambda x, q: oracles.soft_cross_entropy(x, q, **options), *to_double(input, target))
    assert_all_rounded(actual, exact, roundings=8)


@kernel
@pytest.mark.parametrize("is_reversed", [False, True], ids=["in order", "reversed"])
@pytest.mark.parametrize("shape", [(9000, 4), (9, 300), (1, 600, 100)])
@pytest.mark.parametrize(("first", "value"), [(0, -INF), (0, math.nan), (2, 1.0)])
def test_argmax_of_classes_that_are_alike_is_the_first(
    first: int, value: float, shape: tuple[int, ...], is_reversed: bool, device: str
) -> None:
    """Whether they lie side by side or apart, in one block or several; also of masked rows, and of no numbers."""
    input = torch.full(shape, value, device=device)
    input[:, :first] = 0
    if is_reversed:
        order = tuple(range(len(shape)))[::-1]
        input = input.permute(order).contiguous().permute(order)
    target = torch.zeros(shape[:1] + shape[2:], dtype=torch.int64, device=device)
    _, stats = cross_entropy(input, target, return_stats=True)
    assert torch.equal(stats.argmax, torch.full_like(target, first))


@kernel
@pytest.mark.parametrize("classes", [5, 17, 70, 300])
def test_argmax_of_ties_in_rows_that_begin_anywhere(classes: int, device: str) -> None:
    """A thread sees what packs leave over before them."""
    input = torch.full((3, classes + 1), 0.25, device=device)[:, 1:]
    target = torch.ones(3, dtype=torch.int64, device=device)
    for logits in (input, input.contiguous(), input.double().contiguous()):
        _, stats = cross_entropy(logits, target, return_stats=True)
        assert torch.equal(stats.argmax, torch.zeros_like(target))


@kernel
def test_gradient_of_log_probabilities_in_any_order_of_memory(device: str) -> None:
    input, target = NLL.make_inputs((2, 5, 3, 4), torch.float32, device)
    x = input.permute(0, 3, 2, 1).contiguous().permute(0, 3, 2, 1).detach().requires_grad_()
    (grad,) = torch.autograd.grad(nll_loss(x, target), x)
    (exact,) = loss_and_gradients(lambda x: oracles.nll_loss(x, target), input.double())[1:]
    assert_rounded(grad, exact)


@pytest.mark.heavy
@kernel
def test_gradient_of_more_log_probabilities_than_a_chunk_has(device: str) -> None:
    input, target = NLL.make_inputs((3, 70_001), torch.float32, device)
    actual = loss_and_gradients(lambda x: nll_loss(x, target), input)
    assert_all_rounded(actual, loss_and_gradients(lambda x: oracles.nll_loss(x, target), input.double()))


@kernel
@pytest.mark.parametrize("shape", [(301, 1001), (3, 19, 41, 41), (5, 0)])
def test_factors_of_rows_for_a_gradient_that_is_ready(shape: tuple[int, ...], device: str) -> None:
    rows = shape[:1] + shape[2:]
    grad, factors = torch.randn(shape, device=device), torch.rand(rows, device=device) + 2
    expected = grad.double() * factors.double().unsqueeze(1)
    torch.ops.ce_ext.scale_gradient(grad, factors, 1.0, 0)
    assert_rounded(grad, expected)


@kernel
def test_elements_whose_target_is_transposed(device: str) -> None:
    input = torch.randn(300, 251, device=device)
    target = torch.rand(251, 300, 2, device=device)[..., 0].t()
    loss = binary_cross_entropy_with_logits
    actual = loss_and_gradients(partial(loss, reduction="none"), input, target)
    exact = loss_and_gradients(
        partial(oracles.binary_cross_entropy_with_logits, reduction="none"), *to_double(input, target)
    )
    assert_all_rounded(actual, exact)


@kernel
def test_gradient_in_a_weight_that_rows_share(device: str) -> None:
    input, target = torch.randn(256, 512, device=device), torch.rand(256, 512, device=device)
    weight = torch.rand(512, device=device)
    actual = loss_and_gradients(lambda w: binary_cross_entropy_with_logits(input, target, w), weight)
    exact = loss_and_gradients(
        lambda w: oracles.binary_cross_entropy_with_logits(input.double(), target.double(), w), weight.double()
    )
    assert_all_rounded(actual, exact, roundings=5)


@kernel
@pytest.mark.parametrize("name", ["weight", "pos_weight"])
def test_gradient_in_a_weight_where_alpha_is_of_classes(name: str, device: str) -> None:
    input, target = torch.randn(7, 5, device=device), torch.rand(7, 5, device=device)
    alpha, factor = torch.rand(5, device=device), torch.rand(5, device=device) + 0.5

    def call(loss: Any, input: Tensor, target: Tensor, alpha: Tensor, factor: Tensor) -> Tensor:
        return loss(input, target, alpha=alpha, reduction="mean", **{name: factor})

    tensors = (input, target, alpha)
    actual = loss_and_gradients(lambda f: call(sigmoid_focal_loss, *tensors, f), factor)
    exact = loss_and_gradients(lambda f: call(oracles.sigmoid_focal_loss, *to_double(*tensors), f), factor.double())
    assert_all_rounded(actual, exact, roundings=5)


@kernel
def test_logarithm_of_a_subnormal_probability(device: str) -> None:
    input = torch.tensor([1e-40, 1.0], device=device)
    target = torch.tensor([1.0, 1.0], device=device)
    loss = binary_cross_entropy(input, target, reduction="none")
    torch.testing.assert_close(loss.double().cpu(), -input.double().cpu().log(), rtol=1e-6, atol=0)


@kernel
@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["by class", "by row"])
def test_logarithm_of_a_sum_next_to_a_power_of_two(order: tuple[int, int], device: str) -> None:
    """There 1 + x is rounded, for x > 1, and elsewhere it is not."""
    input = -torch.linspace(1.2e-4, 4.8e-4, 64, device=device)[:, None].repeat(1, 2049)
    input[:, 0] = 0
    target = torch.ones(64, dtype=torch.int64, device=device)
    loss = cross_entropy(input.permute(order).contiguous().permute(order), target, reduction="none")
    assert_rounded(loss, oracles.cross_entropy(input, target, reduction="none"))


@kernel
def test_rows_that_all_weigh_nothing(device: str) -> None:
    """0 times an infinite scale."""
    input, target = class_index_inputs((17, 5), torch.float32, device)
    loss, grad = loss_and_gradients(lambda x: cross_entropy(x, target, sample_weight=torch.zeros_like(x[:, 0])), input)
    assert loss.isnan() and torch.equal(grad, torch.zeros_like(input))


@kernel
def test_margin_next_to_nothing(device: str) -> None:
    input, target = torch.tensor([200.0], device=device), torch.tensor([0.0], device=device)
    loss = asymmetric_loss(input, target, gamma_neg=0.0, gamma_pos=0.0, margin=1e-40)
    torch.testing.assert_close(loss, torch.tensor(200.0, device=device))


@kernel
def test_minus_one_is_no_missing_label(device: str) -> None:
    """Of logits any number is a target."""
    input, target = torch.randn(3, device=device), torch.tensor([1.0, -1.0, math.nan], device=device)
    loss = binary_cross_entropy_with_logits(input, target, ignore_nan=True)
    assert_rounded(loss, oracles.binary_cross_entropy_with_logits(input, target, ignore_nan=True))


def test_columns_beside_the_logits_that_are_overwritten() -> None:
    whole, target = torch.randn(53, 8).requires_grad_() * 1, torch.zeros(53, dtype=torch.int64)
    before = whole.detach().clone()
    cross_entropy(whole[:, :5], target, inplace=True)
    _, exact = loss_and_gradients(lambda x: oracles.cross_entropy(x, target), before[:, :5].double())
    assert torch.equal(whole.data[:, 5:], before[:, 5:])
    assert_rounded(whole.data[:, :5], exact, roundings=3)


@pytest.mark.torch_modes
def test_another_use_of_logits_that_are_overwritten() -> None:
    """Its own backward pass, before or without that of the loss."""
    leaf = torch.randn(3, 5, requires_grad=True)
    logits = leaf.exp()
    other = logits.sum()
    cross_entropy(logits, torch.tensor([0, 4, 1]), inplace=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        other.backward()


@pytest.mark.torch_modes
def test_vmap_over_single_rows_with_a_dimension_too_many() -> None:
    input, target = torch.randn(3, 5), torch.tensor([[0], [4], [1]])
    losses = torch.func.vmap(cross_entropy)(input, target)
    torch.testing.assert_close(losses, cross_entropy(input, target[:, 0], reduction="none"))


def test_dimensions_of_one_row_do_not_count() -> None:
    input = torch.randn((2, 3) + (2,) * 9)[(slice(None),) * 2 + (slice(1),) * 9]
    target = torch.zeros((2,) + (1,) * 9, dtype=torch.int64)
    torch.testing.assert_close(cross_entropy(input, target), cross_entropy(input.reshape(2, 3), target.reshape(2)))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: cross_entropy(torch.zeros(2, 3, 4, 5), _zeros(2, 3, 4)), RuntimeError, r"movedim\(-1, 1\)"),
        (lambda: cross_entropy(torch.zeros(5), _zeros(5)), RuntimeError, "target"),
        (lambda: cross_entropy(torch.zeros(5), torch.zeros(4)), RuntimeError, "target"),
        (lambda: cross_entropy(torch.zeros(3, 5), _zeros(3), z_loss=INF), ValueError, "z_loss must be .*inf"),
        (lambda: cross_entropy(torch.zeros(3, 5), _zeros(3), softcap=INF), ValueError, "softcap must be .*inf"),
        (
            lambda: sigmoid_focal_loss(torch.zeros(3, 4), torch.tensor([True, False, True])),
            ValueError,
            "target",
        ),
        (
            lambda: binary_cross_entropy(torch.zeros(2), torch.tensor([0, 2**64 - 100], dtype=torch.uint64)),
            RuntimeError,
            str(2**64 - 100),
        ),
        (lambda: sigmoid_focal_loss(torch.zeros(3, 4), _zeros(3, device="meta")), RuntimeError, "device"),
    ],
    ids=["images", "one row", "probabilities of one row", "z_loss", "softcap", "bools", "uint64", "device"],
)
def test_words_for_bad_input(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def _zeros(*shape: int, **options: Any) -> Tensor:
    return torch.zeros(shape, dtype=torch.int64, **options)


@pytest.mark.parametrize(("input", "target"), [((4, 5), (3, 1)), ((2, 3, 4, 5), (2, 1, 4, 4))])
def test_no_advice_that_would_not_help(input: tuple[int, ...], target: tuple[int, ...]) -> None:
    with pytest.raises((ValueError, RuntimeError)) as raised:
        cross_entropy(torch.zeros(input), torch.zeros(target, dtype=torch.int64))
    assert "squeeze" not in str(raised.value)


@kernel
def test_classes_of_elements_in_another_order_of_memory(device: str) -> None:
    input = torch.randn(2, 3, 4, 5, device=device).to(memory_format=torch.channels_last)
    target = torch.randint(4, (2, 4, 5), device=device)
    actual = loss_and_gradients(lambda x: sigmoid_focal_loss(x, target, reduction="none"), input)
    exact = loss_and_gradients(lambda x: oracles.sigmoid_focal_loss(x, target, reduction="none"), input.double())
    assert_all_rounded(actual, exact)


def test_row_of_classes_for_a_number() -> None:
    with pytest.raises(ValueError, match=r"target must have the shape of input, \[\]"):
        sigmoid_focal_loss(torch.tensor(0.5), torch.tensor([1]))
