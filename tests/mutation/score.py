"""Runs the tests that should die of a bug, and says whether they do."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from tests.mutation.cpu import MUTANTS as CPU
from tests.mutation.host import MUTANTS as HOST
from tests.mutation.planted import Planted
from tests.support.forks import Forks

MUTANTS: tuple[Planted, ...] = (*CPU, *HOST)
NO_TESTS_RAN = 5  # an exit code of pytest


@dataclass(frozen=True)
class Verdict:
    mutant: Planted
    exit_code: int

    @property
    def is_killed(self) -> bool:
        return self.exit_code not in (0, NO_TESTS_RAN)


class Judge:
    """A process that has the build with every bug."""

    def __init__(self, folder: Path) -> None:
        self._forks = Forks(root=folder)

    def judge(self, mutant: Planted) -> Verdict:
        arguments = shlex.split(mutant.tests)
        if "--device" not in arguments:
            arguments += ["--device", "cpu"]
        environment = {"CE_EXT_MUTANT": str(MUTANTS.index(mutant))}
        run = self._forks.pytest("-x", "-p", "tests.mutation.switch", *arguments, environment=environment)
        return Verdict(mutant, run.returncode)
