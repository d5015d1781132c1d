"""The tensors of a configuration of `tests.support.company`: their values, and how they lie in memory."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tests.support.cases import class_dim
from tests.support.layouts import crop, every_other, misaligned

Configuration = dict[str, Any]
Tensors = dict[str, Tensor]

SAMPLES = 2  # of a batch that vmap maps

# Tensors to divide by: numbers, and their dtypes.
DENOMINATORS = {
    "tensor": (3, torch.float32),
    "count": (3, torch.int64),
    "differentiable": (-3, torch.float64),
    "nothing": (0, torch.float32),
}


def _transposed(x: Tensor) -> Tensor:
    order = range(x.dim() - 1, -1, -1)
    return x.permute(*order).contiguous().permute(*order) if x.dim() else x


# For tensors of any dtype: how many dimensions they have at least, and what lays them out.
LAYOUTS: dict[str, tuple[int, Callable[[Tensor], Tensor]]] = {
    "contiguous": (0, lambda x: x),
    "transposed": (2, _transposed),
    "channels last": (3, lambda x: x.movedim(1, -1).contiguous().movedim(-1, 1)),
    "crop": (1, crop),
    "every other": (1, every_other),
    "misaligned": (1, misaligned),
    "first expanded": (1, lambda x: x[:1].expand_as(x)),
    "last expanded": (1, lambda x: x[..., :1].expand_as(x)),
}


# Of a factor of elements: what it is one of for each, as a shape that broadcasts to that of the input.
FACTOR_SHAPES: dict[str, tuple[int, Callable[[tuple[int, ...]], tuple[int, ...]]]] = {
    "elements": (0, lambda shape: shape),
    "one": (0, lambda shape: ()),
    "last": (1, lambda shape: shape[-1:]),
    "classes": (2, lambda shape: shape[1:2] + (1,) * (len(shape) - 2)),
    "first": (2, lambda shape: shape[:1] + (1,) * (len(shape) - 1)),
}


def ignored_targets(dtype: torch.dtype, ignore_index: Any, ignore_nan: bool = False) -> list[float]:
    """Those that a target of this dtype can hold. Of a thousand that is ignored there shall be none."""
    values = [] if ignore_index is None else [ignore_index] if isinstance(ignore_index, int) else list(ignore_index)
    if dtype.is_floating_point:
        return [*values, *([torch.nan] if ignore_nan else [])]
    least = 0 if dtype == torch.bool else torch.iinfo(dtype).min
    return [value for value in values if least <= value < 1000]


def _shape(c: Configuration) -> tuple[int, ...]:
    """(), (C), (N, C), (N, C, d1) or (N, C, d1, d2), with so many rows and classes."""
    if c["rank"] < 2:
        return (c["classes"],) * c["rank"]
    rows, sizes = c["rows"], []
    for _ in range(c["rank"] - 2):
        sizes.append(next((factor for factor in (2, 3, 5) if rows % factor == 0), 1))
        rows //= sizes[-1]
    first, *others = *sizes, rows
    return (first, c["classes"], *others)


def _row_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[:1] + shape[2:] if len(shape) > 1 else ()


class Values:
    """Those of the tensors of one sample, before they are laid out."""

    def __init__(self, c: Configuration, sample: int) -> None:
        self.c, self.shape = c, _shape(c)
        self._generator = torch.Generator().manual_seed(sample)

    def uniform(self, shape: tuple[int, ...], low: float, high: float) -> Tensor:
        return torch.rand(shape, generator=self._generator, dtype=torch.float64) * (high - low) + low

    def logits(self) -> Tensor:
        return torch.randn(self.shape, generator=self._generator, dtype=torch.float64) * self.c["magnitude"]

    def log_softmax(self) -> Tensors:
        return {"input": self._moved(self.logits()).to(self.c["dtype"])}

    def indices(self) -> Tensors:
        return self._of_rows(self.logits(), self._class_indices(self.c["classes"]))

    def log_probabilities(self) -> Tensors:
        logits = self.logits()
        return self._of_rows(logits.log_softmax(class_dim(self.shape)), self._class_indices(self.c["classes"]))

    def probabilities(self) -> Tensors:
        return self._of_rows(self.logits(), self.logits().softmax(class_dim(self.shape)).to(self.c["target_dtype"]))

    def elements(self) -> Tensors:
        return self._of_elements(self.logits(), self._labels())

    def probable_elements(self) -> Tensors:
        """Not so near to 0 and 1 that halves are one of them."""
        return self._of_elements(self.logits().sigmoid().clamp(1 / 64, 63 / 64), self._labels())

    def binary_indices(self) -> Tensors:
        """With a background."""
        return self._of_elements(self.logits(), self._class_indices(self.c["classes"] + 1))

    def _of_rows(self, input: Tensor, target: Tensor) -> Tensors:
        c = self.c
        target = self._moved(target) if target.is_floating_point() else target
        tensors = {"input": self._moved(input).to(c["dtype"]), "target": target}
        if c["weight_dtype"] is not None:
            tensors["weight"] = self.uniform((c["classes"],), 0.1, 1.1).to(c["weight_dtype"])
        rows = _row_shape(self.shape)
        if c["sample_weight"] == "zeros":
            tensors["sample_weight"] = torch.zeros(rows, dtype=c["dtype"])
        elif c["sample_weight"] is not None:
            tensors["sample_weight"] = self.uniform(rows, 0.5, 2).to(c["sample_weight"])
        return tensors | self._denominator()

    def _moved(self, x: Tensor) -> Tensor:
        dim = self.c["dim"]
        return x if dim is None or x.dim() < 2 else x.movedim(1, dim).contiguous()

    def _of_elements(self, input: Tensor, target: Tensor) -> Tensors:
        c = self.c
        tensors = {"input": input.to(c["dtype"]), "target": target}
        for name in ("weight", "pos_weight"):
            if c.get(name) is not None:
                tensors[name] = self._factor(c[name], 0.5, 2).to(c[f"{name}_dtype"])
        if isinstance(c.get("alpha"), str):
            tensors["alpha"] = self._factor(c["alpha"], 0, 1).to(c["dtype"])
        return tensors | self._denominator()

    def _denominator(self) -> Tensors:
        kind = self.c["denominator"]
        if not isinstance(kind, str):
            return {}
        number, dtype = DENOMINATORS[kind]
        return {"denominator": torch.tensor(number, dtype=dtype)}

    def _factor(self, shape: str, low: float, high: float) -> Tensor:
        _, of_input = FACTOR_SHAPES[shape]
        return self.uniform(of_input(self.shape), low, high)

    def _class_indices(self, count: int) -> Tensor:
        return self._ignored(torch.randint(0, count, _row_shape(self.shape), generator=self._generator))

    def _labels(self) -> Tensor:
        """A third of them neither 0 nor 1, if they can be."""
        labels = self.uniform(self.shape, 0, 1)
        between = labels < (1 / 3 if self.c["target_dtype"].is_floating_point else 0)
        return self._ignored(labels.where(between, labels.gt(2 / 3).double()))

    def _ignored(self, target: Tensor) -> Tensor:
        c = self.c
        share = {"some": 0.3, "none": 0, "all": 1}[c["ignored"]]
        values = ignored_targets(c["target_dtype"], c["ignore_index"], c.get("ignore_nan", False))
        for i, value in enumerate(values):
            target = target.masked_fill(self.uniform(target.shape, 0, 1) < (share if i == 0 else share / 2), value)
        return target.to(c["target_dtype"])
