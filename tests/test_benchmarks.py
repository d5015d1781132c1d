"""The benchmark as an instrument: it runs, counts what it should, and times nothing that is wrong."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import measure
from benchmarks.cases import Case
from benchmarks.floors import floor
from benchmarks.memory import peak_extra_bytes
from benchmarks.oracle import WrongResultError, check, exact
from tests.cases import CROSS_ENTROPY

ROOT = Path(__file__).parent.parent


def test_smallest_run(tmp_path: Path) -> None:
    results, picture = tmp_path / "results.json", tmp_path / "picture.png"
    options = ["--quick", "--shapes", "64x1000", "--budget", "0.1", "--device", "cpu"]
    command = [sys.executable, "-m", "benchmarks", *options, "--json", str(results), "--plot", str(picture)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "64x1000" in run.stdout and "Geometric mean" in run.stdout
    record = json.loads(results.read_text())
    assert len(record["rows"]) == 2 * 2 * 2  # dtypes, passes, providers
    for row in record["rows"]:
        assert 0 < row["seconds"]["best"] <= row["seconds"]["median"] <= row["seconds"]["worst"]
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_floor_bytes() -> None:
    input, target = CROSS_ENTROPY.make_inputs((6, 5), torch.bfloat16)
    logits, indices = 6 * 5 * 2, 6 * 8
    assert floor(input, target, with_backward=False).bytes == logits + indices
    assert floor(input, target, with_backward=True).bytes == 3 * logits + 2 * indices


def test_peak_memory_is_exact() -> None:
    def step() -> torch.Tensor:
        large = torch.empty(1 << 20, dtype=torch.uint8)
        del large
        return torch.empty(1 << 18, dtype=torch.uint8)

    assert peak_extra_bytes(step, "cpu") == 1 << 20


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_wrong_results_are_noticed(dtype: torch.dtype) -> None:
    input, target = CROSS_ENTROPY.make_inputs((64, 100), dtype)
    truth = exact(CROSS_ENTROPY, input, target)
    input.requires_grad_()
    loss = CROSS_ENTROPY.function(input, target)
    loss.backward()
    check(loss, input.grad, truth)
    with pytest.raises(WrongResultError, match="loss"):
        check(loss * 1.1, input.grad, truth)
    with pytest.raises(WrongResultError, match="gradient"):
        check(loss, input.grad.roll(1), truth)
    with pytest.raises(WrongResultError, match="nan"):
        check(loss * torch.nan, input.grad, truth)


def test_wrong_provider_is_not_timed() -> None:
    wrong = dataclasses.replace(CROSS_ENTROPY, function=lambda x, y: CROSS_ENTROPY.function(x, y) * 1.01)
    rows, failures = measure.measure(Case(wrong, (8, 16), torch.float32), ["ce_ext", "eager"], "cpu", 0.01)
    assert {row.provider for row in rows} == {"eager"}
    assert len(failures) == 2 and all("WrongResultError" in failure for failure in failures)
