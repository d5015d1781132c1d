"""The choice of tests that `make test` makes of all combinations."""

from itertools import combinations, product

import pytest

from tests.support.tiers import covering

COLUMNS = {"shape": 16, "option": 5, "dtype": 4, "reduction": 3}
TABLE = [dict(zip(COLUMNS, row, strict=True)) for row in product(*map(range, COLUMNS.values()))]


@pytest.mark.parametrize(("strength", "at_most"), [(1, 16), (2, 85), (3, 340), (4, len(TABLE)), (9, len(TABLE))])
def test_all_values_meet_in_few_rows(strength: int, at_most: int) -> None:
    chosen = covering(TABLE, strength)
    assert len(set(chosen)) == len(chosen) <= at_most
    for columns in combinations(COLUMNS, min(strength, len(COLUMNS))):
        met = {tuple(TABLE[place][column] for column in columns) for place in chosen}
        assert len(met) == len(set(product(*(range(COLUMNS[column]) for column in columns))))
    assert chosen == covering(TABLE, strength)  # workers have to agree


def test_values_are_chosen_equally_often() -> None:
    for column, size in COLUMNS.items():
        dtypes = [TABLE[place][column] for place in covering(TABLE, 1)]
        counts = [dtypes.count(value) for value in range(size)]
        assert max(counts) - min(counts) <= 1


def test_only_what_is_in_the_table_is_covered() -> None:
    table = [{"loss": 0, "shape": 0}, {"loss": 0, "shape": 1}, {"loss": 1, "shape": 2}, {"loss": 1, "shape": 2}]
    assert covering(table, 2) == [0, 2, 1]
    assert covering([{"loss": 0}, {"loss": 0}], 2) == [0]
    assert covering([], 1) == []
