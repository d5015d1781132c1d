"""Which tests reach which line of the Python layer, and how long each of them takes.

As a pytest plugin it watches them, and writes what it has seen into the folder that CE_EXT_REACHED names.
"""

from __future__ import annotations

import itertools
import json
import os
import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import coverage
import pytest

from tests.support.forks import ROOT

_WATCHED = ROOT / "ce_ext"
_OF_IMPORTS = ""  # the context of what runs outside of tests


def _data_file(folder: Path) -> str:
    return str(folder / "coverage")


class _Watcher:
    def __init__(self, folder: Path, started: coverage.Coverage) -> None:
        self._seconds: dict[str, float] = {}
        self._folder = folder
        self._coverage = started

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self._coverage.switch_context(item.nodeid)
        result = yield
        self._coverage.switch_context(_OF_IMPORTS)
        return result

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.outcome == "passed":
            self._seconds[report.nodeid] = self._seconds.get(report.nodeid, 0.0) + report.duration

    def pytest_sessionfinish(self) -> None:
        self._coverage.stop()
        self._coverage.save()
        (self._folder / f"{uuid.uuid4()}.json").write_text(json.dumps(self._seconds))


_started = pytest.StashKey[coverage.Coverage]()


def pytest_load_initial_conftests(early_config: pytest.Config) -> None:  # which import what is watched
    folder = Path(os.environ["CE_EXT_REACHED"])
    started = coverage.Coverage(_data_file(folder), data_suffix=True, config_file=False, source=[str(_WATCHED)])
    started.start()
    early_config.stash[_started] = started


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput") or not config.getoption("numprocesses", None):  # whoever runs the tests
        config.pluginmanager.register(_Watcher(Path(os.environ["CE_EXT_REACHED"]), config.stash[_started]))


class Reached:
    """What was written into that folder."""

    @staticmethod
    def combine(folder: Path) -> None:
        """What its processes have written, once."""
        coverage.Coverage(_data_file(folder), config_file=False).combine()

    def __init__(self, folder: Path) -> None:
        combined = coverage.Coverage(_data_file(folder), config_file=False)
        combined.load()
        self._data = combined.get_data()
        self._seconds: dict[str, float] = {}
        for file in folder.glob("*.json"):
            self._seconds |= json.loads(file.read_text())
        self._by_line: dict[str, dict[int, list[str]]] = {}

    def seconds(self, test: str) -> float:
        return self._seconds[test]

    def is_seen(self, file: str, lines: Iterable[int]) -> bool:
        """Whether one of these lines has run, for a test or an import."""
        return not self._tests_by_line(file).keys().isdisjoint(lines)

    def tests(self, file: str, lines: Iterable[int]) -> set[str]:
        """Of those that have passed: who runs one of these lines, or, where an import does or nobody is known to, any
        line of the file."""
        by_line = self._tests_by_line(file)
        found = {test for line in lines for test in by_line.get(line, ())}
        if not found or _OF_IMPORTS in found:
            found = {test for tests in by_line.values() for test in tests}
        return found & self._seconds.keys()

    def _tests_by_line(self, file: str) -> dict[int, list[str]]:
        if file not in self._by_line:
            self._by_line[file] = self._data.contexts_by_lineno(str(ROOT / file))
        return self._by_line[file]


def by_file(tests: Iterable[str], reached: Reached) -> list[list[str]]:
    """The files with most of the functions first. Of each the shortest case of each function, then the second ones."""
    files: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for test in sorted(tests, key=reached.seconds):
        files[test.partition("::")[0]][test.partition("[")[0]].append(test)
    return [
        [test for turn in itertools.zip_longest(*cases.values()) for test in turn if test is not None]
        for cases in sorted(files.values(), key=len, reverse=True)
    ]


def some_of_each(tests: Iterable[str], reached: Reached, moment: float, long: float) -> list[str]:
    """Of every function the shortest cases, as many as a moment has room for, or else one that does not take long."""
    spent: dict[str, float] = defaultdict(float)
    chosen = []
    for test in sorted(tests, key=reached.seconds):
        function, seconds = test.partition("[")[0], reached.seconds(test)
        if spent[function] + seconds < moment or (not spent[function] and seconds < long):
            chosen.append(test)
        spent[function] += seconds
    return chosen
