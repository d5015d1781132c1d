"""The derivatives of every op pair: `NAME_forward`, whose first result is differentiable, and `NAME_backward`.

The dispatcher asks for them, as it does for torch's own ops, so they work in whatever mode torch has: eager,
torch.func, forward mode, torch.compile, torch.export. First derivatives are kernels, and `csrc/python/autograd.cpp`
reads off the schemas how to call them. `register` gives a pair what no schema tells.

Functions of Python take the tensors of an op, then the options of the loss as one NamedTuple (see `options.py`), so
that an option more is no change here.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling

from ce_ext import _C, derivatives
from ce_ext.options import CrossEntropyOptions
from ce_ext.reductions import MEAN


def register(
    name: str,
    options: Any,
    *,
    tangent: Callable[..., Any],
    backward_gradient: Callable[..., Any],
    backward_tangent: Callable[..., Any],
    unbatched: Callable[[Any], set[str]],
) -> Callable[..., Tensor]:
    """Registers the derivatives and the vmap rules of an op pair, and returns its forward op.

    Args:
        name: of the pair, without ``_forward`` and ``_backward``.
        options: the NamedTuple of what the ops take after their tensors. The last is ``batch_dims``: how
            many leading dimensions of the tensors are a batch, which vmap counts up.
        tangent: of the result. It takes the tangents of forward's differentiable arguments, then what backward takes
            but for grad_output. Where an argument has no tangent, it gets None.
        backward_gradient: takes gradients of backward's results, then backward's arguments. It returns the gradients
            of those arguments of backward that depend on forward's differentiable ones: grad_output, they themselves,
            forward's result.
        backward_tangent: of backward's results. It takes the tangents of the same arguments, then backward's arguments.
        unbatched: the names of the arguments and results of which there is one for a whole batch, by the options.

    Returns:
        A function of forward's tensors and the options. It returns the differentiable result, and costs less than a
        call by way of ``torch.ops``.
    """

    def with_options(function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *arguments: function(*arguments[:-1], options(*arguments[-1]))

    _C.register_autograd(name, *map(with_options, (tangent, backward_gradient, backward_tangent)))
    forward, backward = (_find_op(f"{name}_{direction}") for direction in ("forward", "backward"))
    for op in (forward, backward):
        torch.library.register_vmap(op.name(), partial(_vmap, op, options, unbatched))
    call = _C.quick_call(f"{name}_forward")

    def forward_result(*arguments: Any) -> Tensor:
        if is_dynamo_compiling():  # which knows ops, but no functions of C++
            return forward(*arguments[:-1], *arguments[-1])[0]
        return call(*arguments)

    return forward_result


def _find_op(qualified_name: str) -> Any:
    namespace, name = qualified_name.split("::")
    return getattr(getattr(torch.ops, namespace), name).default


def _vmap(
    op: Any,
    options_type: Any,
    unbatched: Callable[[Any], set[str]],
    info: Any,
    in_dims: tuple[int | None, ...],
    *arguments: Any,
) -> tuple[Any, Any]:
    """The op itself with one more batch dimension, or a loop where something is mapped that must not have one."""
    count = len(arguments) - len(options_type._fields)
    options = options_type(*arguments[count:])
    one_for_all = unbatched(options)
    tensors = [
        (tensor, dim, parameter.name in one_for_all)
        for tensor, dim, parameter in zip(arguments[:count], in_dims, op._schema.arguments, strict=False)
    ]
    if any(is_one_for_all and dim is not None for _, dim, is_one_for_all in tensors):
        return _map_slices(op, info.batch_size, [tensor[:2] for tensor in tensors], options)
    batched = (
        x if x is None or is_one_for_all else _batch_first(x, dim, info.batch_size)
        for x, dim, is_one_for_all in tensors
    )
    output = op(*batched, *options._replace(batch_dims=options.batch_dims + 1))
    out_dims = tuple(None if result.name in one_for_all else 0 for result in op._schema.returns)
    return output, out_dims if isinstance(output, tuple) else 0


def _map_slices(op: Any, batch_size: int, tensors: list[Any], options: Any) -> tuple[Any, Any]:
    outputs = [op(*(x if dim is None else x.select(dim, i) for x, dim in tensors), *options) for i in range(batch_size)]
    if isinstance(outputs[0], Tensor):
        return torch.stack(outputs), 0
    return tuple(torch.stack(parts) for parts in zip(*outputs, strict=True)), (0,) * len(outputs[0])


def _batch_first(tensor: Tensor, dim: int | None, batch_size: int) -> Tensor:
    """With the mapped dimension in front; a tensor that has none is expanded, which copies nothing."""
    return tensor.expand(batch_size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)


cross_entropy = register(
    "ce_ext::cross_entropy",
    CrossEntropyOptions,
    tangent=derivatives.cross_entropy_tangent,
    backward_gradient=derivatives.cross_entropy_backward_gradient,
    backward_tangent=derivatives.cross_entropy_backward_tangent,
    unbatched=lambda options: {"weight"} if options.reduction == MEAN else {"weight", "denominator"},
)
