"""What must hold for any logits and targets. Hypothesis draws them, and shrinks the ones for which it does not."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import pytest
import torch
from torch import Tensor

import ce_ext
from tests.support import oracles
from tests.support.cases import DTYPES, ROUNDING

pytest.importorskip("hypothesis")
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

pytestmark = [pytest.mark.kernel, pytest.mark.heavy]

F = ce_ext.functional

SETTINGS = settings(
    derandomize=True,  # the same draws on every run
    database=None,
    deadline=None,
    print_blob=False,
    max_examples=50,
    # The fixtures choose a device, seed torch and poison its memory: examples may share that.
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
REDUCTIONS = ("mean", "sum", "none")


@dataclass
class Problem:
    input: Tensor
    target: Tensor
    weight: Tensor | None
    label_smoothing: float

    @property
    def options(self) -> dict[str, object]:
        return {"weight": self.weight, "label_smoothing": self.label_smoothing}

    @property
    def double_weight(self) -> Tensor | None:
        return None if self.weight is None else self.weight.double()

    @property
    def class_dim(self) -> int:
        return min(1, self.input.dim() - 1)

    @property
    def classes(self) -> int:
        return self.input.shape[self.class_dim]

    def random_rows(self, seed: int = 1) -> Tensor:
        """A number in [0.5, 2) for each row."""
        generator = torch.Generator().manual_seed(seed)
        rows = torch.rand(self.target.shape, generator=generator, dtype=torch.float64) * 1.5 + 0.5
        return rows.to(self.input.device, self.input.dtype)

    def as_rows(self) -> "Problem":
        """The same rows, as (N, C)."""
        input = self.input.movedim(self.class_dim, -1).reshape(self.target.numel(), self.classes)
        return Problem(input, self.target.reshape(-1), self.weight, self.label_smoothing)


@st.composite
def problems(
    draw: st.DrawFn,
    device: str,
    dtypes: tuple[torch.dtype, ...] = DTYPES,
    weighted: bool | None = None,
    scales: tuple[float, ...] = (0.1, 3.0, 3.0, 100.0, 10000.0),
    max_classes: int = 300,
) -> Problem:
    """Logits of one to four dimensions, targets of which none or some are ignored, and options."""
    classes = draw(st.integers(1, 12) | st.integers(1, max_classes))
    rows = tuple(draw(st.lists(st.integers(1, 6), max_size=3)))
    shape = (*rows[:1], classes, *rows[1:])
    dtype = draw(st.sampled_from(dtypes))
    scale = draw(st.sampled_from(scales))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    input = (torch.randn(shape, generator=generator, dtype=torch.float64) * scale).to(dtype)
    target = torch.randint(0, classes, rows, generator=generator)
    if draw(st.booleans()):
        ignored = torch.rand(rows, generator=generator) < 0.3
        ignored.view(-1)[0] = False  # a mean over nothing is NaN, which would hide others
        target[ignored] = -100
    weight = None
    if draw(st.booleans()) if weighted is None else weighted:
        weight = (torch.rand(classes, generator=generator, dtype=torch.float64) + 0.1).to(dtype).to(device)
    label_smoothing = draw(st.sampled_from((0.0, 0.1, 1.0)))
    return Problem(input.to(device), target.to(device), weight, label_smoothing)


def _loss_and_gradient(
    function: Callable[..., Tensor], input: Tensor, *arguments: Tensor, grad_output: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    input = input.detach().requires_grad_()
    loss = function(input, *arguments)
    upstream = torch.ones_like(loss) if grad_output is None else grad_output.to(loss.dtype)
    (grad,) = torch.autograd.grad(loss, input, upstream)
    return loss.detach(), grad


def _assert_same(
    actual: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor], roundings: float = 3, scale: float = 0.0
) -> None:
    """The same loss and gradient, but for rounding: `scale` is that of what cancels in the loss.

    In a gradient something as large as the upstream gradient, 1, may cancel, in the dtype that kernels compute in.
    """
    for ours, theirs, cancelled in ((actual[0], expected[0], scale), (actual[1], expected[1], max(scale, 1.0))):
        dtype = ours.dtype
        opmath = ROUNDING[torch.float64 if dtype == torch.float64 else torch.float32]
        smallest = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
        largest = theirs.double().nan_to_num(posinf=0, neginf=0).abs().max().item() if theirs.numel() else 0.0
        torch.testing.assert_close(
            ours.double(),
            theirs.double(),
            rtol=roundings * ROUNDING[dtype],
            atol=roundings * opmath * max(cancelled, largest) + smallest if cancelled else smallest,
        )


@SETTINGS
@given(data=st.data())
def test_shifted_logits(data: st.DataObject, device: str) -> None:
    p = data.draw(problems(device))
    is_half = p.input.dtype in (torch.bfloat16, torch.float16)
    grid, limit = (1, 100) if is_half else (64, 1e5)  # what stays exact under the shift
    input = p.input.double().mul(grid).round().div(grid).clamp(-limit, limit).to(p.input.dtype)
    shift = data.draw(st.integers(-100, 100))
    function = partial(F.cross_entropy, reduction=data.draw(st.sampled_from(REDUCTIONS)), **p.options)
    shifted = _loss_and_gradient(function, input + shift, p.target)
    for actual, expected in zip(shifted, _loss_and_gradient(function, input, p.target), strict=True):
        torch.testing.assert_close(actual, expected, rtol=0, atol=0)


@SETTINGS
@given(data=st.data())
def test_one_hot_probabilities_are_indices(data: st.DataObject, device: str) -> None:
    p = data.draw(problems(device))
    # The mean over probabilities divides by the rows, that over indices by their weights.
    reduction = data.draw(st.sampled_from(REDUCTIONS if p.weight is None else ("sum", "none")))
    target = p.target.clamp(min=0)
    function = partial(F.cross_entropy, reduction=reduction, **p.options)
    _assert_same(
        _loss_and_gradient(function, p.input, _one_hot(p, target)), _loss_and_gradient(function, p.input, target)
    )


def _one_hot(p: Problem, target: Tensor) -> Tensor:
    one_hot = torch.nn.functional.one_hot(target, p.classes).to(p.input.dtype)
    return one_hot.movedim(-1, p.class_dim)


@SETTINGS
@given(data=st.data())
def test_label_smoothing_is_smoothed_probabilities(data: st.DataObject, device: str) -> None:
    p = data.draw(problems(device))
    reduction = data.draw(st.sampled_from(REDUCTIONS if p.weight is None else ("sum", "none")))
    target = p.target.clamp(min=0)
    # Powers of two: probabilities and smoothing are exact in every dtype where the number of classes is one, too.
    smoothing = data.draw(st.sampled_from((0.25, 0.5, 1.0)))
    smoothed = (1 - smoothing) * _one_hot(p, target).double() + smoothing / p.classes
    exact = torch.equal(smoothed.to(p.input.dtype).double(), smoothed)
    assume(exact or p.input.dtype in (torch.float32, torch.float64))
    function = partial(F.cross_entropy, weight=p.weight, reduction=reduction)
    expected = _loss_and_gradient(partial(function, label_smoothing=smoothing), p.input, target)
    _assert_same(_loss_and_gradient(function, p.input, smoothed.to(p.input.dtype)), expected)
    # Of probabilities, too, label smoothing makes others.
    probabilities = _one_hot(p, target)
    actual = _loss_and_gradient(partial(function, label_smoothing=smoothing), p.input, probabilities)
    _assert_same(actual, expected)


@SETTINGS
@given(data=st.data())
def test_gradients_of_a_row_sum_to_zero(data: st.DataObject, device: str) -> None:
    p = data.draw(problems(device))
    gamma = data.draw(st.sampled_from((0.0, 0.5, 2.0)))
    function = partial(F.softmax_focal_loss, gamma=gamma, reduction="none", **p.options)
    _, grad = _loss_and_gradient(function, p.input, p.target)
    grad = grad.double()
    dtype = p.input.dtype
    opmath = ROUNDING[torch.float64 if dtype == torch.float64 else torch.float32]
    tolerance = 2 * ROUNDING[dtype] * grad.abs().sum(p.class_dim) + p.classes * torch.finfo(dtype).tiny
    if p.label_smoothing > 0:
        tolerance += 3 * opmath
    assert (grad.sum(p.class_dim).abs() <= tolerance).all()


@SETTINGS
@given(data=st.data())
def test_ignoring_rows_is_deleting_them(data: st.DataObject, device: str) -> None:
    p = data.draw(problems(device)).as_rows()
    reduction = data.draw(st.sampled_from(REDUCTIONS))
    gamma = data.draw(st.sampled_from((0.0, 2.0)))
    kept = p.target != -100
    sample_weight = p.random_rows()

    def function(input: Tensor, target: Tensor, sample_weight: Tensor) -> Tensor:
        options = {"gamma": gamma, "z_loss": 0.01, "sample_weight": sample_weight}
        return F.softmax_focal_loss(input, target, reduction=reduction, **options, **p.options)

    loss, grad = _loss_and_gradient(function, p.input, p.target, sample_weight)
    assert (grad[~kept] == 0).all()
    if reduction == "none":
        assert (loss[~kept] == 0).all()
        loss = loss[kept]
    alone = _loss_and_gradient(function, p.input[kept], p.target[kept], sample_weight[kept])
    _assert_same((loss, grad[kept]), alone)


@SETTINGS
@given(data=st.data())
def test_weights_of_one_change_nothing(data: st.DataObject, device: str) -> None:
    p = data.draw(problems(device, weighted=False))
    reduction = data.draw(st.sampled_from(REDUCTIONS))
    function = partial(F.cross_entropy, reduction=reduction, label_smoothing=p.label_smoothing)
    expected = _loss_and_gradient(function, p.input, p.target)
    ones = p.input.new_ones(p.classes)
    _assert_same(_loss_and_gradient(partial(function, weight=ones), p.input, p.target), expected)
    ones = torch.ones_like(p.target, dtype=p.input.dtype)
    _assert_same(_loss_and_gradient(partial(function, sample_weight=ones), p.input, p.target), expected)
    probabilities = p.input.double().softmax(p.class_dim).to(p.input.dtype)
    expected = _loss_and_gradient(function, p.input, probabilities)
    _assert_same(_loss_and_gradient(partial(function, sample_weight=ones), p.input, probabilities), expected)


@SETTINGS
@given(data=st.data())
def test_sample_weights_scale_the_losses_of_rows(data: st.DataObject, device: str) -> None:
    p = data.draw(problems(device, scales=(0.1, 3.0, 100.0)))
    sample_weight = p.random_rows()
    options = {"gamma": data.draw(st.sampled_from((0.0, 0.5, 2.0))), "z_loss": data.draw(st.sampled_from((0.0, 0.01)))}
    function = partial(F.softmax_focal_loss, reduction="none", **options, **p.options)
    loss, grad = _loss_and_gradient(partial(function, sample_weight=sample_weight), p.input, p.target)
    _, plain_grad = _loss_and_gradient(function, p.input, p.target, grad_output=sample_weight)
    exact = oracles.softmax_focal_loss(p.input, p.target, reduction="none", **options, **p.options)
    scale = 0.01 * 300**2 if options["z_loss"] else 0.0
    _assert_same((loss, grad), (exact * sample_weight.double(), plain_grad), scale=scale)


@SETTINGS
@given(data=st.data())
def test_a_sample_weight_of_zero_ignores_the_row(data: st.DataObject, device: str) -> None:
    p = data.draw(problems(device))
    zero = torch.rand(p.target.shape) < 0.5
    zero = zero.to(device)
    input = p.input.clone()
    if data.draw(st.booleans()):  # nothing times an infinite loss is nothing
        hit = _one_hot(p, p.target.clamp(min=0)).bool() & zero.unsqueeze(p.class_dim)
        input[hit] = -math.inf if p.classes > 1 else 0.0
    sample_weight = p.random_rows().masked_fill(zero, 0)
    for reduction in ("sum", "mean"):
        options = {"sample_weight": sample_weight, "on_empty": "zero", **p.options}
        function = partial(F.cross_entropy, reduction=reduction, **options)
        ignored = p.target.masked_fill(zero, -100)
        _assert_same(_loss_and_gradient(function, input, p.target), _loss_and_gradient(function, input, ignored))


@SETTINGS
@given(data=st.data())
def test_integer_sample_weights_repeat_rows(data: st.DataObject, device: str) -> None:
    p = data.draw(problems(device)).as_rows()
    reduction = data.draw(st.sampled_from(("sum", "mean")))
    rows = p.target.numel()
    counts = torch.tensor(data.draw(st.lists(st.integers(0, 3), min_size=rows, max_size=rows)), device=device).long()
    function = partial(F.cross_entropy, reduction=reduction, on_empty="zero", **p.options)
    actual = _loss_and_gradient(partial(function, sample_weight=counts.to(p.input.dtype)), p.input, p.target)
    repeated = torch.arange(rows, device=device).repeat_interleave(counts)
    loss, grad = _loss_and_gradient(function, p.input[repeated], p.target[repeated])
    sums = torch.zeros_like(p.input, dtype=torch.float64).index_add_(0, repeated, grad.double())
    _assert_same(actual, (loss, sums))


@SETTINGS
@given(data=st.data())
def test_permuted_classes_permute_the_gradient(data: st.DataObject, device: str) -> None:
    p = data.draw(problems(device))
    gamma = data.draw(st.sampled_from((0.0, 0.5, 2.0)))
    order = torch.tensor(data.draw(st.permutations(range(p.classes))), device=device)
    new_target = order.argsort()[p.target.clamp(min=0)].where(p.target != -100, -100)
    new_weight = None if p.weight is None else p.weight[order]
    options = {"gamma": gamma, "reduction": "none", "label_smoothing": p.label_smoothing}
    actual = _loss_and_gradient(
        partial(F.softmax_focal_loss, weight=new_weight, **options),
        p.input.index_select(p.class_dim, order),
        new_target,
    )
    loss, grad = _loss_and_gradient(partial(F.softmax_focal_loss, weight=p.weight, **options), p.input, p.target)
    _assert_same(actual, (loss, grad.index_select(p.class_dim, order)))


@SETTINGS
@given(data=st.data())
def test_focal_loss_without_focus_is_cross_entropy(data: st.DataObject, device: str) -> None:
    p = data.draw(problems(device))
    options = {"reduction": data.draw(st.sampled_from(REDUCTIONS)), **p.options}
    _assert_same(
        _loss_and_gradient(partial(F.softmax_focal_loss, gamma=0.0, **options), p.input, p.target),
        _loss_and_gradient(partial(F.cross_entropy, **options), p.input, p.target),
    )


@SETTINGS
@given(data=st.data())
def test_z_loss_adds_the_square_of_the_log_sum_exp(data: st.DataObject, device: str) -> None:
    p = data.draw(problems(device, scales=(0.1, 3.0, 100.0)))
    reduction = data.draw(st.sampled_from(REDUCTIONS))
    z_loss = data.draw(st.sampled_from((1e-4, 0.01, 1.0)))
    valid = p.target != -100
    divisor = 1.0
    if reduction == "mean":
        weight = p.input.new_ones(p.classes) if p.weight is None else p.weight
        divisor = weight.double()[p.target.clamp(min=0)].where(valid, 0).sum()

    def composed(input: Tensor) -> Tensor:
        options = {"reduction": reduction, "label_smoothing": p.label_smoothing}
        squares = input.logsumexp(p.class_dim).square().where(valid, 0)
        added = squares if reduction == "none" else squares.sum() / divisor
        return F.cross_entropy(input, p.target, p.double_weight, **options) + z_loss * added

    # In float16 the squares overflow.
    out_dtype = torch.promote_types(p.input.dtype, torch.float32)
    function = partial(F.cross_entropy, reduction=reduction, z_loss=z_loss, out_dtype=out_dtype, **p.options)
    _assert_same(
        _loss_and_gradient(function, p.input, p.target),
        _loss_and_gradient(composed, p.input.double()),
        scale=z_loss * p.input.double().abs().max().item() ** 2,
    )


@SETTINGS
@given(data=st.data())
def test_denominator_divides_the_sum(data: st.DataObject, device: str) -> None:
    p = data.draw(problems(device, scales=(0.1, 3.0, 100.0)))
    denominator = data.draw(st.sampled_from((1.0, 2.0, 7.5, 1000.0)))
    as_tensor = torch.tensor(denominator, device=device)
    exact = partial(F.cross_entropy, reduction="sum", weight=p.double_weight, label_smoothing=p.label_smoothing)
    loss, grad = _loss_and_gradient(exact, p.input.double(), p.target)
    for given_as in (denominator, as_tensor):
        function = partial(F.cross_entropy, denominator=given_as, **p.options)
        actual = _loss_and_gradient(function, p.input, p.target)
        _assert_same(actual, (loss / denominator, grad / denominator))


@SETTINGS
@given(data=st.data())
def test_micro_batches_add_up_to_the_batch(data: st.DataObject, device: str) -> None:
    p = data.draw(problems(device, dtypes=(torch.float64, torch.float32), scales=(0.1, 3.0, 100.0))).as_rows()
    valid = p.target != -100
    weight = p.input.new_ones(p.classes) if p.weight is None else p.weight
    whole_count = weight[p.target.clamp(min=0)].where(valid, 0).sum()
    bias = torch.zeros(p.classes, dtype=p.input.dtype, device=device)
    expected = _loss_and_gradient(lambda b: F.cross_entropy(p.input + b, p.target, **p.options), bias)

    size = data.draw(st.integers(1, p.target.numel()))
    parts = [
        _loss_and_gradient(lambda b, x=x, y=y: F.cross_entropy(x + b, y, denominator=whole_count, **p.options), bias)
        for x, y in zip(p.input.split(size), p.target.split(size), strict=True)
    ]
    losses, grads = zip(*parts, strict=True)
    _assert_same((sum(losses), sum(grads)), expected, roundings=10)


@SETTINGS
@given(data=st.data())
def test_float32_loss_of_half_logits(data: st.DataObject, device: str) -> None:
    p = data.draw(problems(device, dtypes=(torch.bfloat16, torch.float16)))
    reduction = data.draw(st.sampled_from(REDUCTIONS))
    weight = None if p.weight is None else p.weight.float()
    function = partial(F.cross_entropy, reduction=reduction, label_smoothing=p.label_smoothing)
    expected = _loss_and_gradient(partial(function, weight=weight), p.input.float(), p.target)
    for half_or_float in (p.weight, weight):
        half = partial(function, weight=half_or_float, out_dtype=torch.float32)
        loss, grad = _loss_and_gradient(half, p.input, p.target)
        assert loss.dtype == torch.float32 and grad.dtype == p.input.dtype
        _assert_same((loss, grad), expected)


@SETTINGS
@given(data=st.data())
def test_stats(data: st.DataObject, device: str, runs_cuda_kernels: bool) -> None:
    p = data.draw(problems(device))
    reduction = data.draw(st.sampled_from(REDUCTIONS))
    loss, stats = F.cross_entropy(p.input, p.target, reduction=reduction, return_stats=True, **p.options)
    plain = F.cross_entropy(p.input, p.target, reduction=reduction, **p.options)
    # CUDA kernels that report add up class by class, and others in packs.
    rtol = 4 * torch.finfo(loss.dtype).eps if runs_cuda_kernels else 0
    torch.testing.assert_close(loss, plain, rtol=rtol, atol=0)

    valid = p.target != -100
    target = p.target.clamp(min=0).unsqueeze(p.class_dim)
    x = p.input.double()
    log_p = x.log_softmax(p.class_dim)
    exact = {
        "lse": x.logsumexp(p.class_dim),
        "entropy": -(log_p.exp() * log_p).sum(p.class_dim),
        "target_log_prob": log_p.gather(p.class_dim, target).squeeze(p.class_dim),
    }
    largest = x.abs().max().item()
    for name, expected in exact.items():
        actual = getattr(stats, name)
        rounding = ROUNDING[actual.dtype]
        torch.testing.assert_close(
            actual.double()[valid], expected[valid], rtol=3 * rounding, atol=3 * rounding * max(1.0, largest)
        )
    best = stats.argmax[valid]
    is_best = x.movedim(p.class_dim, -1)[valid]
    assert torch.equal(is_best.gather(-1, best.unsqueeze(-1)).squeeze(-1), is_best.amax(-1))


@SETTINGS
@given(data=st.data())
def test_scaled_and_capped_logits(data: st.DataObject, device: str) -> None:
    p = data.draw(problems(device))
    reduction = data.draw(st.sampled_from(REDUCTIONS))
    softcap = data.draw(st.sampled_from((0.0, 1.0, 30.0)))
    logit_scale = data.draw(st.sampled_from((1.0, 0.25, -2.0) if softcap else (1.0, 0.25)))

    def composed(input: Tensor) -> Tensor:
        z = logit_scale * input
        z = softcap * torch.tanh(z / softcap) if softcap else z
        return F.cross_entropy(z, p.target, p.double_weight, reduction=reduction, label_smoothing=p.label_smoothing)

    function = partial(F.cross_entropy, reduction=reduction, softcap=softcap, logit_scale=logit_scale, **p.options)
    actual = _loss_and_gradient(function, p.input, p.target)
    _assert_same(actual, _loss_and_gradient(composed, p.input.double()), roundings=5, scale=max(softcap, 1.0))


@SETTINGS
@given(data=st.data())
def test_nll_of_log_softmax_is_cross_entropy(data: st.DataObject, device: str) -> None:
    p = data.draw(problems(device, dtypes=(torch.float64, torch.float32)))
    options = {"weight": p.weight, "reduction": data.draw(st.sampled_from(REDUCTIONS))}
    _assert_same(
        _loss_and_gradient(lambda x: F.nll_loss(F.log_softmax(x, p.class_dim), p.target, **options), p.input),
        _loss_and_gradient(lambda x: F.cross_entropy(x, p.target, **options), p.input),
    )


@SETTINGS
@given(data=st.data())
def test_targets_of_any_integer_dtype(data: st.DataObject, device: str) -> None:
    p = data.draw(problems(device, scales=(0.1, 3.0, 30.0), max_classes=100))
    reduction = data.draw(st.sampled_from(REDUCTIONS))
    dtype = data.draw(st.sampled_from((torch.uint8, torch.int8, torch.int16, torch.int32)))
    # 200 fits into the one without a sign.
    ignore_index = 200 if dtype == torch.uint8 else -100
    input = p.input.double().log_softmax(p.class_dim).to(p.input.dtype)
    target = p.target.where(p.target != -100, ignore_index)
    for loss in (F.cross_entropy, F.softmax_focal_loss, F.nll_loss):
        oracle = getattr(oracles, loss.__name__)
        options = {"weight": p.weight, "ignore_index": ignore_index, "reduction": reduction}
        narrow = _loss_and_gradient(partial(loss, **options), input, target.to(dtype))
        wide = _loss_and_gradient(partial(loss, **options), input, target)
        torch.testing.assert_close(narrow, wide, rtol=0, atol=0)
        _assert_same(narrow, (oracle(input, target, **options), wide[1]))


@SETTINGS
@given(data=st.data())
def test_gradient_in_forward_is_the_gradient(data: st.DataObject, device: str) -> None:
    p = data.draw(problems(device, scales=(0.1, 3.0, 100.0)))
    reduction = data.draw(st.sampled_from(REDUCTIONS))
    loss_scale = data.draw(st.sampled_from((1.0, 8.0)))
    expected_scale = data.draw(st.booleans())  # or another one than it was told
    function = partial(F.softmax_focal_loss, reduction=reduction, sample_weight=p.random_rows(), **p.options)
    shape = p.target.shape if reduction == "none" else ()
    grad_output = torch.full(shape, loss_scale if expected_scale else 4 * loss_scale, device=device)
    if reduction == "none" and not expected_scale:
        grad_output = grad_output * p.random_rows(seed=2).float()
    expected = _loss_and_gradient(function, p.input, p.target, grad_output=grad_output)
    for inplace in (False, True):
        in_forward = partial(function, grad_in_forward=True, inplace=inplace, loss_scale=loss_scale)
        # Leaves are not overwritten.
        actual = _loss_and_gradient(lambda x, f=in_forward: f(x * 1, p.target), p.input, grad_output=grad_output)
        torch.testing.assert_close(actual[0], expected[0], rtol=0, atol=0)
        _assert_same(actual, expected)
