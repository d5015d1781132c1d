"""Classes in any dimension, and several of them ignored."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from ce_ext.functional import cross_entropy, nll_loss, sigmoid_focal_loss, softmax_focal_loss
from tests.support.marks import ALL_REDUCTIONS

LOSSES: list[Callable[..., Any]] = [cross_entropy, nll_loss, softmax_focal_loss]
ALL = pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.__name__)

# Of logits, and where their classes are.
PLACES = [((5,), 0), ((5,), -1), ((5, 7), 0), ((7, 5), -1), ((2, 3, 5), -1), ((2, 3, 5), 2), ((5, 2, 3, 4), 0)]
PLACES += [((2, 3, 5, 4), 2), ((2, 3, 4, 5), -1), ((2, 5, 3), -2)]
ALL_PLACES = pytest.mark.parametrize(("shape", "dim"), PLACES, ids=str)


def _make(shape: tuple[int, ...], dim: int, device: str) -> tuple[Tensor, Tensor]:
    input = torch.randn(shape, device=device).log_softmax(dim).requires_grad_()
    target = torch.randint(0, 5, input.select(dim, 0).shape, device=device)
    if target.numel() > 1:
        target.view(-1)[1] = -100
    return input, target


@ALL
@ALL_PLACES
@ALL_REDUCTIONS
def test_values_and_gradient(
    reduction: str, shape: tuple[int, ...], dim: int, loss: Callable[..., Tensor], device: str
) -> None:
    """Those of the logits that are moved; the gradient is that of the logits as they are."""
    input, target = _make(shape, dim, device)
    moved = input.detach().movedim(dim, min(1, input.dim() - 1)).contiguous().requires_grad_()
    options = {"reduction": reduction, "weight": torch.rand(5, device=device)}
    options["sample_weight"] = torch.rand(target.shape, device=device)
    actual, expected = loss(input, target, dim=dim, **options), loss(moved, target, **options)
    assert actual.shape == (target.shape if reduction == "none" else ())
    torch.testing.assert_close(actual, expected)
    grads = [torch.autograd.grad(x.sum(), y)[0] for x, y in ((actual, input), (expected, moved))]
    torch.testing.assert_close(grads[0].movedim(dim, min(1, input.dim() - 1)), grads[1])


@ALL_PLACES
def test_class_probabilities_and_statistics(shape: tuple[int, ...], dim: int, device: str) -> None:
    input, target = _make(shape, dim, device)
    probabilities = torch.rand(shape, device=device).softmax(dim).requires_grad_()
    for of, reference in ((target, target), (probabilities, probabilities)):
        place = min(1, input.dim() - 1)
        if of is probabilities:
            reference = probabilities.movedim(dim, place)
        actual, stats = cross_entropy(input, of, dim=dim, return_stats=True)
        expected, expected_stats = cross_entropy(input.movedim(dim, place), reference, return_stats=True)
        torch.testing.assert_close(actual, expected)
        torch.testing.assert_close(stats, expected_stats)
        assert torch.equal(stats.argmax, input.argmax(dim))
    (grad,) = torch.autograd.grad(cross_entropy(input, probabilities, dim=dim), probabilities)
    torch.testing.assert_close(grad, -input.detach() / target.numel(), rtol=1e-5, atol=1e-6)  # of log-probabilities


@ALL_PLACES
def test_in_place(shape: tuple[int, ...], dim: int, device: str) -> None:
    """The gradient takes the memory of the logits, which know of it whatever the view was."""
    input, target = _make(shape, dim, device)
    (expected,) = torch.autograd.grad(cross_entropy(input, target, dim=dim), input)
    for logits in (input * 1, torch.stack([input, input])[1]):
        pointer, pointers = logits.data_ptr(), []
        logits.register_hook(lambda grad, pointers=pointers: pointers.append(grad.data_ptr()))
        loss = cross_entropy(logits, target, dim=dim, inplace=True)
        with pytest.raises(RuntimeError, match="these logits hold their gradient"):
            logits.sum()
        (grad,) = torch.autograd.grad(loss, input)
        assert pointers == [pointer]
        torch.testing.assert_close(grad, expected)


@ALL
def test_memory_format(loss: Callable[..., Tensor], device: str) -> None:
    """The gradient has the strides of the logits."""
    for make in (
        lambda: torch.randn(2, 3, 4, 5, device=device),
        lambda: torch.randn(2, 5, 3, 4, device=device).contiguous(memory_format=torch.channels_last).movedim(1, 3),
        lambda: torch.randn(4, 5, 2, 3, device=device).permute(2, 3, 0, 1),
    ):
        input = make().requires_grad_()
        target = torch.randint(0, 5, (2, 3, 4), device=device)
        (grad,) = torch.autograd.grad(loss(input, target, dim=3), input)
        assert grad.stride() == input.stride()


@pytest.mark.torch_modes
@ALL
def test_transforms(loss: Callable[..., Tensor], device: str) -> None:
    torch.compiler.reset()
    input, target = _make((2, 3, 5), -1, device)
    inputs, options = torch.stack([input, input / 2]).detach(), {"dim": -1, "ignore_index": (2, -100, 0)}
    expected = torch.stack([loss(x, target, **options) for x in inputs])
    torch.testing.assert_close(torch.vmap(lambda x: loss(x, target, **options))(inputs), expected)
    targets = torch.stack([target, target.clamp(min=0)])
    expected = torch.stack([loss(x, y, **options) for x, y in zip(inputs, targets, strict=True)])
    torch.testing.assert_close(torch.vmap(lambda x, y: loss(x, y, **options))(inputs, targets), expected)
    compiled = torch.compile(lambda x, y: loss(x, y, **options), backend="aot_eager", fullgraph=True)
    for y in (target, target.int()):
        torch.testing.assert_close(compiled(input, y), loss(input, y, **options))
        grads = [torch.autograd.grad(f(input, y), input) for f in (compiled, partial(loss, **options))]
        torch.testing.assert_close(*grads)


@ALL
def test_dimensions_that_are_none(loss: Callable[..., Tensor]) -> None:
    input, target = torch.randn(3, 5), torch.tensor([0, 1, 2])
    for dim in (2, -3):
        with pytest.raises(IndexError, match=rf"dim must be in \[-2, 1\] for input of shape \(3, 5\), but got {dim}"):
            loss(input, target, dim=dim)
    with pytest.raises(IndexError, match="dim must be in"):
        loss(torch.randn(5), torch.tensor(1), dim=1)
    message = (
        r"target must have shape \[5\] for input of shape \[3, 5\] with its classes in dimension 0, .* shape \[3\]"
    )
    with pytest.raises(ValueError, match=message):
        loss(input, target, dim=0)


INTEGERS = [torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64]
INTEGERS += [torch.uint16, torch.uint32, torch.uint64]


@ALL
@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("ignored", [(3,), (3, 1), [1, 3, 100], (100, 1, 3)], ids=str)
def test_several_ignored(ignored: Any, dtype: torch.dtype, loss: Callable[..., Tensor], device: str) -> None:
    """Whether they are classes or not. Targets remain as they are."""
    input = torch.randn(6, 5, device=device).log_softmax(1).requires_grad_()
    values = [0, 1, 3, 4, 100, 2] if 100 in ignored else [0, 1, 3, 4, 0, 2]
    target = torch.tensor(values, device=device).to(dtype)
    kept = torch.tensor([value not in ignored for value in values], device=device)
    for options in ({}, {"reduction": "none"}, {"weight": torch.rand(5, device=device)}):
        actual = loss(input, target, ignore_index=ignored, **options)
        expected = loss(input, target.long().where(kept, -100), **options)
        torch.testing.assert_close(actual, expected)
        grads = [torch.autograd.grad(x.sum(), input)[0] for x in (actual, expected)]
        torch.testing.assert_close(*grads)
    assert target.tolist() == values


def test_ignored_classes_have_no_meaning_for_probabilities() -> None:
    input, target = torch.randn(3, 5), torch.rand(3, 5)
    for ignored in (0, (1, 2), (-100, 1)):
        with pytest.raises(RuntimeError, match="ignore_index has no meaning for class probabilities"):
            cross_entropy(input, target, ignore_index=ignored)
    assert torch.equal(cross_entropy(input, target, ignore_index=(-100, -1)), cross_entropy(input, target))


def test_several_ignored_by_the_focal_loss_of_elements(device: str) -> None:
    """As classes; of elements there is one at most."""
    input = torch.randn(6, 5, device=device, requires_grad=True)
    target = torch.tensor([0, 1, 5, 4, 255, 2], device=device)
    for dtype in INTEGERS[1:]:
        actual = sigmoid_focal_loss(input, target.to(dtype), ignore_index=(255, 1), reduction="none")
        expected = sigmoid_focal_loss(input, torch.tensor([0, 255, 5, 4, 255, 2], device=device), ignore_index=255)
        torch.testing.assert_close(actual, expected)
    mean = sigmoid_focal_loss(input, target, ignore_index=[255, 1], reduction="mean")
    torch.testing.assert_close(mean, expected.sum() / 20)
    with pytest.raises(TypeError, match=r"ignore_index must be an int, but got \(0, 1\) of type tuple"):
        sigmoid_focal_loss(input, torch.rand(6, 5, device=device), ignore_index=(0, 1))


@ALL
def test_none_ignored(loss: Callable[..., Tensor]) -> None:
    with pytest.raises(ValueError, match="ignore_index must be an int or some of them, but got none"):
        loss(torch.randn(3, 5), torch.tensor([0, 1, 2]), ignore_index=())
    with pytest.raises(ValueError, match=f"ignore_index must fit into 64 bits, but got {2**63}"):
        loss(torch.randn(3, 5), torch.tensor([0, 1, 2]), ignore_index=(1, 2**63))
    with pytest.raises(ValueError, match=f"ignore_index must fit into 64 bits, but got -{2**63 + 1}"):
        loss(torch.randn(3, 5), torch.tensor([0, 1, 2]), ignore_index=(1, -(2**63) - 1))


@ALL
def test_the_smallest_integer_may_be_ignored(loss: Callable[..., Tensor]) -> None:
    input = torch.randn(3, 5).log_softmax(1)
    losses = loss(input, torch.tensor([0, -(2**63), 2]), ignore_index=(2, -(2**63)), reduction="none")
    assert torch.equal(losses != 0, torch.tensor([True, False, False]))


@ALL
def test_class_0_is_ignored_where_targets_have_no_sign(loss: Callable[..., Tensor]) -> None:
    input = torch.randn(3, 5).log_softmax(1)
    losses = loss(input, torch.tensor([0, 1, 2], dtype=torch.uint64), ignore_index=(-1, 0), reduction="none")
    assert torch.equal(losses != 0, torch.tensor([False, True, True]))


@ALL
@pytest.mark.parametrize("dtype", INTEGERS)
def test_ignored_classes_that_targets_cannot_hold(loss: Callable[..., Tensor], dtype: torch.dtype) -> None:
    input = torch.randn(3, 5).log_softmax(1)
    losses = loss(input, torch.tensor([0, 1, 2]).to(dtype), ignore_index=(2**40, 1), reduction="none")
    assert torch.equal(losses != 0, torch.tensor([True, False, True]))
