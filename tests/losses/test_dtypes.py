"""The dtype of a loss of several floating tensors: one rule for both families, torch's for class probabilities."""

import pytest
import torch
from torch import Tensor

import ce_ext
from tests.support import oracles
from tests.support.cases import DTYPES
from tests.support.comparison import assert_rounded

kernel = pytest.mark.kernel
F = ce_ext.functional


def _check_gradients(loss: Tensor, exact: Tensor, tensors: list[Tensor], doubles: list[Tensor]) -> None:
    grads = torch.autograd.grad(loss, tensors)
    for grad, tensor, expected in zip(grads, tensors, torch.autograd.grad(exact, doubles), strict=True):
        assert grad.dtype == tensor.dtype
        assert_rounded(grad, expected, roundings=3, scale=expected.abs().max().item())


@kernel
@pytest.mark.covering(2)
@pytest.mark.parametrize("weight_dtype", [None, *DTYPES])
@pytest.mark.parametrize("target_dtype", DTYPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_class_probabilities(
    dtype: torch.dtype, target_dtype: torch.dtype, weight_dtype: torch.dtype | None, device: str
) -> None:
    input = torch.randn(6, 5, device=device).to(dtype).requires_grad_()
    target = torch.rand(6, 5, device=device).to(target_dtype).requires_grad_()
    weight = None if weight_dtype is None else torch.rand(5, device=device).to(weight_dtype)
    loss = F.cross_entropy(input, target, weight)
    assert loss.dtype == torch.nn.functional.cross_entropy(input, target, weight).dtype
    doubles = [x.detach().double().requires_grad_() for x in (input, target)]
    exact = oracles.soft_cross_entropy(*doubles, None if weight is None else weight.double())
    assert_rounded(loss, exact, roundings=3)
    _check_gradients(loss, exact, [input, target], doubles)


@kernel
@pytest.mark.parametrize("target_dtype", DTYPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_targets_of_elements(dtype: torch.dtype, target_dtype: torch.dtype, device: str) -> None:
    input = torch.randn(6, 5, device=device).to(dtype).requires_grad_()
    target = torch.rand(6, 5, device=device).to(target_dtype).requires_grad_()
    loss = F.binary_cross_entropy_with_logits(input, target)
    assert loss.dtype == torch.promote_types(dtype, target_dtype)
    doubles = [x.detach().double().requires_grad_() for x in (input, target)]
    exact = oracles.binary_cross_entropy_with_logits(*doubles)
    assert_rounded(loss, exact, roundings=3)
    _check_gradients(loss, exact, [input, target], doubles)


@pytest.mark.parametrize("weight_dtype", DTYPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_weights_of_class_indices(dtype: torch.dtype, weight_dtype: torch.dtype) -> None:
    """torch takes the dtype of the logits alone; float32 for half logits costs nothing and is taken, too."""
    input, target, weight = torch.randn(6, 5).to(dtype), torch.randint(0, 5, (6,)), torch.rand(5).to(weight_dtype)
    is_half = dtype in (torch.bfloat16, torch.float16)
    if weight_dtype == dtype or (is_half and weight_dtype == torch.float32):
        loss = F.cross_entropy(input, target, weight)
        assert loss.dtype == dtype
        assert_rounded(loss, oracles.cross_entropy(input, target, weight.double()), roundings=3)
        return
    for function in (torch.nn.functional.cross_entropy, F.cross_entropy):
        with pytest.raises(RuntimeError):
            function(input, target, weight)
