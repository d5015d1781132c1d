"""Second derivatives and forward-mode ones, as closed forms in torch ops, which autograd can differentiate further."""

import torch
from torch import Tensor

from ce_ext import shapes
from ce_ext.options import CrossEntropyOptions, LogSoftmaxOptions, SoftCrossEntropyOptions
from ce_ext.predictions import LogitPrediction, LogitsPrediction, SoftmaxPrediction, power, product, split_far
from ce_ext.reductions import reduce

LossOptions = CrossEntropyOptions | SoftCrossEntropyOptions


class RowReduction:
    """How the losses of rows become the result, and its gradient theirs. Rows have a dimension of one class."""

    def __init__(
        self, input: Tensor, sample_weight: Tensor | None, denominator: Tensor | None, options: LossOptions
    ) -> None:
        self._input, self._options, self._opmath = input, options, shapes.opmath_dtype(input)
        self._denominator = denominator
        self._class_dim = shapes.class_dim(input, options.batch_dims)
        self._sample_weight = None if sample_weight is None else self._to_rows(sample_weight)

    def reduce(self, rows: Tensor) -> Tensor:
        if self._sample_weight is not None:
            rows = product(self._sample_weight, rows)
        reduced = reduce(rows, self._denominator, self._options, self._class_dim)
        return reduced.to(self._options.out_dtype or self._input.dtype)

    def gradient(
        self, of_rows: Tensor, change: Tensor, grad_output: Tensor, grad_output_tangent: Tensor | None
    ) -> Tensor:
        """What becomes of the gradient of the loss of each row where that and grad_output change."""
        changed = product(self._of_rows(grad_output), change)
        if grad_output_tangent is None:
            return changed
        return changed + product(self._of_rows(grad_output_tangent), of_rows)

    def _of_rows(self, grad_output: Tensor) -> Tensor:
        """The upstream gradient of the loss of each row."""
        upstream = self._to_rows(grad_output)
        if self._denominator is not None:
            upstream = product(self._to_rows(self._denominator).reciprocal(), upstream)
        return upstream if self._sample_weight is None else product(self._sample_weight, upstream)

    def _to_rows(self, values: Tensor) -> Tensor:
        """One value for each leading dimension as one for each row."""
        shape = values.shape + (1,) * (self._input.dim() - 1 - values.dim())
        return values.to(self._opmath).reshape(shape).unsqueeze(self._class_dim)


class MeanSurprise:
    """base = sum_j q_j n_j of n = -log p, p = softmax(z): its gradient in z, and D of both along u of z and r of q.

    With dev_j = u_j - <p, u>, of which D n is the negative, and excess(q)_j = p_j sum_k q_k - q_j:

        D base = sum_j r_j n_j - sum_j q_j dev_j,   dbase/dz = excess(q),   D dbase/dz = excess(r) + (sum_k q_k) D p,
        D p = p dev.
    """

    def __init__(self, row: SoftmaxPrediction, q: Tensor, u: Tensor, r: Tensor | None = None) -> None:
        self.deviation = row.deviation(u)
        self.dp = row.p * self.deviation
        self.d_value = -row.total(q * self.deviation)
        self.grad, self.d_grad = row.excess(q), row.total(q) * self.dp
        if r is not None:
            self.d_value = self.d_value + row.total(product(r, row.nll))
            self.d_grad = self.d_grad + row.excess(r)


class ZLoss:
    """zeta lse^2: its gradient in z, 2 zeta lse p, and D of both, where D lse = <p, u>."""

    def __init__(self, row: LogitsPrediction, zeta: float, u: Tensor, dp: Tensor) -> None:
        pull, d_pull = 2 * zeta * row.log_sum_exp(), 2 * zeta * row.total(row.p * u)
        self.d_value = pull * row.total(row.p * u)
        self.grad, self.d_grad = pull * row.p, d_pull * row.p + pull * dp


class _CrossEntropyTangents:
    """What changes with a tangent `v` of the logits: the loss by J v, and grad_input by H v, where H is symmetric.

    So J v is also the gradient in grad_output of <v, cross_entropy_backward(...)>, and H v is its gradient in input.

    With the words of csrc/losses/cross_entropy.h, base is `MeanSurprise` with q = (1 - s) w_y e + s/C w, for e the
    one-hot y. The focal loss is a function of the margin of y, m, whose sigmoid is p_y. Of o, the softmax of the other
    classes, rest = 1 - p_y and mu = D m, everything has the factor f, and nothing is divided by rest:

        m = z_y - lse of the others,    mu = u_y - <o, u>,    df/dz = -gamma f p_y (e - o)
        dloss/dz = f A,                 A = dbase/dz + gamma p_y base (o - e)
        D loss = f (D base - gamma p_y base mu)
        D dloss/dz = f (D A - gamma p_y mu A),
        D A = D dbase/dz + gamma (p_y rest mu base + p_y D base) (o - e) + gamma p_y base D o
    """

    def __init__(
        self,
        v: Tensor | None,
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

        y = shapes.class_indices(target).reshape(shapes.row_shape(input, options.batch_dims)).unsqueeze(dim)
        self._valid = y != options.ignore_index
        # CUDA has yet to report a target that is none. It picks no class, and makes its row NaN.
        is_unknown = self._valid & ((y < 0) | (y >= classes))
        unknown = torch.zeros_like(y, dtype=opmath).masked_fill(is_unknown, torch.nan)
        is_target = shapes.is_class(y, input, dim)

        def of_target(x: Tensor) -> Tensor:
            return x.where(is_target, 0).sum(dim, keepdim=True)

        ones = torch.ones_like(input, dtype=opmath)
        w = ones if weight is None else ones * shapes.along(weight.to(opmath), input, dim)
        hard = (1 - options.label_smoothing) * of_target(w) + unknown
        v = torch.zeros_like(input, dtype=opmath) if v is None else v.to(opmath)
        if options.input_is_log_prob:
            self._of_loss = -product(hard, of_target(v))
            self._of_grad = (-hard).where(is_target, unknown)
            self._change_of_grad = unknown.expand_as(v)
            return

        x = input.to(opmath).where(self._valid, 0) + unknown
        z, slope_x, curve_x = changed_logits(x, options)
        u = slope_x * v
        row = LogitsPrediction(z, dim)
        q = hard.where(is_target, 0)
        if options.label_smoothing > 0:
            q = q + options.label_smoothing / max(classes, 1) * w
        base = MeanSurprise(row, q, u)
        d_loss, grad, d_grad = base.d_value, base.grad, base.d_grad
        if options.gamma > 0:
            of_others = z.masked_fill(is_target, -torch.inf)
            is_alone = (of_others == -torch.inf).all(dim, keepdim=True)
            others = LogitsPrediction(of_others.where(~is_alone, 0), dim)
            margin = ((of_target(z) - others.max) - others.log_sum).where(~is_alone, torch.inf)
            near, beyond = split_far(margin, margin > 0)
            prediction = LogitPrediction(margin)
            p_target, rest = prediction.probability(), prediction.rest()
            f = power(rest, LogitPrediction(near).rest(), beyond, options.gamma)
            o, deviation = others.p.where(~is_target, 0), others.deviation(u)
            mu, away = of_target(deviation), o - is_target.to(opmath)
            # Smoothing makes it infinite where a logit is -inf, of which a factor of 0 leaves nothing.
            p_base = options.gamma * product(p_target, row.total(product(q, row.nll))).where(f != 0, 0)
            d_p_base = rest * mu * p_base + options.gamma * p_target * d_loss
            d_loss = f * (d_loss - p_base * mu)
            grad = grad + p_base * away
            d_grad = f * (d_grad + d_p_base * away + p_base * o * deviation - options.gamma * p_target * mu * grad)
            grad = f * grad
        if options.z_loss > 0:
            z_loss = ZLoss(row, options.z_loss, u, base.dp)
            d_loss, grad, d_grad = d_loss + z_loss.d_value, grad + z_loss.grad, d_grad + z_loss.d_grad

        self._of_loss = d_loss
        self._of_grad = slope_x * grad
        self._change_of_grad = slope_x * d_grad + curve_x * v * grad

    def of_loss(self) -> Tensor:
        """J v."""
        return self._rows.reduce(self._of_loss.where(self._valid, 0))

    def of_grad_input(self, grad_output: Tensor, grad_output_tangent: Tensor | None = None) -> Tensor:
        """H v, and with a tangent of grad_output what that adds."""
        change = self._rows.gradient(self._of_grad, self._change_of_grad, grad_output, grad_output_tangent)
        return change.where(self._valid, 0).to(self._input.dtype)


def changed_logits(x: Tensor, options: LossOptions) -> tuple[Tensor, Tensor | float, Tensor | float]:
    """The logits z that the loss is taken of, dz/dx and d2z/dx2, as csrc/losses/logits.h has them.

    tanh(x) = 2 p - 1, and 1 - tanh^2(x) = 4 p (1 - p), for the prediction p of the logit 2 x.
    """
    if options.softcap == 0:
        return options.logit_scale * x, options.logit_scale, 0.0
    prediction = LogitPrediction(2 * options.logit_scale / options.softcap * x)
    t = prediction.lead()
    # Where t is small, so is the derivative of the variance, of which autograd makes a difference.
    slope = options.logit_scale * torch.where(prediction.odds > 0.5, 1 - t * t, 4 * prediction.variance())
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
    changes = _CrossEntropyTangents(input_tangent, input, target, weight, sample_weight, denominator, options)
    return changes.of_grad_input(grad_output, grad_output_tangent)


def log_softmax_tangent(input_tangent: Tensor, output: Tensor, options: LogSoftmaxOptions) -> Tensor:
    """Of y = log_softmax(x): v_j - sum_k p_k v_k, with p = e^y."""
    v, y = _in_opmath(input_tangent, output)
    return SoftmaxPrediction.of_log_probs(y, options.dim).deviation(v).to(output.dtype)


def log_softmax_backward_gradient(
    grad_grad_input: Tensor, grad_output: Tensor, output: Tensor, options: LogSoftmaxOptions
) -> tuple[Tensor, Tensor]:
    """For grad_output and output, of <v, g - e^y sum_k g_k>.

    For output it is -p_j v_j sum_k g_k, plus any multiple of p: log_softmax takes the sum of its own gradient times p
    off. With v measured from that of the most likely class, that has nothing to take off which would cancel.
    """
    v, g, y = _in_opmath(grad_grad_input, grad_output, output)
    row = SoftmaxPrediction.of_log_probs(y, options.dim)
    for_output = -row.p * (v - row.of_most_likely(v)) * row.total(g)
    return row.deviation(v).to(output.dtype), for_output.to(output.dtype)


def log_softmax_backward_tangent(
    grad_output_tangent: Tensor | None,
    output_tangent: Tensor | None,
    grad_output: Tensor,
    output: Tensor,
    options: LogSoftmaxOptions,
) -> Tensor:
    """Of g - e^y sum_k g_k."""
    g, y = _in_opmath(grad_output, output)
    row, tangent = SoftmaxPrediction.of_log_probs(y, options.dim), torch.zeros_like(g)
    if grad_output_tangent is not None:
        (dg,) = _in_opmath(grad_output_tangent)
        tangent = -row.excess(dg)
    if output_tangent is not None:
        (dy,) = _in_opmath(output_tangent)
        tangent = tangent - row.p * dy * row.total(g)
    return tangent.to(options.dtype)


def _in_opmath(*tensors: Tensor) -> list[Tensor]:
    return [tensor.to(shapes.opmath_dtype(tensor)) for tensor in tensors]
