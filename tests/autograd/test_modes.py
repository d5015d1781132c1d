"""The graph that a loss records, and who else sees the call: hooks, modes, subclasses, threads, compilers."""

import subprocess
import sys
import threading
import warnings
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._dynamo.testing
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.testing._internal.two_tensor import TwoTensor
from torch.utils.checkpoint import checkpoint

import ce_ext
from tests.support.cases import DTYPES, Loss
from tests.support.dispatch import OpCalls
from tests.support.marks import ALL_LOSSES, ALL_REDUCTIONS, CURVED_LOSSES

pytestmark = pytest.mark.torch_modes

Function = Callable[..., Tensor]


def _make(loss: Loss, device: str, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    input, target = loss.make_inputs((6, 5), dtype, device)
    return input.requires_grad_(), target


def _grad(function: Function, input: Tensor, target: Tensor, **options: Any) -> Tensor:
    (grad,) = torch.autograd.grad(function(input, target, **options).sum(), input)
    return grad


@pytest.mark.covering(1)
@ALL_LOSSES
@ALL_REDUCTIONS
def test_gradcheck(loss: Loss, reduction: str, device: str) -> None:
    input, target = _make(loss, device, torch.float64)
    loss.ignore(target, 1)
    weight = torch.rand(5, dtype=torch.float64, device=device)

    def function(x: Tensor) -> Tensor:
        return loss.function(x, target, weight=weight, reduction=reduction, **loss.extras)

    modes = {"check_forward_ad": True, "check_batched_grad": True, "check_batched_forward_grad": True}
    assert torch.autograd.gradcheck(function, input, **modes)
    assert torch.autograd.gradgradcheck(function, input, check_fwd_over_rev=True, check_batched_grad=True)


@CURVED_LOSSES
@pytest.mark.parametrize("dtype", DTYPES)
def test_create_graph(loss: Loss, dtype: torch.dtype, device: str) -> None:
    input, target = _make(loss, device, dtype)
    results = []
    for function, opmath in ((loss.function, dtype), (loss.reference, torch.float64)):
        leaf = input.detach().to(opmath).requires_grad_()
        y = target.to(opmath) if target.is_floating_point() else target
        (grad,) = torch.autograd.grad(function(leaf, y, **loss.extras), leaf, create_graph=True)
        (second,) = torch.autograd.grad(grad.square().sum(), leaf, create_graph=True)
        (third,) = torch.autograd.grad(second.sum(), leaf)
        results.append([x.detach().to(dtype) for x in (grad, second)])
        assert third.dtype == opmath
    torch.testing.assert_close(*results)


@ALL_LOSSES
def test_batched_gradients(loss: Loss, device: str) -> None:
    input, target = _make(loss, device)
    grads = []
    for function in (loss.function, loss.reference):
        result = function(input, target, reduction="none")
        directions = torch.eye(result.numel(), device=device).view(-1, *result.shape)
        grads += torch.autograd.grad(result, input, directions, is_grads_batched=True)
    torch.testing.assert_close(*grads)


@ALL_LOSSES
def test_inference_tensors(loss: Loss, device: str) -> None:
    input, target = _make(loss, device)
    with torch.inference_mode():
        of_inference = input.detach().clone(), target.clone()
        assert loss.function(*of_inference).is_inference()
    result = loss.function(*of_inference)
    torch.testing.assert_close(result, loss.function(input.detach(), target))
    assert not result.is_inference()
    with pytest.raises(RuntimeError, match="Inference tensors cannot be saved for backward"):
        loss.function(input, of_inference[1])


@ALL_LOSSES
@pytest.mark.parametrize("use_reentrant", [False, True])
def test_checkpoint(loss: Loss, use_reentrant: bool, device: str) -> None:
    input, target = _make(loss, device)
    recomputed = checkpoint(lambda x: loss.function(x / 2, target), input, use_reentrant=use_reentrant)
    recomputed.backward()
    torch.testing.assert_close(input.grad, _grad(loss.reference, (input / 2).detach().requires_grad_(), target) / 2)


@ALL_LOSSES
def test_saved_tensors_hooks(loss: Loss, device: str) -> None:
    input, target = _make(loss, device)
    packed = []

    def pack(tensor: Tensor) -> Tensor:
        packed.append(tensor)
        return tensor * 1

    def fail(tensor: Tensor) -> Tensor:
        raise ZeroDivisionError

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = loss.function(input, target)
    assert any(tensor is input for tensor in packed) and any(tensor is target for tensor in packed)
    torch.testing.assert_close(torch.autograd.grad(result, input)[0], _grad(loss.reference, input, target))
    with torch.autograd.graph.saved_tensors_hooks(pack, fail):
        result = loss.function(input, target)
    with pytest.raises(ZeroDivisionError):
        result.backward()


class _Box:
    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


@ALL_LOSSES
def test_saved_tensors_are_freed(loss: Loss, device: str) -> None:
    input, target = _make(loss, device)
    boxes = []

    def pack(tensor: Tensor) -> _Box:
        box = _Box(tensor)
        boxes.append(weakref.ref(box))
        return box

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda box: box.tensor):
        result = loss.function(input, target)
    result.backward(retain_graph=True)
    assert boxes and all(box() for box in boxes)
    result.backward()
    assert not any(box() for box in boxes)


@ALL_LOSSES
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_autocast_leaves_logits_as_they_are(loss: Loss, dtype: torch.dtype, device: str) -> None:
    input, target = _make(loss, device, dtype)
    with torch.autocast(device, dtype=torch.bfloat16), OpCalls() as ops:
        result = loss.function(input, target)
    assert result.dtype == torch.float32
    assert [call.op.namespace for call in ops.seen] == ["ce_ext"]  # no cast
    result.backward()
    torch.testing.assert_close(input.grad, _grad(loss.function, input, target, out_dtype=torch.float32))


class _SeenByFunctionMode(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Any] = []

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.append(function)
        return function(*args, **(kwargs or {}))


@ALL_LOSSES
def test_modes_see_the_call(loss: Loss, device: str) -> None:
    input, target = _make(loss, device)
    with _SeenByFunctionMode() as functions:
        result = loss.function(input, target)
    assert [function.__name__ for function in functions.seen] == [loss.name]
    assert result.requires_grad
    with OpCalls() as ops:
        loss.function(input, target).backward()
    assert len(ops.names()) == 2
    with torch.device("meta"):  # a mode, too, for functions that make tensors
        torch.testing.assert_close(loss.function(input, target), result)


class _Logits(Tensor):
    """A subclass that keeps its class, as torch's default `__torch_function__` does, and counts."""

    seen: list[Any] = []  # noqa: RUF012

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        cls.seen.append(function)
        return super().__torch_function__(function, types, args, kwargs or {})


@ALL_LOSSES
def test_tensor_subclasses(loss: Loss, device: str) -> None:
    input, target = _make(loss, device)
    expected = loss.function(input, target)
    logits = input.detach().as_subclass(_Logits).requires_grad_()
    _Logits.seen = []
    result = loss.function(logits, target)
    assert loss.name in [function.__name__ for function in _Logits.seen] and type(result) is _Logits
    assert result.requires_grad and result.item() == expected.item()

    halved = TwoTensor(input.detach(), input.detach() / 2).requires_grad_()
    result = loss.function(halved, target)
    result.backward()
    for part, grad, logits in ((result.a, halved.grad.a, input), (result.b, halved.grad.b, input / 2)):
        torch.testing.assert_close(part, loss.function(logits, target).detach())
        torch.testing.assert_close(grad, _grad(loss.function, logits.detach().requires_grad_(), target))


@ALL_LOSSES
def test_fake_tensors_in_eager_mode(loss: Loss, device: str) -> None:
    with FakeTensorMode(allow_non_fake_inputs=False) as mode:
        input, target = map(mode.from_tensor, _make(loss, device))
        result = loss.function(input, target)
        result.backward()
    assert type(result) is type(input) and result.shape == () and input.grad.shape == (6, 5)


@ALL_LOSSES
def test_backward_in_another_thread(loss: Loss, device: str) -> None:
    """The second derivative is in Python, which the engine calls without its lock."""
    input, target = _make(loss, device)
    results = []

    def run() -> None:
        (grad,) = torch.autograd.grad(loss.function(input, target).square(), input, create_graph=True)
        results.extend(torch.autograd.grad(grad.square().sum(), input))

    for target_of_thread in (run, run):
        thread = threading.Thread(target=target_of_thread)
        thread.start()
        thread.join()
    run()
    assert len(results) == 3
    torch.testing.assert_close(results[0], results[2])


def test_graph_that_outlives_the_interpreter() -> None:
    """Nodes are destroyed while Python shuts down, after its modules."""
    program = """
import sys, torch, ce_ext
input = torch.randn(6, 5, requires_grad=True)
loss = ce_ext.functional.cross_entropy(input, torch.zeros(6).long())
(grad,) = torch.autograd.grad(loss, input, create_graph=True)
sys.kept = loss, grad, torch.autograd.grad(grad.square().sum(), input, create_graph=True)
"""
    home = Path(ce_ext.__file__).parents[1]  # of the ce_ext that is tested: Python looks in its working folder first
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=home)
    assert (run.returncode, run.stderr) == (0, "")


@pytest.mark.covering(1)
@ALL_LOSSES
@pytest.mark.parametrize("dynamic", [False, True])
def test_compiled_autograd(loss: Loss, dynamic: bool, device: str) -> None:
    """A graph recorded in eager mode whose backward is compiled."""
    torch.compiler.reset()
    compiler = torch.compile(backend="aot_eager", dynamic=dynamic, fullgraph=True)
    for rows, options in ((6, {}), (4, {}), (4, {"reduction": "sum"}), (6, loss.extras)):
        input, target = loss.make_inputs((rows, 5), torch.float32, device)
        input.requires_grad_()
        with torch._dynamo.compiled_autograd._enable(compiler):
            loss.function(input / 2, target, **options).backward()
        expected = _grad(lambda x, y, options=options: loss.reference(x / 2, y, **options), input, target)
        torch.testing.assert_close(input.grad, expected)


@ALL_LOSSES
def test_compile_of_a_step_with_its_backward(loss: Loss, device: str) -> None:
    torch.compiler.reset()

    def step(x: Tensor, y: Tensor) -> Tensor:
        result = loss.function(x / 2, y)
        result.backward()
        return result.detach()

    input, target = _make(loss, device)
    with torch._dynamo.config.patch(compiled_autograd=True):
        result = torch.compile(step, backend="aot_eager")(input, target)
    torch.testing.assert_close(result, loss.reference(input / 2, target).detach())
    torch.testing.assert_close(input.grad, _grad(lambda x, y: loss.reference(x / 2, y), input, target))


COMPILED_TRANSFORMS = {
    "grad": torch.func.grad,
    "vmap": torch.func.vmap,
    "vmap of grad": lambda f: torch.func.vmap(torch.func.grad(f)),
    "jacrev": torch.func.jacrev,
    "jvp": lambda f: lambda x, y: torch.func.jvp(lambda x: f(x, y), (x,), (torch.ones_like(x),)),
}


@pytest.mark.covering(1)
@ALL_LOSSES
@pytest.mark.parametrize("transform", COMPILED_TRANSFORMS)
def test_compile_of_transforms(loss: Loss, transform: str, device: str) -> None:
    torch.compiler.reset()
    samples = [loss.make_inputs((6, 5), torch.float32, device, seed) for seed in range(3)]
    if "vmap" in transform:
        input, target = (torch.stack(tensors) for tensors in zip(*samples, strict=True))
    else:
        input, target = samples[0]
    transformed = COMPILED_TRANSFORMS[transform]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of a missing kernel for autograd or vmap
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        actual = torch.compile(transformed(loss.function), backend="aot_eager")(input, target)
    torch.testing.assert_close(actual, transformed(loss.reference)(input, target))


@ALL_LOSSES
def test_compile_does_not_recompile_for_another_batch_size(loss: Loss, device: str) -> None:
    torch.compiler.reset()
    counter = torch._dynamo.testing.CompileCounter()
    compiled = torch.compile(loss.function, backend=counter, fullgraph=True)
    for rows in (6, 7, 50):
        input, target = loss.make_inputs((rows, 5), torch.float32, device)
        for tensor in (input, target):
            torch._dynamo.mark_dynamic(tensor, 0)
        result = compiled(input.requires_grad_(), target)
        torch.testing.assert_close(result, loss.reference(input, target))
        result.backward()
    assert counter.frame_count == 1
