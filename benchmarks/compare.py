"""Show what changed between two runs: `python -m benchmarks.compare OLD.json NEW.json`.

Machines are noisy, and times of different runs hardly comparable; but the speedup over a peer is measured within a run.
"""

import argparse
from collections.abc import Iterable
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.console import make_console
from benchmarks.record import Key, Record, contests_of_subject, read, speedup

YARDSTICK = "eager"
NOTEWORTHY = 1.05  # a ratio beyond it or its inverse is no noise, as a rule


@dataclass(frozen=True)
class Change:
    key: Key
    seconds: tuple[float, float]  # the subject's best, old and new
    speedups: tuple[float | None, float | None]  # over the yardstick

    @property
    def of_time(self) -> float:
        """Above 1 is faster now."""
        return self.seconds[0] / self.seconds[1]

    @property
    def of_speedup(self) -> float | None:
        old, new = self.speedups
        return new / old if old and new else None

    @property
    def ratio(self) -> float:
        """The one that counts."""
        return self.of_speedup or self.of_time


@dataclass(frozen=True)
class Comparison:
    changes: list[Change]  # the worst first
    lost: list[Key]
    gained: list[Key]


def compare(old: Record, new: Record) -> Comparison:
    before, after = contests_of_subject(old), contests_of_subject(new)
    changes = [
        Change(
            key,
            (_seconds(old, before, key), _seconds(new, after, key)),
            (speedup(old, before[key], YARDSTICK), speedup(new, after[key], YARDSTICK)),
        )
        for key in after
        if key in before
    ]
    changes.sort(key=lambda change: change.ratio)
    return Comparison(changes, [k for k in before if k not in after], [k for k in after if k not in before])


def _seconds(record: Record, contests: dict[Key, dict], key: Key) -> float:
    return contests[key][record["providers"][0]]["seconds"]["best"]


def show(comparison: Comparison, console: Console) -> None:
    table = Table(title="What changed, the worst first", box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
    for column in ("loss", "dtype", "case", "pass"):
        table.add_column(column, no_wrap=True)
    for column in ("old, ms", "new, ms", "old/new", f"old vs {YARDSTICK}", f"new vs {YARDSTICK}", "new/old"):
        table.add_column(column, justify="right", no_wrap=True)
    for change in comparison.changes:
        ratios = (change.of_time, *change.speedups, change.of_speedup)
        table.add_row(
            *change.key,
            *(f"{seconds * 1e3:.3f}" for seconds in change.seconds),
            *("-" if ratio is None else f"{ratio:.2f}x" for ratio in ratios),
            style="red" if change.ratio < 1 / NOTEWORTHY else "green" if change.ratio > NOTEWORTHY else None,
        )
    console.print(table)
    _list("only in the old run", comparison.lost, console)
    _list("only in the new run", comparison.gained, console)


def _list(title: str, keys: Iterable[Key], console: Console) -> None:
    for key in keys:
        console.print(f"{title}: {', '.join(key)}", highlight=False)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__)
    parser.add_argument("old", type=read)
    parser.add_argument("new", type=read)
    options = parser.parse_args()
    show(compare(options.old, options.new), make_console())


if __name__ == "__main__":
    main()
