"""The kernels of log-softmax: values and gradients against float64, in every layout, and where torch loses accuracy."""

import mmap

import pytest
import torch
from torch import Tensor

import ce_ext
from benchmarks.memory import peak_extra_bytes
from tests.losses.softmax.test_layouts import LAYOUTS
from tests.support import oracles
from tests.support.cases import DTYPES, ROUNDING
from tests.support.comparison import assert_rounded, on_cpu
from tests.support.layouts import LAYOUTS_BY_DIM

pytestmark = pytest.mark.kernel

log_softmax = ce_ext.functional.log_softmax
reference = torch.nn.functional.log_softmax
backward_op = torch.ops.ce_ext.log_softmax_backward

IMPLICIT_DIM = "Implicit dimension choice for log_softmax has been deprecated"
INF, NAN = float("inf"), float("nan")
HALVES = (torch.bfloat16, torch.float16)

# Of the input and of the result.
CASTS = [(dtype, dtype) for dtype in DTYPES] + [(half, torch.float32) for half in HALVES]
ALL_CASTS = pytest.mark.parametrize(("dtype", "out_dtype"), CASTS)

# Around the sizes where a kernel changes its ways, see CROSS_ENTROPY in cases.py.
SHAPES = (
    (1,),
    (5,),
    (300,),
    (7, 3),
    (3, 17),
    (4, 63),
    (5, 64),
    (33, 100),
    (600, 10),
    (9000, 3),
    (3, 257),
    (40, 170),  # the longest rows of both types that share a tile of CUDA
    (40, 256),  # and of one
    (2, 4097),
    (2, 9000),
    (3, 10, 4),
    (2, 19, 7, 9),
    (2, 130, 5, 3),
    (2, 4, 3, 2, 5),
)
ALL_SHAPES = pytest.mark.parametrize("shape", SHAPES)
# By rows and by classes as lanes, over several vectors, over several class blocks.
CLASSES = (3, 40, 1000, 9001)


def _logits(*shape: int, dtype: torch.dtype, device: str) -> Tensor:
    return torch.randn(shape, device=device).mul_(3).to(dtype)


def _assert_gradient(grad: Tensor, grad_output: Tensor, output: Tensor, dim: int) -> None:
    """`grad` is g - e^y sum_k g_k, within a few roundings of its terms."""
    g, p = grad_output.double(), output.double().exp()
    exact = g - p * g.sum(dim, keepdim=True)
    terms = g.abs() + p * g.abs().sum(dim, keepdim=True)
    smallest = torch.finfo(grad.dtype).smallest_normal  # below it the rounding of half types is absolute
    assert ((grad.double() - exact).abs() <= 5 * ROUNDING[grad.dtype] * terms.clamp(min=smallest)).all()


def _value_and_gradient(function, input: Tensor, grad_output: Tensor, dim: int = -1) -> tuple[Tensor, Tensor]:
    input = input.detach().requires_grad_()
    output = function(input, dim)
    return output.detach(), torch.autograd.grad(output, input, grad_output)[0]


@ALL_SHAPES
def test_oracle_agrees_with_torch(shape: tuple[int, ...], device: str) -> None:
    for dim in range(len(shape)):
        input = _logits(*shape, dtype=torch.float64, device=device)
        torch.testing.assert_close(oracles.log_softmax(input, dim), reference(input, dim))


@ALL_CASTS
@ALL_SHAPES
def test_values_and_gradient(shape: tuple[int, ...], dtype: torch.dtype, out_dtype: torch.dtype, device: str) -> None:
    for dim in range(len(shape)):
        input = _logits(*shape, dtype=dtype, device=device).requires_grad_()
        output = log_softmax(input, dim, dtype=None if dtype == out_dtype else out_dtype)
        assert output.dtype == out_dtype
        assert_rounded(output, oracles.log_softmax(input, dim), roundings=2)

        grad_output = torch.randn(shape, device=device).to(out_dtype)
        (grad,) = torch.autograd.grad(output, input, grad_output)
        assert grad.dtype == dtype
        _assert_gradient(grad, grad_output, output, dim)


@pytest.mark.parametrize("shape", [(), (4,), (4, 3), (2, 3, 4), (2, 3, 4, 5)])
def test_dimensions_as_torch_counts_them(shape: tuple[int, ...], device: str) -> None:
    input = _logits(*shape, dtype=torch.float64, device=device)
    grad_output = torch.randn(shape, dtype=torch.float64, device=device)
    for dim in range(-max(len(shape), 1), max(len(shape), 1)):
        ours = _value_and_gradient(log_softmax, input, grad_output, dim)
        torch.testing.assert_close(ours, _value_and_gradient(reference, input, grad_output, dim))
    with pytest.warns(UserWarning, match=IMPLICIT_DIM) as warnings:
        torch.testing.assert_close(log_softmax(input), reference(input))
    ours, theirs = warnings
    assert str(ours.message) == str(theirs.message)
    assert ours.filename == __file__


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 3), (0, 300), (2, 0, 4), (0, 0)])
def test_empty(shape: tuple[int, ...], dtype: torch.dtype, device: str) -> None:
    for dim in range(len(shape)):
        input = torch.empty(shape, dtype=dtype, device=device, requires_grad=True)
        output = log_softmax(input, dim)
        (grad,) = torch.autograd.grad(output.sum(), input)
        assert output.shape == grad.shape == shape
        assert output.dtype == grad.dtype == dtype


@pytest.mark.parametrize("input_dtype", [*DTYPES, torch.int64, torch.uint8, torch.bool])
@pytest.mark.parametrize("dtype", DTYPES)
def test_input_is_cast_before(input_dtype: torch.dtype, dtype: torch.dtype, device: str) -> None:
    input = torch.randn(6, 70, device=device).mul_(3).to(input_dtype)
    differentiable = input_dtype.is_floating_point
    input.requires_grad_(differentiable)
    output = log_softmax(input, 1, dtype=dtype)
    assert output.dtype == dtype
    assert_rounded(output, oracles.log_softmax(input.to(dtype), 1), roundings=2)
    if differentiable:
        grad_output = torch.randn(6, 70, device=device).to(dtype)
        (grad,) = torch.autograd.grad(output, input, grad_output)
        assert grad.dtype == input_dtype
        coarser = max(dtype, input_dtype, key=ROUNDING.__getitem__)
        _assert_gradient(grad.to(coarser), grad_output, output, 1)


@pytest.mark.covering(2)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("classes", [5, 77, 300])
@pytest.mark.parametrize(("dim", "name"), LAYOUTS)
def test_layout(dim: int, name: str, classes: int, dtype: torch.dtype, device: str) -> None:
    shape = (20, classes) if dim == 2 else (3, classes, 5, 6)
    layout = LAYOUTS_BY_DIM[dim][name]
    input = layout(_logits(*shape, dtype=dtype, device=device)).detach().requires_grad_()
    for out_dtype in (dtype, torch.float32):
        output = log_softmax(input, 1, dtype=out_dtype)
        assert_rounded(output, oracles.log_softmax(input.contiguous(), 1), roundings=2)
        assert output.stride() == torch.empty_like(input).stride()

        grad_outputs = torch.randn(shape, device=device).to(out_dtype)
        for grad_output in (grad_outputs, layout(grad_outputs), grad_outputs[:1, :1].expand_as(input)):
            (grad,) = torch.autograd.grad(output, input, grad_output, retain_graph=True)
            _assert_gradient(grad, grad_output, output, 1)
            assert grad.stride() == output.stride()
        # The op takes any output, too.
        grad = backward_op(grad_outputs, layout(output.detach().clone()), 1, dtype)
        _assert_gradient(grad, grad_outputs, layout(output.detach()), 1)


@pytest.mark.parametrize(
    ("shape", "stride"),
    [((2, 300), (2**31, 1)), ((2, 5), (2**31, 1)), ((2, 5), (1, 2**29)), ((1, 5, 2), (1, 2**29, 1))],
)
def test_elements_further_apart_than_2_31(shape: tuple[int, ...], stride: tuple[int, ...], device: str) -> None:
    size = 2**31 + 2 * shape[1]

    def far_apart(values: Tensor) -> Tensor:
        if device == "cuda":
            memory = torch.empty(size, dtype=torch.bfloat16, device=device)
        else:  # pages that nobody touches take no memory
            pages = mmap.mmap(-1, size * 2, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            memory = torch.frombuffer(pages, dtype=torch.bfloat16)
        return memory.as_strided(shape, stride).copy_(values)

    input = _logits(*shape, dtype=torch.bfloat16, device=device)
    grad_output = torch.randn(shape, device=device).bfloat16()
    output, grad = _value_and_gradient(log_softmax, input, grad_output, 1)
    assert torch.equal(log_softmax(far_apart(input), 1), output)
    assert torch.equal(backward_op(far_apart(grad_output), output, 1, torch.bfloat16), grad)
    assert torch.equal(backward_op(grad_output, far_apart(output), 1, torch.bfloat16), grad)


@pytest.mark.covering(1)
@pytest.mark.heavy
@pytest.mark.parametrize(("dtype", "out_dtype"), [(torch.float32, torch.float32), (torch.bfloat16, torch.float32)])
@pytest.mark.parametrize(("dim", "name"), [x for x in LAYOUTS if x[1] not in ("crop", "every other")])
def test_nothing_is_allocated_but_the_results(
    dim: int, name: str, dtype: torch.dtype, out_dtype: torch.dtype, device: str
) -> None:
    shape = (512, 256) if dim == 2 else (2, 64, 32, 32)
    layout = LAYOUTS_BY_DIM[dim][name]
    input = layout(_logits(*shape, dtype=dtype, device=device)).detach().requires_grad_()
    with torch.no_grad():
        forward = peak_extra_bytes(lambda: log_softmax(input, 1, dtype=out_dtype), device)
    assert forward <= input.numel() * out_dtype.itemsize + 4096
    output = log_softmax(input, 1, dtype=out_dtype)
    grad_output = layout(torch.randn(shape, dtype=out_dtype, device=device))
    backward = peak_extra_bytes(lambda: torch.autograd.grad(output, input, grad_output)[0], device)
    assert backward <= input.numel() * dtype.itemsize + 4096


@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("margin", [5.0, 15.0, 20.0, 30.0, 60.0])
def test_confident_rows_keep_their_relative_accuracy(margin: float, classes: int, device: str) -> None:
    """Those of torch are off by 2% at a margin of 15, and 0 at one of 30."""
    for dim in (1, 0):  # classes next to each other, and apart
        input = torch.randn(8, classes, device=device)
        target = torch.tensor([0, 1, classes // 2, classes - 1] * 2, device=device)[:, None]
        input.scatter_(1, target, input.amax(1, keepdim=True) + margin)
        exact = oracles.log_softmax(input, 1)
        grad_output = torch.zeros_like(input).scatter_(1, target, -0.7)  # of a negative log likelihood
        exact_grad = (0.7 * exact.exp()).scatter(1, target, 0.7 * exact.gather(1, target).expm1())

        turned = (lambda x: x.t().contiguous()) if dim == 0 else (lambda x: x)
        output, grad = _value_and_gradient(log_softmax, turned(input), turned(grad_output), dim)
        # Exponents as large as the margin are known to so many roundings, no better.
        torch.testing.assert_close(output.double(), turned(exact), rtol=1e-5, atol=0)
        torch.testing.assert_close(grad.double(), turned(exact_grad), rtol=1e-5, atol=0)


@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("ties", [2, 3])
def test_ties(ties: int, classes: int, device: str) -> None:
    input = torch.randn(4, classes, device=device) - 40
    input[:, torch.tensor([0, classes - 1, classes // 2])[:ties]] = 0
    assert_rounded(log_softmax(input, 1), oracles.log_softmax(input, 1), roundings=2)


@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("shift", [100.0, -1000.0, 65536.0])
def test_shifted_logits(shift: float, classes: int, device: str) -> None:
    # Multiples of 1/64 stay exact under the shift.
    input = torch.randn(8, classes, device=device).mul_(64).round_().div_(64)
    assert torch.equal(log_softmax(input + shift, 1), log_softmax(input, 1))


@pytest.mark.parametrize("spread", [1e4, 1e30])
@pytest.mark.parametrize("classes", CLASSES)
def test_wide_logits(classes: int, spread: float, device: str) -> None:
    input = torch.randn(8, classes, device=device) * spread
    grad_output = torch.randn(8, classes, device=device)
    output, grad = _value_and_gradient(log_softmax, input, grad_output)
    torch.testing.assert_close(output.double(), oracles.log_softmax(input, 1), rtol=1e-6, atol=1e-30)
    _assert_gradient(grad, grad_output, output, 1)


@pytest.mark.parametrize("classes", CLASSES)
def test_infinities_as_torch_has_them(classes: int, device: str) -> None:
    input = torch.randn(8, classes, device=device)
    grad_output = torch.randn(8, classes, device=device)
    last = classes - 1
    input[0, last] = -INF  # an impossible class: -inf, and a gradient of its own g
    input[1, 1:] = -INF  # a certain one
    input[2, :last] = -INF  # the same, after whole blocks of nothing
    input[3] = -INF  # NaN, as are the following
    input[4, last] = INF
    input[5, :2] = INF
    input[6, 0], input[6, last] = INF, -INF
    input[7, last] = NAN
    for turned in (input, input.t().contiguous().t()):
        ours = _value_and_gradient(log_softmax, turned, grad_output)
        theirs = _value_and_gradient(on_cpu(reference), input.double(), grad_output.double())
        for actual, expected in zip(ours, theirs, strict=True):
            torch.testing.assert_close(actual.double(), expected, equal_nan=True, rtol=1e-5, atol=1e-4)
        assert torch.equal(ours[1][0, last], grad_output[0, last])
        assert ours[0][1, 0] == 0 and ours[0][2, last] == 0


@pytest.mark.parametrize("classes", CLASSES)
def test_infinite_upstream_gradients(classes: int, device: str) -> None:
    input = torch.randn(3, classes, device=device)
    input[1, 0] = input.max() + 2  # one that is likely ...
    input[2, 0] = input.max() + 90  # ... and one that is certain
    grad_output = torch.randn(3, classes, device=device)
    grad_output[:, 1] = INF
    _, grad = _value_and_gradient(log_softmax, input, grad_output)
    _, expected = _value_and_gradient(on_cpu(reference), input.double(), grad_output.double())
    torch.testing.assert_close(grad[:2].double(), expected[:2], equal_nan=True)
    assert grad[2, 0] == -INF


@pytest.mark.parametrize("classes", CLASSES)
def test_nothing_times_infinity_is_nothing(classes: int, device: str) -> None:
    """An impossible class has no part in an infinite sum of gradients; torch makes NaN of it."""
    input = torch.randn(2, classes, device=device)
    input[:, 0] = -INF
    grad_output = torch.randn(2, classes, device=device)
    grad_output[:, 1] = INF
    _, grad = _value_and_gradient(log_softmax, input, grad_output)
    assert torch.equal(grad[:, 0], grad_output[:, 0])
    assert grad[:, 1].isnan().all() and (grad[:, 2:] == -INF).all()


@pytest.mark.heavy
@pytest.mark.not_emulated
@pytest.mark.parametrize("shape", [(1000, 7), (1000, 300), (64, 9001), (3, 5, 40, 41)])
def test_bits_do_not_depend_on_the_number_of_threads(shape: tuple[int, ...], device: str) -> None:
    input, grad_output = torch.randn(shape, device=device), torch.randn(shape, device=device)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 3, 7, 1):
            torch.set_num_threads(count)
            results.append(_value_and_gradient(log_softmax, input, grad_output, 1))
    finally:
        torch.set_num_threads(threads)
    for output, grad in results[1:]:
        assert torch.equal(output, results[0][0]) and torch.equal(grad, results[0][1])


def test_more_dimensions_than_kernels_take(device: str) -> None:
    shape = (2,) * 10
    input = torch.randn([size + 1 for size in shape], device=device)[(slice(0, 2),) * 10]
    with pytest.raises(NotImplementedError, match=r"more than 8 dimensions .* make it contiguous"):
        log_softmax(input, 3)
    torch.testing.assert_close(log_softmax(input.contiguous(), 3), reference(input, 3))
