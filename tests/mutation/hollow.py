"""A pytest plugin: on the CPU the ops of ce_ext give results of nothing, and CE_EXT_HOLLOW says which.

They are "zeros"; "nan"; or "previous": what the op has computed the last time in this test that its tensors had these
shapes and dtypes, or zeros. Checks of arguments, shapes and memory formats stay, as they are for tensors without data,
and so do the derivatives that Python composes. The property HOLLOW_CALLS of a test counts the calls that had such
results. Out of reach are processes that a test starts.
"""

import math
import os
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

import ce_ext  # noqa: F401  (registers the ops)

HOLLOW_CALLS = "hollow calls"
KINDS = ("zeros", "nan", "previous")

_calls = 0
_previous: dict[Any, list[Tensor]] = {}
_library = torch.library.Library("ce_ext", "IMPL")


def pytest_configure() -> None:
    for name in torch._C._dispatch_get_all_op_names():
        if name.startswith("ce_ext::") and torch._C._dispatch_has_kernel_for_dispatch_key(name, "CPU"):
            kernels = [torch.library.get_kernel(name, key) for key in ("CPU", "Meta")]
            schema = getattr(torch.ops.ce_ext, name.removeprefix("ce_ext::")).default._schema
            is_written = [parameter.is_write for parameter in schema.arguments]
            hollow = partial(_run, os.environ["CE_EXT_HOLLOW"], name, is_written, *kernels)
            _library.impl(name, hollow, "CPU", with_keyset=True)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    global _calls
    _calls = 0
    _previous.clear()
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    try:
        return (yield)
    finally:
        item.user_properties.append((HOLLOW_CALLS, _calls))


def _run(
    kind: str, name: str, is_written: list[bool], kernel: Any, meta_kernel: Any, keys: Any, *arguments: Any
) -> Any:
    """The op, of which `is_written` tells what arguments it writes to."""
    global _calls
    if kind == "previous":
        results = kernel.call_boxed(keys, *arguments)
    else:
        results = _with_data(meta_kernel.call_boxed(keys, *map(_without_data, arguments)))
    _calls += 1
    written = [argument for argument, is_one in zip(arguments, is_written, strict=True) if is_one]
    outputs = [*_tensors(results), *written]
    if kind == "previous":
        key = (name, *((tensor.shape, tensor.dtype) for tensor in (*_tensors(arguments), *outputs)))
        computed = [output.clone() for output in outputs]
        for output, content in zip(outputs, _previous.get(key, map(torch.zeros_like, outputs)), strict=True):
            output.copy_(content)
        _previous[key] = computed
    else:
        for output in outputs:
            output.fill_(0 if kind == "zeros" else math.nan if output.is_floating_point() else -1)
    for tensor in written:
        if not tensor.is_inference():
            torch.autograd.graph.increment_version(tensor)
    return results


def _tensors(values: Any) -> list[Tensor]:
    return [value for value in (values if isinstance(values, tuple) else (values,)) if isinstance(value, Tensor)]


def _without_data(argument: Any) -> Any:
    if not isinstance(argument, Tensor):
        return argument
    return torch.empty_strided(argument.shape, argument.stride(), dtype=argument.dtype, device="meta")


def _with_data(results: Any) -> Any:
    if isinstance(results, tuple):
        return tuple(map(_with_data, results))
    return results if results is None else torch.empty_like(results, device="cpu")
