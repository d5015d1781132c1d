"""How tensors can lie in memory: a name for each layout, and what puts a tensor into it."""

from collections.abc import Callable

import torch
from torch import Tensor


def _permuted(*order: int) -> Callable[[Tensor], Tensor]:
    """The same tensor, with its dimensions in this order in memory."""
    inverse = [order.index(d) for d in range(len(order))]
    return lambda x: x.permute(order).contiguous().permute(inverse)


def _filler(x: Tensor) -> float:
    """What nobody takes for a value of `x`."""
    return torch.nan if x.is_floating_point() else 1 if x.dtype == torch.bool else 119


def crop(x: Tensor) -> Tensor:
    whole = x.new_full([size + 3 for size in x.shape], _filler(x))
    return whole[tuple(slice(1, 1 + size) for size in x.shape)].copy_(x)


def every_other(x: Tensor) -> Tensor:
    return torch.stack([x, torch.full_like(x, _filler(x))], -1)[..., 0]


def misaligned(x: Tensor) -> Tensor:
    """For packs of numbers, not for the numbers themselves."""
    return torch.cat([x.new_zeros(1), x.flatten()])[1:].view(x.shape)


def _sliding_windows(x: Tensor) -> Tensor:
    """Classes and pixels are both next to each other in memory; the gradient's classes are not."""
    _, classes, height, width = x.shape
    return x.as_strided(x.shape, (classes * height * width, 1, classes, 1))


LAYOUTS_BY_DIM: dict[int, dict[str, Callable[[Tensor], Tensor]]] = {
    2: {
        "contiguous": lambda x: x,
        "transposed": _permuted(1, 0),
        "crop": crop,
        "every other": every_other,
        "expanded rows": lambda x: x[:1].expand_as(x),
        "expanded classes": lambda x: x[:, :1].expand_as(x),
        "misaligned": misaligned,
    },
    4: {
        "contiguous": lambda x: x,
        "channels_last": lambda x: x.contiguous(memory_format=torch.channels_last),
        "classes outermost": _permuted(1, 0, 2, 3),
        "width before height": _permuted(0, 1, 3, 2),
        "everything reversed": _permuted(3, 2, 1, 0),
        "crop": crop,
        "every other": every_other,
        "sliding windows": _sliding_windows,
        "expanded batch": lambda x: x[:1].expand_as(x),
        "expanded pixels": lambda x: x[:, :, :1, :1].expand_as(x),
    },
}
