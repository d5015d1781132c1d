"""Losses whose gradient is computed in the forward pass, for one backward pass in eager mode."""

import inspect
import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from ce_ext import _C, checks, distributed
from ce_ext.autograd import all_results
from ce_ext.options import CrossEntropyOptions
from ce_ext.reductions import MEAN, divide

_C.register_ready_gradient("ce_ext::cross_entropy_with_grad", gradient="ce_ext::scale_gradient")
_loss_with_grad = _C.quick_call("ce_ext::cross_entropy_with_grad")


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    sample_weight: Tensor | None,
    options: CrossEntropyOptions,
    overwritten: Tensor | None,
    loss_scale: float | None,
    denominator: Tensor | float | None,
    on_empty: str,
) -> tuple[Tensor, ...]:
    """The loss, divided by a denominator that the options do not know, and what is reported of its rows.

    With `overwritten`, the logits as they were given, the gradient is in their memory, of which `input` is a view.
    """
    is_mean = options.reduction == MEAN or denominator is not None
    if is_mean and input.dtype == torch.float16 and loss_scale is None:
        raise ValueError(
            "grad_in_forward would round the gradient of a float16 mean before any loss scaling reaches it: "
            "give loss_scale, the upstream gradient to expect, which is None"
        )
    is_transformed = _is_transformed()
    if loss_scale is not None:
        loss_scale = checks.real("loss_scale", loss_scale)
        if not is_transformed and (loss_scale == 0 or not math.isfinite(loss_scale)):
            raise ValueError(f"loss_scale must be finite and not 0, but got {loss_scale!r}")
    tensors = (input, target, weight, sample_weight)
    if not (input.requires_grad and torch.is_grad_enabled()) or is_transformed or distributed.is_dtensor(input):
        loss, _, _, *reports = all_results("ce_ext::cross_entropy_forward", *tensors, *options)
        return loss if denominator is None else divide(loss, denominator, on_empty), *reports
    if overwritten is not None and (input if input._base is None else input._base).is_leaf:
        raise RuntimeError("inplace: input is, or is a view of, a leaf that requires grad, whose values would be lost")
    if isinstance(denominator, Tensor) and denominator.is_cpu and not denominator.requires_grad:
        options, denominator = options._replace(reduction=MEAN, divisor=float(denominator)), None
    # Detached, the input shares its memory and its version counter.
    grad_input = torch.empty_like(input) if overwritten is None else input.detach()
    scale = 1.0 if loss_scale is None else loss_scale
    settings = (*options.of_backward(), options.report, scale)
    if options.report:
        loss, *reports = torch.ops.ce_ext.cross_entropy_with_grad(grad_input, *tensors, *settings)
    else:
        loss, reports = _loss_with_grad(grad_input, *tensors, settings), []
    if overwritten is not None:
        _refuse_reads(overwritten)
    return loss if denominator is None else divide(loss, denominator, on_empty), *reports


def _is_transformed() -> bool:
    return (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
    )


class OverwrittenLogits(Tensor):
    """The class of logits from ``inplace=True`` on: a tensor whose values are gradients, not to be taken for logits.

    It has a shape, a dtype, a graph, hooks and a gradient as before, and refuses what reads values. Whoever fills it
    with other values has a plain tensor again.
    """

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(function, "__name__", str(function))
        is_source = any(isinstance(argument, cls) for argument in (*args[1:], *(kwargs or {}).values()))
        writes = name in _WRITE_ALL_VALUES and not is_source
        if not (name in _READ_NO_VALUES or writes or function in _METADATA):
            raise RuntimeError(
                f"{name}: these logits hold their gradient since cross_entropy(inplace=True): read them before, or ask "
                "for return_stats"
            )
        with torch._C.DisableTorchFunctionSubclass():
            result = function(*args, **(kwargs or {}))
        if writes:
            args[0].__class__ = Tensor  # type: ignore[assignment]
        return result

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"OverwrittenLogits(shape={tuple(self.shape)}, dtype={self.dtype}, device={str(self.device)!r})"


def _refuse_reads(logits: Tensor) -> None:
    """Of the tensor, and of the one that it is a view of all of: (B, T, V) of which the loss is taken as (B * T, V)."""
    for tensor in (logits, logits._base):
        if type(tensor) is Tensor and tensor.numel() == logits.numel():
            tensor.__class__ = OverwrittenLogits  # type: ignore[assignment]


# By their names, of which torch's versions have more or fewer.
_READ_NO_VALUES = frozenset(
    {
        "__dir__", "__format__", "__hash__", "__len__", "__repr__", "_is_view", "_use_count", "backward", "data_ptr",
        "dim", "dim_order", "element_size", "get_device", "grad", "has_names", "is_complex", "is_contiguous",
        "is_floating_point", "is_inference", "is_signed", "ndimension", "nelement", "numel", "record_stream",
        "register_hook", "register_post_accumulate_grad_hook", "requires_grad_", "retain_grad", "size",
        "storage_offset", "stride", "untyped_storage",
    }
)  # fmt: skip
_WRITE_ALL_VALUES = frozenset({"copy_", "fill_", "zero_"})
_READERS = {"__cuda_array_interface__", "data", "T", "mT", "H", "mH", "real", "imag"}  # among the properties
_METADATA = {
    *(
        getattr(Tensor, name).__get__
        for name in dir(Tensor)
        if inspect.isdatadescriptor(getattr(Tensor, name)) and name not in _READERS
    ),
    *(getattr(Tensor, name).__set__ for name in ("grad", "requires_grad")),
}
