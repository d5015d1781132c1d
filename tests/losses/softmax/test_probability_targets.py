"""The kernels of cross entropy with class probabilities, and of its focal loss: values and both gradients against
float64, in every layout, for confident rows and at infinities."""

from typing import Any

import pytest
import torch
from torch import Tensor

import ce_ext
from benchmarks.memory import peak_extra_bytes
from tests.losses.softmax.test_layouts import LAYOUTS
from tests.support import oracles
from tests.support.cases import CROSS_ENTROPY, DTYPES, class_count
from tests.support.comparison import assert_rounded, on_cpu
from tests.support.layouts import LAYOUTS_BY_DIM
from tests.support.marks import ALL_REDUCTIONS

pytestmark = pytest.mark.kernel

cross_entropy = ce_ext.functional.cross_entropy
softmax_focal_loss = ce_ext.functional.softmax_focal_loss
reference = torch.nn.functional.cross_entropy
forward_op = torch.ops.ce_ext.soft_cross_entropy_forward
backward_op = torch.ops.ce_ext.soft_cross_entropy_backward

INF = float("inf")
# By rows and by classes as lanes, over several vectors, over several class blocks.
CLASSES = (3, 40, 1000, 9001)

# Of the logits and of the target.
CASTS = [(dtype, dtype) for dtype in DTYPES] + [(torch.bfloat16, torch.float32), (torch.float16, torch.float32)]
ALL_CASTS = pytest.mark.parametrize(("dtype", "target_dtype"), CASTS)


def _inputs(
    shape: tuple[int, ...], dtype: torch.dtype, device: str, target_dtype: torch.dtype | None = None
) -> tuple[Tensor, Tensor]:
    input = torch.randn(shape, device=device).mul_(3).to(dtype)
    target = torch.randn(shape, device=device).softmax(0 if len(shape) == 1 else 1)
    return input, target.to(target_dtype or dtype)


def _rows(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[:1] + shape[2:] if len(shape) > 1 else ()


def _results(
    input: Tensor, target: Tensor, grad_output: Tensor | None = None, function: Any = cross_entropy, **options: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """The loss, and the gradients in input and target."""
    input, target = (x.detach().requires_grad_() for x in (input, target))
    loss = function(input, target, **options)
    grads = torch.autograd.grad(loss, (input, target), torch.ones_like(loss) if grad_output is None else grad_output)
    return loss.detach(), *grads


def _assert_exact(input: Tensor, target: Tensor, **options: Any) -> None:
    """Loss and gradients are those of the oracle, to a few roundings of their largest terms."""
    reduction = options.get("reduction", "mean")
    shape = _rows(input.shape) if reduction == "none" else ()
    dtype = options.get("out_dtype", torch.promote_types(input.dtype, target.dtype))
    grad_output = torch.randn(shape, device=input.device).to(dtype)
    function = softmax_focal_loss if "gamma" in options else cross_entropy
    results = _results(input, target, grad_output, function, **options)
    exact_options = {name: value for name, value in options.items() if name != "out_dtype"}
    exact = _results(input.double(), target.double(), grad_output.double(), oracles.soft_cross_entropy, **exact_options)
    assert [x.dtype for x in results] == [dtype, input.dtype, target.dtype]
    # What mass p_j and u_j differ by may be less than either.
    terms = (grad_output * target.amax()).abs().max().item() if reduction == "none" else 0.0
    for result, expected in zip(results, exact, strict=True):
        assert_rounded(result, expected, roundings=3, scale=max(expected.abs().max().item(), terms))


OPTIONS: tuple[dict[str, Any], ...] = (
    {},
    {"label_smoothing": 0.1},
    {"weight": True},
    {"weight": True, "label_smoothing": 0.1},
    {"label_smoothing": 1.0},
    {"z_loss": 0.01, "sample_weight": True},
    {"softcap": 5.0, "logit_scale": 0.7, "weight": True, "label_smoothing": 0.1, "z_loss": 0.01},
    {"gamma": 2.0},
    {"gamma": 0.5, "weight": True, "label_smoothing": 0.1, "sample_weight": True},
    {"gamma": 3.5, "softcap": 5.0, "logit_scale": 0.7, "weight": True, "z_loss": 0.01},
)


@pytest.mark.covering(2)
@ALL_CASTS
@ALL_REDUCTIONS
@pytest.mark.parametrize("shape", [x for x in CROSS_ENTROPY.shapes if x != (9000, 3)])
def test_values_and_gradients(
    shape: tuple[int, ...], reduction: str, dtype: torch.dtype, target_dtype: torch.dtype, device: str
) -> None:
    for options in OPTIONS:
        tensors = {}
        if options.get("weight"):
            tensors["weight"] = (torch.rand(class_count(shape), device=device) + 0.1).to(dtype)
        if options.get("sample_weight"):
            tensors["sample_weight"] = torch.rand(_rows(shape), device=device).to(target_dtype)
        input, target = _inputs(shape, dtype, device, target_dtype)
        _assert_exact(input, target, reduction=reduction, **{**options, **tensors})


@pytest.mark.parametrize("shape", [(70, 5), (70, 300), (2, 5, 3, 4)])
def test_float32_loss_of_half_logits(shape: tuple[int, ...], device: str) -> None:
    for reduction in ("mean", "none"):
        input, target = _inputs(shape, torch.bfloat16, device)
        _assert_exact(input, target, reduction=reduction, out_dtype=torch.float32)


@pytest.mark.parametrize("shape", [(5,), (70, 5), (70, 300), (2, 5, 3, 4)])
def test_agrees_with_torch(shape: tuple[int, ...], device: str) -> None:
    input, target = _inputs(shape, torch.float64, device)
    weight = torch.rand(class_count(shape), dtype=torch.float64, device=device)
    for options in ({}, {"weight": weight, "label_smoothing": 0.2}, {"reduction": "sum", "weight": weight}):
        ours, theirs = (_results(input, target, function=f, **options) for f in (cross_entropy, reference))
        torch.testing.assert_close(ours, theirs)


@ALL_REDUCTIONS
@pytest.mark.parametrize("extra_dims", range(5))
def test_every_number_of_dimensions(extra_dims: int, reduction: str, device: str) -> None:
    shape = (2, 5, *(2, 3, 2, 2)[:extra_dims])
    input, target = _inputs(shape, torch.float64, device)
    _assert_exact(input, target, reduction=reduction, label_smoothing=0.1)


# Layouts


@pytest.mark.covering(2)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("classes", [5, 77, 300])
@pytest.mark.parametrize(("dim", "name"), LAYOUTS)
def test_layout(dim: int, name: str, classes: int, dtype: torch.dtype, device: str) -> None:
    shape = (20, classes) if dim == 2 else (3, classes, 5, 6)
    change = LAYOUTS_BY_DIM[dim][name]
    input, target = _inputs(shape, dtype, device)
    for x, q in ((change(input), target), (input, change(target)), (change(input), change(target))):
        _assert_exact(x, q, reduction="none", label_smoothing=0.1)
        _assert_exact(x, q, reduction="none", gamma=1.5)
        grads = _results(x, q)[1:]
        assert [grad.stride() for grad in grads] == [torch.empty_like(t).stride() for t in (x, q)]


@pytest.mark.parametrize("shape", [(70, 9), (70, 300), (3, 9, 5, 6)])
def test_upstream_gradient_of_any_strides(shape: tuple[int, ...], device: str) -> None:
    input, target = _inputs(shape, torch.float64, device)
    full = torch.randn(_rows(shape), dtype=torch.float64, device=device)
    for grad_output in (full[:1].expand(full.shape), full.transpose(0, -1).contiguous().transpose(0, -1)):
        ours = _results(input, target, grad_output, reduction="none")
        exact = _results(input, target, grad_output, oracles.soft_cross_entropy, reduction="none")
        torch.testing.assert_close(ours, exact)


@pytest.mark.heavy
@pytest.mark.parametrize(("dim", "name"), [x for x in LAYOUTS if x[1] not in ("crop", "every other")])
def test_nothing_is_copied(dim: int, name: str, device: str) -> None:
    shape = (512, 256) if dim == 2 else (2, 64, 32, 32)
    input, target = (LAYOUTS_BY_DIM[dim][name](x).requires_grad_() for x in _inputs(shape, torch.float32, device))
    per_row = 16 * input.numel() // shape[1] + 4096
    with torch.no_grad():
        assert peak_extra_bytes(lambda: cross_entropy(input, target), device) <= per_row
    for leaves in ([input], [target], [input, target]):
        x, q = (t if any(t is leaf for leaf in leaves) else t.detach() for t in (input, target))
        loss = cross_entropy(x, q)
        backward = peak_extra_bytes(lambda loss=loss, leaves=leaves: torch.autograd.grad(loss, leaves)[0], device)
        assert backward <= len(leaves) * input.numel() * 4 + per_row


@pytest.mark.parametrize("shape", [(7, 5), (7, 300)])
def test_gradients_that_nobody_needs_are_not_made(shape: tuple[int, ...], device: str) -> None:
    input, target = _inputs(shape, torch.float32, device)
    tensors, one = (input, target, None, None), torch.ones((), device=device)
    for needs in ((True, True), (True, False), (False, True), (False, False)):
        for gamma in (0.0, 1.5):
            options = (1, 0.1, gamma, 0.0, 1.0, 0.0, False, None, None, *needs, 0)
            _, stats, denominator, *_ = forward_op(*tensors, *options, True, False)
            grads = backward_op(one, *tensors, stats, denominator, *options)
            assert tuple(grad is not None for grad in grads) == needs
            expected = _results(input, target, function=softmax_focal_loss, gamma=gamma, label_smoothing=0.1)[1:]
            for grad, both in zip(grads, expected, strict=True):
                assert grad is None or torch.equal(grad, both)


# What class probabilities mean


@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("margin", [0.0, 15.0, 20.0, 30.0, 60.0])
def test_one_hot_probabilities_are_class_indices(margin: float, classes: int, device: str) -> None:
    """Confident rows included: their loss and gradient are exact where probabilities of 1 and 1 - p_y cancel."""
    input = torch.randn(8, classes, device=device)
    index = torch.tensor([0, 1, classes // 2, classes - 1] * 2, device=device)
    input[torch.arange(8), index] = input.amax(1) + margin
    target = torch.nn.functional.one_hot(index, classes).to(input.dtype)
    # What little smoothing takes from the target is the gradient of a row that is sure of it.
    for label_smoothing in (0.0, 1e-5):
        exact_input = input.double().requires_grad_()
        exact = oracles.cross_entropy(exact_input, index, reduction="none", label_smoothing=label_smoothing)
        exact.sum().backward()
        loss, grad, _ = _results(input, target, reduction="none", label_smoothing=label_smoothing)
        torch.testing.assert_close(loss.double(), exact, rtol=1e-5, atol=0)
        torch.testing.assert_close(grad.double(), exact_input.grad, rtol=1e-5, atol=1e-6 * label_smoothing)

    weight = torch.rand(classes, device=device) + 0.1
    for options in ({"label_smoothing": 0.1}, {"weight": weight}, {"z_loss": 0.1, "softcap": 20.0}):
        leaf = input.detach().requires_grad_()
        expected = cross_entropy(leaf, index, reduction="none", **options)
        (expected_grad,) = torch.autograd.grad(expected.sum(), leaf)
        loss, grad, _ = _results(input, target, reduction="none", **options)
        torch.testing.assert_close(loss, expected, rtol=3e-6, atol=0)
        torch.testing.assert_close(grad, expected_grad, rtol=3e-6, atol=3e-7)


GAMMAS = pytest.mark.parametrize("gamma", [0.25, 1.0, 2.0])


@GAMMAS
@pytest.mark.parametrize("classes", CLASSES)
def test_focal_loss_of_one_hot_probabilities(classes: int, gamma: float, device: str) -> None:
    """As of class indices, for confident rows, too, at both ends of which (1 - p)^(gamma - 1) would be infinite."""
    index = torch.arange(14, device=device) % classes
    target = torch.nn.functional.one_hot(index, classes).float()
    weight = torch.rand(classes, device=device) + 0.1
    input = torch.randn(14, classes, device=device)
    margins = torch.tensor([0.0, 15.0, 20.0, 30.0, 60.0, 80.0, 300.0], device=device)
    input[range(14), index] = input.amax(1) + torch.cat([margins, -margins])
    for options in ({}, {"weight": weight, "z_loss": 0.1}, {"softcap": 300.0, "logit_scale": 0.5}):
        options = {**options, "gamma": gamma, "reduction": "none"}
        exact_input, exact_options = input.double().requires_grad_(), options.copy()
        if "weight" in options:
            exact_options["weight"] = weight.double()
        exact = oracles.softmax_focal_loss(exact_input, index, **exact_options)
        (exact_grad,) = torch.autograd.grad(exact.sum(), exact_input)
        loss, grad, grad_target = _results(input, target, function=softmax_focal_loss, **options)
        tiny = 1e-37  # where 1 - p is no number of float32
        torch.testing.assert_close(loss.double(), exact, rtol=1e-5, atol=tiny)
        torch.testing.assert_close(grad.double(), exact_grad, rtol=3e-5, atol=tiny + 1e-6 * options.get("z_loss", 0))
        assert grad_target.isfinite().all()


@GAMMAS
@pytest.mark.parametrize("classes", CLASSES)
def test_focal_loss_of_confident_rows(classes: int, gamma: float, device: str) -> None:
    """What the target has of other classes is not lost in what it has of the one that is as good as certain."""
    input, target = _inputs((8, classes), torch.float32, device)
    input[torch.arange(8), torch.arange(8) % classes] += 40
    _assert_exact(input, target, reduction="none", gamma=gamma)
    small = 1e-6 * target
    small[torch.arange(8), torch.arange(8) % classes] = 1.0
    exact_input = input.double().requires_grad_()
    exact = oracles.soft_cross_entropy(exact_input, small.double(), gamma=gamma, reduction="none")
    (exact_grad,) = torch.autograd.grad(exact.sum(), exact_input)
    loss, grad, _ = _results(input, small, function=softmax_focal_loss, gamma=gamma, reduction="none")
    torch.testing.assert_close(loss.double(), exact, rtol=1e-5, atol=0)
    torch.testing.assert_close(grad.double(), exact_grad, rtol=3e-5, atol=0)


@pytest.mark.parametrize("classes", CLASSES)
def test_focal_loss_without_gamma_is_cross_entropy(classes: int, device: str) -> None:
    input, target = _inputs((6, classes), torch.float32, device)
    focal = _results(input, target, function=softmax_focal_loss, gamma=0.0, label_smoothing=0.1)
    assert all(map(torch.equal, focal, _results(input, target, label_smoothing=0.1)))


@pytest.mark.parametrize("classes", CLASSES)
def test_focal_loss_with_impossible_classes(classes: int, device: str) -> None:
    """They add nothing without probability or weight; with both, the loss is infinite."""
    input, target = _inputs((6, classes), torch.float32, device)
    masked = torch.rand(6, classes, device=device) < 0.5
    masked[:, :2] = False
    masked[0, 1:] = True  # a single class is left
    masked[1:, classes - 1] = True
    weight = torch.rand(classes, device=device) + 0.1
    weight[classes - 1] = 0
    target = target.masked_fill(masked & (weight != 0), 0)
    options: dict[str, Any] = {"function": softmax_focal_loss, "weight": weight, "gamma": 0.5, "reduction": "none"}
    expected = _results(input.masked_fill(masked, -1e4), target, **options)
    loss, grad, grad_target = _results(input.masked_fill(masked, -INF), target, **options)
    torch.testing.assert_close((loss, grad), expected[:2])
    assert loss[0] == 0 and (grad[masked] == 0).all() and grad[0, 0] == 0
    impossible = masked & (weight != 0)
    assert (grad_target[impossible] == INF).all() and (grad_target[:, classes - 1] == 0).all()
    torch.testing.assert_close(grad_target[~impossible], expected[2][~impossible])

    input[1, 0], input[2, 1], input[3] = -INF, INF, -INF
    loss, grad, grad_target = _results(input, target, **options)
    assert loss[1] == INF and grad[1].isfinite().all() and grad_target[1, 0] == INF
    assert loss[2:4].isnan().all() and grad[2:4].isnan().any(1).all() and loss[4:].isfinite().all()


@pytest.mark.parametrize("classes", CLASSES)
def test_smoothing_is_a_mixture_with_the_uniform_distribution(classes: int, device: str) -> None:
    input, target = _inputs((6, classes), torch.float64, device)
    smoothed = _results(input, target, label_smoothing=0.3)
    mixed = _results(input, 0.7 * target + 0.3 / classes)
    torch.testing.assert_close(smoothed, (*mixed[:2], 0.7 * mixed[2]))


@pytest.mark.parametrize("classes", CLASSES)
def test_probabilities_need_not_sum_to_one(classes: int, device: str) -> None:
    input, target = _inputs((6, classes), torch.float32, device)
    _assert_exact(input, 3 * target - 0.1, reduction="none")
    loss, grad, _ = _results(input, torch.zeros_like(target))
    assert loss == 0 and (grad == 0).all()


@pytest.mark.parametrize("classes", CLASSES)
def test_soft_confident_rows(classes: int, device: str) -> None:
    """A prediction as good as certain, of a target that is not."""
    input, target = _inputs((8, classes), torch.float32, device)
    input[torch.arange(8), torch.arange(8) % classes] += 40
    _assert_exact(input, target, reduction="none")


@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("shift", [100.0, -1000.0, 65536.0])
def test_shifted_logits(shift: float, classes: int, device: str) -> None:
    input, target = _inputs((8, classes), torch.float32, device)
    input = input.mul_(64).round_().div_(64)  # multiples of 1/64 stay exact under the shift
    assert all(map(torch.equal, _results(input + shift, target), _results(input, target)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("classes", CLASSES)
def test_nothing_times_infinity_is_nothing(classes: int, dtype: torch.dtype, device: str) -> None:
    """An impossible class adds nothing if its probability or its weight is 0; torch makes NaN of it."""
    input, target = _inputs((6, classes), dtype, device)
    masked = torch.rand(6, classes, device=device) < 0.5
    masked[:, 0] = False
    masked[0, 1:] = True  # a single class is left
    weight = torch.rand(classes, device=device).to(dtype) + 0.1
    weight[classes - 1] = 0
    masked[1:, classes - 1] = True
    target = target.masked_fill(masked & (weight != 0), 0)
    expected = _results(input.masked_fill(masked, -1e4), target, weight=weight, reduction="none")
    loss, grad, grad_target = _results(input.masked_fill(masked, -INF), target, weight=weight, reduction="none")
    torch.testing.assert_close(loss, expected[0])
    torch.testing.assert_close(grad, expected[1])
    assert (grad[masked] == 0).all() and loss.isfinite().all()
    assert (grad_target[:, classes - 1] == 0).all()
    impossible = masked & (weight != 0)
    assert (grad_target[impossible] == INF).all()  # a first bit of probability would cost that much
    torch.testing.assert_close(grad_target[~impossible], expected[2][~impossible])


@pytest.mark.parametrize("classes", CLASSES)
def test_infinities_as_torch_has_them(classes: int, device: str) -> None:
    input, target = _inputs((5, classes), torch.float32, device)
    input[0, 1] = -INF  # infinite loss, finite gradient
    input[1, 1] = INF  # NaN
    input[2] = -INF  # NaN
    input[3, 0] = torch.nan
    ours = _results(input, target, reduction="none")
    theirs = _results(input.double(), target.double(), function=on_cpu(reference), reduction="none")
    for our, their in zip(ours[:2], theirs[:2], strict=True):
        torch.testing.assert_close(our.double(), their, equal_nan=True, rtol=1e-5, atol=1e-6)
    assert ours[2][0, 1] == INF and ours[2][1:4].isnan().any(1).all() and ours[2][4].isfinite().all()


# What else there is


@pytest.mark.parametrize("shape", [(70, 5), (7, 300), (2, 5, 3, 4), (3, 9001)])
def test_stats(shape: tuple[int, ...], device: str) -> None:
    for dtype, target_dtype in CASTS:
        input, target = _inputs(shape, dtype, device, target_dtype)
        weight = torch.rand(shape[1], device=device).to(dtype)
        for options in (
            {},
            {"softcap": 5.0, "logit_scale": 2.0},
            {"weight": weight, "label_smoothing": 0.1},
            {"gamma": 1.5, "weight": weight},
        ):
            options = {"gamma": 0.0, **options}
            loss, stats = softmax_focal_loss(input, target, return_stats=True, **options)
            torch.testing.assert_close(loss, softmax_focal_loss(input, target, **options))
            z = input.double() * options.get("logit_scale", 1.0)
            if "softcap" in options:
                z = 5 * torch.tanh(z / 5)
            log_p = z.log_softmax(1)
            for actual, expected in (
                (stats.lse, z.logsumexp(1)),
                (stats.entropy, -(log_p.exp() * log_p).sum(1)),
                (stats.target_log_prob, (target.double() * log_p).sum(1)),
            ):
                assert_rounded(actual, expected, roundings=3, scale=expected.abs().max().item())
            assert torch.equal(stats.argmax, input.argmax(1))


@pytest.mark.parametrize("shape", [(4, 5), (4, 300)])
def test_log_probability_of_an_impossible_class_without_probability(shape: tuple[int, ...], device: str) -> None:
    input, target = _inputs(shape, torch.float32, device)
    input[0, 1], target[0, 1] = -INF, 0
    input[1, 1] = -INF
    target_log_prob = cross_entropy(input, target, return_stats=True)[1].target_log_prob
    expected = cross_entropy(input.clamp(min=-1e4), target, return_stats=True)[1].target_log_prob
    torch.testing.assert_close(target_log_prob[0], expected[0])
    assert target_log_prob[1] == -INF


@pytest.mark.parametrize("shape", [(4, 5), (4, 300)])
def test_mean_over_what(shape: tuple[int, ...], device: str) -> None:
    input, target = _inputs(shape, torch.float64, device)
    weight = torch.rand(shape[1], dtype=torch.float64, device=device)
    rows = cross_entropy(input, target, weight, reduction="none")
    torch.testing.assert_close(cross_entropy(input, target, weight), rows.sum() / 4)
    sample_weight = torch.tensor([1.0, 0.0, 2.0, 0.5], dtype=torch.float64, device=device)
    weighted = cross_entropy(input, target, weight, sample_weight=sample_weight)
    torch.testing.assert_close(weighted, (rows * sample_weight).sum() / 3.5)
    torch.testing.assert_close(cross_entropy(input, target, weight, denominator=7), rows.sum() / 7)


@ALL_REDUCTIONS
@pytest.mark.parametrize("shape", [(0, 5), (0, 300), (2, 5, 0), (0, 5, 3)])
def test_empty_batch(shape: tuple[int, ...], reduction: str, device: str) -> None:
    input, target = _inputs(shape, torch.float32, device)
    for ours, theirs in zip(
        _results(input, target, reduction=reduction),
        _results(input, target, function=on_cpu(reference), reduction=reduction),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, equal_nan=True)


def test_on_empty(device: str) -> None:
    input, target = _inputs((3, 5), torch.float32, device)
    nothing = torch.zeros(3, device=device)
    assert cross_entropy(input, target, sample_weight=nothing).isnan()
    loss, *grads = _results(input, target, sample_weight=nothing, on_empty="zero")
    assert loss == 0 and all((grad == 0).all() for grad in grads)
    assert cross_entropy(input[:0], target[:0], on_empty="zero") == 0


def test_no_classes(device: str) -> None:
    input = torch.zeros(4, 0, device=device)
    loss, *grads = _results(input, input, reduction="none")
    assert torch.equal(loss, torch.zeros(4, device=device)) and all(grad.shape == (4, 0) for grad in grads)


@pytest.mark.heavy
@pytest.mark.not_emulated
@pytest.mark.parametrize("shape", [(1000, 7), (1000, 300), (64, 9001), (3, 5, 40, 41)])
def test_bits_do_not_depend_on_the_number_of_threads(shape: tuple[int, ...], device: str) -> None:
    input, target = _inputs(shape, torch.float32, device)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append(_results(input, target, label_smoothing=0.1))
    finally:
        torch.set_num_threads(threads)
    for result in results[1:]:
        assert all(map(torch.equal, result, results[0]))


def test_groups_of_rows(device: str) -> None:
    """More than are summed at a time, and a batch of reductions."""
    input, target = _inputs((9000, 3), torch.float32, device)
    _assert_exact(input, target)
    input, target = _inputs((3, 70, 5), torch.float64, device)
    mapped = torch.func.vmap(cross_entropy)(input, target)
    torch.testing.assert_close(mapped, torch.stack([cross_entropy(*pair) for pair in zip(input, target, strict=True)]))
