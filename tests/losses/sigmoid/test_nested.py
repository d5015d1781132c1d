"""Losses of jagged nested tensors: those of their values."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

import ce_ext
from tests.support.cases import Loss
from tests.support.comparison import assert_rounded, loss_and_gradients, to_double
from tests.support.marks import ALL_BINARY_LOSSES, ALL_REDUCTIONS

pytestmark = pytest.mark.torch_modes

F = ce_ext.functional
LENGTHS = (3, 0, 5, 2)


def _nested(values: Tensor) -> Tensor:
    offsets = torch.tensor((0, *LENGTHS), device=values.device).cumsum(0)
    return torch.nested.nested_tensor_from_jagged(values, offsets)


def _on_nested(function: Callable[..., Tensor], *tensors: Tensor, **options: Any) -> Tensor:
    """Of tensors that each have offsets of their own, which are the same."""
    loss = function(*map(_nested, tensors), **options)
    return loss.values() if loss.is_nested else loss


@ALL_BINARY_LOSSES
@ALL_REDUCTIONS
@pytest.mark.parametrize("sizes", [(), (4,), (4, 3)], ids=str)
def test_nested(loss: Loss, sizes: tuple[int, ...], reduction: str, device: str) -> None:
    input, target = loss.make_inputs((sum(LENGTHS), *sizes), torch.float32, device)
    target[0] = -1
    options: dict[str, Any] = {"reduction": reduction, "ignore_index": -1}
    if sizes:
        options["weight"] = torch.rand(sizes[-1:], device=device)
    function = partial(loss.function, **options)
    torch.testing.assert_close(
        loss_and_gradients(partial(_on_nested, function), input, target), loss_and_gradients(function, input, target)
    )


@ALL_BINARY_LOSSES
def test_weight_of_every_element(loss: Loss, device: str) -> None:
    tensors = [*loss.make_inputs((sum(LENGTHS), 4), torch.float32, device), torch.rand(sum(LENGTHS), 4, device=device)]

    def function(x: Tensor, t: Tensor, w: Tensor) -> Tensor:
        return loss.function(x, t, weight=w)

    torch.testing.assert_close(
        loss_and_gradients(partial(_on_nested, function), *tensors), loss_and_gradients(function, *tensors)
    )


@ALL_BINARY_LOSSES
def test_result_is_like_the_input(loss: Loss, device: str) -> None:
    values = loss.make_inputs((sum(LENGTHS), 4), torch.float32, device)
    exact = loss.oracle(*to_double(*values), reduction="none")
    input, target = map(_nested, values)
    for function in (loss.function, loss.module(reduction="none")):
        result = function(input, target, **({} if isinstance(function, torch.nn.Module) else {"reduction": "none"}))
        assert_rounded(result.values(), exact, roundings=3)
        assert result.shape == input.shape  # the same ragged dimension
        assert [len(row) for row in result.unbind()] == list(LENGTHS)
        (input + result).sum()


def test_classes(device: str) -> None:
    logits, classes = torch.randn(sum(LENGTHS), 4, device=device), torch.randint(0, 5, (sum(LENGTHS),), device=device)
    for function in (F.sigmoid_focal_loss, F.asymmetric_loss):
        torch.testing.assert_close(
            function(_nested(logits), _nested(classes), reduction="sum"), function(logits, classes, reduction="sum")
        )


@ALL_BINARY_LOSSES
def test_compiled(loss: Loss) -> None:
    torch.compiler.reset()
    input, target = loss.make_inputs((sum(LENGTHS), 4), torch.float32)
    nested = _nested(input)
    labels = torch.nested.nested_tensor_from_jagged(target, nested.offsets())
    compiled = torch.compile(loss.function, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(nested, labels), loss.function(input, target))


def test_refused(device: str) -> None:
    input = _nested(torch.rand(sum(LENGTHS), 4, device=device))
    dense = torch.rand(4, 3, 4, device=device)
    other = torch.nested.nested_tensor_from_jagged(input.values(), torch.tensor([0, 3, 3, 3, 10], device=device))
    holes = torch.nested.nested_tensor_from_jagged(
        input.values(), input.offsets(), torch.tensor([1, 0, 5, 2], device=device)
    )
    strided = torch.nested.nested_tensor(list(torch.rand(3, 4, device=device).split([1, 2])))
    bce = F.binary_cross_entropy_with_logits
    for error, message, call in (
        (ValueError, r"target must be nested as input is, .* shape \[4, 3, 4\]", lambda: bce(input, dense)),
        (ValueError, r"target must have the shape of input, \[4, 3, 4\]", lambda: bce(dense, input)),
        (ValueError, "target must be nested as input is, but its offsets", lambda: bce(input, other)),
        (ValueError, "weight must be nested as input is, but its offsets", lambda: bce(input, input, other)),
        (
            ValueError,
            r"weight .* the last 1 of its dimensions, but got shape \[4, 1, 1\]",
            lambda: bce(input, input, torch.ones(4, 1, 1, device=device)),
        ),
        (NotImplementedError, "target must be nested without holes", lambda: bce(input, holes)),
        (NotImplementedError, "input must be nested in the layout torch.jagged", lambda: bce(strided, strided)),
        (NotImplementedError, "input must be .* dimension 1", lambda: bce(input.transpose(1, 2), input)),
        (
            NotImplementedError,
            r"cross_entropy takes no nested tensors: .* input.values\(\)",
            lambda: F.cross_entropy(input, input),
        ),
        (NotImplementedError, "log_softmax takes no nested tensors", lambda: F.log_softmax(input, 2)),
        (NotImplementedError, "nll_loss takes no nested tensors", lambda: ce_ext.nn.NLLLoss()(input, input)),
    ):
        with pytest.raises(error, match=message):
            call()
