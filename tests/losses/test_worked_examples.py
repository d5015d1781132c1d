"""Small examples with their printed results, by every route to the same number."""

import math

import pytest
import torch
from torch import Tensor

import ce_ext

EXAMPLES = {
    "rand(4, 5)": (None, [4, 3, 3, 2], 1.5230),
    "two classes": ([[-0.0464, -0.0268], [-0.0234, -0.0091]], [0, 1], 0.6945),
    "three classes": ([[0.3, 0.1, 0.3], [0.9, 0.2, 0.9], [0.5, 0.4, 0.2]], [1, 2, 0], 1.0414),
}


def _log_softmax_and_nll(logits: Tensor, labels: Tensor) -> Tensor:
    return ce_ext.functional.nll_loss(ce_ext.functional.log_softmax(logits, dim=1), labels)


def _modules_of_log_softmax_and_nll(logits: Tensor, labels: Tensor) -> Tensor:
    return ce_ext.nn.NLLLoss()(ce_ext.nn.LogSoftmax(dim=1)(logits), labels)


def _torch(logits: Tensor, labels: Tensor) -> Tensor:
    return torch.nn.functional.nll_loss(torch.nn.functional.log_softmax(logits, dim=1), labels)


def _by_hand(logits: Tensor, labels: Tensor) -> Tensor:
    total = 0.0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        total += math.log(sum(math.exp(x) for x in row)) - row[label]
    return torch.tensor(total / len(labels))


ROUTES = {
    "fused": ce_ext.functional.cross_entropy,
    "module": ce_ext.nn.CrossEntropyLoss(),
    "focal without focus": ce_ext.nn.SoftmaxFocalLoss(gamma=0.0),
    "log_softmax and nll": _log_softmax_and_nll,
    "modules of log_softmax and nll": _modules_of_log_softmax_and_nll,
    "torch": _torch,
    "by hand": _by_hand,
}


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("example", EXAMPLES)
def test_example(example: str, route: str) -> None:
    values, labels, expected = EXAMPLES[example]
    torch.manual_seed(100)
    logits = torch.rand(4, 5) if values is None else torch.tensor(values)
    assert f"{ROUTES[route](logits, torch.tensor(labels)).item():.4f}" == f"{expected:.4f}"


BINARY_TARGETS = [[0, 0, 1], [1, 0, 0]]
BINARY_LOSSES = ["0.6857", "1.4620", "2.4250", "2.0247", "0.3673", "1.0053"]
BINARY_ROUTES = {
    "functional": ce_ext.functional.binary_cross_entropy,
    "module": lambda p, t, reduction="mean": ce_ext.nn.BCELoss(reduction=reduction)(p, t),
    "of logits": lambda p, t, **options: ce_ext.functional.binary_cross_entropy_with_logits(p.logit(), t, **options),
    "focal without focus": lambda p, t, reduction="mean": ce_ext.functional.sigmoid_focal_loss(
        p.logit(), t, alpha=-1, gamma=0, reduction=reduction
    ),
    "torch": torch.nn.functional.binary_cross_entropy,
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool, torch.int64])
@pytest.mark.parametrize("route", BINARY_ROUTES)
def test_binary_example(route: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    p, target = torch.rand(2, 3), torch.tensor(BINARY_TARGETS, dtype=torch.float32 if route == "torch" else dtype)
    losses = BINARY_ROUTES[route](p, target, reduction="none")
    assert [f"{loss:.4f}" for loss in losses.flatten().tolist()] == BINARY_LOSSES
    assert f"{BINARY_ROUTES[route](p, target).item():.4f}" == "1.3283"
