"""What shapes and dtypes say, for the parts of ce_ext that work without kernels."""

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


def class_indices(target: Tensor) -> Tensor:
    """A target of any integer dtype as int64. What does not fit is the largest int64, which is no class either."""
    indices = target.to(torch.int64)
    if target.dtype == torch.uint64:
        indices = indices.where(indices >= 0, torch.iinfo(torch.int64).max)
    return indices


def is_counted(target: Tensor, ignore_index: int | None, ignore_nan: bool) -> Tensor:
    """Where it is not ignored, of elements or of the classes of rows."""
    valid = torch.ones_like(target, dtype=torch.bool) if ignore_index is None else target != ignore_index
    return valid & ~target.isnan() if ignore_nan else valid


def along(values: Tensor, input: Tensor, dim: int) -> Tensor:
    """One value for each class, as it is multiplied with elements of `input`."""
    return values.view([-1 if d == dim else 1 for d in range(input.dim())])


def is_class(index: Tensor, input: Tensor, dim: int) -> Tensor:
    """Whether elements of `input` are of the class that `index` says of each row, where it has a dimension of one."""
    classes = input.shape[dim] if input.dim() else 1
    return index == along(torch.arange(classes, device=input.device), input, dim)


def is_largest(input: Tensor, dim: int) -> Tensor:
    """Which element of each row along `dim` is the largest: the first of them."""
    if input.numel() == 0:
        return torch.zeros_like(input, dtype=torch.bool)
    return is_class(input.argmax(dim, keepdim=True), input, dim)
