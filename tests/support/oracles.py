"""The losses as formulas in float64, independent of ce_ext and of torch's own losses.

They keep their relative accuracy where the prediction is confident, which log_softmax does not: the target's logit is
compared with the log-sum-exp of the *other* classes.
"""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, NamedTuple

import torch
from torch import Tensor

# Of rows or elements: one number, or several of them.
Ignored = int | Sequence[int]


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: Ignored = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    *,
    gamma: float = 0.0,
    z_loss: float = 0.0,
    softcap: float = 0.0,
    logit_scale: float = 1.0,
    denominator: Tensor | float | None = None,
    on_empty: str = "nan",
    sample_weight: Tensor | None = None,
) -> Tensor:
    x = _transformed(_classes_last(input), softcap, logit_scale)
    classes = x.shape[-1]
    y = target.long().reshape(x.shape[:-1])
    w = x.new_ones(classes) if weight is None else weight.double()
    valid = _valid(y, ignore_index)
    y = y.where(valid, 0).unsqueeze(-1)
    is_target = torch.arange(classes, device=x.device) == y

    x_target = x.gather(-1, y)
    nothing = -torch.inf if classes > 1 else -1e300  # of infinity alone logsumexp has no second derivative
    others = x.masked_fill(is_target, nothing).logsumexp(-1, keepdim=True)
    nll = _softplus(others - x_target)
    weight_target = w[y]
    loss = (1 - label_smoothing) * weight_target * nll
    if label_smoothing > 0:  # lse - x_j = nll + (x_y - x_j)
        spread = (w * (nll + x_target - x)).sum(-1, keepdim=True)
        loss = loss + label_smoothing / classes * spread
    if gamma > 0:
        log_rest = -_softplus(x_target - others)  # log(1 - p)
        loss = torch.exp(gamma * log_rest) * loss
    if z_loss > 0:
        loss = loss + z_loss * (nll + x_target) ** 2
    row_weight = torch.ones_like(nll) if sample_weight is None else sample_weight.double().reshape(nll.shape)
    loss = (row_weight * loss).where(valid.unsqueeze(-1), 0).squeeze(-1)
    counts = (row_weight * weight_target).squeeze(-1).where(valid, 0)
    return _reduce(loss, counts, reduction, denominator, on_empty)


def nll_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: Ignored = -100,
    reduction: str = "mean",
    *,
    sample_weight: Tensor | None = None,
    **options: Any,
) -> Tensor:
    x = _classes_last(input)
    y = target.long().reshape(x.shape[:-1])
    valid = _valid(y, ignore_index)
    y = y.where(valid, 0)
    w = (x.new_ones(x.shape[-1]) if weight is None else weight.double())[y].where(valid, 0)
    if sample_weight is not None:
        w = w * sample_weight.double().reshape(y.shape)
    loss = -w * x.gather(-1, y.unsqueeze(-1)).squeeze(-1)
    return _reduce(loss.where(valid, 0), w, reduction, **options)


def soft_cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    *,
    gamma: float = 0.0,
    z_loss: float = 0.0,
    softcap: float = 0.0,
    logit_scale: float = 1.0,
    denominator: Tensor | float | None = None,
    on_empty: str = "nan",
    sample_weight: Tensor | None = None,
) -> Tensor:
    """Cross entropy with class probabilities, or its focal loss; a class without probability may be impossible."""
    x, q = _transformed(_classes_last(input), softcap, logit_scale), _classes_last(target)
    q = (1 - label_smoothing) * q + label_smoothing / x.shape[-1]
    if weight is not None:
        q = q * weight.double()
    gaps = -log_softmax(x, -1)
    if gamma > 0:
        p, is_largest = x.softmax(-1), torch.arange(x.shape[-1], device=x.device) == x.argmax(-1, keepdim=True)
        others = p.masked_fill(is_largest, 0).sum(-1, keepdim=True)
        gaps = gaps * torch.where(is_largest, others, 1 - p).clamp(min=1e-300) ** gamma
    loss = (q * gaps.masked_fill(gaps.isinf() & (q == 0), 0)).sum(-1) + z_loss * x.logsumexp(-1) ** 2
    row_weight = torch.ones_like(loss) if sample_weight is None else sample_weight.double()
    return _reduce(row_weight * loss, row_weight, reduction, denominator, on_empty)


def softmax_focal_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    gamma: float = 2.0,
    ignore_index: Ignored = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    **options: Any,
) -> Tensor:
    return cross_entropy(input, target, weight, ignore_index, reduction, label_smoothing, gamma=gamma, **options)


class SoftmaxStats(NamedTuple):
    lse: Tensor
    entropy: Tensor
    target_log_prob: Tensor
    logits: Tensor  # that the loss is taken of, with the classes last


def softmax_stats(
    input: Tensor, target: Tensor, ignore_index: Ignored = -100, softcap: float = 0.0, logit_scale: float = 1.0
) -> SoftmaxStats:
    """What is told of the rows of class indices, or of class probabilities."""
    x = _transformed(_classes_last(input), softcap, logit_scale)
    log_p = log_softmax(x, -1)
    if target.is_floating_point():
        of_target = (_classes_last(target) * log_p).sum(-1)
    else:
        y = target.long().reshape(x.shape[:-1])
        valid = _valid(y, ignore_index)
        of_target = log_p.gather(-1, y.where(valid, 0).unsqueeze(-1)).squeeze(-1).where(valid, 0)
    return SoftmaxStats(x.logsumexp(-1), -(log_p.exp() * log_p).sum(-1), of_target, x)


def log_softmax(input: Tensor, dim: int) -> Tensor:
    """Relative to the largest logit, whose own e^0 = 1 the others are added to by log1p."""
    x = input.double()
    largest = x.argmax(dim, keepdim=True)
    shifted = x - x.gather(dim, largest)
    others = shifted.exp().scatter(dim, largest, 0.0).sum(dim, keepdim=True)
    return shifted - others.log1p()


def binary_cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    ignore_index: Ignored | None = None,
    ignore_nan: bool = False,
    **options: Any,
) -> Tensor:
    p, t, valid = input.double(), target.double(), _valid(target, ignore_index, ignore_nan)
    p = p.where(valid, 0.5)
    t = (1 - label_smoothing) * t.where(valid, 0.5) + label_smoothing / 2
    loss = -t * torch.log(p).clamp_min(-100) - (1 - t) * torch.log1p(-p).clamp_min(-100)
    loss = loss if weight is None else weight.double() * loss
    return _reduce(loss.where(valid, 0), valid, reduction, **options)


def sigmoid_focal_loss(
    input: Tensor,
    target: Tensor,
    alpha: Tensor | float = 0.25,
    gamma: float = 2.0,
    reduction: str = "mean",
    weight: Tensor | None = None,
    pos_weight: Tensor | None = None,
    label_smoothing: float = 0.0,
    ignore_index: Ignored | None = None,
    ignore_nan: bool = False,
    **options: Any,
) -> Tensor:
    x, t, valid = _elements(input, target, label_smoothing, ignore_index, ignore_nan)
    # Nothing times infinity is nothing.
    pos = (t * _softplus(-x)).masked_fill((t == 0) & (x == -torch.inf), 0)
    neg = ((1 - t) * _softplus(x)).masked_fill((t == 1) & (x == torch.inf), 0)
    loss = pos + neg if pos_weight is None else pos_weight.double() * pos + neg
    if gamma > 0:
        lack = torch.sigmoid(x) * (1 - t) + torch.sigmoid(-x) * t  # 1 - p_t
        loss = lack**gamma * loss
    alpha = torch.as_tensor(alpha, dtype=torch.float64, device=x.device)
    loss = loss * (alpha * t + (1 - alpha) * (1 - t)).where(alpha >= 0, 1)
    loss = loss if weight is None else weight.double() * loss
    return _reduce(loss.where(valid, 0), valid, reduction, **options)


def asymmetric_loss(
    input: Tensor,
    target: Tensor,
    gamma_neg: float = 4.0,
    gamma_pos: float = 1.0,
    margin: float = 0.05,
    reduction: str = "mean",
    weight: Tensor | None = None,
    pos_weight: Tensor | None = None,
    label_smoothing: float = 0.0,
    ignore_index: Ignored | None = None,
    ignore_nan: bool = False,
    **options: Any,
) -> Tensor:
    x, t, valid = _elements(input, target, label_smoothing, ignore_index, ignore_nan)
    pos = torch.exp(-gamma_pos * _softplus(x).clamp_max(1e9)) * _softplus(-x)
    if margin == 0:
        neg = torch.exp(-gamma_neg * _softplus(-x).clamp_max(1e9)) * _softplus(x)
    else:
        # sigmoid(x) - sigmoid(edge), without their difference. The margin's logit has more digits than float64.
        edge = Decimal(margin).ln() - (1 - Decimal(margin)).ln()
        above = (x - float(edge)) - float(edge - Decimal(float(edge)))
        is_above = above > 0
        above = above.where(is_above, 1)
        rise = torch.where(above < 0.5, -torch.expm1(-above), 1 - torch.exp(-above))  # each with its own derivative
        p_m = (torch.exp(-_softplus(-x)) * (1 - margin) * rise).where(is_above, 0.25)
        miss = torch.where(p_m > 0.5, -torch.log(torch.sigmoid(-x) + margin), -torch.log1p(-p_m.clamp_max(0.5)))
        neg = (p_m**gamma_neg * miss).where(is_above, 0)
    pos, neg = pos.where((t != 0) | pos.isfinite(), 0), neg.where((t != 1) | neg.isfinite(), 0)
    loss = (t if pos_weight is None else pos_weight.double() * t) * pos + (1 - t) * neg
    loss = loss if weight is None else weight.double() * loss
    return _reduce(loss.where(valid, 0), valid, reduction, **options)


def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
    **options: Any,
) -> Tensor:
    return sigmoid_focal_loss(input, target, -1.0, 0.0, reduction, weight, pos_weight, **options)


def _elements(
    input: Tensor, target: Tensor, label_smoothing: float, ignore_index: Ignored | None, ignore_nan: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, smoothed targets, and which of them are not ignored."""
    x = input.double()
    valid = _valid(target, ignore_index, ignore_nan)
    if target.shape != input.shape:  # of classes
        dim = min(1, x.dim() - 1)
        classes = torch.arange(x.shape[dim], device=x.device).view([-1 if d == dim else 1 for d in range(x.dim())])
        target, valid = target.long().unsqueeze(dim) == classes, valid.unsqueeze(dim).expand(x.shape)
    target = target.double().where(valid, 0.5)
    return x.where(valid, 0), (1 - label_smoothing) * target + label_smoothing / 2, valid


def _softplus(x: Tensor) -> Tensor:
    return torch.nn.functional.softplus(x, threshold=700)  # there e^x is still a number


def _classes_last(input: Tensor) -> Tensor:
    return input.double() if input.dim() == 1 else input.double().movedim(1, -1)


def _transformed(x: Tensor, softcap: float, logit_scale: float) -> Tensor:
    x = logit_scale * x
    return softcap * _tanh(x / softcap) if softcap else x


def _tanh(x: Tensor) -> Tensor:
    """With a derivative that keeps its accuracy where torch's, 1 - tanh(x)^2, is 0."""
    far = torch.where(x > 0, 1 - 2 * torch.sigmoid(-2 * x), 2 * torch.sigmoid(2 * x) - 1)
    return torch.tanh(x).where(x.abs() < 1, far)


def _valid(target: Tensor, ignore_index: Ignored | None, ignore_nan: bool = False) -> Tensor:
    valid = ~target.isnan() if ignore_nan else torch.ones_like(target, dtype=torch.bool)
    ignored = () if ignore_index is None else (ignore_index,) if isinstance(ignore_index, int) else ignore_index
    for value in ignored:
        valid = valid & (target != value)
    return valid


def _reduce(
    loss: Tensor,
    counts: Tensor,
    reduction: str,
    denominator: Tensor | float | None = None,
    on_empty: str = "nan",
) -> Tensor:
    """`counts` is what the mean takes each of the losses for."""
    if reduction == "none":
        return loss
    if reduction == "sum":
        return loss.sum()
    if denominator is None:
        denominator = counts.sum()
    return loss.sum() * 0 if on_empty == "zero" and denominator == 0 else loss.sum() / denominator
