"""Every team of threads that can share a row, whatever the length of the row that the table gives it; and the words by
which the table is read and changed."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.policy import TEAMS, parse
from ce_ext.functional import cross_entropy, log_softmax
from tests.cuda_emu import ROOT, Emulator
from tests.support import oracles
from tests.support.comparison import assert_all_rounded, loss_and_gradients
from tests.support.marks import NEEDS_EMULATOR

pytestmark = [pytest.mark.kernel, pytest.mark.not_cpu]

HEADER = ROOT / "csrc" / "cuda" / "rows" / "policy.cuh"
TEAM_NAMES = [(pass_name, threads) for pass_name, teams in TEAMS.items() for threads in teams]

Override = Callable[[str], None]


@pytest.fixture
def override(device: str) -> Iterator[Override]:
    yield torch.ops.ce_ext.override_cuda_policy
    torch.ops.ce_ext.override_cuda_policy("")


def _everywhere(pass_name: str, team: int) -> str:
    """All rows of the pass are given to it."""
    entries = parse(torch.ops.ce_ext.cuda_policy())
    return "; ".join(f"{entry.name}={team}" for entry in entries if entry.pass_name == pass_name)


def _inputs(rows: int, classes: int, dtype: torch.dtype, device: str) -> tuple[Tensor, Tensor]:
    """None of the rows begins where a pack does, unless by chance, and the second is ignored."""
    numbers = torch.randn(rows * classes + 1, generator=torch.Generator().manual_seed(classes)).mul_(3)
    target = torch.arange(rows) * (classes - 1) // max(rows - 1, 1)
    target[1] = -100
    return numbers.to(dtype)[1:].view(rows, classes).to(device), target.to(device)


def _check(function: Callable[..., Tensor], input: Tensor, target: Tensor, **options: Any) -> None:
    actual = loss_and_gradients(lambda x: function(x, target, **options), input)
    exact = loss_and_gradients(lambda x: oracles.cross_entropy(x, target, **options), input.double())
    assert_all_rounded(actual, exact)


def _check_other_losses(input: Tensor) -> None:
    """Those whose teams are of the same table."""
    target = input.flip(1).softmax(1)
    exact = loss_and_gradients(oracles.soft_cross_entropy, input.double(), target.double())
    assert_all_rounded(loss_and_gradients(cross_entropy, input, target), exact, scale=1)
    exact = loss_and_gradients(lambda x: x.log_softmax(1), input.double())
    assert_all_rounded(loss_and_gradients(lambda x: log_softmax(x, 1), input), exact, scale=1)


def _in_place(input: Tensor, target: Tensor, **options: Any) -> Tensor:
    activation = input.new_empty(input.numel() + 1)[1:].view_as(input).copy_(input)  # as misaligned as the input
    return cross_entropy(activation, target, inplace=True, loss_scale=1.0, **options)


FUNCTIONS = {
    "forward": (cross_entropy,),
    "backward": (cross_entropy,),
    "with_grad": (partial(cross_entropy, grad_in_forward=True, loss_scale=1.0), _in_place),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize(("pass_name", "team"), TEAM_NAMES)
def test_team(pass_name: str, team: int, dtype: torch.dtype, override: Override, device: str) -> None:
    """Some hold a row and more, and to others it is one of many chunks."""
    override(_everywhere(pass_name, team))
    for function in FUNCTIONS[pass_name]:
        _check(function, *_inputs(5, 1003, dtype, device))
    _check_other_losses(_inputs(5, 1003, dtype, device)[0])


@pytest.mark.parametrize(("pass_name", "team"), TEAM_NAMES)
def test_team_with_options(pass_name: str, team: int, override: Override, device: str) -> None:
    """Those by which it has more to add up."""
    override(_everywhere(pass_name, team))
    input, target = _inputs(4, 1003, torch.float32, device)
    input[0, 7] = input[0, 800] = 30  # of equal classes the first is reported
    for function in FUNCTIONS[pass_name]:
        _check(function, input, target, weight=torch.linspace(0.5, 1.5, 1003, device=device), label_smoothing=0.1)
        _, stats = function(input.clone().requires_grad_() * 1, target, return_stats=True)
        assert torch.equal(stats.argmax, input.argmax(1)) and stats.argmax[0] == 7
        torch.testing.assert_close(stats.lse.double(), input.double().logsumexp(1), rtol=1e-6, atol=0)


@pytest.mark.parametrize("team", [32, 128])
def test_rows_that_do_not_fit_a_team(team: int, override: Override, device: str) -> None:
    override(_everywhere("with_grad", team))
    for function in FUNCTIONS["with_grad"]:
        _check(function, *_inputs(3, 9001, torch.float32, device))


@pytest.mark.parametrize("row_bytes", [400, 900, 2000, 4000, 16_000, 30_000, 60_000, 100_000])
def test_entry(row_bytes: int, override: Override, device: str) -> None:
    """As the table has it. (Longer rows are shared by several teams, unless there are hundreds.)"""
    for functions in FUNCTIONS.values():
        for function in functions:
            _check(function, *_inputs(2, row_bytes // 2, torch.bfloat16, device))


def test_table_in_words(override: Override, device: str) -> None:
    """It is that of the header, which python -m benchmarks.sweep prints."""
    rows = [line.strip() for line in HEADER.read_text().splitlines() if line.startswith("    {Pass::")]
    assert [entry.as_cpp() for entry in parse(torch.ops.ce_ext.cuda_policy())] == rows


def test_override(override: Override, device: str) -> None:
    usual = torch.ops.ce_ext.cuda_policy()
    override("forward:inf=128;  with_grad:8192= 320 ;")
    changed = {str(entry) for entry in parse(torch.ops.ce_ext.cuda_policy())} - {str(entry) for entry in parse(usual)}
    assert changed == {"forward:inf=128", "with_grad:8192=320"}
    override(usual)
    assert torch.ops.ce_ext.cuda_policy() == usual


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        *((f"forward:4096={number}", "one of 8 32 128 256 threads") for number in ("", "x", "0", "64", "8,1", "512")),
        *((f"backward:512={number}", "one of 8 32 threads") for number in ("128", "-8")),
        ("with_grad:inf=8", "one of 32 128 320 threads"),
        *((name, "no entry of the table, which has forward:4096=") for name in ("forward:513", "sideways:inf=1", "x")),
    ],
)
def test_bad_override(entry: str, message: str, override: Override, device: str) -> None:
    override("forward:4096=32")
    before = torch.ops.ce_ext.cuda_policy()
    with pytest.raises(ValueError, match=rf"override_cuda_policy: '{entry}' .*{message}"):
        override(f"forward:inf=128; {entry}")
    assert torch.ops.ce_ext.cuda_policy() == before


@NEEDS_EMULATOR
@pytest.mark.parametrize(
    ("variable", "expected"),
    [
        ("forward:4096=32", "forward:4096=32; forward:8192="),
        ("forward:4096=64", "RuntimeError: CE_EXT_CUDA_POLICY: 'forward:4096=64' has to give one of 8 32 128 256"),
    ],
)
def test_environment_variable(variable: str, expected: str, emulator: Emulator) -> None:
    program = """
import pathlib, sys, torch, ce_ext
from tests.cuda_emu import Emulator
with Emulator(pathlib.Path(sys.argv[1])).running():
    ce_ext.functional.cross_entropy(torch.zeros(2, 1000), torch.zeros(2, dtype=torch.int64))
    print(torch.ops.ce_ext.cuda_policy())
"""
    command = [sys.executable, "-c", program, emulator.kernels._name]
    run = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"CE_EXT_CUDA_POLICY": variable}, capture_output=True, text=True
    )
    assert expected in (run.stdout if run.returncode == 0 else run.stderr)
