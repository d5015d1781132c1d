"""Checks of arguments that functions and modules share. Those of shapes and values are made by the ops, in
csrc/host/checks.cpp."""

import difflib
import inspect
import operator
from collections.abc import Callable, Container, Iterable
from typing import Any, NoReturn

import torch
from torch import Tensor

_LEGACY = "size_average and reduce are deprecated in torch and not supported here: use reduction="


def not_a_tensor(name: str, value: Any) -> TypeError:
    return TypeError(f"{name} must be a Tensor, but got {type(value).__name__}")


def constant(name: str, value: Any) -> None:
    """A tensor that the loss has no gradient in. Where none is recorded, nobody misses it."""
    if not isinstance(value, Tensor):
        raise not_a_tensor(name, value)
    if value.requires_grad and torch.is_grad_enabled():
        raise RuntimeError(f"{name} is not differentiable and must not require grad")


def is_boolean(value: Any) -> bool:
    """Also of numpy, or a tensor."""
    if isinstance(value, (float, int, torch.SymFloat, torch.SymInt)):
        return isinstance(value, bool)
    return str(getattr(value, "dtype", "")) in ("bool", "torch.bool")


def integer(name: str, value: Any) -> Any:
    """What torch takes for an int: also integers of numpy and tensors of one integer, but no bool."""
    if type(value) is int or isinstance(value, torch.SymInt):
        return value
    is_bool = is_boolean(value)
    if not is_bool:
        try:
            return operator.index(value)
        except TypeError:
            pass
    hint = f": {_LEGACY}" if is_bool and name == "ignore_index" else ""
    raise TypeError(f"{name} must be an int, but got {value!r} of type {type(value).__name__}{hint}")


def real(name: str, value: Any) -> Any:
    """What torch takes for a float: also integers, numbers of numpy and tensors of one number, in which the loss would
    have no gradient."""
    if isinstance(value, (float, int, torch.SymFloat, torch.SymInt)):
        return value
    if isinstance(value, Tensor) and value.requires_grad and torch.is_grad_enabled():
        raise TypeError(f"{name} must be a float, but got a tensor that requires grad")
    is_complex = "complex" in str(getattr(value, "dtype", ""))
    if hasattr(type(value), "__float__") and getattr(value, "ndim", 0) == 0 and not is_complex:
        return float(value)
    raise TypeError(f"{name} must be a float, but got {value!r} of type {type(value).__name__}")


def dimension(dim: Any, input: Tensor) -> int:
    """`dim` of `input`, counted from the front."""
    dims = max(input.dim(), 1)
    if type(dim) is not int:
        dim = integer("dim", dim)
    if not -dims <= dim < dims:
        shape = tuple(input.shape)
        raise IndexError(f"dim must be in [{-dims}, {dims - 1}] for input of shape {shape}, but got {dim}")
    return dim % dims


def legacy(size_average: Any, reduce: Any) -> None:
    """They change what is returned, so that to ignore them would be another loss."""
    if size_average is None and reduce is None:
        return
    if all(value is None or isinstance(value, bool) for value in (size_average, reduce)):
        chosen = "'none'" if reduce is False else "'sum'" if size_average is False else "'mean'"
        raise TypeError(f"{_LEGACY}{chosen}, but got size_average={size_average!r} and reduce={reduce!r}")
    raise TypeError(
        f"{_LEGACY}; but got size_average={size_average!r} and reduce={reduce!r}. They have the places that they have "
        "in torch: give what comes behind them by name"
    )


def options(function: Callable[..., Any], given: Iterable[str], known: Container[str]) -> None:
    """That all names that are `given` are `known` options of a function or a module."""
    for name in given:
        if name not in known:
            refuse_option(function, name, known)


def refuse_option(function: Callable[..., Any], name: str, known: Any) -> NoReturn:
    names = [*inspect.signature(function).parameters, *known]
    advice = "".join(f". Did you mean {match!r}?" for match in difflib.get_close_matches(name, names, n=1))
    raise TypeError(f"{function.__name__}() got an unexpected keyword argument {name!r}{advice}")
