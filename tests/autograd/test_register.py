"""`autograd.register` for a pair of ops that has all that a pair may have, and no kernel but formulas in torch."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

from ce_ext import autograd
from ce_ext.options import CrossEntropyOptions

pytestmark = pytest.mark.torch_modes

_PARAMETERS = "float factor, bool negate, ScalarType? dtype, int batch_dims"
_SCHEMAS = (
    f"scaled_exp_forward(Tensor x, Tensor? y, {_PARAMETERS}) -> (Tensor result, Tensor scale)",
    f"scaled_exp_backward(Tensor grad_output, Tensor? y, Tensor result, Tensor scale, {_PARAMETERS}) -> "
    "(Tensor grad_x, Tensor grad_y)",
)


class _Options(NamedTuple):
    factor: float
    negate: bool
    dtype: torch.dtype | None = None
    batch_dims: int = 0


def _forward(x: Tensor, y: Tensor | None, *values: Any) -> tuple[Tensor, Tensor]:
    """exp(x) * y * scale"""
    options = _Options(*values)
    scale = torch.tensor(-options.factor if options.negate else options.factor, dtype=x.dtype)
    return x.exp() * (1 if y is None else y) * scale, scale


def _backward(grad: Tensor, y: Tensor | None, result: Tensor, scale: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return grad * result, torch.zeros_like(grad) if y is None else grad * result / y


def _tangent(x_t: Tensor | None, y_t: Tensor | None, y: Tensor, result: Tensor, scale: Tensor, options: Any) -> Tensor:
    assert isinstance(options, _Options) and options.dtype == torch.float64
    return (0 if x_t is None else x_t * result) + (0 if y_t is None else y_t * result / y)


def _backward_gradient(
    v_x: Tensor | None, v_y: Tensor | None, grad: Tensor, y: Tensor, result: Tensor, scale: Tensor, options: Any
) -> tuple[Tensor, Tensor, Tensor]:
    assert isinstance(options, _Options) and options.dtype == torch.float64
    v_x, v_y = (torch.zeros_like(grad) if v is None else v for v in (v_x, v_y))
    return v_x * result + v_y * result / y, -v_y * grad * result / y**2, v_x * grad + v_y * grad / y


def _backward_tangent(
    g_t: Tensor | None, y_t: Tensor | None, r_t: Tensor | None, g: Tensor, y: Tensor, r: Tensor, s: Tensor, o: Any
) -> tuple[Tensor, Tensor]:
    g_t, y_t, r_t = (torch.zeros_like(g) if t is None else t for t in (g_t, y_t, r_t))
    return g_t * r + g * r_t, g_t * r / y + g * r_t / y - g * r * y_t / y**2


_DERIVATIVES = {"tangent": _tangent, "backward_gradient": _backward_gradient, "backward_tangent": _backward_tangent}


@contextmanager
def _registered(namespace: str, **other_derivatives: Any) -> Iterator[Any]:
    """In a namespace that nobody uses again: autograd is registered for good."""
    with torch.library._scoped_library(namespace, "DEF") as library:
        for schema, function in zip(_SCHEMAS, (_forward, _backward), strict=True):
            name = library.define(schema)
            library.impl(name, function, "CompositeExplicitAutograd")
        vmap = autograd.vmap_with_batch_dims(lambda options: {"scale"})
        yield autograd.register(f"{namespace}::scaled_exp", _Options, vmap=vmap, **_DERIVATIVES | other_derivatives)


@pytest.fixture(scope="module")
def scaled_exp() -> Iterator[Any]:
    with _registered("ce_ext_test") as forward:
        yield forward


OPTIONS = _Options(2.0, True, torch.float64)


def _arguments() -> tuple[Tensor, Tensor]:
    x, y = torch.rand(2, 3, 4, dtype=torch.float64) + 0.5
    return x.requires_grad_(), y.requires_grad_()


def test_derivatives(scaled_exp: Any) -> None:
    def function(x: Tensor, y: Tensor) -> Tensor:
        return scaled_exp(x, y, OPTIONS)

    modes = {"check_forward_ad": True, "check_batched_grad": True, "check_batched_forward_grad": True}
    assert torch.autograd.gradcheck(function, _arguments(), **modes)
    assert torch.autograd.gradgradcheck(function, _arguments(), check_fwd_over_rev=True, check_rev_over_rev=True)


@pytest.mark.parametrize("differentiable", [(True, False), (False, True), (False, False)])
def test_arguments_that_need_no_gradient(scaled_exp: Any, differentiable: tuple[bool, bool]) -> None:
    x, y = (a.requires_grad_(needed) for a, needed in zip(_arguments(), differentiable, strict=True))
    result = scaled_exp(x, y, OPTIONS)
    assert result.requires_grad == any(differentiable)
    if result.requires_grad:
        result.sum().backward()
        assert (x.grad is not None, y.grad is not None) == differentiable


def test_optional_tensor(scaled_exp: Any) -> None:
    x, _ = _arguments()
    scaled_exp(x, None, OPTIONS).sum().backward()
    torch.testing.assert_close(x.grad, -2 * x.detach().exp())


def test_result_that_is_saved_leaves_no_cycle(scaled_exp: Any) -> None:
    x, y = _arguments()
    intermediate = x * 1
    count = intermediate._use_count()
    result = scaled_exp(intermediate, y, OPTIONS)
    assert result._use_count() == 1
    del result
    assert intermediate._use_count() == count


@pytest.mark.parametrize(
    ("derivative", "result", "error", "message"),
    [
        ("tangent", 1.0, TypeError, "a derivative must be a Tensor or None, but got 1.0"),
        ("tangent", (None, None), RuntimeError, "scaled_exp_forward needs 1 tangents, but got 2"),
        ("backward_tangent", None, RuntimeError, "scaled_exp_backward needs 2 tangents, but got 1"),
        ("backward_gradient", 1.0, TypeError, "a derivative must be a Tensor or None, but got 1.0"),
    ],
)
def test_functions_that_return_no_derivatives(
    derivative: str, result: Any, error: type[Exception], message: str
) -> None:
    namespace = f"ce_ext_test_{derivative}_{error.__name__}"
    with _registered(namespace, **{derivative: lambda *_: result}) as scaled_exp, forward_ad.dual_level():
        x, y = _arguments()
        dual = forward_ad.make_dual(x, torch.ones_like(x))

        def call_all() -> None:
            (grad,) = torch.autograd.grad(scaled_exp(dual, y, OPTIONS).sum(), dual, create_graph=True)
            grad.sum().backward()

        with pytest.raises(error, match=message):
            call_all()


def test_vmap(scaled_exp: Any) -> None:
    x, y = _arguments()
    mapped = torch.func.vmap(lambda x, y: scaled_exp(x, y, OPTIONS), (1, None))(x, y[:, 0])
    torch.testing.assert_close(mapped, -2 * (x.exp() * y[:, :1]).T)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (("a", True, None, 0), TypeError, "factor must be a float, but got 'a'"),
        ((None, True, None, 0), TypeError, "factor must be a float, but got None"),
        ((1.0, 1, None, 0), TypeError, "negate must be a bool, but got 1"),
        ((1.0, True, 6, 0), TypeError, "dtype must be a torch.dtype, but got 6"),
        ((1.0, True, None, 0.5), TypeError, "batch_dims must be an int, but got 0.5"),
        ((1.0, True, None, True), TypeError, "batch_dims must be an int, but got True"),
        ((1.0, True, None, 2**64), ValueError, "batch_dims must fit into 64 bits, but got 18446744073709551616"),
        ((1.0, True, None), TypeError, "takes 6 arguments, but got 5"),
        ((1.0, True, None, 0, 0), TypeError, "takes 6 arguments, but got 7"),
        ([], TypeError, "the last argument must be a tuple"),
    ],
    ids=str,
)
def test_bad_options(scaled_exp: Any, options: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        scaled_exp(*_arguments(), options)


def test_number_that_is_no_float() -> None:
    """Of an op without Python, which would come upon the exception by itself."""
    options = CrossEntropyOptions(reduction=0, ignore_index=-100, logit_scale=1j)
    with pytest.raises(TypeError, match="must be real number, not complex"):
        autograd.cross_entropy(torch.zeros(3, 5), torch.tensor([0, 4, 1]), None, None, options)


def test_tensor_that_is_not_optional(scaled_exp: Any) -> None:
    _, y = _arguments()
    with pytest.raises(TypeError, match="x must be a Tensor, but got None"):
        scaled_exp(None, y, OPTIONS)


@pytest.mark.parametrize(
    ("backward", "message"),
    [
        ("(Tensor grad_output, Tensor z, int n) -> Tensor grad_x", "no argument and no result of the name z"),
        ("(Tensor grad_output, Tensor x, int n) -> Tensor grad_z", "f_forward has no argument z"),
        ("(Tensor grad_output, Tensor x, int n) -> Tensor slope_x", "slope_x must be called grad_ and an argument"),
        ("(Tensor x, Tensor grad_output, int n) -> Tensor grad_x", "f_backward must take grad_output first"),
        ("() -> Tensor grad_x", "f_backward must take grad_output first"),
        ("(Tensor grad_output, int n, Tensor x) -> Tensor grad_x", "must take its tensors before its options"),
    ],
)
def test_schemas_that_do_not_fit(backward: str, message: str) -> None:
    with torch.library._scoped_library("ce_ext_test_schemas", "DEF") as library:
        library.define("f_forward(Tensor x, int n) -> Tensor result")
        library.define(f"f_backward{backward}")
        with pytest.raises(RuntimeError, match=message):
            autograd.register("ce_ext_test_schemas::f", _Options, vmap=autograd.vmap_with_dim, **_DERIVATIVES)
