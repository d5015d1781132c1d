"""Loss modules shaped like those of `torch.nn`. Those that torch has inherit from torch's, so that whoever asks for a
`torch.nn.CrossEntropyLoss` finds one."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import Unpack

from ce_ext import checks, functional, reductions, scripted
from ce_ext.binary_loss import binary_loss
from ce_ext.options import (
    AsymmetricLossOptions,
    BinaryLossOptions,
    NLLLossOptions,
    SigmoidFocalLossOptions,
    SoftmaxLossOptions,
)
from ce_ext.softmax_loss import softmax_loss


def _defaults(options: Any, function: Callable[..., Any]) -> dict[str, Any]:
    parameters = inspect.signature(function).parameters
    return {name: parameters[name].default for name in sorted(options.__optional_keys__)}


class _Loss(torch.nn.Module):
    """A function, with its arguments and options as attributes, which may be set at any time. Tensors among them are
    buffers, so that they move and are saved with the module."""

    _arguments: ClassVar[tuple[str, ...]]
    """What the function takes besides input, target and options."""
    _options: ClassVar[dict[str, Any]]
    """The options of the function, with their defaults."""

    reduction: str
    _chosen: tuple[str, ...] = ()
    """The options that are not what they are by default."""

    def _take_options(self, options: Any) -> None:
        """What is left to do for a constructor when that of torch is through."""
        checks.options(type(self), options, self._options)
        reductions.number_of(self.reduction)
        for name, default in self._options.items():
            if name in ("weight", "pos_weight", "sample_weight"):
                self.register_buffer(name, None)
            setattr(self, name, options.get(name, default))
        for name in ("ignore_index", "dim"):
            value = getattr(self, name, None)
            for number in value if isinstance(value, (tuple, list)) else () if value is None else (value,):
                checks.integer(name, number)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("alpha", "denominator"):  # torch has no buffers that may become numbers
            self.__dict__.pop(name, None)
            self._buffers.pop(name, None)
            if isinstance(value, Tensor):
                self.register_buffer(name, value)
        super().__setattr__(name, value)
        if name in self._options:
            others = tuple(other for other in self._chosen if other != name)
            is_default = not isinstance(value, Tensor) and value == self._options[name]
            self._chosen = others if is_default else (*others, name)

    def extra_repr(self) -> str:
        tensors = {*self._buffers, *self._parameters}
        shown = [name for name in (*self._arguments, *self._chosen) if name not in tensors]
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in shown)

    def _call(self, function: Callable[..., Any], input: Tensor, target: Tensor, options: Any) -> Any:
        given = {name: getattr(self, name) for name in (*self._arguments, *self._chosen)}
        if isinstance(options, dict):
            return function(input, target, **{**given, **options})
        return functional.call_with_options(function.__name__, (input, target), given, options)


class CrossEntropyLoss(_Loss, torch.nn.CrossEntropyLoss):
    """`ce_ext.functional.cross_entropy` as a module, as `torch.nn.CrossEntropyLoss`.

    Args and shapes are those of the function. Options may be given here, or with a call: ``loss(input, target,
    sample_weight=...)``. Here they become attributes, and tensors buffers.
    """

    _arguments = ("weight", "ignore_index", "reduction", "label_smoothing")
    _options = _defaults(SoftmaxLossOptions, softmax_loss)

    def __init__(
        self,
        weight: Tensor | None = None,
        size_average: None = None,
        ignore_index: int | Sequence[int] = -100,
        reduce: None = None,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
        **options: Unpack[SoftmaxLossOptions],
    ) -> None:
        checks.legacy(size_average, reduce)
        super().__init__(weight, None, ignore_index, None, reduction, label_smoothing)  # type: ignore[arg-type]
        self._take_options(options)

    def forward(self, input: Tensor, target: Tensor, **options: Unpack[SoftmaxLossOptions]) -> Any:
        return self._call(functional.cross_entropy, input, target, options)

    def __prepare_scriptable__(self) -> torch.nn.Module:
        return scripted.OfClasses(self)


class SoftmaxFocalLoss(_Loss):
    """`ce_ext.functional.softmax_focal_loss` as a module. Args, shapes and options are as in `CrossEntropyLoss`."""

    _arguments = ("weight", "gamma", "ignore_index", "reduction", "label_smoothing")
    _options = _defaults(SoftmaxLossOptions, softmax_loss)

    def __init__(
        self,
        weight: Tensor | None = None,
        gamma: float = 2.0,
        ignore_index: int | Sequence[int] = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
        **options: Unpack[SoftmaxLossOptions],
    ) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.gamma, self.ignore_index, self.reduction = gamma, ignore_index, reduction
        self.label_smoothing = label_smoothing
        self._take_options(options)

    def forward(self, input: Tensor, target: Tensor, **options: Unpack[SoftmaxLossOptions]) -> Any:
        return self._call(functional.softmax_focal_loss, input, target, options)

    def __prepare_scriptable__(self) -> torch.nn.Module:
        return scripted.OfClasses(self)


class NLLLoss(_Loss, torch.nn.NLLLoss):
    """`ce_ext.functional.nll_loss` as a module, as `torch.nn.NLLLoss`. Args, shapes and options are as in
    `CrossEntropyLoss`."""

    _arguments = ("weight", "ignore_index", "reduction")
    _options = _defaults(NLLLossOptions, softmax_loss)

    def __init__(
        self,
        weight: Tensor | None = None,
        size_average: None = None,
        ignore_index: int | Sequence[int] = -100,
        reduce: None = None,
        reduction: str = "mean",
        **options: Unpack[NLLLossOptions],
    ) -> None:
        checks.legacy(size_average, reduce)
        super().__init__(weight, None, ignore_index, None, reduction)  # type: ignore[arg-type]
        self._take_options(options)

    def forward(self, input: Tensor, target: Tensor, **options: Unpack[NLLLossOptions]) -> Tensor:
        return self._call(functional.nll_loss, input, target, options)

    def __prepare_scriptable__(self) -> torch.nn.Module:
        return scripted.OfClassIndices(self, input_is_log_prob=True)


class LogSoftmax(torch.nn.LogSoftmax):
    """`ce_ext.functional.log_softmax` along one dimension as a module, as `torch.nn.LogSoftmax`."""

    def __init__(self, dim: int | None = None) -> None:
        super().__init__(None if dim is None else checks.integer("dim", dim))

    def forward(self, input: Tensor) -> Tensor:
        return functional.log_softmax(input, self.dim, _stacklevel=6)  # past the two frames of a module's call

    def __prepare_scriptable__(self) -> torch.nn.Module:
        return scripted.OfLogSoftmax(self.dim)


class BCELoss(_Loss, torch.nn.BCELoss):
    """`ce_ext.functional.binary_cross_entropy` as a module, as `torch.nn.BCELoss`.

    Args and shapes are those of the function. Options may be given here, or with a call: ``loss(input, target,
    denominator=...)``. Here they become attributes, and tensors buffers.
    """

    _arguments = ("weight", "reduction")
    _options = _defaults(BinaryLossOptions, binary_loss)

    def __init__(
        self,
        weight: Tensor | None = None,
        size_average: None = None,
        reduce: None = None,
        reduction: str = "mean",
        **options: Unpack[BinaryLossOptions],
    ) -> None:
        checks.legacy(size_average, reduce)
        super().__init__(weight, None, None, reduction)
        self._take_options(options)

    def forward(self, input: Tensor, target: Tensor, **options: Unpack[BinaryLossOptions]) -> Tensor:
        return self._call(functional.binary_cross_entropy, input, target, options)

    def __prepare_scriptable__(self) -> torch.nn.Module:
        return scripted.OfElements(self, input_is_probability=True)


class BCEWithLogitsLoss(_Loss, torch.nn.BCEWithLogitsLoss):
    """`ce_ext.functional.binary_cross_entropy_with_logits` as a module, as `torch.nn.BCEWithLogitsLoss`. Args, shapes
    and options are as in `BCELoss`."""

    _arguments = ("weight", "reduction", "pos_weight")
    _options = _defaults(BinaryLossOptions, binary_loss)

    def __init__(
        self,
        weight: Tensor | None = None,
        size_average: None = None,
        reduce: None = None,
        reduction: str = "mean",
        pos_weight: Tensor | None = None,
        **options: Unpack[BinaryLossOptions],
    ) -> None:
        checks.legacy(size_average, reduce)
        super().__init__(weight, None, None, reduction, pos_weight)
        self._take_options(options)

    def forward(self, input: Tensor, target: Tensor, **options: Unpack[BinaryLossOptions]) -> Tensor:
        return self._call(functional.binary_cross_entropy_with_logits, input, target, options)

    def __prepare_scriptable__(self) -> torch.nn.Module:
        return scripted.OfElements(self)


class SigmoidFocalLoss(_Loss):
    """`ce_ext.functional.sigmoid_focal_loss` as a module. Args, shapes and options are as in `BCELoss`."""

    _arguments = ("alpha", "gamma", "reduction")
    _options = _defaults(SigmoidFocalLossOptions, binary_loss)

    def __init__(
        self,
        alpha: Tensor | float = 0.25,
        gamma: float = 2.0,
        reduction: str = "none",
        **options: Unpack[SigmoidFocalLossOptions],
    ) -> None:
        super().__init__()
        self.alpha, self.gamma, self.reduction = alpha, gamma, reduction
        self._take_options(options)

    def forward(self, input: Tensor, target: Tensor, **options: Unpack[SigmoidFocalLossOptions]) -> Tensor:
        return self._call(functional.sigmoid_focal_loss, input, target, options)

    def __prepare_scriptable__(self) -> torch.nn.Module:
        return scripted.OfElements(self, target_may_be_class=True)


class AsymmetricLoss(_Loss):
    """`ce_ext.functional.asymmetric_loss` as a module. Args, shapes and options are as in `BCELoss`."""

    _arguments = ("gamma_neg", "gamma_pos", "margin", "reduction")
    _options = _defaults(AsymmetricLossOptions, binary_loss)

    def __init__(
        self,
        gamma_neg: float = 4.0,
        gamma_pos: float = 1.0,
        margin: float = 0.05,
        reduction: str = "mean",
        **options: Unpack[AsymmetricLossOptions],
    ) -> None:
        super().__init__()
        self.gamma_neg, self.gamma_pos, self.margin, self.reduction = gamma_neg, gamma_pos, margin, reduction
        self._take_options(options)

    def forward(self, input: Tensor, target: Tensor, **options: Unpack[AsymmetricLossOptions]) -> Tensor:
        return self._call(functional.asymmetric_loss, input, target, options)

    def __prepare_scriptable__(self) -> torch.nn.Module:
        return scripted.OfElements(self, target_may_be_class=True, gamma=self.gamma_pos)
