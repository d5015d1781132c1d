"""More rows than blocks take at a time, so that each comes back for more of them."""

import pytest
import torch
from torch import Tensor

from ce_ext.functional import cross_entropy, log_softmax

pytestmark = [pytest.mark.kernel, pytest.mark.heavy]

# Short rows in tiles, more of them for a block than it has stages, rows that several threads share, and rows whose
# classes lie apart.
INPUTS = {
    "tiles": lambda: torch.randn(420_000, 2),
    "teams": lambda: torch.randn(40_000, 33),
    "strided": lambda: torch.randn(3, 270_000).t(),
}
ALL_INPUTS = pytest.mark.parametrize("layout", INPUTS)


def _target(input: Tensor) -> Tensor:
    target = torch.arange(len(input), device=input.device) % input.shape[1]
    target[::7] = -100
    return target


@ALL_INPUTS
@pytest.mark.parametrize("grad_in_forward", [False, True])
def test_cross_entropy(layout: str, grad_in_forward: bool, device: str) -> None:
    input = INPUTS[layout]().to(device).requires_grad_()
    exact_input = input.detach().double().requires_grad_()
    target = _target(input)
    loss = cross_entropy(input, target, grad_in_forward=grad_in_forward)
    exact = torch.nn.functional.cross_entropy(exact_input, target)
    loss.backward()
    exact.backward()
    torch.testing.assert_close(loss.double(), exact, rtol=1e-6, atol=0)
    torch.testing.assert_close(input.grad.double() * len(input), exact_input.grad * len(input), rtol=1e-5, atol=1e-6)


@ALL_INPUTS
def test_log_softmax(layout: str, device: str) -> None:
    input = INPUTS[layout]().to(device)
    torch.testing.assert_close(log_softmax(input, 1).double(), input.double().log_softmax(1), rtol=1e-6, atol=1e-6)
