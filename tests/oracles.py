"""The losses as formulas in float64, independent of ce_ext and of torch's own losses.

They keep their relative accuracy where the prediction is confident, which log_softmax does not: the target's logit is
compared with the log-sum-exp of the *other* classes.
"""

import torch
from torch import Tensor


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    x = input.double() if input.dim() == 1 else input.double().movedim(1, -1)
    classes = x.shape[-1]
    y = target.long().reshape(x.shape[:-1])
    w = x.new_ones(classes) if weight is None else weight.double()
    valid = y != ignore_index
    y = y.where(valid, 0).unsqueeze(-1)
    is_target = torch.arange(classes, device=x.device) == y

    x_target = x.gather(-1, y)
    others = x.masked_fill(is_target, -torch.inf).logsumexp(-1, keepdim=True)
    nll = torch.nn.functional.softplus(others - x_target, threshold=1000)
    weight_target = w[y]
    loss = (1 - label_smoothing) * weight_target * nll
    if label_smoothing > 0:  # lse - x_j = nll + (x_y - x_j)
        spread = (w * (nll + x_target - x)).sum(-1, keepdim=True)
        loss = loss + label_smoothing / classes * spread
    loss = loss.where(valid.unsqueeze(-1), 0).squeeze(-1)
    if reduction == "none":
        return loss
    if reduction == "sum":
        return loss.sum()
    return loss.sum() / weight_target.squeeze(-1).where(valid, 0).sum()


def log_softmax(input: Tensor, dim: int) -> Tensor:
    """Relative to the largest logit, whose own e^0 = 1 the others are added to by log1p."""
    x = input.double()
    largest = x.argmax(dim, keepdim=True)
    shifted = x - x.gather(dim, largest)
    others = shifted.exp().scatter(dim, largest, 0.0).sum(dim, keepdim=True)
    return shifted - others.log1p()
