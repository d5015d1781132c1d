"""Binary losses of tensors of any strides: read in place, with gradients in their memory formats."""

from functools import partial

import pytest
import torch
from torch import Tensor

from benchmarks.memory import peak_extra_bytes
from tests.losses.softmax.test_layouts import far_apart, upstream_gradients
from tests.support.binary_cases import BCE, SIGMOID_FOCAL
from tests.support.cases import Loss
from tests.support.comparison import assert_all_rounded, loss_and_gradients, to_double
from tests.support.layouts import LAYOUTS_BY_DIM
from tests.support.marks import ALL_BINARY_LOSSES

pytestmark = pytest.mark.kernel

# Of several shares, which are 1024 elements where they lie in runs.
SHAPES = {2: (20, 177), 4: (3, 5, 16, 17)}
LAYOUTS = [(dim, name) for dim, layouts in LAYOUTS_BY_DIM.items() for name in layouts]


@pytest.mark.covering(3)
@ALL_BINARY_LOSSES
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("of_target", [False, True], ids=["contiguous target", "target alike"])
@pytest.mark.parametrize(("dim", "name"), LAYOUTS)
def test_layout(
    loss: Loss, dim: int, name: str, of_target: bool, reduction: str, dtype: torch.dtype, device: str
) -> None:
    lay_out = LAYOUTS_BY_DIM[dim][name]
    values, target = loss.make_inputs(SHAPES[dim], dtype, device)
    input, target = lay_out(values), lay_out(target) if of_target else target
    grad_output = torch.randn(SHAPES[dim] if reduction == "none" else (), device=device).to(dtype)
    for weight in (None, torch.rand(SHAPES[dim][-1], device=device).to(dtype)):
        function = partial(loss.function, weight=weight, reduction=reduction)
        actual = loss_and_gradients(function, input, target, grad_output=grad_output)
        oracle = partial(loss.oracle, weight=None if weight is None else weight.double(), reduction=reduction)
        exact = loss_and_gradients(oracle, *(x.contiguous() for x in to_double(input, target)), grad_output=grad_output)
        assert_all_rounded(actual, exact, roundings=5)
        for grad, of in zip(actual[1:], (input, target), strict=True):
            assert grad.stride() == torch.empty_like(of).stride()
        if reduction == "none":
            assert actual[0].stride() == torch.empty_like(input).stride()


# Large enough for the CPU to work on blocks of two dimensions where tensors disagree about which of them is the inner
# one, which CUDA knows nothing of. Neither is a multiple of a block, and some are shorter than a vector.
LARGE = [
    ("transposed", (300, 251)),
    ("channels_last", (2, 19, 61, 67)),
    ("channels_last", (2, 3, 150, 151)),
    ("everything reversed", (131, 2, 3, 517)),
]


@pytest.mark.covering(2)
@pytest.mark.heavy
@pytest.mark.not_emulated
@ALL_BINARY_LOSSES
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("who", ["input", "target", "both"])
@pytest.mark.parametrize(("name", "shape"), LARGE)
def test_large_tensors_that_lie_differently(
    loss: Loss, name: str, shape: tuple[int, ...], who: str, dtype: torch.dtype, device: str
) -> None:
    """Next to operands that are contiguous: results are those of contiguous tensors."""
    lay_out = LAYOUTS_BY_DIM[len(shape)][name]
    values, target = loss.make_inputs(shape, dtype, device)
    weight, grad_output = torch.rand(shape, device=device).to(dtype), torch.randn(shape, device=device).to(dtype)
    hits = target.gt(0.5)
    input, laid_target = (lay_out(x) if who in (of, "both") else x for x, of in ((values, "input"), (target, "target")))
    for options in ({}, {"weight": weight}):
        function = partial(loss.function, reduction="none", **options)
        actual = loss_and_gradients(function, input, laid_target, grad_output=grad_output)
        expected = loss_and_gradients(function, values, target, grad_output=grad_output)
        torch.testing.assert_close(actual, expected)
        mean = partial(loss.function, **options)
        torch.testing.assert_close(mean(input, hits), mean(input, hits.to(dtype)))
        torch.testing.assert_close(mean(input, laid_target), mean(values, target))


@ALL_BINARY_LOSSES
def test_gradient_of_sample_weights_of_large_tensors(loss: Loss, device: str) -> None:
    input, target = loss.make_inputs((2, 19, 61, 67), torch.float64, device)
    weight = torch.rand(2, 1, 1, 1, dtype=torch.float64, device=device, requires_grad=True)
    grads = [
        torch.autograd.grad(loss.function(x, target, weight=weight), weight)
        for x in (input, input.contiguous(memory_format=torch.channels_last))
    ]
    torch.testing.assert_close(*grads)


@ALL_BINARY_LOSSES
@pytest.mark.parametrize("dim", [2, 4])
def test_upstream_gradient_of_any_strides(loss: Loss, dim: int, device: str) -> None:
    input, target = loss.make_inputs(SHAPES[dim], torch.float64, device)
    input.requires_grad_()
    result = loss.function(input, target, reduction="none")
    for grad_output in upstream_gradients(result.detach()):
        (grad,) = torch.autograd.grad(result, input, grad_output, retain_graph=True)
        (exact,) = torch.autograd.grad(loss.oracle(input, target, reduction="none"), input, grad_output)
        torch.testing.assert_close(grad, exact)


@ALL_BINARY_LOSSES
@pytest.mark.parametrize(("shape", "stride"), [((2, 300), (2**31, 1)), ((2, 5), (1, 2**29)), ((3,), (2**30 - 9,))])
def test_elements_further_apart_than_2_31(
    loss: Loss, shape: tuple[int, ...], stride: tuple[int, ...], device: str
) -> None:
    values, target = loss.make_inputs(shape, torch.bfloat16, device)
    input = far_apart(values, stride)
    torch.testing.assert_close(
        loss_and_gradients(loss.function, input, target), loss_and_gradients(loss.function, values, target)
    )


def _mebi(bytes: float) -> float:
    return bytes / 2**20


@pytest.mark.covering(2)
@ALL_BINARY_LOSSES
@pytest.mark.heavy
@pytest.mark.parametrize("target_dtype", [torch.float32, torch.bool, torch.int64])
@pytest.mark.parametrize("shape", [(256, 512), (2, 64, 32, 32)])
def test_nothing_is_made_but_the_gradient(
    loss: Loss, shape: tuple[int, ...], target_dtype: torch.dtype, device: str
) -> None:
    """Neither copies of input and target nor broadcast weights nor losses of elements."""
    input, target = loss.make_inputs(shape, torch.float32, device)
    target = target if target_dtype == torch.float32 else target.gt(0.5).to(target_dtype)
    channels_last = torch.channels_last if len(shape) == 4 else torch.contiguous_format
    weights = [torch.rand(size, device=device) for size in (shape[-1], (*shape[:1], *(1 for _ in shape[1:])))]
    for options in ({}, *({"weight": weight} for weight in weights)):
        x = input.contiguous(memory_format=channels_last).requires_grad_()
        with torch.no_grad():
            forward = peak_extra_bytes(lambda: loss.function(x, target, **options), device)  # noqa: B023
        assert _mebi(forward) < 1 / 16
        result = loss.function(x, target, **options)
        backward = peak_extra_bytes(lambda: torch.autograd.grad(result, x, retain_graph=True), device)  # noqa: B023
        assert _mebi(backward) < _mebi(x.nbytes) + 1 / 16


@pytest.mark.heavy
def test_gradients_of_weights_make_nothing_else(device: str) -> None:
    input, target = SIGMOID_FOCAL.make_inputs((256, 512), torch.float32, device)
    for shape in ((512,), (256, 1), ()):
        weights = [torch.rand(shape, device=device, requires_grad=True) for _ in range(2)]
        result = SIGMOID_FOCAL.function(input, target, weight=weights[0], pos_weight=weights[1])
        run = partial(torch.autograd.grad, result, weights, retain_graph=True)
        assert _mebi(peak_extra_bytes(run, device)) < 1 / 8


@ALL_BINARY_LOSSES
def test_more_dimensions_than_kernels_take(loss: Loss, device: str) -> None:
    input, target = loss.make_inputs((3,) * 9, torch.float32, device)
    input, target = input[(slice(0, 2),) * 9], target[(slice(0, 2),) * 9]
    with pytest.raises(NotImplementedError, match=r"more than 8 dimensions .* make it contiguous"):
        loss.function(input, target)
    torch.testing.assert_close(loss.function(input.contiguous(), target.contiguous()), loss.reference(input, target))


def test_bad_input_is_found_wherever_it_is(runs_cuda_kernels: bool, device: str) -> None:
    """The CPU raises, and names the place in the tensor and not in memory. CUDA makes NaN of it."""
    input, target = BCE.make_inputs((3, 5, 6, 7), torch.float32, device)
    input[2, 1, 0, 4] = input[2, 3, 1, 1] = 1.25
    for name, lay_out in LAYOUTS_BY_DIM[4].items():
        if "expanded" in name or name == "sliding windows":  # where one number has several places
            continue
        laid_out: Tensor = lay_out(input)
        if runs_cuda_kernels:
            losses, grad, _ = loss_and_gradients(partial(BCE.function, reduction="none"), laid_out, target)
            assert torch.equal(losses.isnan(), input > 1) and torch.equal(grad.isnan(), input > 1)
        else:
            with pytest.raises(RuntimeError, match=r"input\[2, 1, 0, 4\] = 1.25"):
                BCE.function(laid_out, target)
