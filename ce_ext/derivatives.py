"""Second derivatives and forward-mode ones, as closed forms in torch ops, which autograd can differentiate further."""

import torch
from torch import Tensor

from ce_ext import shapes
from ce_ext.options import CrossEntropyOptions, LogSoftmaxOptions, SoftCrossEntropyOptions
from ce_ext.reductions import NONE

LossOptions = CrossEntropyOptions | SoftCrossEntropyOptions


class RowReduction:
    """How the losses of rows become the result, and its gradient theirs. Rows have a dimension of one class."""

    def __init__(
        self, input: Tensor, sample_weight: Tensor | None, denominator: Tensor | None, options: LossOptions
    ) -> None:
        self._input, self._options, self._opmath = input, options, shapes.opmath_dtype(input)
        self._class_dim = shapes.class_dim(input, options.batch_dims)
        self._factors = []
        if denominator is not None:
            self._factors.append(self._to_rows(denominator).reciprocal())
        if sample_weight is not None:
            self._factors.append(self._to_rows(sample_weight))

    def reduce(self, rows: Tensor) -> Tensor:
        for factor in self._factors:
            rows = rows * factor
        rows, dims = rows.squeeze(self._class_dim), range(self._options.batch_dims, rows.dim() - 1)
        reduced = rows if self._options.reduction == NONE or not dims else rows.sum(tuple(dims))
        return reduced.to(self._options.out_dtype or self._input.dtype)

    def scale(self, grad_output: Tensor) -> Tensor:
        """What the gradient of the loss of each row is multiplied by."""
        scale = self._to_rows(grad_output)
        for factor in self._factors:
            scale = scale * factor
        return scale

    def _to_rows(self, values: Tensor) -> Tensor:
        """One value for each leading dimension as one for each row."""
        shape = values.shape + (1,) * (self._input.dim() - 1 - values.dim())
        return values.to(self._opmath).reshape(shape).unsqueeze(self._class_dim)


class _CrossEntropyTangents:
    """What changes with a tangent `v` of the logits: the loss by J v, and grad_input by H v, where H is symmetric.

    So J v is also the gradient in grad_output of <v, cross_entropy_backward(...)>, and H v is its gradient in input.

    With the words of csrc/losses/cross_entropy.h, n for lse - z_y, e for the one-hot y, D for the derivative along v:

        dn = p - e,  dlse = p,  dbase = slope p - (1 - s) w_y e - s/C w,  slope = (1 - s) w_y + s/C sum_k w_k,
        dloss = f dbase + f' base dn + 2 zeta lse dlse          in z,
        D p = p (u - <p, u>),  u = v dz/dx.
    """

    def __init__(
        self,
        v: Tensor,
        input: Tensor,
        target: Tensor,
        weight: Tensor | None,
        sample_weight: Tensor | None,
        denominator: Tensor | None,
        options: CrossEntropyOptions,
    ) -> None:
        self._input, opmath = input, shapes.opmath_dtype(input)
        self._rows = RowReduction(input, sample_weight, denominator, options)
        dim = shapes.class_dim(input, options.batch_dims)
        classes = input.shape[dim]

        def total(x: Tensor) -> Tensor:
            return x.sum(dim, keepdim=True)

        y = target.reshape(shapes.row_shape(input, options.batch_dims)).to(torch.int64).unsqueeze(dim)
        self._valid = y != options.ignore_index
        y = y.where(self._valid, 0)
        is_target = (
            torch.arange(classes, device=y.device).view([-1 if d == dim else 1 for d in range(input.dim())]) == y
        )
        e = is_target.to(opmath)
        w = e.new_ones(classes) if weight is None else weight.to(opmath)
        hard = (1 - options.label_smoothing) * w[y]
        smoothing = options.label_smoothing / classes
        slope = hard + smoothing * w.sum()
        w = w.view([-1 if d == dim else 1 for d in range(input.dim())])

        v = v.to(opmath)
        z, slope_x, curve_x = changed_logits(input.to(opmath).where(self._valid, 0), options)
        u = slope_x * v
        p = torch.zeros_like(z) if options.input_is_log_prob else z.softmax(dim)
        lse = z.logsumexp(dim, keepdim=True)
        mean_u = total(p * u)
        u_target = total(e * u)
        dp = p * (u - mean_u)
        grad, d_grad = slope * p - hard * e - smoothing * w, slope * dp
        d_loss = slope * mean_u - hard * u_target - smoothing * total(w * u)
        if options.gamma > 0:
            n = lse - z.gather(dim, y)
            base = hard * n
            if smoothing > 0:
                base = base + smoothing * total(w * (lse - z))
            grad_n, d_n = p - e, mean_u - u_target
            p_target, rest = torch.exp(-n), (-torch.expm1(-n)).clamp_min(1e-30)
            f = rest**options.gamma
            f1 = options.gamma * p_target * rest ** (options.gamma - 1)
            f2_base = f1 * ((options.gamma - 1) * p_target * (base / rest) - base)
            d_grad = f * d_grad + f1 * (d_n * grad + d_loss * grad_n + base * dp) + f2_base * d_n * grad_n
            grad, d_loss = f * grad + f1 * base * grad_n, f * d_loss + f1 * base * d_n
        if options.z_loss > 0:
            d_grad = d_grad + 2 * options.z_loss * (mean_u * p + lse * dp)
            grad = grad + 2 * options.z_loss * lse * p
            d_loss = d_loss + 2 * options.z_loss * lse * mean_u

        self._of_loss = d_loss
        self._of_grad = slope_x * d_grad + curve_x * v * grad

    def of_loss(self) -> Tensor:
        """J v."""
        return self._rows.reduce(self._of_loss.where(self._valid, 0))

    def of_grad_input(self, grad_output: Tensor) -> Tensor:
        """H v."""
        return (self._rows.scale(grad_output) * self._of_grad).where(self._valid, 0).to(self._input.dtype)


def changed_logits(x: Tensor, options: LossOptions) -> tuple[Tensor, Tensor | float, Tensor | float]:
    """The logits z that the loss is taken of, dz/dx and d2z/dx2, as csrc/losses/logits.h has them."""
    if options.softcap == 0:
        return options.logit_scale * x, options.logit_scale, 0.0
    t = torch.tanh(options.logit_scale / options.softcap * x)
    slope = options.logit_scale * (1 - t * t)
    return options.softcap * t, slope, -2 * options.logit_scale / options.softcap * t * slope


def cross_entropy_tangent(
    input_tangent: Tensor,
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    sample_weight: Tensor | None,
    stats: Tensor | None,
    denominator: Tensor | None,
    options: CrossEntropyOptions,
) -> Tensor:
    return _CrossEntropyTangents(input_tangent, input, target, weight, sample_weight, denominator, options).of_loss()


def cross_entropy_backward_gradient(
    grad_grad_input: Tensor,
    grad_output: Tensor,
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    sample_weight: Tensor | None,
    stats: Tensor | None,
    denominator: Tensor | None,
    options: CrossEntropyOptions,
) -> tuple[Tensor, Tensor]:
    """For grad_output and input."""
    rows = (input, target, weight, sample_weight, denominator, options)
    tangents = _CrossEntropyTangents(grad_grad_input, *rows)
    return tangents.of_loss(), tangents.of_grad_input(grad_output)


def cross_entropy_backward_tangent(
    grad_output_tangent: Tensor | None,
    input_tangent: Tensor | None,
    grad_output: Tensor,
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    sample_weight: Tensor | None,
    stats: Tensor | None,
    denominator: Tensor | None,
    options: CrossEntropyOptions,
) -> Tensor:
    rows = (input, target, weight, sample_weight)
    tangent = torch.zeros_like(input)
    if grad_output_tangent is not None:
        tangent = torch.ops.ce_ext.cross_entropy_backward(
            grad_output_tangent, *rows, stats, denominator, *options.of_backward()
        )
    if input_tangent is not None:
        changes = _CrossEntropyTangents(input_tangent, *rows, denominator, options)
        tangent = tangent + changes.of_grad_input(grad_output)
    return tangent


def log_softmax_tangent(input_tangent: Tensor, output: Tensor, options: LogSoftmaxOptions) -> Tensor:
    """Of y = log_softmax(x): v_j - sum_k p_k v_k, with p = e^y."""
    v, p = _in_opmath(input_tangent, output.exp())
    return (v - (p * v).sum(options.dim, keepdim=True)).to(output.dtype)


def log_softmax_backward_gradient(
    grad_grad_input: Tensor, grad_output: Tensor, output: Tensor, options: LogSoftmaxOptions
) -> tuple[Tensor, Tensor]:
    """For grad_output and output, of <v, g - e^y sum_k g_k>."""
    v, g, y = _in_opmath(grad_grad_input, grad_output, output)
    p = y.exp()
    for_grad_output = v - (p * v).sum(options.dim, keepdim=True)
    for_output = -p * v * g.sum(options.dim, keepdim=True)
    return for_grad_output.to(output.dtype), for_output.to(output.dtype)


def log_softmax_backward_tangent(
    grad_output_tangent: Tensor | None,
    output_tangent: Tensor | None,
    grad_output: Tensor,
    output: Tensor,
    options: LogSoftmaxOptions,
) -> Tensor:
    """Of g - e^y sum_k g_k."""
    g, y = _in_opmath(grad_output, output)
    p, tangent = y.exp(), torch.zeros_like(g)
    if grad_output_tangent is not None:
        (dg,) = _in_opmath(grad_output_tangent)
        tangent = dg - p * dg.sum(options.dim, keepdim=True)
    if output_tangent is not None:
        (dy,) = _in_opmath(output_tangent)
        tangent = tangent - p * dy * g.sum(options.dim, keepdim=True)
    return tangent.to(options.dtype)


def _in_opmath(*tensors: Tensor) -> list[Tensor]:
    return [tensor.to(shapes.opmath_dtype(tensor)) for tensor in tensors]
