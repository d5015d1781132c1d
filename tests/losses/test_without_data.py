"""Tensors without data, of the device meta and of compilers: the same checks, and results of the same shapes."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.utils import _pytree

import ce_ext
from tests.support.cases import DTYPES, BadCall, Loss
from tests.support.dispatch import OpCalls
from tests.support.losses import LOSSES
from tests.support.marks import ALL_LOSSES, ALL_REDUCTIONS

pytestmark = pytest.mark.torch_modes

CALLS = [
    pytest.param(loss, call, id=f"{loss.name}-{call.name}")
    for loss in LOSSES
    for call in loss.bad_calls
    if "on meta" not in call.message  # where they are all on meta, nothing is wrong
]


def _error(function: Callable[..., Any], *arguments: Any, **options: Any) -> Exception | None:
    try:
        function(*arguments, **options)
    except Exception as error:
        return error
    return None


def _is_about_data(error: Exception) -> bool:
    return isinstance(error, IndexError) or "must hold probabilities" in str(error)


def _to_meta(tree: Any) -> Any:
    return _pytree.tree_map_only(Tensor, lambda x: x.to("meta").requires_grad_(x.requires_grad), tree)


@pytest.mark.parametrize(("loss", "call"), CALLS)
def test_bad_calls(loss: Loss, call: BadCall) -> None:
    """What is wrong with shapes, dtypes and options is wrong without data, too, in the same words."""
    arguments, options = call.arguments(), call.options
    expected = _error(loss.function, *arguments, **options)
    assert expected is not None
    actual = _error(loss.function, *_to_meta(arguments), **_to_meta(options))
    if _is_about_data(expected):
        assert actual is None
    else:
        # Of a NotImplementedError compilers think that there was no kernel.
        kind = RuntimeError if isinstance(expected, NotImplementedError) else type(expected)
        assert type(actual) is kind
        assert str(actual) == str(expected)


MISTAKES: dict[str, tuple[Callable[[Any], Any], str]] = {
    "rows": (lambda f: f.cross_entropy(torch.empty(4, 5), torch.empty(3).long()), r"shape \[4\]"),
    "classes": (lambda f: f.nll_loss(torch.empty(4, 5), torch.empty(4).long(), torch.empty(3)), r"weight .* \[5\]"),
    "smoothing": (lambda f: f.cross_entropy(torch.empty(4, 5), torch.empty(4, 5), label_smoothing=2.0), "label_smoo"),
    "dtype": (lambda f: f.cross_entropy(torch.empty(4, 5).long(), torch.empty(4).long()), "input .* Long"),
    "sample_weight": (
        lambda f: f.cross_entropy(torch.empty(4, 5), torch.empty(4).long(), sample_weight=torch.empty(5)),
        r"sample_weight must have shape \[4\]",
    ),
    "gamma": (lambda f: f.softmax_focal_loss(torch.empty(4, 5), torch.empty(4).long(), gamma=-1.0), "gamma .* -1"),
    "labels": (lambda f: f.sigmoid_focal_loss(torch.empty(4, 5), torch.empty(3).long()), r"class indices of shape \[4"),
    "one class": (lambda f: f.sigmoid_focal_loss(torch.empty(4, 1), torch.empty(4).long()), "indices of one class"),
    "pos_weight": (
        lambda f: f.binary_cross_entropy_with_logits(*torch.empty(2, 4, 5), pos_weight=torch.empty(3)),
        r"pos_weight must be broadcastable .* \[4, 5\]",
    ),
    "devices": (
        lambda f: f.cross_entropy(torch.empty(4, 5, device="cuda"), torch.empty(4).long()),
        "same device|two different devices",  # torch's own check may be the first
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_fake_tensors_are_checked(name: str) -> None:
    call, message = MISTAKES[name]
    with FakeTensorMode(), pytest.raises((RuntimeError, ValueError, NotImplementedError), match=message):
        call(ce_ext.functional)


@pytest.mark.parametrize("dtype", DTYPES)
def test_denominators_without_data(dtype: torch.dtype) -> None:
    input, target = torch.empty(4, 5, dtype=dtype, device="meta"), torch.empty(4, dtype=torch.int64, device="meta")
    for denominator in (3.0, torch.empty((), device="meta")):
        loss = ce_ext.functional.cross_entropy(input, target, denominator=denominator)
        assert loss.is_meta and loss.shape == () and loss.dtype == dtype


def test_symbolic_sizes_are_compared() -> None:
    mode = FakeTensorMode(shape_env=ShapeEnv())
    tensors = (torch.empty(6, 5), torch.zeros(6).long(), torch.zeros(4).long())
    input, target, short = map(mode.from_tensor, tensors)
    with mode:
        assert ce_ext.functional.cross_entropy(input, target, reduction="none").shape == (6,)
        with pytest.raises(ValueError, match="target must have shape"):
            ce_ext.functional.cross_entropy(input, short)


class _Program(torch.nn.Module):
    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.loss = ce_ext.nn.CrossEntropyLoss(**options)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return self.loss(input, target)


@pytest.mark.parametrize("is_strict", [False, True])
def test_export_refuses_wrong_programs(is_strict: bool) -> None:
    good = (torch.randn(4, 5), torch.zeros(4, dtype=torch.int64))
    torch.export.export(_Program(), good, strict=is_strict)
    wrong: list[tuple[_Program, tuple[Tensor, Tensor], str]] = [
        (_Program(), (good[0], good[1][:3]), "target must have shape"),
        (_Program(weight=torch.ones(3)), good, "weight must have shape"),
        (_Program(label_smoothing=2.0), good, "label_smoothing must be between"),
        (_Program(), (good[0].long(), good[1]), "input must be float64"),
    ]
    for program, arguments, message in wrong:
        with pytest.raises(Exception, match=message):
            torch.export.export(program, arguments, strict=is_strict)


def test_sizes_that_only_data_tell() -> None:
    """Rows that a mask chooses: a compiler checks when it knows."""

    def loss(input: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        return ce_ext.functional.cross_entropy(input[mask], target[mask], torch.ones(5))

    input, target, mask = torch.randn(6, 5), torch.randint(0, 5, (6,)), torch.tensor([1, 0, 1, 1, 0, 1]).bool()
    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
        torch.testing.assert_close(compiled(input, target, mask), loss(input, target, mask))


@ALL_LOSSES
@ALL_REDUCTIONS
@pytest.mark.parametrize("shape", [(6, 5), (2, 5, 3, 4), (0, 5)])
def test_results_are_those_of_tensors_with_data(loss: Loss, reduction: str, shape: tuple[int, ...]) -> None:
    input, target = loss.make_inputs(shape, torch.bfloat16)
    if len(shape) == 4:
        input = input.contiguous(memory_format=torch.channels_last)
    results = []
    for device in ("cpu", "meta"):
        x, y = input.detach().to(device).requires_grad_(), target.to(device)
        result = loss.function(x, y, reduction=reduction, out_dtype=torch.float32)
        result.sum().backward()
        results.append([(r.shape, r.dtype, r.stride()) for r in (result, x.grad)])
    assert results[0] == results[1]


@ALL_LOSSES
@pytest.mark.parametrize("shape", [(6, 5), (2, 5, 3, 4)])
def test_second_derivatives_are_those_of_tensors_with_data(loss: Loss, shape: tuple[int, ...]) -> None:
    input, target = loss.make_inputs(shape, torch.float64)
    results = []
    for device in ("cpu", "meta"):
        x, y = input.detach().to(device).requires_grad_(), target.to(device)
        (grad,) = torch.autograd.grad(
            loss.function(x, y), x, torch.ones((), dtype=x.dtype, device=device), create_graph=True
        )
        second = torch.autograd.grad(grad.square().sum(), x)
        tangents = torch.func.jvp(lambda x, y=y: loss.function(x, y), (x.detach(),), (x.detach(),))
        results.append([(r.shape, r.dtype) for r in (grad, *second, *tangents)])
        assert {r.device.type for r in (grad, *second, *tangents)} == {device}
    assert results[0] == results[1]


def test_numbers_that_a_compiler_does_not_know_are_on_the_device_of_the_loss() -> None:
    with OpCalls() as calls:
        ce_ext.reductions.divide(torch.zeros((), device="meta"), 3.0, "zero")
    results = _pytree.tree_leaves([call.results for call in calls.seen])
    assert results and {x.device.type for x in results} == {"meta"}
