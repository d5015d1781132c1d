"""One loss in every mode of autograd and of the compilers, against torch's own in the same mode."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad

from ce_ext.options import CrossEntropyOptions
from tests.support.binary_cases import SIGMOID_FOCAL
from tests.support.cases import CROSS_ENTROPY, DTYPES, Loss
from tests.support.comparison import assert_rounded, to_double
from tests.support.dispatch import OpCalls
from tests.support.marks import (
    ALL_BINARY_LOSSES,
    ALL_CLASS_LOSSES,
    ALL_LOSSES,
    ALL_REDUCTIONS,
    CURVED_LOSSES,
    KINDS_OF_DTYPES,
)

pytestmark = pytest.mark.torch_modes

SHAPES = pytest.mark.parametrize("shape", [(5,), (6, 5), (4, 70), (2, 5, 3, 4)])


def _bind(loss: Loss, **options: Any) -> tuple[Callable[..., Tensor], Callable[..., Tensor]]:
    return (lambda x, y: loss.function(x, y, **options)), (lambda x, y: loss.reference(x, y, **options))


def _assert_same(
    transform: Callable[[Callable[..., Tensor]], Any], loss: Loss, *arguments: Any, **options: Any
) -> None:
    ours, theirs = _bind(loss, **options)
    torch.testing.assert_close(transform(ours)(*arguments), transform(theirs)(*arguments))


@pytest.mark.covering(2)
@ALL_LOSSES
@SHAPES
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_func_grad(loss: Loss, shape: tuple[int, ...], reduction: str, device: str) -> None:
    input, target = loss.make_inputs(shape, torch.float64, device)
    _assert_same(torch.func.grad, loss, input, target, reduction=reduction)
    _assert_same(torch.func.grad_and_value, loss, input, target, reduction=reduction, **loss.extras)


@pytest.mark.covering(2)
@ALL_LOSSES
@SHAPES
@ALL_REDUCTIONS
def test_func_jacrev_and_vjp(loss: Loss, shape: tuple[int, ...], reduction: str, device: str) -> None:
    input, target = loss.make_inputs(shape, torch.float64, device)
    _assert_same(torch.func.jacrev, loss, input, target, reduction=reduction)
    weight = torch.rand(loss.weight_shape(shape), dtype=torch.float64, device=device)
    _assert_same(torch.func.jacrev, loss, input, target, reduction=reduction, weight=weight)


@ALL_LOSSES
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_second_derivatives(loss: Loss, reduction: str, device: str) -> None:
    input, target = loss.make_inputs((3, 4), torch.float64, device)
    loss.ignore(target, 1)
    reverse_twice = lambda f: torch.func.jacrev(torch.func.jacrev(f))  # noqa: E731
    _assert_same(reverse_twice, loss, input, target, reduction=reduction, **loss.extras)


@ALL_CLASS_LOSSES
def test_second_derivative_where_all_rows_are_ignored(loss: Loss, device: str) -> None:
    input = torch.randn(3, 4, device=device, requires_grad=True)
    result = loss.function(input, torch.full((3,), -100, device=device))
    (grad,) = torch.autograd.grad(result, input, create_graph=True)
    (second,) = torch.autograd.grad(grad.square().sum(), input)
    assert (grad == 0).all() and (second == 0).all()


@ALL_BINARY_LOSSES
def test_derivatives_of_elements_that_are_ignored(loss: Loss, device: str) -> None:
    input, target = loss.make_inputs((4,), torch.float64, device)
    target[1:3] = torch.nan
    function = partial(loss.function, target=target, reduction="sum", ignore_nan=True, **loss.extras)
    kept = partial(loss.oracle, target=target[::3], reduction="sum", **loss.extras)
    for transform in (torch.func.hessian, lambda f: torch.func.jacrev(torch.func.hessian(f))):
        actual, expected = transform(function)(input), transform(kept)(input[::3])
        places = torch.tensor([0, 3], device=device)
        torch.testing.assert_close(actual[torch.meshgrid(*[places] * actual.dim(), indexing="ij")], expected)
        assert (actual != 0).sum() == (expected != 0).sum()


@pytest.mark.covering(2)
@ALL_LOSSES
@pytest.mark.kernel
@ALL_REDUCTIONS
@pytest.mark.parametrize("in_dims", [(0, 0), (1, 0), (-1, None), (None, 0), (2, -1)], ids=str)
def test_vmap(loss: Loss, in_dims: tuple[int | None, int | None], reduction: str, device: str) -> None:
    samples = [loss.make_inputs((4, 5, 3), torch.float64, device, seed) for seed in range(6)]
    inputs, targets = (torch.stack(tensors) for tensors in zip(*samples, strict=True))
    loss.ignore(targets, 2, 1)
    input = inputs[0] if in_dims[0] is None else inputs.movedim(0, in_dims[0])
    target = targets[0] if in_dims[1] is None else targets.movedim(0, in_dims[1])
    one_by_one = [
        (inputs[0] if in_dims[0] is None else inputs[i], targets[0] if in_dims[1] is None else targets[i])
        for i in range(6)
    ]
    for extras in loss.variants:
        ours, theirs = _bind(loss, reduction=reduction, **extras)
        for transform in (lambda f: f, torch.func.jacrev):
            expected = torch.stack([transform(theirs)(x, y) for x, y in one_by_one])
            for chunk_size in (None, 4):
                mapped = torch.func.vmap(transform(ours), in_dims, chunk_size=chunk_size)
                torch.testing.assert_close(mapped(input, target), expected)


@ALL_LOSSES
@pytest.mark.kernel
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_nested_vmap(loss: Loss, reduction: str, device: str) -> None:
    samples = [loss.make_inputs((4, 5), torch.float64, device, seed) for seed in range(6)]
    input, target = (torch.stack(tensors).unflatten(0, (2, 3)) for tensors in zip(*samples, strict=True))
    _assert_same(lambda f: torch.func.vmap(torch.func.vmap(f)), loss, input, target, reduction=reduction)
    per_sample = lambda f: torch.func.vmap(torch.func.vmap(torch.func.jacrev(f)))  # noqa: E731
    _assert_same(per_sample, loss, input, target, reduction=reduction)
    outer_only = lambda f: torch.func.vmap(torch.func.vmap(f, (0, None)), (0, None))  # noqa: E731
    _assert_same(outer_only, loss, input, target[0, 0], reduction=reduction)


@ALL_LOSSES
@pytest.mark.kernel
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_vmap_over_upstream_gradients(loss: Loss, reduction: str, device: str) -> None:
    """They share what the forward pass has kept."""
    input, target = loss.make_inputs((4, 5), torch.float64, device)
    factors = torch.rand(3, dtype=torch.float64, device=device)

    def grads(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        scaled = torch.func.grad(lambda x, y, factor: factor * function(x, y).sum())
        return lambda x, y: torch.func.vmap(scaled, (None, None, 0))(x, y, factors)

    _assert_same(grads, loss, input, target, reduction=reduction)


@ALL_LOSSES
@pytest.mark.kernel
@pytest.mark.parametrize("count", [3, 1])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_vmap_over_weights(loss: Loss, reduction: str, count: int, device: str) -> None:
    input, target = loss.make_inputs((4, 5), torch.float64, device)
    weights = torch.rand(count, 5, dtype=torch.float64, device=device)
    for function in (
        lambda w: loss.function(input, target, weight=w, reduction=reduction),
        lambda w: torch.func.jacrev(partial(loss.function, weight=w, reduction=reduction))(input, target),
    ):
        mapped = torch.func.vmap(function)(weights)
        torch.testing.assert_close(mapped, torch.stack([function(w) for w in weights]))


@ALL_LOSSES
def test_vmap_is_one_call_of_an_op(loss: Loss, device: str) -> None:
    """Where weights belong to all of the batch."""
    input, target = (torch.stack([x] * 3) for x in loss.make_inputs((4, 5), torch.float64, device))
    weight = torch.rand(5, dtype=torch.float64, device=device)
    with OpCalls() as ops:
        torch.func.vmap(torch.func.grad(partial(loss.function, weight=weight, reduction="mean")))(input, target)
    assert len(ops.names()) == len(set(ops.names())) == 2


def _weighted(loss: Loss, shape: tuple[int, ...], device: str, **options: Any) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Arguments in float64 with an ignored row, class weights and what else the loss has."""
    input, target = loss.make_inputs(shape, torch.float64, device)
    if target.dim():
        loss.ignore(target.view(-1), 1)
    weight = torch.rand(loss.weight_shape(shape), dtype=torch.float64, device=device)
    return input, target, {"weight": weight, **loss.extras, **options}


@pytest.mark.covering(2)
@ALL_LOSSES
@SHAPES
@ALL_REDUCTIONS
def test_func_jvp(loss: Loss, shape: tuple[int, ...], reduction: str, device: str) -> None:
    input, target, options = _weighted(loss, shape, device, reduction=reduction)
    tangent = torch.randn_like(input)
    jvp = lambda f: lambda x, y: torch.func.jvp(lambda x: f(x, y), (x,), (tangent,))  # noqa: E731
    _assert_same(jvp, loss, input, target, **options)
    _assert_same(jvp, loss, input, target, reduction=reduction)


TRANSFORMS = {
    "jacfwd": torch.func.jacfwd,
    "hessian": torch.func.hessian,
    "forward over forward": lambda f: torch.func.jacfwd(torch.func.jacfwd(f)),
    "reverse over forward": lambda f: torch.func.jacrev(torch.func.jacfwd(f)),
    "forward over hessian": lambda f: torch.func.jacfwd(torch.func.hessian(f)),
    "reverse over hessian": lambda f: torch.func.jacrev(torch.func.hessian(f)),
}


@pytest.mark.covering(2)
@ALL_LOSSES
@ALL_REDUCTIONS
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_forward_mode_nested(loss: Loss, transform: str, reduction: str, device: str) -> None:
    input, target, options = _weighted(loss, (3, 4), device, reduction=reduction)
    if loss.is_binary:  # torch's own writes to tangents in place, which raises
        loss = replace(loss, reference=loss.oracle)
    _assert_same(TRANSFORMS[transform], loss, input, target, **options)


@pytest.mark.covering(2)
@ALL_LOSSES
@ALL_REDUCTIONS
@pytest.mark.parametrize("shape", [(4, 5), (2, 5, 3)])
def test_forward_mode_and_vmap(loss: Loss, shape: tuple[int, ...], reduction: str, device: str) -> None:
    samples = [loss.make_inputs(shape, torch.float64, device, seed) for seed in range(3)]
    input, target = (torch.stack(tensors) for tensors in zip(*samples, strict=True))
    loss.ignore(target, 1, 0)
    tangent = torch.randn_like(input)
    weight = torch.rand(loss.weight_shape(shape), dtype=torch.float64, device=device)
    ours, theirs = _bind(loss, reduction=reduction, weight=weight, **loss.extras)

    def jvp(f: Callable[..., Tensor]) -> Callable[..., Any]:
        return lambda x, y, v: torch.func.jvp(lambda x: f(x, y), (x,), (v,))

    one_by_one = [jvp(theirs)(*sample) for sample in zip(input, target, tangent, strict=True)]
    expected = tuple(torch.stack(parts) for parts in zip(*one_by_one, strict=True))
    torch.testing.assert_close(torch.func.vmap(jvp(ours))(input, target, tangent), expected)
    torch.testing.assert_close(jvp(torch.func.vmap(ours))(input, target, tangent), expected)
    per_sample_hessians = lambda f: torch.func.vmap(torch.func.hessian(f))  # noqa: E731
    _assert_same(per_sample_hessians, loss, input, target, reduction=reduction, weight=weight, **loss.extras)


@pytest.mark.covering(2)
@CURVED_LOSSES
@ALL_REDUCTIONS
@pytest.mark.parametrize("dtype", DTYPES)
def test_dual_numbers(loss: Loss, dtype: torch.dtype, reduction: str, device: str) -> None:
    """Of torch.autograd.forward_ad: through the loss, and through its gradient, which is forward over reverse."""
    input, target = loss.make_inputs((4, 5), dtype, device)
    tangent = torch.randn_like(input)
    results = []
    for f, opmath in zip(_bind(loss, reduction=reduction, **loss.extras), (dtype, torch.float64), strict=True):
        leaf = input.to(opmath, copy=True).requires_grad_()
        y = target.to(opmath) if target.is_floating_point() else target
        with forward_ad.dual_level():
            result = f(forward_ad.make_dual(leaf, tangent.to(opmath)), y)
            (grad,) = torch.autograd.grad(result.sum(), leaf, create_graph=True)
            parts = [part for x in (result, grad) for part in forward_ad.unpack_dual(x)]
            assert {part.dtype for part in parts} == {opmath}
            results.append([part.detach().to(dtype) for part in parts])
            assert forward_ad.unpack_dual(f(leaf, y)).tangent is None
    torch.testing.assert_close(*results)


@ALL_LOSSES
@ALL_REDUCTIONS
def test_tangents_of_nothing(loss: Loss, reduction: str, device: str) -> None:
    """Of a mean NaN, as the mean is, and as the tangent of one that has nothing but ignored rows."""
    input, target = loss.make_inputs((0, 5), torch.float32, device)
    for extras in loss.variants:
        jvp = lambda f: lambda x, y: torch.func.jvp(lambda x: f(x, y), (x,), (x,))  # noqa: E731
        ours, theirs = (jvp(f)(input, target) for f in _bind(loss, reduction=reduction, **extras))
        torch.testing.assert_close(ours, theirs, equal_nan=True)


@ALL_LOSSES
@ALL_REDUCTIONS
@pytest.mark.parametrize("shape", [(0, 5), (0, 5, 2)])
def test_hessians_of_nothing(loss: Loss, shape: tuple[int, ...], reduction: str, device: str) -> None:
    input, target = loss.make_inputs(shape, torch.float64, device)
    for extras in loss.variants:
        function, _ = _bind(loss, reduction=reduction, **extras)
        result = torch.func.hessian(function)(input, target)
        assert result.shape == (*function(input, target).shape, *shape, *shape)


@ALL_LOSSES
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_tangents_of_losses_in_a_wider_dtype(loss: Loss, dtype: torch.dtype, device: str) -> None:
    """Nothing is rounded to that of the input."""
    input, target = loss.make_inputs((6, 5), dtype, device)
    tangent = torch.randn_like(input)
    for extras in loss.variants:
        _, actual = torch.func.jvp(
            lambda x, extras=extras: loss.function(x, target, out_dtype=torch.float32, **extras), (input,), (tangent,)
        )
        x, y, v = to_double(input, target, tangent)
        _, exact = torch.func.jvp(lambda x, y=y, extras=extras: loss.oracle(x, y, **extras), (x,), (v,))
        assert_rounded(actual, exact, roundings=8, scale=1.0)


@pytest.mark.covering(1)
@ALL_LOSSES
@pytest.mark.parametrize("dynamic", [False, True])
def test_compile(loss: Loss, dynamic: bool, device: str) -> None:
    torch.compiler.reset()

    def step(x: Tensor, y: Tensor) -> Tensor:
        return loss.function(x / 2, y, **loss.extras) * 3

    compiled = torch.compile(step, fullgraph=True, dynamic=dynamic)
    for shape in ((8, 10), (12, 70)):
        results = []
        for function in (compiled, step):
            input, target = loss.make_inputs(shape, torch.bfloat16, device)
            input.requires_grad_()
            result = function(input, target)
            result.backward()
            results.append((result.detach(), input.grad))
        torch.testing.assert_close(*results)
    with torch.no_grad():
        torch.testing.assert_close(compiled(input, target), step(input, target))


NUMBERS = {"label_smoothing": 0.1, "z_loss": 0.1, "softcap": 4.0, "logit_scale": 0.5}
# All that a call may have beyond torch's arguments: of class indices, and more than class probabilities have.
OPTIONS = {
    "classes": (CROSS_ENTROPY, NUMBERS),
    "gradient in forward": (CROSS_ENTROPY, {**NUMBERS, "grad_in_forward": True}),
    "gradient in place": (CROSS_ENTROPY, {**NUMBERS, "inplace": True, "loss_scale": 2.0}),
    "probabilities": (CROSS_ENTROPY, NUMBERS),
    "classes of the focal loss": (SIGMOID_FOCAL, {"gamma": 1.5, "label_smoothing": 0.1, "ignore_index": 1}),
}


@pytest.mark.parametrize("count_of", [float, torch.tensor])
@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("name", OPTIONS)
def test_compile_with_options(name: str, dynamic: bool, count_of: Callable[[float], Any], device: str) -> None:
    torch.compiler.reset()
    loss, numbers = OPTIONS[name]

    def step(x: Tensor, y: Tensor, weight: Tensor, count: Any, numbers: dict[str, Any]) -> list[Tensor]:
        """Numbers are among its arguments: where shapes are dynamic, so are those."""
        options = {"denominator": count, "on_empty": "zero", "out_dtype": torch.float32, **numbers}
        if loss is SIGMOID_FOCAL:
            return [loss.function(x / 2, y, weight, **options)]
        result, stats = loss.function(x / 2, y, sample_weight=weight, return_stats=True, **options)
        return [result, *stats]

    compiled = torch.compile(step, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for rows in (6, 9):
        input, target = CROSS_ENTROPY.make_inputs((rows, 5), torch.bfloat16, device)
        if name == "probabilities":
            target = torch.rand(rows, 5, device=device)
        weight = torch.rand(5 if loss is SIGMOID_FOCAL else rows, device=device)
        count = count_of(float(rows))
        count = count.to(device) if isinstance(count, Tensor) else count
        results = []
        for function in (compiled, step):
            leaf = input.clone().requires_grad_()
            outputs = function(leaf, target, weight, count, numbers)
            results.append([*outputs, *torch.autograd.grad(outputs[0], leaf)])
        torch.testing.assert_close(*results)


@pytest.mark.covering(1)
@ALL_LOSSES
@ALL_REDUCTIONS
def test_compile_channels_last(loss: Loss, reduction: str, device: str) -> None:
    torch.compiler.reset()
    input, target = loss.make_inputs((2, 5, 4, 3), torch.float32, device)
    input = input.contiguous(memory_format=torch.channels_last).requires_grad_()
    ours, _ = _bind(loss, reduction=reduction)
    grads = []
    for function in (torch.compile(ours, fullgraph=True), ours):
        grads += torch.autograd.grad(function(input, target).sum(), input)
    torch.testing.assert_close(*grads)
    assert grads[0].stride() == grads[1].stride() == input.stride()


@pytest.mark.covering(1)
@ALL_LOSSES
@pytest.mark.parametrize("strict", [False, True])
def test_export(loss: Loss, strict: bool, device: str) -> None:
    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(7, 5, device=device)
            self.loss = loss.module(**loss.extras)

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return self.loss(self.layer(x).sigmoid(), y)

    model = Model()
    input, (_, target) = torch.randn(4, 7, device=device), loss.make_inputs((4, 5), torch.float32, device)
    loss.ignore(target, 3)
    batch = torch.export.Dim("batch", min=2)
    program = torch.export.export(model, (input, target), dynamic_shapes=({0: batch}, {0: batch}), strict=strict)
    torch.testing.assert_close(program.module()(input, target), model(input, target))
    twice = (torch.cat([input, input]), torch.cat([target, target]))
    torch.testing.assert_close(program.module()(*twice), model(*twice))
    torch.testing.assert_close(program.run_decompositions().module()(*twice), model(*twice))
    exported = program.module()
    exported(*twice).backward()
    model(*twice).backward()
    torch.testing.assert_close(exported.layer.weight.grad, model.layer.weight.grad)


def test_ahead_of_time_compilation(device: str, tmp_path: Path) -> None:
    """Of one loss: it takes long, and sees no more than the ops, which are the same for all."""
    loss = CROSS_ENTROPY
    input, target = loss.make_inputs((4, 5), torch.float32, device)
    program = torch.export.export(loss.module(**loss.extras), (input, target))
    package = torch._inductor.aoti_compile_and_package(program, package_path=str(tmp_path / "loss.pt2"))
    expected = loss.function(input, target, **loss.extras)
    torch.testing.assert_close(torch._inductor.aoti_load_package(package)(input, target), expected)


def _op_arguments(loss: Loss, shape: tuple[int, ...], dtype: torch.dtype, device: str) -> tuple[Any, ...]:
    input, target = loss.make_inputs(shape, dtype, device)
    return input, target, torch.rand(shape[1], device=device).to(dtype)


@pytest.mark.covering(1)
@ALL_REDUCTIONS
@pytest.mark.parametrize("batch_dims", [0, 1])
@KINDS_OF_DTYPES
def test_opcheck(dtype: torch.dtype, batch_dims: int, reduction: str, device: str) -> None:
    pytest.importorskip("expecttest", reason="torch's opcheck imports it")
    ops = torch.ops.ce_ext
    number = {"none": 0, "mean": 1, "sum": 2}[reduction]
    for weighted in (False, True):
        input, target, weight = _op_arguments(CROSS_ENTROPY, (3, 5, 4), dtype, device)
        if batch_dims == 1:  # (C, N) as one more batch dimension of (N, C)
            target = torch.randint(0, 4, (3, 5), device=device)
            input, weight = input.movedim(1, 1), torch.rand(4, device=device).to(dtype)
            input = input.unsqueeze(-1)[..., 0]
        tensors = (input, target, weight if weighted else None, torch.rand_like(target, dtype=dtype))
        options = CrossEntropyOptions(number, -100, 0.1, z_loss=0.1, batch_dims=batch_dims, report=weighted)
        torch.library.opcheck(ops.cross_entropy_forward.default, (*tensors, *options))
        result, stats, denominator, _, _ = ops.cross_entropy_forward(*tensors, *options)
        backward = (torch.ones_like(result), *tensors, stats, denominator, *options.of_backward())
        torch.library.opcheck(ops.cross_entropy_backward.default, backward)
        with_grad = (torch.empty_like(input), *tensors, *options.of_backward(), weighted, 2.0)
        torch.library.opcheck(ops.cross_entropy_with_grad.default, with_grad)


@pytest.mark.parametrize("reduction", [0, 1, 2])
@pytest.mark.parametrize("fake_device", ["cpu", "cuda"])
def test_fakes_for_every_device(fake_device: str, reduction: int) -> None:
    ops = torch.ops.ce_ext
    for shape, channels_last in (((5,), False), ((6, 5), False), ((2, 5, 3, 4), True)):
        rows = shape[:1] + shape[2:] if len(shape) > 1 else ()
        with FakeTensorMode():
            memory_format = torch.channels_last if channels_last else torch.contiguous_format
            input = torch.empty(shape, dtype=torch.bfloat16, device=fake_device, memory_format=memory_format)
            target = torch.empty(rows, dtype=torch.int64, device=fake_device)
            tensors, options = (input, target, None, None), CrossEntropyOptions(reduction, -100, report=True)
            result, stats, denominator, *report = ops.cross_entropy_forward(*tensors, *options)
            grad = ops.cross_entropy_backward(result, *tensors, stats, denominator, *options.of_backward())
        assert result.shape == (rows if reduction == 0 else ())
        assert result.dtype == grad.dtype == torch.bfloat16
        assert (denominator is not None) == (reduction == 1)
        numbers = (stats, *report[:1]) if denominator is None else (stats, *report[:1], denominator)
        assert {t.dtype for t in numbers} == {torch.float32}
        assert {t.device.type for t in (result, *numbers, *report, grad)} == {fake_device}
        assert [t.shape for t in (stats, *report)] == [(*rows, 3), (*rows, 3), rows]
        assert grad.stride() == input.stride()


@ALL_LOSSES
def test_module(loss: Loss, device: str) -> None:
    weight = torch.rand(5, device=device)
    options = {"weight": weight, "reduction": "sum", **loss.extras}
    if not loss.is_binary:
        options["ignore_index"] = 2
    ours, theirs = loss.module(**options), loss.reference_module(**options)
    input, target = loss.make_inputs((6, 5), torch.float32, device)
    torch.testing.assert_close(ours(input, target), theirs(input, target))
    theirs.load_state_dict(ours.state_dict())
    doubled = loss.module().double()(*to_double(input, target))
    assert doubled.dtype == torch.float64
    assert all(f"{name}={value!r}" in repr(ours) for name, value in options.items() if name != "weight")


@ALL_LOSSES
def test_no_graph_where_none_is_needed(loss: Loss, device: str) -> None:
    input, target = loss.make_inputs((6, 5), torch.float32, device)
    assert loss.function(input, target).grad_fn is None
    input.requires_grad_()
    with torch.no_grad():
        assert not loss.function(input, target).requires_grad
    with torch.inference_mode():
        assert loss.function(input, target).is_inference()
    assert loss.function(input, target).requires_grad
