"""The derivatives of every op pair: `NAME_forward`, whose first result is differentiable, and `NAME_backward`.

There are two ways to them, and `differentiable` makes one function of both. In plain eager mode `ce_ext._C.eager` calls
the ops and records one node in the graph: C++, because for a small problem Python takes longer than the kernels, and
written once for all pairs, because their schemas tell it enough. In all other modes a pair of Functions is in charge,
because only a Python `torch.autograd.Function` with a separate `setup_context` and a `vmap` works in torch.func,
torch.compile and torch.export.

First derivatives are kernels. Second ones, and the tangents of forward mode, are formulas in torch ops, in
`derivatives.py`. A Function takes the tensors of its op, then the options of the loss as one NamedTuple (see
`options.py`), so that an option more is no change here. Its `forward` has to name its arguments: torch.compile takes
the first of `*arguments` for the ctx.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.compiler import is_dynamo_compiling

from ce_ext import _C, derivatives
from ce_ext.options import CrossEntropyOptions
from ce_ext.reductions import MEAN

Gradients = tuple[Tensor | None, ...]
Saved = Sequence[Any]


class _Function(torch.autograd.Function):
    """A Function with forward mode: `tangent` is torch's `jvp`, but gets what `setup_context` saved instead of ctx.

    torch.compile refuses any Function that has a `jvp`, whether or not it would be called. So there are two of each:
    the class itself, and `dual`, a subclass for when forward mode is on.
    """

    dual: ClassVar[type[torch.autograd.Function]]

    def __init_subclass__(cls) -> None:
        if hasattr(cls, "tangent") and "jvp" not in vars(cls):
            cls.dual = type(cls.__name__, (cls,), {"jvp": staticmethod(partial(_jvp, cls.tangent))})


def _jvp(tangent: Callable[..., Any], ctx: Any, *tangents: Tensor | None) -> Any:
    # torch turns forward mode off for a jvp, and with it that of outer levels: the tangent's own tangent would be zero.
    # Turned on again, it must not see the tangents of this level.
    with forward_ad._set_fwd_grad_enabled(True):
        saved = [None if x is None else forward_ad.unpack_dual(x).primal for x in ctx.saved_tensors]
        return tangent(saved, ctx.options, *tangents)


class _Forward(_Function):
    """Saves all tensors that it takes, and what the op returns besides the differentiable result, in this order."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        *tensors, ctx.options = inputs
        _, *others = output
        _save(ctx, *tensors, *others)
        ctx.mark_non_differentiable(*others)
        ctx.set_materialize_grads(False)


class _Backward(_Function):
    """Saves all tensors that it takes."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        *tensors, ctx.options = inputs
        _save(ctx, *tensors)
        ctx.set_materialize_grads(False)


class CrossEntropy(_Forward):
    """The op `cross_entropy_forward`: (loss, stats, denominator), of which the loss is differentiable."""

    @staticmethod
    def forward(
        input: Tensor, target: Tensor, weight: Tensor | None, options: CrossEntropyOptions
    ) -> tuple[Tensor, Tensor, Tensor]:
        return torch.ops.ce_ext.cross_entropy_forward.default(input, target, weight, *options)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor | None, *_: None) -> Gradients:
        if grad_output is None:
            return None, None, None, None
        return _apply(CrossEntropyBackward, grad_output, *ctx.saved_tensors, ctx.options), None, None, None

    @staticmethod
    def tangent(saved: Saved, options: CrossEntropyOptions, input_tangent: Tensor | None, *_: None) -> Gradients:
        if input_tangent is None:
            return None, None, None
        input, target, weight, _, denominator = saved
        loss = derivatives.cross_entropy_tangent(input_tangent, input, target, weight, denominator, options)
        return loss, None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> tuple[Any, Any]:
        if in_dims[2] is not None:  # the op takes one weight for all
            return _map_slices(CrossEntropy, info, in_dims, arguments)
        input, target, weight, options = arguments
        input, target = _batch_first(info, in_dims[:2], input, target)
        output = _apply(CrossEntropy, input, target, weight, _batched(options))
        return output, (0, 0, 0 if options.reduction == MEAN else None)


class CrossEntropyBackward(_Backward):
    """The op `cross_entropy_backward`: grad_input, differentiable in grad_output and input."""

    @staticmethod
    def forward(
        grad_output: Tensor,
        input: Tensor,
        target: Tensor,
        weight: Tensor | None,
        stats: Tensor,
        denominator: Tensor,
        options: CrossEntropyOptions,
    ) -> Tensor:
        return torch.ops.ce_ext.cross_entropy_backward.default(
            grad_output, input, target, weight, stats, denominator, *options
        )

    @staticmethod
    def backward(ctx: Any, v: Tensor | None) -> Gradients:
        if v is None:
            return None, None, None, None, None, None, None
        grad_output, input, target, weight, _, denominator = ctx.saved_tensors
        row = (input, target, weight, denominator, ctx.options)
        in_grad_output = derivatives.cross_entropy_tangent(v, *row)
        in_input = derivatives.cross_entropy_hessian_product(v, grad_output, *row)
        return in_grad_output, in_input, None, None, None, None, None

    @staticmethod
    def tangent(
        saved: Saved,
        options: CrossEntropyOptions,
        grad_output_tangent: Tensor | None,
        input_tangent: Tensor | None,
        *_: None,
    ) -> Tensor | None:
        grad_output, input, target, weight, stats, denominator = saved
        tangent = None
        if grad_output_tangent is not None:
            tangent = _apply(
                CrossEntropyBackward, grad_output_tangent, input, target, weight, stats, denominator, options
            )
        if input_tangent is not None:
            product = derivatives.cross_entropy_hessian_product(
                input_tangent, grad_output, input, target, weight, denominator, options
            )
            tangent = product if tangent is None else tangent + product
        return tangent

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> tuple[Any, Any]:
        if in_dims[3] is not None:
            return _map_slices(CrossEntropyBackward, info, in_dims, arguments)
        grad_output, input, target, weight, stats, denominator, options = arguments
        grad_output, input, target = _batch_first(info, in_dims[:3], grad_output, input, target)
        (stats,) = _batch_first(info, in_dims[4:5], stats)
        if options.reduction == MEAN:  # otherwise it is empty, whatever the batch
            (denominator,) = _batch_first(info, in_dims[5:6], denominator)
        row = (input, target, weight, stats, denominator, _batched(options))
        return _apply(CrossEntropyBackward, grad_output, *row), 0


def differentiable(
    name: str, forward: type[_Function], backward: type[_Function], options: Callable[..., tuple[Any, ...]]
) -> Callable[..., Tensor]:
    """The op pair of this name as a function of what `forward` takes, differentiable in every mode."""

    def differentiable_backward(*arguments: Any) -> Any:
        *tensors, values = arguments
        return _apply(backward, *tensors, options(*values))

    eager = _C.eager(name, differentiable_backward)

    def call(*arguments: Any) -> Tensor:
        if not is_dynamo_compiling():
            result = eager(*arguments)
            if result is not NotImplemented:
                return result
        return _apply(forward, *arguments)[0]

    return call


def _apply(function: type[_Function], *arguments: Any) -> Any:
    return (function.dual if forward_ad._current_level >= 0 else function).apply(*arguments)


def _save(ctx: Any, *tensors: Tensor | None) -> None:
    ctx.save_for_backward(*tensors)
    if forward_ad._current_level >= 0:
        ctx.save_for_forward(*tensors)


def _batched(options: Any) -> Any:
    return options._replace(batch_dims=options.batch_dims + 1)


def _batch_first(info: Any, in_dims: tuple[int | None, ...], *tensors: Tensor) -> list[Tensor]:
    """The tensors with the mapped dimension in front; those that have none are expanded, which copies nothing."""
    return [
        tensor.expand(info.batch_size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
        for tensor, dim in zip(tensors, in_dims, strict=True)
    ]


def _map_slices(
    function: type[_Function], info: Any, in_dims: tuple[Any, ...], arguments: tuple[Any, ...]
) -> tuple[Any, Any]:
    """What vmap means, one slice after another: for arguments that the op has no batch dimension for."""
    *tensors, options = arguments
    pairs = list(zip(tensors, in_dims[:-1], strict=True))
    outputs = [
        _apply(function, *(x if dim is None else x.select(dim, i) for x, dim in pairs), options)
        for i in range(info.batch_size)
    ]
    if isinstance(outputs[0], Tensor):
        return torch.stack(outputs), 0
    return tuple(torch.stack(parts) for parts in zip(*outputs, strict=True)), (0,) * len(outputs[0])


cross_entropy = differentiable("ce_ext::cross_entropy", CrossEntropy, CrossEntropyBackward, CrossEntropyOptions)
