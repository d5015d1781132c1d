"""One table of a whole run, from its JSON: what it took, how near that is to the ceiling, and how others compare."""

from typing import Any

from rich import box
from rich.table import Table


def compact(record: dict[str, Any]) -> Table:
    subject, *peers = record["providers"]
    contests: dict[tuple[str, ...], dict[str, dict[str, Any]]] = {}
    for row in record["rows"]:
        key = (row["loss"], row["dtype"], "x".join(map(str, row["shape"])), row["pass"])
        contests.setdefault(key, {})[row["provider"]] = row

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("loss", "dtype", "shape", "pass"):
        table.add_column(column, no_wrap=True)
    for column in (f"{subject},\nms", "of\nceiling", *(f"vs\n{peer}" for peer in peers)):
        table.add_column(column, justify="right", no_wrap=True)
    for names, rows in contests.items():
        if subject not in rows:
            table.add_row(*names, "-")
            continue
        seconds = rows[subject]["seconds"]["best"]
        speedups = (f"{rows[p]['seconds']['best'] / seconds:.2f}x" if p in rows else "-" for p in peers)
        table.add_row(*names, f"{seconds * 1e3:.3f}", f"{rows[subject]['of_ceiling']:.0%}", *speedups)
    return table
