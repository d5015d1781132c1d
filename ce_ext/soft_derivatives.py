"""Second derivatives and tangents of soft cross entropy, as closed forms in torch ops.

They are the functions that `autograd.register` asks for.
"""

import torch
from torch import Tensor

from ce_ext import shapes
from ce_ext.derivatives import MeanSurprise, RowReduction, ZLoss, changed_logits
from ce_ext.options import SoftCrossEntropyOptions
from ce_ext.predictions import FocalSurprise, LogitsPrediction, product


class _Tangents:
    """What changes with tangents `v` of the logits and `r` of the target: the loss by J (v, r), and its two gradients
    by H (v, r), where H is symmetric. So they also are the gradients of <(v, r), soft_cross_entropy_backward(...)>.

    With the words of csrc/losses/soft_cross_entropy.h, the loss is `MeanSurprise` with q = u and D u = (1 - s) w r, and
    `ZLoss`. Its gradient in the target is (1 - s) w n, and D n = <p, Dz> - Dz.

    The focal loss is sum_j u_j h(n_j), and its gradient in z that of `MeanSurprise` with q = u h'(n); so

        D loss = sum_j Du_j h(n_j) + sum_j u_j h'(n_j) D n_j,   D q = Du h'(n) + u h''(n) D n,   D h(n) = h'(n) D n.
    """

    def __init__(
        self,
        v: Tensor | None,
        r: Tensor | None,
        input: Tensor,
        target: Tensor,
        weight: Tensor | None,
        sample_weight: Tensor | None,
        denominator: Tensor | None,
        options: SoftCrossEntropyOptions,
    ) -> None:
        self._input, self._target = input, target
        self._rows = RowReduction(input, sample_weight, denominator, options)
        opmath, dim = shapes.opmath_dtype(input), shapes.class_dim(input, options.batch_dims)

        z, slope_x, curve_x = changed_logits(input.to(opmath), options)
        v = torch.zeros_like(z) if v is None else v.to(opmath)
        r = torch.zeros_like(z) if r is None else r.to(opmath)
        w = z.new_ones(()) if weight is None else shapes.along(weight.to(opmath), input, dim)
        confidence = (1 - options.label_smoothing) * w
        u = confidence * target.to(opmath) + options.label_smoothing / max(input.shape[dim], 1) * w

        row, dz = LogitsPrediction(z, dim), slope_x * v
        if options.gamma > 0:
            focal = FocalSurprise(row, options.gamma)
            surprise = MeanSurprise(row, u * focal.slope, dz)
            dn = -surprise.deviation
            changed = confidence * r * focal.slope + product(u * focal.curve, dn)
            d_loss = surprise.d_value + row.total(product(confidence * r, focal.value))
            d_grad = surprise.d_grad + row.excess(changed)
            cost, d_cost = focal.value, focal.slope * dn
        else:
            surprise = MeanSurprise(row, u, dz, confidence * r)
            d_loss, d_grad = surprise.d_value, surprise.d_grad
            cost, d_cost = row.nll, -surprise.deviation
        grad = surprise.grad
        if options.z_loss > 0:
            z_loss = ZLoss(row, options.z_loss, dz, surprise.dp)
            d_loss, grad, d_grad = d_loss + z_loss.d_value, grad + z_loss.grad, d_grad + z_loss.d_grad
        self._of_loss = d_loss
        self._of_inputs = slope_x * grad, slope_x * d_grad + curve_x * v * grad
        self._of_targets = product(confidence, cost), confidence * d_cost

    def of_loss(self) -> Tensor:
        return self._rows.reduce(self._of_loss)

    def of_grad_input(self, grad_output: Tensor, grad_output_tangent: Tensor | None = None) -> Tensor:
        return self._rows.gradient(*self._of_inputs, grad_output, grad_output_tangent).to(self._input.dtype)

    def of_grad_target(self, grad_output: Tensor, grad_output_tangent: Tensor | None = None) -> Tensor:
        return self._rows.gradient(*self._of_targets, grad_output, grad_output_tangent).to(self._target.dtype)


def tangent(
    input_tangent: Tensor | None,
    target_tangent: Tensor | None,
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    sample_weight: Tensor | None,
    stats: Tensor,
    denominator: Tensor | None,
    options: SoftCrossEntropyOptions,
) -> Tensor:
    rows = (input, target, weight, sample_weight, denominator, options)
    return _Tangents(input_tangent, target_tangent, *rows).of_loss()


def backward_gradient(
    grad_grad_input: Tensor | None,
    grad_grad_target: Tensor | None,
    grad_output: Tensor,
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    sample_weight: Tensor | None,
    stats: Tensor,
    denominator: Tensor | None,
    options: SoftCrossEntropyOptions,
) -> tuple[Tensor, Tensor, Tensor]:
    """For grad_output, input and target."""
    rows = (input, target, weight, sample_weight, denominator, options)
    tangents = _Tangents(grad_grad_input, grad_grad_target, *rows)
    return tangents.of_loss(), tangents.of_grad_input(grad_output), tangents.of_grad_target(grad_output)


def backward_tangent(
    grad_output_tangent: Tensor | None,
    input_tangent: Tensor | None,
    target_tangent: Tensor | None,
    grad_output: Tensor,
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    sample_weight: Tensor | None,
    stats: Tensor,
    denominator: Tensor | None,
    options: SoftCrossEntropyOptions,
) -> tuple[Tensor | None, Tensor | None]:
    """Of grad_input and grad_target, as far as they are needed."""
    rows = (input, target, weight, sample_weight, denominator, options)
    changes = _Tangents(input_tangent, target_tangent, *rows)
    of_input = changes.of_grad_input(grad_output, grad_output_tangent) if options.needs_input else None
    of_target = changes.of_grad_target(grad_output, grad_output_tangent) if options.needs_target else None
    return of_input, of_target
