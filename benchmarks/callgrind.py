"""Counts the instructions of kernels with valgrind: the same number in every run, however busy the machine is."""

import os
import re
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parent.parent
ISA = "avx2"  # valgrind knows no AVX-512
# Everything within: its callees as well, but neither Python and torch nor the checks and allocation before it.
ENTRY = "ce_ext::cpu::Backend::run(*)"

ENVIRONMENT = {
    "ATEN_CPU_CAPABILITY": ISA,
    "OMP_NUM_THREADS": "1",
    # No `rep stosb` in memset: callgrind takes it for as many instructions as there are bytes.
    "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-ERMS",
}


def count(program: str) -> list[int]:
    """The instructions of the kernels that a Python program runs, up to each `os.sched_yield` from the one before it.

    The program calls `start_instrumentation` before the first of them.
    """
    with TemporaryDirectory() as folder:
        valgrind = [
            "valgrind",
            "--quiet",
            "--tool=callgrind",
            "--instr-atstart=no",
            "--collect-atstart=no",
            f"--toggle-collect={ENTRY}",
            "--dump-before=sched_yield*",
            f"--callgrind-out-file={folder}/count",
        ]
        command = [*valgrind, sys.executable, "-c", program]
        run = subprocess.run(command, cwd=ROOT, env={**os.environ, **ENVIRONMENT}, capture_output=True, text=True)
        if run.returncode:
            raise RuntimeError(f"the program failed under valgrind:\n{run.stdout}{run.stderr}")
        dumps = sorted(Path(folder).glob("count.*"), key=lambda dump: int(dump.suffix[1:]))
        return [_total(dump.read_text()) for dump in dumps]


def _total(dump: str) -> int:
    found = re.search(r"^totals: ([1-9]\d*)$", dump, re.MULTILINE)
    if found is None:
        raise RuntimeError(f"callgrind saw no call of {ENTRY}")
    return int(found[1])


def start_instrumentation() -> None:
    """Only now: the imports, which take most of the time, would take three times as long with it."""
    # callgrind looks for commands as long as there is code to run, hence the loop. To wake it up in a system call takes
    # ptrace, which not every container allows.
    command = ["vgdb", "--max-invoke-ms=0", f"--pid={os.getpid()}", "instrumentation", "on"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as vgdb:
        while vgdb.poll() is None:
            pass
    if vgdb.returncode:
        raise RuntimeError("callgrind cannot be told to start")
