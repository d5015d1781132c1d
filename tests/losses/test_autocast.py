"""Under autocast a loss is float32, as torch's are, and so is what it gets from upstream: training does not change."""

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

import ce_ext
from tests.support import oracles
from tests.support.cases import Loss
from tests.support.comparison import assert_rounded
from tests.support.marks import ALL_LOSSES, ALL_REDUCTIONS

pytestmark = pytest.mark.torch_modes

HALVES = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])


@ALL_LOSSES
@ALL_REDUCTIONS
@HALVES
def test_losses_are_float32(loss: Loss, reduction: str, dtype: torch.dtype) -> None:
    input, target = loss.make_inputs((6, 5), dtype)
    exact = loss.oracle(input.double(), target.double() if target.is_floating_point() else target, reduction=reduction)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = loss.function(input, target, reduction=reduction)
        asked = loss.function(input, target, reduction=reduction, out_dtype=dtype)
        double = loss.function(input.double(), target, reduction=reduction)
    assert (result.dtype, asked.dtype, double.dtype) == (torch.float32, dtype, torch.float64)
    assert_rounded(result, exact, roundings=3)


@ALL_LOSSES
@pytest.mark.parametrize("denominator", [3, 3.5, torch.tensor(3.0), torch.tensor(3)], ids=str)
@pytest.mark.parametrize("on_empty", ["nan", "zero"])
def test_denominators(loss: Loss, denominator: Any, on_empty: str) -> None:
    input, target = loss.make_inputs((6, 5), torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = loss.function(input, target, denominator=denominator, on_empty=on_empty)
    exact = loss.oracle(input.double(), target.double() if target.is_floating_point() else target, reduction="sum")
    assert result.dtype == torch.float32
    assert_rounded(result, exact / float(denominator), roundings=3)
    outside = loss.function(input, target, denominator=denominator, on_empty=on_empty)
    assert outside.dtype == torch.bfloat16


TARGETS = (torch.bool, torch.uint8, torch.int64, torch.bfloat16, torch.float16, torch.float32)


@pytest.mark.parametrize("target_dtype", TARGETS)
def test_targets_of_binary_losses_do_not_matter(target_dtype: torch.dtype) -> None:
    input, target = torch.randn(4, 5).bfloat16(), torch.randint(0, 2, (4, 5)).to(target_dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = ce_ext.functional.binary_cross_entropy_with_logits(input, target)
    assert result.dtype == torch.float32
    assert_rounded(result, oracles.binary_cross_entropy_with_logits(input.double(), target.double()), roundings=3)


@contextlib.contextmanager
def _autocast(device_type: str) -> Iterator[None]:
    """torch.autocast itself does nothing for "cuda" where there is none."""
    torch.set_autocast_enabled(device_type, True)
    yield
    torch.set_autocast_enabled(device_type, False)


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
@ALL_LOSSES
@HALVES
def test_of_the_device_of_the_input(loss: Loss, dtype: torch.dtype, kind: str) -> None:
    other = "cuda" if kind == "cpu" else "cpu"
    tensors = loss.make_inputs((6, 5), dtype)
    with FakeTensorMode():
        input, target = (torch.empty(x.shape, dtype=x.dtype, device=kind) for x in tensors)
        with _autocast(kind):
            assert loss.function(input, target).dtype == torch.float32
            assert loss.function(input, target, denominator=torch.ones((), device=kind)).dtype == torch.float32
            assert ce_ext.functional.log_softmax(input, 1).dtype == torch.float32
        with _autocast(other):
            assert loss.function(input, target).dtype == dtype
            assert ce_ext.functional.log_softmax(input, 1).dtype == dtype


def test_log_softmax() -> None:
    input = torch.randn(4, 5).bfloat16().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = ce_ext.functional.log_softmax(input, 1)
    assert torch.equal(result, ce_ext.functional.log_softmax(input, 1, dtype=torch.float32))
    result.sum().backward()
    assert input.grad is not None
    assert input.grad.dtype == torch.bfloat16
    for dtype in (torch.bfloat16, torch.float16, torch.float32, torch.float64):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            result = ce_ext.functional.log_softmax(input, 1, dtype=dtype)
            assert result.dtype == torch.nn.functional.log_softmax(input, 1, dtype=dtype).dtype == dtype


# One layer, whose output is half under autocast, and micro-batches: what a training step is about.


def _weight_gradient(loss: Any, head: torch.nn.Linear, x: Tensor, target: Tensor, steps: int, dtype: Any) -> Tensor:
    head.weight.grad = None
    for inputs, targets in zip(x.chunk(steps), target.chunk(steps), strict=True):
        with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
            result = loss(head(inputs), targets) / steps
        result.backward()
    assert head.weight.grad is not None
    return head.weight.grad.clone()


@ALL_LOSSES
@pytest.mark.parametrize("steps", [3, 7, 10])
def test_accumulation_does_not_scale_gradients(loss: Loss, steps: int) -> None:
    """An upstream gradient of 1/7 in bfloat16 would scale all of them alike, and so would not average out."""
    torch.manual_seed(0)
    head = torch.nn.Linear(64, 32)
    x = torch.randn(40 * steps, 64)
    _, target = loss.make_inputs((40 * steps, 32), torch.float32)

    def function(logits: Tensor, targets: Tensor) -> Tensor:
        if loss.name == "binary_cross_entropy":
            logits = logits.sigmoid()
        if loss.name == "nll_loss":
            logits = ce_ext.functional.log_softmax(logits, 1)
        return loss.function(logits, targets)

    exact = _weight_gradient(function, head, x, target, steps, None)
    ours = _weight_gradient(function, head, x, target, steps, torch.bfloat16)
    scale = (ours * exact).sum() / exact.square().sum()  # the best multiple of what is right
    assert abs(scale.item() - 1) < 4e-4


@pytest.mark.parametrize("how", [{}, {"grad_in_forward": True, "loss_scale": 65536.0}], ids=["plain", "in forward"])
def test_loss_scaler(how: dict[str, Any]) -> None:
    """A scale of 65536 is no number of float16: no step may be skipped for it, and the scale has to grow."""
    torch.manual_seed(0)
    head = torch.nn.Linear(16, 8)
    optimizer = torch.optim.SGD(head.parameters(), lr=0.01)
    scaler = torch.amp.GradScaler("cpu", growth_interval=2)
    scales = []
    for _ in range(7):
        optimizer.zero_grad()
        before = head.weight.detach().clone()
        x, target = torch.randn(1024, 16), torch.randint(0, 8, (1024,))
        with torch.autocast("cpu", dtype=torch.float16):
            loss = ce_ext.functional.cross_entropy(head(x), target, **how)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        scales.append(scaler.get_scale())
        assert not torch.equal(before, head.weight)
    assert scales == [65536.0, 131072.0, 131072.0, 262144.0, 262144.0, 524288.0, 524288.0]


@pytest.mark.parametrize("where", ["inside", "outside"])
def test_compiled(where: str) -> None:
    input, target = torch.randn(6, 5).bfloat16().requires_grad_(), torch.randint(0, 5, (6,))

    def loss(x: Tensor, y: Tensor) -> Tensor:
        if where == "outside":
            return ce_ext.functional.cross_entropy(x, y)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return ce_ext.functional.cross_entropy(x, y)

    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=where == "outside"):
        result, expected = compiled(input, target), loss(input, target)
    assert result.dtype == torch.float32
    assert torch.equal(result, expected)
    assert torch.equal(*(torch.autograd.grad(x, input)[0] for x in (result, expected)))
