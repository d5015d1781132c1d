"""pytest again and again, each time in a fork of a process that has imported what takes long.

A run costs what its own tests cost, and may crash: nobody else notices. What has to be there before Python is (a
sanitizer, the instruction set that torch is to see) belongs to the process, what a run may choose by itself to the run.
"""

import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent

Run = subprocess.CompletedProcess[str]

_NO_TESTS_RAN = 5  # an exit code of pytest


def has_failed(run: Run) -> bool:
    """Whether a test has; where none ran, none has."""
    return run.returncode not in (0, _NO_TESTS_RAN)


# What runs again in such processes: arguments of pytest for all tests of kernels but the heavy and thorough ones, in
# parts that cost about the same.
KERNEL_TESTS = {
    name: ("-m", "kernel and not heavy and not thorough", *folders.split())
    for name, folders in {
        "softmax": "tests/losses/softmax",
        "sigmoid": "tests/losses/sigmoid",
        "others": "tests/autograd tests/cuda "
        + " ".join(f"tests/losses/test_{name}.py" for name in ("company", "op_options", "covering_arrays")),
    }.items()
}


# What all tests import. (Not through pytest, which shows less of their assertions then; those of tests stay as they
# are, because only the modules of tests hold any.)
IMPORTS = ("hypothesis", "tests.support.losses")


class Forks:
    """One such process."""

    def __init__(
        self,
        environment: Mapping[str, str] | None = None,
        launcher: Sequence[str] = (),
        root: Path = ROOT,
        imports: Sequence[str] = IMPORTS,
    ) -> None:
        self._process = subprocess.Popen(
            (*launcher, sys.executable, "-m", __name__, *imports),
            cwd=root,  # from where it imports
            # Threads do not survive a fork.
            env=os.environ | {"OMP_NUM_THREADS": "1"} | dict(environment or {}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def pytest(self, *arguments: str, environment: Mapping[str, str] | None = None, seconds: int = 0) -> Run:
        """Runs it with these arguments, and not longer than so many seconds, if any; stdout holds its stderr too.

        What takes longer runs again: if it still does, then not because something else had kept it.
        """
        run = self._run(arguments, environment, seconds)
        return self._run(arguments, environment, seconds) if run.returncode == -signal.SIGALRM else run

    def _run(self, arguments: Sequence[str], environment: Mapping[str, str] | None, seconds: int) -> Run:
        assert self._process.stdin and self._process.stdout
        with tempfile.TemporaryDirectory() as folder:
            output = Path(folder, "output")
            request = {"arguments": arguments, "environment": dict(environment or {}), "seconds": seconds}
            print(json.dumps(request | {"output": str(output)}), file=self._process.stdin, flush=True)
            answer = self._process.stdout.readline()
            assert answer, f"the process that forks is gone: exit code {self._process.wait()}"
            return Run(arguments, int(answer), output.read_text(errors="replace"))

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()


def _serve() -> None:
    for module in sys.argv[1:]:
        importlib.import_module(module)
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            with open(request["output"], "w") as output:
                os.dup2(output.fileno(), 1)
                os.dup2(output.fileno(), 2)
            os.environ.update(request["environment"])
            signal.alarm(request["seconds"])
            code = pytest.main(["-q", "-s", "-p", "no:cacheprovider", "-p", "no:xdist", *request["arguments"]])
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), file=answers, flush=True)


if __name__ == "__main__":
    _serve()
