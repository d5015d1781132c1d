"""The run on a machine with a GPU, with stages that need none: their limits, logs, and what is said of them."""

import json
import os
import re
import subprocess
import sys
import sysconfig
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from benchmarks import __main__ as benchmark
from benchmarks.cases import select
from benchmarks.ceilings import Ceilings
from benchmarks.passes import PASSES
from benchmarks.providers import PROVIDERS
from benchmarks.record import parse
from tools import gpu

ROOT = Path(__file__).parents[2]


def _python(code: str) -> tuple[str, ...]:
    return sys.executable, "-c", code


def _stage(name: str, code: str, limit: int = 60, findings: tuple[str, ...] = ()) -> gpu.Stage:
    return gpu.Stage(name, limit, _python(code), findings=findings)


def _real(name: str, folder: Path) -> gpu.Stage:
    [stage] = [stage for stage in gpu.stages(folder) if stage.name == name]
    return stage


def test_outcome_of_a_stage(tmp_path: Path) -> None:
    good = gpu.run(_stage("good", "print('7 of 7'); print('bye')", findings=(r"(\d+) of",)), tmp_path)
    assert good.verdict == "ok" and good.findings == "7"
    assert (tmp_path / "good.log").read_text() == "7 of 7\nbye\n"
    assert gpu.run(_stage("quiet", "print('bye')", findings=("absent",)), tmp_path).findings == ""

    bad = gpu.run(_stage("bad", "import sys; print('first'); sys.exit('last')", findings=("absent",)), tmp_path)
    assert bad.verdict == "FAILED" and bad.findings == "last"
    assert bad.last_lines(2) == "first\nlast"

    nowhere = gpu.run(gpu.Stage("nowhere", 60, ("no-such-program",)), tmp_path)
    assert nowhere.verdict == "FAILED" and "no-such-program" in nowhere.findings


@pytest.mark.parametrize("listens", [True, False])
def test_stage_that_hangs_is_ended_with_all_that_it_started(listens: bool, tmp_path: Path) -> None:
    trap = "echo stopped; exit" if listens else ""
    child = f"""import subprocess, time
print(subprocess.Popen(["sh", "-c", "trap '{trap}' INT; sleep 99; sleep 99"]).pid)
time.sleep(99)"""
    outcome = gpu.run(_stage("hangs", child, limit=1), tmp_path)
    assert outcome.verdict == "TIMED OUT" and 1 <= outcome.seconds < 30
    pid, *last_words = outcome.log.split()  # what was printed up to then is in the log
    assert ("stopped" in last_words) == listens
    status = Path("/proc", pid, "status")
    for _ in range(100):
        if not status.exists() or "State:\tZ" in status.read_text():
            break
        time.sleep(0.1)
    else:
        pytest.fail("the child is still running")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine that says that it has a GPU, and the folder for what comes of it."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    return tmp_path / "new" / "folder"


def _main(folder: Path, monkeypatch: pytest.MonkeyPatch, *options: str) -> int:
    monkeypatch.setattr(sys, "argv", ["gpu", str(folder), *options])
    return gpu.main()


def test_a_failure_does_not_stop_the_next_stage(
    machine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fakes = [
        _stage("build", "raise SystemExit('no compiler')"),
        _stage("test", "import time; time.sleep(99)", limit=1),
        _stage("bench", "print('[/] is no markup'); print('12 passed')", findings=(r"\d+ passed", r"\[/\].*")),
    ]
    monkeypatch.setattr(gpu, "stages", lambda folder: fakes)
    assert _main(machine, monkeypatch) == 1
    printed = capsys.readouterr().out
    summary = (machine / "summary.txt").read_text()
    assert printed.endswith(summary)  # it comes last
    rows = "\n".join(" ".join(line.split()) for line in summary.splitlines())
    assert re.search(r"^build FAILED \d+ 60 no compiler$", rows, re.MULTILINE)
    assert 1 <= int(re.search(r"^test TIMED OUT (\d+) 1\b", rows, re.MULTILINE)[1]) < 30
    assert re.search(r"^bench ok \d+ 60 12 passed; \[/\] is no markup$", rows, re.MULTILINE)
    assert sorted(path.name for path in machine.iterdir()) == ["bench.log", "build.log", "summary.txt", "test.log"]


def test_results_of_an_earlier_run_are_not_shown(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "stages", lambda folder: [_stage("test", ""), _stage("bench", "")])
    machine.mkdir(parents=True)
    results = machine / "benchmark.json"
    results.write_text("of an earlier run")
    assert _main(machine, monkeypatch, "--stages", "test") == 0
    assert "bench" not in (machine / "summary.txt").read_text() and results.exists()
    assert _main(machine, monkeypatch, "--stages", "bench") == 0
    assert "test" not in (machine / "summary.txt").read_text() and not results.exists()


def test_summary_of_a_benchmark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = tmp_path / "benchmark.json"
    options = ["--device", "cpu", "--quick", "--losses", "cross_entropy", "--shapes", "8x16", "64x1000"]
    options += ["--dtypes", "float32", "--budget", "0.1"]
    monkeypatch.setattr(sys, "argv", ["benchmarks", *options, "--json", str(results)])
    monkeypatch.setattr(benchmark, "measure_ceilings", lambda device: Ceilings(30.0, 30.0, 3.0))
    assert benchmark.main() == 0
    record = parse(results.read_text())
    lacking = [row for row in record["rows"] if (row["provider"], row["pass"]) == ("eager", "forward")]
    record["rows"] = [row for row in record["rows"] if row not in lacking]
    record["failures"] = [f"eager, case {number}: {'very ' * 100}wrong\nfor details see" for number in range(9)]

    with (tmp_path / "summary.txt").open("w") as file:
        gpu.summarize([], record, Console(file=file, width=gpu.WIDTH))
    summary = (tmp_path / "summary.txt").read_text()
    environment = record["environment"]
    assert all(str(environment[fact]) in summary for fact in ("device", "torch", "date", "commit"))
    lines = [line for line in summary.splitlines() if "64x1000" in line]
    assert [line.split()[-1][-1] for line in lines] == ["-", "x", "x"]
    [row] = [
        row
        for row in record["rows"]
        if (row["shape"], row["pass"], row["provider"]) == ([64, 1000], "forward", "ce_ext")
    ]
    assert f"{row['seconds']['best'] * 1e3:.3f}" in lines[0] and f"{row['of_ceiling']:.0%}" in lines[0]
    assert summary.count("not timed") == 5 and "and 4 more" in summary
    assert summary.count("\n") < 30 and max(map(len, summary.splitlines())) <= gpu.WIDTH


def test_summary_of_a_whole_run_is_not_cut(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = {"seconds": {"best": 0.1}, "of_ceiling": 1.0, "layout": "contiguous", "options": {}}
    rows = [
        row
        | {"loss": case.loss.name, "dtype": case.dtype_name, "shape": case.shape, "reduction": case.reduction}
        | {"pass": pass_name, "provider": provider}
        for case in select((), (), (), (), "cuda", quick=False)
        for pass_name in PASSES
        for provider in PROVIDERS
    ]
    facts = dict.fromkeys(("device", "driver", "torch", "date", "commit"), "known")
    record = {"environment": facts, "providers": list(PROVIDERS), "rows": rows, "failures": ["why"] * 99}
    outcomes = [gpu.Outcome(stage, "TIMED OUT", 60, "last line") for stage in gpu.stages(tmp_path)]
    gpu.summarize(outcomes, record, Console(width=gpu.WIDTH))
    printed = capsys.readouterr().out
    assert "…" not in printed and "8x19x1024x1024" in printed and list(PROVIDERS)[-1] in printed
    assert printed.count("\n") < 140


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_nothing_is_run(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tools.gpu", str(tmp_path / "out")]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 1 and run.stdout == ""
    assert run.stderr == f"gpu: torch {torch.__version__} sees no GPU on this machine\n"
    assert not (tmp_path / "out").exists()


def test_without_torch_it_says_which_python_lacks_it(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError('gone', name='torch')")
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-m", "tools.gpu", str(tmp_path)]
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert run.returncode == 1 and f"{sys.executable} has no torch" in run.stderr and run.stderr.count("\n") == 1


def test_build_asks_for_cuda(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "nothing"))
    outcome = gpu.run(_real("build", tmp_path), tmp_path)
    assert outcome.verdict == "FAILED" and outcome.findings.startswith("CE_EXT_CUDA=1, but torch")


def test_sanitizers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sanitizer = tmp_path / "bin" / "compute-sanitizer"
    sanitizer.parent.mkdir()
    sanitizer.write_text(
        """#!/bin/sh
echo "caching is off: $PYTORCH_NO_CUDA_MEMORY_CACHING"
for argument; do echo "<$argument>"; done
echo "1 failed, 3 passed in 2.00s"
echo "========= ERROR SUMMARY: 2 errors"
exit 1
"""
    )
    sanitizer.chmod(0o755)
    monkeypatch.setenv("PATH", str(sanitizer.parent), prepend=os.pathsep)
    tools = ("memcheck", "racecheck", "synccheck")
    for outcome in (gpu.run(_real(name, tmp_path), tmp_path) for name in tools):
        cached = "1" if outcome.stage.name == "memcheck" else ""
        assert outcome.verdict == "FAILED" and outcome.findings == "1 failed, 3 passed; 2 errors"
        assert f"caching is off: {cached}\n" in outcome.log
        assert f"<--tool>\n<{outcome.stage.name}>" in outcome.log
        assert f"<{sys.executable}>\n<-m>\n<pytest>" in outcome.log


@pytest.mark.thorough
def test_sanitized_tests_are_few_and_of_every_kind() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "--collect-only", "--device", "cpu", "-m", "kernel", "-k"]
    command += [gpu.FEW_TESTS, "tests/losses", "tests/cuda"]
    run = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    tests = [line for line in run.stdout.splitlines() if "::" in line]
    assert len(tests) < 200
    kinds = ["9000x3-", "3x257-", "2x9000-", "2x130x5x3-", "misaligned", "reduction=mean", "reduction=none", "weight"]
    kinds += ["smoothing=0.1", "ignore_index", "-float64]", "-float32]", "-bfloat16]"]
    kinds += ["mean-all", "inplace", "test_probability_targets", "test_log_softmax"]
    kinds += ["3x8200-", "pos_weight=True", "one_hot", "sigmoid/test_layouts"]
    assert [kind for kind in kinds if not any(kind in test for test in tests)] == []


def test_all_usual_stages_but_the_last_fit(tmp_path: Path) -> None:
    *limits, last = [stage.limit for stage in gpu.stages(tmp_path) if stage.is_usual]
    assert sum(limits) <= gpu.LIMIT <= 9 * 60 and last <= 150
    assert all(stage.limit < 9 * 60 for stage in gpu.stages(tmp_path))


def test_stages_have_to_do_with_the_time_that_is_left(
    machine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fakes = [_stage("first", "import time; time.sleep(99)"), _stage("second", ""), _stage("third", "")]
    monkeypatch.setattr(gpu, "stages", lambda folder: fakes)
    assert _main(machine, monkeypatch, "--limit", "1.5") == 1
    rows = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert [row for row in rows if re.match("first TIMED OUT [1-9] 1", row)]
    assert {"second NO TIME 0 60", "third NO TIME 0 60"} <= set(rows)


SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")


@pytest.fixture
def prebuilt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Libraries for this torch and two capabilities, for a machine that has one of these."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    monkeypatch.setattr(gpu, "PACKAGE", tmp_path / "package")
    gpu.PACKAGE.mkdir()
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    for name in ("_C", "_cpu_default", "_cuda"):
        (folder / f"{name}{SUFFIX}").write_text(name)
    (folder / "_built_with.py").write_text(f"TORCH, CUDA_ARCHS = {str(torch.__version__)!r}, '8.0;9.0+PTX'\n")
    return folder


def test_libraries_that_were_built_elsewhere(
    prebuilt: Path, machine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu, "stages", lambda folder: [_stage("build", ""), _stage("test", "")])
    assert _main(machine, monkeypatch, "--prebuilt", str(prebuilt)) == 0
    printed = capsys.readouterr().out
    assert f"the libraries of {prebuilt} are taken, and nothing is built\n" in printed
    assert "build:" not in printed and "test:" in printed
    taken = sorted(path.name for path in gpu.PACKAGE.iterdir())
    assert taken == sorted(path.name for path in prebuilt.iterdir())


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ("TORCH, CUDA_ARCHS = '1.0', '9.0'", f"they are for torch 1.0, and this is {torch.__version__}"),
        (f"TORCH, CUDA_ARCHS = {str(torch.__version__)!r}, '8.0'", "they are for capability 8.0, and this is 9.0"),
        (None, "has no _C and _cuda for this Python, or no _built_with.py"),
        (f"TORCH = {str(torch.__version__)!r}", "they are for capability none, and this is 9.0"),
    ],
    ids=["torch", "capability", "Python", "of an older build"],
)
def test_libraries_that_do_not_fit(
    facts: str | None,
    reason: str,
    prebuilt: Path,
    machine: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if facts is None:
        (prebuilt / f"_cuda{SUFFIX}").rename(prebuilt / "_cuda.of-another-python.so")
    else:
        (prebuilt / "_built_with.py").write_text(facts)
    monkeypatch.setattr(gpu, "stages", lambda folder: [_stage("build", "")])
    assert _main(machine, monkeypatch, "--prebuilt", str(prebuilt)) == 0
    printed = capsys.readouterr().out
    assert "are not taken: " in printed and reason in printed and "build:" in printed
    assert [*gpu.PACKAGE.iterdir()] == []


def test_benchmarks_of_both_stages_are_one(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = {"environment": dict.fromkeys(("device", "driver", "torch", "commit", "date"), "some"), "failures": []}
    part["ceilings_gb_per_second"] = {"before": {"read": 2.0, "copy": 1.0, "fill_fresh": 1.0}}
    row = {"loss": "cross_entropy", "shape": [8192, 1000], "dtype": "float32", "pass": "forward", "extra_bytes": 0}
    row |= {"provider": "ce_ext", "seconds": {"best": 1.0, "median": 1.0}, "relative_errors": {}}
    row |= {"floor_bytes": 10, "copied_bytes": 0, "written_bytes": 0}
    fakes = []
    for name, loss in zip(gpu.PARTS, ("cross_entropy", "nll_loss"), strict=True):
        text = json.dumps({**part, "rows": [row | {"loss": loss}]})
        fakes.append(_stage(f"bench-{loss}", f"open({str(machine / name)!r}, 'w').write({text!r})"))
    monkeypatch.setattr(gpu, "stages", lambda folder: fakes)
    assert _main(machine, monkeypatch) == 0
    assert [row["loss"] for row in parse((machine / gpu.RESULTS).read_text())["rows"]] == ["cross_entropy", "nll_loss"]
    summary = (machine / "summary.txt").read_text()
    assert "cross_entropy" in summary and "nll_loss" in summary


def test_stages_that_are_not_usual_are_run_by_name(
    machine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fakes = [_stage("test", ""), replace(_stage("sweep", ""), is_usual=False)]
    monkeypatch.setattr(gpu, "stages", lambda folder: fakes)
    assert _main(machine, monkeypatch) == 0
    assert "sweep" not in capsys.readouterr().out
    assert _main(machine, monkeypatch, "--stages", "sweep") == 0
    assert "sweep ok" in " ".join(capsys.readouterr().out.split())
