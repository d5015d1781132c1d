"""Empty batches, ignored rows, odd targets: as torch has them."""

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support.cases import Loss
from tests.support.comparison import assert_reported, assert_rounded, on_cpu, to_double
from tests.support.marks import ALL_CLASS_LOSSES, ALL_REDUCTIONS, ALL_VARIANTS

pytestmark = pytest.mark.kernel

WEIGHTED = pytest.mark.parametrize("weighted", [False, True])


def _both(loss: Loss, input: Tensor, target: Tensor, **options: object) -> list[tuple[Tensor, Tensor]]:
    results = []
    for function in (loss.function, on_cpu(loss.reference)):
        leaf = input.detach().clone().requires_grad_()
        result = function(leaf, target, **options)
        result.sum().backward()
        results.append((result.detach(), leaf.grad))
    return results


def _assert_same(loss: Loss, input: Tensor, target: Tensor, **options: object) -> None:
    for ours, theirs in zip(*_both(loss, input, target, **options), strict=True):
        torch.testing.assert_close(ours, theirs, equal_nan=True)


@pytest.mark.covering(2)
@ALL_VARIANTS
@WEIGHTED
@ALL_REDUCTIONS
@pytest.mark.parametrize("shape", [(0, 5), (0, 100), (0, 0), (2, 5, 0), (0, 5, 3), (0, 5, 3, 4)])
def test_empty_batch(
    loss: Loss, extras: dict[str, Any], shape: tuple[int, ...], reduction: str, weighted: bool, device: str
) -> None:
    input = torch.zeros(shape, device=device)
    target = torch.zeros(shape[:1] + shape[2:], dtype=torch.int64, device=device)
    weight = torch.ones(shape[1], device=device) if weighted else None
    if shape[1] == 0:
        extras = {}  # torch's label smoothing: 0.1 / 0 * 0 = NaN
    _assert_same(loss, input, target, weight=weight, reduction=reduction, **extras)


@pytest.mark.heavy
@ALL_CLASS_LOSSES
def test_more_shares_than_threads_of_a_block(loss: Loss, device: str) -> None:
    input, target = loss.make_inputs((140_000, 2), torch.float32, device)
    assert_rounded(loss.function(input, target), loss.oracle(*to_double(input, target)))


@pytest.mark.covering(2)
@ALL_VARIANTS
@WEIGHTED
@ALL_REDUCTIONS
@pytest.mark.parametrize("shape", [(4, 5), (4, 100), (2, 5, 3, 3), (4, 0), (2, 0, 4, 4)])
def test_all_rows_ignored(
    loss: Loss, extras: dict[str, Any], shape: tuple[int, ...], reduction: str, weighted: bool, device: str
) -> None:
    input = torch.randn(shape, device=device)
    target = torch.full(shape[:1] + shape[2:], -100, device=device)
    weight = torch.rand(shape[1], device=device) if weighted else None
    if shape[1] == 0:
        extras = {}  # torch's label smoothing: 0.1 / 0 * 0 = NaN
    _assert_same(loss, input, target, weight=weight, reduction=reduction, **extras)


@ALL_CLASS_LOSSES
@pytest.mark.parametrize("classes", [4, 70, 300])
def test_ignored_rows_are_not_read(loss: Loss, classes: int, device: str) -> None:
    input = torch.randn(40, classes, device=device)
    target = torch.randint(0, classes, (40,), device=device)
    target[::3] = -1
    kept = target != -1
    poisoned = input.clone()
    poisoned[~kept] = torch.nan
    for extras in loss.variants:
        result, grad = _both(loss, poisoned, target, ignore_index=-1, **extras)[0]
        alone, grad_alone = _both(loss, input[kept], target[kept], **extras)[0]
        torch.testing.assert_close(result, alone)
        torch.testing.assert_close(grad[kept], grad_alone)
        assert (grad[~kept] == 0).all()


@ALL_CLASS_LOSSES
@pytest.mark.parametrize("target_value", [-1, "classes", 10**12, 2**32 - 100])
@pytest.mark.parametrize("classes", [5, 300])
def test_target_out_of_bounds(
    loss: Loss, classes: int, target_value: int | str, device: str, runs_cuda_kernels: bool
) -> None:
    """The CPU raises. CUDA, whose host does not wait to hear, makes NaN of the row's loss and gradient, and reports."""
    input = torch.randn(6, classes, device=device)
    target = torch.randint(0, classes, (6,), device=device)
    target[4] = classes if target_value == "classes" else target_value
    if not runs_cuda_kernels:
        with pytest.raises(IndexError, match=rf"target\[4\] = {target[4].item()} is out of bounds"):
            loss.function(input, target)
        return
    good = torch.arange(6, device=device) != 4
    for extras in loss.variants:
        for reduction in ("none", "sum"):
            input.requires_grad_()
            result = loss.function(input, target, reduction=reduction, **extras)
            assert_reported(4, target[4].item(), classes)
            (grad,) = torch.autograd.grad(result.sum(), input)
            assert_reported(4, target[4].item(), classes)
            alone, grad_alone = _both(loss, input[good], target[good], reduction=reduction, **extras)[0]
            if reduction == "none":
                torch.testing.assert_close(result[good], alone)
            assert result[~good].isnan().all() if reduction == "none" else result.isnan()
            torch.testing.assert_close(grad[good], grad_alone)
            assert grad[~good].isnan().all()


@ALL_CLASS_LOSSES
@pytest.mark.parametrize("ignore_index", [-100, -2, 0, 2, 255, 10**12])
def test_ignore_index_of_any_value(loss: Loss, ignore_index: int, device: str) -> None:
    input = torch.randn(6, 5, device=device)
    target = torch.tensor([0, 2, 4, 1, 2, 0], device=device)
    target[3] = ignore_index
    _assert_same(loss, input, target, ignore_index=ignore_index)


@ALL_CLASS_LOSSES
@ALL_REDUCTIONS
def test_weights_of_zero(loss: Loss, reduction: str, device: str) -> None:
    input, target = loss.make_inputs((6, 5), torch.float32, device)
    _assert_same(loss, input, target, weight=torch.zeros(5, device=device), reduction=reduction)


@ALL_CLASS_LOSSES
@ALL_REDUCTIONS
def test_one_row(loss: Loss, reduction: str, device: str) -> None:
    input = torch.randn(5, device=device)
    for target in (torch.tensor(2, device=device), torch.tensor(-100, device=device)):
        _assert_same(loss, input, target, reduction=reduction)
        # torch takes this shape too, and then fails in backward.
        as_scalar = loss.function(input, target, reduction=reduction)
        as_vector = loss.function(input, target[None], reduction=reduction)
        torch.testing.assert_close(as_vector, as_scalar, equal_nan=True)


@ALL_CLASS_LOSSES
@ALL_REDUCTIONS
@pytest.mark.parametrize("shape", [(9, 5), (9, 100)])
def test_byte_targets(loss: Loss, shape: tuple[int, ...], reduction: str, device: str) -> None:
    input = torch.randn(shape, device=device)
    target = torch.randint(0, 5, shape[:1], dtype=torch.uint8, device=device)
    _assert_same(loss, input, target, reduction=reduction, ignore_index=2)


@ALL_CLASS_LOSSES
@pytest.mark.parametrize("shape", [(40, 5), (40, 100), (2, 5, 6, 7)])
def test_non_contiguous_target_and_weight(loss: Loss, shape: tuple[int, ...], device: str) -> None:
    input, target = loss.make_inputs(shape, torch.float32, device)
    weight = torch.rand(shape[1], 2, device=device)[:, 1]
    strided = torch.stack([target, target.new_full(target.shape, 10**9)], -1)[..., 0]
    for extras in loss.variants:
        _assert_same(loss, input, strided, weight=weight, **extras)


@ALL_CLASS_LOSSES
def test_second_use_of_a_graph_and_of_a_leaf(loss: Loss, device: str) -> None:
    input = torch.randn(6, 5, device=device, requires_grad=True)
    target = torch.tensor([0, 2, 4, 1, 2, 0], device=device)
    result = loss.function(input, target)
    result.backward(retain_graph=True)
    once = input.grad.clone()
    result.backward()
    torch.testing.assert_close(input.grad, 2 * once)
    with pytest.raises(RuntimeError, match="a second time"):
        result.backward()


@ALL_CLASS_LOSSES
def test_input_changed_in_place_before_backward_is_noticed(loss: Loss, device: str) -> None:
    input = torch.randn(6, 5, device=device, requires_grad=True)
    logits = input * 1
    result = loss.function(logits, torch.tensor([0, 2, 4, 1, 2, 0], device=device))
    with torch.no_grad():
        logits.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        result.backward()
