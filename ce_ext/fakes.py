"""Shapes, dtypes and strides of every op, for tensors without data: torch.compile, torch.export, FakeTensorMode."""

from typing import Any

import torch
from torch import Tensor

from ce_ext.options import BinaryCrossEntropyOptions, CrossEntropyOptions, SoftCrossEntropyOptions
from ce_ext.reductions import MEAN, NONE
from ce_ext.shapes import opmath_dtype, row_shape

# Numbers of a row: csrc/losses has their names.
_SAVED, _SAVED_SOFT, _REPORTED = 3, 4, 3


def _check_devices(**tensors: Tensor | None) -> None:
    """Of tensors of which some have data: one without is enough to end up here."""
    (first, device), *others = ((name, tensor.device) for name, tensor in tensors.items() if tensor is not None)
    for name, other in others:
        if other != device:
            raise RuntimeError(
                f"{first} and {name} must be on the same device, but got {first} on {device} and {name} on {other}"
            )


@torch.library.register_fake("ce_ext::cross_entropy_forward")
def _cross_entropy_forward(
    input: Tensor, target: Tensor, weight: Tensor | None, sample_weight: Tensor | None, *arguments: Any
) -> tuple[Tensor | None, ...]:
    options = CrossEntropyOptions(*arguments)
    saved = 0 if options.input_is_log_prob else _SAVED
    return _loss_forward(options, saved, input, target=target, weight=weight, sample_weight=sample_weight)


@torch.library.register_fake("ce_ext::soft_cross_entropy_forward")
def _(
    input: Tensor, target: Tensor, weight: Tensor | None, sample_weight: Tensor | None, *arguments: Any
) -> tuple[Tensor | None, ...]:
    options = SoftCrossEntropyOptions(*arguments)
    return _loss_forward(options, _SAVED_SOFT, input, target=target, weight=weight, sample_weight=sample_weight)


def _loss_forward(
    options: CrossEntropyOptions | SoftCrossEntropyOptions, saved: int, input: Tensor, **others: Tensor | None
) -> tuple[Tensor | None, ...]:
    _check_devices(input=input, **others)
    opmath = opmath_dtype(input)
    rows = row_shape(input, options.batch_dims)
    batch = input.shape[: options.batch_dims]
    return (
        input.new_empty(rows if options.reduction == NONE else batch, dtype=options.out_dtype),
        input.new_empty((*rows, saved), dtype=opmath) if options.keep_stats and saved > 0 else None,
        input.new_empty(batch, dtype=opmath) if options.reduction == MEAN else None,
        input.new_empty((*rows, _REPORTED), dtype=opmath) if options.report else None,
        input.new_empty(rows, dtype=torch.int64) if options.report else None,
    )


@torch.library.register_fake("ce_ext::cross_entropy_backward")
def _(
    grad_output: Tensor, input: Tensor, target: Tensor, weight: Tensor | None, sample_weight: Tensor | None, *_: object
) -> Tensor:
    _check_devices(input=input, grad_output=grad_output, target=target, weight=weight, sample_weight=sample_weight)
    return torch.empty_like(input)


@torch.library.register_fake("ce_ext::soft_cross_entropy_backward")
def _(
    grad_output: Tensor,
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    sample_weight: Tensor | None,
    stats: Tensor,
    denominator: Tensor | None,
    *arguments: Any,
) -> tuple[Tensor | None, Tensor | None]:
    _check_devices(input=input, grad_output=grad_output, target=target, weight=weight, sample_weight=sample_weight)
    options = SoftCrossEntropyOptions(*arguments)
    return (
        torch.empty_like(input) if options.needs_input else None,
        torch.empty_like(target) if options.needs_target else None,
    )


@torch.library.register_fake("ce_ext::scale_gradient")
def _(grad_input: Tensor, grad_output: Tensor, *_: Any) -> None:
    _check_devices(grad_input=grad_input, grad_output=grad_output)


@torch.library.register_fake("ce_ext::cross_entropy_with_grad")
def _(grad_input: Tensor, input: Tensor, *arguments: Any) -> tuple[Tensor | None, ...]:
    *shared, with_report, _, _ = arguments
    loss, _, _, report, argmax = _cross_entropy_forward(input, *shared, False, with_report)
    return loss, report, argmax


@torch.library.register_fake("ce_ext::binary_cross_entropy_forward")
def _(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    pos_weight: Tensor | None,
    class_alpha: Tensor | None,
    *arguments: Any,
) -> tuple[Tensor, Tensor | None]:
    _check_devices(input=input, target=target, weight=weight, pos_weight=pos_weight, alpha=class_alpha)
    options = BinaryCrossEntropyOptions(*arguments)
    batch = input.shape[: options.batch_dims]
    if options.reduction == NONE:
        loss = torch.empty_like(input, dtype=options.out_dtype)
    else:
        loss = input.new_empty(batch, dtype=options.out_dtype)
    return loss, input.new_empty(batch, dtype=opmath_dtype(input)) if options.reduction == MEAN else None


@torch.library.register_fake("ce_ext::binary_cross_entropy_backward")
def _(
    grad_output: Tensor,
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    pos_weight: Tensor | None,
    class_alpha: Tensor | None,
    denominator: Tensor | None,
    *arguments: Any,
) -> tuple[Tensor | None, ...]:
    tensors = {"target": target, "weight": weight, "pos_weight": pos_weight}
    _check_devices(input=input, grad_output=grad_output, **tensors, alpha=class_alpha)
    options = BinaryCrossEntropyOptions(*arguments)
    return (
        torch.empty_like(input) if options.needs_input else None,
        torch.empty_like(target) if options.needs_target else None,
        weight.new_empty(weight.shape) if options.needs_weight and weight is not None else None,
        pos_weight.new_empty(pos_weight.shape) if options.needs_pos_weight and pos_weight is not None else None,
    )


@torch.library.register_fake("ce_ext::log_softmax_forward")
def _(input: Tensor, dim: int, dtype: torch.dtype | None) -> Tensor:
    return torch.empty_like(input, dtype=dtype)


@torch.library.register_fake("ce_ext::log_softmax_backward")
def _(grad_output: Tensor, output: Tensor, dim: int, input_dtype: torch.dtype) -> Tensor:
    _check_devices(output=output, grad_output=grad_output)
    return torch.empty_like(output, dtype=input_dtype)
