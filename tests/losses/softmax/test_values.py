"""Losses and gradients against float64, over the whole table."""

from typing import Any

import pytest
import torch

from tests.support.cases import DTYPES, Case, Loss, cases
from tests.support.comparison import assert_rounded
from tests.support.marks import ALL_VARIANTS

pytestmark = pytest.mark.kernel

ALL_CASES = pytest.mark.parametrize("case", list(cases()), ids=str)
ALL_DTYPES = pytest.mark.parametrize("dtype", DTYPES)


@pytest.mark.covering(1)
@ALL_CASES
def test_oracle_agrees_with_torch(case: Case) -> None:
    input, target, options = case.make(torch.float64, "cpu")
    torch.testing.assert_close(
        case.loss.oracle(input, target, **options),
        case.loss.reference(input, target, **options),
        equal_nan=True,
    )


@pytest.mark.covering(3)
@ALL_DTYPES
@ALL_CASES
def test_loss_and_gradient(case: Case, dtype: torch.dtype, device: str) -> None:
    input, target, options = case.make(dtype, device)
    exact_input = input.double().requires_grad_()
    exact_options = {k: v.double() if isinstance(v, torch.Tensor) else v for k, v in options.items()}
    exact = case.loss.oracle(exact_input, target, **exact_options)
    grad_output = torch.randn(exact.shape, dtype=torch.float64, device=device).to(dtype)
    exact.backward(grad_output.double())

    input.requires_grad_()
    loss = case.loss.function(input, target, **options)
    assert loss.dtype == dtype and loss.shape == exact.shape
    loss.backward(grad_output)

    assert_rounded(loss, exact, roundings=2)
    # A gradient with smoothing is a difference of terms as large as the upstream gradient and the weight.
    scale = exact_input.grad.abs().max().item() if options.get("label_smoothing") else 0.0
    assert_rounded(input.grad, exact_input.grad, roundings=5, scale=scale)


@pytest.mark.covering(2)
@ALL_VARIANTS
@pytest.mark.heavy
@pytest.mark.not_emulated
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("shape", [(6,), (4, 5), (2, 3, 4), (1, 70)])
def test_gradcheck(
    loss: Loss, extras: dict[str, Any], shape: tuple[int, ...], reduction: str, weighted: bool, device: str
) -> None:
    options = {"reduction": reduction, "weight": weighted, **extras}
    input, target, options = Case(loss, shape, options).make(torch.float64, device)
    options["weight"] = options["weight"] if weighted else None
    input.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: loss.function(x, target, **options), input)
    assert torch.autograd.gradgradcheck(lambda x: loss.function(x, target, **options), input)
