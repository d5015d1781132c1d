"""The planted bugs fit the code."""

from collections import Counter

import pytest

from tests.mutation.cpu import MUTANTS as CPU
from tests.mutation.cuda import MUTANTS as CUDA
from tests.mutation.host import MUTANTS as HOST
from tests.mutation.planted import overlapping
from tests.support.forks import ROOT


def test_every_bug_has_one_place_and_a_name_of_its_own() -> None:
    planted = (*CPU, *HOST)
    for bug in planted:
        begin, end = bug.place((ROOT / bug.file).read_text())
        assert begin < end and bug.old.rstrip().endswith(";") == (bug.new.rstrip().endswith(";") or not bug.new)
        assert bug.note or not bug.equivalent
    assert overlapping(planted, ROOT) == []
    assert _repeated((bug.file, bug.name) for bug in planted) == []


def test_cuda_kernels_have_what_their_bugs_change() -> None:
    for bug in CUDA:
        assert bug.old in (ROOT / bug.file).read_text(), bug.name
    assert _repeated(bug.name for bug in CUDA) == []


def test_bugs_of_the_python_layer() -> None:
    pytest.importorskip("cosmic_ray")
    from cosmic_ray.mutating import mutate_code

    from tests.mutation.equivalents import BY_FILE
    from tests.mutation.operators import OWN

    for operator in OWN:
        for example in operator.examples():
            changed = mutate_code(example.pre_mutation_code, operator(), example.occurrence)
            assert changed == example.post_mutation_code
    for file, changes in BY_FILE.items():
        lines = [line.strip() for line in (ROOT / file).read_text().splitlines()]
        for line, old, *_ in changes:
            assert line in lines and line.count(old) == 1, line


def _repeated(names: object) -> list[object]:
    return [name for name, times in Counter(names).items() if times > 1]
