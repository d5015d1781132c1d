"""Plants bugs in the CUDA kernels, one at a time: the suite has to fail on each of them, and for the right reason."""

import re
import shlex
import shutil
import tempfile
from pathlib import Path

import pytest

from tests import cuda_emu
from tests.cuda.async_mutants import ASYNC_MUTANTS
from tests.cuda.element_mutants import ELEMENT_MUTANTS
from tests.cuda.mutant import Mutant
from tests.cuda.row_mutants import ROW_MUTANTS
from tests.cuda_emu.suite import Run, run_suite
from tests.support.marks import NEEDS_EMULATOR

pytestmark = [NEEDS_EMULATOR, pytest.mark.thorough]

MUTANTS = (*ROW_MUTANTS, *ELEMENT_MUTANTS, *ASYNC_MUTANTS)


def _run(mutant: Mutant) -> Run:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for part in (cuda_emu.CSRC, cuda_emu.EMULATOR):
            shutil.copytree(cuda_emu.ROOT / part, root / part)
        file = root / mutant.file
        source = file.read_text()
        assert mutant.old in source, f"{mutant.file} no longer has the code that this mutant changes: {mutant.old}"
        file.write_text(source.replace(mutant.old, mutant.new))
        return run_suite(
            *shlex.split(mutant.tests),
            root=root,
            changed=mutant.sources.split(),
            schedule=mutant.schedule,
            sanitizer=mutant.sanitizer,
        )


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_mutant_is_killed(mutant: Mutant) -> None:
    run = _run(mutant)
    assert run.returncode != 0, f"survives: {run.stdout}"
    assert re.search(mutant.evidence, run.stdout), run.stdout
