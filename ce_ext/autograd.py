"""The derivatives of every op pair: `NAME_forward`, whose first result is differentiable, and `NAME_backward`.

The dispatcher asks for them, as it does for torch's own ops, so they work in whatever mode torch has: eager,
torch.func, forward mode, torch.compile, torch.export. First derivatives are kernels, and `csrc/python/autograd.cpp`
reads off the schemas how to call them. `register` gives a pair what no schema tells.

Functions of Python take the tensors of an op, then its options as one NamedTuple (see `options.py`), so that an option
more is no change here.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling

from ce_ext import _C, binary_derivatives, derivatives, soft_derivatives
from ce_ext.options import (
    BinaryCrossEntropyOptions,
    CrossEntropyOptions,
    LogSoftmaxOptions,
    SoftCrossEntropyOptions,
)
from ce_ext.reductions import MEAN

# (op, batch_size, in_dims, tensors, options) -> (results, out_dims)
Vmap = Callable[..., tuple[Any, Any]]


def register(
    name: str,
    options: Any,
    *,
    tangent: Callable[..., Any],
    backward_gradient: Callable[..., Any],
    backward_tangent: Callable[..., Any],
    vmap: Vmap,
) -> Callable[..., Tensor]:
    """Registers the derivatives and the vmap rules of an op pair, and returns its forward op.

    Args:
        name: of the pair, without ``_forward`` and ``_backward``.
        options: the NamedTuple of what the ops take after their tensors. Backward may take less of it than forward.
        tangent: of the result. It takes the tangents of forward's differentiable arguments, then what backward takes
            but for grad_output. Where an argument has no tangent, it gets None.
        backward_gradient: takes gradients of backward's results, then backward's arguments. It returns the gradients
            of those arguments of backward that depend on forward's differentiable ones: grad_output, they themselves,
            forward's result.
        backward_tangent: of backward's results. It takes the tangents of the same arguments, then backward's arguments.
        vmap: calls one of the two ops for a batch. It takes the op, the size of the batch, the tensors, their
            dimensions of the batch or None, and the options; it returns the results and their dimensions of the batch.

    Returns:
        A function of forward's tensors and the options. It returns the differentiable result, and costs less than a
        call by way of ``torch.ops``.
    """

    def with_options(function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *arguments: function(*arguments[:-1], options(*arguments[-1]))

    _C.register_autograd(name, *map(with_options, (tangent, backward_gradient, backward_tangent)))
    forward, backward = (_find_op(f"{name}_{direction}") for direction in ("forward", "backward"))
    for op in (forward, backward):
        torch.library.register_vmap(op.name(), partial(_vmap, vmap, op, options))
    call = _C.quick_call(f"{name}_forward")

    def forward_result(*arguments: Any) -> Tensor:
        if is_dynamo_compiling():  # which knows ops, but no functions of C++
            results = forward(*arguments[:-1], *arguments[-1])
            return results if isinstance(results, Tensor) else results[0]
        return call(*arguments)

    return forward_result


def all_results(name: str, *arguments: Any) -> Any:
    """Those of a forward op, in a form that `torch.jit.trace` can record, too."""
    return _find_op(f"{name}_traced" if torch.jit.is_tracing() else name)(*arguments)


def _find_op(qualified_name: str) -> Any:
    namespace, name = qualified_name.split("::")
    return getattr(getattr(torch.ops, namespace), name).default


def _vmap(vmap: Vmap, op: Any, options: Any, info: Any, in_dims: tuple[int | None, ...], *arguments: Any) -> Any:
    count = sum("Tensor" in str(parameter.type) for parameter in op._schema.arguments)
    return vmap(op, info.batch_size, arguments[:count], in_dims[:count], options(*arguments[count:]))


def call(op: Any, tensors: Any, options: Any) -> Any:
    """op(*tensors, *options), with as many options as it takes."""
    return op(*tensors, *options[: len(op._schema.arguments) - len(tensors)])


def vmap_with_batch_dims(unbatched: Callable[[Any], set[str]]) -> Vmap:
    """For ops with an option `batch_dims`, the number of leading dimensions that are a batch: one more of them.

    By the options, `unbatched` gives the names of arguments and results of which there is one for a whole batch. Where
    one of those is mapped, the op is called in a loop.
    """

    def vmap(op: Any, batch_size: int, tensors: Any, in_dims: Any, options: Any) -> tuple[Any, Any]:
        one_for_all = unbatched(options)
        is_shared = [parameter.name in one_for_all for parameter in op._schema.arguments[: len(tensors)]]
        if any(shared and dim is not None for shared, dim in zip(is_shared, in_dims, strict=True)):
            slices = (_select(tensors, in_dims, i) for i in range(batch_size))
            results = [call(op, tensors, options) for tensors in slices]
            if isinstance(results[0], Tensor):
                return torch.stack(results), 0
            stacked = tuple(None if parts[0] is None else torch.stack(parts) for parts in zip(*results, strict=True))
            return stacked, tuple(None if result is None else 0 for result in stacked)
        batched = [
            tensor if tensor is None or shared else _batch_first(tensor, dim, batch_size)
            for tensor, dim, shared in zip(tensors, in_dims, is_shared, strict=True)
        ]
        results = call(op, batched, options._replace(batch_dims=options.batch_dims + 1))
        if isinstance(results, Tensor):
            return results, 0
        names = [result.name for result in op._schema.returns]
        return results, tuple(
            None if result is None or name in one_for_all else 0 for name, result in zip(names, results, strict=True)
        )

    return vmap


def vmap_with_dim(op: Any, batch_size: int, tensors: Any, in_dims: Any, options: Any) -> tuple[Tensor, int]:
    """For ops that work along one dimension, the option `dim`: along the same one behind that of the batch."""
    batched = [_batch_first(tensor, dim, batch_size) for tensor, dim in zip(tensors, in_dims, strict=True)]
    options = options._replace(dim=options.dim + 1)
    if batched[0].dim() == 1:  # a sample is a single class, and has no dimension for it
        return call(op, [tensor.unsqueeze(1) for tensor in batched], options).squeeze(1), 0
    return call(op, batched, options), 0


def _select(tensors: Any, dims: Any, i: int) -> list[Tensor]:
    return [tensor if dim is None else tensor.select(dim, i) for tensor, dim in zip(tensors, dims, strict=True)]


def _batch_first(tensor: Tensor, dim: int | None, batch_size: int) -> Tensor:
    """With the mapped dimension in front; a tensor that has none is expanded, which copies nothing."""
    return tensor.expand(batch_size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)


def _shared_by_batch(options: CrossEntropyOptions | SoftCrossEntropyOptions) -> set[str]:
    return {"weight"} if options.reduction == MEAN else {"weight", "denominator"}


cross_entropy = register(
    "ce_ext::cross_entropy",
    CrossEntropyOptions,
    tangent=derivatives.cross_entropy_tangent,
    backward_gradient=derivatives.cross_entropy_backward_gradient,
    backward_tangent=derivatives.cross_entropy_backward_tangent,
    vmap=vmap_with_batch_dims(_shared_by_batch),
)
soft_cross_entropy = register(
    "ce_ext::soft_cross_entropy",
    SoftCrossEntropyOptions,
    tangent=soft_derivatives.tangent,
    backward_gradient=soft_derivatives.backward_gradient,
    backward_tangent=soft_derivatives.backward_tangent,
    vmap=vmap_with_batch_dims(_shared_by_batch),
)
log_softmax = register(
    "ce_ext::log_softmax",
    LogSoftmaxOptions,
    tangent=derivatives.log_softmax_tangent,
    backward_gradient=derivatives.log_softmax_backward_gradient,
    backward_tangent=derivatives.log_softmax_backward_tangent,
    vmap=vmap_with_dim,
)
binary_cross_entropy = register(
    "ce_ext::binary_cross_entropy",
    BinaryCrossEntropyOptions,
    tangent=binary_derivatives.tangent,
    backward_gradient=binary_derivatives.backward_gradient,
    backward_tangent=binary_derivatives.backward_tangent,
    vmap=vmap_with_batch_dims(lambda options: set() if options.reduction == MEAN else {"denominator"}),
)
