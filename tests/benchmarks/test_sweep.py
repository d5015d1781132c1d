"""The sweep over teams of threads of the CUDA kernels: what it tries, what it takes for a win, and what it prints."""

import json
import math
import subprocess
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import torch

from benchmarks import sweep
from benchmarks.limits import Ceilings
from benchmarks.policy import PASSES, TEAMS, Entry, best, candidates, covering, gain, parse
from benchmarks.sweep import BYTES, DTYPES, Problem, as_json, improved, measure
from benchmarks.timing import Timing, kernel_clock
from tests.cuda_emu import ROOT, Emulator
from tests.support.marks import NEEDS_EMULATOR

TEXT = "forward:4096=8; forward:inf=256; with_grad:65536=320; with_grad:inf=640"
USUAL, OTHER, THIRD = 256, 128, 32
ENTRY = Entry("forward", 16384, USUAL)


def _timing(median: float, spread: float = 0.0) -> Timing:
    return Timing(median, median, spread, samples=9, calls_per_sample=1, page_faults=0.0)


def test_words_of_the_policy() -> None:
    entries = parse(TEXT)
    assert "; ".join(map(str, entries)) == TEXT
    assert [entry.as_cpp() for entry in entries[:3]] == [
        "{Pass::kForward, 4096, 8},",
        "{Pass::kForward, kAnyLength, 256},",
        "{Pass::kWithGrad, 65536, 320},",
    ]
    with pytest.raises(ValueError, match="no entry of a policy: 'forward'"):
        parse("forward")


def test_entry_that_covers_a_row() -> None:
    entries = parse(TEXT)
    assert covering(entries, "forward", 4096).row_bytes == 4096
    assert covering(entries, "forward", 4097).row_bytes == math.inf


@pytest.mark.parametrize("pass_name", PASSES)
def test_candidates(pass_name: str) -> None:
    for row_bytes in BYTES:
        teams = candidates(pass_name, row_bytes)
        assert teams == [threads for threads in TEAMS[pass_name] if threads * 64 <= 8 * row_bytes]
    assert tuple(candidates(pass_name, 1 << 20)) == TEAMS[pass_name]


@NEEDS_EMULATOR
def test_kernels_take_all_candidates(emulator: Emulator) -> None:
    """And the table has, for every problem, a team that is among them."""
    with emulator.running():
        try:
            entries = parse(torch.ops.ce_ext.cuda_policy())
            for pass_name, row_bytes in product(PASSES, BYTES):
                entry = covering(entries, pass_name, row_bytes)
                teams = candidates(pass_name, row_bytes)
                assert entry.threads in teams
                for threads in teams:
                    torch.ops.ce_ext.override_cuda_policy(f"{entry.name}={threads}")
        finally:
            torch.ops.ce_ext.override_cuda_policy("")


def test_problems() -> None:
    for pass_name, row_bytes, dtype_name in product(PASSES, BYTES, DTYPES):
        problem = Problem.of(pass_name, dtype_name, row_bytes)
        assert problem.classes > 32  # of fewer, threads have rows of their own
        assert problem.rows >= 512 and row_bytes - 4 < problem.row_bytes <= row_bytes
        assert 0.9 < problem.rows * problem.row_bytes / sweep.INPUT_BYTES <= 2


def test_gain_is_more_than_the_noise() -> None:
    def gain_of(*pairs: tuple[Timing, Timing]) -> float:
        return gain(USUAL, OTHER, [{USUAL: old, OTHER: new} for old, new in pairs])

    assert gain_of((_timing(2.0), _timing(1.0))) == pytest.approx(2)
    assert gain_of((_timing(2.0), _timing(1.0)), (_timing(8.0), _timing(1.0))) == pytest.approx(4)
    assert gain_of((_timing(1.01), _timing(1.0))) == 1  # however quiet the machine was
    assert gain_of((_timing(1.0), _timing(1.1))) == 1
    for spreads in ((0.2, 0.0), (0.0, 0.2)):
        old, new = (_timing(median, spread) for median, spread in zip((1.1, 1.0), spreads, strict=True))
        assert gain_of((old, new)) == 1
    assert gain_of((_timing(2.0), _timing(1.0)), (_timing(1.0), _timing(1.05))) == 1  # one of them became slower


def test_best_team() -> None:
    fast = {USUAL: _timing(1.0), OTHER: _timing(0.9), THIRD: _timing(0.8)}
    assert best(ENTRY, [fast]) == (replace(ENTRY, threads=THIRD), pytest.approx(1.25))
    partly = {USUAL: _timing(1.0), OTHER: _timing(0.9)}  # the third failed, or was not worth a try
    assert best(ENTRY, [fast, partly]) == (replace(ENTRY, threads=OTHER), pytest.approx(1 / 0.9))
    assert best(ENTRY, [{USUAL: _timing(1.0), OTHER: _timing(1.0)}]) == (ENTRY, 1.0)
    assert best(ENTRY, [{USUAL: _timing(1.0)}]) == best(ENTRY, []) == (ENTRY, 1.0)


@NEEDS_EMULATOR
@pytest.mark.parametrize("pass_name", PASSES)
def test_measuring(pass_name: str, emulator: Emulator) -> None:
    problem = Problem(pass_name, "float32", rows=3, classes=50)
    with emulator.running():
        entries = parse(torch.ops.ce_ext.cuda_policy())
        entry = covering(entries, pass_name, problem.row_bytes)
        teams = [threads for threads in TEAMS[pass_name] if threads != entry.threads][:2]
        measurement = measure(problem, entry, teams, "cpu", kernel_clock("cpu"), budget=0.0)
        assert parse(torch.ops.ce_ext.cuda_policy()) == entries
    assert list(measurement.timings) == [entry.threads, *teams] and measurement.failures == []
    table = improved(entries, [measurement])
    assert [new.name for new, _ in table] == [entry.name for entry in entries]
    record = json.loads(json.dumps(as_json({}, {"before": Ceilings(1.0, 1.0, 1.0)}, [measurement], table)))
    assert [row["threads"] for row in record["measurements"]] == [entry.threads, *teams]
    assert all(row["seconds"]["median"] > 0 and row["of_ceiling"] > 0 for row in record["measurements"])


@NEEDS_EMULATOR
def test_team_that_gives_wrong_results_is_not_timed(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    def forward(input: torch.Tensor, target: torch.Tensor, reduction: str) -> torch.Tensor:
        loss = sweep.CROSS_ENTROPY.function(input, target, reduction=reduction)
        return loss * 2 if "forward:4096=128" in torch.ops.ce_ext.cuda_policy() else loss

    monkeypatch.setitem(sweep.CALLS, "forward", (forward, *sweep.CALLS["forward"][1:]))
    problem = Problem("forward", "float32", rows=3, classes=50)
    with emulator.running():
        entry = covering(parse(torch.ops.ce_ext.cuda_policy()), "forward", problem.row_bytes)
        measurement = measure(problem, entry, [128], "cpu", kernel_clock("cpu"), budget=0.0)
    assert list(measurement.timings) == [entry.threads]
    [failure] = measurement.failures
    assert failure.startswith("forward, float32, 3x50, 128 threads: relative error of the loss")


@NEEDS_EMULATOR
@pytest.mark.parametrize("budget", ["60", "0"])
def test_whole_run(
    budget: str,
    emulator: Emulator,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    """As on a GPU, with few teams and rows, and times that were not measured."""
    medians = {8: 2.0, 32: 1.0}

    def measured(problem: Problem, entry: Entry, teams: list[int], *_: object) -> sweep.Measurement:
        small = measure(replace(problem, rows=3), entry, [], "cpu", kernel_clock("cpu"), 0.0)
        timings = {threads: _timing(medians.get(threads, 3.0)) for threads in teams}
        return replace(small, timings=timings, failures=[f"{problem}: why"])

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(sweep, "describe", lambda device: {"device": device})
    monkeypatch.setattr(sweep, "kernel_clock", lambda device: None)
    monkeypatch.setattr(sweep, "measure_ceilings", lambda device: Ceilings(3000.0, 3000.0, 3000.0))
    monkeypatch.setattr(sweep, "measure", measured)
    file = tmp_path / "sweep.json"
    options = ["--passes", "forward", "--bytes", "1024", "--budget", budget, "--json", str(file)]
    monkeypatch.setattr(sys, "argv", ["sweep", *options])
    with emulator.running():
        status = sweep.main()
    printed = capsys.readouterr().out
    record = json.loads(file.read_text())
    gains = {row["entry"]: row["gain"] for row in record["table"]}
    assert record["environment"] == {"device": "cuda"} and "{Pass::kForward, 32768, 128},\n" in printed
    if budget == "0":
        assert status == 0 and "out of time: forward, bfloat16, 262144x512" in printed
        assert "0 of 9 entries change" in printed and set(gains.values()) == {1.0}
    else:
        assert status == 1 and printed.count("not timed: forward, ") == len(record["failures"]) == 2
        assert "1 of 9 entries change" in printed and gains["forward:4096=32"] == 2
        assert "{Pass::kForward, 4096, 32},  // 2.00x\n" in printed
        assert "…" not in printed


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu() -> None:
    run = subprocess.run([sys.executable, "-m", "benchmarks.sweep"], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 1 and run.stdout == ""
    assert run.stderr == f"sweep: torch {torch.__version__} sees no GPU on this machine\n"
