"""What `torch.jit.script` compiles in place of the modules of `ce_ext.nn`: the ops, without the Python around them.

To TorchScript, the options of an op are a tuple, in whatever order the op takes them. A module that it has saved needs
nothing of ce_ext but its ops: ``import ce_ext`` before `torch.jit.load`.
"""

from typing import Any

import torch
from torch import Tensor

from ce_ext import checks, reductions
from ce_ext.options import BinaryCrossEntropyOptions, CrossEntropyOptions, SoftCrossEntropyOptions


class OfClassIndices(torch.nn.Module):
    weight: Tensor | None

    def __init__(self, module: Any, input_is_log_prob: bool = False) -> None:
        super().__init__()
        self.register_buffer("weight", module.weight)
        self.register_buffer("sample_weight", module.sample_weight)
        self.options = _settings(module, CrossEntropyOptions, input_is_log_prob=input_is_log_prob, keep_stats=False)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        tensors = (input, target, self.weight, self.sample_weight)
        return torch.ops.ce_ext.cross_entropy_forward(*tensors, *self.options)[0]


class OfClasses(OfClassIndices):
    """Class indices or class probabilities."""

    def __init__(self, module: Any) -> None:
        super().__init__(module)
        self.soft_options = _settings(module, SoftCrossEntropyOptions, keep_stats=False)
        self.ignores = bool(module.ignore_index != -100)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        if target.is_floating_point():
            if self.ignores:
                raise ValueError("ignore_index is for targets of class indices, and target holds class probabilities")
            dtype = torch.promote_types(input.dtype, target.dtype)
            weight, sample_weight = self.weight, self.sample_weight
            if weight is not None:
                dtype = torch.promote_types(dtype, weight.dtype)
                weight = weight.to(dtype)
            if sample_weight is not None:
                sample_weight = sample_weight.to(dtype)
            tensors = (input.to(dtype), target.to(dtype), weight, sample_weight)
            return torch.ops.ce_ext.soft_cross_entropy_forward(*tensors, *self.soft_options)[0]
        tensors = (input, target, self.weight, self.sample_weight)
        return torch.ops.ce_ext.cross_entropy_forward(*tensors, *self.options)[0]


class OfElements(torch.nn.Module):
    def __init__(
        self, module: Any, input_is_probability: bool = False, target_may_be_class: bool = False, **settings: Any
    ) -> None:
        super().__init__()
        self.target_may_be_class = target_may_be_class
        alpha = getattr(module, "alpha", -1.0)
        self.register_buffer("weight", module.weight)
        self.register_buffer("pos_weight", getattr(module, "pos_weight", None))
        self.register_buffer("alpha", alpha if isinstance(alpha, Tensor) else None)
        of_all = -1.0 if isinstance(alpha, Tensor) else alpha
        self.options = _settings(
            module, BinaryCrossEntropyOptions, input_is_probability=input_is_probability, alpha=of_all, **settings
        )

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        if not self.target_may_be_class and target.shape != input.shape:
            raise ValueError(f"target must have the shape of input, {input.shape}, but got shape {target.shape}")
        if target.is_floating_point():
            input = input.to(torch.promote_types(input.dtype, target.dtype))
        tensors = (input, target, self.weight, self.pos_weight, self.alpha)
        return torch.ops.ce_ext.binary_cross_entropy_forward(*tensors, *self.options)[0]


class OfLogSoftmax(torch.nn.Module):
    def __init__(self, dim: int | None) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, input: Tensor) -> Tensor:
        dim = self.dim
        if dim is None:
            dim = 0 if input.dim() == 0 or input.dim() == 1 or input.dim() == 3 else 1
        return torch.ops.ce_ext.log_softmax_forward(input, dim, None)


def _settings(module: Any, options: Any, **settings: Any) -> tuple[Any, ...]:
    """The options of an op, from the attributes of a module that have their names."""
    given = {name: getattr(module, name) for name in (*module._arguments, *module._chosen)}
    fields = {*CrossEntropyOptions._fields, *BinaryCrossEntropyOptions._fields} - {"out_dtype"}
    of_ops = {"denominator", "on_empty", "gamma_pos", *fields}
    for name, value in given.items():
        is_of_python = isinstance(value, (tuple, list)) or (name == "denominator" and isinstance(value, Tensor))
        if is_of_python or name not in {*of_ops, *module._buffers}:
            raise NotImplementedError(f"torch.jit.script takes no {name}={value!r} of a {type(module).__name__}")
    reductions.check_options(module.reduction, module.denominator, module.on_empty, out_dtype=None)
    settings |= {"reduction": reductions.number_of(module.reduction), "zero_if_empty": module.on_empty == "zero"}
    named = {name: value for name, value in given.items() if name in options._fields}
    return tuple(options(**_numbers(options, named | settings | {"divisor": module.denominator})))


def _numbers(options: Any, values: dict[str, Any]) -> dict[str, Any]:
    """As TorchScript takes them: an int is no float to it, and a number of numpy nothing."""

    def number(name: str, value: Any) -> Any:
        kind = options.__annotations__[name]
        if value is None or kind not in (float, float | None, int, int | None):
            return value
        return checks.integer(name, value) if kind in (int, int | None) else float(checks.real(name, value))

    return {name: number(name, value) for name, value in values.items()}
