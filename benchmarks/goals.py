"""What the kernels are to reach, and what misses it: `python -m benchmarks.goals FILE.json`."""

import argparse
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.console import make_console
from benchmarks.functions import FUNCTIONS
from benchmarks.passes import BACKWARD, BOTH, FORWARD
from benchmarks.record import Key, Record, contests_of_subject, read, speedup

PEERS = ("eager", "compile")  # the subject is slower than neither
PEERS_PASSES = (FORWARD, BOTH)


@dataclass(frozen=True)
class Share:
    """The least share of the ceiling."""

    pass_name: str
    classes: tuple[float, float]  # at least and at most; of elements there are none
    least: float


SHARES = (
    Share(FORWARD, (1, 100), 0.60),
    Share(FORWARD, (512, math.inf), 0.85),
    Share(BACKWARD, (1, 100), 0.60),
    Share(BACKWARD, (101, math.inf), 0.80),
    Share(BACKWARD, (0, 0), 0.80),
)
LARGE = 4 << 20  # floor bytes: bandwidth is what counts
# Of memory, beyond what a pass returns.
EXTRA_BYTES_A_ROW = 16
EXTRA_BYTES = 4096


@dataclass(frozen=True)
class Miss:
    key: Key
    goal: str
    found: str
    shortfall: float  # what was reached of the goal; below 1


def misses(record: Record) -> list[Miss]:
    """The worst first."""
    found = [miss for key, contest in contests_of_subject(record).items() for miss in _misses(record, key, contest)]
    return sorted(found, key=lambda miss: miss.shortfall)


def _misses(record: Record, key: Key, contest: dict[str, dict[str, Any]]) -> Iterator[Miss]:
    row = contest[record["providers"][0]]
    if key.pass_name in PEERS_PASSES:
        for peer in PEERS:
            ratio = speedup(record, contest, peer)
            if ratio is not None and ratio < 1:
                yield Miss(key, f"no slower than {peer}", f"{ratio:.2f}x", ratio)
    function = FUNCTIONS[row["loss"]]
    shape = tuple(row["shape"])
    classes = function.class_count(shape)
    reads_single_classes = key.pass_name == FORWARD and not function.reads_all  # each takes a line of the cache
    if row["floor_bytes"] > LARGE and not reads_single_classes:
        for share in SHARES:
            low, high = share.classes
            if share.pass_name == key.pass_name and low <= classes <= high and row["of_ceiling"] < share.least:
                goal = f"{share.least:.0%} of the ceiling"
                yield Miss(key, goal, f"{row['of_ceiling']:.0%}", row["of_ceiling"] / share.least)
    allowed = EXTRA_BYTES + EXTRA_BYTES_A_ROW * function.row_count(shape)
    extra = row["extra_bytes"] - row["written_bytes"]
    if extra > allowed:
        goal = f"memory for its results, and {EXTRA_BYTES_A_ROW} bytes a row"
        yield Miss(key, goal, f"{extra:,} bytes more", allowed / extra)


def show(misses: list[Miss], console: Console) -> None:
    table = Table(title="Goals missed", box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
    for column in ("loss", "dtype", "case", "pass", "goal"):
        table.add_column(column, no_wrap=True)
    table.add_column("found", justify="right", no_wrap=True)
    for miss in misses:
        table.add_row(*miss.key, miss.goal, miss.found)
    console.print(table if misses else "All goals are met.")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.goals", description=__doc__)
    parser.add_argument("file", type=read)
    show(misses(parser.parse_args().file), make_console())


if __name__ == "__main__":
    main()
