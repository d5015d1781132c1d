"""Jagged nested tensors, `torch.nested` with ``layout=torch.jagged``: rows of different lengths, side by side in one
tensor of values. A loss of elements is that of the values."""

from collections.abc import Callable
from typing import Any, NoReturn

import torch
from torch import Tensor


def values_of(input: Tensor, target: Tensor, **factors: Any) -> list[Any]:
    """The values of input, target, and factors that are nested, too. Others must be the same for all rows."""
    values = [_values("input", input, input), _values("target", target, input)]
    dims = input.dim() - 2  # that all rows have alike
    for name, factor in factors.items():
        if isinstance(factor, Tensor) and factor.is_nested:
            factor = _values(name, factor, input)
        elif isinstance(factor, Tensor) and factor.dim() > dims:
            raise ValueError(
                f"{name} must be nested as input is, or broadcast to the last {dims} of its dimensions, but got shape "
                f"{list(factor.shape)}"
            )
        values.append(factor)
    return values


def with_values(input: Any, values: Tensor) -> Tensor:
    """Nested as the input is."""
    return torch.nested.nested_tensor_from_jagged(values, input.offsets())


def refuse_rows(function: Callable[..., Any]) -> NoReturn:
    raise NotImplementedError(
        f"{function.__name__} takes no nested tensors: give it the values of all rows, which jagged ones have in one "
        "tensor, as input.values() and target.values()"
    )


def _values(name: str, tensor: Any, input: Any) -> Any:
    if not tensor.is_nested:
        raise ValueError(f"{name} must be nested as input is, but got a tensor of shape {list(tensor.shape)}")
    if tensor.layout != torch.jagged:
        raise NotImplementedError(f"{name} must be nested in the layout torch.jagged, but got {tensor.layout}")
    if tensor.lengths() is not None or tensor._ragged_idx != 1:
        raise NotImplementedError(f"{name} must be nested without holes, and along dimension 1: make it contiguous")
    # Each made by itself, they have offsets of their own, of which it takes a look to see that they are the same.
    if tensor.size(1) != input.size(1) and not torch.equal(tensor.offsets(), input.offsets()):
        raise ValueError(f"{name} must be nested as input is, but its offsets are others")
    return tensor.values()
