"""Losses whose gradient is computed in the forward pass, for one backward pass in eager mode."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from ce_ext import shapes
from ce_ext.options import CrossEntropyOptions
from ce_ext.reductions import MEAN

_with_grad = torch.ops.ce_ext.cross_entropy_with_grad.default
_scale_gradient = torch.ops.ce_ext.scale_gradient.default


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
    arguments = (input, target, weight, sample_weight)
    if not (input.requires_grad and torch.is_grad_enabled()) or _is_transformed():
        loss, _, _, *reports = torch.ops.ce_ext.cross_entropy_forward(*arguments, *options)
        return loss if divisor is None else loss / divisor, *reports
    if inplace and (input if input._base is None else input._base).is_leaf:
        raise RuntimeError("inplace: input is, or is a view of, a leaf that requires grad, whose values would be lost")
    if isinstance(divisor, Tensor) and divisor.is_cpu and not divisor.requires_grad:
        divisor = float(divisor)
    scale = 1.0 if loss_scale is None else loss_scale
    if isinstance(divisor, Tensor) or divisor == 0:  # not to be known without waiting for it, or not to be divided by
        loss, *reports = CrossEntropyWithGrad.apply(*arguments, options, inplace, scale, 1.0)
        return loss / divisor, *reports
    return CrossEntropyWithGrad.apply(*arguments, options, inplace, scale, 1.0 if divisor is None else divisor)


def _is_transformed() -> bool:
    return (
        torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0
    )


class CrossEntropyWithGrad(torch.autograd.Function):
    """The op `cross_entropy_with_grad`: the loss, which is differentiable once, and the reports."""

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        target: Tensor,
        weight: Tensor | None,
        sample_weight: Tensor | None,
        options: CrossEntropyOptions,
        inplace: bool,
        loss_scale: float,
        divisor: float,
    ) -> tuple[Tensor, ...]:
        # Detached, the input shares its memory and its version counter.
        ctx.grad_input = input.detach() if inplace else torch.empty_like(input)
        ctx.loss_scale = loss_scale
        arguments = (ctx.grad_input, input, target, weight, sample_weight, *options.of_backward(), options.report)
        loss, *reports = _with_grad(*arguments, loss_scale / divisor)
        ctx.mark_non_differentiable(*reports)
        ctx.set_materialize_grads(False)
        return loss if divisor == 1 else loss / divisor, *reports

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
        others = (None,) * 7
        if grad_output is None:
            return None, *others
        if torch.is_grad_enabled():
            raise RuntimeError(
                "a gradient of the forward pass has no derivative: create_graph needs grad_in_forward=False"
            )
        if ctx.grad_input is None:
            raise RuntimeError(
                "a gradient of the forward pass serves one backward pass, and this is the second: "
                "retain_graph needs grad_in_forward=False"
            )
        grad_input, ctx.grad_input = ctx.grad_input, None
        _scale_gradient(grad_input, grad_output, ctx.loss_scale, shapes.class_dim(grad_input, batch_dims=0))
        return grad_input, *others
