"""A run as it was written down, by this benchmark or an older one."""

import json
import math
from argparse import ArgumentTypeError
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.labels import label

Record = dict[str, Any]
Contest = dict[str, dict[str, Any]]  # the rows of one pass of one case, by provider

ALWAYS = {"loss", "dtype", "shape", "pass", "provider", "seconds"}
# What older rows do not say. Nothing exceeds what a pass may allocate where that is not known.
SINCE_THEN = {"reduction": "mean", "layout": "contiguous", "options": {}, "written_bytes": math.inf}


class Key(NamedTuple):
    """What makes rows comparable."""

    loss: str
    dtype: str
    label: str
    pass_name: str


def read(path: str) -> Record:
    try:
        record = json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise ArgumentTypeError(f"{path} cannot be read: {error}") from None
    rows = record.get("rows") if isinstance(record, dict) else None
    if not rows or not all(isinstance(row, dict) and row.keys() >= ALWAYS for row in rows):
        raise ArgumentTypeError(f"{path} is no record of a benchmark: it lacks rows with {', '.join(sorted(ALWAYS))}")
    record["rows"] = [SINCE_THEN | row for row in rows]
    record.setdefault("providers", list(dict.fromkeys(row["provider"] for row in rows)))
    return record


def contests(record: Record) -> dict[Key, Contest]:
    found: dict[Key, Contest] = {}
    for row in record["rows"]:
        name = label(row["shape"], row["reduction"], row["layout"], row["options"])
        found.setdefault(Key(row["loss"], row["dtype"], name, row["pass"]), {})[row["provider"]] = row
    return found


def contests_of_subject(record: Record) -> dict[Key, Contest]:
    """Those that the first provider took part in."""
    return {key: contest for key, contest in contests(record).items() if record["providers"][0] in contest}


def speedup(record: Record, contest: Contest, peer: str) -> float | None:
    """The peer's best time over the subject's."""
    if peer not in contest:
        return None
    return contest[peer]["seconds"]["best"] / contest[record["providers"][0]]["seconds"]["best"]
