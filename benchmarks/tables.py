"""Results as tables."""

import statistics
from collections.abc import Iterator
from itertools import groupby

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks.floors import CAPTION
from benchmarks.results import Contest, Results


def show(results: Results, console: Console) -> None:
    console.print(results.machine, highlight=False)
    for table in _tables(results):
        console.print(table)
    if results.contests(tiny=False):
        console.print(CAPTION, style="dim", width=100)
    for failure in results.failures:
        console.print(f"[bold red]not timed:[/] {escape(str(failure))}", highlight=False)


def _tables(results: Results) -> Iterator[Table]:
    yield _ceilings(results)
    if overheads := results.contests(tiny=True):
        yield _overheads(results, overheads)
    if contests := results.contests(tiny=False):
        for heading, group in groupby(contests, lambda c: c[results.subject].case.heading):
            yield _bandwidths(results, heading, list(group))
        if results.peers:
            yield _mean_speedups(results, contests)


def _ceilings(results: Results) -> Table:
    table = _table("Ceilings, GB/s", "when", "read", "copy", "fill of fresh memory")
    for when, rates in results.ceilings.items():
        table.add_row(when, f"{rates.read:.1f}", f"{rates.copy:.1f}", f"{rates.fill_fresh:.1f}")
    return table


def _overheads(results: Results, contests: list[Contest]) -> Table:
    providers = (f"{provider}, µs" for provider in results.providers)
    table = _table("Overhead of a call, best time", "loss", "case", "pass", *providers)
    for contest in contests:
        row = contest[results.subject]
        best = (contest[p].timing.best * 1e6 if p in contest else None for p in results.providers)
        times = (_cell(microseconds, ".1f") for microseconds in best)
        table.add_row(row.case.heading, row.case.label, row.pass_name, *times)
    return table


def _bandwidths(results: Results, heading: str, contests: list[Contest]) -> Table:
    versus = (f"vs {peer}" for peer in results.peers)
    memory = "extra memory\n" + " / ".join(results.providers)
    columns = ("case", "pass", "best, ms", "median, ms", "spread", "GB/s", "of ceiling", *versus, memory)
    table = _table(f"{heading}: {results.subject}", *columns)
    for contest in contests:
        row = contest[results.subject]
        extra = (contest[p].extra_per_input if p in contest else None for p in results.providers)
        table.add_row(
            row.case.label,
            row.pass_name,
            f"{row.timing.best * 1e3:.3f}",
            f"{row.timing.median * 1e3:.3f}",
            f"{row.timing.spread:.0%}",
            f"{row.gb_per_second:.1f}",
            f"{row.gb_per_second / results.ceiling(row):.0%}",
            *(_cell(results.speedup(contest, peer), ".2f", "x") for peer in results.peers),
            " / ".join(_cell(size, ".2f") for size in extra),
        )
    return table


def _mean_speedups(results: Results, contests: list[Contest]) -> Table:
    versus = (f"vs {peer}" for peer in results.peers)
    title = f"Geometric mean of the speedups of {results.subject}"
    table = _table(title, "dtype", "pass", *versus)
    groups: dict[tuple[str, str], list[Contest]] = {}
    for contest in contests:
        row = contest[results.subject]
        groups.setdefault((row.case.dtype_name, row.pass_name), []).append(contest)
    for key, group in groups.items():
        speedups = ([s for contest in group if (s := results.speedup(contest, peer))] for peer in results.peers)
        means = (statistics.geometric_mean(s) if s else None for s in speedups)
        table.add_row(*key, *(_cell(mean, ".2f", "x") for mean in means))
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
    for column in columns:
        is_text = column in ("loss", "case", "dtype", "pass", "when")
        table.add_column(column, justify="left" if is_text else "right", no_wrap=True)
    return table


def _cell(value: float | None, form: str, unit: str = "") -> str:
    return "-" if value is None else f"{value:{form}}{unit}"
