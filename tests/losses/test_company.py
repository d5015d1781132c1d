"""Options, layouts and sizes in the company that a bug of a line needs to show: each test here was written for one that
passed all others."""

import math
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ce_ext.functional import (
    asymmetric_loss,
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    cross_entropy,
    nll_loss,
    sigmoid_focal_loss,
    softmax_focal_loss,
)
from ce_ext.options import BinaryCrossEntropyOptions, CrossEntropyOptions, SoftCrossEntropyOptions
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
def test_batch_of_no_losses(device: str) -> None:
    input, target = torch.zeros(0, 3, 5, device=device), torch.zeros(0, 3, dtype=torch.int64, device=device)
    options = CrossEntropyOptions(1, -100)._replace(batch_dims=1)
    loss, *_ = torch.ops.ce_ext.cross_entropy_forward(input, target, None, None, *options)
    assert loss.shape == (0,)


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
def test_ops_that_write_within_inference_mode() -> None:
    with torch.inference_mode():
        grad = torch.ones(3, 5)
        torch.ops.ce_ext.scale_gradient(grad, torch.tensor(2.0), 1.0, 0)
        assert torch.equal(grad, torch.full((3, 5), 2.0))


@pytest.mark.torch_modes
def test_ops_that_write_inference_tensors_outside_of_inference_mode() -> None:
    """An error, as of torch's own."""
    input, target = class_index_inputs((3, 5), torch.float32, "cpu")
    settings = CrossEntropyOptions(0, -100).of_backward()
    with torch.inference_mode():
        grad = torch.ones(3, 5)
    for op, arguments in (
        (torch.ops.ce_ext.scale_gradient, (torch.tensor(2.0), 1.0, 0)),
        (torch.ops.ce_ext.cross_entropy_with_grad, (input, target, None, None, *settings, False, 1.0)),
    ):
        with pytest.raises(RuntimeError, match="Inplace update to inference tensor outside InferenceMode"):
            op(grad, *arguments)


@pytest.mark.torch_modes
def test_vmap_over_single_rows_with_a_dimension_too_many() -> None:
    input, target = torch.randn(3, 5), torch.tensor([[0], [4], [1]])
    losses = torch.func.vmap(cross_entropy)(input, target)
    torch.testing.assert_close(losses, cross_entropy(input, target[:, 0], reduction="none"))


def test_dimensions_of_one_row_do_not_count() -> None:
    input = torch.randn((2, 3) + (2,) * 9)[(slice(None),) * 2 + (slice(1),) * 9]
    target = torch.zeros((2,) + (1,) * 9, dtype=torch.int64)
    torch.testing.assert_close(cross_entropy(input, target), cross_entropy(input.reshape(2, 3), target.reshape(2)))


class _Calls(TorchDispatchMode):
    """What an op is called with, and what it returns, before autograd has cast anything."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.arguments: Any = None
        self.results: Any = None

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = function(*args, **(kwargs or {}))
        if function._schema.name == self.name:
            self.arguments, self.results = args, results
        return results


@pytest.mark.torch_modes
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_gradients_have_the_dtype_of_their_tensor_already_in_the_op(dtype: torch.dtype) -> None:
    input, target = torch.randn(3, 4), torch.rand(3, 4).to(dtype).requires_grad_()
    weight = torch.rand(4, dtype=dtype).requires_grad_()
    loss = binary_cross_entropy_with_logits(input, target, weight)
    with _Calls("ce_ext::binary_cross_entropy_backward") as calls:
        loss.backward()
    found = [result.dtype for result in calls.results if isinstance(result, Tensor) and result.numel()]
    assert found == [dtype, dtype]


def test_backward_of_what_is_no_probability() -> None:
    """The backward op is public, and trusts no forward to have looked."""
    input = torch.tensor([0.5, 0.5], requires_grad=True)
    loss = binary_cross_entropy(input, torch.ones(2), reduction="sum")
    with _Calls("ce_ext::binary_cross_entropy_backward") as calls:
        loss.backward()
    grad_output, _, *others = calls.arguments
    grad, *_ = torch.ops.ce_ext.binary_cross_entropy_backward(grad_output, torch.tensor([1.5, 0.5]), *others)
    assert grad.isnan().tolist() == [True, False]


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


def _forward(*tensors: Tensor, keep_stats: bool = True, report: bool = False, **options: Any) -> Any:
    """The op itself, which takes what no function passes on."""
    settings = CrossEntropyOptions(**{"reduction": 0, "ignore_index": -100, **options}).of_backward()
    return torch.ops.ce_ext.cross_entropy_forward(*tensors, None, None, *settings, keep_stats, report)


def test_statistics_that_are_not_kept_are_not_made() -> None:
    input, target = class_index_inputs((3, 5), torch.float32, "cpu")
    assert _forward(input, target)[1].shape == (3, 3)
    assert _forward(input, target, keep_stats=False)[1] is None


@pytest.mark.torch_modes
@pytest.mark.parametrize("options", [{}, {"z_loss": 0.1}, {"return_stats": True}], ids=str)
def test_statistics_that_no_backward_needs_are_not_made(options: dict[str, Any]) -> None:
    input, target = class_index_inputs((3, 5), torch.float32, "cpu")
    for y, op in ((target, "cross_entropy"), (input.softmax(1), "soft_cross_entropy")):
        with _Calls(f"ce_ext::{op}_forward") as calls:
            cross_entropy(input, y, **options)
        assert calls.results[1] is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reduction": 3}, "reduction"),
        ({"reduction": -1}, "reduction"),
        ({"batch_dims": -1}, "besides those of the batch"),
        ({"input_is_log_prob": True, "label_smoothing": 0.1}, "input_is_log_prob|log-prob"),
        ({"input_is_log_prob": True, "report": True}, "input_is_log_prob|log-prob"),
    ],
    ids=str,
)
def test_options_that_no_function_passes_on(options: dict[str, Any], message: str) -> None:
    input, target = class_index_inputs((3, 5), torch.float32, "cpu")
    with pytest.raises((ValueError, RuntimeError), match=message):
        _forward(input, target, **options)


@pytest.mark.parametrize(
    "grad_input", [torch.empty(2, 5), torch.empty(3, 5, dtype=torch.bfloat16)], ids=["few", "half"]
)
def test_memory_that_does_not_fit_a_gradient(grad_input: Tensor) -> None:
    input, target = class_index_inputs((3, 5), torch.float32, "cpu")
    settings = CrossEntropyOptions(0, -100).of_backward()
    with pytest.raises(RuntimeError, match="grad_input must be a"):
        torch.ops.ce_ext.cross_entropy_with_grad(grad_input, input, target, None, None, *settings, False, 1.0)


def test_gradient_in_forward_within_inference_mode() -> None:
    settings = CrossEntropyOptions(0, -100).of_backward()
    with torch.inference_mode():
        input, target = class_index_inputs((3, 5), torch.float32, "cpu")
        grad = torch.empty_like(input)
        torch.ops.ce_ext.cross_entropy_with_grad(grad, input, target, None, None, *settings, False, 1.0)
    (exact,) = loss_and_gradients(lambda x: oracles.cross_entropy(x, target, reduction="sum"), input.double())[1:]
    assert_rounded(grad.clone(), exact, roundings=3)


@pytest.mark.torch_modes
def test_a_dtype_that_is_asked_for_under_autocast() -> None:
    input, target = class_index_inputs((3, 5), torch.bfloat16, "cpu")
    with torch.autocast("cpu", torch.bfloat16):
        assert _forward(input, target, out_dtype=torch.bfloat16)[0].dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("shape", "weight", "batch_dims", "message"),
    [
        ((3, 4), (1, 3, 4), 0, "weight"),
        ((3, 4), (), 1, "weight"),
        ((3, 4, 5), (1, 5), 1, "weight"),
        ((3, 4), (4,), -1, "batch_dims"),
        ((3, 4), (4,), 3, "batch_dims"),
    ],
)
def test_factors_and_batches_that_do_not_fit(
    shape: tuple[int, ...], weight: tuple[int, ...], batch_dims: int, message: str
) -> None:
    with _Calls("ce_ext::binary_cross_entropy_forward") as calls:
        binary_cross_entropy_with_logits(torch.zeros(shape), torch.zeros(shape))
    input, target, _, *others, _ = calls.arguments
    op = torch.ops.ce_ext.binary_cross_entropy_forward
    with pytest.raises((ValueError, RuntimeError), match=message):
        op(input, target, torch.ones(weight), *others, batch_dims)


@pytest.mark.torch_modes
def test_gradient_of_a_half_target_without_data() -> None:
    input = torch.zeros(3, 4, device="meta")
    target = torch.zeros(3, 4, dtype=torch.bfloat16, device="meta", requires_grad=True)
    loss = binary_cross_entropy_with_logits(input, target)
    with _Calls("ce_ext::binary_cross_entropy_backward") as calls:
        loss.backward()
    assert [x.dtype for x in calls.results if isinstance(x, Tensor) and x.numel()] == [torch.bfloat16]


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


@pytest.mark.parametrize("name", ["target", "weight", "pos_weight"])
def test_gradients_of_what_has_none(name: str) -> None:
    """Classes, and tensors that are not there."""
    input, target = torch.zeros(3, 4), torch.tensor([0, 1, 4])
    options = BinaryCrossEntropyOptions(1, **{f"needs_{name}": True})
    one = torch.ones(())
    with pytest.raises(RuntimeError, match=rf"^{name} .* gradient"):
        torch.ops.ce_ext.binary_cross_entropy_backward(one, input, target, None, None, None, one, *options)


def test_losses_of_dtypes_that_no_kernel_has() -> None:
    """To which Python casts them."""
    options = CrossEntropyOptions(1, -100, out_dtype=torch.float16)
    with pytest.raises(RuntimeError, match="out_dtype must be that of input, Float"):
        torch.ops.ce_ext.cross_entropy_forward(torch.zeros(2, 3), torch.tensor([0, 1]), None, None, *options)


def test_dimensions_that_are_counted_from_the_end() -> None:
    """Which Python counts from the front."""
    input = torch.randn(3, 4, 5, requires_grad=True)
    result = torch.ops.ce_ext.log_softmax_forward(input, -2, None)
    direction = torch.randn_like(result)
    gradients = (torch.autograd.grad(y, input, direction) for y in (result, oracles.log_softmax(input, -2)))
    torch.testing.assert_close(*gradients)


def test_backward_of_class_probabilities_checks_what_it_gets_from_forward() -> None:
    input, target = torch.zeros(3, 5), torch.full((3, 5), 0.2)
    options = SoftCrossEntropyOptions(1, needs_input=True)
    _, stats, denominator, *_ = torch.ops.ce_ext.soft_cross_entropy_forward(input, target, None, None, *options)
    good = {"grad_output": torch.ones(()), "stats": stats, "denominator": denominator}
    bad = {"grad_output": torch.ones(3), "stats": stats[:2], "denominator": torch.ones(3)}

    def call(grad_output: Tensor, stats: Tensor, denominator: Tensor) -> None:
        others = (input, target, None, None, stats, denominator, *options.of_backward())
        torch.ops.ce_ext.soft_cross_entropy_backward(grad_output, *others)

    call(**good)
    for name, value in bad.items():
        with pytest.raises(RuntimeError, match=f"{name} must be a .* tensor of shape"):
            call(**good | {name: value})
