"""A weight of 0 takes what is infinite for nothing, and hides no NaN: the loss tells what the gradient tells."""

from typing import Any

import pytest
import torch
from torch import Tensor

import ce_ext
from tests.support.cases import DTYPES, Loss
from tests.support.marks import ALL_BINARY_LOSSES, LOGIT_LOSSES, SOFTMAX_LOSSES

kernel = pytest.mark.kernel

F = ce_ext.functional

CLASSES = pytest.mark.parametrize("classes", [5, 70, 9000])
# What makes a row NaN, wherever it stands.
BAD_LOGITS = pytest.mark.parametrize("bad", [torch.nan, torch.inf])


def _results(function: Any, input: Tensor, *others: Any, **options: Any) -> tuple[Tensor, Tensor]:
    leaf = input.detach().requires_grad_()
    loss = function(leaf, *others, **options)
    (grad,) = torch.autograd.grad(loss.sum(), leaf)
    return loss.detach(), grad


@kernel
@pytest.mark.covering(2)
@SOFTMAX_LOSSES
@CLASSES
@BAD_LOGITS
@pytest.mark.parametrize("place", ["target", "elsewhere"])
@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1}, {"z_loss": 0.1}], ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_without_weight(
    loss: Loss, classes: int, bad: float, place: str, options: dict[str, Any], dtype: torch.dtype, device: str
) -> None:
    input, target = loss.make_inputs((4, classes), dtype, device)
    target[:] = torch.tensor([0, 1, 2, 0])
    input[1, 1 if place == "target" else 3] = bad
    weight = torch.ones(classes, device=device)
    weight[1] = 0
    sample_weight = torch.tensor([1.0, 0.0, 1.0, 1.0], device=device)
    weights = {"class": {"weight": weight.to(dtype)}, "row": {"sample_weight": sample_weight.to(dtype)}}
    for of_what in weights.values():
        losses, grad = _results(loss.function, input, target, reduction="none", **of_what, **options)
        assert losses.isnan().tolist() == [False, True, False, False]
        assert grad.isnan().any(1).tolist() == [False, True, False, False]
        mean, grad = _results(loss.function, input, target, **of_what, **options)
        assert mean.isnan()
        assert grad[1].isnan().any()
    ignored = target.clone()
    ignored[1] = -100
    losses, grad = _results(loss.function, input, ignored, reduction="none", **options)
    assert losses.isfinite().all()
    assert grad.isfinite().all()


@kernel
@CLASSES
@BAD_LOGITS
@pytest.mark.parametrize("weighted", ["class", "row", "probability"])
def test_class_probabilities_without_weight(classes: int, bad: float, weighted: str, device: str) -> None:
    input, target = torch.randn(3, classes, device=device), torch.rand(3, classes, device=device)
    input[1, 2] = bad
    weight, sample_weight = torch.ones(classes, device=device), torch.ones(3, device=device)
    options: dict[str, Any] = {}
    if weighted == "class":
        weight[2] = 0
        options = {"weight": weight}
    elif weighted == "row":
        sample_weight[1] = 0
        options = {"sample_weight": sample_weight}
    else:
        target[1, 2] = 0
    losses, grad = _results(F.cross_entropy, input, target, reduction="none", **options)
    assert losses.isnan().tolist() == [False, True, False]
    assert grad.isnan().any(1).tolist() == [False, True, False]


@kernel
@pytest.mark.parametrize("classes", [1, 2, 70, 9000])
@pytest.mark.parametrize("bad", [torch.nan, -torch.inf])
def test_rows_without_a_maximum(classes: int, bad: float, device: str) -> None:
    """Of NaN alone, or masked as a whole; whatever mass the classes have."""
    input, mass = torch.randn(3, classes, device=device), torch.zeros(3, classes, device=device)
    input[1] = -torch.inf
    input[1, classes // 2] = bad
    indices = torch.zeros(3, dtype=torch.int64, device=device)
    for target, options in ((mass, {}), (mass, {"label_smoothing": 0.1}), (indices, {"weight": mass[0]})):
        losses, grad = _results(F.cross_entropy, input, target, reduction="none", **options)
        assert losses.isnan().tolist() == [False, True, False]
        assert grad.isnan().any(1).tolist() == [False, True, False]
    for target in (mass, indices):
        _, stats = F.cross_entropy(input, target, return_stats=True)
        expected = input.logsumexp(1).tolist()
        torch.testing.assert_close(stats.lse, torch.tensor(expected, device=device), equal_nan=True)


@kernel
@SOFTMAX_LOSSES
@CLASSES
def test_impossible_classes_without_weight_add_nothing(loss: Loss, classes: int, device: str) -> None:
    input, target = loss.make_inputs((4, classes), torch.float32, device)
    input[:, 1] = -torch.inf
    weight = torch.ones(classes, device=device)
    weight[1] = 0
    target[:] = torch.tensor([0, 1, 2, 0])
    losses, grad = _results(loss.function, input, target, weight=weight, reduction="none", label_smoothing=0.1)
    assert losses.isfinite().all()
    assert grad.isfinite().all()


@kernel
@LOGIT_LOSSES
@pytest.mark.parametrize("size", [6, 3000])
def test_elements_without_weight(loss: Loss, size: int, device: str) -> None:
    input, target = loss.make_inputs((size,), torch.float32, device)
    target[1:3] = torch.tensor([1.0, 0.0])
    input[1:4] = torch.tensor([torch.nan, torch.inf, torch.inf])
    target[3] = 1
    weight = torch.ones(size, device=device)
    weight[1:4] = 0
    losses, grad = _results(loss.function, input, target, weight=weight, reduction="none")
    assert losses[1:4].isnan().tolist() == [True, False, False]
    assert grad[1:4].isnan().tolist() == [True, False, False]
    assert losses[2:4].tolist() == [0, 0]  # 0 * inf, and 0 * 0


@kernel
@ALL_BINARY_LOSSES
def test_one_weight_of_0_for_all_elements(loss: Loss, device: str) -> None:
    input, target = loss.make_inputs((100,), torch.float32, device)
    if loss.name != "binary_cross_entropy":
        input[3], target[3] = torch.inf, 0
    losses, grad = _results(loss.function, input, target, weight=torch.zeros((), device=device), reduction="none")
    assert not losses.any()
    assert not grad.any()
