"""One table of a whole run, from its JSON: what it took, how near that is to the ceiling, and how others compare."""

from rich import box
from rich.table import Table

from benchmarks.record import Record, contests, speedup


def compact(record: Record) -> Table:
    subject, *peers = record["providers"]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("loss", "dtype", "case", "pass"):
        table.add_column(column, no_wrap=True)
    for column in (f"{subject},\nms", "of\nceiling", *(f"vs\n{peer}" for peer in peers)):
        table.add_column(column, justify="right", no_wrap=True)
    for key, contest in contests(record).items():
        if subject not in contest:
            table.add_row(*key, "-")
            continue
        row = contest[subject]
        speedups = (speedup(record, contest, peer) for peer in peers)
        cells = ("-" if s is None else f"{s:.2f}x" for s in speedups)
        table.add_row(*key, f"{row['seconds']['best'] * 1e3:.3f}", f"{row['of_ceiling']:.0%}", *cells)
    return table
