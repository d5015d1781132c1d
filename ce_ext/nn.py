"""Loss modules shaped like those of `torch.nn`."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from typing_extensions import Unpack

from ce_ext import functional
from ce_ext.options import BinaryLossOptions, SigmoidFocalLossOptions, SoftmaxLossOptions


class _Loss(torch.nn.Module):
    """A function and its arguments: tensors are buffers, so that they move and are saved with the module."""

    def __init__(self, reduction: str, **options: Any) -> None:
        super().__init__()
        self.reduction = reduction
        self.options = options

    def extra_repr(self) -> str:
        shown = {name: value for name, value in self._arguments().items() if name not in self._buffers}
        return ", ".join(f"{name}={value!r}" for name, value in (shown | self.options).items())

    def _arguments(self) -> dict[str, Any]:
        """What the function takes besides input, target and options."""
        return {"reduction": self.reduction}

    def _call(self, function: Callable[..., Any], input: Tensor, target: Tensor, options: Any) -> Any:
        return function(input, target, **{**self._arguments(), **self.options, **options})


class _SoftmaxLoss(_Loss):
    weight: Tensor | None

    def __init__(self, weight: Tensor | None, ignore_index: int, reduction: str, **options: Any) -> None:
        super().__init__(reduction, **options)
        self.register_buffer("weight", weight)
        self.ignore_index = ignore_index

    def _arguments(self) -> dict[str, Any]:
        return {"weight": self.weight, "ignore_index": self.ignore_index, **super()._arguments()}


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
        return {"label_smoothing": self.label_smoothing, **super()._arguments()}


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


class _BinaryLoss(_Loss):
    weight: Tensor | None

    def __init__(self, weight: Tensor | None, reduction: str, **options: Any) -> None:
        super().__init__(reduction, **options)
        self.register_buffer("weight", weight)

    def _arguments(self) -> dict[str, Any]:
        return {"weight": self.weight, **super()._arguments()}


class BCELoss(_BinaryLoss):
    """`ce_ext.functional.binary_cross_entropy` as a module, as `torch.nn.BCELoss`.

    Args and shapes are those of the function. Options may be given here, or with a call: ``loss(input, target,
    denominator=...)``.
    """

    def __init__(
        self, weight: Tensor | None = None, reduction: str = "mean", **options: Unpack[BinaryLossOptions]
    ) -> None:
        super().__init__(weight, reduction, **options)

    def forward(self, input: Tensor, target: Tensor, **options: Unpack[BinaryLossOptions]) -> Tensor:
        return self._call(functional.binary_cross_entropy, input, target, options)


class BCEWithLogitsLoss(_BinaryLoss):
    """`ce_ext.functional.binary_cross_entropy_with_logits` as a module, as `torch.nn.BCEWithLogitsLoss`.

    Args and shapes are those of the function. Options may be given here, or with a call.
    """

    pos_weight: Tensor | None

    def __init__(
        self,
        weight: Tensor | None = None,
        reduction: str = "mean",
        pos_weight: Tensor | None = None,
        **options: Unpack[BinaryLossOptions],
    ) -> None:
        super().__init__(weight, reduction, **options)
        self.register_buffer("pos_weight", pos_weight)

    def forward(self, input: Tensor, target: Tensor, **options: Unpack[BinaryLossOptions]) -> Tensor:
        return self._call(functional.binary_cross_entropy_with_logits, input, target, options)

    def _arguments(self) -> dict[str, Any]:
        return {**super()._arguments(), "pos_weight": self.pos_weight}


class SigmoidFocalLoss(_BinaryLoss):
    """`ce_ext.functional.sigmoid_focal_loss` as a module. Args and shapes are those of the function."""

    alpha: Tensor | float
    pos_weight: Tensor | None

    def __init__(
        self,
        alpha: Tensor | float = 0.25,
        gamma: float = 2.0,
        reduction: str = "none",
        *,
        weight: Tensor | None = None,
        pos_weight: Tensor | None = None,
        **options: Unpack[BinaryLossOptions],
    ) -> None:
        super().__init__(weight, reduction, **options)
        self.register_buffer("pos_weight", pos_weight)
        if isinstance(alpha, Tensor):
            self.register_buffer("alpha", alpha)
        else:
            self.alpha = alpha
        self.gamma = gamma

    def forward(self, input: Tensor, target: Tensor, **options: Unpack[SigmoidFocalLossOptions]) -> Tensor:
        return self._call(functional.sigmoid_focal_loss, input, target, options)

    def _arguments(self) -> dict[str, Any]:
        return {"alpha": self.alpha, "gamma": self.gamma, **super()._arguments(), "pos_weight": self.pos_weight}
