"""The ops called directly, with options that no function of Python passes on, and what they are called with."""

from typing import Any

import pytest
import torch
from torch import Tensor

import ce_ext
from ce_ext.functional import binary_cross_entropy, binary_cross_entropy_with_logits, cross_entropy
from ce_ext.options import BinaryCrossEntropyOptions, CrossEntropyOptions, SoftCrossEntropyOptions
from tests.support import oracles
from tests.support.cases import class_index_inputs
from tests.support.comparison import assert_rounded, loss_and_gradients
from tests.support.dispatch import OpCalls

kernel = pytest.mark.kernel


def _dtypes(results: Any) -> list[torch.dtype]:
    """Of those that are there."""
    return [result.dtype for result in results if isinstance(result, Tensor) and result.numel()]


def _forward(*tensors: Tensor, keep_stats: bool = True, report: bool = False, **options: Any) -> Any:
    """The op itself, which takes what no function passes on."""
    settings = CrossEntropyOptions(**{"reduction": 0, "ignore_index": -100, **options}).of_backward()
    return torch.ops.ce_ext.cross_entropy_forward(*tensors, None, None, *settings, keep_stats, report)


@kernel
def test_batch_of_no_losses(device: str) -> None:
    input, target = torch.zeros(0, 3, 5, device=device), torch.zeros(0, 3, dtype=torch.int64, device=device)
    options = CrossEntropyOptions(1, -100)._replace(batch_dims=1)
    loss, *_ = torch.ops.ce_ext.cross_entropy_forward(input, target, None, None, *options)
    assert loss.shape == (0,)


@pytest.mark.torch_modes
def test_ops_that_write_within_inference_mode() -> None:
    with torch.inference_mode():
        grad = torch.ones(3, 5)
        torch.ops.ce_ext.scale_gradient(grad, torch.tensor(2.0), 1.0, 0)
        assert torch.equal(grad, torch.full((3, 5), 2.0))


@pytest.mark.torch_modes
def test_ops_that_write_inference_tensors_outside_of_inference_mode() -> None:
    """An error, as of torch's own."""
    input, target = class_index_inputs((3, 5), torch.float32, "cpu")
    settings = CrossEntropyOptions(0, -100).of_backward()
    with torch.inference_mode():
        grad = torch.ones(3, 5)
    for op, arguments in (
        (torch.ops.ce_ext.scale_gradient, (torch.tensor(2.0), 1.0, 0)),
        (torch.ops.ce_ext.cross_entropy_with_grad, (input, target, None, None, *settings, False, 1.0)),
    ):
        with pytest.raises(RuntimeError, match="Inplace update to inference tensor outside InferenceMode"):
            op(grad, *arguments)


@pytest.mark.torch_modes
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_gradients_have_the_dtype_of_their_tensor_already_in_the_op(dtype: torch.dtype) -> None:
    input, target = torch.randn(3, 4), torch.rand(3, 4).to(dtype).requires_grad_()
    weight = torch.rand(4, dtype=dtype).requires_grad_()
    loss = binary_cross_entropy_with_logits(input, target, weight)
    with OpCalls() as calls:
        loss.backward()
    assert _dtypes(calls.last("ce_ext::binary_cross_entropy_backward").results) == [dtype, dtype]


def test_backward_of_what_is_no_probability() -> None:
    """The backward op is public, and trusts no forward to have looked."""
    input = torch.tensor([0.5, 0.5], requires_grad=True)
    loss = binary_cross_entropy(input, torch.ones(2), reduction="sum")
    with OpCalls() as calls:
        loss.backward()
    grad_output, _, *others = calls.last("ce_ext::binary_cross_entropy_backward").arguments
    grad, *_ = torch.ops.ce_ext.binary_cross_entropy_backward(grad_output, torch.tensor([1.5, 0.5]), *others)
    assert grad.isnan().tolist() == [True, False]


def test_statistics_that_are_not_kept_are_not_made() -> None:
    input, target = class_index_inputs((3, 5), torch.float32, "cpu")
    assert _forward(input, target)[1].shape == (3, 3)
    assert _forward(input, target, keep_stats=False)[1] is None


@pytest.mark.torch_modes
@pytest.mark.parametrize("options", [{}, {"z_loss": 0.1}, {"return_stats": True}], ids=str)
def test_statistics_that_no_backward_needs_are_not_made(options: dict[str, Any]) -> None:
    input, target = class_index_inputs((3, 5), torch.float32, "cpu")
    for y, op in ((target, "cross_entropy"), (input.softmax(1), "soft_cross_entropy")):
        with OpCalls() as calls:
            cross_entropy(input, y, **options)
        assert calls.last(f"ce_ext::{op}_forward").results[1] is None


@pytest.mark.torch_modes
@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_statistics_that_no_backward_of_a_script_needs_are_not_made() -> None:
    input, target = class_index_inputs((3, 5), torch.float32, "cpu")
    scripted = torch.jit.script(ce_ext.nn.CrossEntropyLoss())
    for y, op in ((target, "cross_entropy"), (input.softmax(1), "soft_cross_entropy")):
        with OpCalls() as calls:
            scripted(input, y)
        assert calls.last(f"ce_ext::{op}_forward").results[1] is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reduction": 3}, "reduction"),
        ({"reduction": -1}, "reduction"),
        ({"batch_dims": -1}, "besides those of the batch"),
        ({"input_is_log_prob": True, "label_smoothing": 0.1}, "input_is_log_prob|log-prob"),
        ({"input_is_log_prob": True, "report": True}, "input_is_log_prob|log-prob"),
    ],
    ids=str,
)
def test_options_that_no_function_passes_on(options: dict[str, Any], message: str) -> None:
    input, target = class_index_inputs((3, 5), torch.float32, "cpu")
    with pytest.raises((ValueError, RuntimeError), match=message):
        _forward(input, target, **options)


@pytest.mark.parametrize(
    "grad_input", [torch.empty(2, 5), torch.empty(3, 5, dtype=torch.bfloat16)], ids=["few", "half"]
)
def test_memory_that_does_not_fit_a_gradient(grad_input: Tensor) -> None:
    input, target = class_index_inputs((3, 5), torch.float32, "cpu")
    settings = CrossEntropyOptions(0, -100).of_backward()
    with pytest.raises(RuntimeError, match="grad_input must be a"):
        torch.ops.ce_ext.cross_entropy_with_grad(grad_input, input, target, None, None, *settings, False, 1.0)


def test_gradient_in_forward_within_inference_mode() -> None:
    settings = CrossEntropyOptions(0, -100).of_backward()
    with torch.inference_mode():
        input, target = class_index_inputs((3, 5), torch.float32, "cpu")
        grad = torch.empty_like(input)
        torch.ops.ce_ext.cross_entropy_with_grad(grad, input, target, None, None, *settings, False, 1.0)
    (exact,) = loss_and_gradients(lambda x: oracles.cross_entropy(x, target, reduction="sum"), input.double())[1:]
    assert_rounded(grad.clone(), exact, roundings=3)


@pytest.mark.torch_modes
def test_a_dtype_that_is_asked_for_under_autocast() -> None:
    input, target = class_index_inputs((3, 5), torch.bfloat16, "cpu")
    with torch.autocast("cpu", torch.bfloat16):
        assert _forward(input, target, out_dtype=torch.bfloat16)[0].dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("shape", "weight", "batch_dims", "message"),
    [
        ((3, 4), (1, 3, 4), 0, "weight"),
        ((3, 4), (), 1, "weight"),
        ((3, 4, 5), (1, 5), 1, "weight"),
        ((3, 4), (4,), -1, "batch_dims"),
        ((3, 4), (4,), 3, "batch_dims"),
    ],
)
def test_factors_and_batches_that_do_not_fit(
    shape: tuple[int, ...], weight: tuple[int, ...], batch_dims: int, message: str
) -> None:
    with OpCalls() as calls:
        binary_cross_entropy_with_logits(torch.zeros(shape), torch.zeros(shape))
    input, target, _, *others, _ = calls.last("ce_ext::binary_cross_entropy_forward").arguments
    op = torch.ops.ce_ext.binary_cross_entropy_forward
    with pytest.raises((ValueError, RuntimeError), match=message):
        op(input, target, torch.ones(weight), *others, batch_dims)


@pytest.mark.torch_modes
def test_gradient_of_a_half_target_without_data() -> None:
    input = torch.zeros(3, 4, device="meta")
    target = torch.zeros(3, 4, dtype=torch.bfloat16, device="meta", requires_grad=True)
    loss = binary_cross_entropy_with_logits(input, target)
    with OpCalls() as calls:
        loss.backward()
    assert _dtypes(calls.last("ce_ext::binary_cross_entropy_backward").results) == [torch.bfloat16]


@pytest.mark.parametrize("name", ["target", "weight", "pos_weight"])
def test_gradients_of_what_has_none(name: str) -> None:
    """Classes, and tensors that are not there."""
    input, target = torch.zeros(3, 4), torch.tensor([0, 1, 4])
    options = BinaryCrossEntropyOptions(1, **{f"needs_{name}": True})
    one = torch.ones(())
    with pytest.raises(RuntimeError, match=rf"^{name} .* gradient"):
        torch.ops.ce_ext.binary_cross_entropy_backward(one, input, target, None, None, None, one, *options)


def test_losses_of_dtypes_that_no_kernel_has() -> None:
    """To which Python casts them."""
    options = CrossEntropyOptions(1, -100, out_dtype=torch.float16)
    with pytest.raises(RuntimeError, match="out_dtype must be that of input, Float"):
        torch.ops.ce_ext.cross_entropy_forward(torch.zeros(2, 3), torch.tensor([0, 1]), None, None, *options)


def test_dimensions_that_are_counted_from_the_end() -> None:
    """Which Python counts from the front."""
    input = torch.randn(3, 4, 5, requires_grad=True)
    result = torch.ops.ce_ext.log_softmax_forward(input, -2, None)
    direction = torch.randn_like(result)
    gradients = (torch.autograd.grad(y, input, direction) for y in (result, oracles.log_softmax(input, -2)))
    torch.testing.assert_close(*gradients)


def test_backward_of_class_probabilities_checks_what_it_gets_from_forward() -> None:
    input, target = torch.zeros(3, 5), torch.full((3, 5), 0.2)
    options = SoftCrossEntropyOptions(1, needs_input=True)
    _, stats, denominator, *_ = torch.ops.ce_ext.soft_cross_entropy_forward(input, target, None, None, *options)
    good = {"grad_output": torch.ones(()), "stats": stats, "denominator": denominator}
    bad = {"grad_output": torch.ones(3), "stats": stats[:2], "denominator": torch.ones(3)}

    def call(grad_output: Tensor, stats: Tensor, denominator: Tensor) -> None:
        others = (input, target, None, None, stats, denominator, *options.of_backward())
        torch.ops.ce_ext.soft_cross_entropy_backward(grad_output, *others)

    call(**good)
    for name, value in bad.items():
        with pytest.raises(RuntimeError, match=f"{name} must be a .* tensor of shape"):
            call(**good | {name: value})
