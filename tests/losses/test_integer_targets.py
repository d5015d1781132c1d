"""Targets of every integer dtype: they mean what their numbers say, in every pass, and are read within their memory."""

import ctypes
import mmap
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

import ce_ext
from tests.support.cases import Loss
from tests.support.comparison import assert_rounded
from tests.support.marks import ALL_BINARY_LOSSES, ALL_CLASS_LOSSES, CURVED_LOSSES

kernel = pytest.mark.kernel

SIGNED = (torch.int8, torch.int16, torch.int32, torch.int64)
UNSIGNED = (torch.uint8, torch.uint16, torch.uint32, torch.uint64)
INTEGERS = (*SIGNED, *UNSIGNED)
ALL_INTEGERS = pytest.mark.parametrize("dtype", INTEGERS)

sigmoid_focal_loss = ce_ext.functional.sigmoid_focal_loss


def _derivatives(function: Callable[..., Tensor], input: Tensor, target: Tensor, **options: Any) -> list[Tensor]:
    """The loss, its gradient, a Hessian-vector product by reverse and by forward mode, and a tangent."""
    x = input.detach().requires_grad_()
    loss = function(x, target, **options)
    (grad,) = torch.autograd.grad(loss.sum(), x, create_graph=True)
    direction = torch.linspace(-1, 1, x.numel(), dtype=x.dtype, device=x.device).reshape(x.shape)
    (second,) = torch.autograd.grad(grad, x, direction, allow_unused=True, materialize_grads=True)
    gradient = torch.func.grad(lambda y: function(y, target, **options).sum())
    _, tangent = torch.func.jvp(lambda y: function(y, target, **options), (input,), (direction,))
    _, mixed = torch.func.jvp(gradient, (input,), (direction,))
    return [loss.detach(), grad.detach(), second, mixed, tangent]


@kernel
@ALL_CLASS_LOSSES
@ALL_INTEGERS
def test_class_indices(loss: Loss, dtype: torch.dtype, device: str) -> None:
    input, target = loss.make_inputs((6, 5), torch.float64, device)
    expected = _derivatives(loss.function, input, target, ignore_index=3, **loss.extras)
    actual = _derivatives(loss.function, input, target.to(dtype), ignore_index=3, **loss.extras)
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)


@kernel
@ALL_CLASS_LOSSES
@ALL_INTEGERS
def test_class_indices_in_another_order(loss: Loss, dtype: torch.dtype, device: str) -> None:
    input, target = loss.make_inputs((2, 5, 3, 4), torch.float64, device)
    transposed = target.to(dtype).transpose(1, 2).contiguous().transpose(1, 2)
    losses = loss.function(input, transposed, reduction="none")
    assert_rounded(losses, loss.oracle(input, target, reduction="none"), roundings=3)


@kernel
@ALL_INTEGERS
def test_classes_of_the_sigmoid_focal_loss(dtype: torch.dtype, device: str) -> None:
    input, target = torch.randn(7, 3, dtype=torch.float64, device=device), torch.tensor([0, 1, 2, 3, 1, 0, 2])
    target = target.to(device)
    labels = torch.nn.functional.one_hot(target, 4)[:, :3].double()
    valid = (target != 1).unsqueeze(1)

    def exact(x: Tensor, _: Tensor) -> Tensor:
        return sigmoid_focal_loss(x, labels, gamma=1.5).where(valid, 0)

    actual = _derivatives(sigmoid_focal_loss, input, target.to(dtype), gamma=1.5, ignore_index=1)
    torch.testing.assert_close(actual, _derivatives(exact, input, target))


@kernel
@ALL_BINARY_LOSSES
@ALL_INTEGERS
def test_labels_of_elements(loss: Loss, dtype: torch.dtype, device: str) -> None:
    input, _ = loss.make_inputs((6, 5), torch.float64, device)
    target = torch.randint(0, 2, (6, 5), device=device)
    expected = _derivatives(loss.function, input, target.double(), **loss.extras)
    torch.testing.assert_close(_derivatives(loss.function, input, target.to(dtype), **loss.extras), expected)


def _largest(dtype: torch.dtype) -> int:
    return torch.iinfo(dtype).max


@ALL_CLASS_LOSSES
@ALL_INTEGERS
def test_bad_class_indices(loss: Loss, dtype: torch.dtype) -> None:
    """In each pass; the numbers are shown as they are."""
    input, _ = loss.make_inputs((4, 5), torch.float32)
    input.requires_grad_()
    good = torch.tensor([0, 0, 1, 2], dtype=dtype)
    for value in [5, _largest(dtype)] + ([-1] if dtype in SIGNED else []):
        bad = torch.tensor([0, value, 1, 2], dtype=dtype)
        target = good.clone()
        result = loss.function(input, target)
        target.data.copy_(bad)  # which autograd does not see
        message = rf"target\[1\] = {value} is out of bounds: input has 5 classes"
        with pytest.raises(IndexError, match=message):
            loss.function(input, bad)
        with pytest.raises(IndexError, match=message):
            torch.autograd.grad(result, input)
        with pytest.raises(IndexError, match=message):
            torch.func.jvp(partial(loss.function, target=bad), (input,), (input,))


@pytest.mark.parametrize("value", [2**64 - 100, 2**64 - 1, 2**63, 2**63 - 1])
@pytest.mark.parametrize("ignore_index", [-100, -1, 2**63 - 1, 2**63 - 2, (1, 2**63 - 1), (-100, -1), (-1, 1, 2)])
def test_numbers_beyond_int64_are_no_negative_ones(value: int, ignore_index: Any) -> None:
    input = torch.randn(3, 5)
    target = torch.tensor([0, value, 2], dtype=torch.uint64)
    for function in (ce_ext.functional.cross_entropy, ce_ext.functional.nll_loss, sigmoid_focal_loss):
        loss = partial(function, input, reduction="sum")
        if value == ignore_index or (isinstance(ignore_index, tuple) and value in ignore_index):
            ignored = loss(torch.tensor([0, -100, 2]), ignore_index=-100)
            assert torch.equal(loss(target, ignore_index=ignore_index), ignored)
        else:
            with pytest.raises(IndexError, match=rf"target\[1\] = {value} is out of bounds"):
                loss(target, ignore_index=ignore_index)


@pytest.mark.parametrize("ignore_index", [None, -100])
def test_labels_beyond_int64_are_numbers(ignore_index: int | None) -> None:
    input, target = torch.randn(3, dtype=torch.float64), torch.tensor([0, 2**64 - 100, 1], dtype=torch.uint64)
    loss = ce_ext.functional.binary_cross_entropy_with_logits(
        input, target, reduction="none", ignore_index=ignore_index
    )
    numbers = torch.tensor([0.0, 2.0**64 - 100, 1.0], dtype=torch.float64)
    exact = torch.nn.functional.binary_cross_entropy_with_logits(input, numbers, reduction="none")
    assert_rounded(loss, exact)


@pytest.mark.parametrize(
    ("name", "input", "target", "options", "error", "message"),
    [
        # As int8, 1000 classes are -24; as uint8, -1 is 255; and as float16, 2049 is 2048.
        ("sigmoid_focal_loss", torch.zeros(2, 1000), torch.tensor([5, -1]).char(), {}, IndexError, r"target\[1\] = -1"),
        (
            "sigmoid_focal_loss", torch.zeros(2, 3), torch.tensor([0, 255]).byte(), {"ignore_index": -1},
            IndexError, r"target\[1\] = 255 is out of bounds: input has 3 classes",
        ),
        (
            "binary_cross_entropy", torch.zeros(2), torch.tensor([0, 255]).byte(), {"ignore_index": -1},
            RuntimeError, r"target must hold probabilities, .* target\[1\] = 255",
        ),
        (
            "binary_cross_entropy", torch.tensor([2.0, 0.5]), torch.tensor([1, 0]).char(), {"ignore_index": 257},
            RuntimeError, r"input must hold probabilities, .* input\[0\] = 2",
        ),
        (
            "binary_cross_entropy", torch.zeros(2).half(), torch.tensor([2048, 0]).half(), {"ignore_index": 2049},
            RuntimeError, r"target must hold probabilities, .* target\[0\] = 2048",
        ),
    ],
    ids=range(5),
)  # fmt: skip
def test_what_is_blamed(
    name: str, input: Tensor, target: Tensor, options: dict[str, int], error: type[Exception], message: str
) -> None:
    """Not the numbers that something wraps around to in the dtype of the target."""
    with pytest.raises(error, match=message):
        getattr(ce_ext.functional, name)(input, target, **options)


class _BeforeTheEnd:
    """Memory that ends where it may not be read on."""

    def __init__(self) -> None:
        self._pages = mmap.mmap(-1, 2 * mmap.PAGESIZE)
        guard = torch.frombuffer(self._pages, dtype=torch.uint8)[mmap.PAGESIZE :]
        assert _mprotect(guard.data_ptr(), mmap.PAGESIZE, 0) == 0

    def put(self, tensor: Tensor) -> Tensor:
        count = tensor.numel() * tensor.element_size()
        place = mmap.PAGESIZE - count
        copy = torch.frombuffer(self._pages, dtype=torch.uint8, count=count, offset=place).view(tensor.dtype)
        return copy.view(tensor.shape).copy_(tensor)


def _mprotect(address: int, size: int, protection: int) -> int:
    return ctypes.CDLL(None, use_errno=True).mprotect(ctypes.c_void_p(address), ctypes.c_size_t(size), protection)


@CURVED_LOSSES
@ALL_INTEGERS
def test_memory_is_not_read_beyond_the_target(loss: Loss, dtype: torch.dtype) -> None:
    """A read too far ends the process."""
    input, target = loss.make_inputs((4, 3), torch.float32)
    if loss.is_binary:
        target = torch.randint(0, 2, (4, 3))
    memory = _BeforeTheEnd()
    at_the_end = memory.put(target.to(dtype))
    torch.testing.assert_close(loss.function(input, at_the_end), loss.function(input, target))
    if loss.name == "sigmoid_focal_loss":
        classes = torch.tensor([0, 1, 2, 3])
        expected = sigmoid_focal_loss(input, classes)
        torch.testing.assert_close(sigmoid_focal_loss(input, _BeforeTheEnd().put(classes.to(dtype))), expected)
