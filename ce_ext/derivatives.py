"""Second derivatives and tangents, as closed forms in torch ops, which autograd can differentiate further.

The docstring of `autograd.register` says which there are for each op pair, and what they take.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ce_ext import shapes
from ce_ext.options import CrossEntropyOptions
from ce_ext.reductions import MEAN, NONE


class _CrossEntropyRows(NamedTuple):
    """What the derivatives need of every row, in opmath, with a dimension of size 1 for the classes.

    With the words of csrc/losses/cross_entropy.h, for a row with target y, weights w, smoothing s over C classes:
    d loss / d x_j = factor * (slope p_j - s/C w_j - (1 - s) w_y [j = y]), slope = (1 - s) w_y + s/C sum_k w_k.
    """

    class_dim: int
    valid: Tensor
    target: Tensor  # of ignored rows 0
    probabilities: Tensor  # one a class
    hard: Tensor  # (1 - s) w_y
    soft: Tensor  # s/C w, one a class, the same for all rows
    factor: Tensor  # the reduction's

    @property
    def slope(self) -> Tensor:
        return self.hard + self.soft.sum()

    def mean(self, v: Tensor) -> Tensor:
        """Over the classes, by their probabilities."""
        return (self.probabilities * v).sum(self.class_dim, keepdim=True)


def _cross_entropy_rows(
    input: Tensor, target: Tensor, weight: Tensor | None, denominator: Tensor, options: CrossEntropyOptions
) -> _CrossEntropyRows:
    opmath = shapes.opmath_dtype(input)
    class_dim = shapes.class_dim(input, options.batch_dims)
    rows = shapes.row_shape(input, options.batch_dims)
    target = target.reshape(rows).to(torch.int64).unsqueeze(class_dim)
    valid = target != options.ignore_index
    target = target.where(valid, 0)
    classes = input.shape[class_dim]
    w = input.new_ones(classes, dtype=opmath) if weight is None else weight.to(opmath)
    hard = (1 - options.label_smoothing) * w[target]
    return _CrossEntropyRows(
        class_dim,
        valid,
        target,
        probabilities=input.to(opmath).where(valid, 0).softmax(class_dim),
        hard=hard,
        soft=(options.label_smoothing / classes * w).view([-1 if d == class_dim else 1 for d in range(input.dim())]),
        factor=_per_row(denominator.reciprocal(), input, class_dim)
        if options.reduction == MEAN
        else torch.ones_like(hard),
    )


def _per_row(values: Tensor, input: Tensor, class_dim: int) -> Tensor:
    """One value for each leading dimension as one for each row, with a class dimension to broadcast over."""
    values = values.to(shapes.opmath_dtype(input))
    return values.reshape(values.shape + (1,) * (input.dim() - 1 - values.dim())).unsqueeze(class_dim)


def _tangent(
    v: Tensor,
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    denominator: Tensor,
    options: CrossEntropyOptions,
) -> Tensor:
    """The derivative of the loss along v, which is shaped like input: J v."""
    rows = _cross_entropy_rows(input, target, weight, denominator, options)
    v = v.to(rows.hard.dtype)
    pull = (rows.soft * v).sum(rows.class_dim, keepdim=True) + rows.hard * v.gather(rows.class_dim, rows.target)
    tangent = ((rows.slope * rows.mean(v) - pull) * rows.factor).where(rows.valid, 0).squeeze(rows.class_dim)
    reduced = () if options.reduction == NONE else tuple(range(options.batch_dims, tangent.dim()))
    return (tangent.sum(reduced) if reduced else tangent).to(input.dtype)


def _hessian_product(
    v: Tensor,
    grad_output: Tensor,
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    denominator: Tensor,
    options: CrossEntropyOptions,
) -> Tensor:
    """The derivative of grad_input in input, along v; and for v its gradient, because a Hessian is symmetric: H v."""
    rows = _cross_entropy_rows(input, target, weight, denominator, options)
    v = v.to(rows.hard.dtype)
    scale = _per_row(grad_output, input, rows.class_dim) * rows.factor * rows.slope
    return (scale * rows.probabilities * (v - rows.mean(v))).where(rows.valid, 0).to(input.dtype)


def cross_entropy_tangent(
    input_tangent: Tensor,
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    stats: Tensor,
    denominator: Tensor,
    options: CrossEntropyOptions,
) -> Tensor:
    return _tangent(input_tangent, input, target, weight, denominator, options)


def cross_entropy_backward_gradient(
    grad_grad_input: Tensor,
    grad_output: Tensor,
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    stats: Tensor,
    denominator: Tensor,
    options: CrossEntropyOptions,
) -> tuple[Tensor, Tensor]:
    """For grad_output and input."""
    row = (input, target, weight, denominator, options)
    return _tangent(grad_grad_input, *row), _hessian_product(grad_grad_input, grad_output, *row)


def cross_entropy_backward_tangent(
    grad_output_tangent: Tensor | None,
    input_tangent: Tensor | None,
    grad_output: Tensor,
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    stats: Tensor,
    denominator: Tensor,
    options: CrossEntropyOptions,
) -> Tensor:
    tangent = torch.zeros_like(input)
    if grad_output_tangent is not None:
        backward = torch.ops.ce_ext.cross_entropy_backward.default
        tangent = backward(grad_output_tangent, input, target, weight, stats, denominator, *options)
    if input_tangent is not None:
        tangent = tangent + _hessian_product(input_tangent, grad_output, input, target, weight, denominator, options)
    return tangent
