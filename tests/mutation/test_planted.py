"""The planted bugs fit the code."""

from collections import Counter

from tests.mutation.planted import overlapping
from tests.mutation.score import MUTANTS
from tests.support.forks import ROOT


def test_every_bug_has_one_place_and_a_name_of_its_own() -> None:
    for mutant in MUTANTS:
        begin, end = mutant.place((ROOT / mutant.file).read_text())
        assert begin < end and mutant.old.rstrip().endswith(";") == (
            mutant.new.rstrip().endswith(";") or not mutant.new
        )
    assert overlapping(MUTANTS, ROOT) == []
    repeated = [name for name, times in Counter((m.file, m.name) for m in MUTANTS).items() if times > 1]
    assert repeated == []
