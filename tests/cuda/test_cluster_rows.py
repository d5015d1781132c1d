"""The gradient in forward of rows that clusters of blocks stream through their shared memory."""

import ctypes
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from ce_ext.functional import cross_entropy
from tests.cuda_emu import Emulator
from tests.cuda_emu.selftest import SCHEDULES
from tests.support import oracles
from tests.support.comparison import assert_all_rounded, assert_reported, loss_and_gradients
from tests.support.marks import NEEDS_EMULATOR

pytestmark = [pytest.mark.kernel, pytest.mark.not_cpu]

# Rows of more than 100 KiB that fill several stages of a ring: of whole packs, of packs and a few classes, and of odd
# lengths, so that they begin anywhere in a pack.
CLASSES = {torch.bfloat16: (65_536, 51_204, 65_535), torch.float16: (51_216, 52_001), torch.float32: (25_604, 32_767)}
LENGTHS = [(dtype, classes) for dtype, lengths in CLASSES.items() for classes in lengths]


@pytest.fixture(params=SCHEDULES)
def schedule(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the emulator; a GPU has its own."""
    monkeypatch.setenv("CUDA_EMU_SCHEDULE", request.param)


def _rows(rows: int, classes: int, dtype: torch.dtype, device: str, shift: int = 1) -> Tensor:
    """That begin so many elements behind a pack's beginning."""
    numbers = torch.randn(rows * classes + shift, generator=torch.Generator().manual_seed(classes)).mul_(3)
    return numbers.to(device, dtype)[shift:].view(rows, classes)


def _targets(rows: int, classes: int, device: str) -> Tensor:
    """From the first class to the last, some of them ignored."""
    target = torch.arange(rows) * (classes - 1) // max(rows - 1, 1)
    target[1::3] = -100
    return target.to(device)


def _with_grad(input: Tensor, target: Tensor, **options: Any) -> list[Tensor]:
    return loss_and_gradients(
        lambda x: cross_entropy(x, target, grad_in_forward=True, loss_scale=1.0, **options), input
    )


def _in_place(input: Tensor, target: Tensor, **options: Any) -> list[Tensor]:
    activation = torch.empty_strided(  # as misaligned as the input
        (input.storage_offset() + input.numel(),), (1,), dtype=input.dtype, device=input.device
    )[input.storage_offset() :].view_as(input)
    return loss_and_gradients(
        lambda x: cross_entropy(activation.copy_(x), target, inplace=True, loss_scale=1.0, **options), input
    )


def _exact(input: Tensor, target: Tensor, **options: Any) -> list[Tensor]:
    return loss_and_gradients(lambda x: oracles.cross_entropy(x, target, **options), input.double())


@pytest.mark.heavy
@pytest.mark.covering(2)
@pytest.mark.usefixtures("schedule")
@pytest.mark.parametrize("rows", [1, 2, 11])
@pytest.mark.parametrize("function", [_with_grad, _in_place])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize(("dtype", "classes"), LENGTHS)
def test_rows(
    dtype: torch.dtype, classes: int, reduction: str, function: Callable[..., list[Tensor]], rows: int, device: str
) -> None:
    """Fewer than there are clusters, and more."""
    input, target = _rows(rows, classes, dtype, device), _targets(rows, classes, device)
    actual = function(input, target, reduction=reduction)
    assert_all_rounded(actual, _exact(input, target, reduction=reduction))


@pytest.mark.heavy
@pytest.mark.parametrize("shift", range(8))
def test_target_anywhere(shift: int, device: str) -> None:
    """In the packs of each block, and among the classes before and behind them."""
    classes = 51_203
    places = [*range(9), classes // 2 - 4, classes // 2 + 4, *range(classes - 9, classes)]
    input = _rows(len(places), classes, torch.bfloat16, device, shift)
    target = torch.tensor(places, device=device)
    assert_all_rounded(_with_grad(input, target, reduction="sum"), _exact(input, target, reduction="sum"))


def _check_hundreds(classes: int, dtype: torch.dtype, device: str) -> None:
    """Several blocks share rows that are so long in other ways, unless there are hundreds: most of them are ignored."""
    input, target = _rows(257, classes, dtype, device), _targets(257, classes, device)
    wanted = torch.arange(257, device=device) % 32 == 0
    target[~wanted] = -100
    loss, gradient = _in_place(input, target, reduction="sum")
    exact = _exact(input[wanted], target[wanted], reduction="sum")
    assert_all_rounded([loss, gradient[wanted]], exact)
    assert not gradient[~wanted].any()


@pytest.mark.heavy
@pytest.mark.usefixtures("schedule")
def test_rows_of_four_blocks(device: str) -> None:
    _check_hundreds(102_657, torch.float32, device)


@NEEDS_EMULATOR
@pytest.mark.heavy
def test_gpu_without_clusters(emulator: Emulator) -> None:
    """With rows of a kind that no other test has, because a kernel is asked once how many clusters a GPU has."""
    capability = ctypes.c_int.in_dll(emulator.kernels, "cuda_emu_capability")
    with emulator.running():
        capability.value = 80
        try:
            _check_hundreds(160_001, torch.float16, "cpu")
        finally:
            capability.value = 90


@pytest.mark.parametrize(
    "options",
    [
        {"weight": True},
        {"sample_weight": True},
        {"z_loss": 1e-3},
        {"reduction": "none"},
        {"denominator": 7.0},
        {"weight": True, "sample_weight": True, "reduction": "mean", "on_empty": "zero"},
    ],
    ids=str,
)
def test_options(options: dict[str, Any], device: str) -> None:
    rows, classes = 4, 30_001
    input, target = _rows(rows, classes, torch.float32, device), _targets(rows, classes, device)
    if "weight" in options:
        options = options | {"weight": torch.linspace(0.5, 1.5, classes, device=device)}
    if "sample_weight" in options:
        options = options | {"sample_weight": torch.tensor([0.5, 1.0, 0.0, 3.0], device=device)}
    assert_all_rounded(_with_grad(input, target, **options), _exact(input, target, **options))


def test_rows_apart(device: str) -> None:
    """Logits and gradients whose packs lie differently, and rows that are no neighbours."""
    classes = 52_001
    input = _rows(4, classes + 7, torch.bfloat16, device)[:, 3:-4]
    target = _targets(4, classes, device)
    assert_all_rounded(_with_grad(input, target), _exact(input, target))
    assert_all_rounded(_with_grad(input.flip(0).unsqueeze(0)[0], target), _exact(input.flip(0), target))


def test_groups(device: str) -> None:
    """Each with a mean of its own."""
    classes = 51_301
    input, target = _rows(6, classes, torch.bfloat16, device), _targets(6, classes, device)
    function = torch.func.vmap(lambda x, t: cross_entropy(x, t, grad_in_forward=True, loss_scale=1.0))
    for groups in (2, 3, 6):
        grouped, targets = input.view(groups, -1, classes), target.view(groups, -1)
        target.fill_(5)
        losses = [_exact(x, t)[0] for x, t in zip(grouped, targets, strict=True)]
        torch.testing.assert_close(function(grouped, targets).double(), torch.stack(losses), rtol=1e-2, atol=0)


def test_infinities(device: str) -> None:
    """As everywhere: of an infinite logit, or of nothing but masked ones, the loss is NaN."""
    classes = 51_301
    input = _rows(8, classes, torch.bfloat16, device)
    input[0] = -torch.inf
    input[1, 40_000] = torch.inf
    input[2, 17] = torch.nan
    input[3, ::2] = -torch.inf
    input[4, 50_000] = 1000  # a confident row
    input[5] = 2  # of equal classes
    target = torch.tensor([0, 7, 8, 1, 50_000, 3, 1, 2], device=device)
    exact = _exact(input[3:], target[3:], reduction="none")
    for function in (_with_grad, _in_place):
        actual = function(input, target, reduction="none")
        assert all(x[:3].isnan().all() for x in actual)
        assert_all_rounded([x[3:] for x in actual], exact)


def test_bad_targets(device: str) -> None:
    """Their loss and gradient are NaN, those of other rows are not."""
    classes = 51_301
    input, target = _rows(5, classes, torch.bfloat16, device), _targets(5, classes, device)
    good = _with_grad(input, target, reduction="none")
    target[2] = classes
    leaf = input.clone().requires_grad_()
    loss = cross_entropy(leaf, target, grad_in_forward=True, loss_scale=1.0, reduction="none")
    assert_reported(2, classes, classes)
    bad = [loss.detach(), *torch.autograd.grad(loss.sum(), leaf)]
    for of_good, of_bad in zip(good, bad, strict=True):
        assert of_bad[2].isnan().all()
        of_bad[2] = of_good[2]
        assert torch.equal(of_bad, of_good)


def test_nothing_but_ignored_rows(device: str) -> None:
    input = _rows(5, 51_301, torch.bfloat16, device)
    target = torch.full((5,), -100, device=device)
    loss, gradient = _with_grad(input, target, on_empty="zero")
    assert loss == 0 and not gradient.any()


def test_same_bits(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    input, target = _rows(11, 51_301, torch.bfloat16, device), _targets(11, 51_301, device)
    results = []
    for schedule in SCHEDULES:
        monkeypatch.setenv("CUDA_EMU_SCHEDULE", schedule)
        results.append(_in_place(input, target))
    for result in results[1:]:
        assert all(map(torch.equal, result, results[0]))
