"""The ops called directly, each tensor in turn one that the Python layer never gives them: they refuse it, or take it
for what it is."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils import _pytree

from ce_ext.functional import cross_entropy
from ce_ext.options import BinaryCrossEntropyOptions, CrossEntropyOptions, SoftCrossEntropyOptions

OPS = torch.ops.ce_ext


def _calls() -> dict[str, tuple[Any, list[Any]]]:
    """Every op of tensors with all the tensors that it can have, and options."""
    torch.manual_seed(0)
    x, indices, probabilities = torch.randn(4, 5), torch.tensor([0, 4, 2, 2]), torch.randn(4, 5).softmax(1)
    weights = [torch.rand(5), torch.rand(4)]
    factors = [torch.rand(5), torch.rand(4, 1), torch.rand(5)]
    one = torch.tensor(2.0)
    hard = CrossEntropyOptions(1, -100, 0.1)
    soft = SoftCrossEntropyOptions(1, 0.1, needs_input=True, needs_target=True)
    binary = BinaryCrossEntropyOptions(
        1, alpha=0.3, needs_input=True, needs_target=True, needs_weight=True, needs_pos_weight=True
    )
    of_hard, of_soft = (
        op(x, target, *weights, *options)
        for op, target, options in (
            (OPS.cross_entropy_forward, indices, hard),
            (OPS.soft_cross_entropy_forward, probabilities, soft),
        )
    )
    _, divisor = OPS.binary_cross_entropy_forward(x, probabilities, *factors, *binary)
    calls: dict[str, list[Any]] = {
        "cross_entropy_forward": [x, indices, *weights, *hard],
        "cross_entropy_backward": [one, x, indices, *weights, *of_hard[1:3], *hard.of_backward()],
        "cross_entropy_with_grad": [x * 0, x, indices, *weights, *hard.of_backward(), False, 1.0],
        "scale_gradient": [x + 0, torch.rand(4), 2.0, 0],
        "soft_cross_entropy_forward": [x, probabilities, *weights, *soft],
        "soft_cross_entropy_backward": [one, x, probabilities, *weights, *of_soft[1:3], *soft.of_backward()],
        "log_softmax_forward": [x, 1, None],
        "log_softmax_backward": [x.sin(), x.log_softmax(1), 1, torch.float32],
        "binary_cross_entropy_forward": [x, probabilities, *factors, *binary],
        "binary_cross_entropy_backward": [one, x, probabilities, *factors, divisor, *binary],
    }
    return {name: (getattr(OPS, name).default, arguments) for name, arguments in calls.items()}


CALLS = _calls()
PLACES = [
    pytest.param(name, place, id=f"{name}-{op._schema.arguments[place].name}")
    for name, (op, arguments) in CALLS.items()
    for place, argument in enumerate(arguments)
    if isinstance(argument, Tensor)
]
each_tensor = pytest.mark.parametrize(("name", "place"), PLACES)


def _results(name: str, *others: tuple[int, Any]) -> list[Tensor]:
    """Of the call with other arguments in these places, and what it has written."""
    op, arguments = CALLS[name]
    arguments = [x.clone() if isinstance(x, Tensor) else x for x in arguments]
    for place, other in others:
        arguments[place] = other
    results = op(*arguments)
    written = arguments[:1] if op._schema.is_mutable else []
    return [x.resolve_neg() for x in (*_pytree.tree_leaves(results), *written) if isinstance(x, Tensor)]


def _argument(name: str, place: int) -> tuple[str, Tensor]:
    """Its name in messages, and what it is."""
    op, arguments = CALLS[name]
    return op._schema.arguments[place].name.removeprefix("class_"), arguments[place]


def test_every_op_of_tensors_is_here() -> None:
    names = {name.split("::")[1] for name in torch._C._dispatch_get_all_op_names() if name.startswith("ce_ext::")}
    of_tensors = {name for name in names if getattr(OPS, name).default._schema.returns or "gradient" in name}
    assert set(CALLS) == {name for name in of_tensors if not name.endswith("_traced")} - {"cuda_policy"}


@each_tensor
def test_memory_at_no_multiple_of_the_size_of_a_number(name: str, place: int) -> None:
    argument, x = _argument(name, place)
    memory = torch.frombuffer(bytearray(1 + x.nbytes), dtype=x.dtype, count=x.numel(), offset=1)
    with pytest.raises(RuntimeError, match=f"^{argument} must lie at a multiple of the {x.itemsize} bytes of a "):
        _results(name, (place, memory.view(x.shape).copy_(x)))


@each_tensor
def test_negative_of_what_is_in_memory(name: str, place: int) -> None:
    _, x = _argument(name, place)
    torch.testing.assert_close(_results(name, (place, torch._neg_view(-x))), _results(name), rtol=0, atol=0)


@each_tensor
def test_zeros_without_memory(name: str, place: int) -> None:
    _, x = _argument(name, place)
    zeros = torch._efficientzerotensor(x.shape, dtype=x.dtype)
    if place == 0 and CALLS[name][0]._schema.is_mutable:
        with pytest.raises(RuntimeError, match="ZeroTensors are immutable"):
            _results(name, (place, zeros))
    else:
        torch.testing.assert_close(
            _results(name, (place, zeros)), _results(name, (place, torch.zeros_like(x))), equal_nan=True
        )


@each_tensor
def test_tensor_without_data_among_others(name: str, place: int) -> None:
    _, x = _argument(name, place)
    if sum(isinstance(argument, Tensor) for argument in CALLS[name][1]) > 1:
        with pytest.raises(
            RuntimeError, match=r"on the same device|must be a .* tensor of shape .* on (cpu|meta), but"
        ):
            _results(name, (place, x.to("meta")))


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "sparse": Tensor.to_sparse,
    "mkldnn": lambda x: x.float().to_mkldnn(),
    "quantized": lambda x: torch.quantize_per_tensor(x.float(), 0.1, 0, torch.qint8),
    "nested": lambda x: torch.nested.nested_tensor([x, x], layout=torch.jagged),
}


@pytest.mark.filterwarnings("ignore:torch.quantize")
@pytest.mark.parametrize("layout", LAYOUTS)
@each_tensor
def test_tensor_of_another_layout(name: str, place: int, layout: str) -> None:
    _, x = _argument(name, place)
    with pytest.raises(NotImplementedError):
        _results(name, (place, LAYOUTS[layout](x.reshape(1) if x.dim() == 0 else x)))


MISFITS: dict[str, Callable[[Tensor], Tensor]] = {
    "one dimension more": lambda x: x.unsqueeze(-1).expand(*x.shape, 2),
    "one row less": lambda x: x[:-1] if x.dim() else x.new_zeros(0),
    "complex": lambda x: x.to(torch.complex64),
}


@pytest.mark.parametrize("misfit", MISFITS)
@each_tensor
def test_tensor_that_does_not_fit(name: str, place: int, misfit: str) -> None:
    if name == "log_softmax_forward" and misfit != "complex":
        pytest.skip("nothing else is there that it could fit")
    with pytest.raises((RuntimeError, ValueError), match="must "):
        _results(name, (place, MISFITS[misfit](_argument(name, place)[1])))


@each_tensor
def test_tensor_of_inference_mode(name: str, place: int) -> None:
    with torch.inference_mode():
        x = _argument(name, place)[1].clone()
    if place == 0 and CALLS[name][0]._schema.is_mutable:
        with pytest.raises(RuntimeError, match="Inplace update to inference tensor outside InferenceMode"):
            _results(name, (place, x))
    else:
        torch.testing.assert_close(_results(name, (place, x)), _results(name), rtol=0, atol=0)


def _overlapping() -> dict[str, tuple[str, list[tuple[int, Any]]]]:
    """Calls with other arguments, of which what is written shares a part."""
    memory = torch.randn(40)
    x, shifted, transposed = memory[:20].view(4, 5), memory[1:21].view(4, 5), memory[:20].view(5, 4).t()
    rows = torch.randn(5).expand(4, 5)
    return {
        "input behind it": ("cross_entropy_with_grad", [(0, x), (1, shifted)]),
        "input before it": ("cross_entropy_with_grad", [(0, shifted), (1, x)]),
        "input in another order": ("cross_entropy_with_grad", [(0, x), (1, transposed)]),
        "target": ("cross_entropy_with_grad", [(0, x), (2, memory[:8].view(torch.int64))]),
        "weight": ("cross_entropy_with_grad", [(0, x), (3, memory[15:20])]),
        "sample_weight": ("cross_entropy_with_grad", [(0, x), (4, memory[:4])]),
        "itself": ("cross_entropy_with_grad", [(0, rows)]),
        "gradient itself": ("scale_gradient", [(0, rows)]),
        "grad_output": ("scale_gradient", [(0, x), (1, memory[:4])]),
    }


OVERLAPPING = _overlapping()


@pytest.mark.parametrize("name", OVERLAPPING)
def test_written_memory_that_is_shared(name: str) -> None:
    op, others = OVERLAPPING[name]
    before = [x.clone() for _, x in others]
    with pytest.raises(RuntimeError, match="memory location"):
        _results(op, *others)
    assert all(map(torch.equal, before, [x for _, x in others]))


def test_writing_is_noticed_where_memory_has_negatives() -> None:
    x = torch._neg_view(torch.randn(4, 5))
    version = x._version
    _results("scale_gradient", (0, x))
    assert x._version > version


def test_gradient_in_the_place_of_its_input() -> None:
    x = _argument("cross_entropy_with_grad", 1)[1].clone()
    torch.testing.assert_close(_results("cross_entropy_with_grad", (0, x), (1, x)), _results("cross_entropy_with_grad"))


@pytest.mark.kernel
@pytest.mark.parametrize("shape", [(0,), (3, 0), (2, 0, 5, 2)])
def test_gradient_in_forward_without_classes(shape: tuple[int, ...], device: str) -> None:
    """Planes of an image that are not there must not be read ahead."""
    input = torch.empty(shape, device=device, requires_grad=True)
    target = torch.full(shape[:1] + shape[2:] if len(shape) > 1 else (), -100, device=device)
    loss = cross_entropy(input, target, reduction="sum", grad_in_forward=True)
    (grad,) = torch.autograd.grad(loss, input)
    assert loss == 0 and grad.shape == input.shape
