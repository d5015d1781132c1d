"""Cross entropy with class probabilities, and its focal loss, in every mode of autograd and of the compilers, with
derivatives in the logits and in the target: against torch's own, and against the formula in torch's operations."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad

import ce_ext
from ce_ext.options import SoftCrossEntropyOptions
from tests.support import oracles, references
from tests.support.cases import DTYPES
from tests.support.marks import ALL_REDUCTIONS, KINDS_OF_DTYPES

pytestmark = pytest.mark.torch_modes

cross_entropy = ce_ext.functional.cross_entropy
softmax_focal_loss = ce_ext.functional.softmax_focal_loss
reference = torch.nn.functional.cross_entropy

SHAPES = pytest.mark.parametrize("shape", [(5,), (6, 5), (4, 70), (2, 5, 3, 4)])
Function = Callable[..., Tensor]


def _inputs(
    shape: tuple[int, ...], device: str, dtype: torch.dtype = torch.float64, seed: int = 0
) -> tuple[Tensor, Tensor]:
    generator = torch.Generator(device).manual_seed(seed)
    input, target = (torch.randn(shape, generator=generator, device=device) for _ in range(2))
    return input.to(dtype), target.softmax(0 if len(shape) == 1 else 1).to(dtype)


def _weights(shape: tuple[int, ...], device: str) -> dict[str, Any]:
    classes = shape[0] if len(shape) == 1 else shape[1]
    return {"weight": torch.rand(classes, dtype=torch.float64, device=device), "label_smoothing": 0.1}


def _assert_same(transform: Callable[[Function], Any], *arguments: Any, **options: Any) -> None:
    focal = softmax_focal_loss, references.soft_focal_loss
    for functions, more in (((cross_entropy, reference), {}), (focal, {"gamma": 1.5})):
        ours, theirs = (lambda x, q, f=f, more=more: f(x, q, **options, **more) for f in functions)
        torch.testing.assert_close(transform(ours)(*arguments), transform(theirs)(*arguments))


ALL_OPTIONS: dict[str, Any] = {"label_smoothing": 0.1, "z_loss": 0.3, "softcap": 4.0, "logit_scale": 1.5}


@pytest.mark.covering(1)
@ALL_REDUCTIONS
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("needed", [(True, True), (True, False), (False, True)], ids=str)
def test_gradcheck(needed: tuple[bool, bool], gamma: float, reduction: str, device: str) -> None:
    """In forward mode, too, and of the gradient: in the logits, the target and the upstream gradient."""
    input, target = _inputs((3, 4), device)
    options = {
        **ALL_OPTIONS,
        "weight": torch.rand(4, dtype=torch.float64, device=device),
        "sample_weight": torch.rand(3, dtype=torch.float64, device=device),
        "reduction": reduction,
        "gamma": gamma,
    }
    input.requires_grad_(needed[0])
    target.requires_grad_(needed[1])

    def function(x: Tensor, q: Tensor) -> Tensor:
        return softmax_focal_loss(x, q, **options)

    modes = {"check_forward_ad": True, "check_batched_grad": True, "check_batched_forward_grad": True}
    assert torch.autograd.gradcheck(function, (input, target), **modes)
    assert torch.autograd.gradgradcheck(
        function, (input, target), check_fwd_over_rev=True, check_batched_grad=True, gen_non_contig_grad_outputs=True
    )


def _grads_of_several_upstream(function: Function, argnums: Any) -> Function:
    """Which share what the forward pass has kept."""
    scaled = torch.func.grad(lambda x, q, factor: factor * function(x, q).sum(), argnums)
    return lambda x, q: torch.func.vmap(scaled, (None, None, 0))(x, q, x.new_tensor([1, 2, 3]))


TRANSFORMS: dict[str, Callable[..., Any]] = {
    "several upstream": _grads_of_several_upstream,
    "jacrev": torch.func.jacrev,
    "jacfwd": torch.func.jacfwd,
    "hessian": torch.func.hessian,
    "reverse twice": lambda f, argnums: torch.func.jacrev(torch.func.jacrev(f, argnums), argnums),
    "reverse over forward": lambda f, argnums: torch.func.jacrev(torch.func.jacfwd(f, argnums), argnums),
    "forward over hessian": lambda f, argnums: torch.func.jacfwd(torch.func.hessian(f, argnums), argnums),
    "reverse over hessian": lambda f, argnums: torch.func.jacrev(torch.func.hessian(f, argnums), argnums),
}


@pytest.mark.covering(2)
@ALL_REDUCTIONS
@pytest.mark.parametrize("argnums", [0, 1, (0, 1)], ids=str)
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_transforms(transform: str, argnums: Any, reduction: str, device: str) -> None:
    input, target = _inputs((2, 3), device)
    options = {"reduction": reduction, **_weights((2, 3), device)}
    _assert_same(lambda f: TRANSFORMS[transform](f, argnums), input, target, **options)


@SHAPES
@pytest.mark.parametrize("argnums", [0, 1, (0, 1)], ids=str)
def test_func_grad(shape: tuple[int, ...], argnums: Any, device: str) -> None:
    options = _weights(shape, device)
    _assert_same(lambda f: torch.func.grad_and_value(f, argnums), *_inputs(shape, device), **options)


@pytest.mark.covering(2)
@pytest.mark.kernel
@ALL_REDUCTIONS
@pytest.mark.parametrize("in_dims", [(0, 0), (1, 0), (-1, None), (None, 0), (2, -1)], ids=str)
def test_vmap(in_dims: tuple[int | None, int | None], reduction: str, device: str) -> None:
    samples = [_inputs((4, 5, 3), device, seed=seed) for seed in range(6)]
    stacks = [torch.stack(tensors) for tensors in zip(*samples, strict=True)]
    arguments = [x[0] if dim is None else x.movedim(0, dim) for x, dim in zip(stacks, in_dims, strict=True)]
    transforms = {"jacrev": torch.func.jacrev, "jacfwd": torch.func.jacfwd}
    _assert_same(lambda f: torch.func.vmap(f, in_dims, chunk_size=4), *arguments, reduction=reduction)
    for derivative in transforms.values():
        for argnums in (0, 1, (0, 1)):
            mapped = lambda f, d=derivative, a=argnums: torch.func.vmap(d(f, a), in_dims)  # noqa: E731
            _assert_same(mapped, *arguments, reduction=reduction)


def test_derivative_of_a_mapped_loss(device: str) -> None:
    """The transform that needs the target's gradient is not the one that is nearest to the op."""
    samples = [_inputs((4, 5), device, seed=seed) for seed in range(3)]
    input, target = (torch.stack(tensors) for tensors in zip(*samples, strict=True))
    total = lambda f: lambda x, q: torch.func.vmap(f)(x, q).sum()  # noqa: E731
    inner_first = lambda f: lambda x, q: torch.func.grad(f)(x, q).square().sum()  # noqa: E731
    for argnums in (0, 1, (0, 1)):
        _assert_same(lambda f, a=argnums: torch.func.grad(total(f), a), input, target)
        _assert_same(lambda f, a=argnums: torch.func.grad(inner_first(f), a), input[0], target[0])


@pytest.mark.kernel
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_vmap_over_weights(reduction: str, device: str) -> None:
    input, target = _inputs((4, 5), device)
    weights = torch.rand(3, 5, dtype=torch.float64, device=device)
    for transform in (lambda f: f, lambda f: torch.func.jacrev(f, (0, 1))):

        def function(w: Tensor, transform: Any = transform) -> Any:
            return transform(lambda x, q: cross_entropy(x, q, w, reduction=reduction))(input, target)

        one_by_one = [function(w) for w in weights]
        expected = (
            torch.stack(one_by_one)
            if isinstance(one_by_one[0], Tensor)
            else tuple(map(torch.stack, zip(*one_by_one, strict=True)))
        )
        torch.testing.assert_close(torch.func.vmap(function)(weights), expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_dual_numbers(dtype: torch.dtype, device: str) -> None:
    input, target = _inputs((4, 5), device, dtype)
    tangents = [torch.randn_like(x) for x in (input, target)]
    results = []
    for function, opmath in ((cross_entropy, dtype), (reference, torch.float64)):
        x, q = (t.to(opmath, copy=True).requires_grad_() for t in (input, target))
        with forward_ad.dual_level():
            duals = [forward_ad.make_dual(t, v.to(opmath)) for t, v in zip((x, q), tangents, strict=True)]
            result = function(*duals, label_smoothing=0.1)
            grads = torch.autograd.grad(result, (x, q), create_graph=True)
            parts = [part for y in (result, *grads) for part in forward_ad.unpack_dual(y)]
            assert {part.dtype for part in parts} == {opmath}
            results.append([part.detach().to(dtype) for part in parts])
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("gamma", [0.0, 0.5])
def test_second_derivative_with_an_impossible_class(gamma: float, device: str) -> None:
    """A logit of -inf that has no probability: derivatives are those without the class."""
    input, target = _inputs((3, 4), device)
    input[:, 1], target[:, 1] = -torch.inf, 0
    kept = [0, 2, 3]
    hessians = []
    for x, q in ((input, target), (input[:, kept], target[:, kept])):
        leaf, probabilities = x.clone().requires_grad_(), q.clone().requires_grad_()
        loss = softmax_focal_loss(leaf, probabilities, gamma=gamma)
        grads = torch.autograd.grad(loss, (leaf, probabilities), create_graph=True)
        total = sum((g.where(g.isfinite(), 0) ** 2).sum() for g in grads)
        hessians.append(torch.autograd.grad(total, (leaf, probabilities)))
    for whole, without in zip(*hessians, strict=True):
        torch.testing.assert_close(whole[:, kept], without)
    assert (hessians[0][0][:, 1] == 0).all()


def _step(x: Tensor, q: Tensor) -> Tensor:
    return cross_entropy(x * 2, q, label_smoothing=0.1) * 3 + softmax_focal_loss(x, q)


@pytest.mark.covering(1)
@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("needed", [(True, True), (True, False), (False, True)], ids=str)
def test_compile(needed: tuple[bool, bool], dynamic: bool, device: str) -> None:
    torch.compiler.reset()
    compiled = torch.compile(_step, fullgraph=True, dynamic=dynamic)
    for shape in ((8, 10), (12, 70)):
        results = []
        for function in (compiled, _step):
            tensors = _inputs(shape, device, torch.float32)
            leaves = [t.requires_grad_() for t, is_needed in zip(tensors, needed, strict=True) if is_needed]
            result = function(*tensors)
            results.append((result.detach(), *torch.autograd.grad(result, leaves)))
        torch.testing.assert_close(*results)
    with torch.no_grad():
        torch.testing.assert_close(compiled(*tensors), _step(*tensors))


def test_compiled_autograd(device: str) -> None:
    torch.compiler.reset()
    compiler = torch.compile(backend="aot_eager", fullgraph=True)
    for needed in ((True, True), (True, False), (False, True)):
        tensors = _inputs((6, 5), device, torch.float32)
        leaves = [t.requires_grad_() for t, is_needed in zip(tensors, needed, strict=True) if is_needed]
        with torch._dynamo.compiled_autograd._enable(compiler):
            cross_entropy(*tensors).backward()
        expected = torch.autograd.grad(reference(*tensors), leaves)
        torch.testing.assert_close(tuple(leaf.grad for leaf in leaves), expected)


def test_compile_channels_last(device: str) -> None:
    torch.compiler.reset()
    input, target = _inputs((2, 5, 4, 3), device, torch.float32)
    input = input.contiguous(memory_format=torch.channels_last).requires_grad_()
    target.requires_grad_()
    results = []
    for function in (torch.compile(cross_entropy, fullgraph=True), cross_entropy):
        results.append(torch.autograd.grad(function(input, target), (input, target)))
        assert [g.stride() for g in results[-1]] == [input.stride(), target.stride()]
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("strict", [False, True])
def test_export(strict: bool, device: str) -> None:
    class Model(torch.nn.Module):
        def forward(self, x: Tensor, q: Tensor) -> Tensor:
            return _step(x, q)

    arguments = _inputs((4, 5), device, torch.float32)
    batch = torch.export.Dim("batch", min=2)
    program = torch.export.export(Model(), arguments, dynamic_shapes=({0: batch}, {0: batch}), strict=strict)
    twice = tuple(torch.cat([t, t]) for t in arguments)
    torch.testing.assert_close(program.module()(*twice), _step(*twice))
    torch.testing.assert_close(program.run_decompositions().module()(*twice), _step(*twice))


@pytest.mark.covering(1)
@pytest.mark.parametrize("reduction", [0, 1, 2])
@KINDS_OF_DTYPES
def test_opcheck(dtype: torch.dtype, reduction: int, device: str) -> None:
    pytest.importorskip("expecttest", reason="torch's opcheck imports it")
    forward = torch.ops.ce_ext.soft_cross_entropy_forward.default
    backward = torch.ops.ce_ext.soft_cross_entropy_backward.default
    input, target = _inputs((3, 5, 4), device, dtype)
    weight = torch.rand(5, device=device).to(dtype)
    for batch_dims, needs in ((0, (True, True)), (0, (False, True)), (1, (True, False))):
        tensors = (input, target, None if batch_dims else weight, None)
        gamma = 0.0 if batch_dims else 1.5
        options = (reduction, 0.1, gamma, 0.1, 1.0, 0.0, False, None, None, *needs, batch_dims)
        for keep_stats, report in ((True, True), (False, False)):
            torch.library.opcheck(forward, (*tensors, *options, keep_stats, report))
        result, stats, denominator, *_ = forward(*tensors, *options, True, False)
        torch.library.opcheck(backward, (torch.ones_like(result), *tensors, stats, denominator, *options))


@pytest.mark.parametrize("fake_device", ["cpu", "cuda"])
def test_fakes_for_every_device(fake_device: str) -> None:
    ops = torch.ops.ce_ext
    with FakeTensorMode():
        input = torch.empty(2, 5, 3, 4, dtype=torch.bfloat16, device=fake_device, memory_format=torch.channels_last)
        target = torch.empty(2, 5, 3, 4, device=fake_device)
        tensors, options = (input, target, None, None), SoftCrossEntropyOptions(0, report=True)
        loss, stats, denominator, report, argmax = ops.soft_cross_entropy_forward(*tensors, *options)
        needed = options._replace(needs_input=True, needs_target=True).of_backward()
        grads = ops.soft_cross_entropy_backward(loss, *tensors, stats, denominator, *needed)
    assert loss.shape == argmax.shape == (2, 3, 4) and report.shape == (2, 3, 4, 3) and stats.shape == (2, 3, 4, 4)
    assert (loss.dtype, stats.dtype, report.dtype) == (torch.bfloat16, torch.float32, torch.float32)
    assert denominator is None and argmax.dtype == torch.int64
    assert {t.device.type for t in (loss, stats, report, argmax)} == {fake_device}
    for grad, tensor in zip(grads, (input, target), strict=True):
        assert (grad.dtype, grad.stride(), grad.device) == (tensor.dtype, tensor.stride(), tensor.device)


def test_module_and_hints(device: str) -> None:
    input, target = _inputs((6, 5), device, torch.float32)
    weight = torch.rand(5, device=device)
    module = ce_ext.nn.CrossEntropyLoss(weight, label_smoothing=0.1)
    expected = reference(input, target, weight, label_smoothing=0.1)
    torch.testing.assert_close(module(input, target), expected)
    hinted = cross_entropy(input, target, weight, label_smoothing=0.1, grad_in_forward=True)
    torch.testing.assert_close(hinted, expected)
    assert not cross_entropy(input, target).requires_grad
    denominator = torch.tensor(3.0, device=device, requires_grad=True)
    cross_entropy(input, target, denominator=denominator).backward()
    torch.testing.assert_close(
        denominator.grad, -oracles.soft_cross_entropy(input, target, reduction="sum").float() / 9
    )


@pytest.mark.parametrize(
    ("shape", "options", "error", "message"),
    [
        ((4, 6), {}, RuntimeError, r"target of class probabilities .* \[4, 5\], but got shape \[4, 6\]"),
        ((4, 5, 1), {}, RuntimeError, r"target .* \[4, 5\], but got shape \[4, 5, 1\]"),
        ((4,), {}, RuntimeError, r"target .* \[4, 5\], but got shape \[4\]"),
        ((), {}, ValueError, r"target .* \[4, 5\], but got shape \[\]"),
        ((3, 5), {}, ValueError, r"target .* \[4, 5\], but got shape \[3, 5\]"),
        ((4, 5), {"ignore_index": 2}, RuntimeError, "ignore_index .* but got 2"),
        ((4, 5), {"label_smoothing": 1.5}, RuntimeError, "label_smoothing must be between 0.0 and 1.0, but got 1.5"),
        ((4, 5), {"weight": torch.ones(4)}, RuntimeError, r"weight must have shape \[5\].* \[4\]"),
        ((4, 5), {"reduction": "avg"}, ValueError, "reduction .* 'avg'"),
        ((4, 5), {"sample_weight": torch.ones(5)}, RuntimeError, r"sample_weight must have shape \[4\].* \[5\]"),
        ((4, 5), {"inplace": True}, ValueError, "inplace must be False .* got True"),
        ((4, 5), {"z_loss": -1.0}, ValueError, "z_loss .* -1"),
    ],
    ids=str,
)
def test_errors(shape: tuple[int, ...], options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        cross_entropy(torch.randn(4, 5), torch.rand(shape), **options)
    if not options.keys() & {"sample_weight", "inplace", "z_loss"}:
        with pytest.raises(error):
            reference(torch.randn(4, 5), torch.rand(shape), **options)


def test_errors_of_dtypes_and_devices() -> None:
    input = torch.randn(4, 5)
    with pytest.raises(RuntimeError, match=r"target .* got ComplexFloat"):
        cross_entropy(input, torch.rand(4, 5).cfloat())
    with pytest.raises(RuntimeError, match="target on meta"):
        cross_entropy(input, torch.rand(4, 5, device="meta"))
    with pytest.raises(NotImplementedError, match=r"input must be .* Long"):
        cross_entropy(input.long(), torch.rand(4, 5).float())
    with pytest.raises(RuntimeError, match=r"target .* \[4, 5\], but got shape \[4\]"):
        ce_ext.functional.softmax_focal_loss(input, torch.rand(4))
