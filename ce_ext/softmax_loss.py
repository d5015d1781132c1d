"""From the arguments of softmax losses to their ops: checks, options, and what is around the ops."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ce_ext import autograd, checks, classes, distributed, dtypes, reductions, with_grad
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
    if type(label_smoothing) is not float:
        label_smoothing = checks.real("label_smoothing", label_smoothing)
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
    ignore_index: int | Sequence[int],
    reduction: str,
    label_smoothing: float,
    *,
    dim: int | None = None,
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
    if not type(label_smoothing) is type(gamma) is type(z_loss) is type(logit_scale) is type(softcap) is float:
        label_smoothing, gamma, z_loss, logit_scale, softcap = map(
            checks.real,
            ("label_smoothing", "gamma", "z_loss", "logit_scale", "softcap"),
            (label_smoothing, gamma, z_loss, logit_scale, softcap),
        )
    if sample_weight is not None:
        checks.constant("sample_weight", sample_weight)
    reductions.check_options(reduction, denominator, on_empty, out_dtype)
    given = input
    if dim is not None:
        input = classes.move_to_second(input, dim)
        if not probabilities:
            classes.check_rows(target, given, dim, input)
        elif target.dim() == input.dim():
            target = classes.move_to_second(target, dim)
    if type(ignore_index) is not int:
        target, ignore_index = classes.ignore_one(target, ignore_index)
    if distributed.is_dtensor(input) and reduction == "mean" and denominator is None:
        denominator = distributed.row_denominator(input, target, weight, sample_weight, ignore_index, probabilities)
    divisor, denominator = reductions.split_denominator(denominator, input)
    if probabilities:
        input, promoted = dtypes.promoted(input, target, weight)
        target = dtypes.taken(input, target)
        weight = None if weight is None else dtypes.taken(input, weight)
        if sample_weight is not None and sample_weight.dtype in (given.dtype, opmath_dtype(given)):  # before promotion
            sample_weight = dtypes.taken(input, sample_weight)
        out_dtype = out_dtype or promoted
    kernel_dtype = dtypes.of_kernel(input, out_dtype)
    if denominator is not None:
        how, kernel_dtype, out_dtype = reductions.SUM, opmath_dtype(input), out_dtype or dtypes.of_loss(input)
    tensors = (input, target, weight, sample_weight)
    zero_if_empty = on_empty == "zero"

    report: Any = []
    if probabilities:
        _check_for_probabilities(ignore_index, inplace)
        soft_options = SoftCrossEntropyOptions(
            how, label_smoothing, gamma, z_loss, logit_scale, softcap, zero_if_empty, divisor, kernel_dtype,
            keep_stats=False, report=return_stats,
        )  # fmt: skip
        if return_stats:
            loss, _, _, *report = autograd.all_results("ce_ext::soft_cross_entropy_forward", *tensors, *soft_options)
        else:
            loss = autograd.soft_cross_entropy(*tensors, soft_options)
    else:
        options = CrossEntropyOptions(
            how, ignore_index, label_smoothing, gamma, z_loss, logit_scale, softcap, input_is_log_prob,
            zero_if_empty, divisor, kernel_dtype, keep_stats=False, report=return_stats,
        )  # fmt: skip
        if grad_in_forward or inplace:
            loss, *report = with_grad.cross_entropy(
                *tensors, options, given if inplace else None, loss_scale, denominator, on_empty
            )
            denominator = None
        elif return_stats:
            loss, _, _, *report = autograd.all_results("ce_ext::cross_entropy_forward", *tensors, *options)
        else:
            loss = autograd.cross_entropy(*tensors, options)
    if denominator is not None:
        loss = reductions.divide(loss, denominator, on_empty)
    if out_dtype is not None:
        loss = loss.to(out_dtype)
    return (loss, _stats(*report)) if return_stats else loss


def _check(input: Any, target: Any, weight: Tensor | None, reduction: str, input_is_log_prob: bool) -> int:
    """The number of the reduction, after the checks that ops cannot make."""
    if not isinstance(input, Tensor):
        raise checks.not_a_tensor("input", input)
    if not isinstance(target, Tensor):
        raise checks.not_a_tensor("target", target)
    if weight is not None:
        checks.constant("weight", weight)
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
