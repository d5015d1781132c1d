"""Plants bugs in the CUDA kernels, one at a time: the suite has to fail on each of them, and for the right reason."""

import re
import shlex
import shutil
import tempfile
from pathlib import Path

from tests import cuda_emu
from tests.cuda_emu.suite import run_suite
from tests.mutation.cuda_async import ASYNC_BUGS
from tests.mutation.cuda_elements import ELEMENT_BUGS
from tests.mutation.cuda_mutant import Mutant
from tests.mutation.cuda_rows import ROW_BUGS

MUTANTS = (*ROW_BUGS, *ELEMENT_BUGS, *ASYNC_BUGS)


def is_killed(mutant: Mutant) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for part in (cuda_emu.CSRC, cuda_emu.EMULATOR):
            shutil.copytree(cuda_emu.ROOT / part, root / part)
        file = root / mutant.file
        source = file.read_text()
        assert mutant.old in source, f"{mutant.file} no longer has the code that this mutant changes: {mutant.old}"
        file.write_text(source.replace(mutant.old, mutant.new))
        run = run_suite(
            *shlex.split(mutant.tests),
            root=root,
            changed=mutant.sources.split(),
            schedule=mutant.schedule,
            sanitizer=mutant.sanitizer,
        )
    return run.returncode != 0 and re.search(mutant.evidence, run.stdout) is not None
