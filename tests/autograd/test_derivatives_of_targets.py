"""Derivatives of second order and of forward mode for targets of every dtype, and for those that are none.

On CUDA the loss of a target out of bounds is NaN, and derivatives are asked for before anything is raised.
The CPU raises first, so formulas are called by themselves.
"""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

import ce_ext
from ce_ext import binary_derivatives, derivatives, shapes
from ce_ext.options import BinaryCrossEntropyOptions, CrossEntropyOptions
from tests.support import oracles
from tests.support.cases import ROUNDING

pytestmark = pytest.mark.torch_modes

F = ce_ext.functional

UNSIGNED = (torch.uint8, torch.uint16, torch.uint32, torch.uint64)
INTEGERS = (*UNSIGNED, torch.int8, torch.int16, torch.int32, torch.int64, torch.bool)


@pytest.mark.parametrize("dtype", INTEGERS)
def test_class_indices(dtype: torch.dtype, device: str) -> None:
    values = torch.tensor([0, 1, 100], device=device).to(dtype)
    assert torch.equal(shapes.class_indices(values), values.long())
    if dtype == torch.uint64:
        large = torch.tensor([2**63 - 1, 2**63, 2**64 - 100, 2**64 - 1], dtype=dtype, device=device)
        assert shapes.class_indices(large).tolist() == [2**63 - 1] * 4


def _targets(first: list[int], good: int, bad: int, device: str) -> tuple[Tensor, Tensor]:
    """Two that differ in the last row, of a dtype that holds them."""
    dtype = torch.uint64 if bad >= 2**63 else torch.int64
    return tuple(torch.tensor([*first, last], dtype=dtype, device=device) for last in (good, bad))


CLASS_OPTIONS: dict[str, dict[str, Any]] = {
    "logits": {"label_smoothing": 0.1, "z_loss": 0.1, "softcap": 5.0},
    "focal": {"gamma": 2.0},
    "log-probabilities": {"input_is_log_prob": True},
}


def _class_results(target: Tensor, options: CrossEntropyOptions, input: Tensor, v: Tensor) -> list[Tensor]:
    rows = (input, target, torch.arange(1.0, 6.0, device=input.device), None, None, None, options)
    ones = torch.ones(len(target), device=input.device)
    return [
        derivatives.cross_entropy_tangent(v, *rows),
        *derivatives.cross_entropy_backward_gradient(v, ones, *rows),
        derivatives.cross_entropy_backward_tangent(ones, v, ones, *rows),
    ]


@pytest.mark.parametrize("name", CLASS_OPTIONS)
@pytest.mark.parametrize("value", [-1, 5, 10**12, 2**64 - 100])
def test_classes_out_of_bounds(value: int, name: str, device: str) -> None:
    options = CrossEntropyOptions(0, -100, **CLASS_OPTIONS[name])
    input, v = (torch.randn(4, 5, device=device) for _ in range(2))
    good, bad = _targets([0, 3, 1 if value >= 2**63 else -100], 4, value, device)
    results = (_class_results(target, options, input, v) for target in (bad, good))
    for actual, expected in zip(*results, strict=True):
        assert actual[3].isnan().all()
        assert torch.equal(actual[:3], expected[:3]) and expected.isfinite().all()


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_third_derivative_where_a_row_is_ignored(gamma: float, device: str) -> None:
    """Of a power of the loss, so that every upstream gradient is a variable."""
    input = torch.randn(3, 4, dtype=torch.float64, device=device)
    target = torch.tensor([1, -100, 3], device=device)

    def cube(x: Tensor, y: Tensor) -> Tensor:
        return F.softmax_focal_loss(x, y, gamma=gamma, reduction="sum") ** 3

    third, kept = torch.func.jacrev(torch.func.jacrev(torch.func.jacrev(cube))), [0, 2]
    actual, expected = third(input, target), third(input[kept], target[kept])
    assert (actual[1] == 0).all()
    torch.testing.assert_close(actual[kept][:, :, kept][..., kept, :], expected)


@pytest.mark.parametrize("classes", [0, 1])
def test_hardly_any_classes(classes: int, device: str) -> None:
    input, target = torch.randn(3, classes, device=device), torch.rand(3, classes, device=device)
    losses = [lambda x: F.cross_entropy(x, target)]
    if classes == 1:
        labels = torch.zeros(3, dtype=torch.int64, device=device)
        losses.append(lambda x: F.softmax_focal_loss(x, labels, label_smoothing=0.1))
    for loss in losses:
        assert torch.equal(torch.func.hessian(loss)(input), torch.zeros(3, classes, 3, classes, device=device))


def _binary_results(target: Tensor, ignore_index: int | None, input: Tensor, v: Tensor) -> list[Tensor]:
    options = BinaryCrossEntropyOptions(
        0, gamma=1.5, alpha=0.25, ignore_index=ignore_index, needs_input=True, needs_weight=True
    )
    weight, ones = torch.ones_like(input), torch.ones_like(input)
    others = (input, target, weight, None, None, None, options)
    tangents = (v, None, v, None)
    results = [
        binary_derivatives.tangent(*tangents, *others),
        *binary_derivatives.backward_gradient(*tangents, ones, *others),
        *binary_derivatives.backward_tangent(ones, *tangents, ones, *others),
    ]
    return [result for result in results if result is not None]


@pytest.mark.parametrize("value", [-1, 6, 10**12, 2**64 - 100])
def test_classes_of_the_sigmoid_focal_loss_out_of_bounds(value: int, device: str) -> None:
    input, v = (torch.randn(4, 5, device=device) for _ in range(2))
    good, bad = _targets([0, 5, 1], 4, value, device)  # the second one is the background
    results = (_binary_results(target, -100, input, v) for target in (bad, good))
    for actual, expected in zip(*results, strict=True):
        assert actual[3].isnan().all()
        assert torch.equal(actual[:3], expected[:3]) and expected.isfinite().all()


@pytest.mark.parametrize("ignore_index", [None, 1])
@pytest.mark.parametrize("dtype", INTEGERS)
def test_integers_as_targets_of_elements(dtype: torch.dtype, ignore_index: int | None, device: str) -> None:
    input, v = (torch.randn(4, 5, device=device) for _ in range(2))
    target = torch.randint(0, 2, (4, 5), device=device)
    expected = _binary_results(target.float(), ignore_index, input, v)
    for actual, exact in zip(
        _binary_results(target.to(dtype), ignore_index, input, v),
        [expected[i] for i in (0, 1, 2, 4, 5, 6)],  # without that in the target
        strict=True,
    ):
        assert torch.equal(actual, exact)


def test_an_integer_that_is_not_the_ignored_one(device: str) -> None:
    """As numbers of float32, or of int64 with a sign, these are alike."""
    for dtype, value, ignore_index in ((torch.int64, 2**24 + 1, 2**24), (torch.uint64, 2**64 - 100, -100)):
        target = torch.tensor([value], dtype=dtype, device=device)
        others = (torch.zeros(1, device=device), target, None, None, None, None)
        options = BinaryCrossEntropyOptions(0, ignore_index=ignore_index)
        tangent = binary_derivatives.tangent(torch.ones(1, device=device), None, None, None, *others, options)
        torch.testing.assert_close(tangent, torch.tensor([0.5 - value], device=device))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_types_are_rounded_once(dtype: torch.dtype, device: str) -> None:
    """The tangent of a gradient whose upstream gradient has a tangent, too, is a sum of two."""
    input, v = (torch.randn(8, 5, device=device).to(dtype) for _ in range(2))
    target, probabilities = torch.randint(0, 5, (8,), device=device), torch.rand(8, 5, device=device).to(dtype)
    upstream, upstream_tangent = (torch.randn(8, device=device).to(dtype) for _ in range(2))
    calls = {
        (F.softmax_focal_loss, oracles.softmax_focal_loss): lambda f, x: f(x, target, gamma=2.0, reduction="none"),
        (F.cross_entropy, oracles.soft_cross_entropy): lambda f, x: f(x, probabilities.to(x.dtype), reduction="none"),
        (F.sigmoid_focal_loss, oracles.sigmoid_focal_loss): lambda f, x: f(
            x[:, 0], probabilities[:, 0].to(x.dtype), reduction="none"
        ),
    }

    for (function, oracle), call in calls.items():

        def gradient(f: Any, x: Tensor, g: Tensor, call: Any = call) -> Tensor:
            return torch.func.vjp(partial(call, f), x)[1](g)[0]

        _, actual = torch.func.jvp(partial(gradient, function), (input, upstream), (v, upstream_tangent))
        doubles = [x.double() for x in (input, upstream, v, upstream_tangent)]
        _, exact = torch.func.jvp(partial(gradient, oracle), tuple(doubles[:2]), tuple(doubles[2:]))
        smallest = torch.finfo(dtype).smallest_normal * ROUNDING[dtype]
        torch.testing.assert_close(actual.double(), exact, rtol=ROUNDING[dtype], atol=max(smallest, 2e-6))


def test_probabilities_of_elements_at_their_bounds(device: str) -> None:
    """With torch's bounds of logarithms and divisors, and nothing that is not finite, however derivatives are taken."""
    p = torch.tensor([0.0, 1e-30, 1e-6, 0.5, 1 - 2.0**-20, 1.0], dtype=torch.float64, device=device)
    for target in (0.0, 0.25, 1.0):
        t = torch.full_like(p, target)

        ours, theirs = (
            partial(functional.binary_cross_entropy, reduction="sum") for functional in (F, torch.nn.functional)
        )
        twice = lambda f: torch.func.jacrev(torch.func.jacrev(f))  # noqa: E731
        torch.testing.assert_close(twice(ours)(p, t).diag(), twice(theirs)(p, t).diag(), rtol=1e-5, atol=1e-6)
        in_target = torch.func.jacfwd(ours, 1)(p, t)  # 100 at most
        torch.testing.assert_close(in_target, torch.func.grad(ours, 1)(p, t))
        for outer in (torch.func.jacrev, torch.func.jacfwd):
            for inner in (torch.func.jacrev, torch.func.jacfwd):
                for rows in outer(inner(ours, (0, 1)), (0, 1))(p, t):
                    assert all(x.isfinite().all() for x in rows)
