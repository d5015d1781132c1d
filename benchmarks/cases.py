"""What is measured: every function at these shapes, and at some of them in its other dtypes, layouts and options."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

import torch

from benchmarks.functions import CROSS_ENTROPY, FUNCTIONS, Function
from benchmarks.labels import label

Shape = tuple[int, ...]

# Too small for bandwidth to matter: the time is the overhead of the call.
TINY_SHAPES = ((8, 16), (64, 5))
ROWS, IMAGES = (8192, 1000), (8, 19, 256, 256)  # ImageNet's classes, and Cityscapes', which are strided
# As large as patience allows.
SHAPES: tuple[Shape, ...] = (
    *TINY_SHAPES,
    (64, 1000),
    ROWS,
    (1024, 32_000),  # Llama 2's vocabulary
    (512, 128_256),  # Llama 3's vocabulary
    (1, 16_777_216),  # a row that threads have to share
    (4_194_304, 2),  # many rows of few classes
    (2_097_152, 5),
    (1_048_576, 10),
    (524_288, 19),
    (524_288, 32),
    (131_072, 100),
    IMAGES,
)
# Of functions that share the loops of cross entropy, one of a kind: a call, many classes, few, strided ones.
SHAPES_OF_OTHERS: tuple[Shape, ...] = ((8, 16), ROWS, (1_048_576, 10), IMAGES)
# Of losses of elements, whose number is all that counts.
SHAPES_OF_BINARY: tuple[Shape, ...] = ((8, 16), (64, 1000), (16_777_216,))
QUICK_SHAPES = ((8, 16), (64, 1000), (32_768, 100))
DTYPES = ("float32", "bfloat16", "float16")
QUICK_DTYPES = ("float32", "bfloat16")
# Of the tests' layouts, by shape: those that transposed products and images have, and rows that are not adjacent.
LAYOUTS: dict[Shape, tuple[str, ...]] = {ROWS: ("transposed", "crop"), IMAGES: ("channels_last", "everything reversed")}
LAYOUTS_OF_OTHERS: dict[Shape, tuple[str, ...]] = {ROWS: ("transposed",), IMAGES: ("channels_last",)}
LAYOUTS_OF_NLL: dict[Shape, tuple[str, ...]] = {ROWS: ("transposed",)}  # of other images torch has no backward
FLOAT16_SHAPES = (ROWS, (16_777_216,))  # of other functions than cross entropy; bfloat16 has the rest
# Of more terms than these torch's mean of float16 is infinite, and its gradient too small for float16.
FLOAT16_TERMS = 4096
# As training has them on a GPU, where time is dearer: those first that say most, each part in about 150 seconds. A case
# takes ten, most of them for compilers.
GPU_ROWS, GPU_IMAGES, GPU_ELEMENTS = (8192, 32_000), (8, 19, 1024, 1024), (268_435_456,)
GPU_CASES: dict[str, tuple[tuple[str, str, dict[str, Any], tuple[Shape, ...]], ...]] = {
    "first": (
        (
            "cross_entropy",
            "bfloat16",
            {},
            (
                (8192, 128_256),
                GPU_ROWS,
                (16_384, 50_257),  # GPT-2's vocabulary: odd, so that only every eighth row is aligned
                (32_768, 1024),
                (1_048_576, 100),
                (1_048_576, 10),
                GPU_IMAGES,
                (32_768, 4096),
            ),
        ),
        ("binary_cross_entropy_with_logits", "bfloat16", {}, (GPU_ELEMENTS,)),
        ("sigmoid_focal_loss", "bfloat16", {}, (GPU_ELEMENTS,)),
        ("cross_entropy", "float32", {}, (GPU_ROWS, (32_768, 1024), (8, 16))),
        ("cross_entropy", "float16", {}, (GPU_ROWS,)),
        ("asymmetric_loss", "bfloat16", {}, (GPU_ELEMENTS,)),
    ),
    "others": (
        ("log_softmax", "bfloat16", {}, (GPU_ROWS, (1_048_576, 10))),
        ("soft_cross_entropy", "bfloat16", {}, (GPU_ROWS, (1_048_576, 10))),
        ("cross_entropy", "bfloat16", {"options": {"label_smoothing": 0.1}}, (GPU_ROWS,)),
        ("cross_entropy", "bfloat16", {"reduction": "none"}, (GPU_ROWS,)),
        ("softmax_focal_loss", "bfloat16", {}, (GPU_ROWS,)),
        ("nll_loss", "bfloat16", {}, (GPU_ROWS,)),
        ("binary_cross_entropy", "bfloat16", {}, (GPU_ELEMENTS,)),
        ("cross_entropy", "bfloat16", {}, ((262_144, 256), (8, 150, 256, 256))),
        ("cross_entropy", "float32", {}, ((1_048_576, 100), GPU_IMAGES)),
        ("binary_cross_entropy_with_logits", "float32", {}, ((8, 16), GPU_ELEMENTS)),
    ),
}


@dataclass(frozen=True)
class Case:
    loss: Function
    shape: Shape
    dtype: torch.dtype
    reduction: str = "mean"
    layout: str = "contiguous"  # of the input
    options: dict[str, Any] = field(default_factory=dict)  # True stands for a tensor

    @property
    def is_tiny(self) -> bool:
        return is_tiny(self.shape)

    @property
    def is_plain(self) -> bool:
        """Any implementation takes it."""
        return self == Case(self.loss, self.shape, self.dtype)  # all else has its default

    @property
    def dtype_name(self) -> str:
        return str(self.dtype).removeprefix("torch.")

    @property
    def heading(self) -> str:
        return f"{self.loss.name}, {self.dtype_name}"

    @property
    def label(self) -> str:
        return label(self.shape, self.reduction, self.layout, self.options)

    def __str__(self) -> str:
        return f"{self.heading}, {self.label}"


def is_tiny(shape: Sequence[int]) -> bool:
    return tuple(shape) in TINY_SHAPES


def select(
    losses: Sequence[str],
    shapes: Sequence[str],
    dtypes: Sequence[str],
    reductions: Sequence[str],
    device: str,
    quick: bool,
    parts: Iterable[str] = GPU_CASES,
) -> Iterator[Case]:
    """Cases whose loss and label contain one of the parts asked for; none asked for means all."""
    for case in _of_gpu(parts) if device == "cuda" and not quick else _of_functions(dtypes, quick):
        is_wanted = not dtypes or case.dtype_name in dtypes
        is_wanted = is_wanted and (not reductions or case.reduction in reductions)
        if is_wanted and _is_asked_for(case.loss, losses) and _contains(case.label, shapes):
            yield case


def _of_gpu(parts: Iterable[str]) -> Iterator[Case]:
    for name, dtype, unusual, shapes in chain(*(GPU_CASES[part] for part in parts)):
        for case in _plain(FUNCTIONS[name], shapes, dtype):
            yield replace(case, **unusual)


def _of_functions(dtypes: Sequence[str], quick: bool) -> Iterator[Case]:
    for loss in FUNCTIONS.values():
        yield from _quick(loss, dtypes) if quick else _cases(loss, dtypes)


def _quick(loss: Function, dtypes: Sequence[str]) -> Iterator[Case]:
    for dtype in dtypes or QUICK_DTYPES:
        yield from _plain(loss, QUICK_SHAPES, dtype)


def _cases(loss: Function, dtypes: Sequence[str]) -> Iterator[Case]:
    first, *others = dtypes or DTYPES
    shapes = SHAPES_OF_BINARY if loss.is_binary else SHAPES if loss is CROSS_ENTROPY else SHAPES_OF_OTHERS
    yield from _plain(loss, shapes, first)
    yield from _unusual(loss, first)
    for dtype in others:
        is_whole = loss is CROSS_ENTROPY or dtype != "float16"
        yield from _plain(loss, [shape for shape in shapes if is_whole or shape in FLOAT16_SHAPES], dtype)


def _plain(loss: Function, shapes: Sequence[Shape], dtype_name: str) -> Iterator[Case]:
    dtype = getattr(torch, dtype_name)
    for shape in shapes:
        if shape in TINY_SHAPES and dtype != torch.float32:
            continue  # the overhead of a call hardly depends on the dtype
        terms = math.prod(shape) // max(loss.class_count(shape), 1)
        is_mean = loss.is_reduced and not (dtype == torch.float16 and terms > FLOAT16_TERMS)
        yield Case(loss, shape, dtype, "mean" if is_mean else "none")


def _unusual(loss: Function, dtype_name: str) -> Iterator[Case]:
    plain = Case(loss, ROWS, getattr(torch, dtype_name), "mean" if loss.is_reduced else "none")
    if loss.is_reduced:
        yield replace(plain, reduction="none")
    for options in loss.options:
        yield replace(plain, options=options)
    layouts_by_shape = LAYOUTS if loss is CROSS_ENTROPY else LAYOUTS_OF_OTHERS if loss.reads_all else LAYOUTS_OF_NLL
    for shape, layouts in layouts_by_shape.items():
        for layout in layouts:
            yield replace(plain, shape=shape, layout=layout)


def _is_asked_for(loss: Function, parts: Sequence[str]) -> bool:
    """A whole name is that function alone: that of cross entropy is a part of others."""
    return not parts or any(part == loss.name if part in FUNCTIONS else part in loss.name for part in parts)


def _contains(name: str, parts: Sequence[str]) -> bool:
    return not parts or any(part in name for part in parts)
