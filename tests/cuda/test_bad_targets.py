"""Targets out of bounds that CUDA kernels find: what is reported, and who raises it."""

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

import ce_ext
from ce_ext.functional import cross_entropy
from ce_ext.options import CrossEntropyOptions
from tests.support.cases import CROSS_ENTROPY, NLL, Loss
from tests.support.comparison import assert_reported
from tests.support.marks import ALL_CLASS_LOSSES, ALL_VARIANTS, SOFTMAX_LOSSES

pytestmark = [pytest.mark.kernel, pytest.mark.not_cpu]

# By row, and by class.
CLASSES = pytest.mark.parametrize("classes", [5, 300])


@ALL_VARIANTS
@pytest.mark.parametrize("shape", [(6, 5), (6, 300), (2, 5, 3, 4), (5,)])
def test_report(loss: Loss, extras: dict[str, Any], shape: tuple[int, ...], device: str) -> None:
    input, target = loss.make_inputs(shape, torch.float32, device)
    good = loss.function(input, target, reduction="none", **extras)
    classes = input.shape[min(1, input.dim() - 1)]
    place = target.numel() - 2 if target.numel() > 1 else 0
    target.view(-1)[place] = classes
    losses = loss.function(input, target, reduction="none", **extras)
    assert_reported(place, classes, classes)
    assert losses.view(-1)[place].isnan()
    losses.view(-1)[place] = good.view(-1)[place]
    assert torch.equal(losses, good)


@pytest.mark.parametrize(
    "call",
    [
        lambda x: cross_entropy(x, torch.zeros_like(x[:, 0]).long()),
        lambda x: cross_entropy(x, torch.full_like(x, 0.2)),
        lambda x: ce_ext.functional.log_softmax(x, 1),
        lambda x: ce_ext.functional.binary_cross_entropy_with_logits(x, torch.ones_like(x)),
        lambda x: ce_ext.cuda.check(),
    ],
    ids=["class indices", "class probabilities", "log_softmax", "elements", "check"],
)
def test_next_call_raises_once(call: Callable[[Tensor], object], device: str) -> None:
    input = torch.randn(3, 5, device=device)
    assert cross_entropy(input, torch.tensor([0, 7, 1], device=device)).isnan()
    if device == "cuda":
        torch.cuda.synchronize()
    message = (
        "target.flatten()[1] = 7 is out of bounds: input has 5 classes. An earlier call of ce_ext on cuda:0 found it"
    )
    with pytest.raises(IndexError, match=re.escape(message)):
        call(input)
    call(input)
    ce_ext.cuda.check()


@ALL_CLASS_LOSSES
def test_backward_raises_what_forward_found(loss: Loss, device: str) -> None:
    result = loss.function(
        torch.randn(3, 5, device=device, requires_grad=True), torch.tensor([0, 4, -3], device=device)
    )
    if device == "cuda":
        torch.cuda.synchronize()
    with pytest.raises(IndexError, match=r"\[2\] = -3"):
        result.backward()


@CLASSES
@pytest.mark.parametrize("loss", [CROSS_ENTROPY, NLL], ids=lambda loss: loss.name)
def test_backward_op_alone(loss: Loss, classes: int, device: str) -> None:
    """It is public, and trusts no forward to have looked."""
    input, target = loss.make_inputs((3, classes), torch.float32, device)
    target[1] = classes
    stats = torch.zeros(3, 3, device=device) if loss.reads_all else None
    options = CrossEntropyOptions(0, -100, input_is_log_prob=not loss.reads_all).of_backward()
    ones, nothing = torch.ones(3, device=device), torch.empty(0, device=device)
    grad = torch.ops.ce_ext.cross_entropy_backward(ones, input, target, None, None, stats, nothing, *options)
    assert_reported(1, classes, classes)
    assert grad.isnan().all(1).tolist() == [False, True, False] and not grad[::2].isnan().any()


@CLASSES
@SOFTMAX_LOSSES
@pytest.mark.parametrize("inplace", [False, True])
def test_gradient_in_forward(loss: Loss, inplace: bool, classes: int, device: str) -> None:
    input, target = loss.make_inputs((4, classes), torch.float32, device)
    target[2] = -1
    leaf = input.requires_grad_()
    option = {"inplace": True} if inplace else {"grad_in_forward": True}
    result = loss.function(leaf * 1, target, reduction="sum", **option)
    assert_reported(2, -1, classes)
    (grad,) = torch.autograd.grad(result, leaf)
    assert result.isnan() and grad.isnan().all(1).tolist() == [False, False, True, False]


@CLASSES
def test_first_of_several(classes: int, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """First is who comes first; the others are not raised afterwards."""
    bad = {3: -7, 8: 10**12, 9: classes}
    target = torch.zeros(12, dtype=torch.int64, device=device)
    for row, value in bad.items():
        target[row] = value
    expected = {"forward": {3}, "reverse": {9}} | {f"random:{seed}": set(bad) for seed in range(4)}
    for schedule, rows in expected.items():
        monkeypatch.setenv("CUDA_EMU_SCHEDULE", schedule)
        cross_entropy(torch.zeros(12, classes, device=device), target)
        with pytest.raises(IndexError) as error:
            ce_ext.cuda.check()
        row, value = map(int, re.findall(r"\[(\d+)\] = (-?\d+)", str(error.value))[0])
        assert bad[row] == value and (row in rows or device == "cuda")
        ce_ext.cuda.check()


@ALL_CLASS_LOSSES
@pytest.mark.parametrize("ignore_index", [-100, 255])
def test_ignored_is_not_reported(loss: Loss, ignore_index: int, device: str) -> None:
    input, target = loss.make_inputs((7, 5), torch.float32, device)
    target[::2] = ignore_index
    function = partial(loss.function, ignore_index=ignore_index)
    function(input.requires_grad_(), target).backward()
    ce_ext.cuda.check()
    target[3] = -100 + 255 - ignore_index
    function(input, target)
    assert_reported(3, target[3].item(), 5)
