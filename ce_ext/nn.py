"""Loss modules shaped like those of `torch.nn`."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from typing_extensions import Unpack

from ce_ext import functional
from ce_ext.options import SoftmaxLossOptions


class _SoftmaxLoss(torch.nn.Module):
    """A loss of rows of classes; `weight` is a buffer, so that it moves and is saved with the module."""

    weight: Tensor | None

    def __init__(self, weight: Tensor | None, ignore_index: int, reduction: str, **options: Any) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.ignore_index = ignore_index
        self.reduction = reduction
        self.options = options

    def extra_repr(self) -> str:
        shown = {"ignore_index": self.ignore_index, "reduction": self.reduction, **self._arguments(), **self.options}
        return ", ".join(f"{name}={value!r}" for name, value in shown.items())

    def _arguments(self) -> dict[str, Any]:
        """What the function takes besides weight, ignore_index, reduction and options."""
        return {}

    def _call(self, function: Callable[..., Any], input: Tensor, target: Tensor, options: Any) -> Any:
        arguments = {"ignore_index": self.ignore_index, "reduction": self.reduction, **self._arguments()}
        return function(input, target, self.weight, **arguments, **{**self.options, **options})


class CrossEntropyLoss(_SoftmaxLoss):
    """`ce_ext.functional.cross_entropy` as a module, as `torch.nn.CrossEntropyLoss`.

    Args and shapes are those of the function. Options may be given here, or with a call: ``loss(input, target,
    sample_weight=...)``.
    """

    def __init__(
        self,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
        **options: Unpack[SoftmaxLossOptions],
    ) -> None:
        super().__init__(weight, ignore_index, reduction, **options)
        self.label_smoothing = label_smoothing

    def forward(self, input: Tensor, target: Tensor, **options: Unpack[SoftmaxLossOptions]) -> Any:
        return self._call(functional.cross_entropy, input, target, options)

    def _arguments(self) -> dict[str, Any]:
        return {"label_smoothing": self.label_smoothing}


class SoftmaxFocalLoss(CrossEntropyLoss):
    """`ce_ext.functional.softmax_focal_loss` as a module. Args and shapes are those of the function."""

    def __init__(
        self,
        weight: Tensor | None = None,
        gamma: float = 2.0,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
        **options: Unpack[SoftmaxLossOptions],
    ) -> None:
        super().__init__(weight, ignore_index, reduction, label_smoothing, **options)
        self.gamma = gamma

    def forward(self, input: Tensor, target: Tensor, **options: Unpack[SoftmaxLossOptions]) -> Any:
        return self._call(functional.softmax_focal_loss, input, target, options)

    def _arguments(self) -> dict[str, Any]:
        return {"gamma": self.gamma, **super()._arguments()}


class NLLLoss(_SoftmaxLoss):
    """`ce_ext.functional.nll_loss` as a module, as `torch.nn.NLLLoss`. Args and shapes are those of the function."""

    def __init__(self, weight: Tensor | None = None, ignore_index: int = -100, reduction: str = "mean") -> None:
        super().__init__(weight, ignore_index, reduction)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return self._call(functional.nll_loss, input, target, {})


class LogSoftmax(torch.nn.Module):
    """`ce_ext.functional.log_softmax` along one dimension as a module, as `torch.nn.LogSoftmax`."""

    def __init__(self, dim: int | None = None) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, input: Tensor) -> Tensor:
        return functional.log_softmax(input, self.dim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"
