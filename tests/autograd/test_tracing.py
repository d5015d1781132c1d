"""torch.jit.trace, as far as torch's own losses can be traced, and numbers that a compiler knows as symbols."""

import io
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import ce_ext
from tests.support.cases import Loss
from tests.support.marks import ALL_LOSSES, ALL_REDUCTIONS

pytestmark = [
    pytest.mark.torch_modes,
    pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning"),
]

F = ce_ext.functional
torch_cross_entropy = torch.nn.functional.cross_entropy

Function = Callable[[Tensor, Tensor], Tensor]


@pytest.fixture(autouse=True)
def _no_tracer_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # shapes that are compared are constants of a trace
        yield


def _assert_traced(function: Function, reference: Function, input: Tensor, target: Tensor, other: Tensor) -> None:
    """Of another input than the one that it has been traced with, and with the gradient."""
    traced = torch.jit.trace(function, (input.detach().requires_grad_(), target))
    buffer = io.BytesIO()
    torch.jit.save(traced, buffer)
    buffer.seek(0)
    results = []
    for f in (traced, torch.jit.load(buffer), function, reference):
        leaf = other.detach().requires_grad_()
        result = f(leaf, target)
        results.append([result, *torch.autograd.grad(result.sum(), leaf)])
    torch.testing.assert_close(results[0], results[2], rtol=0, atol=0)
    torch.testing.assert_close(results[1], results[2], rtol=0, atol=0)
    torch.testing.assert_close(results[2], results[3])


@ALL_LOSSES
@ALL_REDUCTIONS
def test_trace(loss: Loss, reduction: str) -> None:
    input, target = loss.make_inputs((6, 5), torch.float32)
    other, _ = loss.make_inputs((6, 5), torch.float32, seed=1)
    function, reference = (
        lambda x, y, f=f: f(x, y, reduction=reduction, **loss.extras) for f in (loss.function, loss.reference)
    )
    _assert_traced(function, reference, input, target, other)


# And in torch's words.
TRACED: dict[str, tuple[Function, Function]] = {
    "class probabilities": (
        lambda x, y: F.cross_entropy(x, y.unsqueeze(1) / 10 + x.detach().sigmoid()),
        lambda x, y: torch_cross_entropy(x, y.unsqueeze(1) / 10 + x.detach().sigmoid()),
    ),
    "stats": (lambda x, y: F.cross_entropy(x, y, return_stats=True)[0], torch_cross_entropy),
    "argmax": (
        lambda x, y: F.cross_entropy(x, y, return_stats=True)[1].argmax + x.sum(),
        lambda x, y: x.argmax(1) + x.sum(),
    ),
    "gradient in forward": (
        lambda x, y: F.cross_entropy(x.exp(), y, grad_in_forward=True),
        lambda x, y: torch_cross_entropy(x.exp(), y),
    ),
    "a number as denominator": (
        lambda x, y: F.cross_entropy(x, y, denominator=3.5),
        lambda x, y: torch_cross_entropy(x, y, reduction="sum") / 3.5,
    ),
    "a tensor as denominator": (
        lambda x, y: F.cross_entropy(x, y, denominator=(y > 1).sum(), on_empty="zero"),
        lambda x, y: torch_cross_entropy(x, y, reduction="sum") / (y > 1).sum(),
    ),
    "log_softmax": (lambda x, y: F.log_softmax(x, 1), lambda x, y: x.log_softmax(1)),
    "module": (
        lambda x, y: ce_ext.nn.CrossEntropyLoss(torch.ones(5), label_smoothing=0.1)(x, y),
        lambda x, y: torch_cross_entropy(x, y, label_smoothing=0.1),
    ),
}


@pytest.mark.parametrize("name", TRACED)
def test_trace_with_options(name: str) -> None:
    target = torch.randint(0, 5, (6,))
    _assert_traced(*TRACED[name], torch.randn(6, 5), target, torch.randn(6, 5))


# Numbers that are read from tensors in a compiled function, and those that it takes: symbols, to the compiler.

NUMBERS: dict[str, Callable[[Tensor, Tensor, Any], Tensor]] = {
    "denominator": lambda x, y, n: F.cross_entropy(x, y, denominator=n),
    "denominator, zero": lambda x, y, n: F.cross_entropy(x, y, denominator=n, on_empty="zero"),
    "denominator of nll_loss": lambda x, y, n: F.nll_loss(x, y, denominator=n, on_empty="zero"),
    "denominator of elements": lambda x, y, n: F.sigmoid_focal_loss(x, y, reduction="mean", denominator=n),
    "denominator of class probabilities": lambda x, y, n: F.cross_entropy(x, x.detach().softmax(1), denominator=n),
    "denominator, with gradient": lambda x, y, n: F.cross_entropy(x, y, denominator=n, grad_in_forward=True),
    "loss_scale": lambda x, y, n: F.cross_entropy(x, y, grad_in_forward=True, loss_scale=n),
    "ignore_index": lambda x, y, n: F.cross_entropy(x, y, ignore_index=n),
    "ignore_index of elements": lambda x, y, n: F.sigmoid_focal_loss(x, y, ignore_index=n),
}


def _assert_compiled(function: Callable[..., Tensor], *arguments: Any, **options: Any) -> None:
    torch._dynamo.reset()
    compiled = torch.compile(function, backend="aot_eager", fullgraph=True, **options)
    torch.testing.assert_close(compiled(*arguments), function(*arguments))


@pytest.mark.parametrize("name", [name for name in NUMBERS if "denominator" in name])
def test_numbers_have_the_accuracy_of_the_loss(name: str) -> None:
    input, target = torch.randn(6, 5, dtype=torch.float64), torch.tensor([0, 4, 2, 2, 3, 1])
    torch._dynamo.reset()
    compiled = torch.compile(NUMBERS[name], backend="aot_eager", fullgraph=True, dynamic=True)
    losses = compiled(input, target, 0.1), NUMBERS[name](input, target, 0.1)
    torch.testing.assert_close(*losses, rtol=1e-14, atol=0)


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_from_tensors(name: str) -> None:
    """Of which nothing is known but that they are numbers."""
    input, target = torch.randn(6, 5, requires_grad=True), torch.tensor([0, 4, 2, 2, 3, 1])

    def loss(x: Tensor, y: Tensor, count: Tensor) -> Tensor:
        return NUMBERS[name](x, y, count.item())

    with torch._dynamo.config.patch(capture_scalar_outputs=True):
        _assert_compiled(loss, input, target, torch.tensor(2))
        if "ignore_index" not in name:
            _assert_compiled(loss, input, target, torch.tensor(2.5))


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_as_arguments(name: str) -> None:
    input, target = torch.randn(6, 5, requires_grad=True), torch.tensor([0, 4, 2, 2, 3, 1])
    compiled = torch.compile(NUMBERS[name], backend="aot_eager", fullgraph=True, dynamic=True)
    for number in (2, 3):
        torch.testing.assert_close(compiled(input, target, number), NUMBERS[name](input, target, number))


def test_other_options_as_arguments() -> None:
    """Those that are floats to the ops: a compiler makes them constants."""

    def loss(x: Tensor, y: Tensor, a: float, b: float) -> Tensor:
        return F.softmax_focal_loss(x, y, gamma=a, label_smoothing=b, z_loss=a, logit_scale=b, softcap=a)

    input, target = torch.randn(6, 5, requires_grad=True), torch.randint(0, 5, (6,))
    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True, dynamic=True)
    for a, b in ((1.5, 0.25), (2.5, 0.125)):
        torch.testing.assert_close(compiled(input, target, a, b), loss(input, target, a, b))


def test_denominator_of_nothing() -> None:
    def loss(x: Tensor, y: Tensor, count: Tensor) -> Tensor:
        return F.cross_entropy(x, y, denominator=count.item(), on_empty="zero")

    input, target = torch.randn(6, 5, requires_grad=True), torch.full((6,), -100)
    with torch._dynamo.config.patch(capture_scalar_outputs=True):
        result = torch.compile(loss, backend="aot_eager", fullgraph=True)(input, target, torch.tensor(0))
    (grad,) = torch.autograd.grad(result, input)
    assert result == 0
    assert not grad.any()
