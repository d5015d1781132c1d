"""Records of the benchmark: read again, compared with another, and held against the goals."""

import json
import subprocess
import sys
from argparse import ArgumentTypeError
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from benchmarks import compare, goals
from benchmarks.goals import misses
from benchmarks.record import Record, read

ROOT = Path(__file__).parents[2]
RESULTS = sorted((ROOT / "benchmarks" / "results").glob("c*-threads*.json"))  # and not those that are no times


def _row(provider: str, seconds: float, **fields: Any) -> dict[str, Any]:
    """A row of an old record, unless the fields say more."""
    row = {"loss": "cross_entropy", "shape": [8192, 1000], "dtype": "float32", "pass": "forward", "provider": provider}
    figures = {"seconds": {"best": seconds}, "floor_bytes": 1 << 25, "of_ceiling": 1.0, "extra_bytes": 0}
    return row | figures | fields


@pytest.fixture
def record(tmp_path: Path) -> Any:
    """Writes rows as a record and reads it."""

    def write(*rows: dict[str, Any]) -> Record:
        path = tmp_path / "record.json"
        path.write_text(json.dumps({"environment": {}, "rows": rows}))
        return read(str(path))

    return write


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_records_of_any_age_are_read(path: Path) -> None:
    old = read(str(path))
    assert old["providers"][0] == "ce_ext" and {"eager", "compile"} <= set(old["providers"])
    comparison = compare.compare(old, old)
    assert comparison.changes and comparison.lost == comparison.gained == []
    assert {change.ratio for change in comparison.changes} == {1.0}
    assert isinstance(misses(old), list)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"rows": []}', '{"rows": [{"loss": "cross_entropy"}]}', None])
@pytest.mark.parametrize("command", ["compare", "goals"])
def test_other_files_are_refused(command: str, text: str | None, tmp_path: Path) -> None:
    path = tmp_path / "no record.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ArgumentTypeError, match=r"no record\.json (cannot be read|is no record)"):
        read(str(path))
    if text == "{}":
        files = [str(path)] * (2 if command == "compare" else 1)
        run = subprocess.run(
            [sys.executable, "-m", f"benchmarks.{command}", *files], cwd=ROOT, capture_output=True, text=True
        )
        assert run.returncode == 2 and "no record.json is no record of a benchmark" in run.stderr


def test_speedups_count_and_not_times(record: Any) -> None:
    """On a machine that was twice as busy, nothing has changed; elsewhere ce_ext became slower, or has no peer."""
    nll = {"loss": "nll_loss"}
    others = (_row("ce_ext", 1.0, **nll), _row("eager", 2.0, **nll), _row("ce_ext", 1.0, dtype="bfloat16"))
    old = record(_row("ce_ext", 1.0), _row("eager", 3.0), *others)
    others = (_row("ce_ext", 1.0, **nll), _row("eager", 1.0, **nll), _row("ce_ext", 0.25, dtype="bfloat16"))
    new = record(_row("ce_ext", 2.0), _row("eager", 6.0), *others)
    slower, same, faster = compare.compare(old, new).changes
    assert (slower.key.loss, slower.of_time, slower.of_speedup) == ("nll_loss", 1.0, 0.5)
    assert (same.key.loss, same.of_time, same.of_speedup, same.ratio) == ("cross_entropy", 0.5, 1.0, 1.0)
    assert (faster.key.dtype, faster.of_speedup, faster.ratio) == ("bfloat16", None, 4.0)


def test_cases_of_one_run_alone_are_listed(record: Any, capsys: pytest.CaptureFixture[str]) -> None:
    old = record(_row("ce_ext", 1.0), _row("ce_ext", 1.0, shape=[8, 16]), _row("eager", 1.0, loss="nll_loss"))
    new = record(_row("ce_ext", 1.0), _row("ce_ext", 1.0, reduction="none", options={"weight": True}))
    compare.show(compare.compare(old, new), Console(width=160))
    lines = capsys.readouterr().out.splitlines()
    assert sum("8192x1000" in line and "1.00x" in line for line in lines) == 1
    assert "only in the old run: cross_entropy, float32, 8x16, forward" in lines
    assert "only in the new run: cross_entropy, float32, 8192x1000, none, weight, forward" in lines


def _goals(record: Record) -> list[tuple[str, str]]:
    return [(miss.goal, miss.found) for miss in misses(record)]


def test_slower_than_a_peer(record: Any) -> None:
    rows = [_row("ce_ext", 1.0), _row("eager", 0.5), _row("compile", 0.9), _row("inplace", 0.1)]
    assert _goals(record(*rows)) == [("no slower than eager", "0.50x"), ("no slower than compile", "0.90x")]
    assert _goals(record(*(row | {"shape": [8, 16], "floor_bytes": 500} for row in rows))) != []
    assert _goals(record(*(row | {"pass": "warm backward"} for row in rows))) == []


@pytest.mark.parametrize(
    ("fields", "least"),
    [
        ({"shape": [8192, 512]}, 0.85),
        ({"shape": [8, 19, 256, 256]}, 0.6),
        ({"shape": [8192, 512], "pass": "warm backward"}, 0.8),
        ({"shape": [1048576, 100], "pass": "warm backward"}, 0.6),
        ({"shape": [8192, 200], "pass": "warm backward"}, 0.8),
        ({"shape": [8192, 200]}, None),
        ({"pass": "forward+backward"}, None),
        ({"floor_bytes": 1 << 20}, None),
        ({"loss": "binary_cross_entropy", "shape": [16777216]}, None),
        ({"loss": "binary_cross_entropy", "shape": [16777216], "pass": "warm backward"}, 0.8),
        ({"loss": "nll_loss"}, None),
        ({"loss": "nll_loss", "pass": "warm backward"}, 0.8),
    ],
    ids=str,
)
def test_share_of_the_ceiling(fields: dict[str, Any], least: float | None, record: Any) -> None:
    share = least or 0.0
    assert _goals(record(_row("ce_ext", 1.0, **fields, of_ceiling=share))) == []
    missed = [] if least is None else [(f"{share:.0%} of the ceiling", f"{share - 0.1:.0%}")]
    assert _goals(record(_row("ce_ext", 1.0, **fields, of_ceiling=share - 0.1))) == missed


def test_memory(record: Any) -> None:
    allowed = 16 * 8192 + 4096
    row = _row("ce_ext", 1.0, written_bytes=1000, extra_bytes=1000 + allowed)
    assert _goals(record(row)) == []
    goal = ("memory for its results, and 16 bytes a row", f"{allowed + 1:,} bytes more")
    assert _goals(record(row | {"extra_bytes": 1001 + allowed})) == [goal]
    elements = {"loss": "binary_cross_entropy", "extra_bytes": 6000}
    assert _goals(record(row | elements)) == [(goal[0], "5,000 bytes more")]


def test_goals_are_shown(record: Any, capsys: pytest.CaptureFixture[str]) -> None:
    goals.show(misses(record(_row("ce_ext", 1.0), _row("eager", 0.5))), Console(width=160))
    assert "no slower than eager   0.50x" in " ".join(capsys.readouterr().out.splitlines())
    goals.show(misses(record(_row("ce_ext", 1.0))), Console(width=160))
    assert capsys.readouterr().out == "All goals are met.\n"
