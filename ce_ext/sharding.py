"""What ops take and give where tensors are sharded over processes: DTensors of `torch.distributed.tensor`.

Importing this registers it. `ce_ext.distributed` does so when it sees the first DTensor, for nobody else to pay for the
import of torch.distributed.tensor.

Along a dimension of the mesh either all tensors are replicated, or the input is sharded along one of its dimensions,
and so are the others that have it. Of those that have not, arguments are replicated, and results are partial sums. The
input stays as it is where that is one of these ways. Else DTensor chooses one: it exchanges classes for rows, for
logits that are sharded along their classes.

Ops that write to their arguments are not among them: DTensor might redistribute those, too, and the copy be written to.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.distributed.tensor import Partial, Placement, Replicate, Shard
from torch.distributed.tensor.experimental import register_sharding

from ce_ext import shapes
from ce_ext.reductions import MEAN, NONE

# What stands for tensors here has their shape and dtype, but no data: `Any`.
Arguments = dict[str, Any]
# (name, tensor, dim) -> the dimension of the tensor that is `dim` of the input, or None where it has none.
Find = Callable[[str, Any, int], int | None]
# Along one dimension of the mesh: of results and of arguments, None for what is no tensor.
Placements = tuple[list[Placement | None], list[Placement | None]]


def _losses(input: Any, arguments: Arguments) -> tuple[list[int], Find]:
    """The dimensions along which the input may be sharded, and how to find them in the other tensors."""
    target, reduction = arguments["target"], arguments["reduction"]
    batch_dims, is_of_rows = arguments["batch_dims"], "sample_weight" in arguments
    class_dim = shapes.class_dim(input, batch_dims)

    def find(name: str, tensor: Any, dim: int) -> int | None:
        name = "loss" if name == "grad_output" else name.removeprefix("grad_")
        if name == "denominator" or (name == "loss" and reduction != NONE):  # one for each sample of a batch
            return dim if dim < batch_dims else None
        if name in ("weight", "pos_weight", "class_alpha"):
            return None if is_of_rows else find_in_factor(tensor, dim)
        if name in ("input", "target", "loss") and tensor.ndim == input.ndim:
            return dim
        return dim - (dim > class_dim)  # one for each row

    def find_in_factor(factor: Any, dim: int) -> int | None:
        if dim < batch_dims:
            return dim
        dim -= input.ndim - factor.ndim  # behind the batch, shapes are aligned at their ends
        return None if dim < batch_dims or factor.shape[dim] == 1 else dim

    # Means of shards do not add up, unless they divide by what they are given.
    is_sum = reduction != MEAN or any(arguments.get(name) is not None for name in ("denominator", "divisor"))
    has_classes = is_of_rows or target.ndim < input.ndim
    dims = [d for d in range(input.ndim) if (is_sum or d < batch_dims) and not (has_classes and d == class_dim)]
    return dims, find


def _log_softmax(input: Any, arguments: Arguments) -> tuple[list[int], Find]:
    return [d for d in range(input.ndim) if d != arguments["dim"]], lambda name, tensor, dim: dim


def _acceptable_placements(
    op: Any, layout: Callable[[Any, Arguments], tuple[list[int], Find]], *values: Any
) -> list[Placements]:
    arguments = dict(zip((parameter.name for parameter in op._schema.arguments), values, strict=True))
    takes = {p.name: arguments[p.name] if "Tensor" in str(p.type) else None for p in op._schema.arguments}
    returns = _results(op, arguments | {name: _without_data(x) for name, x in takes.items() if x is not None})
    input = arguments["input" if "input" in arguments else "output"]
    dims, find = layout(input, arguments)

    def placements(tensors: dict[str, Any], dim: int | None, elsewhere: Placement) -> list[Placement | None]:
        def of(name: str, tensor: Any) -> Placement:
            if dim is None:
                return Replicate()
            found = find(name, tensor, dim)
            if found is None:
                return Replicate() if name == "denominator" else elsewhere
            return Shard(found)

        return [None if tensor is None else of(name, tensor) for name, tensor in tensors.items()]

    choices = {Replicate(): None} | {Shard(dim): dim for dim in dims}
    if choices.keys() >= set(input.placements):  # replicated, too, for rows that are fewer than processes
        choices = {placement: choices[placement] for placement in (Replicate(), *input.placements)}
    return [(placements(returns, dim, Partial()), placements(takes, dim, Replicate())) for dim in choices.values()]


def _results(op: Any, arguments: Arguments) -> dict[str, Any]:
    """What the op returns by these arguments, None for what it does not: its own fake says so."""
    results = op(*arguments.values())
    names = [result.name for result in op._schema.returns]
    return dict(zip(names, results if isinstance(results, tuple) else (results,), strict=True))


def _without_data(tensor: Any) -> torch.Tensor:
    return torch.empty(tensor.shape, dtype=tensor.tensor_meta.dtype, device="meta")


for _name, _layout in {
    "cross_entropy": _losses,
    "soft_cross_entropy": _losses,
    "binary_cross_entropy": _losses,
    "log_softmax": _log_softmax,
}.items():
    for _op in (f"{_name}_forward", f"{_name}_backward"):
        _overload = getattr(torch.ops.ce_ext, _op).default
        register_sharding(_overload)(partial(_acceptable_placements, _overload, _layout))
