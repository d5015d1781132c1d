"""Second derivatives, as closed forms in torch ops, which autograd can differentiate further."""

import torch
from torch import Tensor

from ce_ext import shapes
from ce_ext.reductions import MEAN


def cross_entropy_double_backward(
    grad_grad_input: Tensor,
    grad_output: Tensor,
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    denominator: Tensor,
    reduction: int,
    ignore_index: int,
    label_smoothing: float,
    batch_dims: int,
) -> tuple[Tensor, Tensor]:
    """The gradients in grad_output and in input of <grad_grad_input, cross_entropy_backward(...)>.

    With the words of csrc/losses/cross_entropy.h, for a row with target y, weights w, smoothing s over C classes:
    grad_input_j = scale * (slope p_j - s/C w_j - (1 - s) w_y [j = y]), slope = (1 - s) w_y + s/C sum_k w_k.
    """
    opmath = shapes.opmath_dtype(input)
    class_dim = shapes.class_dim(input, batch_dims)
    rows = shapes.row_shape(input, batch_dims)

    def to_rows(values: Tensor) -> Tensor:
        """One value for each leading dimension as one for each row, with a class dimension to broadcast over."""
        return values.to(opmath).reshape(values.shape + (1,) * (len(rows) - values.dim())).unsqueeze(class_dim)

    target = target.reshape(rows).to(torch.int64).unsqueeze(class_dim)
    valid = target != ignore_index
    target = target.where(valid, 0)
    classes = input.shape[class_dim]
    w = input.new_ones(classes, dtype=opmath) if weight is None else weight.to(opmath)
    w_class = w.view([-1 if d == class_dim else 1 for d in range(input.dim())])
    hard = (1 - label_smoothing) * w[target]
    smoothing = label_smoothing / classes
    slope = hard + smoothing * w.sum()
    factor = to_rows(denominator).reciprocal() if reduction == MEAN else torch.ones_like(hard)

    v = grad_grad_input.to(opmath)
    p = input.to(opmath).where(valid, 0).softmax(class_dim)
    mean_v = (p * v).sum(class_dim, keepdim=True)

    scale = to_rows(grad_output) * factor
    grad_input = (scale * slope * p * (v - mean_v)).where(valid, 0)

    pull = smoothing * (w_class * v).sum(class_dim, keepdim=True) + hard * v.gather(class_dim, target)
    per_row = ((slope * mean_v - pull) * factor).where(valid, 0).squeeze(class_dim)
    shared = tuple(range(grad_output.dim(), len(rows)))  # dimensions whose rows share one grad_output
    per_output = per_row.sum(shared) if shared else per_row
    return per_output.to(grad_output.dtype), grad_input.to(input.dtype)


def log_softmax_jvp(tangent: Tensor, output: Tensor, dim: int) -> Tensor:
    """The tangent of y = log_softmax(x) for that of x: v_j - sum_k p_k v_k, with p = e^y."""
    opmath = shapes.opmath_dtype(output)
    v, p = tangent.to(opmath), output.to(opmath).exp()
    return (v - (p * v).sum(dim, keepdim=True)).to(output.dtype)


def log_softmax_backward(grad_output: Tensor, output: Tensor, dim: int) -> Tensor:
    """The gradient in x of <g, y>: g - e^y sum_k g_k."""
    opmath = shapes.opmath_dtype(output)
    g, p = grad_output.to(opmath), output.to(opmath).exp()
    return g - p * g.sum(dim, keepdim=True)


def log_softmax_double_backward(
    grad_grad_input: Tensor, grad_output: Tensor, output: Tensor, dim: int
) -> tuple[Tensor, Tensor]:
    """The gradients in grad_output and in output of <v, g - e^y sum_k g_k>, with v = grad_grad_input."""
    opmath = shapes.opmath_dtype(output)
    v, g, p = grad_grad_input.to(opmath), grad_output.to(opmath), output.to(opmath).exp()
    grad_output_grad = v - (p * v).sum(dim, keepdim=True)
    output_grad = -p * v * g.sum(dim, keepdim=True)
    return grad_output_grad.to(output.dtype), output_grad.to(output.dtype)


def log_softmax_backward_jvp(
    grad_tangent: Tensor, output_tangent: Tensor, grad_output: Tensor, output: Tensor, dim: int
) -> Tensor:
    """The tangent of g - e^y sum_k g_k for those of g and y."""
    opmath = shapes.opmath_dtype(output)
    g, p = grad_output.to(opmath), output.to(opmath).exp()
    dg, dy = grad_tangent.to(opmath), output_tangent.to(opmath)
    return dg - p * (dg.sum(dim, keepdim=True) + dy * g.sum(dim, keepdim=True))
