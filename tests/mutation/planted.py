"""A bug of one line, where it is planted, and what should die of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Planted:
    name: str
    file: str
    old: str
    new: str
    tests: str  # arguments of pytest; --device cpu is added where they name none
    context: str | None = None  # has `old` once, and the file has it once, where `old` itself is in the file more often
    isa: str | None = None  # the only library that has it, where it is not in all of them
    equivalent: bool = False  # no input shows it, for the reason in `note`
    note: str = ""

    def place(self, source: str) -> tuple[int, int]:
        context = self.context or self.old
        if source.count(context) != 1 or context.count(self.old) != 1:
            raise ValueError(f"{self.file} does not have once what {self.name!r} changes: {context}")
        begin = source.index(context) + context.index(self.old)
        return begin, begin + len(self.old)

    def behind_switch(self, number: int) -> str:
        """What takes the place of `old`: statements, or an expression."""
        if self.old.rstrip().endswith(";"):
            return f"if (mutant_is({number})) {{ {self.new} }} else {{ {self.old} }}"
        return f"(mutant_is({number}) ? ({self.new}) : ({self.old}))"


def bugs_of(file: str, *bugs: dict[str, Any], **common: Any) -> tuple[Planted, ...]:
    return tuple(Planted(file=file, **common, **fields) for fields in bugs)


def bug(name: str, old: str, new: str, tests: str, **others: Any) -> dict[str, Any]:
    return {"name": name, "old": old, "new": new, "tests": tests, **others}


def plant(mutants: Iterable[tuple[int, Planted]], root: Path) -> None:
    """Plants all of them in the files below `root`, each behind the switch."""
    by_file: dict[str, list[tuple[int, int, str]]] = {}
    for number, mutant in mutants:
        source = (root / mutant.file).read_text()
        by_file.setdefault(mutant.file, []).append((*mutant.place(source), mutant.behind_switch(number)))
    for file, places in by_file.items():
        source = (root / file).read_text()
        for begin, end, code in sorted(places, reverse=True):
            source = source[:begin] + code + source[end:]
        (root / file).write_text(source)


def overlapping(mutants: Iterable[Planted], root: Path) -> list[str]:
    """Names of those that change what another changes, too."""
    places: dict[str, list[tuple[int, int, str]]] = {}
    for mutant in mutants:
        places.setdefault(mutant.file, []).append((*mutant.place((root / mutant.file).read_text()), mutant.name))
    return [
        after[2]
        for of_file in places.values()
        for before, after in zip(sorted(of_file), sorted(of_file)[1:], strict=False)
        if after[0] < before[1]
    ]
