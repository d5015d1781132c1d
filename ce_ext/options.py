"""The options of losses: those that users name, and all of them in the order in which the ops take them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from typing_extensions import TypedDict


class NLLLossOptions(TypedDict, total=False):
    """What the losses of classes of `ce_ext.functional` have beyond torch's arguments: all that `nll_loss` has.

    All of it is off by default.
    """

    dim: int | None
    """The dimension of the classes, of ``input`` and of class probabilities: 1 by default, as in torch, or 0 of a
    single row. Class indices, losses and statistics have the shape without it: logits of shape (B, T, V) have targets
    of shape (B, T) with ``dim=-1``. Nothing is copied."""

    sample_weight: Tensor | None
    """A factor for each row, of the shape of class indices and the dtype of ``input``, or float32 for half
    logits. The mean divides by the sum of its products with the weights of the targets' classes, or with class
    probabilities by its sum. Not differentiable."""

    denominator: Tensor | float | None
    """What the mean divides by, in place of what it counts: the rows of all micro-batches, say, whose gradients are
    summed. A tensor is differentiable.

    Under `torch.nn.parallel.DistributedDataParallel`, which averages the gradients of its processes, that is the count
    of all processes divided by their number::

        count = (target != -100).sum()
        torch.distributed.all_reduce(count)
        loss = cross_entropy(logits, target, denominator=count / torch.distributed.get_world_size())
    """

    on_empty: str
    """What the mean of no rows is, or of rows that all weigh 0: ``"nan"`` as in torch, or ``"zero"``, with a gradient
    of zeros."""

    out_dtype: torch.dtype | None
    """The dtype of the loss, that of ``input`` by default. A float32 loss of half logits is not rounded to half."""


class SoftmaxLossOptions(NLLLossOptions, total=False):
    """What `cross_entropy` and `softmax_focal_loss` of `ce_ext.functional` have beyond torch's arguments.

    All of it is off by default.
    """

    z_loss: float
    """Adds ``z_loss * lse(x)**2`` to the loss of every row, which keeps the logits near zero (Chowdhery et al., "PaLM",
    2022). Not weighted by classes."""

    logit_scale: float
    """Takes the loss of ``logit_scale * input``, without making it."""

    softcap: float
    """Takes the loss of ``softcap * tanh(logit_scale * input / softcap)`` (Gemma Team, "Gemma 2", 2024); 0 for no
    cap."""

    return_stats: bool
    """Whether to return `ce_ext.functional.SoftmaxStats` next to the loss, from the same pass over the logits."""

    grad_in_forward: bool
    """Computes the gradient together with the loss, while the logits are in the cache, and keeps it instead of them.
    It serves one backward pass, and has no second derivative. A hint: it does nothing under ``torch.compile``,
    ``torch.func`` and forward-mode AD, nor for DTensors and class probabilities."""

    inplace: bool
    """The same, with the gradient in the memory of ``input``, whose values are lost: ``input.argmax()`` after the call
    would be that of gradients. Take it before, or ask for ``return_stats``. Python's ``input`` refuses to be read from
    then on, as `ce_ext.with_grad.OverwrittenLogits`, until it is written anew; so does the tensor that ``input`` is a
    view of all of. Views that were made before do not, and the output of a `torch.nn.Linear` with a bias is one of a
    matrix if its input is no matrix: give it with ``dim=-1`` as it is, and not a view of it. Whoever needs the values
    in a backward pass gets autograd's error about tensors modified in place; leaves that require grad are refused, and
    so are class probabilities."""

    loss_scale: float | None
    """The upstream gradient that ``grad_in_forward`` shall expect, 1 by default: a loss scaler's factor, for one,
    without which the gradient of a float16 mean would underflow and is refused. Any other is right as well, but costs
    a pass over the gradient."""


class BinaryLossOptions(TypedDict, total=False):
    """What the binary losses of `ce_ext.functional` have beyond the arguments of torch and torchvision.

    All of it is off by default.
    """

    label_smoothing: float
    """s in [0, 1]: the loss is taken of the targets ``(1 - s) * target + s / 2``."""

    ignore_index: int | Sequence[int] | None
    """The target of elements that add nothing to the loss, are not counted by the mean and get a gradient of zero. Of
    class indices, that of rows, or several of them, as in `cross_entropy`. None, the default, ignores nothing."""

    ignore_nan: bool
    """Whether elements whose target is NaN, as that of a missing label is in many data sets, are ignored, too. Else
    their loss is NaN, or of probabilities on the CPU an error. No integer is NaN."""

    denominator: Tensor | float | None
    """What the mean divides by, in place of the number of elements: that of the positive ones, say, of all
    micro-batches, whose gradients are summed. A tensor is differentiable.

    Under `torch.nn.parallel.DistributedDataParallel`, which averages the gradients of its processes, that is the count
    of all processes divided by their number::

        count = (target == 1).sum()
        torch.distributed.all_reduce(count)
        loss = sigmoid_focal_loss(
            logits, target, reduction="mean", denominator=count / torch.distributed.get_world_size()
        )
    """

    on_empty: str
    """What the mean of no elements is: ``"nan"`` as in torch, or ``"zero"``, with a gradient of zeros."""

    out_dtype: torch.dtype | None
    """The dtype of the loss, that of ``input`` by default, or the wider one of a floating ``target``. A float32 loss of
    a half input is not rounded to half."""


class SigmoidFocalLossOptions(BinaryLossOptions, total=False):
    """Those of `sigmoid_focal_loss`."""

    weight: Tensor | None
    """As that of `binary_cross_entropy_with_logits`."""

    pos_weight: Tensor | None
    """Likewise: a factor of the positive part of the cross entropy, besides alpha."""


class AsymmetricLossOptions(SigmoidFocalLossOptions):
    """Those of `asymmetric_loss`, which are the same."""


class CrossEntropyOptions(NamedTuple):
    """The settings of the ops, in their order."""

    reduction: int
    ignore_index: int
    label_smoothing: float = 0.0
    gamma: float = 0.0
    z_loss: float = 0.0
    logit_scale: float = 1.0
    softcap: float = 0.0
    input_is_log_prob: bool = False
    zero_if_empty: bool = False
    divisor: float | None = None  # what the mean divides by, in place of what it counts
    out_dtype: torch.dtype | None = None  # of the loss: None for that of the input, or what it is computed in
    batch_dims: int = 0  # 0 for a call that no vmap has been through
    # Of forward alone:
    keep_stats: bool = True  # for backward; autograd asks for them where there may be one
    report: bool = False

    def of_backward(self) -> "tuple[Any, ...]":
        return self[:-2]


class SoftCrossEntropyOptions(NamedTuple):
    """Those of the ops for class probabilities."""

    reduction: int
    label_smoothing: float = 0.0
    gamma: float = 0.0
    z_loss: float = 0.0
    logit_scale: float = 1.0
    softcap: float = 0.0
    zero_if_empty: bool = False
    divisor: float | None = None  # what the mean divides by, in place of what it counts
    out_dtype: torch.dtype | None = None
    needs_input: bool = False  # whether backward gives its gradient; autograd asks for those that there may be
    needs_target: bool = False
    batch_dims: int = 0
    # Of forward alone:
    keep_stats: bool = True
    report: bool = False

    def of_backward(self) -> "tuple[Any, ...]":
        return self[:-2]


class BinaryCrossEntropyOptions(NamedTuple):
    """Those of the ops of binary cross entropy, the sigmoid focal loss and the asymmetric loss."""

    reduction: int
    input_is_probability: bool = False
    gamma: float = 0.0  # of the asymmetric loss that of positives
    alpha: float = -1.0  # or -1 for none
    gamma_neg: float | None = None  # of the asymmetric loss alone
    margin: float = 0.0
    label_smoothing: float = 0.0
    ignore_index: int | None = None
    ignore_nan: bool = False
    zero_if_empty: bool = False
    divisor: float | None = None  # what the mean divides by, in place of what it counts
    out_dtype: torch.dtype | None = None
    needs_input: bool = False  # whether backward gives its gradient; autograd asks for those that there may be
    needs_target: bool = False
    needs_weight: bool = False
    needs_pos_weight: bool = False
    batch_dims: int = 0


class LogSoftmaxOptions(NamedTuple):
    dim: int  # counted from the front
    dtype: torch.dtype | None = None  # of the op's result
