"""Second derivatives and tangents of the losses of elements, binary cross entropy, the sigmoid focal loss and the
asymmetric loss, as closed forms in torch ops.

They are the functions that `autograd.register` asks for.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ce_ext import shapes
from ce_ext.options import BinaryCrossEntropyOptions
from ce_ext.predictions import LogitPrediction, difference, power, product, split_far
from ce_ext.reductions import reduce


class _Loss(NamedTuple):
    """A function of x, t and P, of elements: its value, first derivatives and second ones. That in P twice is 0."""

    value: Tensor
    x: Tensor
    t: Tensor
    p: Tensor
    xx: Tensor
    xt: Tensor
    xp: Tensor
    tt: Tensor
    tp: Tensor

    def along(self, v_x: Tensor, v_t: Tensor, v_p: Tensor) -> Tensor:
        """D of the value, the derivative along (v_x, v_t, v_P)."""
        return product(v_x, self.x) + product(v_t, self.t) + product(v_p, self.p)

    def gradient_along(self, v_x: Tensor, v_t: Tensor, v_p: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """D of the first derivatives."""
        return (
            product(v_x, self.xx) + product(v_t, self.xt) + product(v_p, self.xp),
            product(v_x, self.xt) + product(v_t, self.tt) + product(v_p, self.tp),
            product(v_x, self.xp) + product(v_t, self.tp),
        )


class _Tangents:
    """What changes with tangents of input, target, weight and pos_weight: the loss by J v, and its gradients by H v,
    where H is symmetric. So they also are the gradients of <v, binary_cross_entropy_backward(...)>.

    The words are those of csrc/losses/binary_cross_entropy.h and csrc/losses/asymmetric_loss.h.
    """

    def __init__(
        self,
        v_input: Tensor | None,
        v_target: Tensor | None,
        v_weight: Tensor | None,
        v_pos_weight: Tensor | None,
        input: Tensor,
        target: Tensor,
        weight: Tensor | None,
        pos_weight: Tensor | None,
        class_alpha: Tensor | None,
        denominator: Tensor | None,
        options: BinaryCrossEntropyOptions,
    ) -> None:
        self._input, self._target, self._weight, self._pos_weight = input, target, weight, pos_weight
        self._denominator, self._options, self._opmath = denominator, options, shapes.opmath_dtype(input)
        one, none = (input.new_full((), value, dtype=self._opmath) for value in (1, 0))

        target_value, self._valid = self._dense_target()
        x = input.to(self._opmath).where(self._valid, 0.5)
        w = one if weight is None else self._aligned(weight)
        p = one if pos_weight is None else self._aligned(pos_weight)
        v_w = none if v_weight is None or weight is None else self._aligned(v_weight)
        v_p = none if v_pos_weight is None or pos_weight is None else self._aligned(v_pos_weight)
        v_x = torch.zeros_like(x) if v_input is None else v_input.to(self._opmath)
        self._confidence = 1 - options.label_smoothing
        v_t = torch.zeros_like(x) if v_target is None else self._confidence * v_target.to(self._opmath)

        t = _SmoothTarget.of(target_value, options.label_smoothing)
        prediction = ProbabilityPrediction(x) if options.input_is_probability else LogitPrediction(x)
        if options.gamma_neg is not None:
            loss = _asymmetric(x, t, p, options.gamma, options.gamma_neg, options.margin)
        else:
            loss = _cross_entropy(prediction, t, p)
            if options.gamma > 0:
                loss = _focal(loss, x, t, p, options.gamma)
        if class_alpha is not None or options.alpha >= 0:
            alpha = torch.full_like(one, options.alpha) if class_alpha is None else self._aligned(class_alpha)
            loss = _balanced(loss, t, alpha)

        d_loss = loss.along(v_x, v_t, v_p)
        grads, d_grads = (loss.x, loss.t, loss.p), loss.gradient_along(v_x, v_t, v_p)
        self._of_loss = product(w, d_loss) + product(v_w, loss.value)
        # Of input, target and pos_weight, and of weight: the gradients, and D of them.
        self._grads = [*(product(w, grad) for grad in grads), loss.value]
        self._of_grads = [
            *(product(w, change) + product(v_w, grad) for grad, change in zip(grads, d_grads, strict=True)),
            d_loss,
        ]

    def of_loss(self) -> Tensor:
        reduced = reduce(self._of_loss.where(self._valid, 0), self._denominator, self._options)
        return reduced.to(self._options.out_dtype or self._input.dtype)

    def of_grads(self, grad_output: Tensor, grad_output_tangent: Tensor | None = None) -> list[Tensor | None]:
        """In the order of the ops' arguments; None for what has no gradient. A tangent of grad_output adds to them."""
        scale = self._scale(grad_output)
        changes = [product(scale, change) for change in self._of_grads]
        if grad_output_tangent is not None:
            d_scale = self._scale(grad_output_tangent)
            changes = [change + product(d_scale, grad) for change, grad in zip(changes, self._grads, strict=True)]
        of_input, of_target, of_pos_weight, of_weight = (change.where(self._valid, 0) for change in changes)
        has_target = self._target.is_floating_point()
        return [
            of_input.to(self._input.dtype),
            (self._confidence * of_target).to(self._target.dtype) if has_target else None,
            self._summed(of_weight, self._weight),
            self._summed(of_pos_weight, self._pos_weight),
        ]

    def _scale(self, grad_output: Tensor) -> Tensor:
        scale = self._of_elements(grad_output)
        return scale if self._denominator is None else scale / self._of_elements(self._denominator)

    def _dense_target(self) -> tuple[Tensor, Tensor]:
        """The target of every element, NaN for a class that is none, and whether it is not ignored."""
        input, target = self._input, self._target
        # Integers as int64: torch compares no others with all that a dtype holds.
        values = target if target.is_floating_point() else shapes.class_indices(target)
        is_index, dim = target.dim() < input.dim(), shapes.class_dim(input, self._options.batch_dims)
        if is_index:
            values = values.unsqueeze(dim)
        valid = shapes.is_counted(values, self._options.ignore_index, self._options.ignore_nan)
        if not is_index:
            return target.to(self._opmath).where(valid, 0), valid
        is_known = (values >= 0) & (values <= input.shape[dim])  # the last one is the background
        dense = shapes.is_class(values, input, dim).to(self._opmath)
        return dense.where(is_known, torch.nan).where(valid, 0), valid

    def _aligned(self, factor: Tensor) -> Tensor:
        """Behind the dimensions of the batch, shapes are aligned at their ends."""
        batch = self._options.batch_dims
        missing = (1,) * (self._input.dim() - factor.dim())
        return factor.to(self._opmath).reshape(factor.shape[:batch] + missing + factor.shape[batch:])

    def _of_elements(self, values: Tensor) -> Tensor:
        """One value for a batch, or for each element, as it is multiplied with elements."""
        return values.to(self._opmath).reshape(values.shape + (1,) * (self._input.dim() - values.dim()))

    def _summed(self, change: Tensor, factor: Tensor | None) -> Tensor | None:
        if factor is None or not factor.is_floating_point():
            return None
        shape = self._aligned(factor).shape
        dims = [d for d in range(change.dim()) if shape[d] == 1 and change.shape[d] != 1]
        summed = change.sum(dims) if dims else change
        return summed.reshape(factor.shape).to(factor.dtype)


class _SmoothTarget(NamedTuple):
    """The smoothed t, and 1 - t and 1 - 2 t, which are no differences of it."""

    value: Tensor
    rest: Tensor
    rest_lead: Tensor

    @classmethod
    def of(cls, t: Tensor, smoothing: float) -> "_SmoothTarget":
        confidence = 1 - smoothing
        return cls(confidence * t + smoothing / 2, confidence * (1 - t) + smoothing / 2, confidence * (1 - 2 * t))

    def lack(self, prediction: LogitPrediction) -> Tensor:
        """q = p (1 - t) + (1 - p) t"""
        return prediction.probability() * self.rest + prediction.rest() * self.value

    def lack_in_logit(self, prediction: LogitPrediction) -> Tensor:
        """The derivative of q in x."""
        return prediction.variance() * self.rest_lead


class ProbabilityPrediction:
    """A prediction p as `LogitPrediction` has it, with the bounds that torch puts on logarithms and divisors."""

    def __init__(self, p: Tensor) -> None:
        self._p = p.where((p >= 0) & (p <= 1), torch.nan)
        self._variance = (self._p * (1 - self._p)).clamp_min(1e-12)

    def loss(self, pos: Tensor, neg: Tensor) -> Tensor:
        """pos miss_pos + neg miss_neg"""
        p, at_least = self._p, -100.0
        log_p = p.where(p != 0, 1).log().where(p != 0, at_least).clamp_min(at_least)
        log_rest = torch.log1p(-p.where(p != 1, 0)).where(p != 1, at_least).clamp_min(at_least)
        return -pos * log_p - neg * log_rest

    def slope(self, pos: Tensor, neg: Tensor) -> Tensor:
        """The derivative of `loss` in p."""
        return (neg * self._p - pos * (1 - self._p)) / self._variance

    def curvature(self, pos: Tensor, neg: Tensor) -> Tensor:
        """That of `slope`."""
        return (neg * self._p**2 + pos * (1 - self._p) ** 2) / self._variance**2


def _cross_entropy(prediction: LogitPrediction | ProbabilityPrediction, t: _SmoothTarget, p: Tensor) -> _Loss:
    """P t miss_pos + (1 - t) miss_neg"""
    parts, none, one = (p * t.value, t.rest), torch.zeros_like(t.value), torch.ones_like(t.value)
    return _Loss(
        value=prediction.loss(*parts),
        x=prediction.slope(*parts),
        t=prediction.loss(p, -one),
        p=prediction.loss(t.value, none),
        xx=prediction.curvature(*parts),
        xt=prediction.slope(p, -one),
        xp=prediction.slope(t.value, none),
        tt=none,
        tp=prediction.loss(one, none),
    )


def _focal(ce: _Loss, x: Tensor, t: _SmoothTarget, p: Tensor, gamma: float) -> _Loss:
    """f ce, f = q^gamma, for the cross entropy ce and q = p (1 - t) + (1 - p) t. With r = ce / q,

        (f ce)_a  = f ce_a + gamma f r q_a
        (f ce)_ab = f ce_ab + gamma f r q_ab + gamma q^(gamma - 1) ((gamma - 1) r q_a q_b + q_a ce_b + q_b ce_a)

    Where q vanishes, so do ce, ce_x, ce_P and q_x. They are divided by q before they are multiplied by powers of it.
    """
    prediction = LogitPrediction(x)
    q, q_x, q_t = t.lack(prediction), t.lack_in_logit(prediction), -prediction.lead()
    # It does where the target is all of the likely class: q is a multiple of e^-|x| there.
    near_x, beyond = split_far(x, prediction.select(t.rest, t.value) == 0)
    near = LogitPrediction(near_x)
    near_ce, near_q = _cross_entropy(near, t, p), t.lack(near)
    parts = (near_ce.value, near_ce.x, near_ce.p, t.lack_in_logit(near))
    r, x_part, p_part, q_x_part = (part / near_q for part in parts)

    f, f_over_q = (power(q, near_q, beyond, exponent) for exponent in (gamma, gamma - 1))
    f_r = product(f_over_q, ce.value) if gamma >= 1 else product(f, r)
    r_q_x, r_q_t = product(q_x_part, r), product(q_t, r)  # the former over q
    in_both = (gamma - 1) * r_q_x * q_t + product(q_x_part, ce.t) + x_part * q_t
    # As (gamma + 1) r q_t + 2 (ce_t - r q_t), or infinities would cancel.
    in_target_twice = (gamma + 1) * r_q_t + 2 * difference(ce.t, r_q_t)
    return _Loss(
        value=product(f, ce.value),
        x=f * ce.x + gamma * product(q_x, f_r),
        t=product(f, ce.t) + gamma * product(q_t, f_r),
        p=product(f, ce.p),
        xx=f * ce.xx
        + gamma * product(-q_x * prediction.lead(), f_r)
        + gamma * f * q_x * ((gamma - 1) * r_q_x + 2 * x_part),
        xt=f * ce.xt + gamma * product(-2 * prediction.variance(), f_r) + gamma * product(f, in_both),
        xp=f * ce.xp + gamma * product(f, product(q_x_part, ce.p)),
        tt=gamma * product(f_over_q, product(q_t, in_target_twice)),
        tp=product(f, ce.tp) + gamma * product(f * q_t, p_part),
    )


class _Cost(NamedTuple):
    """A function of x: its value and its first two derivatives."""

    value: Tensor
    x: Tensor
    xx: Tensor


def _faded_miss(prediction: LogitPrediction, gamma: float) -> _Cost:
    """f miss, f = (1 - p)^gamma = e^(-gamma miss_neg) and miss = -log p, of a positive. Of a negative it is that of -x.

    With r = 1 - p, (f miss)' = -f (gamma p miss + r), and f' = -gamma p f.
    """
    one = torch.ones_like(prediction.odds)
    none = torch.zeros_like(one)
    p, r, miss = prediction.probability(), prediction.rest(), prediction.loss(one, none)
    f = torch.exp(-gamma * prediction.loss(none, one)) if gamma > 0 else one
    p_miss = product(p, miss)
    return _Cost(
        value=product(f, miss),
        x=-f * (gamma * p_miss + r),
        xx=f * (gamma * p_miss * (gamma * p - r) + (2 * gamma + 1) * p * r),
    )


def _faded_miss_beyond(margin: float, x: Tensor, gamma: float) -> _Cost:
    """f miss, f = u^gamma and miss = -log(1 - u), of a negative with a margin, u = p - margin: 0 unless u > 0.

    With q = miss / u, k = 1 / (1 - u) and u' = v, (f miss)' = v f (gamma q + k) and v' = v (1 - 2 p).
    """
    edge = math.log(margin) - math.log1p(-margin)
    coarse_edge = math.floor(edge * 4096) / 4096  # in few enough digits for any dtype to have them all
    above = (x - coarse_edge) - (edge - coarse_edge)
    is_above = ~(above <= 0)  # which what is no number is, too
    prediction = LogitPrediction(x.where(is_above, edge + 1))
    above = above.where(is_above, 1)
    odds = torch.exp(-above)
    u = prediction.probability() * (1 - margin) * torch.where(odds > 0.5, -torch.expm1(-above), 1 - odds)
    rest = prediction.rest() + margin  # 1 - u
    is_small = u < 0.5
    miss = torch.where(is_small, -torch.log1p(-u.where(is_small, 0)), -torch.log(rest.where(~is_small, 1)))
    q, k, v, f = miss / u, 1 / rest, prediction.variance(), u**gamma
    slope = gamma * q + k
    curvature = gamma / u * ((gamma - 1) * q + 2 * k) + k**2
    return _Cost(
        value=(f * miss).where(is_above, 0),
        x=(v * f * slope).where(is_above, 0),
        xx=(v * f * (v * curvature - prediction.lead() * slope)).where(is_above, 0),
    )


def _asymmetric(x: Tensor, t: _SmoothTarget, p: Tensor, gamma_pos: float, gamma_neg: float, margin: float) -> _Loss:
    """P t pos + (1 - t) neg"""
    pos, none = _faded_miss(LogitPrediction(x), gamma_pos), torch.zeros_like(t.value)
    if margin >= torch.finfo(x.dtype).smallest_normal:
        neg = _faded_miss_beyond(margin, x, gamma_neg)
    else:
        of_other_class = _faded_miss(LogitPrediction(-x), gamma_neg)
        neg = of_other_class._replace(x=-of_other_class.x)
    part = p * t.value
    return _Loss(
        value=product(part, pos.value) + product(t.rest, neg.value),
        x=part * pos.x + t.rest * neg.x,
        t=product(p, pos.value) - neg.value,
        p=product(t.value, pos.value),
        xx=part * pos.xx + t.rest * neg.xx,
        xt=p * pos.x - neg.x,
        xp=t.value * pos.x,
        tt=none,
        tp=pos.value,
    )


def _balanced(loss: _Loss, t: _SmoothTarget, alpha: Tensor) -> _Loss:
    """balance loss, balance = alpha t + (1 - alpha) (1 - t), or 1 where alpha is negative."""
    has_alpha = alpha >= 0
    balance = (alpha * t.value + (1 - alpha) * t.rest).where(has_alpha, 1)
    slope = (2 * alpha - 1).where(has_alpha, 0).expand_as(balance)
    return _Loss(
        value=product(balance, loss.value),
        x=product(balance, loss.x),
        t=product(balance, loss.t) + product(slope, loss.value),
        p=product(balance, loss.p),
        xx=product(balance, loss.xx),
        xt=product(balance, loss.xt) + product(slope, loss.x),
        xp=product(balance, loss.xp),
        tt=product(balance, loss.tt) + 2 * product(slope, loss.t),
        tp=product(balance, loss.tp) + product(slope, loss.p),
    )


def tangent(*arguments: Any) -> Tensor:
    """Of the loss. It takes what `_Tangents` does."""
    return _Tangents(*arguments).of_loss()


def backward_gradient(*arguments: Any) -> tuple[Tensor | None, ...]:
    """For grad_output, input, target, weight and pos_weight.

    It takes gradients of the gradients in those four, grad_output, and what `_Tangents` does after the tangents.
    """
    grads, grad_output, others = arguments[:4], arguments[4], arguments[5:]
    tangents = _Tangents(*grads, *others)
    return tangents.of_loss(), *tangents.of_grads(grad_output)


def backward_tangent(grad_output_tangent: Tensor | None, *arguments: Any) -> tuple[Tensor | None, ...]:
    """Of the gradients, as far as they are needed. It takes tangents of the four, and then what is as above."""
    tangents, grad_output, others = arguments[:4], arguments[4], arguments[5:]
    options = others[-1]
    changes = _Tangents(*tangents, *others).of_grads(grad_output, grad_output_tangent)
    needs = (options.needs_input, options.needs_target, options.needs_weight, options.needs_pos_weight)
    return tuple(change if needed else None for change, needed in zip(changes, needs, strict=True))
