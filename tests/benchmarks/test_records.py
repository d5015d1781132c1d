"""Records of the benchmark: written and read again, whatever their age, compared, shown, and held against the goals."""

import io
import json
import subprocess
import sys
from argparse import ArgumentTypeError
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from benchmarks import compare, goals, plot, tables
from benchmarks import record as record_file
from benchmarks.compact import compact
from benchmarks.goals import misses
from benchmarks.providers import PROVIDERS
from benchmarks.record import Record, contests, has_host_gaps, merge, read
from benchmarks.record_text import to_text

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "benchmarks" / "results").iterdir())
RESULTS = [path for path in FILES if not path.name.startswith("instructions-")]  # which are no times


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


# GB/s of an old record, and what the passes of its case read and copy, in GB.
READ, COPY = 20.0, 10.0
FLOORS = {"forward": (0.04, 0.0), "forward+backward": (0.06, 0.04), "warm backward": (0.02, 0.04)}


def _old_row(pass_name: str, provider: str, seconds: float, **fields: Any) -> dict[str, Any]:
    """With all that follows from its numbers, as rows were when every number had a line."""
    read_alone, copied = FLOORS[pass_name]
    timing = {"best": seconds, "median": 1.25 * seconds, "worst": 9.0, "spread": 0.25, "samples": 9}
    return {
        **{"loss": "cross_entropy", "shape": [10000, 1000], "dtype": "float32", "reduction": "mean"},
        **{"layout": "contiguous", "options": {}, "pass": pass_name, "provider": provider},
        "relative_errors": {"loss": 1.2e-7} if pass_name == "forward" else {"loss": 1.2e-7, "gradient": 2.3e-7},
        "seconds": {**timing, "calls_per_sample": 4, "page_faults": 12.0},
        "floor_bytes": round((read_alone + copied) * 1e9),
        "written_bytes": round(copied / 2 * 1e9),
        "gb_per_second": (read_alone + copied) / seconds,
        "of_ceiling": (read_alone / READ + copied / COPY) / seconds,
        **{"extra_bytes": 10_000_000, "extra_per_input": 0.25},
        **fields,
    }


@pytest.fixture
def old_file(tmp_path: Path) -> Path:
    rows = [_old_row("forward", "ce_ext", 0.0025), _old_row("forward", "eager", 0.005)]
    rows += [_old_row("forward+backward", "ce_ext", 0.008), _old_row("forward+backward", "inplace", 0.01)]
    rows += [_old_row("forward+backward", "eager", 0.005), _old_row("warm backward", "eager", 0.006)]
    unusual = {"reduction": "none", "layout": "transposed", "options": {"weight": True, "gamma": 1.5}}
    rows += [_old_row("warm backward", "ce_ext", 0.016, **unusual)]
    rows += [_old_row("forward", "ce_ext", 1.0, shape=[8, 16], extra_per_input=10_000_000 / 512)]
    record = {
        "environment": {"device": "some CPU", "driver": None, "threads": 2, "torch": "2.13.0"},
        "providers": ["ce_ext", "inplace", "eager"],
        "ceilings_gb_per_second": {
            "before": {"read": READ, "copy": COPY - 1, "fill_fresh": 3.0},
            "after": {"read": READ - 1, "copy": COPY, "fill_fresh": 3.0},
        },
        "rows": rows,
        "failures": ["eager, nll_loss, float32, 8x16: forward: ValueError: [it] is wrong"],
    }
    path = tmp_path / "old.json"
    path.write_text(json.dumps(record, indent=2))
    return path


@pytest.fixture
def new_file(old_file: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same record, as it is written now."""
    path = old_file.with_name("new.json")
    monkeypatch.setattr(sys, "argv", ["record", str(old_file), str(path)])
    record_file.main()
    return path


def _rounded(value: Any) -> Any:
    """Without the last digits, in which arithmetic differs."""
    form = "{:.12g}".format
    return json.loads(json.dumps(value), parse_int=lambda n: form(int(n)), parse_float=lambda x: form(float(x)))


def test_record_is_short_and_says_the_same(old_file: Path, new_file: Path) -> None:
    text = new_file.read_text()
    assert text.count("\n") < 35 and old_file.read_text().count("\n") > 250
    assert '\n"eager": [[5000,6250,0.25,9,4,12,10000000,1.2e-07], [5000,6250,0.25,' in text
    assert [name for name in ("gb_per_second", "of_ceiling", "extra_per_input", "mean") if f'"{name}"' in text] == []

    old, new = read(str(old_file)), read(str(new_file))
    given = json.loads(old_file.read_text())["rows"]
    assert _rounded(old["rows"]) == _rounded([row | was for row, was in zip(old["rows"], given, strict=True)])
    assert [row["copied_bytes"] for row in old["rows"]] == [round(FLOORS[row["pass"]][1] * 1e9) for row in given]
    for row in old["rows"]:
        del row["seconds"]["worst"]
    assert {**new, "rows": []} == {**old, "rows": []}
    assert _rounded(list(contests(new).items())) == _rounded(list(contests(old).items()))


@pytest.mark.parametrize("tool", ["compact", "goals", "tables", "compare"])
def test_tools_make_the_same_of_records_of_any_age(tool: str, old_file: Path, new_file: Path) -> None:
    show = {
        "compact": lambda record, console: console.print(compact(record)),
        "goals": lambda record, console: goals.show(misses(record), console),
        "tables": tables.show,
        "compare": lambda record, console: compare.show(compare.compare(read(str(old_file)), record), console),
    }[tool]
    texts = []
    for path in (old_file, new_file):
        console = Console(file=io.StringIO(), width=200)
        show(read(str(path)), console)
        texts.append(console.file.getvalue())
    assert texts[0] == texts[1] and "forward+backward" in texts[0]


def test_plots_of_records_of_any_age(old_file: Path, new_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = []
    for path in (old_file, new_file):
        picture = path.with_suffix(".png")
        monkeypatch.setattr(sys, "argv", ["plot", str(path), str(picture)])
        plot.main()
        pictures.append(picture.read_bytes())
    assert pictures[0] == pictures[1]


def test_tables_of_a_file(new_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["tables", str(new_file)])
    tables.main()
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == "some CPU, 2 threads, torch 2.13.0"
    assert "10000x1000 forward 2.500 3.125 25% 16.0 80% - 2.00x 0.25 / - / 0.25" in lines
    assert "not timed: eager, nll_loss, float32, 8x16: forward: ValueError: [it] is wrong" in lines


def test_tables_are_not_cut(
    old_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor with every peer that a GPU may have."""
    record = json.loads(old_file.read_text()) | {"providers": list(PROVIDERS)}
    record["rows"] = [_old_row("forward+backward", name, 1e-3, shape=[8, 19, 1024, 1024]) for name in PROVIDERS]
    old_file.write_text(json.dumps(record))
    monkeypatch.setattr(sys, "argv", ["tables", str(old_file)])
    tables.main()
    printed = capsys.readouterr().out
    assert "8x19x1024x1024" in printed and list(PROVIDERS)[-1] in printed and "…" not in printed


def test_digits_that_are_written() -> None:
    seconds = {"best": 4.180492169325589e-06, "median": 1.0, "spread": 0.04092985, "samples": 12345}
    seconds |= {"calls_per_sample": 256, "page_faults": 0.5}
    row = _old_row("forward", "ce_ext", 1.0)
    row |= {"copied_bytes": 0, "relative_errors": {"loss": 2.0 / 3}, "extra_bytes": 987654321, "seconds": seconds}
    rates = {"read": 32.636164518177615, "copy": 34.0, "fill_fresh": 4.134297960115821}
    text = to_text({"environment": {}, "ceilings_gb_per_second": {"before": rates}, "rows": [row]})
    assert "[4.18,1000000,0.041,12345,256,0.5,987654321,0.67]" in text
    assert '{"read": 32.64, "copy": 34, "fill_fresh": 4.134}' in text


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_results_are_written_as_records_are(path: Path) -> None:
    assert to_text(read(str(path))) == path.read_text()


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


# A record of a GPU has a driver.
GPU = {"driver": "580", **dict.fromkeys(("device", "torch", "commit"), "some")}


@pytest.mark.parametrize(
    ("fields", "least"),
    [
        ({"shape": [8192, 4096]}, 0.97),
        ({"shape": [16384, 50257]}, 0.97),
        ({"shape": [32768, 512]}, 0.8),
        ({"shape": [32768, 511]}, 0.75),
        ({"shape": [8, 19, 1024, 1024]}, 0.92),
        ({"shape": [8, 19, 1024, 1024], "pass": "warm backward"}, 0.92),
        ({"shape": [32768, 10], "pass": "warm backward"}, 0.95),
        ({"loss": "sigmoid_focal_loss", "shape": [16777216]}, 0.92),
        ({"loss": "sigmoid_focal_loss", "shape": [16777216], "pass": "warm backward"}, 0.92),
        ({"loss": "nll_loss"}, None),
        ({"pass": "forward+backward"}, None),
        ({"loss": "log_softmax", "shape": [8192, 32000], "copied_bytes": 1 << 40}, 0.92),
    ],
    ids=str,
)
def test_share_of_the_ceiling_of_a_gpu(fields: dict[str, Any], least: float | None, record: Any) -> None:
    share = least or 0.0
    fields = {"floor_bytes": 1 << 40, **fields}
    assert _goals(record(_row("ce_ext", 1.0, **fields, of_ceiling=share)) | {"environment": GPU}) == []
    missed = [] if least is None else [(f"{share:.0%} of the ceiling", f"{share - 0.1:.0%}")]
    assert _goals(record(_row("ce_ext", 1.0, **fields, of_ceiling=share - 0.1)) | {"environment": GPU}) == missed


def test_short_rows_on_a_gpu_keep_bytes_that_count(record: Any) -> None:
    row = _row("ce_ext", 1.0, shape=[1048576, 10], floor_bytes=28 << 20, of_ceiling=0.6)
    assert _goals(record(row) | {"environment": GPU}) == []  # 36 MiB of them, at 77%
    assert _goals(record(row | {"of_ceiling": 0.55}) | {"environment": GPU}) == [("75% of the ceiling", "71%")]


def test_gradient_in_forward_is_held_to_the_floor_of_backward(record: Any) -> None:
    def goals_with(seconds: float, classes: int = 1024) -> list[tuple[str, str]]:
        of_both = {"pass": "forward+backward", "shape": [8192, classes]}
        rows = [_row("ce_ext", 3.0, **of_both), _row("grad_in_forward", seconds, **of_both)]
        rows.append(_row("ce_ext", 2.0, **of_both | {"pass": "warm backward"}))
        return _goals(record(*rows) | {"environment": GPU})

    assert goals_with(2.1) == goals_with(4.0, classes=1000) == []
    assert goals_with(4.0) == [("grad_in_forward: 92% of the ceiling", "50%")]


def test_every_peer_counts_on_a_gpu(record: Any) -> None:
    rows = (_row("ce_ext", 1.0), *(_row(peer, 0.5) for peer in ("eager", "compile", "liger", "quack", "inplace")))
    found = _goals(record(*rows) | {"environment": GPU})
    assert found == [(f"no slower than {peer}", "0.50x") for peer in ("eager", "compile", "liger", "quack")]


def test_workspace_of_a_gpu_is_no_leak(record: Any) -> None:
    elements = _row("ce_ext", 1.0, loss="sigmoid_focal_loss", written_bytes=1000, extra_bytes=5096 + (512 << 10))
    assert _goals(record(elements) | {"environment": GPU}) == []
    assert len(_goals(record(elements | {"extra_bytes": 600_000}) | {"environment": GPU})) == 1
    assert len(_goals(record(elements))) == 1


def test_parts_of_a_run_are_merged(record: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rates = {"read": 20.0, "copy": 10.0, "fill_fresh": 1.0}
    parts = []
    for number, seconds in enumerate((0.004, 0.008)):
        part = record(_old_row("forward", "ce_ext", seconds, shape=[10000 + number, 1000], copied_bytes=0))
        parts.append(
            part | {"environment": GPU, "failures": [str(number)], "ceilings_gb_per_second": {"before": rates}}
        )
    parts[1]["ceilings_gb_per_second"] = {"before": rates | {"read": 40.0}}
    parts[1]["host_gaps"] = [["ce_ext", "cross_entropy", "float32", "10001x1000", "forward"]]
    merged = merge(parts)
    assert [row["shape"] for row in merged["rows"]] == [[10000, 1000], [10001, 1000]]
    assert merged["failures"] == ["0", "1"] and merged["ceilings_gb_per_second"].keys() == {"before", "before 2"}
    assert [row["of_ceiling"] for row in merged["rows"]] == pytest.approx([0.25, 0.125])
    assert [has_host_gaps(merged, key, "ce_ext") for key in contests(merged)] == [False, True]
    assert merge(parts[:1]) == parts[0]
    with pytest.raises(ValueError, match="they are of different commits"):
        merge([parts[0], parts[1] | {"environment": GPU | {"commit": "another"}}])

    path = tmp_path / "merged.json"
    record_file.write(merged, path)
    read_again = read(str(path))
    assert [has_host_gaps(read_again, key, "ce_ext") for key in contests(read_again)] == [False, True]
    console = Console(file=io.StringIO(), width=200)
    tables.show(read_again, console)
    console.print(compact(read_again))
    printed = console.file.getvalue()
    assert "8.000*" in printed and "4.000*" not in printed and printed.count("With * the GPU may have waited") == 2


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
