"""The autograd Functions of log-softmax: the values, and their gradient, which is differentiable again.

Each has a sibling that knows forward mode too, for calls within a forward-mode level only: torch.compile breaks the
graph at a Function with a `jvp`.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._functorch import eager_transforms
from torch.autograd import forward_ad

from ce_ext import derivatives
from ce_ext.autograd import _apply, _batch_first

# Looking an overload up costs more than calling it.
_forward = torch.ops.ce_ext.log_softmax_forward.default
_backward = torch.ops.ce_ext.log_softmax_backward.default


def log_softmax(input: Tensor, dim: int, dtype: torch.dtype | None) -> Tensor:
    """The op `log_softmax_forward` with its derivatives; `dim` counts from the front."""
    if _is_forward_mode():
        if _drops_tangents():
            return input.log_softmax(dim, dtype=dtype)
        return _apply(LogSoftmaxWithJvp, True, input, dim, dtype)
    return _apply(LogSoftmax, input.requires_grad, input, dim, dtype)


def log_softmax_backward(grad_output: Tensor, output: Tensor, dim: int, input_dtype: torch.dtype) -> Tensor:
    """The op `log_softmax_backward` with its derivatives, differentiable in grad_output and output."""
    if _is_forward_mode():
        if _drops_tangents():
            return derivatives.log_softmax_backward(grad_output, output, dim).to(input_dtype)
        return _apply(LogSoftmaxBackwardWithJvp, True, grad_output, output, dim, input_dtype)
    return _apply(LogSoftmaxBackward, True, grad_output, output, dim, input_dtype)


def _is_forward_mode() -> bool:
    return forward_ad._current_level >= 0


def _drops_tangents() -> bool:
    """Whether torch takes tangents for zero that a `jvp` gives, which it does in two cases.

    Within another forward-mode transform (pytorch/pytorch#197867), and in a graph (pytorch/pytorch#192985).
    """
    return eager_transforms.JVP_NESTING > 1 or torch.compiler.is_compiling()


class LogSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(input: Tensor, dim: int, dtype: torch.dtype | None) -> Tensor:
        return _forward(input, dim, dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        input, ctx.dim, _ = inputs
        ctx.input_dtype = input.dtype
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        (output,) = ctx.saved_tensors
        return log_softmax_backward(grad_output, output, ctx.dim, ctx.input_dtype), None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], input: Tensor, dim: int, dtype: Any) -> tuple[Tensor, int]:
        return _map(lambda x, dim: log_softmax(x, dim, dtype), dim, info, in_dims, input)


class LogSoftmaxWithJvp(LogSoftmax):
    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        LogSoftmax.setup_context(ctx, inputs, output)
        ctx.save_for_forward(output)

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: None) -> Tensor:
        (output,) = ctx.saved_tensors
        return derivatives.log_softmax_jvp(tangent, output, ctx.dim)


class LogSoftmaxBackward(torch.autograd.Function):
    @staticmethod
    def forward(grad_output: Tensor, output: Tensor, dim: int, input_dtype: torch.dtype) -> Tensor:
        return _backward(grad_output, output, dim, input_dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        *tensors, ctx.dim, ctx.input_dtype = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, grad_grad_input: Tensor) -> tuple[Tensor | None, ...]:
        grad_output, output = ctx.saved_tensors
        grads = derivatives.log_softmax_double_backward(grad_grad_input, grad_output, output, ctx.dim)
        return *grads, None, None

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], grad_output: Tensor, output: Tensor, dim: int, input_dtype: Any
    ) -> tuple[Tensor, int]:
        call = lambda g, y, dim: log_softmax_backward(g, y, dim, input_dtype)  # noqa: E731
        return _map(call, dim, info, in_dims, grad_output, output)


class LogSoftmaxBackwardWithJvp(LogSoftmaxBackward):
    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        LogSoftmaxBackward.setup_context(ctx, inputs, output)
        ctx.save_for_forward(*inputs[:2])

    @staticmethod
    def jvp(ctx: Any, grad_tangent: Tensor, output_tangent: Tensor, *_: None) -> Tensor:
        grad_output, output = ctx.saved_tensors
        tangent = derivatives.log_softmax_backward_jvp(grad_tangent, output_tangent, grad_output, output, ctx.dim)
        return tangent.to(ctx.input_dtype)


def _map(
    call: Callable[..., Tensor], dim: int, info: Any, in_dims: tuple[int | None, ...], *tensors: Tensor
) -> tuple[Tensor, int]:
    """call(*tensors, dim) for every sample of a batch: the batch is one more dimension of rows."""
    tensors = tuple(_batch_first(info, in_dims[: len(tensors)], *tensors))
    if tensors[0].dim() == 1:  # a sample is a single class, and has no dimension for it
        return call(*(tensor.unsqueeze(1) for tensor in tensors), 1).squeeze(1), 0
    return call(*tensors, dim + 1), 0
