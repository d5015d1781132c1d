"""Where torch loses accuracy, or a naive kernel its footing: confident rows, infinities, half types, long sums."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from tests.support import oracles
from tests.support.cases import CROSS_ENTROPY, NLL, Loss
from tests.support.comparison import on_cpu
from tests.support.marks import ALL_CLASS_LOSSES, SOFTMAX_LOSSES

pytestmark = pytest.mark.kernel

INF = float("inf")
SMALLEST = torch.finfo(torch.float32).smallest_normal  # a power of the focal loss may be less

# By rows and by classes as lanes, over several vectors, over several class blocks.
CLASSES = (3, 40, 1000, 9001)


def _result_and_gradient(
    function: Callable[..., Tensor], input: Tensor, target: Tensor, **options: object
) -> tuple[Tensor, Tensor]:
    input = input.detach().requires_grad_()
    result = function(input, target, **options)
    (grad,) = torch.autograd.grad(result.sum(), input)
    return result.detach(), grad


@SOFTMAX_LOSSES
@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("margin", [15.0, 20.0, 30.0, 60.0])
def test_confident_rows_keep_their_relative_accuracy(loss: Loss, margin: float, classes: int, device: str) -> None:
    input = torch.randn(8, classes, device=device)
    target = torch.tensor([0, 1, classes // 2, classes - 1] * 2, device=device)
    input[torch.arange(8), target] = input.amax(1) + margin
    exact, exact_grad = _result_and_gradient(loss.oracle, input.double(), target, reduction="none")

    result, grad = _result_and_gradient(loss.function, input, target, reduction="none")
    torch.testing.assert_close(result.double(), exact, rtol=1e-5, atol=SMALLEST)
    torch.testing.assert_close(grad.double(), exact_grad, rtol=1e-5, atol=SMALLEST)


@SOFTMAX_LOSSES
@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("shift", [100.0, -1000.0, 65536.0])
def test_shifted_logits(loss: Loss, shift: float, classes: int, device: str) -> None:
    # Multiples of 1/64 stay exact under the shift.
    input = torch.randn(8, classes, device=device).mul_(64).round_().div_(64)
    target = torch.randint(0, classes, (8,), device=device)
    for extras in loss.variants:
        for shifted, plain in zip(
            _result_and_gradient(loss.function, input + shift, target, **extras),
            _result_and_gradient(loss.function, input, target, **extras),
            strict=True,
        ):
            assert torch.equal(shifted, plain)


@SOFTMAX_LOSSES
@pytest.mark.parametrize("spread", [1e4, 1e30])
@pytest.mark.parametrize("classes", CLASSES)
def test_wide_logits(loss: Loss, classes: int, spread: float, device: str) -> None:
    input = torch.randn(8, classes, device=device) * spread
    target = torch.randint(0, classes, (8,), device=device)
    for extras in loss.variants:
        exact, exact_grad = _result_and_gradient(loss.oracle, input.double(), target, reduction="none", **extras)
        result, grad = _result_and_gradient(loss.function, input, target, reduction="none", **extras)
        torch.testing.assert_close(result.double(), exact, rtol=1e-5, atol=1e-30)
        torch.testing.assert_close(grad.double(), exact_grad, rtol=1e-4, atol=1e-6)


@SOFTMAX_LOSSES
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("place", [1000, 1001])
def test_largest_of_either_half_of_a_pair(loss: Loss, place: int, dtype: torch.dtype, device: str) -> None:
    """Halves are compared in pairs, of which one has the maximum of the row."""
    input = torch.zeros(2, 4096, dtype=dtype, device=device)
    input[:, place] = 200
    target = torch.tensor([place, 7], device=device)
    result = loss.function(input, target, reduction="none", out_dtype=torch.float32)
    exact = loss.oracle(input.double(), target, reduction="none")
    torch.testing.assert_close(result.double(), exact, rtol=1e-6, atol=1e-30)


@SOFTMAX_LOSSES
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("classes", CLASSES)
def test_masked_classes_do_not_count(loss: Loss, classes: int, dtype: torch.dtype, device: str) -> None:
    input = torch.randn(6, classes, device=device).to(dtype)
    target = torch.randint(0, classes, (6,), device=device)
    masked = torch.rand(6, classes, device=device) < 0.5
    masked[0] = True  # only the target is left
    masked[1, : classes - 1] = True  # ... after whole blocks of nothing
    target[1] = classes - 1
    masked[torch.arange(6), target] = False
    result, grad = _result_and_gradient(loss.function, input.masked_fill(masked, -INF), target, reduction="none")

    assert (grad[masked] == 0).all()
    for row in range(6):
        kept = ~masked[row]
        new_target = kept[: target[row]].sum()
        one_row = input[row, kept][None], new_target[None]
        alone, grad_alone = _result_and_gradient(loss.function, *one_row, reduction="none")
        torch.testing.assert_close(result[row], alone[0])
        torch.testing.assert_close(grad[row, kept], grad_alone[0])
    assert result[0] == 0 and (grad[0] == 0).all()


@SOFTMAX_LOSSES
@pytest.mark.parametrize("classes", CLASSES)
def test_infinities_as_torch_has_them(loss: Loss, classes: int, device: str) -> None:
    input = torch.randn(6, classes, device=device)
    target = torch.randint(0, classes, (6,), device=device)
    input[0, target[0]] = -INF  # an impossible target: infinite loss, finite gradient
    input[1, (target[1] + 1) % classes] = INF  # NaN
    input[2, target[2]] = INF  # NaN
    input[3] = -INF  # NaN
    input[4, (target[4] + 1) % classes] = torch.nan
    input[5, target[5]] = torch.nan
    # The factor of the focal loss is 1 where the target is impossible.
    reference = on_cpu(CROSS_ENTROPY.reference)
    exact, exact_grad = _result_and_gradient(reference, input.double(), target, reduction="none")
    result, grad = _result_and_gradient(loss.function, input, target, reduction="none")
    torch.testing.assert_close(result.double(), exact, equal_nan=True)
    torch.testing.assert_close(grad.double(), exact_grad, equal_nan=True, rtol=1e-5, atol=1e-6)


@SOFTMAX_LOSSES
@pytest.mark.parametrize("classes", CLASSES)
def test_nothing_times_infinity_is_nothing(loss: Loss, classes: int, device: str) -> None:
    """A class of no weight may be impossible, as target too; torch makes NaN of it."""
    input = torch.randn(5, classes, device=device)
    input[1:, 0] = -INF
    target = torch.tensor([1, 1, classes - 1, 2, 0], device=device)
    weight = torch.rand(classes, device=device) + 0.1
    weight[0] = 0
    for extras in (*loss.variants, {"label_smoothing": 1.0}):
        function = partial(loss.function, weight=weight, reduction="none", **extras)
        very_unlikely = input.clamp(min=-1e4)
        expected = _result_and_gradient(function, very_unlikely, target)
        torch.testing.assert_close(_result_and_gradient(function, input, target), expected)


def test_infinite_log_probabilities(device: str) -> None:
    """As torch has them, but for an impossible target of no weight, whose loss is 0."""
    input = torch.tensor([-INF, -INF, INF, torch.nan, -1.0, torch.nan], device=device).repeat(6, 1)
    target = torch.arange(6, device=device)
    weight = torch.tensor([1.0, 0.0, 1.0, 1.0, 2.0, 3.0], device=device)
    for options in ({}, {"weight": weight}):
        results, expected = (
            _result_and_gradient(function, input, target, reduction="none", **options)
            for function in (NLL.function, on_cpu(NLL.reference))
        )
        if options:
            assert results[0][1] == 0 and expected[0][1].isnan()
            results[0][1] = expected[0][1]
        torch.testing.assert_close(results, expected, equal_nan=True)


@pytest.mark.parametrize("classes", CLASSES)
def test_smoothing_puts_mass_on_an_impossible_class(classes: int, device: str) -> None:
    input = torch.randn(2, classes, device=device)
    input[1, 0] = -INF
    target = torch.tensor([1, 1], device=device)
    result, grad = _result_and_gradient(CROSS_ENTROPY.function, input, target, reduction="none", label_smoothing=0.1)
    assert result[0].isfinite() and result[1] == INF
    torch.testing.assert_close(grad[1, 0], torch.tensor(-0.1 / classes, device=device))
    assert grad.isfinite().all()


@pytest.mark.covering(1)
@ALL_CLASS_LOSSES
@pytest.mark.heavy
@pytest.mark.parametrize("shape", [(70000, 3), (70000, 65), (2, 3, 200, 175)])
def test_float16_mean_over_more_rows_than_float16_can_count(loss: Loss, shape: tuple[int, ...], device: str) -> None:
    input = torch.randn(shape, device=device).half()
    target = torch.randint(0, 3, shape[:1] + shape[2:], device=device)
    exact_input = input.double().requires_grad_()
    exact = loss.oracle(exact_input, target)
    (exact * 1024).backward()
    input.requires_grad_()
    result = loss.function(input, target)
    result.backward(torch.tensor(1024.0, dtype=torch.float16, device=device))
    torch.testing.assert_close(result.double(), exact, rtol=5e-4, atol=0)
    assert input.grad.abs().max() > 0
    torch.testing.assert_close(input.grad.double(), exact_input.grad, rtol=1e-3, atol=2.0**-24)


@ALL_CLASS_LOSSES
@pytest.mark.heavy
def test_long_sums_stay_accurate(loss: Loss, device: str) -> None:
    input = torch.randn(3_000_000, 2, device=device)
    target = torch.randint(0, 2, (3_000_000,), device=device)
    exact = loss.oracle(input, target, reduction="sum")
    result = loss.function(input, target, reduction="sum")
    torch.testing.assert_close(result.double(), exact, rtol=2e-7, atol=0)


@SOFTMAX_LOSSES
@pytest.mark.parametrize("shape", [(4, 600), (4, 5000), (1, 600, 4)])
def test_ties_far_apart(loss: Loss, shape: tuple[int, ...], device: str) -> None:
    """Of classes that threads, or sums of parts, have apart, each counts, however many have the maximum."""
    input = torch.full(shape, -50.0, device=device)
    input[:, 5] = input[:, 500] = 3
    target = torch.full(shape[:1] + shape[2:], 5, device=device)
    result = loss.function(input, target, reduction="none")
    exact = loss.oracle(input.double(), target, reduction="none")
    torch.testing.assert_close(result.double(), exact, rtol=2e-6, atol=0)


@SOFTMAX_LOSSES
@pytest.mark.parametrize("shape", [(20, 200), (20, 300), (20, 5000), (1, 5000, 20)])
def test_classes_that_are_all_alike(loss: Loss, shape: tuple[int, ...], device: str) -> None:
    """One long sum of equal terms would round all of them the same way."""
    values = -torch.linspace(0.1, 3, 20, device=device)
    input = (values if len(shape) == 3 else values[:, None]).expand(shape).contiguous()
    input.select(1, 0).zero_()
    target = torch.zeros(shape[:1] + shape[2:], dtype=torch.int64, device=device)
    for smoothing in (0.0, 0.1):
        exact = loss.oracle(input, target, reduction="none", label_smoothing=smoothing)
        result = loss.function(input, target, reduction="none", label_smoothing=smoothing)
        torch.testing.assert_close(result.double(), exact, rtol=2e-6, atol=0)
    probabilities = torch.full_like(input, 1 / shape[1])
    exact = oracles.soft_cross_entropy(input.double(), probabilities.double(), reduction="none")
    result = CROSS_ENTROPY.function(input, probabilities, reduction="none")
    torch.testing.assert_close(result.double(), exact, rtol=2e-6, atol=0)


@ALL_CLASS_LOSSES
@pytest.mark.heavy
@pytest.mark.not_emulated
@pytest.mark.parametrize("shape", [(1000, 7), (1000, 300), (64, 9001), (3, 5, 40, 41)])
def test_bits_do_not_depend_on_the_number_of_threads(loss: Loss, shape: tuple[int, ...], device: str) -> None:
    input = torch.randn(shape, device=device)
    target = torch.randint(0, shape[1], shape[:1] + shape[2:], device=device)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 3, 7, 1):
            torch.set_num_threads(count)
            results.append(_result_and_gradient(loss.function, input, target, **loss.extras))
    finally:
        torch.set_num_threads(threads)
    for result, grad in results[1:]:
        assert torch.equal(result, results[0][0]) and torch.equal(grad, results[0][1])
