"""Losses that torch does not have, composed of those that it has: in any dtype, as accurate as torch's are."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, nll_loss


def softmax_focal_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    gamma: float = 2.0,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    nll = cross_entropy(input, target, ignore_index=ignore_index, reduction="none")
    loss = nll
    if weight is not None or label_smoothing != 0:
        loss = cross_entropy(input, target, weight, None, ignore_index, None, "none", label_smoothing)
    valid = target != ignore_index
    rest = (1 - torch.exp(-nll)).where(valid, 1)  # of ignored rows 0, where a power has no derivative
    loss = rest**gamma * loss
    if reduction == "none":
        return loss
    if reduction == "sum":
        return loss.sum()
    if reduction != "mean":
        raise ValueError(f"{reduction} is not a valid value for reduction")
    if weight is None:
        return loss.sum() / valid.sum()
    return loss.sum() / nll_loss(-torch.ones_like(input), target, weight, None, ignore_index, reduction="sum")


class SoftmaxFocalLoss(torch.nn.Module):
    weight: Tensor | None

    def __init__(self, weight: Tensor | None = None, **options: Any) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.options = options

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return softmax_focal_loss(input, target, self.weight, **self.options)
