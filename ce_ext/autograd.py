"""The autograd Functions, a pair for each loss: the loss, and its gradient, which is differentiable again.

They live in Python because only `torch.autograd.Function` with a separate `setup_context` and a `vmap` works in all of
eager mode, torch.func, torch.compile and torch.export. First derivatives are kernels; second ones are formulas in torch
ops, in `derivatives.py`.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from ce_ext import derivatives
from ce_ext.reductions import MEAN

# Looking an overload up costs more than calling it.
_forward = torch.ops.ce_ext.cross_entropy_forward.default
_backward = torch.ops.ce_ext.cross_entropy_backward.default

_BATCH_DIMS = 0  # of a call that no vmap has been through


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    reduction: int,
    ignore_index: int,
    label_smoothing: float,
) -> Tensor:
    """The loss with its derivatives. The arguments are those of `ce_ext.functional.cross_entropy`, checked."""
    options = (reduction, ignore_index, label_smoothing, _BATCH_DIMS)
    return _apply(CrossEntropy, input.requires_grad, input, target, weight, *options)[0]


class CrossEntropy(torch.autograd.Function):
    """The op `cross_entropy_forward`: (loss, stats, denominator), of which the loss is differentiable."""

    @staticmethod
    def forward(
        input: Tensor,
        target: Tensor,
        weight: Tensor | None,
        reduction: int,
        ignore_index: int,
        label_smoothing: float,
        batch_dims: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        return _forward(input, target, weight, reduction, ignore_index, label_smoothing, batch_dims)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        input, target, weight, *ctx.options = inputs
        _, stats, denominator = output
        ctx.save_for_backward(input, target, weight, stats, denominator)
        ctx.mark_non_differentiable(stats, denominator)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
        if grad_output is None:
            return None, None, None, None, None, None, None
        grad_input = _apply(CrossEntropyBackward, True, grad_output, *ctx.saved_tensors, *ctx.options)
        return grad_input, None, None, None, None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *arguments: Any) -> tuple[Any, Any]:
        input, target, weight, *options, batch_dims = arguments
        if in_dims[2] is not None:  # the op takes one weight for all
            return _map_slices(CrossEntropy, info, in_dims, arguments)
        input, target = _batch_first(info, in_dims[:2], input, target)
        output = CrossEntropy.apply(input, target, weight, *options, batch_dims + 1)
        return output, (0, 0, 0 if output[2].dim() > batch_dims else None)


class CrossEntropyBackward(torch.autograd.Function):
    """The op `cross_entropy_backward`: grad_input, differentiable in grad_output and input."""

    @staticmethod
    def forward(
        grad_output: Tensor,
        input: Tensor,
        target: Tensor,
        weight: Tensor | None,
        stats: Tensor,
        denominator: Tensor,
        reduction: int,
        ignore_index: int,
        label_smoothing: float,
        batch_dims: int,
    ) -> Tensor:
        options = (reduction, ignore_index, label_smoothing, batch_dims)
        return _backward(grad_output, input, target, weight, stats, denominator, *options)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        grad_output, input, target, weight, _, denominator, *ctx.options = inputs
        ctx.save_for_backward(grad_output, input, target, weight, denominator)

    @staticmethod
    def backward(ctx: Any, grad_grad_input: Tensor) -> tuple[Tensor | None, ...]:
        grads = derivatives.cross_entropy_double_backward(grad_grad_input, *ctx.saved_tensors, *ctx.options)
        return *grads, None, None, None, None, None, None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *arguments: Any) -> tuple[Any, Any]:
        if in_dims[3] is not None:
            return _map_slices(CrossEntropyBackward, info, in_dims, arguments)
        grad_output, input, target, weight, stats, denominator, *options, batch_dims = arguments
        grad_output, input, target = _batch_first(info, in_dims[:3], grad_output, input, target)
        (stats,) = _batch_first(info, in_dims[4:5], stats)
        if options[0] == MEAN:  # otherwise it is empty, whatever the batch
            (denominator,) = _batch_first(info, in_dims[5:6], denominator)
        tensors = (grad_output, input, target, weight, stats, denominator)
        return CrossEntropyBackward.apply(*tensors, *options, batch_dims + 1), 0


def _apply(function: type[torch.autograd.Function], differentiable: bool, *arguments: Any) -> Any:
    """What function.apply(*arguments) returns, at the least cost that the mode of the call allows.

    `torch.autograd.Function.apply` binds the arguments to the signature of `forward` each time, which transforms need
    and which costs more than the rest of a small call. Its base class skips that; where no gradient can be asked for,
    `forward` is enough.
    """
    if _is_transformed():
        return function.apply(*arguments)
    if differentiable and torch.is_grad_enabled():
        return super(torch.autograd.Function, function).apply(*arguments)  # type: ignore[misc]
    return function.forward(*arguments)


def _is_transformed() -> bool:
    return (
        torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0
    )


def _batch_first(info: Any, in_dims: tuple[int | None, ...], *tensors: Tensor) -> list[Tensor]:
    """The tensors with the mapped dimension in front; those that have none are expanded, which copies nothing."""
    return [
        tensor.expand(info.batch_size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
        for tensor, dim in zip(tensors, in_dims, strict=True)
    ]


def _map_slices(
    function: type[torch.autograd.Function], info: Any, in_dims: tuple[int | None, ...], arguments: tuple[Any, ...]
) -> tuple[Any, Any]:
    """What vmap means, one slice after another: for arguments that the op has no batch dimension for."""
    outputs = [
        function.apply(*(x if dim is None else x.select(dim, i) for x, dim in zip(arguments, in_dims, strict=True)))
        for i in range(info.batch_size)
    ]
    if isinstance(outputs[0], Tensor):
        return torch.stack(outputs), 0
    return tuple(torch.stack(parts) for parts in zip(*outputs, strict=True)), (0,) * len(outputs[0])
