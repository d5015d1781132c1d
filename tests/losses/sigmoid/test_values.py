"""Binary losses and their gradients against float64: shapes, dtypes, weights, targets of every kind."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support import oracles
from tests.support.binary_cases import ASYMMETRIC, BCE, BCE_WITH_LOGITS, BINARY_LOSSES, SIGMOID_FOCAL
from tests.support.cases import DTYPES, Loss
from tests.support.comparison import assert_all_rounded, loss_and_gradients, to_double
from tests.support.marks import ALL_BINARY_LOSSES, ALL_REDUCTIONS, LOGIT_LOSSES

pytestmark = pytest.mark.kernel

CASES = pytest.mark.parametrize(
    ("loss", "options"),
    [
        pytest.param(loss, options, id="-".join([loss.name, *(f"{k}={v}" for k, v in options.items())]))
        for loss in BINARY_LOSSES
        for options in loss.options
    ],
)
ALL_SHAPES = pytest.mark.parametrize("shape", BCE.shapes, ids=lambda shape: "x".join(map(str, shape)) or "scalar")

INTEGERS = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def _weights(*shape: int, dtype: torch.dtype = torch.float64, device: str = "cpu", seed: int = 7) -> Tensor:
    generator = torch.Generator(device).manual_seed(seed)
    return torch.rand(shape, generator=generator, device=device).add(0.1).to(dtype)


def _with_pos_weight(
    options: dict[str, Any], shape: tuple[int, ...], dtype: torch.dtype, device: str
) -> dict[str, Any]:
    options = dict(options)
    if options.get("pos_weight"):
        options["pos_weight"] = _weights(*shape[-1:], dtype=dtype, device=device)
    return options


def _double(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value.double() if isinstance(value, Tensor) else value for name, value in options.items()}


def _assert_exact(loss: Loss, options: dict[str, Any], *tensors: Tensor) -> None:
    """Against the oracle, with an upstream gradient that differs from element to element."""
    exact_of = partial(loss.oracle, **_double(options))
    with torch.no_grad():
        result = exact_of(*to_double(*tensors))
    grad_output = torch.randn(result.shape, device=tensors[0].device).to(tensors[0].dtype)
    actual = loss_and_gradients(partial(loss.function, **options), *tensors, grad_output=grad_output)
    exact = loss_and_gradients(exact_of, *to_double(*tensors), grad_output=grad_output)
    assert actual[0].dtype == tensors[0].dtype and actual[0].shape == exact[0].shape
    assert [grad.dtype for grad in actual[1:]] == [x.dtype for x in tensors if x.is_floating_point()]
    terms = loss_and_gradients(exact_of, *to_double(*tensors), grad_output=grad_output.abs())
    if tensors[0].numel() == 1:  # p - t may be next to nothing for one soft target, but not for all of many
        terms[1:3] = [grad.abs().clamp(min=grad_output.abs()) for grad in terms[1:3]]
    assert_all_rounded(actual, exact, roundings=5, terms=terms)


@pytest.mark.covering(1)
@CASES
@ALL_REDUCTIONS
@ALL_SHAPES
def test_oracle_agrees_with_torch(loss: Loss, options: dict[str, Any], shape: tuple[int, ...], reduction: str) -> None:
    input, target = loss.make_inputs(shape, torch.float64)
    options = _with_pos_weight(options, shape, torch.float64, "cpu") | {"reduction": reduction}
    torch.testing.assert_close(loss.oracle(input, target, **options), loss.reference(input, target, **options))


@pytest.mark.covering(2)
@CASES
@pytest.mark.parametrize("dtype", DTYPES)
@ALL_SHAPES
def test_loss_and_gradients(
    loss: Loss, options: dict[str, Any], shape: tuple[int, ...], dtype: torch.dtype, device: str
) -> None:
    input, target = loss.make_inputs(shape, dtype, device)
    options = _with_pos_weight(options, shape, dtype, device)
    for reduction in ("mean", "sum", "none"):
        _assert_exact(loss, options | {"reduction": reduction}, input, target)


@pytest.mark.thorough
@pytest.mark.parametrize("is_weighted", [False, True])
def test_long_shares(is_weighted: bool, device: str) -> None:
    """More elements than all blocks take at a time: a thread has one pack after another."""
    input, target = BCE_WITH_LOGITS.make_inputs((2**23 + 4321,), torch.float64, device)
    weight = input.abs() if is_weighted else None
    actual, exact = (
        loss_and_gradients(partial(function, target=target.byte(), weight=weight, reduction="sum"), input)
        for function in (BCE_WITH_LOGITS.function, BCE_WITH_LOGITS.oracle)
    )
    torch.testing.assert_close(actual, exact)


# Sizes of a weight for an input of shape (6, 5, 4, 3).
WEIGHT_SHAPES = ((), (1,), (3,), (4, 1), (5, 1, 3), (6, 1, 1, 1), (1, 5, 4, 1), (6, 5, 4, 3))


@pytest.mark.covering(2)
@ALL_BINARY_LOSSES
@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("shape", WEIGHT_SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_weights_of_any_shape(
    loss: Loss, dtype: torch.dtype, shape: tuple[int, ...], reduction: str, device: str
) -> None:
    """With their gradients, in the dtype of the weight: sums over the elements that share it."""
    input, target = loss.make_inputs((6, 5, 4, 3), dtype, device)
    names = ["weight"] if loss is BCE else ["weight", "pos_weight"]
    for name in names:
        for weight_dtype in {dtype, torch.promote_types(dtype, torch.float32)}:
            weight = _weights(*shape, dtype=weight_dtype, device=device)
            of_weight = Loss(**vars(loss) | {
                "function": lambda x, t, w, name=name, **options: loss.function(x, t, **{name: w}, **options),
                "oracle": lambda x, t, w, name=name, **options: loss.oracle(x, t, **{name: w}, **options),
            })  # fmt: skip
            _assert_exact(of_weight, {"reduction": reduction}, input, target, weight)


@pytest.mark.covering(1)
@LOGIT_LOSSES
@pytest.mark.heavy
@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize(
    ("rows", "columns", "shapes"),
    # Those of the CPU's tiles and of several shares, side by side and apart; and more groups than CUDA has blocks.
    [(3, 9000, ((3, 1), ())), (2000, 3, ((3,), ())), (2, 2100, ((2100,),)), (100, 70, ((70,), (100, 1)))],
    ids=["3x9000", "2000x3", "2x2100", "100x70"],
)
def test_gradients_in_weights_that_many_elements_share(
    loss: Loss, rows: int, columns: int, shapes: tuple[tuple[int, ...], ...], reduction: str, device: str
) -> None:
    input, target = loss.make_inputs((rows, columns), torch.float32, device)
    for shape in shapes:
        weights = [_weights(*shape, dtype=torch.float32, device=device, seed=seed) for seed in (1, 2)]

        def of(function: Any, x: Tensor, w: Tensor, p: Tensor, t: Tensor) -> Tensor:
            return function(x, t, reduction=reduction, weight=w, pos_weight=p)

        tensors = (input, *weights, target)
        grad_output = torch.randn((rows, columns) if reduction == "none" else (), device=device)
        actual = loss_and_gradients(partial(of, loss.function), *tensors, grad_output=grad_output)
        exact, terms = (
            loss_and_gradients(partial(of, loss.oracle), *to_double(*tensors), grad_output=upstream)
            for upstream in (grad_output, grad_output.abs())
        )
        assert_all_rounded(actual, exact, roundings=5, terms=terms)


@pytest.mark.covering(2)
@ALL_BINARY_LOSSES
@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("shape", [(7,), (5, 3), (2, 1031)])
def test_integer_targets(loss: Loss, shape: tuple[int, ...], dtype: torch.dtype, device: str) -> None:
    """As if they were floating."""
    for input_dtype in (torch.float32, torch.bfloat16):
        input, _ = loss.make_inputs(shape, input_dtype, device)
        target = torch.randint(0, 2, shape, device=device)
        for reduction in ("mean", "none"):
            function = partial(loss.function, reduction=reduction)
            expected = loss_and_gradients(function, input, target.to(input_dtype))[:2]
            torch.testing.assert_close(loss_and_gradients(function, input, target.to(dtype)), expected)


@pytest.mark.covering(2)
@ALL_BINARY_LOSSES
@pytest.mark.parametrize("target_dtype", DTYPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_floating_targets_of_another_dtype(
    loss: Loss, dtype: torch.dtype, target_dtype: torch.dtype, device: str
) -> None:
    """The loss has the dtype that both promote to, where torch's has the target's; gradients have those of tensors."""
    input, target = loss.make_inputs((20, 9), dtype, device)
    target = target.to(target_dtype)
    result, *grads = loss_and_gradients(loss.function, input, target)
    assert result.dtype == torch.promote_types(dtype, target_dtype)
    assert [grad.dtype for grad in grads] == [dtype, target_dtype]
    exact = loss_and_gradients(loss.oracle, *to_double(input, target))
    assert_all_rounded([result, *grads], exact)
    if loss is BCE_WITH_LOGITS:
        assert loss.reference(input, target).dtype == target_dtype


@pytest.mark.covering(2)
@pytest.mark.parametrize(
    ("shape", "index_dtype"),
    [
        (shape, dtype)
        for shape in ((5,), (7, 5), (300, 80), (2, 130, 5, 3))
        for dtype in INTEGERS[1:]
        if shape[:2][-1] <= torch.iinfo(dtype).max  # a number for each class
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_classes_are_one_hot_targets(
    dtype: torch.dtype, shape: tuple[int, ...], index_dtype: torch.dtype, device: str
) -> None:
    dim = min(1, len(shape) - 1)
    classes = shape[dim]
    input, _ = SIGMOID_FOCAL.make_inputs(shape, dtype, device)
    index = torch.randint(0, classes + 1, shape[:dim] + shape[dim + 1 :], device=device)
    one_hot = torch.nn.functional.one_hot(index, classes + 1)[..., :classes].movedim(-1, dim).bool()
    pos_weight = _weights(*shape[-1:], dtype=dtype, device=device)
    for options in ({}, {"alpha": -1.0, "gamma": 0.0}, {"pos_weight": pos_weight, "label_smoothing": 0.1}):
        for reduction in ("mean", "sum", "none"):
            function = partial(SIGMOID_FOCAL.function, reduction=reduction, **options)
            expected = loss_and_gradients(function, input, one_hot)
            torch.testing.assert_close(loss_and_gradients(function, input, index.to(index_dtype)), expected)


@pytest.mark.parametrize("ignore_index", [-1, 0, 2, 5, 255, 10**12])
def test_ignored_rows_of_classes(ignore_index: int, device: str) -> None:
    """Of any index, that of a class and of the background, too. Their logits are not looked at."""
    input, _ = SIGMOID_FOCAL.make_inputs((40, 5), torch.float32, device)
    index = torch.randint(0, 6, (40,), device=device)
    index[::3] = ignore_index
    kept = index != ignore_index
    poisoned = input.where(kept.unsqueeze(1), torch.nan)
    for reduction in ("mean", "sum"):
        function = partial(SIGMOID_FOCAL.function, reduction=reduction, ignore_index=ignore_index)
        loss, grad = loss_and_gradients(function, poisoned, index)
        torch.testing.assert_close([loss, grad[kept]], loss_and_gradients(function, input[kept], index[kept]))
        assert (grad[~kept] == 0).all()


@ALL_BINARY_LOSSES
@pytest.mark.parametrize(
    ("target_dtype", "ignore_index"),
    [
        (torch.uint8, 255),
        (torch.int64, -100),
        (torch.float32, -100),
        (torch.bfloat16, -1),
        (torch.int64, 0),
        *((dtype, torch.nan) for dtype in DTYPES),
    ],
)
def test_ignored_elements(loss: Loss, target_dtype: torch.dtype, ignore_index: float, device: str) -> None:
    """Of a number, or of targets that are NaN."""
    options = {"ignore_nan": True} if ignore_index != ignore_index else {"ignore_index": ignore_index}
    input, _ = loss.make_inputs((40, 7), torch.float32, device)
    target = torch.randint(0, 2, (40, 7), device=device).to(target_dtype)
    target.view(-1)[::3] = ignore_index
    kept = ~target.isnan() if "ignore_nan" in options else target != ignore_index
    poisoned = input.where(kept, torch.nan)
    weight = _weights(7, dtype=torch.float32, device=device)
    for reduction in ("mean", "sum", "none"):
        function = partial(loss.function, reduction=reduction, **options)
        loss_value, grad, *_ = loss_and_gradients(partial(function, weight=weight), poisoned, target)
        alone = partial(function, weight=weight.expand(40, 7)[kept])
        expected, expected_grad, *_ = loss_and_gradients(alone, input[kept], target[kept])
        torch.testing.assert_close(loss_value[kept] if reduction == "none" else loss_value, expected)
        torch.testing.assert_close(grad[kept], expected_grad)
        assert (grad[~kept] == 0).all()
        if reduction == "none":
            assert (loss_value[~kept] == 0).all()


@ALL_BINARY_LOSSES
def test_ignored_numbers_and_nan(loss: Loss, device: str) -> None:
    """Both at once; and where NaN is not ignored, or no target is NaN. Infinite targets are not ignored."""
    input, _ = loss.make_inputs((40, 7), torch.float32, device)
    target = torch.randint(0, 2, (40, 7), device=device).float()
    target[::3], target[::5] = torch.nan, -100
    kept = target.isfinite() & (target >= 0)
    weight = _weights(7, dtype=torch.float32, device=device)
    function = partial(loss.function, weight=weight, ignore_index=-100, ignore_nan=True)
    result, grad, grad_target = loss_and_gradients(function, input, target)
    alone = partial(loss.function, weight=weight.expand(40, 7)[kept])
    expected, expected_grad, _ = loss_and_gradients(alone, input[kept], target[kept])
    torch.testing.assert_close((result, grad[kept]), (expected, expected_grad))
    assert (grad[~kept] == 0).all() and (grad_target[~kept] == 0).all()

    labels = target.where(kept, 0).long()
    nan_ignored = partial(loss.function, reduction="none", ignore_nan=True)
    assert torch.equal(nan_ignored(input, labels), loss.function(input, labels, reduction="none"))
    if loss is not BCE:
        losses = loss.function(input, target, reduction="none", ignore_index=-100)
        assert torch.equal(losses.isnan(), target.isnan())
        for infinite in (torch.inf, -torch.inf):
            assert (nan_ignored(input, torch.full_like(target, infinite)) != 0).all()


@pytest.mark.parametrize("value", [torch.nan, -torch.inf])
def test_probabilities_with_targets_that_are_none(value: float, device: str, runs_cuda_kernels: bool) -> None:
    """The error shows the first of those that are not ignored."""
    input, target = BCE.make_inputs((4, 5), torch.float32, device)
    target[1] = torch.nan
    assert BCE.function(input, target, ignore_nan=True).isfinite()
    target[2, 3] = -1 if value != value else value
    if runs_cuda_kernels:
        assert BCE.function(input, target, ignore_nan=True).isnan()
    else:
        with pytest.raises(RuntimeError, match=rf"target\[2, 3\] = -{'1' if value != value else 'inf'}"):
            BCE.function(input, target, ignore_nan=True)


@LOGIT_LOSSES
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64, torch.uint32])
def test_ignored_integers_that_floats_do_not_have(loss: Loss, dtype: torch.dtype, device: str) -> None:
    """2^24 + 1 is 2^24 in float32, and no label."""
    input, _ = loss.make_inputs((3,), torch.float32, device)
    target = torch.tensor([1, 2**24 + 1, 2**24], device=device).to(dtype)
    losses = loss.function(input, target, ignore_index=2**24 + 1, reduction="none")
    assert (losses == 0).tolist() == [False, True, False]


@ALL_REDUCTIONS
@pytest.mark.parametrize("gamma", [0.0, 2.0])
@pytest.mark.parametrize("shape", [(5,), (7, 1), (7, 5), ()], ids=str)
def test_alpha_of_classes(shape: tuple[int, ...], gamma: float, reduction: str, device: str) -> None:
    """-1 among them is for none."""
    input, target = SIGMOID_FOCAL.make_inputs((7, 5), torch.float32, device)
    alpha = torch.rand(shape, device=device)
    if alpha.dim():
        alpha.view(-1)[2] = -1
    _assert_exact(SIGMOID_FOCAL, {"alpha": alpha, "gamma": gamma, "reduction": reduction}, input, target)


def test_alpha_of_all_as_a_tensor(device: str) -> None:
    input, target = SIGMOID_FOCAL.make_inputs((7, 5), torch.float64, device)
    of_tensor = SIGMOID_FOCAL.function(input, target, torch.tensor(0.4, device=device).double())
    torch.testing.assert_close(of_tensor, SIGMOID_FOCAL.function(input, target, 0.4))


@ALL_BINARY_LOSSES
@pytest.mark.parametrize("dtype", DTYPES)
def test_out_dtype(loss: Loss, dtype: torch.dtype, device: str) -> None:
    input, target = loss.make_inputs((20, 9), dtype, device)
    for out_dtype in (dtype, torch.float32, torch.float64):
        for reduction in ("mean", "none"):
            function = partial(loss.function, reduction=reduction, out_dtype=out_dtype)
            actual = loss_and_gradients(function, input, target)
            exact = loss_and_gradients(partial(loss.oracle, reduction=reduction), *to_double(input, target))
            assert actual[0].dtype == out_dtype
            computed = torch.promote_types(dtype, torch.float32)
            actual[0] = actual[0].to(min(out_dtype, computed, key=lambda x: torch.finfo(x).bits))
            assert_all_rounded(actual, exact)


@ALL_BINARY_LOSSES
@pytest.mark.parametrize("of_tensor", [False, True])
def test_denominator(loss: Loss, of_tensor: bool, device: str) -> None:
    input, target = loss.make_inputs((20, 9), torch.float32, device)
    denominator = torch.tensor(7.0, device=device) if of_tensor else 7.0
    _assert_exact(loss, {"denominator": denominator}, input, target)
    halves = [loss_and_gradients(partial(loss.function, denominator=180), x, t)[0] for x, t in
              zip(input.split(5), target.split(5), strict=True)]  # fmt: skip
    torch.testing.assert_close(sum(halves), loss.function(input, target))
    if of_tensor:
        learned = denominator.clone().requires_grad_()
        result = loss.function(input, target, denominator=learned)
        (grad,) = torch.autograd.grad(result, learned)
        torch.testing.assert_close(grad, -result.detach() / 7)


def test_the_losses_agree_where_they_are_the_same(device: str) -> None:
    input, target = SIGMOID_FOCAL.make_inputs((20, 9), torch.float64, device)
    expected = loss_and_gradients(BCE_WITH_LOGITS.function, input, target)
    focal = partial(SIGMOID_FOCAL.function, alpha=-1.0, gamma=0.0)
    torch.testing.assert_close(loss_and_gradients(focal, input, target), expected)
    asymmetric = partial(ASYMMETRIC.function, gamma_neg=0.0, gamma_pos=0.0, margin=0.0)
    torch.testing.assert_close(loss_and_gradients(asymmetric, input, target), expected)
    of_probabilities = loss_and_gradients(lambda x, t: BCE.function(x.sigmoid(), t), input, target)
    torch.testing.assert_close(of_probabilities, expected)
    assert oracles.binary_cross_entropy(input.sigmoid(), target).allclose(expected[0])
