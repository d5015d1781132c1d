"""Which tests pass whatever the ops compute: `python -m tests.mutation.hollow_report [ARGUMENTS OF PYTEST]`.

Runs them with hollow ops of each kind (see `hollow.py`), and prints those that have called ops and passed every time:
by function, with the number of their cases, and what they look at instead. Then the files in which no test has failed.
An error is a function that is missing in `hollow_reasons.py`, and one there that has no such case any more.
"""

import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from tests.mutation.hollow import HOLLOW_CALLS, KINDS
from tests.mutation.hollow_reasons import REASONS
from tests.support.forks import ROOT

# All of them but for emulated CUDA kernels, which have the same functions.
ARGUMENTS = ("-n", "logical", "--dist", "worksteal", "--device", "cpu", "--device", "none", "--tb", "no", "-q", "-rN")


class Run(NamedTuple):
    """Of tests, by their names: tests/losses/test_dtypes.py::test_targets_of_elements[...]."""

    calls: dict[str, int]  # of hollow ops
    failed: set[str]


def run(kind: str, arguments: list[str]) -> Run:
    calls, failed = {}, set()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        command = (sys.executable, "-m", "pytest", "-p", "tests.mutation.hollow", f"--junit-xml={report}")
        subprocess.run((*command, *ARGUMENTS, *arguments), cwd=ROOT, env=os.environ | {"CE_EXT_HOLLOW": kind})
        for test in ElementTree.parse(report).iter("testcase"):
            name = f"{test.attrib['classname'].replace('.', '/')}.py::{test.attrib['name']}"
            found = test.find(f"properties/property[@name='{HOLLOW_CALLS}']")
            calls[name] = 0 if found is None else int(found.attrib["value"])
            if test.find("failure") is not None or test.find("error") is not None:
                failed.add(name)
    return Run(calls, failed)


def _by_function(tests: Iterable[str]) -> Counter[str]:
    return Counter(test.partition("[")[0] for test in tests)


def _files(tests: Iterable[str]) -> set[str]:
    return {test.partition("::")[0] for test in tests}


def main(arguments: list[str]) -> int:
    runs = [run(kind, arguments) for kind in KINDS]
    tests = runs[0].calls.keys()
    survivors = _by_function(t for t in tests if all(run.calls[t] and t not in run.failed for run in runs))
    cases = _by_function(tests)
    print(f"\n{survivors.total()} of {len(tests)} tests have called hollow ops and passed every time:")
    for function, count in sorted(survivors.items()):
        print(f"{count:4} of {cases[function]:4}  {function}: {REASONS.get(function, 'WITHOUT A REASON')}")
    for file in sorted(_files(tests) - _files(test for run in runs for test in run.failed)):
        callers = sum(calls > 0 for test, calls in runs[0].calls.items() if test.startswith(f"{file}::"))
        print(f"no test of {file} has failed; {callers} have called hollow ops")
    # Of a part of the tests it cannot tell what is in no file any more.
    stale = sorted(function for function in REASONS if not survivors[function] and (not arguments or cases[function]))
    for function in stale:
        print(f"{function} has a reason, and is not among them any more")
    return int(bool(stale) or not survivors.keys() <= REASONS.keys())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
