"""What steps leave behind, in memory: run as a module, it prints what each of them does, as JSON.

What it takes is a set of steps, the size of its batches and, for those of CUDA, the emulated kernels.
"""

import contextlib
import ctypes
import gc
import json
import math
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

import ce_ext
from ce_ext import functional as F
from tests.cuda_emu import Emulator
from tests.support.cases import CROSS_ENTROPY
from tests.support.losses import LOSSES
from tests.support.steps import SMALL, kernel_steps

BATCHES = 5  # a leak is in all of them, and what fills a cache in the first


# What malloc tells of itself, in this order.
_NAMES = (
    "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
)  # fmt: skip


class _Mallinfo2(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in _NAMES]


def _in_use() -> tuple[int, int]:
    """The bytes that malloc has given out, to torch and other libraries, and the blocks that Python has of its own."""
    gc.collect()
    mallinfo2 = ctypes.CDLL(None).mallinfo2
    mallinfo2.restype = _Mallinfo2
    info = mallinfo2()
    return info.uordblks + info.hblkhd, sys.getallocatedblocks()


def left_behind(step: Callable[[], Any], size: int) -> tuple[float, float]:
    """The bytes and the blocks that stay of a step, of batches in the one of which the least stays."""
    least_bytes = least_blocks = math.inf
    for _ in range(BATCHES):
        bytes_before, blocks_before = _in_use()
        for _ in range(size):
            step()
        bytes_after, blocks_after = _in_use()
        least_bytes = min(least_bytes, (bytes_after - bytes_before) / size)
        least_blocks = min(least_blocks, (blocks_after - blocks_before) / size)
    return least_bytes, least_blocks


def steps_in_modes() -> dict[str, Callable[[], Any]]:
    """All that has an end of its own: errors, graphs that nobody goes back through, transforms, hooks."""
    every: dict[str, Callable[[], Any]] = {}
    for loss in LOSSES:
        input, target = loss.make_inputs((4, 6), torch.float32)
        function = partial(loss.function, **loss.extras)
        bad = [call for call in loss.bad_calls if "requires grad" not in call.name]
        modes = {
            "bad calls": lambda loss=loss, bad=bad: [_raises(loss.function, *x.arguments(), **x.options) for x in bad],
            "twice": partial(_twice, function, input, target),
            "no backward": lambda f=function, x=input, t=target: f(_leaf(x), t),
            "forward mode": partial(_forward_mode, function, input, target),
            "functional": lambda f=function, x=input, t=target: torch.func.grad(f)(x, t),
            "per sample": lambda f=function, x=input, t=target: torch.vmap(torch.func.grad(f))(x, t),
            "hessian": lambda f=function, x=input, t=target: torch.func.hessian(f)(x[:1], t[:1]),
            "hooks": partial(_hooks, function, input, target),
            "hook that raises": partial(_hook_that_raises, function, input, target),
            "checkpoint": partial(_checkpoint, function, input, target),
            "module": lambda loss=loss, x=input, t=target: loss.module()(_leaf(x), t).backward(),
        }
        every |= {f"{name} of {loss.name}": step for name, step in modes.items()}
    input, target = CROSS_ENTROPY.make_inputs(SMALL, torch.float32)
    for how in ({"grad_in_forward": True}, {"inplace": True}):
        every |= {
            f"backward twice of {how}": partial(_backward_twice, input, target, how),
            f"no backward of {how}": lambda how=how: F.cross_entropy(_leaf(input) * 1, target, **how),
            f"bad target of {how}": lambda how=how: _raises(F.cross_entropy, _leaf(input) * 1, target + 99, **how),
            f"hooks of {how}": partial(_hooks, partial(F.cross_entropy, **how), input, target),
        }
    return every


def steps_on_emulated_cuda() -> dict[str, Callable[[], Any]]:
    every = dict(kernel_steps((4, 6)))
    input, target = CROSS_ENTROPY.make_inputs((4, 6), torch.float32)

    def report(asked: Callable[[Tensor], Any]) -> None:
        loss = F.cross_entropy(_leaf(input), target + 6)
        _raises(asked, loss)

    ways: dict[str, Callable[[Tensor], Any]] = {
        "check": lambda loss: ce_ext.cuda.check(),
        "backward": lambda loss: loss.backward(),
        "the next call": lambda loss: F.cross_entropy(input, target),
    }
    return every | {f"report by {name}": partial(report, way) for name, way in ways.items()}


def _leaf(x: Tensor) -> Tensor:
    return x.detach().requires_grad_()


def _raises(function: Callable[..., Any], *arguments: Any, **options: Any) -> None:
    try:
        function(*arguments, **options)
    except Exception:
        return
    raise AssertionError("no error")


def _twice(function: Callable[..., Tensor], input: Tensor, target: Tensor) -> None:
    x = _leaf(input)
    (grad,) = torch.autograd.grad(function(x, target), x, create_graph=True)
    if grad.requires_grad:
        torch.autograd.grad(grad.square().sum(), x, allow_unused=True)


def _forward_mode(function: Callable[..., Tensor], input: Tensor, target: Tensor) -> None:
    with forward_ad.dual_level():
        forward_ad.unpack_dual(function(forward_ad.make_dual(input, torch.ones_like(input)), target))


def _hooks(function: Callable[..., Tensor], input: Tensor, target: Tensor) -> None:
    x = _leaf(input) * 1
    x.register_hook(lambda grad: grad * 2)
    with torch.autograd.graph.saved_tensors_hooks(lambda saved: saved, lambda saved: saved):
        loss = function(x, target)
    loss.grad_fn.register_hook(lambda *_: None)
    loss.backward()


def _hook_that_raises(function: Callable[..., Tensor], input: Tensor, target: Tensor) -> None:
    x = _leaf(input) * 1
    loss = function(x, target)
    x.register_hook(lambda grad: [][0])
    _raises(loss.backward)


def _checkpoint(function: Callable[..., Tensor], input: Tensor, target: Tensor) -> None:
    torch.utils.checkpoint.checkpoint(function, _leaf(input), target, use_reentrant=False).backward()


def _backward_twice(input: Tensor, target: Tensor, how: dict[str, bool]) -> None:
    loss = F.cross_entropy(_leaf(input) * 1, target, **how)
    loss.backward(retain_graph=True)
    _raises(loss.backward)


def planted() -> dict[str, Callable[[], Any]]:
    """Steps that leave something."""
    kept: list[Any] = []
    return {"a tensor": lambda: kept.append(torch.empty(256)), "an object": lambda: kept.append(object())}


SETS = {
    "kernels": lambda: kernel_steps(SMALL),
    "modes": steps_in_modes,
    "emulated": steps_on_emulated_cuda,
    "planted": planted,
}

if __name__ == "__main__":
    name, size, *kernels = sys.argv[1:]
    with contextlib.ExitStack() as stack:
        for file in kernels:
            stack.enter_context(Emulator(Path(file)).running())
        steps = SETS[name]()
        gc.freeze()  # what is there stays
        print(json.dumps({step: left_behind(steps[step], int(size)) for step in steps}))
