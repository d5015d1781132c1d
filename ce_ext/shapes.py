"""What the shape and dtype of the logits say, for the parts of ce_ext that work without kernels."""

import torch
from torch import Tensor


def opmath_dtype(input: Tensor) -> torch.dtype:
    """The dtype that kernels compute in."""
    return torch.float64 if input.dtype == torch.float64 else torch.float32


def class_dim(input: Tensor, batch_dims: int) -> int:
    """The dimension of the classes: a sample behind the batch dimensions is (C), or (N, C, d1, ...)."""
    return min(batch_dims + 1, input.ndim - 1)


def row_shape(input: Tensor, batch_dims: int) -> torch.Size:
    """The shape of what there is one of for each row."""
    dim = class_dim(input, batch_dims)
    return input.shape[:dim] + input.shape[dim + 1 :]
