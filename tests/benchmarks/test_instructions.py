"""The counts of instructions: what is made of them, and that they repeat."""

import json
import sys
from pathlib import Path

import pytest

from benchmarks import instructions
from benchmarks.callgrind import ISA, count
from benchmarks.kernel_calls import CALLS

HERE = {"compiler": "12.2.0", "torch": "2.13.0", "instruction set": ISA, "valgrind": "3.19.0"}
RECORDED = {f"{name}, float32, 64x1000, forward": 4.0 for name in ("one", "two")}
ONE, TWO = RECORDED


@pytest.fixture
def record(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A record of two kernels, and a machine that it was made on."""
    path = tmp_path / "record.json"
    path.write_text(json.dumps({"setup": HERE, "instructions_per_element": RECORDED}))
    monkeypatch.setattr(instructions, "RECORD", path)
    monkeypatch.setattr(instructions, "setup", lambda: HERE)
    monkeypatch.setattr(instructions, "count_all", lambda: RECORDED)
    monkeypatch.setattr(sys, "argv", ["instructions"])
    return path


@pytest.mark.parametrize(
    ("counts", "status", "message"),
    [
        (RECORDED, 0, "2 kernels: none takes 5% more or less than recorded"),
        ({ONE: 4.19, TWO: 3.81}, 0, "2 kernels: none takes 5% more or less than recorded"),
        ({ONE: 4.24, TWO: 4.0}, 1, f"refused: {ONE}: 4.24 instructions per element, recorded 4.00, +6.0%"),
        ({ONE: 4.0, TWO: 3.0}, 0, f"cheaper: {TWO}: 3.00 instructions per element, recorded 4.00, -25.0%"),
        ({ONE: 4.0}, 1, f"refused: {TWO}: it is in the record, but there is no such kernel"),
        (
            {**RECORDED, "new, float32, 8, forward": 1.0},
            1,
            "refused: new, float32, 8, forward: it is not in the record",
        ),
    ],
    ids=["the same", "within the tolerance", "dearer", "cheaper", "fewer", "more"],
)
def test_comparison(
    counts: instructions.Counts,
    status: int,
    message: str,
    record: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(instructions, "count_all", lambda: counts)
    before = record.read_text()
    assert instructions.main() == status
    lines = capsys.readouterr().out.splitlines()
    assert message in lines
    assert ("none takes" in message) != any("make bench-instructions ARGS=--record" in line for line in lines)
    assert record.read_text() == before

    monkeypatch.setattr(sys, "argv", ["instructions", "--record"])
    assert instructions.main() == 0
    assert json.loads(record.read_text()) == {"setup": HERE, "instructions_per_element": counts}
    monkeypatch.setattr(sys, "argv", ["instructions"])
    assert instructions.main() == 0


@pytest.mark.usefixtures("record")
@pytest.mark.parametrize(("name", "value"), [("compiler", "13.1.0"), ("torch", "2.14.0"), ("valgrind", "missing")])
def test_another_setup(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(instructions, "setup", lambda: {**HERE, name: value})
    monkeypatch.setattr(instructions, "count_all", lambda: pytest.fail("there is nothing to compare them with"))
    assert instructions.main() == 0
    assert f"skipped, the record is of another setup: {name} is {value}, not {HERE[name]}" in capsys.readouterr().out


@pytest.mark.parametrize(("name", "value"), [("instruction set", "default"), ("valgrind", "missing")])
def test_what_cannot_be_recorded(
    name: str, value: str, record: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(instructions, "setup", lambda: {**HERE, name: value})
    monkeypatch.setattr(sys, "argv", ["instructions", "--record"])
    before = record.read_text()
    with pytest.raises(SystemExit):
        instructions.main()
    assert "counting takes valgrind and avx2" in capsys.readouterr().err and record.read_text() == before


def test_machine_without_valgrind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert instructions.setup()["valgrind"] == "missing"


def test_every_kernel_is_recorded_once() -> None:
    kernels = [kernel for call in CALLS for kernel in call.kernels]
    assert kernels == list(json.loads(instructions.RECORD.read_text())["instructions_per_element"])
    assert len(set(kernels)) == len(kernels)


@pytest.mark.thorough
def test_counts_repeat_and_grow_with_the_elements() -> None:
    setup = instructions.setup()
    if setup["valgrind"] == "missing" or setup["instruction set"] != ISA:
        pytest.skip(f"needs valgrind and {ISA}")
    # The first call is not looked at: it resolves the functions that it calls.
    program = """
from dataclasses import replace
from benchmarks.kernel_calls import CALLS, run
run([*3 * [CALLS[0]], replace(CALLS[0], shape=(128, 1000))])
"""
    assert CALLS[0].shape == (64, 1000)
    _, once, again, twice = zip(*2 * [iter(count(program))], strict=True)  # pairs of forward and backward
    assert once == again
    assert [large / small for small, large in zip(once, twice, strict=True)] == pytest.approx([2, 2], rel=0.01)


def test_program_that_fails() -> None:
    if instructions.setup()["valgrind"] == "missing":
        pytest.skip("needs valgrind")
    with pytest.raises(RuntimeError, match="no such luck"):
        count("raise SystemExit('no such luck')")
    with pytest.raises(RuntimeError, match=r"saw no call of .*Backend::run"):
        count("import os; from benchmarks.callgrind import start_instrumentation as start; start(); os.sched_yield()")
