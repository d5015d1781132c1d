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
from tests.mutation.reached import Reached, by_file, some_of_each
from tests.support.forks import ROOT, Forks, has_failed

COPIES = BUILD / "copies"

# Tests that depend on lines where nobody has seen them: in processes of their own, in a compiler, or by signatures that
# they read. Who is quick is asked first.
OF_LIBRARIES = (("tests/packaging/test_libraries.py",),)
OF_PROCESSES = (
    ("tests/distributed", "-k", "full_tensors", "-m", "not thorough"),
    ("tests/distributed",),
)
OF_SIGNATURES = (("tests/losses/test_signatures.py", "tests/losses/test_modules.py"),)
OF_NUMBERS = (("tests/autograd/test_tracing.py", "-k", "numbers"),)
UNSEEN = {
    **{f"ce_ext/{name}.py": OF_LIBRARIES for name in ("__init__", "_load", "info")},
    "ce_ext/functional.py": (*OF_SIGNATURES, *OF_PROCESSES),
    **{f"ce_ext/{name}.py": OF_SIGNATURES for name in ("nn", "options")},
    **{f"ce_ext/{name}.py": OF_NUMBERS for name in ("checks", "reductions")},
    **{f"ce_ext/{name}.py": OF_PROCESSES for name in ("binary_loss", "distributed", "sharding", "softmax_loss")},
}
OF_OTHERS = ("ce_ext/distributed.py", "ce_ext/sharding.py")  # whose lines hardly anybody else reaches
WATCHED = ("--device", "cpu", "--device", "none", "-n", "logical", "-p", "tests.mutation.reached")

# Who has found others is asked first; then, for so many seconds each, a few files, those with most functions that get
# there; then all pairs of options, and every function for a moment, but of those whose cases take long; at last all
# tests, unless they take long and nobody expects that one finds it.
FINDERS = 12
FEW, SECONDS_OF_FEW = 3, 1.0
COMPANY = "tests/losses/test_covering_arrays.py"
MOMENT, LONG = 0.1, 0.5
SECONDS_OF_ALL = 40.0
MANY = 100  # names that pytest is not to look up
SECONDS = 600  # some bugs never end


def watch() -> Path:
    """Runs the tests, and sees what they reach: the folder of `Reached`, which is kept until something changes."""
    shutil.rmtree(COPIES, ignore_errors=True)
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
            Reached.combine(watched)
            watched.rename(folder)
    return folder


class Judge:
    """A process for a copy of the project; it has imported all but the project."""

    def __init__(self, reached: Path) -> None:
        self._reached = Reached(reached)
        self._finders: dict[str, None] = {}  # tests that have found a bug, the last one last
        COPIES.mkdir(parents=True, exist_ok=True)
        self._folder = Path(tempfile.mkdtemp(dir=COPIES))
        copy_parts((*READ, *COMPILED), self._folder, products=True)
        self._forks = Forks(root=self._folder, imports=("hypothesis", "torch", "torch.utils.cpp_extension"))

    def is_killed(self, mutant: Mutant) -> bool:
        path = self._folder / mutant.file
        unchanged = path.read_text()
        try:
            path.write_text(mutant.source())
            return any(tests and self._fails(tests) for tests in self._rounds(mutant))
        finally:
            path.write_text(unchanged)

    def _rounds(self, mutant: Mutant) -> Iterator[Sequence[str]]:
        unseen = UNSEEN.get(mutant.file, ())
        comes_last = unseen and mutant.file not in OF_OTHERS and self._reached.is_seen(mutant.file, mutant.lines)
        if not comes_last:
            yield from unseen
        tests = self._reached.tests(mutant.file, mutant.lines)
        yield [test for test in reversed(self._finders) if test in tests][:FINDERS]
        yield [test for file in by_file(tests, self._reached)[:FEW] for test in self._take(file)]
        yield [test for test in tests if test.startswith(COMPANY)]
        yield some_of_each(tests, self._reached, MOMENT, LONG)
        if comes_last:
            yield from unseen
        if not mutant.equivalent or sum(map(self._reached.seconds, tests)) < SECONDS_OF_ALL:
            yield sorted(tests, key=self._reached.seconds)

    def _take(self, tests: Sequence[str]) -> Sequence[str]:
        ends = itertools.accumulate(map(self._reached.seconds, tests))
        return tests[: 1 + sum(1 for _ in itertools.takewhile(lambda end: end < SECONDS_OF_FEW, ends))]

    def _fails(self, tests: Sequence[str]) -> bool:
        # Two versions of a file that are as long, and made in one second, are the same one to Python's cache.
        shutil.rmtree(self._folder / "ce_ext" / "__pycache__", ignore_errors=True)
        environment = {}
        if len(tests) > MANY:
            (self._folder / "chosen").write_text("\n".join(tests))
            environment["CE_EXT_CHOSEN"] = "chosen"
            tests = ("-p", "tests.mutation.chosen", *{test.partition("::")[0]: None for test in tests})
        options = ("-x", "--device", "cpu", "--device", "none", "-m", "")
        run = self._forks.pytest(*options, *tests, environment=environment, seconds=SECONDS)
        for found in re.findall(r"^FAILED (.*?)(?: - .*)?$", run.stdout, re.MULTILINE):
            self._finders.pop(found, None)
            self._finders[found] = None
        return has_failed(run)
