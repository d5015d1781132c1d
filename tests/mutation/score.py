"""The layers of this project that bugs are planted in, and who judges whether they are found."""

from __future__ import annotations

import functools
import hashlib
import multiprocessing
import shlex
import subprocess
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tests.mutation import build, cuda, python
from tests.mutation.cpu import MUTANTS as CPU
from tests.mutation.host import MUTANTS as HOST
from tests.mutation.operators import files, mutants_of
from tests.mutation.planted import Planted
from tests.support.forks import ROOT, Forks, has_failed

PLANTED: tuple[Planted, ...] = (*CPU, *HOST)
SECONDS = 120  # some bugs never end


class Bug(Protocol):
    @property
    def file(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def equivalent(self) -> bool: ...


@dataclass(frozen=True)
class Layer:
    name: str
    bugs: Callable[[], Sequence[Any]]
    prepare: Callable[[], Any]  # once
    judge: Callable[[Any], Callable[[Any], bool]]  # in every process: of what that has prepared, who knows the killed


def _planted_judge(folder: Path) -> Callable[[Planted], bool]:
    @functools.cache
    def forks_of(isa: str | None) -> Forks:
        return Forks({"ATEN_CPU_CAPABILITY": isa} if isa else {}, root=folder)

    def is_killed(bug: Planted) -> bool:
        arguments = shlex.split(bug.tests)
        if "--device" not in arguments:
            arguments += ["--device", "cpu"]
        environment = {"CE_EXT_MUTANT": str(PLANTED.index(bug))}
        options = ("-x", "-p", "tests.mutation.switch")
        return has_failed(forks_of(bug.isa).pytest(*options, *arguments, environment=environment, seconds=SECONDS))

    return is_killed


LAYERS = (
    Layer(
        "Python",
        lambda: [bug for file in files() for bug in mutants_of(file)],
        python.watch,
        lambda folder: python.Judge(folder).is_killed,
    ),
    Layer(
        "C++",
        lambda: [bug for bug in PLANTED if bug.isa in (None, *build.isas())],
        lambda: build.build(PLANTED),
        _planted_judge,
    ),
    Layer("CUDA", lambda: cuda.MUTANTS, lambda: None, lambda _: cuda.is_killed),
)

_is_killed: Callable[[Any], bool]  # of a process that judges


def judged(layer: Layer, bugs: Sequence[Bug], jobs: int) -> Iterator[bool]:
    """Whether each of them is killed; by so many processes."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context, _make_judge, (layer.name, layer.prepare())) as pool:
        yield from pool.map(_judge, bugs)


def _make_judge(layer: str, prepared: Any) -> None:
    global _is_killed
    [chosen] = (of for of in LAYERS if of.name == layer)
    _is_killed = chosen.judge(prepared)


def _judge(bug: Bug) -> bool:
    return _is_killed(bug)


def sample(bugs: Sequence[Bug], count: int) -> list[Bug]:
    """So many of them, others in every commit."""
    return sorted(bugs, key=lambda bug: hashlib.sha256(f"{_commit()} {bug.file} {bug.name}".encode()).digest())[:count]


@functools.cache
def _commit() -> str:
    return subprocess.check_output(("git", "rev-parse", "HEAD"), cwd=ROOT, text=True).strip()
