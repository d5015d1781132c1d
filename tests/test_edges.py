"""Empty batches, ignored rows, odd targets: as torch has them."""

import pytest
import torch
from torch import Tensor

import ce_ext
from tests.cases import Loss
from tests.marks import ALL_LOSSES, ALL_REDUCTIONS

pytestmark = pytest.mark.kernel

cross_entropy = ce_ext.functional.cross_entropy
reference = torch.nn.functional.cross_entropy

SMOOTHED = pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
WEIGHTED = pytest.mark.parametrize("weighted", [False, True])


def _both(input: Tensor, target: Tensor, **options: object) -> list[tuple[Tensor, Tensor]]:
    results = []
    for function in (cross_entropy, reference):
        leaf = input.detach().clone().requires_grad_()
        loss = function(leaf, target, **options)
        loss.sum().backward()
        results.append((loss.detach(), leaf.grad))
    return results


def _assert_same(input: Tensor, target: Tensor, **options: object) -> None:
    for ours, theirs in zip(*_both(input, target, **options), strict=True):
        torch.testing.assert_close(ours, theirs, equal_nan=True)


@WEIGHTED
@SMOOTHED
@ALL_REDUCTIONS
@pytest.mark.parametrize("shape", [(0, 5), (0, 100), (0, 0), (2, 5, 0), (0, 5, 3), (0, 5, 3, 4)], ids=str)
def test_empty_batch(
    shape: tuple[int, ...], reduction: str, label_smoothing: float, weighted: bool, device: str
) -> None:
    input = torch.zeros(shape, device=device)
    target = torch.zeros(shape[:1] + shape[2:], dtype=torch.int64, device=device)
    weight = torch.ones(shape[1], device=device) if weighted else None
    if shape[1] == 0:
        label_smoothing = 0.0  # torch: 0.1 / 0 * 0 = NaN
    _assert_same(input, target, weight=weight, reduction=reduction, label_smoothing=label_smoothing)


@WEIGHTED
@SMOOTHED
@ALL_REDUCTIONS
@pytest.mark.parametrize("shape", [(4, 5), (4, 100), (2, 5, 3, 3), (4, 0)], ids=str)
def test_all_rows_ignored(
    shape: tuple[int, ...], reduction: str, label_smoothing: float, weighted: bool, device: str
) -> None:
    input = torch.randn(shape, device=device)
    target = torch.full(shape[:1] + shape[2:], -100, device=device)
    weight = torch.rand(shape[1], device=device) if weighted else None
    if shape[1] == 0:
        label_smoothing = 0.0  # torch: 0.1 / 0 * 0 = NaN
    _assert_same(input, target, weight=weight, reduction=reduction, label_smoothing=label_smoothing)


@pytest.mark.parametrize("classes", [4, 70, 300])
def test_ignored_rows_are_not_read(classes: int, device: str) -> None:
    input = torch.randn(40, classes, device=device)
    target = torch.randint(0, classes, (40,), device=device)
    target[::3] = -1
    kept = target != -1
    poisoned = input.clone()
    poisoned[~kept] = torch.nan
    for options in ({}, {"label_smoothing": 0.1}):
        loss, grad = _both(poisoned, target, ignore_index=-1, **options)[0]
        alone, grad_alone = _both(input[kept], target[kept], **options)[0]
        torch.testing.assert_close(loss, alone)
        torch.testing.assert_close(grad[kept], grad_alone)
        assert (grad[~kept] == 0).all()


@pytest.mark.parametrize("target_value", [-1, "classes", 10**12, 2**32 - 100])
@pytest.mark.parametrize("classes", [5, 300])
def test_target_out_of_bounds(classes: int, target_value: int | str, device: str, runs_cuda_kernels: bool) -> None:
    """The CPU raises. CUDA, whose host does not wait to hear of it, makes the row's loss and gradient NaN."""
    input = torch.randn(6, classes, device=device)
    target = torch.randint(0, classes, (6,), device=device)
    target[4] = classes if target_value == "classes" else target_value
    if not runs_cuda_kernels:
        with pytest.raises(IndexError, match=rf"target\[4\] = {target[4].item()} is out of bounds"):
            cross_entropy(input, target)
        return
    good = torch.arange(6, device=device) != 4
    for options in ({}, {"label_smoothing": 0.1}):
        for reduction in ("none", "sum"):
            input.requires_grad_()
            loss = cross_entropy(input, target, reduction=reduction, **options)
            (grad,) = torch.autograd.grad(loss.sum(), input)
            alone, grad_alone = _both(input[good], target[good], reduction=reduction, **options)[0]
            if reduction == "none":
                torch.testing.assert_close(loss[good], alone)
            assert loss[~good].isnan().all() if reduction == "none" else loss.isnan()
            torch.testing.assert_close(grad[good], grad_alone)
            assert grad[~good].isnan().all()


@pytest.mark.parametrize("ignore_index", [-100, -2, 0, 2, 255, 10**12])
def test_ignore_index_of_any_value(ignore_index: int, device: str) -> None:
    input = torch.randn(6, 5, device=device)
    target = torch.tensor([0, 2, 4, 1, 2, 0], device=device)
    target[3] = ignore_index
    _assert_same(input, target, ignore_index=ignore_index)


@ALL_LOSSES
@ALL_REDUCTIONS
def test_weights_of_zero(loss: Loss, reduction: str, device: str) -> None:
    input, target = loss.make_inputs((6, 5), torch.float32, device)
    _assert_same(input, target, weight=torch.zeros(5, device=device), reduction=reduction)


@ALL_REDUCTIONS
def test_one_row(reduction: str, device: str) -> None:
    input = torch.randn(5, device=device)
    for target in (torch.tensor(2, device=device), torch.tensor(-100, device=device)):
        _assert_same(input, target, reduction=reduction)
        # torch takes this shape too, and then fails in backward.
        as_scalar = cross_entropy(input, target, reduction=reduction)
        as_vector = cross_entropy(input, target[None], reduction=reduction)
        torch.testing.assert_close(as_vector, as_scalar, equal_nan=True)


@ALL_REDUCTIONS
@pytest.mark.parametrize("shape", [(9, 5), (9, 100)], ids=str)
def test_byte_targets(shape: tuple[int, ...], reduction: str, device: str) -> None:
    input = torch.randn(shape, device=device)
    target = torch.randint(0, 5, shape[:1], dtype=torch.uint8, device=device)
    _assert_same(input, target, reduction=reduction, ignore_index=2)


@ALL_LOSSES
@pytest.mark.parametrize("shape", [(40, 5), (40, 100), (2, 5, 6, 7)], ids=str)
def test_non_contiguous_target_and_weight(loss: Loss, shape: tuple[int, ...], device: str) -> None:
    input, target = loss.make_inputs(shape, torch.float32, device)
    weight = torch.rand(shape[1], 2, device=device)[:, 1]
    strided = torch.stack([target, target.new_full(target.shape, 10**9)], -1)[..., 0]
    for options in ({}, {"label_smoothing": 0.1}):
        _assert_same(input, strided, weight=weight, **options)


def test_second_use_of_a_graph_and_of_a_leaf(device: str) -> None:
    input = torch.randn(6, 5, device=device, requires_grad=True)
    target = torch.tensor([0, 2, 4, 1, 2, 0], device=device)
    loss = cross_entropy(input, target)
    loss.backward(retain_graph=True)
    once = input.grad.clone()
    loss.backward()
    torch.testing.assert_close(input.grad, 2 * once)
    with pytest.raises(RuntimeError, match="a second time"):
        loss.backward()


def test_input_changed_in_place_before_backward_is_noticed(device: str) -> None:
    input = torch.randn(6, 5, device=device, requires_grad=True)
    logits = input * 1
    loss = cross_entropy(logits, torch.tensor([0, 2, 4, 1, 2, 0], device=device))
    with torch.no_grad():
        logits.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
