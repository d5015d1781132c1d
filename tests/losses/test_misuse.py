"""Mistakes that would go unseen, or whose error would not help; and calls that look like mistakes and are none."""

import copy
import gc
import pickle
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ce_ext.functional import (
    binary_cross_entropy_with_logits,
    cross_entropy,
    nll_loss,
    sigmoid_focal_loss,
    softmax_focal_loss,
)
from ce_ext.with_grad import OverwrittenLogits

CLASS_LOSSES = pytest.mark.parametrize("loss", [cross_entropy, nll_loss, softmax_focal_loss], ids=lambda f: f.__name__)


def _parameter(*shape: int) -> Tensor:
    return torch.nn.Parameter(torch.rand(shape))


CONSTANTS: dict[str, Callable[[Tensor], Tensor]] = {
    "weight of cross_entropy": lambda x: cross_entropy(x, torch.tensor([0, 1, 2]), weight=_parameter(5)),
    "weight of nll_loss": lambda x: nll_loss(x, torch.tensor([0, 1, 2]), weight=_parameter(5)),
    "weight with probabilities": lambda x: cross_entropy(x, torch.rand(3, 5), weight=_parameter(5)),
    "weight of a focal loss with probabilities": lambda x: softmax_focal_loss(
        x, torch.rand(3, 5), weight=_parameter(5)
    ),
    "weight of softmax_focal_loss": lambda x: softmax_focal_loss(x, torch.tensor([0, 1, 2]), weight=_parameter(5)),
    "sample_weight": lambda x: cross_entropy(x, torch.tensor([0, 1, 2]), sample_weight=_parameter(3)),
    "sample_weight in place": lambda x: cross_entropy(
        x * 1, torch.tensor([0, 1, 2]), sample_weight=_parameter(3), inplace=True
    ),
    "alpha": lambda x: sigmoid_focal_loss(x, torch.rand(3, 5), alpha=_parameter(5)).mean(),
}


@pytest.mark.parametrize("name", CONSTANTS)
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_constants_may_require_grad_where_none_is_recorded(mode: Callable[[], Any], name: str) -> None:
    """As in the validation of a model whose parameters they are."""
    call, input = CONSTANTS[name], torch.randn(3, 5)
    with pytest.raises(RuntimeError, match=f"{name.split()[0]} is not differentiable and must not require grad"):
        call(input)
    with mode():
        assert call(input).isfinite()


def _logits(*shape: int) -> Tensor:
    return torch.randn(shape, requires_grad=True) * 1


READS: dict[str, Callable[[Tensor], Any]] = {
    "argmax": lambda z: z.argmax(1),
    "softmax": lambda z: torch.softmax(z, 1),
    "functional": lambda z: torch.nn.functional.log_softmax(z, 1),
    "loss": lambda z: cross_entropy(z, torch.tensor([0, 1, 2])),
    "equality": lambda z: z == 0,
    "item": lambda z: z[0, 0].item(),
    "detach": lambda z: z.detach(),
    "data": lambda z: z.data,
    "clone": lambda z: z.clone(),
    "cpu": lambda z: z.cpu(),
    "view": lambda z: z.view(-1),
    "transpose": lambda z: z.T,
    "list": lambda z: z.tolist(),
    "numpy": lambda z: z.numpy(),
    "deepcopy": copy.deepcopy,
    "pickle": pickle.dumps,
    "iteration": list,
    "add in place": lambda z: z.add_(1),
    "copy elsewhere": lambda z: torch.empty(3, 5).copy_(z),
}


@pytest.mark.torch_modes
@pytest.mark.parametrize("name", READS)
def test_overwritten_logits_refuse_to_be_read(name: str) -> None:
    logits, target = _logits(3, 5), torch.tensor([0, 1, 2])
    loss = cross_entropy(logits, target, inplace=True)
    for _ in range(2):
        with pytest.raises(
            RuntimeError, match=r"these logits hold their gradient since .*read them before, or ask for"
        ):
            READS[name](logits)
        if loss is not None:
            loss.backward()  # as well as after it
            loss = None


@pytest.mark.torch_modes
def test_what_is_no_read_of_overwritten_logits() -> None:
    leaf, target = torch.randn(2, 3, 5, requires_grad=True), torch.randint(0, 5, (6,))
    logits = leaf * 1
    pointer, node, version = logits.data_ptr(), logits.grad_fn, logits._version
    logits.retain_grad()
    cross_entropy(logits.flatten(0, 1), target, inplace=True).backward(inputs=[leaf, logits])
    assert type(logits) is OverwrittenLogits and isinstance(logits, Tensor)
    shown = "OverwrittenLogits(shape=(2, 3, 5), dtype=torch.float32, device='cpu')"
    assert repr(logits) == str(logits) == f"{logits}" == shown
    assert logits.shape == logits.size() == (2, 3, 5) and logits.stride() == (15, 5, 1) and logits.numel() == 30
    assert logits.dtype == torch.float32 and logits.device.type == "cpu" and logits.ndim == logits.dim() == 3
    assert len(logits) == 2 and {logits: 1}[logits] == 1 and logits.is_contiguous() and logits.is_floating_point()
    assert "argmax" in dir(logits)
    assert logits.requires_grad and not logits.is_leaf and logits.grad_fn is node and logits._version > version
    assert logits.data_ptr() == pointer and logits.untyped_storage().nbytes() == logits.nbytes == 120
    torch.testing.assert_close(logits.grad, leaf.grad)
    assert type(logits.grad) is type(leaf.grad) is Tensor

    logits, seen = leaf * 1, []
    loss = cross_entropy(logits.view(6, 5), target, inplace=True)
    logits.register_hook(seen.append)
    loss.backward()
    assert [type(grad) for grad in seen] == [Tensor]
    logits.grad = None
    reference = weakref.ref(logits)
    del logits, loss, seen
    gc.collect()
    assert reference() is None


@pytest.mark.parametrize("fill", [lambda z: z.copy_(torch.ones(3, 5)), lambda z: z.zero_(), lambda z: z.fill_(2.0)])
def test_overwritten_logits_that_get_values_are_a_tensor(fill: Callable[[Tensor], Tensor]) -> None:
    logits = _logits(3, 5)
    cross_entropy(logits, torch.tensor([0, 1, 2]), inplace=True).backward()
    with torch.no_grad():
        assert fill(logits) is logits
    assert type(logits) is Tensor and logits.amax() == logits.amin()


def test_logits_that_are_not_overwritten_can_be_read() -> None:
    target = torch.tensor([0, 1, 2])
    plain = torch.randn(3, 5)
    cross_entropy(plain, target, inplace=True)
    with torch.no_grad():
        cross_entropy(logits := _logits(3, 5), target, inplace=True)
    cross_entropy(fresh := _logits(3, 5), target, grad_in_forward=True)
    assert {type(x) for x in (plain, logits, fresh)} == {Tensor}
    torch.compiler.reset()

    def step(x: Tensor) -> tuple[Tensor, Tensor]:
        logits = x * 1
        return cross_entropy(logits, target, inplace=True), logits.argmax(1)

    _, largest = torch.compile(step, backend="aot_eager", fullgraph=True)(plain.requires_grad_())
    assert torch.equal(largest, plain.argmax(1))


def test_pieces_of_logits_are_overwritten_by_themselves() -> None:
    """What is left of the logits can be read until its turn comes."""
    leaf, target = torch.randn(6, 5, requires_grad=True), torch.randint(0, 5, (6,))
    logits = leaf * 1
    for rows in ([0, 1], [2, 3], [4, 5]):
        piece = logits[rows[0] : rows[1] + 1]
        assert torch.equal(piece, leaf[rows])
        cross_entropy(piece, target[rows], reduction="sum", inplace=True).backward(retain_graph=True)
        assert type(piece) is OverwrittenLogits and type(logits) is Tensor
    expected = torch.autograd.grad(torch.nn.functional.cross_entropy(leaf, target, reduction="sum"), leaf)
    torch.testing.assert_close((leaf.grad,), expected)


@pytest.mark.torch_modes
def test_overwritten_logits_in_a_model() -> None:
    """With whatever wraps the model's call: checkpoints, hooks of modules, DDP's own."""
    model = torch.nn.Sequential(torch.nn.Linear(4, 7), torch.nn.ReLU(), torch.nn.Linear(7, 5))
    input, target = torch.randn(6, 4), torch.randint(0, 5, (6,))
    model.register_full_backward_hook(lambda *_: None)
    model[2].register_forward_hook(lambda module, args, output: output * 1)

    def gradients(**options: Any) -> list[Tensor]:
        model.zero_grad()
        for use_reentrant in (False, True):
            leaf = input.clone().requires_grad_()
            hidden = checkpoint(model[:2], leaf, use_reentrant=use_reentrant)
            loss = cross_entropy(model[2](hidden), target, **options)
            loss.backward()
            checkpoint(
                lambda x: cross_entropy(model(x), target, **options), leaf, use_reentrant=use_reentrant
            ).backward()
        return [parameter.grad for parameter in model.parameters()]

    torch.testing.assert_close([grad.clone() for grad in gradients(inplace=True)], gradients())


@pytest.mark.torch_modes
def test_overwritten_logits_under_ddp(tmp_path: Any) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(4, 5))
        input, target = torch.randn(6, 4), torch.randint(0, 5, (6,))
        grads = []
        for options in ({"inplace": True}, {}):
            model.zero_grad()
            logits = model(input)
            cross_entropy(logits, target, **options).backward()
            grads.append(model.module.weight.grad.clone())
            assert type(logits) is (OverwrittenLogits if options else Tensor)
        torch.testing.assert_close(*grads)
    finally:
        torch.distributed.destroy_process_group()


DDP_RANK_COUNTS = (3, 7)


@pytest.mark.parametrize("family", ["rows", "elements"])
def test_denominator_under_ddp(family: str) -> None:
    """The recipe in the text of the option: the average of the ranks' gradients is the gradient of the whole batch."""
    input, (target, loss) = (
        torch.randn(sum(DDP_RANK_COUNTS), 5, requires_grad=True),
        {
            "rows": (torch.randint(0, 5, (sum(DDP_RANK_COUNTS),)), cross_entropy),
            "elements": (torch.rand(sum(DDP_RANK_COUNTS), 5), binary_cross_entropy_with_logits),
        }[family],
    )
    (expected,) = torch.autograd.grad(loss(input, target), input)
    count = target.numel() / len(DDP_RANK_COUNTS)
    pieces = zip(input.split(DDP_RANK_COUNTS), target.split(DDP_RANK_COUNTS), strict=True)
    ranks = [torch.autograd.grad(loss(x, y, denominator=count), input)[0] for x, y in pieces]
    torch.testing.assert_close(sum(ranks) / len(ranks), expected)


@CLASS_LOSSES
def test_classes_in_the_last_dimension(loss: Callable[..., Tensor]) -> None:
    """The error of a language model's logits says what to do."""
    input, target = torch.randn(2, 7, 11), torch.randint(0, 11, (2, 7))
    hint = r"classes are dimension 1: use input.transpose\(1, 2\), which copies nothing, or flatten\(0, 1\)"
    for dtype in (torch.int64, torch.int32):
        with pytest.raises(RuntimeError, match=rf"target must have shape \[2, 11\] .* got shape \[2, 7\].*{hint}"):
            loss(input, target.to(dtype))
    expected = loss(input.flatten(0, 1), target.flatten())
    torch.testing.assert_close(loss(input.transpose(1, 2), target), expected)
    torch.testing.assert_close(loss(input, target, dim=-1), expected)


@CLASS_LOSSES
def test_masks_with_a_dimension_of_channels(loss: Callable[..., Tensor]) -> None:
    input, target = torch.randn(2, 3, 4, 5), torch.randint(0, 3, (2, 1, 4, 5))
    hint = r"target has a dimension of one too many: use target.squeeze\(1\)"
    with pytest.raises(RuntimeError, match=rf"target must have shape \[2, 4, 5\] .* got shape \[2, 1, 4, 5\].*{hint}"):
        loss(input, target)
    assert loss(input, target.squeeze(1)).isfinite()
    with pytest.raises(RuntimeError, match=r"got shape \[2, 2, 4, 5\]$"):
        loss(input, target.expand(2, 2, 4, 5))
