"""The graph of a loss whose gradient is computed in the forward pass, in memory of its own or in that of the logits."""

import warnings
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch.testing._internal.two_tensor import TwoTensor
from torch.utils.checkpoint import checkpoint

from ce_ext.functional import cross_entropy
from tests.support.dispatch import OpCalls

pytestmark = pytest.mark.torch_modes

BOTH_WAYS = pytest.mark.parametrize("how", [{"grad_in_forward": True}, {"inplace": True}], ids=["fresh", "inplace"])


def _make(device: str, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    input = torch.randn(6, 5, device=device).to(dtype).requires_grad_()
    return input, torch.randint(0, 5, (6,), device=device)


def _loss(input: Tensor, target: Tensor, **options: Any) -> Tensor:
    """Of logits that are no leaf, which would not be overwritten."""
    return cross_entropy(input * 1, target, **options)


def _grad(input: Tensor, target: Tensor, **options: Any) -> Tensor:
    (grad,) = torch.autograd.grad(cross_entropy(input, target, **options).sum(), input)
    return grad


@BOTH_WAYS
@pytest.mark.parametrize("retain_graph", [False, True])
def test_it_serves_one_backward_pass(retain_graph: bool, how: dict[str, bool], device: str) -> None:
    input, target = _make(device)
    logits = input * 1
    loss = cross_entropy(logits, target, **how)
    grads = torch.autograd.grad(loss, logits, retain_graph=retain_graph)
    torch.testing.assert_close(grads, (_grad(input, target),))
    with pytest.raises(RuntimeError, match="serves one backward pass, and this is the second: retain_graph needs"):
        torch.autograd.grad(loss, logits)


@BOTH_WAYS
def test_it_has_no_derivative(how: dict[str, bool], device: str) -> None:
    input, target = _make(device)
    with pytest.raises(RuntimeError, match="has no derivative: create_graph needs grad_in_forward=False"):
        torch.autograd.grad(_loss(input, target, **how), input, create_graph=True)


@BOTH_WAYS
def test_change_before_backward_is_noticed(how: dict[str, bool], device: str) -> None:
    """Of the logits, where their memory has the gradient."""
    input, target = _make(device)
    logits = input * 1
    loss = cross_entropy(logits, target, **how)
    with torch.no_grad():
        logits.zero_()
    if "inplace" in how:
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()
    else:
        loss.backward()
        torch.testing.assert_close(input.grad, _grad(input, target))


@BOTH_WAYS
@pytest.mark.parametrize("retain_graph", [False, True])
def test_whoever_gets_it_keeps_it(retain_graph: bool, how: dict[str, bool], device: str) -> None:
    """As the gradient of a leaf, in the same memory: it is not copied for fear that the graph needs it, too."""
    input, target = _make(device)
    pointers = []
    logits = input + 0  # whose gradient is that of the leaf
    logits.register_hook(lambda grad: pointers.append(grad.data_ptr()))
    cross_entropy(logits, target, **how).backward(retain_graph=retain_graph)
    assert pointers == [input.grad.data_ptr()]
    assert (pointers == [logits.data_ptr()]) == ("inplace" in how)
    torch.testing.assert_close(input.grad, _grad(input, target))


@BOTH_WAYS
def test_saved_tensors_hooks(how: dict[str, bool], device: str) -> None:
    """All that waits for the backward pass is the gradient."""
    input, target = _make(device)
    packed = []

    def pack(tensor: Tensor) -> Tensor:
        packed.append(tensor.detach().clone())
        return tensor.detach().clone()

    logits = input * 1
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = cross_entropy(logits, target, **how)
    (grad,) = torch.autograd.grad(loss * 3, logits)
    expected = _grad(input, target)
    torch.testing.assert_close(packed, [expected])
    torch.testing.assert_close(grad, 3 * expected)


@BOTH_WAYS
@pytest.mark.parametrize("use_reentrant", [False, True])
def test_checkpoint(use_reentrant: bool, how: dict[str, bool], device: str) -> None:
    input, target = _make(device)
    checkpoint(lambda x: _loss(x / 2, target, **how), input, use_reentrant=use_reentrant).backward()
    torch.testing.assert_close(input.grad, _grad((input / 2).detach().requires_grad_(), target) / 2)


@BOTH_WAYS
def test_graph_that_is_dropped_drops_the_gradient(how: dict[str, bool], device: str) -> None:
    input, target = _make(device)
    logits = input * 1
    uses = logits._use_count()
    boxes = []

    class Box:
        def __init__(self, tensor: Tensor) -> None:
            self.tensor = tensor
            boxes.append(weakref.ref(self))

    with torch.autograd.graph.saved_tensors_hooks(Box, lambda box: box.tensor):
        loss = cross_entropy(logits, target, **how)
    assert all(box() for box in boxes) and len(boxes) == 1
    del loss
    assert logits._use_count() == uses and not boxes[0]()


@BOTH_WAYS
@pytest.mark.parametrize("denominator", [3, 0.0, -0.0, float("inf"), float("nan")])
def test_denominators(denominator: float, how: dict[str, bool], device: str) -> None:
    """Every number, and as a tensor that lies elsewhere or not: the bits of the plain loss, and its gradient."""
    input, target = _make(device)
    expected = torch.nn.functional.cross_entropy(input, target, reduction="sum") / denominator
    for divisor in (denominator, torch.tensor(denominator), torch.tensor(denominator, device=device)):
        loss, plain = (_loss(input, target, denominator=divisor, **options) for options in (how, {}))
        torch.testing.assert_close(loss, plain, rtol=0, atol=0, equal_nan=True)
        torch.testing.assert_close(loss, expected, equal_nan=True)
        grads = [torch.autograd.grad(result, input)[0] for result in (loss, plain)]
        torch.testing.assert_close(*grads, rtol=1e-6, atol=0, equal_nan=True)


@BOTH_WAYS
def test_reports_are_not_differentiable(how: dict[str, bool], device: str) -> None:
    input, target = _make(device)
    loss, stats = _loss(input, target, return_stats=True, **how)
    assert loss.requires_grad and not any(values.requires_grad for values in stats)
    torch.testing.assert_close(torch.autograd.grad(loss, input)[0], _grad(input, target))


@BOTH_WAYS
def test_no_graph_where_none_is_needed(how: dict[str, bool], device: str) -> None:
    input, target = _make(device)
    assert not _loss(input.detach(), target, **how).requires_grad
    with torch.no_grad():
        assert not _loss(input, target, **how).requires_grad
    with torch.inference_mode():
        assert _loss(input, target, **how).is_inference()
        of_inference = target.clone()
    (grad,) = torch.autograd.grad(_loss(input, of_inference, **how), input)  # of a target that nobody saves
    torch.testing.assert_close(grad, _grad(input, target))


@BOTH_WAYS
def test_autocast_leaves_logits_as_they_are(how: dict[str, bool], device: str) -> None:
    input, target = _make(device, torch.bfloat16)
    with torch.autocast(device, dtype=torch.bfloat16):
        loss = _loss(input, target, **how)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(torch.autograd.grad(loss, input)[0], _grad(input, target))


@BOTH_WAYS
def test_modes_and_subclasses_see_the_call(how: dict[str, bool], device: str) -> None:
    input, target = _make(device)
    with OpCalls() as ops:
        _loss(input, target, **how).backward()
    assert ops.names() == ["ce_ext::cross_entropy_with_grad", "ce_ext::scale_gradient"]

    halved = TwoTensor(input.detach(), input.detach() / 2).requires_grad_()
    _loss(halved, target, **how).backward()
    for grad, logits in ((halved.grad.a, input), (halved.grad.b, input / 2)):
        torch.testing.assert_close(grad, _grad(logits.detach().requires_grad_(), target))

    with FakeTensorMode(allow_non_fake_inputs=False) as mode:
        input, target = map(mode.from_tensor, _make(device))
        _loss(input, target, denominator=3.0, **how).backward()
    assert type(input.grad) is type(input) and input.grad.shape == (6, 5)


@BOTH_WAYS
@pytest.mark.parametrize("factor", [1.0, 3.0])
def test_compiled_autograd(factor: float, how: dict[str, bool], device: str) -> None:
    """A graph recorded in eager mode whose backward is compiled."""
    torch.compiler.reset()
    compiler = torch.compile(backend="aot_eager", fullgraph=True)
    for options in ({}, {"denominator": 7.0}, {"reduction": "none"}):
        input, target = _make(device)
        with torch._dynamo.compiled_autograd._enable(compiler):
            (_loss(input, target, **options, **how) * factor).sum().backward()
        torch.testing.assert_close(input.grad, factor * _grad(input, target, **options))


@BOTH_WAYS
@pytest.mark.parametrize("compiles", [False, True])
def test_transforms_compute_the_gradient_in_backward(compiles: bool, how: dict[str, bool], device: str) -> None:
    """What they derive is the plain loss, whatever is hinted."""
    torch.compiler.reset()
    input, target = _make(device)
    inputs = torch.stack([input.detach(), input.detach() / 2])

    def vmap_of_grad(options: dict[str, bool]) -> Tensor:
        transform = torch.func.vmap(torch.func.grad(lambda x: _loss(x, target, **options)))
        return (torch.compile(transform, backend="aot_eager", fullgraph=True) if compiles else transform)(inputs)

    def jvp(options: dict[str, bool]) -> tuple[Tensor, Tensor]:
        return torch.func.jvp(lambda x: _loss(x, target, **options), (input.detach(),), (torch.ones_like(input),))

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        torch.testing.assert_close(vmap_of_grad(how), vmap_of_grad({}))
        torch.testing.assert_close(jvp(how), jvp({}))


@BOTH_WAYS
def test_forward_mode_computes_the_gradient_in_backward(how: dict[str, bool], device: str) -> None:
    """Of a leaf, too, which has both."""
    input, target = _make(device)
    results = []
    for options in (how, {}):
        with forward_ad.dual_level():
            dual = forward_ad.make_dual(input, torch.ones_like(input).cumsum(0))
            loss, tangent = forward_ad.unpack_dual(_loss(dual, target, **options))
        results.append((tangent, *torch.autograd.grad(loss, input)))
    torch.testing.assert_close(*results)


@BOTH_WAYS
def test_mean_of_float16_needs_a_loss_scale(how: dict[str, bool], device: str) -> None:
    """Whoever divides: its gradient may be too small for one otherwise."""
    input, target = _make(device, torch.float16)
    means = ({}, {"denominator": 7.0}, {"denominator": torch.tensor(7.0, device=device)})
    for options in means:
        with pytest.raises(ValueError, match="give loss_scale, the upstream gradient to expect, which is None"):
            _loss(input, target, **options, **how)
        _loss(input, target, **options, **how, loss_scale=64.0)
    for options in ({"reduction": "sum"}, {"reduction": "none"}):
        _loss(input, target, **options, **how)
    for options in means:
        _loss(*_make(device, torch.bfloat16), **options, **how)


def test_the_op_itself_has_no_forward_mode(device: str) -> None:
    input, target = _make(device)
    options = (1, -100, 0.0, 0.0, 0.0, 1.0, 0.0, False, False, None, 0, False, 1.0, 1.0)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(input.detach(), torch.ones_like(input))
        grad_input = torch.empty_like(input)
        with pytest.raises(NotImplementedError, match="cross_entropy_with_grad has no forward mode"):
            torch.ops.ce_ext.cross_entropy_with_grad(grad_input, dual, target, None, None, *options)
