"""The autograd Functions, a pair for each loss: the loss, and its gradient, which is differentiable again.

They live in Python because only `torch.autograd.Function` with a separate `setup_context` and a `vmap` works in all of
eager mode, torch.func, torch.compile and torch.export. First derivatives are kernels; second ones are formulas in torch
ops, in `derivatives.py`.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from ce_ext import derivatives, shapes
from ce_ext.options import CrossEntropyOptions
from ce_ext.reductions import MEAN, NONE

# Looking an overload up costs more than calling it.
_forward = torch.ops.ce_ext.cross_entropy_forward.default
_backward = torch.ops.ce_ext.cross_entropy_backward.default
_with_grad = torch.ops.ce_ext.cross_entropy_with_grad.default


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    sample_weight: Tensor | None,
    options: CrossEntropyOptions,
    report: bool = False,
) -> tuple[Tensor, ...]:
    """The loss with its derivatives and, if asked for, what is reported of every row."""
    differentiable = input.requires_grad
    loss, _, _, *reports = _apply(
        CrossEntropy,
        differentiable,
        input,
        target,
        weight,
        sample_weight,
        *options,
        differentiable or _is_transformed(),
        report,
    )
    return loss, *reports


def cross_entropy_with_grad(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    sample_weight: Tensor | None,
    options: CrossEntropyOptions,
    report: bool,
    inplace: bool,
    loss_scale: float | None,
) -> tuple[Tensor, ...]:
    """`cross_entropy` with its gradient computed at once, in the memory of the input if `inplace`."""
    if options.reduction == MEAN and input.dtype == torch.float16 and loss_scale is None:
        raise ValueError(
            "grad_in_forward would round the gradient of a float16 mean before any loss scaling reaches it: "
            "give loss_scale, the upstream gradient to expect, which is None"
        )
    if _is_transformed() or not (input.requires_grad and torch.is_grad_enabled()):
        return cross_entropy(input, target, weight, sample_weight, options, report)
    if inplace and input.is_leaf:
        raise RuntimeError("inplace: input is a leaf that requires grad, and its values would be lost")
    scale = 1.0 if loss_scale is None else loss_scale
    arguments = (input, target, weight, sample_weight, options, report, inplace, scale)
    return CrossEntropyWithGrad.apply(*arguments)


class CrossEntropyWithGrad(torch.autograd.Function):
    """The op `cross_entropy_with_grad`: (loss, *report), for one backward pass in eager mode."""

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        target: Tensor,
        weight: Tensor | None,
        sample_weight: Tensor | None,
        options: CrossEntropyOptions,
        report: bool,
        inplace: bool,
        loss_scale: float,
    ) -> tuple[Tensor, ...]:
        # Detached, the input shares its memory and its version counter.
        ctx.grad_input = input.detach() if inplace else torch.empty_like(input)
        ctx.options, ctx.loss_scale = options, loss_scale
        loss, reports = _with_grad(ctx.grad_input, input, target, weight, sample_weight, *options, report, loss_scale)
        ctx.mark_non_differentiable(*reports)
        ctx.set_materialize_grads(False)
        return loss, *reports

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
        others = (None,) * 7
        if grad_output is None:
            return None, *others
        if torch.is_grad_enabled():
            raise RuntimeError(
                "a gradient computed in the forward pass has no derivative: create_graph needs grad_in_forward=False"
            )
        if ctx.grad_input is None:
            raise RuntimeError(
                "a gradient computed in the forward pass serves one backward pass, and this is the second: "
                "it needs grad_in_forward=False"
            )
        grad_input, ctx.grad_input = ctx.grad_input, None
        factor = grad_output / ctx.loss_scale
        if ctx.options.reduction == NONE:
            factor = factor.unsqueeze(shapes.class_dim(grad_input, 0))
        if factor.is_cuda or not (factor == 1).all():  # to look costs a GPU more than to multiply
            grad_input.mul_(factor)
        return grad_input, *others


class CrossEntropy(torch.autograd.Function):
    """The op `cross_entropy_forward`: (loss, stats, denominator, *report), of which the loss is differentiable."""

    @staticmethod
    def forward(
        input: Tensor,
        target: Tensor,
        weight: Tensor | None,
        sample_weight: Tensor | None,
        reduction: int,
        ignore_index: int,
        label_smoothing: float,
        gamma: float,
        z_loss: float,
        logit_scale: float,
        softcap: float,
        input_is_log_prob: bool,
        zero_if_empty: bool,
        out_dtype: torch.dtype | None,
        batch_dims: int,
        keep_stats: bool,
        report: bool,
    ) -> tuple[Tensor, ...]:
        logits = (label_smoothing, gamma, z_loss, logit_scale, softcap, input_is_log_prob)
        options = (reduction, ignore_index, *logits, zero_if_empty, out_dtype, batch_dims)
        loss, stats, denominator, reports = _forward(input, target, weight, sample_weight, *options, keep_stats, report)
        return loss, stats, denominator, *reports

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        input, target, weight, sample_weight, *options, _, _ = inputs
        ctx.options = CrossEntropyOptions(*options)
        _, stats, denominator, *reports = output
        ctx.save_for_backward(input, target, weight, sample_weight, stats, denominator)
        ctx.mark_non_differentiable(stats, denominator, *reports)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
        others = (None,) * 16
        if grad_output is None:
            return None, *others
        grad_input = _apply(CrossEntropyBackward, True, grad_output, *ctx.saved_tensors, *ctx.options)
        return grad_input, *others

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *arguments: Any) -> tuple[Any, Any]:
        input, target, weight, sample_weight, *options, batch_dims, keep_stats, report = arguments
        if in_dims[2] is not None:  # the op takes one weight for all
            return _map_slices(CrossEntropy, info, in_dims, arguments)
        input, target = _batch_first(info, in_dims[:2], input, target)
        if sample_weight is not None:
            (sample_weight,) = _batch_first(info, in_dims[3:4], sample_weight)
        output = CrossEntropy.apply(input, target, weight, sample_weight, *options, batch_dims + 1, keep_stats, report)
        return output, tuple(0 if x.dim() > batch_dims else None for x in output)


class CrossEntropyBackward(torch.autograd.Function):
    """The op `cross_entropy_backward`: grad_input, differentiable in grad_output and input."""

    @staticmethod
    def forward(
        grad_output: Tensor,
        input: Tensor,
        target: Tensor,
        weight: Tensor | None,
        sample_weight: Tensor | None,
        stats: Tensor,
        denominator: Tensor,
        reduction: int,
        ignore_index: int,
        label_smoothing: float,
        gamma: float,
        z_loss: float,
        logit_scale: float,
        softcap: float,
        input_is_log_prob: bool,
        zero_if_empty: bool,
        out_dtype: torch.dtype | None,
        batch_dims: int,
    ) -> Tensor:
        logits = (label_smoothing, gamma, z_loss, logit_scale, softcap, input_is_log_prob)
        options = (reduction, ignore_index, *logits, zero_if_empty, out_dtype, batch_dims)
        return _backward(grad_output, input, target, weight, sample_weight, stats, denominator, *options)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        grad_output, input, target, weight, sample_weight, _, denominator, *options = inputs
        ctx.options = CrossEntropyOptions(*options)
        ctx.save_for_backward(grad_output, input, target, weight, sample_weight, denominator)

    @staticmethod
    def backward(ctx: Any, grad_grad_input: Tensor) -> tuple[Tensor | None, ...]:
        grad_output, input, target, weight, sample_weight, denominator = ctx.saved_tensors
        tangents = derivatives.CrossEntropyTangents(
            grad_grad_input, input, target, weight, sample_weight, denominator, ctx.options
        )
        return tangents.of_loss(), tangents.of_grad_input(grad_output), *((None,) * 16)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *arguments: Any) -> tuple[Any, Any]:
        if in_dims[3] is not None:
            return _map_slices(CrossEntropyBackward, info, in_dims, arguments)
        grad_output, input, target, weight, sample_weight, stats, denominator, *options, batch_dims = arguments
        grad_output, input, target = _batch_first(info, in_dims[:3], grad_output, input, target)
        if sample_weight is not None:
            (sample_weight,) = _batch_first(info, in_dims[4:5], sample_weight)
        (stats,) = _batch_first(info, in_dims[5:6], stats)
        if options[0] == MEAN:  # otherwise it is empty, whatever the batch
            (denominator,) = _batch_first(info, in_dims[6:7], denominator)
        tensors = (grad_output, input, target, weight, sample_weight, stats, denominator)
        return CrossEntropyBackward.apply(*tensors, *options, batch_dims + 1), 0


def _apply(function: type[torch.autograd.Function], differentiable: bool, *arguments: Any) -> Any:
    """What function.apply(*arguments) returns, at the least cost that the mode of the call allows.

    `torch.autograd.Function.apply` binds the arguments to the signature of `forward` each time, which transforms need
    and which costs more than the rest of a small call. Its base class skips that; where no gradient can be asked for,
    `forward` is enough.
    """
    if _is_transformed():
        return function.apply(*arguments)
    if differentiable and torch.is_grad_enabled():
        return super(torch.autograd.Function, function).apply(*arguments)  # type: ignore[misc]
    return function.forward(*arguments)


def _is_transformed() -> bool:
    return (
        torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0
    )


def _batch_first(info: Any, in_dims: tuple[int | None, ...], *tensors: Tensor) -> list[Tensor]:
    """The tensors with the mapped dimension in front; those that have none are expanded, which copies nothing."""
    return [
        tensor.expand(info.batch_size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
        for tensor, dim in zip(tensors, in_dims, strict=True)
    ]


def _map_slices(
    function: type[torch.autograd.Function], info: Any, in_dims: tuple[int | None, ...], arguments: tuple[Any, ...]
) -> tuple[Any, Any]:
    """What vmap means, one slice after another: for arguments that the op has no batch dimension for."""
    outputs = [
        function.apply(*(x if dim is None else x.select(dim, i) for x, dim in zip(arguments, in_dims, strict=True)))
        for i in range(info.batch_size)
    ]
    if isinstance(outputs[0], Tensor):
        return torch.stack(outputs), 0
    return tuple(torch.stack(parts) for parts in zip(*outputs, strict=True)), (0,) * len(outputs[0])
