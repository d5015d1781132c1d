"""Few and long rows, which threads share piece by piece, and the promise that no number of threads changes a bit."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ce_ext.functional import cross_entropy, log_softmax, softmax_focal_loss
from tests.support import oracles
from tests.support.cases import CROSS_ENTROPY, Loss
from tests.support.marks import SOFTMAX_LOSSES

pytestmark = pytest.mark.kernel

# Of two pieces, and of three.
CLASSES = (40_000, 70_001)
ROWS = 3


def _logits(classes: int, device: str) -> Tensor:
    input = torch.randn(ROWS, classes, generator=torch.Generator().manual_seed(classes)).mul_(3)
    input[0, -1] = 30  # the largest, in the last piece
    input[1, :32_768] = -float("inf")  # of a piece that is all masked nothing remains
    return input.to(device)


def _check(function: Callable[[Tensor], Tensor], oracle: Callable[[Tensor], Tensor], input: Tensor) -> None:
    input = input.requires_grad_()
    exact_input = input.detach().double().requires_grad_()
    result, exact = function(input), oracle(exact_input)
    torch.testing.assert_close(result.double(), exact, rtol=2e-6, atol=1e-6)
    grad_output = torch.linspace(1, 2, result.numel(), device=input.device).reshape(result.shape)
    (grad,) = torch.autograd.grad(result, input, grad_output)
    (exact_grad,) = torch.autograd.grad(exact, exact_input, grad_output.double())
    torch.testing.assert_close(grad.double(), exact_grad, rtol=1e-5, atol=1e-7 * exact_grad.abs().max().item())


@SOFTMAX_LOSSES
@pytest.mark.parametrize("classes", CLASSES)
def test_losses(loss: Loss, classes: int, device: str) -> None:
    target = torch.tensor([classes - 1, classes - 1, -100], device=device)
    weight = torch.rand(classes, device=device)
    input = _logits(classes, device)
    _check(
        lambda x: loss.function(x, target, weight, reduction="none"),
        lambda x: loss.oracle(x, target, weight.double(), reduction="none"),
        input,
    )
    unmasked = input.detach().clamp(min=-20)  # where classes are smoothed, masks make the loss infinite
    _check(
        lambda x: loss.function(x, target, weight, label_smoothing=0.1, reduction="none"),
        lambda x: loss.oracle(x, target, weight.double(), label_smoothing=0.1, reduction="none"),
        unmasked,
    )


def test_focal_in_place(device: str) -> None:
    """The factor of the focal loss takes the target's logit, which a gradient overwrites."""
    target = torch.tensor([70_000, 20_000, 0], device=device)
    input = _logits(70_001, device).clamp(min=-20)
    input[0, -1] = 15.6  # about half of the probability
    exact_input = input.double().requires_grad_()
    options = {"gamma": 2.0, "reduction": "sum"}
    exact = oracles.softmax_focal_loss(exact_input, target, **options)
    (exact_grad,) = torch.autograd.grad(exact, exact_input)
    input.requires_grad_()
    loss = softmax_focal_loss(input * 1, target, inplace=True, loss_scale=1.0, **options)
    torch.testing.assert_close(loss.double(), exact, rtol=2e-6, atol=1e-6)
    (grad,) = torch.autograd.grad(loss, input)
    torch.testing.assert_close(grad.double(), exact_grad, rtol=1e-5, atol=1e-7 * exact_grad.abs().max().item())


@pytest.mark.parametrize("classes", CLASSES)
def test_class_probabilities(classes: int, device: str) -> None:
    input = _logits(classes, device).clamp(min=-20)
    probabilities = _logits(classes, device).roll(1, 1).softmax(1)
    weight = torch.rand(classes, device=device)
    _check(
        lambda x: cross_entropy(x, probabilities, weight, reduction="none"),
        lambda x: oracles.soft_cross_entropy(x, probabilities.double(), weight.double(), reduction="none"),
        input,
    )


@pytest.mark.parametrize("classes", CLASSES)
def test_log_softmax(classes: int, device: str) -> None:
    input = _logits(classes, device).clamp(min=-20)
    _check(lambda x: log_softmax(x, 1), lambda x: torch.log_softmax(x, 1), input)


@pytest.mark.parametrize("classes", CLASSES)
def test_stats(classes: int, device: str) -> None:
    input = _logits(classes, device)
    input[2, 7] = input[2, 32_768] = 40  # of equal classes the first
    target = torch.zeros(ROWS, dtype=torch.int64, device=device)
    stats = cross_entropy(input, target, reduction="none", return_stats=True)[1]
    assert stats.argmax.tolist() == [classes - 1, input[1].argmax().item(), 7]
    torch.testing.assert_close(stats.lse.double(), input.double().logsumexp(1), rtol=1e-6, atol=0)


@pytest.mark.heavy
@pytest.mark.not_emulated
@pytest.mark.parametrize("shape", [(1, 100_000), (3, 70_001), (40, 3000), (5000, 10), (300, 100), (2, 19, 70, 70)])
def test_bits_are_the_same_for_any_number_of_threads(shape: tuple[int, ...], device: str) -> None:
    input, target = CROSS_ENTROPY.make_inputs(shape, torch.float32, device)
    probabilities = input.softmax(1)

    def results() -> list[Tensor]:
        x = input.detach().requires_grad_()
        losses = [cross_entropy(x, target), cross_entropy(x, target, grad_in_forward=True)]
        losses.append(cross_entropy(x, probabilities, label_smoothing=0.1))
        grads = [torch.autograd.grad(loss, x)[0] for loss in losses]
        output = log_softmax(x, 1)
        return [*losses, *grads, output, *torch.autograd.grad(output, x, probabilities)]

    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        expected = results()
        for count in (2, 3, 7):
            torch.set_num_threads(count)
            assert all(map(torch.equal, results(), expected)), f"{count} threads"
    finally:
        torch.set_num_threads(threads)
