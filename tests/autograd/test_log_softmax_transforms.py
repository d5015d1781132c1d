"""Log-softmax in every mode of autograd and of the compilers, against torch's own; and torch's own samples of it."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad

import ce_ext
from tests.support.cases import DTYPES, ROUNDING
from tests.support.comparison import assert_rounded
from tests.support.marks import KINDS_OF_DTYPES

pytestmark = pytest.mark.torch_modes

log_softmax = ce_ext.functional.log_softmax
reference = torch.nn.functional.log_softmax
ops = torch.ops.ce_ext

SHAPES_AND_DIMS = pytest.mark.parametrize(
    ("shape", "dim"), [((), 0), ((5,), 0), ((3, 4), 0), ((3, 4), -1), ((2, 3, 4), 1), ((2, 70), 1)]
)


def _input(*shape: int, device: str) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, device=device)


def _along(function: Callable[..., Tensor], dim: int) -> Callable[[Tensor], Tensor]:
    return lambda x: function(x, dim)


def _weighted(function: Callable[..., Tensor], weight: Tensor, dim: int) -> Callable[[Tensor], Tensor]:
    """A number, whose derivatives are different for every class."""
    return lambda x: (function(x, dim).exp() * weight).sum()


@SHAPES_AND_DIMS
def test_gradcheck(shape: tuple[int, ...], dim: int, device: str) -> None:
    input = _input(*shape, device=device).requires_grad_()
    assert torch.autograd.gradcheck(_along(log_softmax, dim), input, check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(_along(log_softmax, dim), input, check_fwd_over_rev=True)


@SHAPES_AND_DIMS
def test_func_derivatives(shape: tuple[int, ...], dim: int, device: str) -> None:
    input, weight = _input(*shape, device=device), _input(*shape, device=device)
    for transform in (torch.func.jacrev, torch.func.jacfwd):
        torch.testing.assert_close(transform(_along(log_softmax, dim))(input), transform(_along(reference, dim))(input))
    reverse_twice = lambda f: torch.func.jacrev(torch.func.jacrev(f))  # noqa: E731
    forward_twice = lambda f: torch.func.jacfwd(torch.func.jacfwd(f))  # noqa: E731
    third = lambda f: torch.func.jacfwd(torch.func.hessian(f))  # noqa: E731
    for transform in (torch.func.grad, torch.func.hessian, reverse_twice, forward_twice, third):
        ours, theirs = (_weighted(function, weight, dim) for function in (log_softmax, reference))
        torch.testing.assert_close(transform(ours)(input), transform(theirs)(input))


@SHAPES_AND_DIMS
def test_forward_mode(shape: tuple[int, ...], dim: int, device: str) -> None:
    input, tangent, weight = (_input(*shape, device=device) for _ in range(3))
    results = []
    for function in (log_softmax, reference):
        results.append([*torch.func.jvp(_along(function, dim), (input,), (tangent,))])
        gradient = torch.func.grad(_weighted(function, weight, dim))
        results[-1] += torch.func.jvp(gradient, (input,), (tangent,))
        with forward_ad.dual_level():
            output = function(forward_ad.make_dual(input, tangent), dim)
            results[-1] += forward_ad.unpack_dual(output)
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_forward_mode_keeps_dtypes(dtype: torch.dtype, device: str) -> None:
    input, tangent = (torch.randn(3, 4, device=device).to(dtype) for _ in range(2))
    for out_dtype in (dtype, torch.float32):
        function = lambda x, t=out_dtype: log_softmax(x, 1, dtype=t)  # noqa: E731
        output, output_tangent = torch.func.jvp(function, (input,), (tangent,))
        assert output.dtype == output_tangent.dtype == out_dtype
        v, p = tangent.double(), output.double().exp()
        assert_rounded(output_tangent, v - (p * v).sum(1, keepdim=True), scale=1)

        gradient = lambda x, f=function: torch.func.vjp(f, x)[1](tangent.to(f(x).dtype))[0]  # noqa: E731
        grad, grad_tangent = torch.func.jvp(gradient, (input,), (tangent,))
        assert grad.dtype == grad_tangent.dtype == dtype


def test_compiled_forward_mode(device: str) -> None:
    torch.compiler.reset()
    input, tangent = _input(3, 4, device=device), _input(3, 4, device=device)
    for transform in (
        lambda f: lambda x: torch.func.jvp(f, (x,), (tangent,)),
        lambda f: torch.func.hessian(lambda x: f(x).exp()[0].sum()),
    ):
        compiled = torch.compile(transform(_along(log_softmax, 1)), fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(input), transform(_along(reference, 1))(input))


@pytest.mark.kernel
@pytest.mark.parametrize("in_dim", [0, 1, 2, -1])
@pytest.mark.parametrize("dim", [0, 1, -1, -2])
def test_vmap(dim: int, in_dim: int, device: str) -> None:
    input = _input(3, 4, 5, device=device)
    grad_output = torch.randn_like(input.select(in_dim, 0))

    def gradient(function: Callable[..., Tensor]) -> Callable[[Tensor], Tensor]:
        return lambda x: torch.func.vjp(_along(function, dim), x)[1](grad_output)[0]

    for transform in (lambda f: _along(f, dim), gradient):
        expected = torch.stack([transform(reference)(x) for x in input.unbind(in_dim)])
        for chunk_size in (None, 2):
            mapped = torch.func.vmap(transform(log_softmax), in_dim, chunk_size=chunk_size)
            torch.testing.assert_close(mapped(input), expected)


@pytest.mark.kernel
def test_vmap_over_upstream_gradients_of_any_dimension(device: str) -> None:
    input = _input(4, 5, device=device)
    for in_dim in (0, 1, 2):
        grad_outputs = _input(4, 5, 3, device=device).movedim(-1, in_dim)
        results = []
        for function in (log_softmax, reference):
            _, vjp = torch.func.vjp(_along(function, 1), input)
            results.append(torch.func.vmap(vjp, in_dim)(grad_outputs))
        torch.testing.assert_close(*results)


@pytest.mark.kernel
def test_vmap_of_samples_without_dimensions(device: str) -> None:
    input = _input(6, device=device)
    for transform in (lambda f: f, torch.func.grad):
        mapped = [torch.func.vmap(transform(_along(function, 0)))(input) for function in (log_softmax, reference)]
        torch.testing.assert_close(*mapped)


def test_nested_vmap(device: str) -> None:
    input = _input(2, 3, 4, 5, device=device)
    for transform in (lambda f: f, torch.func.jacrev, torch.func.jacfwd):
        results = [
            torch.func.vmap(torch.func.vmap(transform(_along(function, 0)), 1))(input)
            for function in (log_softmax, reference)
        ]
        torch.testing.assert_close(*results)
    with pytest.raises(IndexError, match="dim"):
        torch.func.vmap(_along(log_softmax, -3))(input[0])


@pytest.mark.covering(1)
@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize(("dtype", "out_dtype"), [(torch.float32, None), (torch.bfloat16, torch.float32)], ids=str)
def test_compile(dtype: torch.dtype, out_dtype: torch.dtype | None, dynamic: bool, device: str) -> None:
    torch.compiler.reset()
    step = lambda x: log_softmax(x * 2, -1, dtype=out_dtype)  # noqa: E731
    compiled = torch.compile(step, fullgraph=True, dynamic=dynamic)
    for shape in ((8, 10), (12, 70)):
        input = torch.randn(shape, device=device).to(dtype).requires_grad_()
        grad_output = torch.randn(shape, device=device)
        results = []
        for function in (compiled, step):
            output = function(input)
            results.append([output, *torch.autograd.grad(output, input, grad_output.to(output.dtype))])
        torch.testing.assert_close(*results)
    with torch.no_grad():
        torch.testing.assert_close(compiled(input), step(input))


def test_compile_channels_last(device: str) -> None:
    torch.compiler.reset()
    input = torch.randn(2, 5, 4, 3, device=device).contiguous(memory_format=torch.channels_last).requires_grad_()
    ours = _along(log_softmax, 1)
    results = []
    for function in (torch.compile(ours, fullgraph=True), ours):
        output = function(input)
        results.append([output, *torch.autograd.grad(output.square().sum(), input)])
        assert [x.stride() for x in results[-1]] == [input.stride()] * 2
    torch.testing.assert_close(*results)


def test_export(device: str) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(7, 5, device=device), ce_ext.nn.LogSoftmax(1))
    input = torch.randn(4, 7, device=device)
    program = torch.export.export(model, (input,), dynamic_shapes=({0: torch.export.Dim("batch", min=2)},))
    for x in (input, torch.cat([input, input])):
        torch.testing.assert_close(program.module()(x), model(x))


@KINDS_OF_DTYPES
def test_opcheck(dtype: torch.dtype, device: str) -> None:
    pytest.importorskip("expecttest", reason="torch's opcheck imports it")
    matrix, image = torch.randn(3, 70, device=device).to(dtype), torch.randn(2, 5, 3, 4, device=device).to(dtype)
    channels_last = image.contiguous(memory_format=torch.channels_last)
    for input, dim in (
        (matrix[0, 0], -1),
        (matrix, 1),
        (matrix.t(), 1),
        (matrix[:0], 1),
        (channels_last, -3),
        (image[:, :1].expand_as(image), 1),
    ):
        for out_dtype in {None, torch.promote_types(dtype, torch.float32)}:
            torch.library.opcheck(ops.log_softmax_forward.default, (input, dim, out_dtype))
            output = ops.log_softmax_forward(input, dim, out_dtype)
            grad_output = torch.randn_like(output)
            torch.library.opcheck(ops.log_softmax_backward.default, (grad_output, output, dim, dtype))


@pytest.mark.parametrize("fake_device", ["cpu", "cuda"])
def test_fakes_for_every_device(fake_device: str) -> None:
    with FakeTensorMode():
        for out_dtype in (None, torch.bfloat16, torch.float32):
            for memory_format in (torch.contiguous_format, torch.channels_last):
                x = torch.empty(2, 5, 3, 4, dtype=torch.bfloat16, device=fake_device, memory_format=memory_format)
                output = ops.log_softmax_forward(x, 1, out_dtype)
                grad = ops.log_softmax_backward(output, output, 1, torch.bfloat16)
                assert output.dtype == (out_dtype or torch.bfloat16) and grad.dtype == torch.bfloat16
                assert output.device == grad.device == x.device
                assert output.stride() == grad.stride() == x.stride()


# Bad arguments, and the words that name them; the exceptions are torch's.
_X = torch.zeros(3, 5)
BAD_CALLS: dict[str, tuple[tuple[Any, ...], str]] = {
    "dim too large": ((_X, 2), r"dim must be in \[-2, 1\] for input of shape \(3, 5\), but got 2"),
    "dim too small": ((_X, -3), r"dim must be in \[-2, 1\] .* but got -3"),
    "dim of a scalar": ((torch.tensor(1.0), 1), r"dim must be in \[-1, 0\] for input of shape \(\), but got 1"),
    "float dim": ((_X, 1.0), "dim must be an int, but got .* of type float"),
    "bool dim": ((_X, True), "dim must be an int, but got .* of type bool"),
    "str dim": ((_X, "a"), "dim must be an int, but got .* of type str"),
    "integer input": ((_X.long(), 1), "input must be float64.* but got Long"),
    "bool input": ((_X.bool(), 1), "input must be float64.* but got Bool"),
    "complex input": ((_X.cfloat(), 1), "input must be float64.* but got ComplexFloat"),
    "integer dtype": ((_X, 1, torch.int64), "dtype must be float64.* but got torch.int64"),
    "complex dtype": ((_X, 1, torch.complex64), "dtype must be float64.* but got torch.complex64"),
    "str dtype": ((_X, 1, "float32"), "dtype must be a torch.dtype, but got str"),
}


@pytest.mark.parametrize("name", BAD_CALLS)
def test_bad_call(name: str) -> None:
    (input, dim, *dtype), message = BAD_CALLS[name]
    with pytest.raises(Exception) as expected:  # noqa: PT011  (whatever torch raises is what is expected)
        reference(input, dim, dtype=dtype[0] if dtype else None)
    # To torch 2.11 a str is the name of a dimension, of which this input has none.
    type_ = TypeError if isinstance(dim, str) else expected.type
    with pytest.raises(type_, match=message) as error:
        log_softmax(input, dim, dtype=dtype[0] if dtype else None)
    assert error.type is type_


def test_input_that_is_no_tensor() -> None:
    with pytest.raises(TypeError, match="input must be a Tensor, but got list"):
        log_softmax([0.0, 1.0], 0)


def test_ops_check_their_arguments() -> None:
    """They are public, and trust no caller to have looked."""
    output = torch.zeros(3, 5)
    for dim in (2, -3):
        with pytest.raises(IndexError, match=rf"range of \[-2, 1\], but got {dim}"):
            ops.log_softmax_forward(output, dim, None)
        with pytest.raises(IndexError, match=rf"range of \[-2, 1\], but got {dim}"):
            ops.log_softmax_backward(output, output, dim, torch.float32)
    with pytest.raises(RuntimeError, match=r"dtype must be that of input .* but got Double for an input of Float"):
        ops.log_softmax_forward(output, 1, torch.float64)
    with pytest.raises(RuntimeError, match=r"the dtype of output must be .* but got Float for an input of Double"):
        ops.log_softmax_backward(output, output, 1, torch.float64)
    with pytest.raises(NotImplementedError, match="but got Long"):
        ops.log_softmax_backward(output.long(), output.long(), 1, torch.int64)
    for bad in (output[:2], output.double()):
        with pytest.raises(RuntimeError, match=r"grad_output must be a Float tensor of shape \[3, 5\] on cpu"):
            ops.log_softmax_backward(bad, output, 1, torch.float32)
    for tensors in ((output.to("meta"), output), (output, output.to("meta"))):
        with pytest.raises(RuntimeError, match=r"grad_output must be .* on (cpu|meta), but got .* on (cpu|meta)"):
            ops.log_softmax_backward(*tensors, 1, torch.float32)


def test_module(device: str) -> None:
    input = torch.randn(6, 5, 4, device=device)
    for dim in (0, -1):
        ours, theirs = ce_ext.nn.LogSoftmax(dim), torch.nn.LogSoftmax(dim)
        torch.testing.assert_close(ours(input), theirs(input))
        assert repr(ours) == repr(theirs)
    with pytest.warns(UserWarning, match="Implicit dimension choice"):
        torch.testing.assert_close(ce_ext.nn.LogSoftmax()(input), reference(input, 0))


def test_no_graph_where_none_is_needed(device: str) -> None:
    input = torch.randn(6, 5, device=device)
    assert log_softmax(input, 1).grad_fn is None
    input.requires_grad_()
    with torch.no_grad():
        assert not log_softmax(input, 1).requires_grad
    with torch.inference_mode():
        assert log_softmax(input, 1).is_inference()
    assert log_softmax(input, 1).requires_grad


def test_output_changed_in_place_before_backward_is_noticed(device: str) -> None:
    output = log_softmax(torch.randn(6, 5, device=device, requires_grad=True), 1)
    with torch.no_grad():
        output.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()


# torch's own samples: `log_softmax` of every dtype, and of every dtype with `dtype=torch.float64`.
OPINFO = pytest.mark.parametrize(
    ("variant", "dtype"),
    [("", dtype) for dtype in DTYPES]
    + [("with_dtype", dtype) for dtype in (*DTYPES, torch.int64, torch.int32, torch.int8, torch.uint8, torch.bool)],
)


def _samples(variant: str, dtype: torch.dtype, device: str) -> Iterator[tuple[Tensor, Callable[..., Any]]]:
    """Every input, and what calls a function on it with the arguments of the sample."""
    pytest.importorskip("expecttest", reason="torch's samples import it")
    from torch.testing._internal.common_methods_invocations import op_db

    (info,) = (op for op in op_db if op.name == "log_softmax" and op.variant_test_name == variant)
    assert dtype in info.dtypes
    for sample in info.sample_inputs(device, dtype, requires_grad=dtype.is_floating_point):
        (dim,), options = sample.args, sample.kwargs
        yield sample.input, lambda f, x, dim=dim, options=options: f(x, dim, **options)


@pytest.mark.kernel
@pytest.mark.heavy
@OPINFO
def test_samples_of_torch(variant: str, dtype: torch.dtype, device: str) -> None:
    """Values, vmap, first and second derivatives, forward mode: within rounding, or as far off as torch's."""
    for input, call in _samples(variant, dtype, device):
        weights = torch.randn(3, *input.shape, device=device)
        if input.requires_grad:
            weights = weights.to(dtype)
        ours, theirs = (_results(function, call, input, weights) for function in (log_softmax, reference))
        exact = _results(reference, call, input.double(), weights)
        if input.numel() == 0:
            assert [x.shape for x in ours] == [x.shape for x in theirs]
            continue
        for actual, expected, in_float64 in zip(ours, theirs, exact, strict=True):
            assert actual.dtype == expected.dtype and actual.shape == expected.shape
            error, torch_error = ((x.double() - in_float64).abs().max() for x in (actual, expected))
            # Derivatives are made from the results, whose rounding their exponential multiplies.
            rounding = ROUNDING[actual.dtype] * (1 + exact[0].abs().max()) * in_float64.abs().max()
            assert error <= max(torch_error, rounding)


def _results(
    function: Callable[..., Tensor], call: Callable[..., Tensor], input: Tensor, weights: Tensor
) -> list[Tensor]:
    bound = lambda x: call(function, x)  # noqa: E731
    output = bound(input)
    results = [output, torch.func.vmap(bound, -1)(torch.stack([input, input], -1))]
    if input.requires_grad:
        u, v, w = weights.to(input.dtype)
        (grad,) = torch.autograd.grad(output, input, u.to(output.dtype), create_graph=True)
        results += [grad, *torch.autograd.grad(grad, input, v)]
        results += torch.func.jvp(bound, (input,), (w,))
    return [result.detach() for result in results]
