"""Who competes: ce_ext, torch, and on CUDA the libraries of the same losses that happen to be installed.

Libraries that fuse the loss with the linear layer before it, such as cut_cross_entropy, are none of them: they never
make the logits, so they solve another problem, whose time is that of its matrix products.
"""

import importlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from typing import Any

import torch
from torch import Tensor
from torch._functorch import config as aot_autograd

from benchmarks.cases import Case
from benchmarks.functions import CROSS_ENTROPY

Call = Callable[..., Tensor]

# torch.compile has backward work in the memory of what forward has kept for it, unless told that this is not its last
# time. Of these functions only a few bytes a row are kept, so that it loses nothing.
aot_autograd.donated_buffer = False


@dataclass(frozen=True)
class Provider:
    find: Callable[[Case], Call | None]  # what to time, `call(input, target, **options)`; None where it has nothing
    is_ours: bool = False
    package: str | None = None  # a peer's, which need not be installed, nor take every case
    overwrites_input: bool = False  # with the gradient
    has_backward_alone: bool = True  # and not the gradient from the forward pass
    has_forward_alone: bool = True  # which differs from that of another provider


def _cross_entropy_of_rows(module: str, name: str, *options: str) -> Callable[[Case], Call | None]:
    """A peer's cross entropy, which takes (N, C) alone, and of options these."""

    def find(case: Case) -> Call | None:
        is_taken = case.layout == "contiguous" and case.options.keys() <= set(options)
        if case.loss is CROSS_ENTROPY and is_taken and len(case.shape) == 2:
            return getattr(importlib.import_module(module), name)
        return None

    return find


class _Activation(torch.autograd.Function):
    """Makes a leaf, which in-place operations refuse, the output of a layer, in the same memory."""

    @staticmethod
    def forward(ctx: Any, leaf: Tensor) -> Tensor:
        return leaf.data

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad


def _grad_in_forward(case: Case) -> Call | None:
    if case.loss is not CROSS_ENTROPY or not case.is_plain:
        return None
    return partial(case.loss.function, grad_in_forward=True, loss_scale=1.0)


def _in_place(case: Case) -> Call | None:
    if case.loss is not CROSS_ENTROPY or not case.is_plain:
        return None
    return lambda leaf, target: case.loss.function(_Activation.apply(leaf), target, inplace=True, loss_scale=1.0)


PROVIDERS = {
    "ce_ext": Provider(lambda case: case.loss.function, is_ours=True),
    "grad_in_forward": Provider(_grad_in_forward, is_ours=True, has_backward_alone=False, has_forward_alone=False),
    "inplace": Provider(
        _in_place, is_ours=True, overwrites_input=True, has_backward_alone=False, has_forward_alone=False
    ),
    "eager": Provider(lambda case: case.loss.reference),
    "compile": Provider(lambda case: torch.compile(case.loss.reference, dynamic=False)),
    "liger": Provider(
        _cross_entropy_of_rows("liger_kernel.transformers.functional", "liger_cross_entropy", "label_smoothing"),
        package="liger_kernel",
        overwrites_input=True,
        has_backward_alone=False,
    ),
    "quack": Provider(_cross_entropy_of_rows("quack", "cross_entropy"), package="quack-kernels"),
}


PEERS = {name: provider.package for name, provider in PROVIDERS.items() if provider.package}


def versions() -> dict[str, str]:
    """Of the peers that are installed."""
    installed = {}
    for name, package in PEERS.items():
        with suppress(metadata.PackageNotFoundError):
            installed[name] = metadata.version(package)
    return installed


def competitors(device: str) -> tuple[str, ...]:
    installed = versions() if device == "cuda" else {}
    return tuple(name for name in PROVIDERS if name not in PEERS or name in installed)
