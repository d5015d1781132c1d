"""The benchmark as an instrument: it runs, counts what it should, and times nothing that is wrong."""

import dataclasses
import json
import math
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
from benchmarks.cases import DTYPES, Case, select
from benchmarks.ceilings import Ceilings
from benchmarks.floors import floor
from benchmarks.memory import peak_extra_bytes
from benchmarks.oracle import TOLERANCE, WrongResultError, check, exact
from benchmarks.providers import PEERS, PROVIDERS, Provider, competitors, versions
from benchmarks.timing import Step, kernel_clock
from tests.cases import CROSS_ENTROPY
from tests.losses import LOSSES

ROOT = Path(__file__).parent.parent


def test_smallest_run(tmp_path: Path) -> None:
    results, picture = tmp_path / "results.json", tmp_path / "picture.png"
    options = ["--quick", "--shapes", "64x1000", "--budget", "0.1", "--device", "cpu"]
    command = [sys.executable, "-m", "benchmarks", *options, "--json", str(results), "--plot", str(picture)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "64x1000" in run.stdout and "Geometric mean" in run.stdout
    record = json.loads(results.read_text())
    assert len(record["rows"]) == len(LOSSES) * 2 * 2 * 2  # dtypes, passes, providers
    assert {row["loss"] for row in record["rows"]} == {loss.name for loss in LOSSES}
    for row in record["rows"]:
        assert 0 < row["seconds"]["best"] <= row["seconds"]["median"] <= row["seconds"]["worst"]
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_floor_bytes() -> None:
    logits, chosen = 6 * 5 * 2, 6 * 2
    for loss in LOSSES:
        input, target = loss.make_inputs((6, 5), torch.bfloat16)
        targets = logits if loss.is_binary else 6 * 8
        forward, both = (floor(loss, input, target, with_backward).bytes for with_backward in (False, True))
        if loss.reads_all:
            assert (forward, both) == (logits + targets, 3 * logits + 2 * targets)
        else:
            assert (forward, both) == (chosen + targets, chosen + logits + 2 * targets)


def test_peak_memory_is_exact(device: str) -> None:
    def call() -> torch.Tensor:
        large = torch.empty(1 << 20, dtype=torch.uint8, device=device)
        del large
        return torch.empty(1 << 18, dtype=torch.uint8, device=device)

    assert peak_extra_bytes(call, device) == 1 << 20


def test_kernel_clock(device: str) -> None:
    source = torch.ones(1 << 24, device=device)
    target = torch.zeros_like(source)
    clock = kernel_clock(device)

    def copies(count: int) -> Step:
        def call() -> torch.Tensor:
            for _ in range(count):
                target.copy_(source)
            return target

        return Step(call, restore=target.zero_)

    one, eight = (min(clock(copies(count), 2) for _ in range(10)) for count in (1, 8))
    assert 4 < eight / one < 16
    assert (target == source).all()
    gigabytes_per_second = 2 * source.nbytes / one * 1e-9
    assert 0.1 < gigabytes_per_second < 20_000


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_wrong_results_are_noticed(dtype: torch.dtype) -> None:
    input, target = CROSS_ENTROPY.make_inputs((64, 100), dtype)
    truth = exact(CROSS_ENTROPY, input, target)
    input.requires_grad_()
    loss = CROSS_ENTROPY.function(input, target)
    loss.backward()
    check(loss, input.grad, truth)
    with pytest.raises(WrongResultError, match="loss"):
        check(loss * 1.1, input.grad, truth)
    with pytest.raises(WrongResultError, match="loss"):
        check(loss * 0.9, input.grad, truth)
    with pytest.raises(WrongResultError, match="gradient"):
        check(loss, input.grad.roll(1), truth)
    with pytest.raises(WrongResultError, match="nan"):
        check(loss * torch.nan, input.grad, truth)


def test_tolerance_is_that_of_the_logits() -> None:
    input, target = CROSS_ENTROPY.make_inputs((64, 100), torch.bfloat16)
    truth = exact(CROSS_ENTROPY, input, target)
    input.requires_grad_()
    loss = torch.nn.functional.cross_entropy(input.float(), target)
    loss.backward()
    errors = check(loss, input.grad, truth)
    assert loss.dtype == torch.float32 and errors["gradient"] > TOLERANCE[torch.float32]


def test_wrong_provider_is_not_timed() -> None:
    wrong = dataclasses.replace(CROSS_ENTROPY, function=lambda x, y: CROSS_ENTROPY.function(x, y) * 1.01)
    rows, failures = measure.measure(Case(wrong, (8, 16), torch.float32), ["ce_ext", "eager"], "cpu", 0.01)
    assert {row.provider for row in rows} == {"eager"}
    assert len(failures) == 2 and all("WrongResultError" in str(failure) for failure in failures)


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

    provider = Provider(lambda case: in_place, overwrites_input=True)
    monkeypatch.setitem(PROVIDERS, "in place", provider)
    rows, failures = measure.measure(case, ["in place", "eager"], device, 0.01)
    assert failures == [] and min(calls.values()) > 2
    assert {(row.provider, row.pass_name) for row in rows} == set(product(("in place", "eager"), measure.PASSES))


def test_provider_that_has_nothing_for_a_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PROVIDERS, "nothing", Provider(lambda case: None))
    case = Case(CROSS_ENTROPY, (8, 16), torch.float32)
    rows, failures = measure.measure(case, ["eager", "nothing"], "cpu", 0.01)
    assert failures == [] and {row.provider for row in rows} == {"eager"}


@pytest.mark.parametrize("name", ["grad_in_forward", "inplace"])
def test_gradient_in_forward(name: str) -> None:
    """Timed with backward alone, and for cross entropy; in place, the gradient takes no memory."""
    for loss in LOSSES:
        case = Case(loss, (70, 400), torch.float32)
        rows, failures = measure.measure(case, ["eager", name], "cpu", 0.01)
        assert failures == []
        passes = [row.pass_name for row in rows if row.provider == name]
        assert passes == (["forward+backward"] if loss is CROSS_ENTROPY else [])
        for row in rows:
            if row.provider == name:
                assert (row.extra_per_input < 0.5) == (name == "inplace")


def test_peers_take_rows_of_classes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in (("liger_kernel.transformers.functional", "liger_cross_entropy"), ("quack", "cross_entropy")):
        monkeypatch.setitem(sys.modules, module, SimpleNamespace(**{name: name}))
    found = {
        shape: [PROVIDERS[name].find(Case(CROSS_ENTROPY, shape, torch.float32)) for name in PEERS]
        for shape in ((8, 16), (2, 3, 4, 5))
    }
    assert found == {(8, 16): ["liger_cross_entropy", "cross_entropy"], (2, 3, 4, 5): [None, None]}


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
    record = json.loads(small_run.read_text())
    assert record["providers"] == ["ce_ext", culprit]
    assert record["failures"][0] == f"{culprit}, cross_entropy, float32, 8x16: forward: ImportError: it is broken"
    assert len(record["failures"]) == 4 and {row["provider"] for row in record["rows"]} == {"ce_ext"}


def test_a_crash_leaves_the_cases_before_it(small_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(case: Case, *arguments: Any) -> Any:
        if case.shape == (64, 1000):
            raise RuntimeError("the GPU is gone")
        return measure.measure(case, *arguments)

    monkeypatch.setattr(main, "measure", crash)
    with pytest.raises(RuntimeError, match="the GPU is gone"):
        main.main()
    record = json.loads(small_run.read_text())
    assert [row["shape"] for row in record["rows"]] == [[8, 16]] * 4
    assert record["ceilings_gb_per_second"].keys() == {"before"}


def test_out_of_memory_costs_one_case(monkeypatch: pytest.MonkeyPatch) -> None:
    def exact(*arguments: Any) -> None:
        raise torch.OutOfMemoryError("too much")

    monkeypatch.setattr(measure, "exact", exact)
    rows, failures = measure.measure(Case(CROSS_ENTROPY, (8, 16), torch.float32), ["eager"], "cpu", 0.01)
    assert rows == [] and [str(failure) for failure in failures] == ["float64, cross_entropy, float32, 8x16: too much"]


def test_cases_of_a_gpu() -> None:
    cases = list(select((), (), DTYPES["cuda"], "cuda", quick=False))
    gigabytes = [math.prod(case.shape) * case.dtype.itemsize * 1e-9 for case in cases]
    assert max(gigabytes) < 2.5  # the oracle holds four float64 copies of it at a time
    assert {case.dtype for case in cases} == {torch.bfloat16, torch.float32}
    assert [case.dtype for case in cases if case.is_tiny] == [torch.float32] * len(LOSSES)


@pytest.mark.parametrize("has_git", [True, False])
def test_commit(has_git: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    git = tmp_path / "git"
    if has_git:
        git.write_text("#!/bin/sh\necho from git\n")
        git.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("COMMIT", "from the caller")
    assert environment.describe("cpu")["commit"] == ("from git" if has_git else "from the caller")
