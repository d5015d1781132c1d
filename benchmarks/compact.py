"""One table of a whole run, from its JSON: what it took, how near that is to the ceiling, and how others compare."""

from rich import box
from rich.table import Table

from benchmarks.record import GAPS, Record, contests, has_host_gaps, speedup


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
        gaps = ["*" if has_host_gaps(record, key, provider) else "" for provider in record["providers"]]
        cells = ("-" if s is None else f"{s:.2f}x{gap}" for s, gap in zip(speedups, gaps[1:], strict=True))
        table.add_row(*key, f"{row['seconds']['best'] * 1e3:.3f}{gaps[0]}", f"{row['of_ceiling']:.0%}", *cells)
    if record.get("host_gaps"):
        table.caption = GAPS
    return table
