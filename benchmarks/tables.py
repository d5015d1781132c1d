"""A record as tables: `python -m benchmarks.tables FILE.json`."""

import argparse
import statistics
from collections.abc import Iterator
from itertools import groupby

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks.cases import is_tiny
from benchmarks.console import make_console
from benchmarks.floors import CAPTION
from benchmarks.record import Contest, Key, Record, contests_of_subject, has_host_gaps, machine, read, speedup

Contests = list[tuple[Key, Contest]]


def show(record: Record, console: Console) -> None:
    console.print(machine(record), highlight=False)
    subject = record["providers"][0]
    tiny: Contests = []
    others: Contests = []
    for key, contest in contests_of_subject(record).items():
        (tiny if is_tiny(contest[subject]["shape"]) else others).append((key, contest))
    for table in _tables(record, tiny, others):
        console.print(table)
    if others:
        console.print(CAPTION, style="dim", width=100)
    for failure in record["failures"]:
        console.print(f"[bold red]not timed:[/] {escape(failure)}", highlight=False)


def _tables(record: Record, tiny: Contests, others: Contests) -> Iterator[Table]:
    yield _ceilings(record)
    if tiny:
        yield _overheads(record, tiny)
    if others:
        for heading, group in groupby(others, lambda found: found[0].heading):
            yield _bandwidths(record, heading, list(group))
        if len(record["providers"]) > 1:
            yield _mean_speedups(record, others)


def _ceilings(record: Record) -> Table:
    table = _table("Ceilings, GB/s", "when", "read", "copy", "fill of fresh memory")
    for when, rates in record["ceilings_gb_per_second"].items():
        table.add_row(when, *(f"{rates[name]:.1f}" for name in ("read", "copy", "fill_fresh")))
    return table


def _overheads(record: Record, contests: Contests) -> Table:
    providers = (f"{provider}, µs" for provider in record["providers"])
    table = _table("Overhead of a call, best time", "loss", "case", "pass", *providers)
    for key, contest in contests:
        best = (contest[p]["seconds"]["best"] * 1e6 if p in contest else None for p in record["providers"])
        times = (_cell(microseconds, ".1f") for microseconds in best)
        table.add_row(key.heading, key.label, key.pass_name, *times)
    return table


def _bandwidths(record: Record, heading: str, contests: Contests) -> Table:
    subject, *peers = record["providers"]
    versus = (f"vs {peer}" for peer in peers)
    memory = "extra memory\n" + " / ".join(record["providers"])
    columns = ("case", "pass", "best, ms", "median, ms", "spread", "GB/s", "of ceiling", *versus, memory)
    table = _table(f"{heading}: {subject}", *columns)
    for key, contest in contests:
        row = contest[subject]
        seconds = row["seconds"]
        gaps = {p: "*" if has_host_gaps(record, key, p) else "" for p in record["providers"]}
        extra = (contest[p]["extra_per_input"] if p in contest else None for p in record["providers"])
        table.add_row(
            key.label,
            key.pass_name,
            f"{seconds['best'] * 1e3:.3f}{gaps[subject]}",
            f"{seconds['median'] * 1e3:.3f}",
            _cell(seconds.get("spread"), ".0%"),
            f"{row['gb_per_second']:.1f}",
            f"{row['of_ceiling']:.0%}",
            *(_cell(speedup(record, contest, peer), ".2f", f"x{gaps[peer]}") for peer in peers),
            " / ".join(_cell(size, ".2f") for size in extra),
        )
    return table


def _mean_speedups(record: Record, contests: Contests) -> Table:
    subject, *peers = record["providers"]
    title = f"Geometric mean of the speedups of {subject}"
    table = _table(title, "dtype", "pass", *(f"vs {peer}" for peer in peers))
    groups: dict[tuple[str, str], list[Contest]] = {}
    for key, contest in contests:
        groups.setdefault((key.dtype, key.pass_name), []).append(contest)
    for names, group in groups.items():
        speedups = ([s for contest in group if (s := speedup(record, contest, peer))] for peer in peers)
        means = (statistics.geometric_mean(s) if s else None for s in speedups)
        table.add_row(*names, *(_cell(mean, ".2f", "x") for mean in means))
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
    for column in columns:
        is_text = column in ("loss", "case", "dtype", "pass", "when")
        table.add_column(column, justify="left" if is_text else "right", no_wrap=True)
    return table


def _cell(value: float | None, form: str, unit: str = "") -> str:
    return "-" if value is None else f"{value:{form}}{unit}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tables", description=__doc__)
    parser.add_argument("file", type=read)
    show(parser.parse_args().file, make_console())


if __name__ == "__main__":
    main()
