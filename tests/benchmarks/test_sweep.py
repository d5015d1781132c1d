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
from benchmarks.policy import CLUSTERS, PASSES, Entry, Shape, best, candidates, covering, gain, parse
from benchmarks.sweep import BYTES, DTYPES, Problem, as_json, improved, measure
from benchmarks.timing import Timing, kernel_clock
from tests.cuda_emu import ROOT, Emulator
from tests.support.marks import NEEDS_EMULATOR

TEXT = "forward:512=128,8,4,1; forward:inf=256,256,8,1; with_grad:131072@90=256,256,8,4; with_grad:inf=512,512,8,1"
USUAL, OTHER, THIRD = Shape(256, 256, 8, 1), Shape(128, 128, 8, 1), Shape(128, 128, 4, 1)
ENTRY = Entry("forward", 16384, 0, USUAL)


def _timing(median: float, spread: float = 0.0) -> Timing:
    return Timing(median, median, spread, samples=9, calls_per_sample=1, page_faults=0.0)


def test_words_of_the_policy() -> None:
    entries = parse(TEXT)
    assert "; ".join(map(str, entries)) == TEXT
    assert [entry.as_cpp() for entry in entries[:3]] == [
        "{Pass::kForward, 512, 0, {128, 8, 4, 1}},",
        "{Pass::kForward, kAnyLength, 0, {256, 256, 8, 1}},",
        "{Pass::kWithGrad, 131072, 90, {256, 256, 8, 4}},",
    ]
    with pytest.raises(ValueError, match="no entry of a policy: 'forward'"):
        parse("forward")


def test_entry_that_covers_a_row() -> None:
    entries = parse(TEXT)
    assert covering(entries, "forward", 512, 80).row_bytes == 512
    assert covering(entries, "forward", 513, 80).row_bytes == math.inf
    assert covering(entries, "with_grad", 1000, 90).capability == 90
    assert covering(entries, "with_grad", 1000, 80).row_bytes == math.inf


@pytest.mark.parametrize("pass_name", PASSES)
def test_candidates(pass_name: str) -> None:
    for row_bytes in BYTES:
        shapes = candidates(pass_name, row_bytes, 90)
        assert 3 <= len(shapes) <= 50 and len(set(shapes)) == len(shapes)
        assert all(shape.bytes_in_flight <= 4 * row_bytes for shape in shapes)
        assert all(shape.cluster == 1 for shape in candidates(pass_name, row_bytes, 89))
    clusters = {shape.cluster for shape in candidates(pass_name, 1 << 20, 90)}
    assert clusters == ({1} if pass_name == "backward" else set(CLUSTERS))


@NEEDS_EMULATOR
def test_kernels_take_all_candidates(emulator: Emulator) -> None:
    """And the table has, for every problem, a shape that is among them."""
    with emulator.running():
        try:
            entries = parse(torch.ops.ce_ext.cuda_policy())
            for pass_name, row_bytes in product(PASSES, BYTES):
                entry = covering(entries, pass_name, row_bytes, 90)
                shapes = candidates(pass_name, row_bytes, 90)
                assert entry.shape in shapes
                for shape in shapes:
                    torch.ops.ce_ext.override_cuda_policy(f"{entry.name}={shape}")
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


def test_best_shape() -> None:
    fast = {USUAL: _timing(1.0), OTHER: _timing(0.9), THIRD: _timing(0.8)}
    assert best(ENTRY, [fast]) == (replace(ENTRY, shape=THIRD), pytest.approx(1.25))
    partly = {USUAL: _timing(1.0), OTHER: _timing(0.9)}  # the third failed, or was not worth a try
    assert best(ENTRY, [fast, partly]) == (replace(ENTRY, shape=OTHER), pytest.approx(1 / 0.9))
    assert best(ENTRY, [{USUAL: _timing(1.0), OTHER: _timing(1.0)}]) == (ENTRY, 1.0)
    assert best(ENTRY, [{USUAL: _timing(1.0)}]) == best(ENTRY, []) == (ENTRY, 1.0)


@NEEDS_EMULATOR
@pytest.mark.parametrize("pass_name", PASSES)
def test_measuring(pass_name: str, emulator: Emulator) -> None:
    problem = Problem(pass_name, "float32", rows=3, classes=50)
    shapes = [Shape(64, 16, 4, 1), Shape(32, 8, 4, 1)]
    with emulator.running():
        entries = parse(torch.ops.ce_ext.cuda_policy())
        entry = covering(entries, pass_name, problem.row_bytes, 90)
        measurement = measure(problem, entry, shapes, "cpu", kernel_clock("cpu"), budget=0.0)
        assert parse(torch.ops.ce_ext.cuda_policy()) == entries
    assert list(measurement.timings) == [entry.shape, *shapes] and measurement.failures == []
    table = improved(entries, [measurement])
    assert [new.name for new, _ in table] == [entry.name for entry in entries]
    record = json.loads(json.dumps(as_json({}, {"before": Ceilings(1.0, 1.0, 1.0)}, [measurement], table)))
    assert [row["shape"] for row in record["measurements"]] == [str(entry.shape), "64,16,4,1", "32,8,4,1"]
    assert all(row["seconds"]["median"] > 0 and row["of_ceiling"] > 0 for row in record["measurements"])


@NEEDS_EMULATOR
def test_shape_that_gives_wrong_results_is_not_timed(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = Shape(64, 16, 4, 1)

    def forward(input: torch.Tensor, target: torch.Tensor, reduction: str) -> torch.Tensor:
        loss = sweep.CROSS_ENTROPY.function(input, target, reduction=reduction)
        return loss * 2 if str(wrong) in torch.ops.ce_ext.cuda_policy() else loss

    monkeypatch.setitem(sweep.CALLS, "forward", (forward, *sweep.CALLS["forward"][1:]))
    problem = Problem("forward", "float32", rows=3, classes=50)
    with emulator.running():
        entry = covering(parse(torch.ops.ce_ext.cuda_policy()), "forward", problem.row_bytes, 90)
        measurement = measure(problem, entry, [wrong], "cpu", kernel_clock("cpu"), budget=0.0)
    assert list(measurement.timings) == [entry.shape]
    [failure] = measurement.failures
    assert failure.startswith("forward, float32, 3x50, 64,16,4,1: relative error of the loss")


@NEEDS_EMULATOR
@pytest.mark.parametrize("budget", ["60", "0"])
def test_whole_run(
    budget: str,
    emulator: Emulator,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    """As on a GPU, with few shapes and rows, and times that were not measured."""
    medians = {"128,16,4,1": 2.0, "128,32,4,1": 1.0}

    def measured(problem: Problem, entry: Entry, shapes: list[Shape], *_: object) -> sweep.Measurement:
        small = measure(replace(problem, rows=3), entry, [], "cpu", kernel_clock("cpu"), 0.0)
        timings = {shape: _timing(medians.get(str(shape), 3.0)) for shape in shapes}
        return replace(small, timings=timings, failures=[f"{problem}: why"])

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
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
    assert record["environment"] == {"device": "cuda"} and "{Pass::kForward, 512, 0, {128, 8, 4, 1}},\n" in printed
    if budget == "0":
        assert status == 0 and "out of time: forward, bfloat16, 262144x512" in printed
        assert "0 of 21 entries change" in printed and set(gains.values()) == {1.0}
    else:
        assert status == 1 and printed.count("not timed: forward, ") == len(record["failures"]) == 2
        assert "1 of 21 entries change" in printed and gains["forward:1024=128,32,4,1"] == 2
        assert "{Pass::kForward, 1024, 0, {128, 32, 4, 1}},  // 2.00x\n" in printed
        assert "…" not in printed


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu() -> None:
    run = subprocess.run([sys.executable, "-m", "benchmarks.sweep"], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 1 and run.stdout == ""
    assert run.stderr == f"sweep: torch {torch.__version__} sees no GPU on this machine\n"
