"""Second derivatives and tangents of soft cross entropy, as closed forms in torch ops.

They are the functions that `autograd.register` asks for.
"""

import torch
from torch import Tensor

from ce_ext import shapes
from ce_ext.derivatives import RowReduction, changed_logits
from ce_ext.options import SoftCrossEntropyOptions


class _Tangents:
    """What changes with tangents `v` of the logits and `r` of the target: the loss by J (v, r), and its two gradients
    by H (v, r), where H is symmetric. So they also are the gradients of <(v, r), soft_cross_entropy_backward(...)>.

    With the words of csrc/losses/soft_cross_entropy.h, and D for the derivative along the tangents:

        D loss = sum_j ((mass + 2 zeta lse) p_j - u_j) Dz_j + sum_j (1 - s) w_j (lse - z_j) r_j
        D lse  = <p, Dz>,  D p = p (Dz - D lse),  D u = (1 - s) w r,  D mass = sum_j D u_j
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

        def total(x: Tensor) -> Tensor:
            return x.sum(dim, keepdim=True)

        z, slope_x, curve_x = changed_logits(input.to(opmath), options)
        p, lse = z.softmax(dim), z.logsumexp(dim, keepdim=True)
        v = torch.zeros_like(z) if v is None else v.to(opmath)
        r = torch.zeros_like(z) if r is None else r.to(opmath)
        w = (
            z.new_ones(())
            if weight is None
            else weight.to(opmath).view([-1 if d == dim else 1 for d in range(z.dim())])
        )
        confidence = (1 - options.label_smoothing) * w
        u = confidence * target.to(opmath) + options.label_smoothing / input.shape[dim] * w
        mass = total(u)

        dz = slope_x * v
        d_lse = total(p * dz)
        dp = p * (dz - d_lse)
        du = confidence * r
        grad_z = (mass + 2 * options.z_loss * lse) * p - u
        d_grad_z = (total(du) + 2 * options.z_loss * d_lse) * p + (mass + 2 * options.z_loss * lse) * dp - du
        # Nothing times infinity is nothing.
        gap = (lse - z).where((z != -torch.inf) | (du != 0), 0)
        self._of_loss = total(grad_z * dz + du * gap)
        self._of_grad_input = slope_x * d_grad_z + curve_x * v * grad_z
        self._of_grad_target = confidence * (d_lse - dz)

    def of_loss(self) -> Tensor:
        return self._rows.reduce(self._of_loss)

    def of_grad_input(self, grad_output: Tensor) -> Tensor:
        return (self._rows.scale(grad_output) * self._of_grad_input).to(self._input.dtype)

    def of_grad_target(self, grad_output: Tensor) -> Tensor:
        return (self._rows.scale(grad_output) * self._of_grad_target).to(self._target.dtype)


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
    rows = (input, target, weight, sample_weight)
    changes = _Tangents(input_tangent, target_tangent, *rows, denominator, options)
    of_input = changes.of_grad_input(grad_output) if options.needs_input else None
    of_target = changes.of_grad_target(grad_output) if options.needs_target else None
    if grad_output_tangent is not None:
        scaled_input, scaled_target = torch.ops.ce_ext.soft_cross_entropy_backward(
            grad_output_tangent, *rows, stats, denominator, *options.of_backward()
        )
        of_input = None if of_input is None else of_input + scaled_input
        of_target = None if of_target is None else of_target + scaled_target
    return of_input, of_target
