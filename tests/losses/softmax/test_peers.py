"""What the tests of other implementations look at, and what their users ran into, for the whole softmax family.

The names are of those whose tests or issues the facts are from; what the table of losses covers is not repeated.
"""

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

import ce_ext
from tests.support import oracles
from tests.support.cases import DTYPES
from tests.support.comparison import assert_all_rounded, assert_rounded, loss_and_gradients, to_double
from tests.support.marks import ALL_REDUCTIONS

F = ce_ext.functional
INF = math.inf

kernel = pytest.mark.kernel
ALL_DTYPES = pytest.mark.parametrize("dtype", DTYPES)


# torch/test/test_nn.py


@pytest.mark.covering(2)
@kernel
@ALL_REDUCTIONS
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("dimensions", range(5))
def test_class_probabilities_in_all_dimensions(
    dimensions: int, label_smoothing: float, weighted: bool, reduction: str, device: str
) -> None:
    shape = (5, 4, *(2, 3, 2, 1)[:dimensions])
    input, target = torch.randn(2, *shape, device=device, dtype=torch.float64)
    target = target.softmax(1)
    options = {"reduction": reduction, "label_smoothing": label_smoothing}
    if weighted:
        options["weight"] = torch.rand(4, device=device, dtype=torch.float64)
    exact = loss_and_gradients(partial(oracles.soft_cross_entropy, **options), input, target)
    torch.testing.assert_close(
        exact, loss_and_gradients(partial(torch.nn.functional.cross_entropy, **options), input, target)
    )
    for dtype in DTYPES:
        rounded = input.to(dtype), target.to(dtype)
        if weighted:
            options["weight"] = options["weight"].to(dtype)
        exact = loss_and_gradients(partial(oracles.soft_cross_entropy, **options), *to_double(*rounded))
        actual = loss_and_gradients(partial(F.cross_entropy, **options), *rounded)
        assert [x.dtype for x in actual] == [dtype] * 3
        assert_all_rounded(actual, exact)


@kernel
@ALL_REDUCTIONS
def test_class_probabilities_of_one_row(reduction: str, device: str) -> None:
    input, target = torch.randn(2, 7, device=device)
    target = target.softmax(0)
    actual = loss_and_gradients(partial(F.cross_entropy, reduction=reduction), input, target)
    exact = loss_and_gradients(partial(oracles.soft_cross_entropy, reduction=reduction), *to_double(input, target))
    assert actual[0].shape == ()
    assert_all_rounded(actual, exact)


@kernel
@pytest.mark.parametrize("classes", [5, 100, 300])
def test_probabilities_need_not_sum_to_one(classes: int, device: str) -> None:
    """Nor be positive, nor any of them be there; torch takes what it gets."""
    input = torch.randn(4, classes, device=device)
    target = torch.randn(4, classes, device=device)
    target[1] = 0
    target[2] *= 10
    actual = loss_and_gradients(partial(F.cross_entropy, reduction="none"), input, target)
    exact = loss_and_gradients(partial(oracles.soft_cross_entropy, reduction="none"), *to_double(input, target))
    scale = (target.abs().sum(1) * input.abs().max()).max().item()
    assert_all_rounded(actual, exact, scale=scale)
    assert actual[0][1] == 0 and (actual[1][1] == 0).all()


@kernel
@ALL_REDUCTIONS
@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 2), (4, 3, 2, 5)])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.3, 1.0])
def test_smoothing_with_weight_and_ignored_rows(
    label_smoothing: float, shape: tuple[int, ...], reduction: str, device: str
) -> None:
    """The value that marks ignored rows must not matter: the usual one, another negative one, a class."""
    input = torch.randn(shape, device=device, dtype=torch.float64)
    target = torch.randint(0, 2, shape[:1] + shape[2:], device=device)
    ignored = torch.rand(target.shape, device=device) < 0.4
    options = {"weight": torch.tensor([0.3, 0.6, 0.1], device=device, dtype=torch.float64), "reduction": reduction}
    results = []
    for ignore_index in (-100, -2, 2):
        marked = target.masked_fill(ignored, ignore_index)
        function = partial(F.cross_entropy, ignore_index=ignore_index, label_smoothing=label_smoothing, **options)
        results.append(loss_and_gradients(function, input, marked))
    marked = target.masked_fill(ignored, -100)
    exact = loss_and_gradients(
        partial(oracles.cross_entropy, label_smoothing=label_smoothing, **options), input, marked
    )
    for actual in results:
        torch.testing.assert_close(actual, exact, equal_nan=True)


@kernel
@pytest.mark.parametrize("on_empty", ["nan", "zero"])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("function", [F.cross_entropy, F.softmax_focal_loss, F.nll_loss])
def test_no_weight_at_all(function: Callable[..., Tensor], label_smoothing: float, on_empty: str, device: str) -> None:
    """Rows whose classes all weigh nothing: 0 / 0, or with smoothing something / 0, but for a mean that asks for 0."""
    input = torch.randn(3, 4, device=device)
    target = torch.tensor([0, 2, 0], device=device)
    weight = torch.tensor([0.0, 1.0, 0.0, 1.0], device=device)
    options = {} if function is F.nll_loss else {"label_smoothing": label_smoothing}
    loss, grad = loss_and_gradients(partial(function, weight=weight, on_empty=on_empty, **options), input, target)
    if on_empty == "zero":
        assert loss == 0 and (grad == 0).all()
    else:
        assert not loss.isfinite()


@pytest.mark.heavy
def test_more_than_2_32_logits(device: str) -> None:
    """torch's test_large_softmax_backward and -cross_entropy shapes. The rows share their memory."""
    rows, classes = 65536, 65537
    row = torch.linspace(-1, 1, classes, device=device)
    target = torch.arange(rows, device=device)
    with torch.no_grad():
        loss = F.cross_entropy(row.expand(rows, classes), target, reduction="none")
    exact = row.double().logsumexp(0) - row.double()[:rows]
    torch.testing.assert_close(loss.double(), exact, rtol=1e-6, atol=0)


# Liger-Kernel, flash-attention, quack, TransformerEngine


@kernel
@ALL_DTYPES
def test_tokens_that_fill_no_block(dtype: torch.dtype, device: str) -> None:
    input = torch.randn(3, 423, 67, device=device).to(dtype).flatten(0, 1)
    target = torch.randint(0, 67, (3, 423), device=device).flatten()
    target[::7] = -100
    actual = loss_and_gradients(F.cross_entropy, input, target)
    assert_all_rounded(actual, loss_and_gradients(oracles.cross_entropy, *to_double(input, target)))


@kernel
@pytest.mark.parametrize("function", [F.cross_entropy, F.softmax_focal_loss])
def test_the_loss_is_not_the_last_layer(function: Callable[..., Tensor], device: str) -> None:
    """What comes after the loss, and another loss, reach the logits through one gradient."""
    oracle = oracles.cross_entropy if function is F.cross_entropy else oracles.softmax_focal_loss
    weight = torch.randn(6, 9, device=device, dtype=torch.float64, requires_grad=True)
    features = torch.randn(5, 6, device=device, dtype=torch.float64)
    target = torch.tensor([0, 8, 3, -100, 1], device=device)
    grads = []
    for loss in (function, oracle):
        logits = features @ weight
        total = loss(logits, target).square() * 3 + loss(logits * 2, target, reduction="sum").exp() + logits.sum()
        grads += torch.autograd.grad(total, weight)
    torch.testing.assert_close(*grads)


@kernel
@pytest.mark.parametrize("options", [{}, {"grad_in_forward": True}], ids=str)
def test_forward_without_backward(options: dict[str, bool], device: str) -> None:
    """Another implementation returned 0 where no gradient was needed."""
    input = torch.randn(5, 40, device=device)
    target = torch.tensor([0, 8, 39, -100, 1], device=device)
    exact = oracles.cross_entropy(input, target)
    assert_rounded(F.cross_entropy(input, target, **options), exact)
    input.requires_grad_()
    assert_rounded(F.cross_entropy(input, target, **options).detach(), exact)
    for no_grad in (torch.no_grad(), torch.inference_mode()):
        with no_grad:
            assert_rounded(F.cross_entropy(input, target, **options), exact)


@kernel
@pytest.mark.heavy
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.9])
@pytest.mark.parametrize("classes", [50257, 128256])
def test_vocabularies(classes: int, label_smoothing: float, dtype: torch.dtype, device: str) -> None:
    input = torch.randn(3, classes, device=device).mul_(4).to(dtype)
    target = torch.tensor([classes - 1, -100, 0], device=device)
    function = partial(F.cross_entropy, label_smoothing=label_smoothing, z_loss=1e-4)
    actual = loss_and_gradients(function, input, target)

    def exact(x: Tensor) -> Tensor:
        squares = x.logsumexp(1)[[0, 2]].square()
        return oracles.cross_entropy(x, target, label_smoothing=label_smoothing) + 1e-4 * squares.mean()

    assert_all_rounded(actual, loss_and_gradients(exact, input.double()), roundings=5)


@kernel
@pytest.mark.parametrize("classes", [6, 130])
@pytest.mark.parametrize("family", ["focal", "probabilities"])
def test_transposed_logits_and_expanded_upstream_gradient(family: str, classes: int, device: str) -> None:
    input = torch.randn(classes, 33, device=device, dtype=torch.float64).T
    if family == "focal":
        target = torch.randint(0, classes, (33,), device=device)
        function, oracle = F.softmax_focal_loss, oracles.softmax_focal_loss
    else:
        target = torch.rand(33, classes, device=device, dtype=torch.float64)  # of other strides
        function, oracle = F.cross_entropy, oracles.soft_cross_entropy
    grad_output = torch.tensor(0.7, device=device, dtype=torch.float64).expand(33)
    actual = loss_and_gradients(partial(function, reduction="none"), input, target, grad_output=grad_output)
    exact = loss_and_gradients(partial(oracle, reduction="none"), input, target, grad_output=grad_output)
    torch.testing.assert_close(actual, exact)
    assert actual[1].stride() == input.stride()


# What hurt users


@kernel
@pytest.mark.parametrize("shape", [(0, 5), (4, 5), (2, 5, 3, 4), (0, 5, 3)])
@pytest.mark.parametrize("function", [F.cross_entropy, F.softmax_focal_loss, F.nll_loss])
def test_mean_over_nothing(function: Callable[..., Tensor], shape: tuple[int, ...], device: str) -> None:
    input = torch.randn(shape, device=device, requires_grad=True)
    target = torch.full(shape[:1] + shape[2:], -100, device=device)
    assert function(input, target).isnan()
    loss = function(input, target, on_empty="zero")
    assert loss == 0
    (grad,) = torch.autograd.grad(loss, input)
    assert grad.shape == input.shape and (grad == 0).all()


@kernel
def test_mean_over_no_probabilities(device: str) -> None:
    input = torch.randn(0, 5, device=device, requires_grad=True)
    target = torch.rand(0, 5, device=device)
    assert F.cross_entropy(input, target).isnan()
    loss = F.cross_entropy(input, target, on_empty="zero")
    assert loss == 0
    (grad,) = torch.autograd.grad(loss, input)
    assert grad.shape == input.shape


@kernel
@pytest.mark.parametrize("function", [F.cross_entropy, F.softmax_focal_loss, F.nll_loss])
def test_zero_where_empty_changes_nothing_else(function: Callable[..., Tensor], device: str) -> None:
    input = torch.randn(6, 5, device=device)
    target = torch.tensor([0, 4, -100, 2, -100, 1], device=device)
    expected = loss_and_gradients(function, input, target)
    torch.testing.assert_close(
        loss_and_gradients(partial(function, on_empty="zero"), input, target), expected, rtol=0, atol=0
    )
    input[0, 3] = torch.nan  # is not hidden
    target[0] = 3
    assert function(input, target, on_empty="zero").isnan()


@kernel
@pytest.mark.heavy
@pytest.mark.parametrize("family", ["focal", "probabilities"])
def test_float16_mean_over_more_rows_than_float16_can_count(family: str, device: str) -> None:
    input = torch.randn(70000, 3, device=device).half()
    if family == "focal":
        target = torch.randint(0, 3, (70000,), device=device)
        function, oracle = F.softmax_focal_loss, oracles.softmax_focal_loss
    else:
        target = torch.rand(70000, 3, device=device).half()
        function, oracle = F.cross_entropy, oracles.soft_cross_entropy
    grad_output = torch.tensor(1024.0, device=device)
    actual = loss_and_gradients(function, input, target, grad_output=grad_output)
    exact = loss_and_gradients(oracle, *to_double(input, target), grad_output=grad_output.double())
    assert_rounded(actual[0], exact[0])
    assert actual[1].abs().max() > 0
    torch.testing.assert_close(actual[1].double(), exact[1], rtol=1e-3, atol=2.0**-24)


@kernel
@pytest.mark.parametrize("classes", [5, 100, 300])
def test_impossible_classes_without_probability(classes: int, device: str) -> None:
    """Masked logits and soft targets: no mass on what is masked, no NaN; some mass, an infinite loss."""
    input = torch.randn(3, classes, device=device)
    target = torch.rand(3, classes, device=device)
    masked = torch.arange(classes, device=device) % 2 == 1
    input[:, masked] = -INF
    target[:, masked] = 0
    target[2, 1] = 0.5
    actual = loss_and_gradients(partial(F.cross_entropy, reduction="none"), input, target)
    exact = loss_and_gradients(
        partial(oracles.soft_cross_entropy, reduction="none"), *to_double(input[:2, ~masked], target[:2, ~masked])
    )
    assert_rounded(actual[0][:2], exact[0], roundings=3)
    assert_rounded(actual[1][:2, ~masked], exact[1], roundings=3, scale=target.sum(1).max().item())
    assert (actual[1][:2, masked] == 0).all()
    assert actual[0][2] == INF


@kernel
@pytest.mark.parametrize("classes", [5, 300])
def test_masked_logits_under_a_cap(classes: int, device: str) -> None:
    """The cap makes of -inf what it makes of any large negative logit: a class that is unlikely, not impossible."""
    input = torch.randn(4, classes, device=device)
    input[:, 1::2] = -INF
    target = torch.tensor([0, 2, 1, 0], device=device)
    actual = loss_and_gradients(partial(F.cross_entropy, softcap=5.0, reduction="none"), input, target)
    expected = loss_and_gradients(
        partial(F.cross_entropy, softcap=5.0, reduction="none"), input.clamp(min=-1e4), target
    )
    assert all(x.isfinite().all() for x in actual)
    torch.testing.assert_close(actual, expected)


@kernel
def test_class_weights_under_the_mean(device: str) -> None:
    """The divisor is the weight of the targets, not their number; of probabilities, the number of rows."""
    input = torch.zeros(3, 2, device=device)  # every class costs log 2
    weight = torch.tensor([1.0, 5.0], device=device)
    target = torch.tensor([0, 0, 1], device=device)
    log2 = torch.tensor(math.log(2), device=device)
    torch.testing.assert_close(F.cross_entropy(input, target, weight), log2)
    torch.testing.assert_close(F.nll_loss(torch.log_softmax(input, 1), target, weight), log2)
    torch.testing.assert_close(F.softmax_focal_loss(input, target, weight, gamma=1.0), log2 / 2)
    one_hot = torch.nn.functional.one_hot(target).float()
    torch.testing.assert_close(F.cross_entropy(input, one_hot, weight), log2 * 7 / 3)
    rows = torch.tensor([2.0, 0.0, 1.0], device=device)
    torch.testing.assert_close(F.cross_entropy(input, target, weight, sample_weight=rows), log2)
    torch.testing.assert_close(F.cross_entropy(input, one_hot, weight, sample_weight=rows), log2 * (2 + 5) / 3)


@pytest.mark.parametrize("family", ["focal", "probabilities", "options"])
@pytest.mark.parametrize("shape", [(1000, 7), (700, 300), (3, 5, 40, 41)])
def test_same_bits_on_every_run(shape: tuple[int, ...], family: str, device: str) -> None:
    input = torch.randn(shape, device=device)
    target = torch.randint(0, shape[1], shape[:1] + shape[2:], device=device)
    function: Callable[..., Tensor] = partial(F.softmax_focal_loss, gamma=0.7, label_smoothing=0.1)
    if family == "probabilities":
        target, function = torch.rand(shape, device=device), F.cross_entropy
    elif family == "options":
        rows = torch.rand(target.shape, device=device)
        function = partial(F.cross_entropy, z_loss=0.01, softcap=4.0, logit_scale=0.5, sample_weight=rows)
    threads = torch.get_num_threads()
    runs = []
    try:
        for count in (1, 2, 2, 3, 7, 1):
            torch.set_num_threads(count)
            runs.append(loss_and_gradients(function, input, target))
    finally:
        torch.set_num_threads(threads)
    for run in runs[1:]:
        torch.testing.assert_close(run, runs[0], rtol=0, atol=0)


@kernel
def test_logits_overwritten_by_their_gradient_are_not_read_again(device: str) -> None:
    """Others write the gradient over the logits unasked, and whoever reads these next gets wrong numbers."""
    leaf = torch.randn(6, 50, device=device, requires_grad=True)
    target = torch.randint(0, 50, (6,), device=device)
    (expected,) = torch.autograd.grad(F.cross_entropy(leaf, target), leaf)

    logits = leaf * 1
    (grad,) = torch.autograd.grad(F.cross_entropy(logits, target, inplace=True), leaf)
    torch.testing.assert_close(grad, expected)

    logits = leaf * 1
    other = logits.square().sum()  # needs the logits in its backward
    loss = F.cross_entropy(logits, target, inplace=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        (loss + other).backward()


@kernel
@pytest.mark.parametrize(
    "take", [lambda x: x, lambda x: x.view(-1, 50), lambda x: x[:, :20]], ids=["all", "view", "crop"]
)
def test_parameters_are_not_overwritten(take: Callable[[Tensor], Tensor], device: str) -> None:
    leaf = torch.randn(6, 50, device=device, requires_grad=True)
    before = leaf.detach().clone()
    with pytest.raises(RuntimeError, match=r"inplace.* leaf"):
        F.cross_entropy(take(leaf), torch.zeros(6, dtype=torch.int64, device=device), inplace=True)
    assert torch.equal(leaf, before)


@kernel
def test_rows_that_share_their_memory_are_not_overwritten(device: str) -> None:
    leaf = torch.randn(50, device=device, requires_grad=True)
    with pytest.raises(RuntimeError, match="single memory location"):
        F.cross_entropy((leaf * 1).expand(6, 50), torch.zeros(6, dtype=torch.int64, device=device), inplace=True)


@kernel
@pytest.mark.parametrize("function", [F.cross_entropy, F.softmax_focal_loss])
def test_logits_are_left_alone_unless_asked(function: Callable[..., Tensor], device: str) -> None:
    leaf = torch.randn(6, 50, device=device, requires_grad=True)
    target = torch.randint(0, 50, (6,), device=device)
    logits = leaf * 1
    before = logits.detach().clone()
    for options in ({}, {"grad_in_forward": True}):
        function(logits, target, **options).backward(retain_graph=True)
        torch.testing.assert_close(logits, before, rtol=0, atol=0)
