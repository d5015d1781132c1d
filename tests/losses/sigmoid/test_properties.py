"""What must hold for any input and target of the binary losses. Hypothesis draws them."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

import ce_ext
from tests.support.cases import DTYPES
from tests.support.comparison import loss_and_gradients

pytest.importorskip("hypothesis")
from hypothesis import given
from hypothesis import strategies as st

from tests.losses.softmax.test_properties import REDUCTIONS, SETTINGS

pytestmark = [pytest.mark.kernel, pytest.mark.heavy]

F = ce_ext.functional


@st.composite
def problems(draw: st.DrawFn, device: str) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Logits of up to four dimensions, targets, and options of the focal loss."""
    shape = tuple(draw(st.lists(st.integers(1, 12), max_size=3))) + (draw(st.integers(1, 300)),)
    dtype = draw(st.sampled_from(DTYPES))
    scale = draw(st.sampled_from((0.1, 3.0, 3.0, 20.0, 1000.0)))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    input = (torch.randn(shape, generator=generator, dtype=torch.float64) * scale).to(dtype)
    target = torch.rand(shape, generator=generator, dtype=torch.float64).mul(8).round().div(8).to(dtype)
    if draw(st.booleans()):
        target = target.round()
    options = {
        "gamma": draw(st.sampled_from((0.0, 0.5, 1.0, 2.0, 3.5))),
        "alpha": draw(st.sampled_from((-1.0, 0.25, 0.75))),
        "reduction": draw(st.sampled_from(REDUCTIONS)),
        "out_dtype": torch.promote_types(dtype, torch.float32),
    }
    return input.to(device), target.to(device), options


def _assert_close(actual: list[Tensor], expected: list[Tensor]) -> None:
    """Apart from rounding, and from what is left where float32 has no smaller number."""
    for ours, theirs in zip(actual, expected, strict=True):
        largest = theirs.double().abs().max().item() if theirs.numel() else 0.0
        rtol = {torch.float64: 1e-12, torch.float32: 2e-5}.get(ours.dtype, 2 * torch.finfo(ours.dtype).eps)
        torch.testing.assert_close(ours, theirs, rtol=rtol, atol=max(1e-3 * rtol * largest, 1e-18))


@SETTINGS
@given(data=st.data())
def test_either_class_may_be_called_the_positive_one(data: st.DataObject, device: str) -> None:
    input, target, options = data.draw(problems(device))
    swapped = options | {"alpha": 1 - options["alpha"] if options["alpha"] >= 0 else -1.0}
    loss, grad, _ = loss_and_gradients(partial(F.sigmoid_focal_loss, **options), input, target)
    loss_swapped, grad_swapped, _ = loss_and_gradients(partial(F.sigmoid_focal_loss, **swapped), -input, 1 - target)
    _assert_close([loss, grad], [loss_swapped, -grad_swapped])


@SETTINGS
@given(data=st.data())
def test_smoothing_is_smoothed_targets(data: st.DataObject, device: str) -> None:
    input, target, options = data.draw(problems(device))
    smoothing = data.draw(st.sampled_from((0.25, 0.5, 1.0)))
    actual = loss_and_gradients(partial(F.sigmoid_focal_loss, label_smoothing=smoothing, **options), input, target)
    smoothed = (1 - smoothing) * target + smoothing / 2  # which halves hold exactly
    _assert_close(actual[:2], loss_and_gradients(partial(F.sigmoid_focal_loss, **options), input, smoothed)[:2])


@SETTINGS
@given(data=st.data())
def test_ignoring_elements_is_deleting_them(data: st.DataObject, device: str) -> None:
    input, target, options = data.draw(problems(device))
    options["reduction"] = data.draw(st.sampled_from(("mean", "sum")))
    kept = torch.rand(target.shape, generator=torch.Generator().manual_seed(1)).to(device) < 0.7
    function = partial(F.sigmoid_focal_loss, ignore_index=-100, on_empty="zero", **options)
    loss, grad, _ = loss_and_gradients(function, input, target.where(kept, -100))
    expected, expected_grad, _ = loss_and_gradients(function, input[kept], target[kept])
    assert (grad[~kept] == 0).all()
    _assert_close([loss, grad[kept]], [expected, expected_grad])


@SETTINGS
@given(data=st.data())
def test_weights_of_ones_are_none(data: st.DataObject, device: str) -> None:
    input, target, options = data.draw(problems(device))
    shape = data.draw(st.sampled_from(((), (1,), input.shape[-1:], tuple(input.shape))))
    ones = torch.ones(shape, dtype=input.dtype, device=device)
    function = partial(F.sigmoid_focal_loss, **options)
    _assert_close(
        loss_and_gradients(partial(function, weight=ones, pos_weight=ones), input, target),
        loss_and_gradients(function, input, target),
    )


@SETTINGS
@given(data=st.data())
def test_the_order_of_elements_does_not_matter(data: st.DataObject, device: str) -> None:
    input, target, options = data.draw(problems(device))
    order = torch.randperm(input.numel(), generator=torch.Generator().manual_seed(2)).to(device)
    options["reduction"] = "mean"
    function = partial(F.sigmoid_focal_loss, **options)
    loss, grad, _ = loss_and_gradients(function, input.flatten(), target.flatten())
    shuffled, grad_shuffled, _ = loss_and_gradients(function, input.flatten()[order], target.flatten()[order])
    _assert_close([loss, grad[order]], [shuffled, grad_shuffled])
