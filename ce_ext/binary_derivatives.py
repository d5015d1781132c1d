"""Second derivatives and tangents of binary cross entropy and the sigmoid focal loss, as closed forms in torch ops.

They are the functions that `autograd.register` asks for.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ce_ext import shapes
from ce_ext.options import BinaryCrossEntropyOptions
from ce_ext.reductions import NONE


class _Function(NamedTuple):
    """A function of x, t and P: its value, its gradient, and D of both, the derivative along (v_x, v_t, v_P)."""

    value: Tensor
    grad: tuple[Tensor, Tensor, Tensor]
    d_value: Tensor
    d_grad: tuple[Tensor, Tensor, Tensor]

    def __mul__(self, other: "_Function") -> "_Function":  # type: ignore[override]
        value, d_value = self.value * other.value, self.d_value * other.value + self.value * other.d_value
        pairs = list(zip(self.grad, other.grad, self.d_grad, other.d_grad, strict=True))
        x, t, p = (a * other.value + self.value * b for a, b, _, _ in pairs)
        dx, dt, dp = (
            da * other.value + a * other.d_value + self.d_value * b + self.value * db for a, b, da, db in pairs
        )
        return _Function(value, (x, t, p), d_value, (dx, dt, dp))


class _Tangents:
    """What changes with tangents of input, target, weight and pos_weight: the loss by J v, and its gradients by H v,
    where H is symmetric. So they also are the gradients of <v, binary_cross_entropy_backward(...)>.

    The words are those of csrc/losses/binary_cross_entropy.h.
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
        one = input.new_ones((), dtype=self._opmath)

        t, self._valid = self._dense_target()
        x = input.to(self._opmath).where(self._valid, 0.5)
        w = one if weight is None else self._aligned(weight)
        p = one if pos_weight is None else self._aligned(pos_weight)
        v_w = None if v_weight is None or weight is None else self._aligned(v_weight)
        v_p = 0 * one if v_pos_weight is None or pos_weight is None else self._aligned(v_pos_weight)
        v_x = torch.zeros_like(x) if v_input is None else v_input.to(self._opmath)
        v_t = torch.zeros_like(x) if v_target is None else (1 - options.label_smoothing) * v_target.to(self._opmath)

        t = (1 - options.label_smoothing) * t + options.label_smoothing / 2
        loss = _cross_entropy(x, t, p, v_x, v_t, v_p, options.input_is_probability)
        if options.gamma > 0:
            loss = _focus(x, t, v_x, v_t, options.gamma) * loss
        if class_alpha is not None or options.alpha >= 0:
            alpha = options.alpha * one if class_alpha is None else self._aligned(class_alpha)
            loss = _balance(t, v_t, alpha) * loss

        def weighted(value: Tensor, d_value: Tensor) -> Tensor:
            return w * d_value if v_w is None else w * d_value + v_w * value

        self._of_loss = weighted(loss.value, loss.d_value)
        self._of_grads = [weighted(value, d_value) for value, d_value in zip(loss.grad, loss.d_grad, strict=True)]
        self._of_grad_weight = loss.d_value

    def of_loss(self) -> Tensor:
        rows = self._of_loss.where(self._valid, 0)
        if self._denominator is not None:
            rows = rows / self._of_elements(self._denominator)
        dims = tuple(range(self._options.batch_dims, rows.dim()))
        reduced = rows if self._options.reduction == NONE or not dims else rows.sum(dims)
        return reduced.to(self._options.out_dtype or self._input.dtype)

    def of_grads(self, grad_output: Tensor) -> list[Tensor | None]:
        """In the order of the ops' arguments; None for what has no gradient."""
        scale = self._of_elements(grad_output)
        if self._denominator is not None:
            scale = scale / self._of_elements(self._denominator)
        of_input, of_target, of_pos_weight = ((scale * change).where(self._valid, 0) for change in self._of_grads)
        of_weight = (scale * self._of_grad_weight).where(self._valid, 0)
        has_target = self._target.is_floating_point()
        return [
            of_input.to(self._input.dtype),
            ((1 - self._options.label_smoothing) * of_target).to(self._target.dtype) if has_target else None,
            self._summed(of_weight, self._weight),
            self._summed(of_pos_weight, self._pos_weight),
        ]

    def _dense_target(self) -> tuple[Tensor, Tensor]:
        """The target of every element, and whether it is not ignored."""
        target, ignored = self._target, self._options.ignore_index
        is_index, dim = target.dim() < self._input.dim(), shapes.class_dim(self._input, self._options.batch_dims)
        if is_index:
            target = target.unsqueeze(dim)
        valid = torch.ones_like(target, dtype=torch.bool) if ignored is None else target != ignored
        if is_index:
            shape = [-1 if d == dim else 1 for d in range(self._input.dim())]
            target = target == torch.arange(self._input.shape[dim], device=target.device).view(shape)
        return target.to(self._opmath).where(valid, 0), valid

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
        summed = change.sum(dims, keepdim=True) if dims else change
        return summed.reshape(factor.shape).to(factor.dtype)


def _cross_entropy(
    x: Tensor, t: Tensor, p: Tensor, v_x: Tensor, v_t: Tensor, v_p: Tensor, is_probability: bool
) -> _Function:
    """P t miss_pos + (1 - t) miss_neg"""
    if is_probability:
        pos, neg = -torch.log(x).clamp_min(-100), -torch.log1p(-x).clamp_min(-100)
        variance = (x * (1 - x)).clamp_min(1e-12)
        pos_x, neg_x = (x - 1) / variance, x / variance
        pos_xx, neg_xx = pos_x * pos_x, neg_x * neg_x
    else:
        pos, neg = torch.nn.functional.softplus(-x, threshold=1000), torch.nn.functional.softplus(x, threshold=1000)
        pos_x, neg_x = -torch.sigmoid(-x), torch.sigmoid(x)
        pos_xx = neg_xx = -pos_x * neg_x

    def of(pos: Tensor, neg: Tensor) -> Tensor:
        return _product(p * t, pos) + _product(1 - t, neg)

    in_x, in_t, in_p = of(pos_x, neg_x), p * pos - neg, _product(t, pos)
    in_tx, in_px = p * pos_x - neg_x, t * pos_x
    return _Function(
        of(pos, neg),
        (in_x, in_t, in_p),
        _product(v_x, in_x) + _product(v_t, in_t) + _product(v_p, in_p),
        (of(pos_xx, neg_xx) * v_x + in_tx * v_t + in_px * v_p, in_tx * v_x + pos * v_p, in_px * v_x + pos * v_t),
    )


def _focus(x: Tensor, t: Tensor, v_x: Tensor, v_t: Tensor, gamma: float) -> _Function:
    """q^gamma"""
    p, rest = torch.sigmoid(x), torch.sigmoid(-x)
    variance, zero = p * rest, torch.zeros_like(x)
    q = (p * (1 - t) + rest * t).clamp_min(1e-100 if x.dtype == torch.float64 else 1e-12)
    q_x, q_t = variance * (1 - 2 * t), rest - p
    d_q = q_x * v_x + q_t * v_t
    d_q_x, d_q_t = variance * ((rest - p) * (1 - 2 * t) * v_x - 2 * v_t), -2 * variance * v_x
    slope, curve = gamma * q ** (gamma - 1), gamma * (gamma - 1) * q ** (gamma - 2)
    return _Function(
        q**gamma,
        (slope * q_x, slope * q_t, zero),
        slope * d_q,
        (curve * d_q * q_x + slope * d_q_x, curve * d_q * q_t + slope * d_q_t, zero),
    )


def _balance(t: Tensor, v_t: Tensor, alpha: Tensor) -> _Function:
    """alpha t + (1 - alpha) (1 - t), or 1"""
    zero = torch.zeros_like(t)
    slope = (2 * alpha - 1).where(alpha >= 0, 0) + zero
    value = (alpha * t + (1 - alpha) * (1 - t)).where(alpha >= 0, 1)
    return _Function(value, (zero, slope, zero), slope * v_t, (zero, zero, zero))


def _product(weight: Tensor, x: Tensor) -> Tensor:
    """Nothing times infinity is nothing. A finite number keeps its derivative in a weight of 0."""
    return (weight * x).where((weight != 0) | x.isfinite(), 0)


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
    *tensors, options = others
    changes = _Tangents(*tangents, *others).of_grads(grad_output)
    needs = (options.needs_input, options.needs_target, options.needs_weight, options.needs_pos_weight)
    scaled: Any = (None,) * 4
    if grad_output_tangent is not None:
        scaled = torch.ops.ce_ext.binary_cross_entropy_backward(grad_output_tangent, *tensors, *options)
    return tuple(
        None if not needed else change if of_scale is None else change + of_scale
        for change, of_scale, needed in zip(changes, scaled, needs, strict=True)
    )
