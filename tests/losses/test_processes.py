"""Losses in many threads, in forks and other processes, and for long: the same bits, no wait without end, no leaks."""

import ctypes
import json
import os
import signal
import subprocess
import sys
from typing import Any

import pytest

from tests.cuda_emu import compile_kernels
from tests.support.forks import ROOT
from tests.support.marks import NEEDS_EMULATOR

TIME_LIMIT = 240  # in seconds


def _python(*arguments: str, **environment: str) -> str:
    """What it prints; in a session of its own, of which nothing is left when its time is up."""
    process = subprocess.Popen(
        (sys.executable, "-m", *arguments),
        cwd=ROOT,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=TIME_LIMIT)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, output + errors
    return output


@pytest.mark.parametrize(
    "program",
    [
        "first_calls_in_threads",
        "fork",
        pytest.param("pools_of_processes", marks=pytest.mark.thorough),
        pytest.param("workers_of_a_data_loader", marks=pytest.mark.thorough),
    ],
)
def test_bits_are_those_of_one_process_alone(program: str) -> None:
    assert _python("tests.support.programs", program, OMP_NUM_THREADS="2").split() == []


def _left_behind(*arguments: Any) -> dict[str, list[float]]:
    """By the names of steps, the bytes and the blocks of Python that stay of each."""
    # What threads put by for themselves counts as given out.
    environment = {"GLIBC_TUNABLES": "glibc.malloc.tcache_count=0"}
    return json.loads(_python("tests.support.leaks", *map(str, arguments), **environment))


def _leaks(left: dict[str, list[float]]) -> dict[str, list[float]]:
    return {name: [bytes, blocks] for name, (bytes, blocks) in left.items() if bytes >= 256 or blocks >= 0.5}


needs_mallinfo = pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="asks glibc what is in use")
THOROUGH = pytest.mark.thorough


@needs_mallinfo
def test_leaks_are_seen() -> None:
    left = _left_behind("planted", 50)
    assert _leaks(left) == left and left["a tensor"][0] >= 1024


@needs_mallinfo
@pytest.mark.parametrize(
    ("steps", "size"),
    [("kernels", 25), pytest.param("kernels", 500, marks=THOROUGH), pytest.param("modes", 200, marks=THOROUGH)],
)
def test_steps_leave_nothing(steps: str, size: int) -> None:
    assert _leaks(_left_behind(steps, size)) == {}


@needs_mallinfo
@NEEDS_EMULATOR
@THOROUGH
def test_steps_of_cuda_kernels_leave_nothing() -> None:
    assert _leaks(_left_behind("emulated", 100, compile_kernels())) == {}
