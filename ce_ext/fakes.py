"""Shapes, dtypes and strides of every op, for tensors without data: torch.compile, torch.export, FakeTensorMode."""

import torch
from torch import Tensor

from ce_ext.reductions import MEAN, NONE
from ce_ext.shapes import opmath_dtype, row_shape


@torch.library.register_fake("ce_ext::cross_entropy_forward")
def _(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    reduction: int,
    ignore_index: int,
    label_smoothing: float,
    batch_dims: int,
) -> tuple[Tensor, Tensor, Tensor]:
    for name, tensor in (("target", target), ("weight", weight)):
        if tensor is not None and tensor.device != input.device:
            raise RuntimeError(
                f"input and {name} must be on the same device, but got input on {input.device} "
                f"and {name} on {tensor.device}"
            )
    opmath = opmath_dtype(input)
    rows = row_shape(input, batch_dims)
    batch = input.shape[:batch_dims]
    return (
        input.new_empty(rows if reduction == NONE else batch),
        input.new_empty((*rows, 2), dtype=opmath),
        input.new_empty(batch if reduction == MEAN else (0,), dtype=opmath),
    )


@torch.library.register_fake("ce_ext::cross_entropy_backward")
def _(grad_output: Tensor, input: Tensor, *_: object) -> Tensor:
    return torch.empty_like(input)


@torch.library.register_fake("ce_ext::log_softmax_forward")
def _(input: Tensor, dim: int, dtype: torch.dtype | None) -> Tensor:
    return torch.empty_like(input, dtype=dtype)


@torch.library.register_fake("ce_ext::log_softmax_backward")
def _(grad_output: Tensor, output: Tensor, dim: int, input_dtype: torch.dtype) -> Tensor:
    return torch.empty_like(output, dtype=input_dtype)
