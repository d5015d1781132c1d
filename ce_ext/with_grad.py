"""Losses whose gradient is computed in the forward pass, for one backward pass in eager mode."""

import math

import torch
from torch import Tensor
from torch.autograd import forward_ad

from ce_ext import _C, distributed
from ce_ext.options import CrossEntropyOptions
from ce_ext.reductions import MEAN

_C.register_ready_gradient("ce_ext::cross_entropy_with_grad", gradient="ce_ext::scale_gradient")
_loss_with_grad = _C.quick_call("ce_ext::cross_entropy_with_grad")


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    sample_weight: Tensor | None,
    options: CrossEntropyOptions,
    inplace: bool,
    loss_scale: float | None,
    divisor: Tensor | float | None,
) -> tuple[Tensor, ...]:
    """The loss, divided, and what is reported of its rows. The gradient is in the memory of the input if `inplace`."""
    is_mean = options.reduction == MEAN or divisor is not None
    if is_mean and input.dtype == torch.float16 and loss_scale is None:
        raise ValueError(
            "grad_in_forward would round the gradient of a float16 mean before any loss scaling reaches it: "
            "give loss_scale, the upstream gradient to expect, which is None"
        )
    if loss_scale is not None and (loss_scale == 0 or not abs(loss_scale) < math.inf):  # which may be a symbol
        raise ValueError(f"loss_scale must be finite and not 0, but got {loss_scale!r}")
    tensors = (input, target, weight, sample_weight)
    if not (input.requires_grad and torch.is_grad_enabled()) or _is_transformed() or distributed.is_dtensor(input):
        loss, _, _, *reports = torch.ops.ce_ext.cross_entropy_forward(*tensors, *options)
        return loss if divisor is None else loss / divisor, *reports
    if inplace and (input if input._base is None else input._base).is_leaf:
        raise RuntimeError("inplace: input is, or is a view of, a leaf that requires grad, whose values would be lost")
    if isinstance(divisor, Tensor) and divisor.is_cpu and not divisor.requires_grad:
        divisor = float(divisor)
    # Detached, the input shares its memory and its version counter.
    grad_input = input.detach() if inplace else torch.empty_like(input)
    scale = 1.0 if loss_scale is None else loss_scale
    number = 1.0 if divisor is None or isinstance(divisor, Tensor) else divisor
    settings = (*options.of_backward(), options.report, scale, number)
    if options.report:
        loss, *reports = torch.ops.ce_ext.cross_entropy_with_grad(grad_input, *tensors, *settings)
    else:
        loss, reports = _loss_with_grad(grad_input, *tensors, settings), []
    return loss / divisor if isinstance(divisor, Tensor) else loss, *reports


def _is_transformed() -> bool:
    return (
        torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0
    )
