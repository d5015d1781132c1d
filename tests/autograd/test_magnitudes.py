"""Derivatives of second order and of forward mode at every magnitude, against the formulas as they are written in
books, in so many digits that nothing cancels, overflows or vanishes."""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import mpmath
import pytest
import torch
from torch import Tensor

import ce_ext

pytestmark = pytest.mark.torch_modes

F = ce_ext.functional

ROUNDING = {torch.float32: 3e-5, torch.float64: 1e-12}
FLOATS = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


def _names(options: dict[str, dict[str, Any]], *quick: str) -> pytest.MarkDecorator:
    """All of these options are tried, but those that are not quick by `make test-all` alone."""
    names = [pytest.param(name, marks=() if name in quick else pytest.mark.thorough) for name in options]
    return pytest.mark.parametrize("name", names)


FAR = 2000.0  # where limits at infinity are read off, and twice as far


class Jet:
    """A number of many digits as a function of variables, with its first and second derivatives in them."""

    def __init__(self, value: Any, grad: list[Any], hessian: list[list[Any]]) -> None:
        self.value, self.grad, self.hessian = value, grad, hessian

    @classmethod
    def variables(cls, values: Sequence[float]) -> list["Jet"]:
        n = range(len(values))
        flat = [[mpmath.mpf(0) for _ in n] for _ in n]
        return [cls(mpmath.mpf(x), [mpmath.mpf(i == j) for j in n], flat) for i, x in enumerate(values)]

    def derivatives(self) -> Tensor:
        """Of shape (1 + variables, variables): the gradient, and the rows of the Hessian."""
        rows = [self.grad, *self.hessian]
        return torch.tensor([[float(x) for x in row] for row in rows], dtype=torch.float64)

    def _chain(self, value: Any, slope: Any, curve: Any) -> "Jet":
        """A function of this number, by its value and derivatives there."""
        grad = [slope * a for a in self.grad]
        rows = zip(self.grad, self.hessian, strict=True)
        hessian = [[slope * h + curve * a * b for b, h in zip(self.grad, row, strict=True)] for a, row in rows]
        return Jet(value, grad, hessian)

    def __add__(self, other: Any) -> "Jet":
        if not isinstance(other, Jet):
            return Jet(self.value + other, self.grad, self.hessian)
        grad = [a + b for a, b in zip(self.grad, other.grad, strict=True)]
        rows = zip(self.hessian, other.hessian, strict=True)
        return Jet(self.value + other.value, grad, [[a + b for a, b in zip(*row, strict=True)] for row in rows])

    def __mul__(self, other: Any) -> "Jet":
        if not isinstance(other, Jet):
            return self._chain(self.value * other, other, 0)
        grad = [a * other.value + self.value * b for a, b in zip(self.grad, other.grad, strict=True)]
        n = range(len(grad))
        hessian = [
            [
                self.hessian[i][j] * other.value
                + self.grad[i] * other.grad[j]
                + self.grad[j] * other.grad[i]
                + self.value * other.hessian[i][j]
                for j in n
            ]
            for i in n
        ]
        return Jet(self.value * other.value, grad, hessian)

    __radd__, __rmul__ = __add__, __mul__

    def __neg__(self) -> "Jet":
        return self * -1

    def __sub__(self, other: Any) -> "Jet":
        return self + -other

    def __rsub__(self, other: Any) -> "Jet":
        return -self + other

    def __pow__(self, exponent: float) -> "Jet":
        x, e = self.value, mpmath.mpf(exponent)
        power = x**e
        return self._chain(power, e * power / x, e * (e - 1) * power / (x * x)) if e else self * 0 + 1

    def exp(self) -> "Jet":
        power = mpmath.exp(self.value)
        return self._chain(power, power, power)

    def log(self) -> "Jet":
        x = self.value
        return self._chain(mpmath.log(x), 1 / x, -1 / (x * x))

    def tanh(self) -> "Jet":
        t = mpmath.tanh(self.value)
        return self._chain(t, 1 - t * t, -2 * t * (1 - t * t))


def exact_derivatives(function: Callable[..., Jet], values: Sequence[float]) -> Tensor:
    """`Jet.derivatives` of a function of the values. Where they are infinite, the limits: what has none but 0 or
    infinity changes by a factor of 2 or more."""

    def at(x: float) -> Tensor:
        point = [max(-x, min(x, value)) for value in values]
        with mpmath.workdps(60 + int(2.2 * max(abs(value) for value in point))):
            return function(*Jet.variables(point)).derivatives()

    if not any(abs(value) == torch.inf for value in values):
        return at(torch.inf)
    near, far = at(FAR), at(2 * FAR)
    grows, shrinks = far.abs() > 1.5 * near.abs(), far.abs() < 0.67 * near.abs()
    return torch.where(grows, far.sign() * torch.inf, far.where(~shrinks, 0))


def _assert_close(actual: Tensor, exact: Tensor, what: str, tiny: float = 8) -> None:
    """Absolutely within so many of the smallest normal numbers."""
    dtype = actual.dtype
    tiny *= torch.finfo(dtype).smallest_normal
    rounding = ROUNDING[dtype]
    torch.testing.assert_close(
        actual, exact.to(dtype), rtol=rounding, atol=tiny, equal_nan=True, msg=lambda text: f"{what}: {text}"
    )


def _gradients(function: Callable[..., Tensor], tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return torch.func.grad(lambda *x: function(*x).sum(), tuple(range(len(tensors))))(*tensors)


def _forward(function: Callable[..., Tensor], tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The derivatives of each element in each of its tensors, by forward mode."""

    def derivative(place: int) -> Tensor:
        tangents = tuple(torch.full_like(x, float(i == place)) for i, x in enumerate(tensors))
        return torch.func.jvp(function, tuple(tensors), tangents)[1]

    return tuple(map(derivative, range(len(tensors))))


# Transforms of a function of elements into its second derivative: the inner one, then the outer one.
SECOND = {
    "reverse twice": (_gradients, _gradients),
    "forward over reverse": (_gradients, _forward),
    "reverse over forward": (_forward, _gradients),
    "forward twice": (_forward, _forward),
}


def _second(name: str, function: Callable[..., Tensor], tensors: Sequence[Tensor]) -> Tensor:
    """Of shape (elements, V, V)."""
    inner, outer = SECOND[name]
    rows = [outer(lambda *x, i=i: inner(function, x)[i], tensors) for i in range(len(tensors))]
    return torch.stack([torch.stack(row, -1) for row in rows], 1)


MAGNITUDES = (0.125, 1.0, 10.0, 28.0, 50.0, 80.0, 88.5, 100.0, 150.0, 740.0, 1000.0, 2000.0)
LOGITS = (0.0, *MAGNITUDES, *(-x for x in MAGNITUDES), torch.inf, -torch.inf)
TARGETS = (0.0, 1.0, 0.25)

# Numbers are those of float32, too.
BINARY: dict[str, dict[str, Any]] = {
    "plain": {},
    "smoothed": {"label_smoothing": 0.125},
    "balanced": {"alpha": 0.25},
    "gamma 2": {"gamma": 2.0},
    "gamma 1": {"gamma": 1.0},
    "gamma 0.5": {"gamma": 0.5},
    "gamma 3.75": {"gamma": 3.75, "alpha": 0.75},
    "gamma 1.5, smoothed": {"gamma": 1.5, "label_smoothing": 0.125},
}


def _binary_jet(
    x: Jet, t: Jet, w: Jet, pos: Jet, alpha: float = -1.0, gamma: float = 0.0, label_smoothing: float = 0.0
) -> Jet:
    t = (1 - label_smoothing) * t + label_smoothing / 2
    p = (1 + (-x).exp()) ** -1
    loss = -(w * (pos * t * p.log() + (1 - t) * (1 - p).log()))
    if gamma > 0:
        loss = (p * (1 - t) + (1 - p) * t) ** gamma * loss
    return loss if alpha < 0 else (alpha * t + (1 - alpha) * (1 - t)) * loss


@cache
def _exact_binary(name: str) -> tuple[list[tuple[float, ...]], Tensor]:
    options = BINARY[name]
    # At infinity alpha has its slope times the loss and the loss's own slope, which may be opposite infinities.
    logits = [x for x in LOGITS if abs(x) < torch.inf or "alpha" not in options]
    points = [(x, t, 1.5, 2.5) for x in logits for t in TARGETS]
    return points, torch.stack([exact_derivatives(lambda *x: _binary_jet(*x, **options), point) for point in points])


@FLOATS
@_names(BINARY, "plain", "gamma 0.5", "gamma 1")
def test_binary(name: str, dtype: torch.dtype, device: str) -> None:
    options = {"alpha": -1.0, "gamma": 0.0, **BINARY[name]}

    def function(x: Tensor, t: Tensor, w: Tensor, p: Tensor) -> Tensor:
        return F.sigmoid_focal_loss(x, t, weight=w, pos_weight=p, reduction="none", **options)

    # Of powers between 0 and 1, what autograd makes of first derivatives in the target has numbers that overflow.
    is_steep = 0 < options["gamma"] < 1
    _check(function, *_exact_binary(name), dtype, device, composed=not is_steep)


ASYMMETRIC: dict[str, dict[str, Any]] = {
    "plain": {"gamma_neg": 4.0, "gamma_pos": 1.0, "margin": 0.0625},
    "no margin": {"gamma_neg": 2.0, "gamma_pos": 0.0, "margin": 0.0},
    "below 1": {"gamma_neg": 0.5, "gamma_pos": 0.25, "margin": 0.0},
    "below 1, margin": {"gamma_neg": 0.5, "gamma_pos": 0.25, "margin": 0.0625},
    "no power": {"gamma_neg": 0.0, "gamma_pos": 0.0, "margin": 0.5},
    "smoothed": {"gamma_neg": 1.5, "gamma_pos": 3.75, "margin": 0.0625, "label_smoothing": 0.125},
}


def _asymmetric_jet(
    x: Jet,
    t: Jet,
    w: Jet,
    pos: Jet,
    gamma_neg: float,
    gamma_pos: float,
    margin: float,
    label_smoothing: float = 0.0,
) -> Jet:
    t = (1 - label_smoothing) * t + label_smoothing / 2
    p = (1 + (-x).exp()) ** -1
    p_m = p - margin
    of_negative = -(p_m**gamma_neg * (1 - p_m).log()) if p_m.value > 0 else 0 * p
    return w * (-(pos * t * (1 - p) ** gamma_pos * p.log()) + (1 - t) * of_negative)


@cache
def _exact_asymmetric(name: str) -> tuple[list[tuple[float, ...]], Tensor]:
    options = ASYMMETRIC[name]
    points = [(x, t, 1.5, 2.5) for x in LOGITS for t in TARGETS]
    # At the margin a derivative may jump.
    points = [point for point in points if (options["margin"], point[0]) != (0.5, 0.0)]
    jets = [exact_derivatives(lambda *x: _asymmetric_jet(*x, **options), point) for point in points]
    return points, torch.stack(jets)


@FLOATS
@_names(ASYMMETRIC, "plain", "below 1")
def test_asymmetric(name: str, dtype: torch.dtype, device: str) -> None:
    def function(x: Tensor, t: Tensor, w: Tensor, p: Tensor) -> Tensor:
        return F.asymmetric_loss(x, t, weight=w, pos_weight=p, reduction="none", **ASYMMETRIC[name])

    _check(function, *_exact_asymmetric(name), dtype, device)


def _check(
    function: Callable[..., Tensor],
    points: list[tuple[float, ...]],
    exact: Tensor,
    dtype: torch.dtype,
    device: str,
    composed: bool = True,
) -> None:
    """In all modes; in those that are `composed` by autograd, infinities may become NaN."""
    inputs, exact = torch.tensor(points, dtype=dtype, device=device), exact.to(device)
    tensors = inputs.unbind(1)
    # Of kernels, in which subnormal numbers are 0, and multiplied with logits and weights.
    _assert_close(torch.stack(_gradients(function, tensors), -1), exact[:, 0], "reverse", tiny=400)
    _assert_close(torch.stack(_forward(function, tensors), -1), exact[:, 0], "forward")
    for name in ("reverse twice", "forward over reverse"):
        _assert_close(_second(name, function, tensors), exact[:, 1:], name)
    is_finite = inputs.isfinite().all(1)
    tensors, exact = inputs[is_finite].unbind(1), exact[is_finite]
    for name in ("reverse over forward", "forward twice") if composed else ():
        _assert_close(_second(name, function, tensors), exact[:, 1:], name)


WEIGHTS = (1.5, 0.5, 2.0)
SOFTMAX: dict[str, dict[str, Any]] = {
    "plain": {},
    "smoothed": {"label_smoothing": 0.125},
    "z-loss": {"z_loss": 0.25},
    "capped": {"softcap": 30.0, "logit_scale": 0.5, "z_loss": 0.25, "label_smoothing": 0.125},
    "gamma 0.5": {"gamma": 0.5},
    "gamma 1": {"gamma": 1.0},
    "gamma 2": {"gamma": 2.0},
    "gamma 3.75, all": {"gamma": 3.75, "z_loss": 0.25, "label_smoothing": 0.125, "softcap": 30.0},
    "gamma 2, smoothed": {"gamma": 2.0, "label_smoothing": 0.125},
}
MARGINS = (0.0, 0.125, 10.0, 17.0, 50.0, 80.0, 100.0, 1000.0, -1.0, -10.0, -50.0, -100.0, -1000.0, -torch.inf)


def _softmax_jet(
    x: Sequence[Jet],
    q: Sequence[Any] | None,
    gamma: float = 0.0,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float = 0.0,
    logit_scale: float = 1.0,
) -> Jet:
    """Of class probabilities q, each of whose classes fades by itself; of class indices, all of them with the first."""
    z = [logit_scale * logit for logit in x]
    z = [softcap * (logit * (1 / mpmath.mpf(softcap))).tanh() for logit in z] if softcap else z
    powers = [logit.exp() for logit in z]
    lse = sum(powers[1:], powers[0]).log()
    smoothing = mpmath.mpf(label_smoothing) / len(x)
    factors = [(1 - (logit - lse).exp()) ** gamma if gamma else 1 for logit in z]
    parts = [
        ((1 - label_smoothing) * share + smoothing) * weight * (factors[i if q else 0] * (lse - logit))
        for i, (share, weight, logit) in enumerate(zip(q or (1, 0, 0), WEIGHTS, z, strict=True))
    ]
    return sum(parts[1:], parts[0]) + z_loss * (lse * lse)


@cache
def _exact_softmax(name: str) -> tuple[list[tuple[float, ...]], Tensor]:
    # The kernels have NaN where smoothing makes the loss infinite, and its factor goes to 0 with the logit.
    has_none = SOFTMAX[name].keys() >= {"gamma", "label_smoothing"} and "softcap" not in SOFTMAX[name]
    margins = MARGINS[:-1] if has_none else MARGINS
    points = [(margin, 0.0, -0.5) for margin in margins] + [(0.5, margin, -0.5) for margin in margins]
    return points, torch.stack(
        [exact_derivatives(lambda *x: _softmax_jet(x, None, **SOFTMAX[name]), point) for point in points]
    )


@FLOATS
@_names(SOFTMAX, "gamma 0.5", "gamma 2, smoothed")
def test_softmax(name: str, dtype: torch.dtype, device: str) -> None:
    options = {"gamma": 0.0, **SOFTMAX[name]}
    weight = torch.tensor(WEIGHTS, dtype=dtype, device=device)

    def function(*classes: Tensor) -> Tensor:
        target = torch.zeros(len(classes[0]), dtype=torch.int64, device=device)
        return F.softmax_focal_loss(torch.stack(classes, 1), target, weight, reduction="none", **options)

    _check(function, *_exact_softmax(name), dtype, device)


@cache
def _exact_soft(name: str) -> tuple[list[tuple[float, ...]], Tensor]:
    shares = (0.75, 0.25, 0.0)
    points = [(margin, 0.0, -0.5, *shares) for margin in MARGINS] + [(0.5, margin, -0.5, *shares) for margin in MARGINS]
    return points, torch.stack(
        [exact_derivatives(lambda *x: _softmax_jet(x[:3], x[3:], **SOFTMAX[name]), point) for point in points]
    )


@FLOATS
@_names(SOFTMAX, "z-loss", "gamma 0.5")
def test_class_probabilities(name: str, dtype: torch.dtype, device: str) -> None:
    weight = torch.tensor(WEIGHTS, dtype=dtype, device=device)

    def function(*columns: Tensor) -> Tensor:
        input, target = (torch.stack(part, 1) for part in (columns[:3], columns[3:]))
        return F.softmax_focal_loss(input, target, weight, reduction="none", **{"gamma": 0.0, **SOFTMAX[name]})

    _check(function, *_exact_soft(name), dtype, device)


@FLOATS
def test_log_softmax_and_nll(dtype: torch.dtype, device: str) -> None:
    weight = torch.tensor(WEIGHTS, dtype=dtype, device=device)

    def nll(*classes: Tensor) -> Tensor:
        target = torch.zeros(len(classes[0]), dtype=torch.int64, device=device)
        return F.nll_loss(F.log_softmax(torch.stack(classes, 1), 1), target, weight, reduction="none")

    def all_classes(*columns: Tensor) -> Tensor:
        input, target = (torch.stack(part, 1) for part in (columns[:3], columns[3:]))
        return -(F.log_softmax(input, 1) * target * weight).sum(1)

    _check(nll, *_exact_softmax("plain"), dtype, device)
    points, exact = _exact_soft("plain")
    finite = [i for i, point in enumerate(points) if min(point) > -torch.inf]  # products are torch's own
    _check(all_classes, [points[i] for i in finite], exact[finite], dtype, device)


def test_a_factor_of_0_leaves_nothing_of_what_smoothing_makes_infinite(device: str) -> None:
    target = torch.tensor([0], device=device)
    input = torch.tensor([[2.0, -torch.inf, -torch.inf]], device=device)

    def loss(x: Tensor) -> Tensor:
        return F.softmax_focal_loss(x, target, gamma=2.0, label_smoothing=0.1)

    assert loss(input) == 0 and (torch.func.grad(loss)(input) == 0).all()
    assert torch.func.jvp(loss, (input,), (torch.ones_like(input),))[1] == 0
    assert (torch.func.hessian(loss)(input) == 0).all()


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_rows_that_are_nan(gamma: float, device: str) -> None:
    """As those of the kernels: where a logit is infinite or NaN, or all classes are masked."""
    input = torch.randn(5, 3, device=device)
    input[0, 0] = input[1, 1] = torch.inf
    input[2, 2] = torch.nan
    input[3] = -torch.inf
    target = torch.zeros(5, dtype=torch.int64, device=device)
    for loss in (
        lambda x: F.softmax_focal_loss(x, target, gamma=gamma, reduction="none"),
        lambda x: F.softmax_focal_loss(x, torch.full_like(x, 1 / 3), gamma=gamma, reduction="none"),
    ):
        for tangent in torch.eye(3, device=device):
            v = tangent.expand_as(input)
            first = torch.func.jvp(loss, (input,), (v,))[1]
            second = torch.func.jvp(torch.func.grad(lambda x, f=loss: f(x).sum()), (input,), (v,))[1]
            assert first[:4].isnan().all() and second[:4].isnan().all()
            assert first[4].isfinite() and second[4].isfinite().all()
