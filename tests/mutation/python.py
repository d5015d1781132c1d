"""Plants the bugs of the Python layer, one at a time in a copy of this project, and runs the tests that reach them."""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from filelock import FileLock

from tests.mutation.copies import BUILD, COMPILED, READ, copy_parts
from tests.mutation.operators import Mutant
from tests.mutation.reached import Reached, by_file
from tests.support.forks import ROOT, Forks

# What runs in processes of its own, where nobody has seen which lines it reaches.
OF_LIBRARIES, OF_PROCESSES = ("tests/packaging/test_libraries.py",), ("tests/distributed",)
IN_PROCESSES = {
    "ce_ext/_load.py": OF_LIBRARIES,
    "ce_ext/info.py": OF_LIBRARIES,
    **{f"ce_ext/{name}.py": OF_PROCESSES for name in ("binary_loss", "distributed", "sharding", "softmax_loss")},
}
WATCHED = ("--device", "cpu", "--device", "none", "-n", "logical", "-p", "tests.mutation.reached")

# Who has found others is asked first. Then the files that are asked at a time, and the seconds of tests from each: a
# few, which find most bugs; at last as many tests as a survivor may take.
FINDERS = 12
ROUNDS = ((3, 1.0), (15, 1.5))
SECONDS = 400  # some bugs never end


def watch() -> Reached:
    """Runs the tests, and sees what they reach; kept until something changes."""
    content = hashlib.sha256()
    for file in sorted((*ROOT.glob("ce_ext/*.py"), *ROOT.glob("tests/**/*.py"))):
        content.update(str(file.relative_to(ROOT)).encode() + file.read_bytes())
    folder = BUILD / "reached" / content.hexdigest()[:16]
    BUILD.mkdir(parents=True, exist_ok=True)
    with FileLock(BUILD / "reached.lock"):
        if not folder.exists():
            shutil.rmtree(folder.parent, ignore_errors=True)
            watched = folder.with_suffix(".watched")
            watched.mkdir(parents=True)
            environment = os.environ | {
                "CE_EXT_REACHED": str(watched),
                "OMP_NUM_THREADS": "2",
                "OMP_WAIT_POLICY": "passive",
            }
            subprocess.run((sys.executable, "-m", "pytest", "-q", *WATCHED), cwd=ROOT, env=environment)
            watched.rename(folder)
    return Reached(folder)


class Judge:
    """A process for a copy of the project; it has imported all but the project."""

    def __init__(self, reached: Reached) -> None:
        self._reached = reached
        self._finders: dict[str, None] = {}  # tests that have found a bug, the last one last
        copies = BUILD / "copies"
        copies.mkdir(parents=True, exist_ok=True)
        self._folder = Path(tempfile.mkdtemp(dir=copies))
        copy_parts((*READ, *COMPILED), self._folder, products=True)
        self._forks = Forks(root=self._folder, imports=("hypothesis", "torch", "torch.utils.cpp_extension"))

    def is_killed(self, mutant: Mutant) -> bool:
        path = self._folder / mutant.file
        unchanged = path.read_text()
        try:
            path.write_text(mutant.source())
            return any(self._fails(tests) for tests in self._rounds(mutant))
        finally:
            path.write_text(unchanged)

    def _rounds(self, mutant: Mutant) -> Iterator[Sequence[str]]:
        tests = self._reached.tests(mutant.file, mutant.lines)
        finders = [test for test in reversed(self._finders) if test in tests][:FINDERS]
        if finders:
            yield finders
        files = by_file(tests, self._reached)
        for count, seconds in ROUNDS:
            chosen = [test for tests in files[:count] for test in self._take(tests, seconds)]
            if chosen:
                yield chosen
        if mutant.file in IN_PROCESSES:
            yield IN_PROCESSES[mutant.file]

    def _take(self, tests: list[str], seconds: float) -> list[str]:
        """So many seconds of them, off that list."""
        ends = itertools.accumulate(map(self._reached.seconds, tests))
        count = sum(1 for _ in itertools.takewhile(lambda end: end < seconds, ends))
        taken, tests[:] = tests[: count + 1], tests[count + 1 :]
        return taken

    def _fails(self, tests: Sequence[str]) -> bool:
        # Two versions of a file that are as long, and made in one second, are the same one to Python's cache.
        shutil.rmtree(self._folder / "ce_ext" / "__pycache__", ignore_errors=True)
        options = ("-x", "--device", "cpu", "--device", "none", "-m", "")
        run = self._forks.pytest(*options, *tests, seconds=SECONDS)
        for found in re.findall(r"^FAILED (.*?)(?: - .*)?$", run.stdout, re.MULTILINE):
            self._finders.pop(found, None)
            self._finders[found] = None
        return run.returncode != 0

    def close(self) -> None:
        self._forks.close()
        shutil.rmtree(self._folder)
