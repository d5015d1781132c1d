"""The benchmark as an instrument: it runs, counts what it should, and times nothing that is wrong."""

import dataclasses
import subprocess
import sys
from collections import Counter
from importlib import metadata
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks import __main__ as main
from benchmarks import environment, measure
from benchmarks.cases import Case
from benchmarks.functions import CROSS_ENTROPY, FUNCTIONS, SOFT_CROSS_ENTROPY
from benchmarks.limits import Ceilings
from benchmarks.passes import BACKWARD, PASSES
from benchmarks.providers import PEERS, PROVIDERS, Provider, competitors, versions
from benchmarks.record import read
from benchmarks.record_text import to_text

ROOT = Path(__file__).parents[2]


@pytest.mark.thorough
def test_smallest_run(tmp_path: Path) -> None:
    results, picture = tmp_path / "results.json", tmp_path / "picture.png"
    options = ["--quick", "--shapes", "64x1000", "--budget", "0.1", "--device", "cpu"]
    command = [sys.executable, "-m", "benchmarks", *options, "--json", str(results), "--plot", str(picture)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "64x1000" in run.stdout and "Geometric mean" in run.stdout
    record = read(str(results))
    assert len(record["rows"]) == len(FUNCTIONS) * 2 * 3 * 2  # dtypes, passes, providers
    assert {row["loss"] for row in record["rows"]} == FUNCTIONS.keys()
    for row in record["rows"]:
        assert 0 < row["seconds"]["best"] <= row["seconds"]["median"]
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert results.read_text() == to_text(record) and len(results.read_text()) < 150 * len(record["rows"])


def test_wrong_provider_is_not_timed() -> None:
    wrong = dataclasses.replace(CROSS_ENTROPY, function=lambda x, y: CROSS_ENTROPY.function(x, y) * 1.01)
    rows, failures = measure.measure(Case(wrong, (9, 16), torch.float32), ["ce_ext", "eager"], "cpu", 0.01)
    assert {row.provider for row in rows} == {"eager"}
    assert len(failures) == len(PASSES) and all("WrongResultError" in str(failure) for failure in failures)


def test_provider_that_overwrites_its_input(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(CROSS_ENTROPY, (70, 40), torch.float32)
    pristine, _ = case.loss.make_inputs(case.shape, case.dtype, device)
    calls: Counter[bool] = Counter()

    def in_place(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        calls[logits.requires_grad] += 1
        if device == "cuda" or calls[logits.requires_grad] <= 2:  # the check, and the measuring of memory
            assert torch.equal(logits, pristine)
        loss = torch.nn.functional.cross_entropy(logits, target)
        result = loss.detach().requires_grad_(logits.requires_grad)
        if logits.requires_grad:
            result.register_hook(lambda _: setattr(logits, "grad", logits.detach()))
            (gradient,) = torch.autograd.grad(loss, logits)
            logits.detach().copy_(gradient)
        return result * 1

    provider = Provider(lambda case: in_place, overwrites_input=True, has_backward_alone=False)
    monkeypatch.setitem(PROVIDERS, "in place", provider)
    rows, failures = measure.measure(case, ["in place", "eager"], device, 0.01)
    assert failures == [] and min(calls.values()) > 2
    both = set(product(("in place", "eager"), PASSES))
    assert {(row.provider, row.pass_name) for row in rows} == both - {("in place", BACKWARD)}


def test_provider_that_has_nothing_for_a_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PROVIDERS, "nothing", Provider(lambda case: None))
    case = Case(CROSS_ENTROPY, (8, 16), torch.float32)
    rows, failures = measure.measure(case, ["eager", "nothing"], "cpu", 0.01)
    assert failures == [] and {row.provider for row in rows} == {"eager"}


@pytest.mark.parametrize("name", ["grad_in_forward", "inplace"])
def test_gradient_in_forward(name: str) -> None:
    """Timed in both passes together, and for cross entropy; in place, the gradient takes no memory."""
    for loss in FUNCTIONS.values():
        case = Case(loss, (70, 400), torch.float32, "mean" if loss.is_reduced else "none")
        rows, failures = measure.measure(case, ["eager", name], "cpu", 0.01)
        assert failures == []
        passes = [row.pass_name for row in rows if row.provider == name]
        assert passes == (["forward+backward"] if loss is CROSS_ENTROPY else [])
        for row in rows:
            if row.provider == name:
                assert (row.extra_bytes < 70 * 400 * 4 / 2) == (name == "inplace")


def test_peers_take_rows_of_classes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in (("liger_kernel.transformers.functional", "liger_cross_entropy"), ("quack", "cross_entropy")):
        monkeypatch.setitem(sys.modules, module, SimpleNamespace(**{name: name}))
    both, none = ["liger_cross_entropy", "cross_entropy"], [None, None]
    plain = Case(CROSS_ENTROPY, (8, 16), torch.float32)
    for change, expected in (
        ({}, both),
        ({"reduction": "none"}, both),
        ({"options": {"label_smoothing": 0.1}}, ["liger_cross_entropy", None]),
        ({"options": {"weight": True}}, none),
        ({"shape": (2, 3, 4, 5)}, none),
        ({"layout": "transposed"}, none),
        ({"loss": SOFT_CROSS_ENTROPY}, none),
    ):
        assert [PROVIDERS[name].find(dataclasses.replace(plain, **change)) for name in PEERS] == expected, change


def test_only_peers_that_are_installed_compete_and_on_cuda_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(package: str) -> str:
        if package == "quack-kernels":
            return "1.2.3"
        raise metadata.PackageNotFoundError(package)

    monkeypatch.setattr(metadata, "version", version)
    always = ("ce_ext", "grad_in_forward", "inplace", "eager", "compile")
    assert competitors("cuda") == (*always, "quack")
    assert competitors("cpu") == always
    assert versions() == {"quack": "1.2.3"}


@pytest.fixture
def small_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The benchmark's own process, with less to do; what comes back is its JSON."""
    results = tmp_path / "results.json"
    options = [
        "--quick",
        "--losses",
        "cross_entropy",
        "--shapes",
        "8x16",
        "64x1000",
        "--dtypes",
        "float32",
        "--budget",
        "0.01",
        "--device",
        "cpu",
    ]
    monkeypatch.setattr(sys, "argv", ["benchmarks", *options, "--json", str(results)])
    monkeypatch.setattr(main, "measure_ceilings", lambda device: Ceilings(1.0, 1.0, 1.0))
    return results


@pytest.mark.parametrize(("culprit", "status"), [("eager", 1), ("quack", 0)])
def test_peers_may_fail(culprit: str, status: int, small_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def find(case: Case) -> None:
        raise ImportError("it is broken")

    monkeypatch.setitem(PROVIDERS, culprit, Provider(find))
    monkeypatch.setattr(main, "QUICK_PROVIDERS", ("ce_ext", culprit))
    assert main.main() == status
    record = read(str(small_run))
    assert record["providers"] == ["ce_ext", culprit]
    assert record["failures"][0] == f"{culprit}, cross_entropy, float32, 8x16: forward: ImportError: it is broken"
    assert len(record["failures"]) == 2 * len(PASSES) and {row["provider"] for row in record["rows"]} == {"ce_ext"}


def test_a_crash_leaves_the_cases_before_it(small_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(case: Case, *arguments: Any) -> Any:
        if case.shape == (64, 1000):
            raise RuntimeError("the GPU is gone")
        return measure.measure(case, *arguments)

    monkeypatch.setattr(main, "measure", crash)
    with pytest.raises(RuntimeError, match="the GPU is gone"):
        main.main()
    record = read(str(small_run))
    assert [row["shape"] for row in record["rows"]] == [[8, 16]] * 4
    assert record["ceilings_gb_per_second"].keys() == {"before"}


def test_out_of_memory_costs_one_case(monkeypatch: pytest.MonkeyPatch) -> None:
    def exact(*arguments: Any) -> None:
        raise torch.OutOfMemoryError("too much")

    monkeypatch.setattr(measure, "exact", exact)
    rows, failures = measure.measure(Case(CROSS_ENTROPY, (8, 16), torch.float32), ["eager"], "cpu", 0.01)
    assert rows == [] and [str(failure) for failure in failures] == ["float64, cross_entropy, float32, 8x16: too much"]


@pytest.mark.parametrize("has_git", [True, False])
def test_commit(has_git: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    git = tmp_path / "git"
    if has_git:
        git.write_text("#!/bin/sh\necho from git\n")
        git.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("COMMIT", "from the caller")
    assert environment.describe("cpu")["commit"] == ("from git" if has_git else "from the caller")
