"""The text of a record: JSON, a line for each provider of a case, and nothing that follows from other numbers."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from benchmarks.labels import USUAL

Row = dict[str, Any]  # one provider in one pass of a case

CASE = ("loss", "dtype", "shape", *USUAL)
# The names of numbers that stand in lists. What an older record did not say is null.
FLOOR = ("floor_bytes", "copied_bytes", "written_bytes")
TIMES = ("best", "median")
OTHERS = ("spread", "samples", "calls_per_sample", "page_faults")
ERRORS = ("loss", "gradient")  # of forward the former alone
ROW = (*(f"{name}_us" for name in TIMES), *OTHERS, "extra_bytes", *(f"{name}_error" for name in ERRORS))
MICROSECONDS = 1e6  # a second
DIGITS = 4  # of times and rates: no measurement repeats better
DIGITS_OF_OTHERS = 2


def to_text(record: Mapping[str, Any]) -> str:
    passes = list(dict.fromkeys(row["pass"] for row in record["rows"]))
    members = {name: json.dumps(value) for name, value in record.items() if name != "rows"}
    members["environment"] = _object({name: json.dumps(value) for name, value in record["environment"].items()})
    ceilings = record["ceilings_gb_per_second"].items()
    rates = {when: {name: _rounded(rate, DIGITS) for name, rate in found.items()} for when, found in ceilings}
    members["ceilings_gb_per_second"] = json.dumps(rates)
    members["columns"] = json.dumps({"passes": passes, "floors": FLOOR, "rows": ROW})
    members["cases"] = "[\n" + ",\n".join(_cases(record["rows"], passes)) + "\n]"
    return _object(members) + "\n"


def _cases(rows: Iterable[Row], passes: Iterable[str]) -> Iterator[str]:
    cases: dict[str, list[Row]] = {}
    for row in rows:
        about = {name: row[name] for name in CASE if name not in USUAL or row[name] != USUAL[name]}
        cases.setdefault(json.dumps(about), []).append(row)
    for case, found in cases.items():
        floors = {row["pass"]: [row[name] if math.isfinite(row[name]) else None for name in FLOOR] for row in found}
        providers: dict[str, dict[str, list]] = {}
        for row in found:
            providers.setdefault(row["provider"], {})[row["pass"]] = _numbers(row)
        lines = {name: _by_pass(numbers, passes) for name, numbers in providers.items()}
        yield f'{case[:-1]}, "floors": {_by_pass(floors, passes)}, "rows": {_object(lines)}}}'


def _by_pass(lists: Mapping[str, list], passes: Iterable[str]) -> str:
    return "[" + ", ".join(json.dumps(lists.get(name), separators=(",", ":")) for name in passes) + "]"


def _object(members: Mapping[str, str]) -> str:
    """A line for each of them."""
    return "{\n" + ",\n".join(f"{json.dumps(name)}: {text}" for name, text in members.items()) + "\n}"


def _numbers(row: Row) -> list[float | None]:
    seconds, errors = row["seconds"], row["relative_errors"]
    return [
        *(_rounded(seconds[name] * MICROSECONDS, DIGITS) for name in TIMES),
        *(_rounded(seconds.get(name), DIGITS_OF_OTHERS) for name in OTHERS),
        row["extra_bytes"],
        *(_rounded(errors[name], DIGITS_OF_OTHERS) for name in ERRORS if name in errors),
    ]


def _rounded(value: float | None, digits: int) -> float | None:
    """To so many digits, in the shortest way; counts stay as they are."""
    if value is None or isinstance(value, int):
        return value
    rounded = float(f"{value:.{digits}g}")
    return int(rounded) if rounded.is_integer() else rounded


def to_rows(columns: Mapping[str, list[str]], cases: Iterable[Mapping[str, Any]]) -> Iterator[Row]:
    for case in cases:
        about = {name: case[name] for name in CASE if name in case}
        for provider, lists in case["rows"].items():
            for pass_name, floor, numbers in zip(columns["passes"], case["floors"], lists, strict=True):
                if numbers:
                    known = _known(columns["floors"], floor) | _figures(_known(columns["rows"], numbers))
                    yield {**about, "pass": pass_name, "provider": provider, **known}


def _known(names: Iterable[str], numbers: Iterable[float | None]) -> dict[str, Any]:
    return {name: number for name, number in zip(names, numbers, strict=False) if number is not None}


def _figures(known: dict[str, Any]) -> dict[str, Any]:
    times = {name: known[f"{name}_us"] / MICROSECONDS for name in TIMES}
    others = {name: known[name] for name in OTHERS if name in known}
    errors = {name: known[f"{name}_error"] for name in ERRORS if f"{name}_error" in known}
    return {"relative_errors": errors, "seconds": times | others, "extra_bytes": known["extra_bytes"]}
