"""A run as it is written down, by this benchmark or an older one, and what follows from its numbers.

`python -m benchmarks.record OLD.json... NEW.json` writes records of any age, of one run or of its parts, as this
benchmark writes its own.
"""

import argparse
import json
import math
from argparse import ArgumentTypeError
from collections.abc import Sequence
from functools import reduce
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.labels import USUAL, label
from benchmarks.limits import Ceilings, Floor
from benchmarks.record_text import to_rows, to_text

Record = dict[str, Any]
Row = dict[str, Any]  # one provider in one pass of a case
Contest = dict[str, Row]  # the rows of one pass of one case, by provider

ALWAYS = {"loss", "dtype", "shape", "pass", "provider", "seconds"}
# What older rows do not say. Nothing exceeds what a pass may allocate where that is not known.
SINCE_THEN = {**USUAL, "written_bytes": math.inf}
GAPS = "With * the GPU may have waited for the host in the middle of a call, whose time contains the gaps."


class Key(NamedTuple):
    """What makes rows comparable."""

    loss: str
    dtype: str
    label: str
    pass_name: str

    @property
    def heading(self) -> str:
        return f"{self.loss}, {self.dtype}"


def contests(record: Record) -> dict[Key, Contest]:
    found: dict[Key, Contest] = {}
    for row in record["rows"]:
        name = label(row["shape"], row["reduction"], row["layout"], row["options"])
        found.setdefault(Key(row["loss"], row["dtype"], name, row["pass"]), {})[row["provider"]] = row
    return found


def contests_of_subject(record: Record) -> dict[Key, Contest]:
    """Those that the first provider took part in."""
    return {key: contest for key, contest in contests(record).items() if record["providers"][0] in contest}


def machine(record: Record) -> str:
    host = "driver {driver}" if record["environment"]["driver"] else "{threads} threads"
    return f"{{device}}, {host}, torch {{torch}}".format(**record["environment"])


def speedup(record: Record, contest: Contest, peer: str) -> float | None:
    """The peer's best time over the subject's."""
    if peer not in contest:
        return None
    return contest[peer]["seconds"]["best"] / contest[record["providers"][0]]["seconds"]["best"]


def has_host_gaps(record: Record, key: Key, provider: str) -> bool:
    """Whether the GPU may have waited for the host while this was timed. Older records do not say."""
    return [provider, *key] in record.get("host_gaps", [])


def complete(record: Record) -> Record:
    """The record, with what an older one does not say, and what follows from its numbers."""
    rows = [SINCE_THEN | row for row in record["rows"]]
    if "ceilings_gb_per_second" in record:
        rates = reduce(Ceilings.best, (Ceilings(**found) for found in record["ceilings_gb_per_second"].values()))
        rows = [row | _derived(row, rates) for row in rows]
    providers = record.get("providers") or list(dict.fromkeys(row["provider"] for row in rows))
    return {**record, "providers": providers, "rows": rows}


def _derived(row: Row, rates: Ceilings) -> Row:
    size = row["floor_bytes"]
    copied = row["copied_bytes"] if "copied_bytes" in row else _copied_bytes(row, rates)
    gb_per_second = size / row["seconds"]["best"] * 1e-9
    return {
        "copied_bytes": copied,
        "gb_per_second": gb_per_second,
        "of_ceiling": gb_per_second / Floor(size - copied, copied, row["written_bytes"]).ceiling(rates),
        "extra_per_input": row["extra_bytes"] / (math.prod(row["shape"]) * getattr(torch, row["dtype"]).itemsize),
    }


def _copied_bytes(row: Row, rates: Ceilings) -> int:
    """Of a row that gives its share of the ceiling instead, as older ones do."""
    if rates.read == rates.copy:
        return 0  # any number will do
    ceiling = row["gb_per_second"] / row["of_ceiling"]
    return round(row["floor_bytes"] * (1 / ceiling - 1 / rates.read) / (1 / rates.copy - 1 / rates.read))


def parse(text: str) -> Record:
    record = json.loads(text)
    if "cases" in record:
        record["rows"] = list(to_rows(record.pop("columns"), record.pop("cases")))
    return complete(record)


def read(path: str) -> Record:
    try:
        record = parse(Path(path).read_text())
        if record["rows"] and all(row.keys() >= ALWAYS for row in record["rows"]):
            return record
    except (OSError, json.JSONDecodeError) as error:
        raise ArgumentTypeError(f"{path} cannot be read: {error}") from None
    except (AttributeError, LookupError, TypeError, ValueError):
        pass  # whatever it lacks
    raise ArgumentTypeError(f"{path} is no record of a benchmark: it lacks rows with {', '.join(sorted(ALWAYS))}")


def merge(parts: Sequence[Record]) -> Record:
    """Of what one machine has measured, with the same sources. The best ceilings count, as in every record."""
    first, *others = parts
    if not others:
        return first
    for part in others:
        for fact in ("device", "driver", "torch", "commit"):
            if part["environment"][fact] != first["environment"][fact]:
                raise ValueError(f"they are of different {fact}s")
    ceilings: dict[str, dict[str, float]] = {}
    for number, part in enumerate(parts):
        names = {when: f"{when} {number + 1}" if number else when for when in part["ceilings_gb_per_second"]}
        ceilings |= {names[when]: rates for when, rates in part["ceilings_gb_per_second"].items()}
    lists = {name: [*chain(*(part.get(name, []) for part in parts))] for name in ("rows", "failures", "host_gaps")}
    providers = [*dict.fromkeys(chain(*(part["providers"] for part in parts)))]
    return complete({**first, "providers": providers, "ceilings_gb_per_second": ceilings, **lists})


def write(record: Record, path: Path) -> None:
    """In one piece: whoever reads it meanwhile, or after a crash, finds a whole one."""
    unfinished = path.with_suffix(".part")
    unfinished.write_text(to_text(record))
    unfinished.replace(path)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.record", description=__doc__)
    parser.add_argument("old", type=read, nargs="+")
    parser.add_argument("new", type=Path)
    options = parser.parse_args()
    write(merge(options.old), options.new)


if __name__ == "__main__":
    main()
