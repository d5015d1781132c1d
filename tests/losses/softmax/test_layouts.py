"""Logits of any strides: read in place, with a gradient in their memory format."""

import mmap

import pytest
import torch
from torch import Tensor

from benchmarks.memory import peak_extra_bytes
from tests.support.cases import Loss
from tests.support.comparison import assert_rounded
from tests.support.layouts import LAYOUTS_BY_DIM, crop
from tests.support.marks import ALL_CLASS_LOSSES

pytestmark = pytest.mark.kernel


def far_apart(x: Tensor, stride: tuple[int, ...]) -> Tensor:
    """A tensor of bfloat16 with these strides, in memory for a bit more than 2^31 elements."""
    size = 2**31 + 2 * max(x.shape)
    if x.is_cuda:
        memory = torch.empty(size, dtype=x.dtype, device=x.device)
    else:  # pages that nobody touches take no memory
        pages = mmap.mmap(-1, size * x.itemsize, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        memory = torch.frombuffer(pages, dtype=x.dtype)
    return memory.as_strided(x.shape, stride).copy_(x)


def upstream_gradients(result: Tensor) -> list[Tensor]:
    """Gradients for a result that are expanded, or have strides of their own."""
    one, full = torch.ones_like(result)[(0,) * result.dim()], torch.randn_like(result)
    expanded = [one.expand(result.shape), full[:1].expand(result.shape), full[..., :1].expand(result.shape)]
    return [*expanded, torch.stack([full, full], -1)[..., 0], full.transpose(0, -1).contiguous().transpose(0, -1)]


LAYOUTS = [(dim, name) for dim, layouts in LAYOUTS_BY_DIM.items() for name in layouts]


@pytest.mark.covering(3)
@ALL_CLASS_LOSSES
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("classes", [5, 77, 300])
@pytest.mark.parametrize(("dim", "name"), LAYOUTS)
def test_layout(loss: Loss, dim: int, name: str, classes: int, reduction: str, dtype: torch.dtype, device: str) -> None:
    shape = (20, classes) if dim == 2 else (3, classes, 5, 6)
    values, target = loss.make_inputs(shape, dtype, device)
    target.view(-1)[3] = -100
    input = LAYOUTS_BY_DIM[dim][name](values)
    exact_input = input.double().contiguous().requires_grad_()
    exact = loss.oracle(exact_input, target, reduction=reduction)
    grad_output = torch.randn(exact.shape, device=device).to(dtype)
    exact.backward(grad_output.double())

    input = input.detach().requires_grad_()
    result = loss.function(input, target, reduction=reduction)
    (grad,) = torch.autograd.grad(result, input, grad_output)

    assert_rounded(result, exact, roundings=2)
    assert_rounded(grad, exact_input.grad, roundings=5)
    assert grad.stride() == torch.empty_like(input).stride()


@ALL_CLASS_LOSSES
@pytest.mark.parametrize(
    ("shape", "stride"),
    [((2, 300), (2**31, 1)), ((2, 5), (2**31, 1)), ((2, 5), (1, 2**29)), ((1, 5, 2), (1, 2**29, 1))],
)
def test_elements_further_apart_than_2_31(
    loss: Loss, shape: tuple[int, ...], stride: tuple[int, ...], device: str
) -> None:
    values, target = loss.make_inputs(shape, torch.bfloat16, device)
    target.fill_(shape[1] - 1)
    input = far_apart(values, stride)
    results = []
    for x in (input.detach(), values):
        x.requires_grad_()
        result = loss.function(x, target)
        results.append((result.detach(), *torch.autograd.grad(result, x)))
    torch.testing.assert_close(*results, rtol=0, atol=0)


@pytest.mark.covering(1)
@ALL_CLASS_LOSSES
@pytest.mark.heavy
@pytest.mark.parametrize(("dim", "name"), [x for x in LAYOUTS if x[1] not in ("crop", "every other")])
def test_logits_are_never_copied(loss: Loss, dim: int, name: str, device: str) -> None:
    shape = (512, 256) if dim == 2 else (2, 64, 32, 32)
    values, target = loss.make_inputs(shape, torch.float32, device)
    input = LAYOUTS_BY_DIM[dim][name](values).detach().requires_grad_()
    rows = target.numel()

    with torch.no_grad():
        assert peak_extra_bytes(lambda: loss.function(input, target), device) <= 16 * rows + 4096
    result = loss.function(input, target)
    backward = peak_extra_bytes(lambda: torch.autograd.grad(result, input, retain_graph=True), device)
    assert backward <= input.numel() * 4 + 16 * rows + 4096


@ALL_CLASS_LOSSES
@pytest.mark.parametrize("shape", [(70, 9), (70, 90), (3, 9, 5, 6)])
def test_upstream_gradient_of_any_strides(loss: Loss, shape: tuple[int, ...], device: str) -> None:
    input, target = loss.make_inputs(shape, torch.float64, device)
    input.requires_grad_()
    result = loss.function(input, target, reduction="none")
    for grad_output in upstream_gradients(result.detach()):
        (grad,) = torch.autograd.grad(result, input, grad_output, retain_graph=True)
        (exact,) = torch.autograd.grad(loss.oracle(input, target, reduction="none"), input, grad_output)
        torch.testing.assert_close(grad, exact)


@ALL_CLASS_LOSSES
def test_more_dimensions_than_kernels_take(loss: Loss, device: str) -> None:
    input = crop(torch.randn((2, 3) + (2,) * 8, device=device))
    target = torch.zeros((2,) + (2,) * 8, dtype=torch.int64, device=device)
    with pytest.raises(NotImplementedError, match=r"more than 8 dimensions .* make it contiguous"):
        loss.function(input, target)
    result = loss.function(input.contiguous(), target)
    torch.testing.assert_close(result, loss.reference(input, target))
