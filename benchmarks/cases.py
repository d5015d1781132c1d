"""What is measured: the losses of the tests' table, at these shapes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from tests.cases import LOSSES, Loss

SHAPES = (
    (64, 1000),  # ImageNet: a small batch, then a large one
    (8192, 1000),
    (1024, 32_000),  # Llama 2's vocabulary
    (512, 128_256),  # Llama 3's vocabulary
    (1_048_576, 10),  # many rows of few classes
    (131_072, 100),
    (8, 19, 256, 256),  # segmentation, Cityscapes' classes: the class dimension is strided
)
# Too small for bandwidth to matter: the time is the overhead of the call.
TINY_SHAPES = ((8, 16), (64, 5))
QUICK_SHAPES = ((8, 16), (64, 1000), (131_072, 100))


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


def select(losses: Sequence[str], shapes: Sequence[str], dtypes: Sequence[str], quick: bool) -> Iterator[Case]:
    """Cases whose loss and shape contain one of the parts asked for; none asked for means all."""
    for loss in LOSSES:
        for dtype in dtypes:
            for shape in QUICK_SHAPES if quick else TINY_SHAPES + SHAPES:
                case = Case(loss, shape, getattr(torch, dtype))
                if (
                    _contains(loss.name, losses)
                    and _contains(case.shape_name, shapes)
                    and not (case.is_tiny and dtype != "float32")  # overhead hardly depends on it
                ):
                    yield case


def _contains(name: str, parts: Sequence[str]) -> bool:
    return not parts or any(part in name for part in parts)
