"""What the kernels are to reach, and what misses it: `python -m benchmarks.goals FILE.json`."""

import argparse
import math
from collections.abc import Iterator
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.console import make_console
from benchmarks.functions import FUNCTIONS
from benchmarks.passes import BACKWARD, BOTH, FORWARD
from benchmarks.record import Contest, Key, Record, Row, contests_of_subject, read, speedup
from tests.support.cases import class_dim

PEERS_PASSES = (FORWARD, BOTH)
WITH_GRAD = "grad_in_forward"  # the provider


@dataclass(frozen=True)
class Share:
    """The least share of the ceiling."""

    pass_name: str
    classes: tuple[float, float]  # at least and at most; of elements there are none
    least: float
    # What is so or not; None is either.
    are_apart: bool | None = None  # the classes, and not side by side
    is_copy: bool | None = None  # most of what is read is written, too

    def is_of(self, key: Key, row: Row) -> bool:
        shape = tuple(row["shape"])
        low, high = self.classes
        is_copy = row.get("copied_bytes", 0) > row["floor_bytes"] / 2
        return (
            self.pass_name == key.pass_name
            and low <= FUNCTIONS[row["loss"]].class_count(shape) <= high
            and self.are_apart in (None, class_dim(shape) < len(shape) - 1)
            and self.is_copy in (None, is_copy)
        )


@dataclass(frozen=True)
class Goals:
    peers: tuple[str, ...]  # the subject is slower than none of them
    shares: tuple[Share, ...]
    with_grad: Share | None = None
    # Beyond what is counted as the floor. It matters for short rows alone.
    row_bytes: int = 0  # of what forward keeps for backward
    workspace_bytes: int = 0  # of a launch


SHORT, LONG = (1, 511), (4096, math.inf)
GOALS = {
    "cpu": Goals(
        ("eager", "compile"),
        (
            Share(FORWARD, (1, 100), 0.60),
            Share(FORWARD, (512, math.inf), 0.85),
            Share(BACKWARD, (1, 100), 0.60),
            Share(BACKWARD, (101, math.inf), 0.80),
            Share(BACKWARD, (0, 0), 0.80),
        ),
    ),
    "cuda": Goals(
        ("eager", "compile", "liger", "quack"),
        (
            Share(FORWARD, SHORT, 0.75, are_apart=False, is_copy=False),
            Share(FORWARD, (512, 4095), 0.80, are_apart=False, is_copy=False),
            Share(FORWARD, LONG, 0.97, are_apart=False, is_copy=False),
            Share(FORWARD, (1024, math.inf), 0.92, are_apart=False, is_copy=True),
            Share(BACKWARD, (1, math.inf), 0.95, are_apart=False),
            *(Share(name, (1, math.inf), 0.92, are_apart=True) for name in (FORWARD, BACKWARD)),
            *(Share(name, (0, 0), 0.92) for name in (FORWARD, BACKWARD)),
        ),
        with_grad=Share(BOTH, (1024, math.inf), 0.92, are_apart=False),
        row_bytes=8,
        workspace_bytes=32 * 1024 * 16,  # the totals of so many blocks, which is no leak
    ),
}
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
    goals = GOALS["cuda" if record["environment"].get("driver") else "cpu"]
    contests = contests_of_subject(record)
    found = [miss for key, contest in contests.items() for miss in _misses(record, goals, key, contest)]
    if goals.with_grad:
        found += _with_grad_misses(record, goals.with_grad, contests)
    return sorted(found, key=lambda miss: miss.shortfall)


def _misses(record: Record, goals: Goals, key: Key, contest: Contest) -> Iterator[Miss]:
    row = contest[record["providers"][0]]
    if key.pass_name in PEERS_PASSES:
        for peer in goals.peers:
            ratio = speedup(record, contest, peer)
            if ratio is not None and ratio < 1:
                yield Miss(key, f"no slower than {peer}", f"{ratio:.2f}x", ratio)
    function = FUNCTIONS[row["loss"]]
    rows = function.row_count(tuple(row["shape"]))
    reads_single_classes = key.pass_name == FORWARD and not function.reads_all  # each takes a line of the cache
    if row["floor_bytes"] > LARGE and not reads_single_classes:
        of_ceiling = row["of_ceiling"] * (1 + goals.row_bytes * rows / row["floor_bytes"])
        for share in goals.shares:
            if share.is_of(key, row) and of_ceiling < share.least:
                yield _share_missed(key, share, of_ceiling)
    allowed = EXTRA_BYTES + goals.workspace_bytes + EXTRA_BYTES_A_ROW * rows
    extra = row["extra_bytes"] - row["written_bytes"]
    if extra > allowed:
        goal = f"memory for its results, and {EXTRA_BYTES_A_ROW} bytes a row"
        yield Miss(key, goal, f"{extra:,} bytes more", allowed / extra)


def _with_grad_misses(record: Record, share: Share, contests: dict[Key, Contest]) -> Iterator[Miss]:
    """What takes the gradient in forward has to move what backward alone does, and is held to its floor."""
    for key, contest in contests.items():
        backward = contests.get(key._replace(pass_name=BACKWARD), {}).get(record["providers"][0])
        if WITH_GRAD in contest and backward and share.is_of(key, backward) and backward["floor_bytes"] > LARGE:
            least = backward["seconds"]["best"] * backward["of_ceiling"]
            of_ceiling = least / contest[WITH_GRAD]["seconds"]["best"]
            if of_ceiling < share.least:
                yield _share_missed(key, share, of_ceiling, f"{WITH_GRAD}: ")


def _share_missed(key: Key, share: Share, of_ceiling: float, who: str = "") -> Miss:
    return Miss(key, f"{who}{share.least:.0%} of the ceiling", f"{of_ceiling:.0%}", of_ceiling / share.least)


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
