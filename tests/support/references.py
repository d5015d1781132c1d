"""What torch does not have, composed of what it has: in any dtype, as accurate as torch is."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
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


def soft_focal_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    gamma: float = 2.0,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """That of class probabilities."""
    dim = min(input.dim(), 2) - 1
    log_p = F.log_softmax(input, dim)
    mass = _smooth(target, label_smoothing, input.shape[dim])
    if weight is not None:
        mass = mass * weight.reshape(-1, *(1,) * (input.dim() - 1 - dim))
    loss = -(mass * (1 - log_p.exp()) ** gamma * log_p).sum(dim)
    return loss if reduction == "none" else getattr(loss, reduction)()


def binary_cross_entropy(
    input: Tensor, target: Tensor, weight: Tensor | None = None, reduction: str = "mean", label_smoothing: float = 0.0
) -> Tensor:
    return F.binary_cross_entropy(input, _smooth(target, label_smoothing), weight, reduction=reduction)


def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    target = _smooth(target, label_smoothing)
    return F.binary_cross_entropy_with_logits(input, target, weight, reduction=reduction, pos_weight=pos_weight)


def sigmoid_focal_loss(
    input: Tensor,
    target: Tensor,
    alpha: float = 0.25,
    gamma: float = 2.0,
    reduction: str = "mean",
    weight: Tensor | None = None,
    pos_weight: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """As torchvision and fvcore define it."""
    target = _smooth(target, label_smoothing)
    p = torch.sigmoid(input)
    loss = F.binary_cross_entropy_with_logits(input, target, weight, reduction="none", pos_weight=pos_weight)
    p_t = p * target + (1 - p) * (1 - target)
    loss = loss * (1 - p_t) ** gamma
    if alpha >= 0:
        loss = (alpha * target + (1 - alpha) * (1 - target)) * loss
    return _reduce(loss, reduction)


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
) -> Tensor:
    """As its authors compute it, but for targets that are neither 0 nor 1."""
    F.binary_cross_entropy_with_logits(input, target, weight, pos_weight=pos_weight)  # refuses what torch does
    target = _smooth(target, label_smoothing)
    p = torch.sigmoid(input)
    rest = (1 - p + margin).clamp(max=1)
    pos = -target * (1 - p) ** gamma_pos * torch.log(p.clamp(min=1e-8))
    neg = -(1 - target) * (1 - rest) ** gamma_neg * torch.log(rest.clamp(min=1e-8))
    loss = pos + neg if pos_weight is None else pos_weight * pos + neg
    return _reduce(loss if weight is None else weight * loss, reduction)


def _reduce(loss: Tensor, reduction: str) -> Tensor:
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"{reduction} is not a valid value for reduction")
    return loss if reduction == "none" else getattr(loss, reduction)()


def _smooth(target: Tensor, label_smoothing: float, classes: int = 2) -> Tensor:
    return (1 - label_smoothing) * target + label_smoothing / classes if label_smoothing else target


class _Module(torch.nn.Module):
    """A function with its arguments, the weight of which is a buffer."""

    weight: Tensor | None
    function: Any

    def __init__(self, weight: Tensor | None = None, **options: Any) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.options = options

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return type(self).function(input, target, weight=self.weight, **self.options)


class SoftmaxFocalLoss(_Module):
    function = softmax_focal_loss


class BCELoss(_Module):
    function = binary_cross_entropy


class BCEWithLogitsLoss(_Module):
    function = binary_cross_entropy_with_logits


class SigmoidFocalLoss(_Module):
    function = sigmoid_focal_loss


class AsymmetricLoss(_Module):
    function = asymmetric_loss
