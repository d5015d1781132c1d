"""Empty batches and means over nothing, targets and weights that the loss is differentiated in, public ops."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from ce_ext.options import BinaryCrossEntropyOptions
from tests.support.binary_cases import ASYMMETRIC, BCE, BCE_WITH_LOGITS, SIGMOID_FOCAL
from tests.support.cases import Loss
from tests.support.comparison import (
    assert_all_rounded,
    assert_reported,
    assert_rounded,
    loss_and_gradients,
    on_cpu,
    to_double,
)
from tests.support.marks import ALL_BINARY_LOSSES, ALL_REDUCTIONS, KINDS_OF_DTYPES

kernel = pytest.mark.kernel
modes = pytest.mark.torch_modes

OPS = torch.ops.ce_ext
NUMBERS = {"none": 0, "mean": 1, "sum": 2}


@kernel
@ALL_BINARY_LOSSES
@ALL_REDUCTIONS
@pytest.mark.parametrize("shape", [(0,), (0, 5), (5, 0), (2, 0, 3)])
def test_empty(loss: Loss, shape: tuple[int, ...], reduction: str, device: str) -> None:
    input, target = loss.make_inputs(shape, torch.float32, device)
    ours, theirs = (
        loss_and_gradients(partial(f, reduction=reduction), input, target)
        for f in (loss.function, on_cpu(loss.reference))
    )
    torch.testing.assert_close(ours, theirs, equal_nan=True)
    zero = loss_and_gradients(partial(loss.function, reduction=reduction, on_empty="zero"), input, target)
    torch.testing.assert_close(zero, [torch.zeros_like(x) for x in theirs])
    weight = torch.rand(shape[-1:], device=device).requires_grad_()
    result = loss.function(input, target, weight=weight, reduction=reduction, on_empty="zero")
    (grad,) = torch.autograd.grad(result.sum(), weight)
    assert (grad == 0).all() and grad.shape == weight.shape


@pytest.mark.covering(3)
@kernel
@ALL_BINARY_LOSSES
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("offset", [0, 3])
@pytest.mark.parametrize("size", [2047, 2048, 2049, 4095, 4096, 4097, 8195])
def test_sizes_around_those_that_a_block_takes(
    loss: Loss, size: int, offset: int, dtype: torch.dtype, device: str
) -> None:
    """Of CUDA: 2048 elements of 4 bytes, 4096 of 2, in packs of 16 bytes wherever they start."""
    input, target = (x[offset:] for x in loss.make_inputs((size + offset,), dtype, device))
    for reduction in ("mean", "none"):
        actual = loss_and_gradients(partial(loss.function, reduction=reduction), input, target)
        exact = loss_and_gradients(partial(loss.oracle, reduction=reduction), *to_double(input, target))
        assert_all_rounded(actual, exact, roundings=5)


@kernel
@ALL_BINARY_LOSSES
def test_groups_of_several_shares(loss: Loss, device: str) -> None:
    """Each of which has a last block of its own."""
    input, target = loss.make_inputs((3, 5001), torch.float32, device)
    for reduction in ("mean", "sum"):
        function, oracle = (partial(f, reduction=reduction) for f in (loss.function, loss.oracle))
        for targets in (target, target.round().long()):
            losses = torch.func.vmap(function)(input, targets)
            exact = [oracle(x, t) for x, t in zip(*to_double(input, targets), strict=True)]
            assert_rounded(losses, torch.stack(exact))
    weight = torch.rand(3, 1, device=device)
    for x in (input, input.t().contiguous().t()):
        actual = loss_and_gradients(lambda x, w: loss.function(x, target, weight=w), x, weight)
        exact = loss_and_gradients(lambda x, w: loss.oracle(x, target.double(), weight=w), *to_double(x, weight))
        assert_all_rounded(actual, exact, roundings=5)


@kernel
@ALL_BINARY_LOSSES
def test_more_shares_than_threads_of_a_block(loss: Loss, device: str) -> None:
    input, target = loss.make_inputs((300, 1000), torch.float64, device)
    for x in (input, input.t().contiguous().t()):
        torch.testing.assert_close(loss.function(x, target), loss.oracle(input, target))


@kernel
@ALL_BINARY_LOSSES
@pytest.mark.parametrize("on_empty", ["nan", "zero"])
@pytest.mark.parametrize("denominator", [None, 0.0, torch.tensor(0.0)], ids=["counted", "number", "tensor"])
def test_all_elements_ignored(loss: Loss, denominator: Tensor | float | None, on_empty: str, device: str) -> None:
    input, target = loss.make_inputs((7, 5), torch.float32, device)
    target.fill_(-100)
    if isinstance(denominator, Tensor):
        denominator = denominator.to(device)
    options: dict[str, Any] = {"denominator": denominator, "on_empty": on_empty, "ignore_index": -100}
    result, grad, grad_target = loss_and_gradients(partial(loss.function, **options), input, target)
    assert (grad == 0).all() or (on_empty == "nan" and grad.isnan().all())
    assert (grad_target == 0).all() or on_empty == "nan"
    assert result == 0 if on_empty == "zero" else result.isnan()
    assert loss.function(input, target, reduction="sum", ignore_index=-100) == 0


@kernel
@pytest.mark.parametrize("value", [-1, 6, 10**12])
def test_class_out_of_bounds(value: int, device: str, runs_cuda_kernels: bool) -> None:
    """The CPU raises, and so does the backward op, which trusts no forward to look. CUDA makes NaN and reports."""
    input, _ = SIGMOID_FOCAL.make_inputs((7, 5), torch.float32, device)
    target = torch.tensor([0, 5, 2, 4, value, 1, 3], device=device)
    if runs_cuda_kernels:
        loss = SIGMOID_FOCAL.function(input.requires_grad_(), target, reduction="none")
        assert_reported(4, value, classes=5)
        (grad,) = torch.autograd.grad(loss.sum(), input)
        assert_reported(4, value, classes=5)
        for x in (loss, grad):
            assert torch.equal(x.isnan().any(1), x.isnan().all(1))
            assert x.isnan().any(1).tolist() == [row == 4 for row in range(7)]
        return
    options = BinaryCrossEntropyOptions(2, gamma=2.0, needs_input=True)
    tensors = (input, target, None, None, None)
    for call in (
        partial(SIGMOID_FOCAL.function, input, target),
        partial(OPS.binary_cross_entropy_backward, torch.ones(()), *tensors, torch.empty(0), *options),
    ):
        with pytest.raises(IndexError, match=rf"target\[4\] = {value} is out of bounds: input has 5 classes, and 5"):
            call()


@kernel
@pytest.mark.not_cpu
def test_class_out_of_bounds_in_any_layout(device: str) -> None:
    input = torch.randn(2, 3, 4, 5, device=device).contiguous(memory_format=torch.channels_last)
    target = torch.randint(0, 3, (5, 4, 2), device=device).permute(2, 1, 0)
    target[1, 2, 3] = 4
    assert SIGMOID_FOCAL.function(input, target).isnan()
    assert_reported(4 * 5 + 2 * 5 + 3, 4, classes=3)
    SIGMOID_FOCAL.function(input, target, ignore_index=4)


def test_backward_checks_what_it_gets_from_forward() -> None:
    input = torch.zeros(3, 5)
    tensors = (input, input, None, None, None)
    options = BinaryCrossEntropyOptions(1, needs_input=True)

    def call(grad_output: Tensor, denominator: Tensor) -> Tensor:
        return OPS.binary_cross_entropy_backward(grad_output, *tensors, denominator, *options)[0]

    good = {"grad_output": torch.ones(()), "denominator": torch.ones(())}
    bad = {
        "grad_output": (torch.ones(3, 5), torch.ones(()).double()),
        "denominator": (torch.ones(0), torch.ones(3), torch.ones(()).half()),
    }
    assert (call(**good) == 0.5).all()
    for name, values in bad.items():
        for value in values:
            with pytest.raises(RuntimeError, match=f"{name} must be a .* tensor of shape"):
                call(**good | {name: value})


# A loss as a function of all that it is differentiable in, which are of shapes (4, 5), (4, 5), (5), (4, 1).
Function = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
FUNCTIONS: dict[str, tuple[Loss, dict[str, Any]]] = {
    "probabilities": (BCE, {}),
    "logits": (BCE_WITH_LOGITS, {}),
    "focal": (SIGMOID_FOCAL, {}),
    "focal, linear": (SIGMOID_FOCAL, {"gamma": 1.0, "alpha": -1.0}),
    "focal, power": (SIGMOID_FOCAL, {"gamma": 1.7, "alpha": 0.6, "label_smoothing": 0.1}),
    "asymmetric": (ASYMMETRIC, {}),
    "asymmetric, powers": (ASYMMETRIC, {"gamma_neg": 2.3, "gamma_pos": 0.7, "margin": 0.1, "label_smoothing": 0.1}),
}


def _functions(name: str, reduction: str, device: str) -> tuple[Function, Function, list[Tensor]]:
    """Of ce_ext and in float64, and their arguments."""
    loss, options = FUNCTIONS[name]
    input, target = loss.make_inputs((4, 5), torch.float64, device)
    target = 0.9 * target + 0.05  # finite differences must not leave [0, 1]
    weights = [torch.rand(shape, dtype=torch.float64, device=device) + 0.5 for shape in ((5,), (4, 1))]

    def bind(function: Callable[..., Tensor]) -> Function:
        if loss is BCE:
            return lambda x, t, w, p: function(x, t, weight=w * p, reduction=reduction, **options)
        return lambda x, t, w, p: function(x, t, weight=w, pos_weight=p, reduction=reduction, **options)

    return bind(loss.function), bind(loss.oracle), [input, target, *weights]


@modes
@pytest.mark.covering(1)
@pytest.mark.parametrize("name", FUNCTIONS)
@ALL_REDUCTIONS
def test_gradcheck(name: str, reduction: str, device: str) -> None:
    function, _, tensors = _functions(name, reduction, device)
    tensors = [x.requires_grad_() for x in tensors]
    modes = {"check_forward_ad": True, "check_batched_grad": True, "check_batched_forward_grad": True}
    assert torch.autograd.gradcheck(function, tensors, **modes)
    assert torch.autograd.gradgradcheck(function, tensors, check_fwd_over_rev=True, check_batched_grad=True)


TRANSFORMS = {
    "jacrev": torch.func.jacrev,
    "jacfwd": torch.func.jacfwd,
    "hessian": torch.func.hessian,
    "jacrev of jacfwd": lambda f, argnums: torch.func.jacrev(torch.func.jacfwd(f, argnums), argnums),
}


@modes
@pytest.mark.covering(2)
@pytest.mark.parametrize("name", ["probabilities", "logits", "focal, power", "asymmetric, powers"])
@pytest.mark.parametrize("transform", TRANSFORMS)
@ALL_REDUCTIONS
def test_transforms_in_all_arguments(name: str, transform: str, reduction: str, device: str) -> None:
    ours, theirs, tensors = _functions(name, reduction, device)
    transformed = TRANSFORMS[transform]
    torch.testing.assert_close(transformed(ours, (0, 1, 2, 3))(*tensors), transformed(theirs, (0, 1, 2, 3))(*tensors))


@modes
@pytest.mark.covering(2)
@kernel
@pytest.mark.parametrize("name", ["probabilities", "logits", "focal, power", "asymmetric, powers"])
@pytest.mark.parametrize("mapped", ["x", "t", "w", "p", "xtwp", "xw", "tp"])
@ALL_REDUCTIONS
def test_vmap_over_any_arguments(name: str, mapped: str, reduction: str, device: str) -> None:
    ours, theirs, tensors = _functions(name, reduction, device)
    in_dims = tuple(-1 if argument in mapped else None for argument in "xtwp")
    batched = [
        torch.stack([x, x / 2, x / 3], -1) if dim is not None else x for x, dim in zip(tensors, in_dims, strict=True)
    ]
    for make in (lambda f: f, lambda f: torch.func.jacrev(f, (0, 1, 2, 3))):
        torch.testing.assert_close(
            torch.func.vmap(make(ours), in_dims)(*batched), torch.func.vmap(make(theirs), in_dims)(*batched)
        )
    nested = torch.func.vmap(torch.func.vmap(ours, in_dims), in_dims)
    twice = [torch.stack([x, x / 4], -1) if dim is not None else x for x, dim in zip(batched, in_dims, strict=True)]
    torch.testing.assert_close(nested(*twice), torch.func.vmap(torch.func.vmap(theirs, in_dims), in_dims)(*twice))


@modes
@kernel
def test_vmap_over_transposed_samples(device: str) -> None:
    """That are interleaved in memory, which has an order of its own for the elements of each and none for samples."""
    input = torch.randn(5, 4, 3, dtype=torch.float64, device=device).permute(2, 1, 0)
    target = torch.rand_like(input)
    losses = torch.func.vmap(BCE_WITH_LOGITS.function)(input, target)
    torch.testing.assert_close(losses, torch.func.vmap(BCE_WITH_LOGITS.oracle)(input, target))


@modes
@kernel
@pytest.mark.parametrize("in_dims", [(0, 0), (None, 0), (1, None)], ids=str)
@ALL_REDUCTIONS
def test_vmap_over_classes(in_dims: tuple[int | None, int | None], reduction: str, device: str) -> None:
    input = torch.randn(3, 4, 5, dtype=torch.float64, device=device)
    target = torch.randint(0, 6, (3, 4), device=device)
    target[1, 2] = -100
    input = input[0] if in_dims[0] is None else input.movedim(0, in_dims[0])
    target = target[0] if in_dims[1] is None else target
    options = {"reduction": reduction, "ignore_index": -100}
    for make in (lambda f: f, torch.func.jacrev):
        ours, theirs = (make(partial(f, **options)) for f in (SIGMOID_FOCAL.function, SIGMOID_FOCAL.oracle))
        inputs = [input if in_dims[0] is None else input.select(in_dims[0], i) for i in range(3)]
        targets = [target if in_dims[1] is None else target[i] for i in range(3)]
        expected = [theirs(x, y) for x, y in zip(inputs, targets, strict=True)]
        torch.testing.assert_close(torch.func.vmap(ours, in_dims)(input, target), torch.stack(expected))


@modes
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_second_derivatives_of_classes_and_ignored_elements(reduction: str, device: str) -> None:
    input = torch.randn(4, 5, dtype=torch.float64, device=device)
    for target in (
        torch.tensor([0, 5, -100, 3], device=device),
        torch.tensor([[0, 1, -100, 1, 0]], device=device).expand(4, 5),
    ):
        options = {"reduction": reduction, "ignore_index": -100}
        if target.dim() == 2:  # and of missing ones
            target = target.double().where(torch.eye(4, 5, device=device) == 0, torch.nan)
            options["ignore_nan"] = True
        torch.testing.assert_close(
            torch.func.hessian(partial(SIGMOID_FOCAL.function, **options))(input, target),
            torch.func.hessian(partial(SIGMOID_FOCAL.oracle, **options))(input, target),
        )


@modes
@ALL_BINARY_LOSSES
def test_only_what_is_needed_is_computed(loss: Loss, device: str) -> None:
    """A weight that needs no gradient has none computed; one that does gets it without the input's."""
    input, target = loss.make_inputs((6, 5), torch.float32, device)
    tensors = {"input": input, "target": target, "weight": torch.rand(5, device=device)}
    _, *exact = loss_and_gradients(lambda x, t, w: loss.oracle(x, t, weight=w), *to_double(*tensors.values()))
    for needed, expected in zip(tensors, exact, strict=True):
        leaves = {name: x.detach().requires_grad_(name == needed) for name, x in tensors.items()}
        result = loss.function(leaves["input"], leaves["target"], weight=leaves["weight"])
        result.backward()
        grads = {name for name, x in leaves.items() if x.grad is not None}
        assert grads == {needed}
        assert_rounded(leaves[needed].grad, expected, roundings=3, scale=expected.abs().max().item())


@modes
@pytest.mark.covering(1)
@ALL_BINARY_LOSSES
@pytest.mark.parametrize("dynamic", [False, True])
def test_compile_with_gradients_in_all_tensors(loss: Loss, dynamic: bool, device: str) -> None:
    torch.compiler.reset()

    def step(x: Tensor, t: Tensor, w: Tensor) -> Tensor:
        return loss.function(x / 2, t, weight=w * 2, ignore_index=-1) * 3

    compiled = torch.compile(step, fullgraph=True, dynamic=dynamic)
    for rows in (6, 9):
        input, target = loss.make_inputs((rows, 5), torch.float32, device)
        weight = torch.rand(5, device=device)
        torch.testing.assert_close(
            loss_and_gradients(compiled, input, target, weight), loss_and_gradients(step, input, target, weight)
        )


@modes
@pytest.mark.covering(1)
@ALL_REDUCTIONS
@pytest.mark.parametrize("batch_dims", [0, 1])
@KINDS_OF_DTYPES
def test_opcheck(dtype: torch.dtype, batch_dims: int, reduction: str, device: str) -> None:
    pytest.importorskip("expecttest", reason="torch's opcheck imports it")
    input, target = SIGMOID_FOCAL.make_inputs((3, 5, 4), dtype, device)
    weights = [torch.rand(shape, device=device).to(dtype) for shape in ((3, 4), (3, 5, 1), (3, 1, 1))]
    if batch_dims == 0:
        weights = [weight[0] for weight in weights]
    for with_weights in (False, True):
        tensors = (input, target, *(weights if with_weights else (None, None, None)))
        options = BinaryCrossEntropyOptions(
            NUMBERS[reduction],
            gamma=1.5,
            label_smoothing=0.1,
            ignore_index=1,
            ignore_nan=with_weights,
            batch_dims=batch_dims,
        )
        torch.library.opcheck(OPS.binary_cross_entropy_forward.default, (*tensors, *options))
        result, denominator = OPS.binary_cross_entropy_forward(*tensors, *options)
        options = options._replace(
            needs_input=True, needs_target=True, needs_weight=with_weights, needs_pos_weight=with_weights
        )
        backward = (torch.ones_like(result), *tensors, denominator, *options)
        torch.library.opcheck(OPS.binary_cross_entropy_backward.default, backward)


@modes
@pytest.mark.parametrize("reduction", [0, 1, 2])
@pytest.mark.parametrize("fake_device", ["cpu", "cuda"])
def test_fakes_for_every_device(fake_device: str, reduction: int) -> None:
    with FakeTensorMode():
        layout = {"device": fake_device, "memory_format": torch.channels_last}
        input = torch.empty(2, 5, 3, 4, dtype=torch.bfloat16, **layout)
        target = torch.empty(2, 5, 3, 4, device=fake_device)
        weight, pos_weight = torch.empty(4, device=fake_device), torch.empty(5, 1, 1, device=fake_device)
        options = BinaryCrossEntropyOptions(
            reduction, needs_input=True, needs_target=True, needs_weight=True, needs_pos_weight=True
        )
        tensors = (input, target, weight, pos_weight, None)
        result, denominator = OPS.binary_cross_entropy_forward(*tensors, *options)
        grads = OPS.binary_cross_entropy_backward(result, *tensors, denominator, *options)
    assert result.shape == (input.shape if reduction == 0 else ())
    assert (denominator is not None) == (reduction == 1)
    assert {x.device.type for x in (result, denominator, *grads) if x is not None} == {fake_device}
    for grad, of in zip(grads, (input, target, weight, pos_weight), strict=True):
        assert (grad.shape, grad.dtype, grad.stride()) == (of.shape, of.dtype, of.stride())
    with pytest.raises(RuntimeError, match="input and target must be on the same device"):
        OPS.binary_cross_entropy_forward(torch.ones(2), torch.ones(2, device="meta"), None, None, None, *options)
