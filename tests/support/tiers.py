"""Which combinations of the parameters of a test `make test` runs; it leaves the others to `make test-all`."""

import heapq
from collections.abc import Hashable, Iterable, Mapping, Sequence
from itertools import combinations

import pytest


def covering(table: Sequence[Mapping[str, Hashable]], strength: int) -> list[int]:
    """The places of some rows that have, together, all that any `strength` columns of the table have side by side.

    Of the rows that add most, the next one always has the values that were chosen least. What a row adds only gets
    less, and its values are only chosen more often, so that most rows need no second look.
    """
    numbers: dict[tuple[str, Hashable], int] = {}
    values = [
        [numbers.setdefault(value, len(numbers)) for value in sorted(row.items(), key=lambda item: item[0])]
        for row in table
    ]
    groups = _as_bits([combinations(row, min(strength, len(row))) for row in values])
    covered = 0
    chosen_values = [0] * len(numbers)

    def rank(place: int) -> tuple[int, int, int]:
        return -(groups[place] & ~covered).bit_count(), sum([chosen_values[value] for value in values[place]]), place

    chosen = []
    queue = [rank(place) for place in range(len(table))]
    heapq.heapify(queue)
    while queue:
        expected = heapq.heappop(queue)
        actual = rank(expected[2])
        if actual[0] == 0:
            continue
        if actual != expected:
            heapq.heappush(queue, actual)
            continue
        chosen.append(actual[2])
        covered |= groups[actual[2]]
        for value in values[actual[2]]:
            chosen_values[value] += 1
    return chosen


def _as_bits(sets: Sequence[Iterable[Hashable]]) -> list[int]:
    """Sets of the same things as numbers, which have a bit for each."""
    bits: dict[Hashable, int] = {}
    positions = [[bits.setdefault(thing, len(bits)) for thing in things] for things in sets]
    numbers = []
    for row in positions:
        buffer = bytearray(len(bits) // 8 + 1)
        for bit in row:
            buffer[bit // 8] |= 1 << bit % 8
        numbers.append(int.from_bytes(buffer, "little"))
    return numbers


def mark_thorough(items: Sequence[pytest.Item]) -> None:
    """Marks the tests of a function marked `covering` that are not among those that cover it on their device."""
    tables: dict[tuple[str, Hashable], list[pytest.Item]] = {}
    for item in items:
        if item.get_closest_marker("covering"):
            function = item.nodeid.partition("[")[0]
            tables.setdefault((function, item.callspec.params.get("device")), []).append(item)
    for table in tables.values():
        [strength] = table[0].get_closest_marker("covering").args
        chosen = {table[place] for place in covering([_factors(item) for item in table], strength)}
        for item in table:
            if item not in chosen:
                item.add_marker("thorough")


def _factors(item: pytest.Item) -> dict[str, Hashable]:
    """Its parameters but for the device, by what tells their values apart. One may be made of several."""
    factors: dict[str, Hashable] = {}
    for name, value in item.callspec.params.items():
        if name != "device":
            factors |= getattr(value, "factors", {name: id(value)})
    return factors
