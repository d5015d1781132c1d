"""Loss modules shaped like those of `torch.nn`."""

import torch
from torch import Tensor

from ce_ext import functional


class CrossEntropyLoss(torch.nn.Module):
    """`ce_ext.functional.cross_entropy` as a module, as `torch.nn.CrossEntropyLoss`.

    Args and shapes are those of the function. ``weight`` is a buffer, so that it moves and is saved with the module.
    """

    weight: Tensor | None

    def __init__(
        self,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.ignore_index = ignore_index
        self.reduction = reduction
        self.label_smoothing = label_smoothing

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return functional.cross_entropy(
            input, target, self.weight, self.ignore_index, self.reduction, self.label_smoothing
        )

    def extra_repr(self) -> str:
        return f"ignore_index={self.ignore_index}, reduction={self.reduction!r}, label_smoothing={self.label_smoothing}"


class LogSoftmax(torch.nn.Module):
    """`ce_ext.functional.log_softmax` along one dimension as a module, as `torch.nn.LogSoftmax`."""

    def __init__(self, dim: int | None = None) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, input: Tensor) -> Tensor:
        return functional.log_softmax(input, self.dim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"
