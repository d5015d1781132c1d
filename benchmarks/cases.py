"""What is measured: the losses of the tests' table, at these shapes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from tests.cases import CROSS_ENTROPY, Loss
from tests.losses import LOSSES

# Too small for bandwidth to matter: the time is the overhead of the call.
TINY_SHAPES = ((8, 16), (64, 5))
# As large as patience allows on a CPU, and as training has them on a GPU.
SHAPES = {
    "cpu": (
        *TINY_SHAPES,
        (64, 1000),  # ImageNet: a small batch, then a large one
        (8192, 1000),
        (1024, 32_000),  # Llama 2's vocabulary
        (512, 128_256),  # Llama 3's vocabulary
        (1_048_576, 10),  # many rows of few classes
        (131_072, 100),
        (8, 19, 256, 256),  # segmentation, Cityscapes' classes: the class dimension is strided
    ),
    "cuda": (
        *TINY_SHAPES[:1],
        (8192, 128_256),
        (8192, 32_000),
        (32_768, 1024),
        (1_048_576, 10),
        (1_048_576, 100),
        (8, 19, 1024, 1024),
        (16_384, 50_257),  # GPT-2's vocabulary: odd, so that only every eighth row of bfloat16 is aligned
    ),
}
DTYPES = {"cpu": ("float32", "bfloat16"), "cuda": ("bfloat16", "float32")}
# Of losses that share the loops of cross entropy, one of a kind: a call, many classes, few, strided ones.
SHAPES_OF_OTHERS = {
    "cpu": ((8, 16), (8192, 1000), (1_048_576, 10), (8, 19, 256, 256)),
    "cuda": ((8, 16), (8192, 32_000), (1_048_576, 10), (8, 19, 1024, 1024)),
}
# Of losses of elements, whose number is all that counts.
SHAPES_OF_BINARY = {"cpu": ((8, 16), (64, 1000), (16_777_216,)), "cuda": ((8, 16), (268_435_456,))}
QUICK_SHAPES = ((8, 16), (64, 1000), (131_072, 100))
# Training has logits as large as these in a half type; float32 would take long, and tell nothing new.
HALF_TYPES_ONLY = ((8192, 128_256), (16_384, 50_257))


@dataclass(frozen=True)
class Case:
    loss: Loss
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def is_tiny(self) -> bool:
        return self.shape in TINY_SHAPES

    @property
    def shape_name(self) -> str:
        return "x".join(map(str, self.shape))

    @property
    def dtype_name(self) -> str:
        return str(self.dtype).removeprefix("torch.")

    @property
    def heading(self) -> str:
        return f"{self.loss.name}, {self.dtype_name}"

    def __str__(self) -> str:
        return f"{self.heading}, {self.shape_name}"


def select(
    losses: Sequence[str], shapes: Sequence[str], dtypes: Sequence[str], device: str, quick: bool
) -> Iterator[Case]:
    """Cases whose loss and shape contain one of the parts asked for; none asked for means all."""
    for loss in LOSSES:
        for dtype in dtypes:
            for shape in QUICK_SHAPES if quick else _shapes(loss, device):
                case = Case(loss, shape, getattr(torch, dtype))
                if (
                    _is_asked_for(loss, losses)
                    and _contains(case.shape_name, shapes)
                    and not (case.is_tiny and dtype != "float32")  # overhead hardly depends on it
                    and not (shape in HALF_TYPES_ONLY and dtype == "float32")
                ):
                    yield case


def _shapes(loss: Loss, device: str) -> tuple[tuple[int, ...], ...]:
    if loss.is_binary:
        return SHAPES_OF_BINARY[device]
    return (SHAPES if loss is CROSS_ENTROPY else SHAPES_OF_OTHERS)[device]


def _is_asked_for(loss: Loss, parts: Sequence[str]) -> bool:
    """A whole name is that loss alone: that of cross entropy is a part of others."""
    names = {loss.name for loss in LOSSES}
    return not parts or any(part == loss.name if part in names else part in loss.name for part in parts)


def _contains(name: str, parts: Sequence[str]) -> bool:
    return not parts or any(part in name for part in parts)
