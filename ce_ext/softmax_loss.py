"""From the arguments of softmax losses to their ops: checks, options, and what is around the ops."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ce_ext import autograd, distributed, reductions, with_grad
from ce_ext.options import CrossEntropyOptions, SoftCrossEntropyOptions
from ce_ext.shapes import opmath_dtype

# All that the op takes after label smoothing, as it is where no option is given: for logits, and for log-probabilities.
_OF_LOGITS, _OF_LOG_PROBS = (
    CrossEntropyOptions(reduction=0, ignore_index=0, input_is_log_prob=is_log_prob, keep_stats=False)[3:]
    for is_log_prob in (False, True)
)


class SoftmaxStats(NamedTuple):
    """What ``return_stats=True`` tells of every row, each in the shape of class indices. None of it is differentiable.

    With ``softcap`` or ``logit_scale`` it is about the logits that the loss is taken of. lse, entropy and
    target_log_prob are float32, or float64 for float64 logits.
    """

    lse: Tensor
    """The log-sum-exp of the logits."""
    entropy: Tensor
    """The entropy of their softmax, in nats."""
    argmax: Tensor
    """The class with the largest logit, the first one if there are several; int64."""
    target_log_prob: Tensor
    """The log-probability of the target; 0 where the row is ignored. Of class probabilities q it is the sum of
    q_j log p_j, without class weights and label smoothing."""


def plain_cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    ignore_index: int,
    reduction: str,
    label_smoothing: float,
    input_is_log_prob: bool = False,
) -> Tensor:
    """`softmax_loss` without options, for which a small problem has no time."""
    how = _check(input, target, weight, reduction, input_is_log_prob)
    if distributed.is_dtensor(input):
        return softmax_loss(
            input, target, weight, ignore_index, reduction, label_smoothing, input_is_log_prob=input_is_log_prob
        )
    options = (how, ignore_index, label_smoothing, *(_OF_LOG_PROBS if input_is_log_prob else _OF_LOGITS))
    return autograd.cross_entropy(input, target, weight, None, options)


def softmax_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    ignore_index: int,
    reduction: str,
    label_smoothing: float,
    *,
    gamma: float = 0.0,
    input_is_log_prob: bool = False,
    probabilities: bool = False,
    z_loss: float = 0.0,
    softcap: float = 0.0,
    logit_scale: float = 1.0,
    sample_weight: Tensor | None = None,
    denominator: Tensor | float | None = None,
    on_empty: str = "nan",
    out_dtype: torch.dtype | None = None,
    return_stats: bool = False,
    grad_in_forward: bool = False,
    inplace: bool = False,
    loss_scale: float | None = None,
) -> Any:
    how = _check(input, target, weight, reduction, input_is_log_prob)
    if sample_weight is not None and sample_weight.requires_grad:
        raise RuntimeError("sample_weight is not differentiable and must not require grad")
    reductions.check_options(reduction, denominator, on_empty, out_dtype)
    if distributed.is_dtensor(input) and reduction == "mean" and denominator is None:
        denominator = distributed.row_denominator(input, target, weight, sample_weight, ignore_index, probabilities)
    divisor = None if denominator is None else reductions.divisor(denominator, on_empty)
    if divisor is not None:
        how = reductions.SUM
    is_kept = out_dtype is None or out_dtype == input.dtype
    kernel_dtype = None if divisor is None and is_kept else opmath_dtype(input)
    tensors = (input, target, weight, sample_weight)
    zero_if_empty = on_empty == "zero"

    report: Any = []
    if probabilities:
        _check_for_probabilities(ignore_index, inplace)
        soft_options = SoftCrossEntropyOptions(
            how, label_smoothing, z_loss, logit_scale, softcap, zero_if_empty, kernel_dtype,
            keep_stats=False, report=return_stats,
        )  # fmt: skip
        if return_stats:
            loss, _, _, *report = torch.ops.ce_ext.soft_cross_entropy_forward(*tensors, *soft_options)
        else:
            loss = autograd.soft_cross_entropy(*tensors, soft_options)
    else:
        options = CrossEntropyOptions(
            how, ignore_index, label_smoothing, gamma, z_loss, logit_scale, softcap, input_is_log_prob,
            zero_if_empty, kernel_dtype, keep_stats=False, report=return_stats,
        )  # fmt: skip
        if grad_in_forward or inplace:
            loss, *report = with_grad.cross_entropy(*tensors, options, inplace, loss_scale, divisor)
            divisor = None
        elif return_stats:
            loss, _, _, *report = torch.ops.ce_ext.cross_entropy_forward(*tensors, *options)
        else:
            loss = autograd.cross_entropy(*tensors, options)
    if divisor is not None:
        loss = loss / divisor
    if kernel_dtype is not None:
        loss = loss.to(out_dtype or input.dtype)
    return (loss, _stats(*report)) if return_stats else loss


def _check(input: Any, target: Any, weight: Tensor | None, reduction: str, input_is_log_prob: bool) -> int:
    """The number of the reduction, after the checks that ops cannot make."""
    if not isinstance(input, Tensor):
        raise TypeError(f"input must be a Tensor, but got {type(input).__name__}")
    if not isinstance(target, Tensor):
        raise TypeError(f"target must be a Tensor, but got {type(target).__name__}")
    if weight is not None and weight.requires_grad:
        raise RuntimeError("weight is not differentiable and must not require grad")
    how = reductions.number_of(reduction)
    if input_is_log_prob and input.dim() == 0:  # where torch raises other errors for nll_loss and for cross_entropy
        raise ValueError("input must have a dimension of classes, but got shape []")
    return how


def _check_for_probabilities(ignore_index: int, inplace: bool) -> None:
    if ignore_index >= 0:
        raise RuntimeError(f"ignore_index has no meaning for class probabilities, but got {ignore_index}")
    if inplace:
        raise ValueError("inplace must be False for class probabilities, but got True")


def _stats(report: Tensor, argmax: Tensor) -> SoftmaxStats:
    lse, entropy, target_log_prob = report.unbind(-1)
    return SoftmaxStats(lse, entropy, argmax, target_log_prob)
