"""The control flow of machine code: its loops, one within another, and the straight way through them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, pairwise, product
from typing import NamedTuple

import networkx

INSTRUCTION_BYTES = 16
JUMPS = ("BRX", "JMX")  # indirect ones, as of a switch: where they go is in a table
LEAVING = ("BRA", "EXIT", "RET", *JUMPS)
BYTES = {"U8": 1, "S8": 1, "U16": 2, "S16": 2, "64": 8, "128": 16, "256": 32}  # of an access; of others 4
TRANSCENDENTAL = ("MUFU.EX2", "MUFU.LG2")
RARE = 1 / 16  # of these
MOST_WAYS = 20  # to follow at a time


class Instruction(NamedTuple):
    opcode: str  # with its modifiers, as in LDG.E.128
    operands: str = ""
    predicate: str = ""  # as in @!P0

    @property
    def operation(self) -> str:
        return self.opcode.partition(".")[0]


class Access(NamedTuple):
    """To memory. Of those that are predicated, two of one register are one: a pack is loaded in one way or another."""

    operation: str
    bytes: int
    identity: tuple[object, ...]


@dataclass(frozen=True)
class Loop:
    header: int  # the block by which it is entered
    blocks: frozenset[int]
    inner: tuple[Loop, ...]

    def innermost(self, has: Callable[[Loop], bool]) -> Iterator[Loop]:
        """Those that have something which no loop within them has."""
        found = [*chain.from_iterable(loop.innermost(has) for loop in self.inner)]
        yield from found or ([self] if has(self) else [])


@dataclass(frozen=True)
class Way:
    """What one way through the code does."""

    instructions: int = 0
    transcendentals: int = 0
    accesses: frozenset[Access] = frozenset()

    def __add__(self, other: Way) -> Way:
        return Way(
            self.instructions + other.instructions,
            self.transcendentals + other.transcendentals,
            self.accesses | other.accesses,
        )

    def bytes(self, *operations: str) -> int:
        return sum(access.bytes for access in self.accesses if access.operation in operations or not operations)

    @cached_property
    def rank(self) -> tuple[int, int, int]:
        return self.bytes(), self.transcendentals, -self.instructions

    def excels(self, other: Way) -> bool:
        if self.accesses != other.accesses:
            return self.accesses > other.accesses
        return self.transcendentals >= other.transcendentals and self.instructions <= other.instructions


class ControlFlow:
    """Blocks go by the place of their first instruction, the end by the place after the last."""

    def __init__(self, code: list[Instruction]) -> None:
        self.code = code
        self.end = len(code)
        targets: dict[int, list[int]] = {}  # where control may go on after instructions that may leave
        for place, instruction in enumerate(code):
            if instruction.operation in LEAVING:
                targets[place] = [*self._targets(place, instruction)]
        starts = sorted({0, *chain(*targets.values()), *(place + 1 for place in targets)} - {self.end})
        self.blocks = {start: range(start, stop) for start, stop in pairwise([*starts, self.end])}

        self.graph = networkx.DiGraph()
        self.graph.add_nodes_from(self.blocks)
        for start, block in self.blocks.items():
            self.graph.add_edges_from((start, to) for to in targets.get(block[-1], [block.stop]))
        # To what nothing else leads.
        jumps = [start for start, block in self.blocks.items() if code[block[-1]].operation in JUMPS]
        only_jumped_to = [start for start, count in self.graph.in_degree() if start > 0 and count == 0]
        self.graph.add_edges_from(product(jumps, only_jumped_to))

    def _targets(self, place: int, instruction: Instruction) -> Iterator[int]:
        *conditions, target = instruction.operands.split(",")
        if instruction.operation == "BRA":
            yield int(target, 16) // INSTRUCTION_BYTES
        if instruction.operation == "EXIT":
            yield self.end
        if instruction.predicate or (instruction.operation == "BRA" and conditions):
            yield place + 1

    @cached_property
    def loops(self) -> tuple[Loop, ...]:
        """The outermost loops: the cycles.

        A branch backwards is not enough, since code that seldom runs lies behind all other and returns from there.
        """
        return tuple(self._loops(self.graph))

    def _loops(self, graph: networkx.DiGraph) -> Iterator[Loop]:
        for blocks in networkx.strongly_connected_components(graph):
            if len(blocks) > 1 or graph.has_edge(*blocks, *blocks):
                entered = [block for block in blocks if not blocks.issuperset(self.graph.predecessors(block))]
                header = min(entered or blocks)
                yield Loop(header, frozenset(blocks), tuple(self._loops(graph.subgraph(blocks - {header}))))

    def code_of(self, blocks: Iterable[int]) -> list[Instruction]:
        return [self.code[place] for start in sorted(blocks) for place in self.blocks[start]]

    def straight_way(self, counts: Callable[[Instruction], bool], loop: Loop | None = None) -> Way:
        """From the first instruction to the end, or once around a loop; and once around the loops that are on the way.

        Of all ways the straight one moves the most bytes, in the accesses that count. Of those that take all of the
        exponentials and logarithms that there may be, or nearly, which a rare correction may account for, it is the one
        of the fewest instructions: what branches off for a guard, a tail or a report is left out, but not what is to be
        done.
        What is predicated takes place.
        """
        graph, inner = self._without_cycles(loop)
        ways: dict[int, list[Way]] = {loop.header if loop else 0: [Way()]}
        for node in networkx.topological_sort(graph):
            if node == self.end or node not in ways:
                continue
            part = self.straight_way(counts, inner[node]) if node in inner else self._through(node, counts)
            for way in [way + part for way in ways.pop(node)]:
                for follower in graph.successors(node):
                    best = ways.setdefault(follower, [])
                    if not any(other.excels(way) for other in best):
                        best[:] = [*(other for other in best if not way.excels(other)), way]
                        if len(best) > MOST_WAYS:
                            best.remove(min(best, key=lambda other: other.rank))
        return _straightest(ways.get(self.end, [Way()]))

    def _without_cycles(self, loop: Loop | None) -> tuple[networkx.DiGraph, dict[int, Loop]]:
        """The blocks of a loop, or all; loops within are one node each, and the way back to the header is the end."""
        inner = {found.header: found for found in (loop.inner if loop else self.loops)}
        node_of = {block: header for header, found in inner.items() for block in found.blocks}
        graph = networkx.DiGraph()
        for place, to in self.graph.edges:
            if loop and (place not in loop.blocks or to not in loop.blocks):
                continue
            node = node_of.get(place, place)
            follower = self.end if loop and to == loop.header else node_of.get(to, to)
            if node != follower:
                graph.add_edge(node, follower)
        return graph, inner

    def _through(self, block: int, counts: Callable[[Instruction], bool]) -> Way:
        code = self.code_of([block])
        transcendentals = sum(instruction.opcode.startswith(TRANSCENDENTAL) for instruction in code)
        return Way(len(code), transcendentals, frozenset(self._accesses(block, counts)))

    def _accesses(self, block: int, counts: Callable[[Instruction], bool]) -> Iterator[Access]:
        before: Counter[tuple[str, str]] = Counter()  # under the same condition
        for place in self.blocks[block]:
            opcode, operands, predicate = self.code[place]
            if counts(self.code[place]):
                operation, *modifiers = opcode.split(".")
                register = operands.split(",")[-1 if operation.startswith("ST") else 0]
                bytes = next((BYTES[modifier] for modifier in modifiers if modifier in BYTES), 4)
                identity = (register, before[register, predicate]) if predicate else (place,)
                yield Access(operation, bytes, identity)
                before[register, predicate] += 1


def _straightest(ways: list[Way]) -> Way:
    most = max(way.rank[0] for way in ways)
    ways = [way for way in ways if way.rank[0] == most]
    enough = max(way.transcendentals for way in ways) * (1 - RARE)
    return min((way for way in ways if way.transcendentals >= enough), key=lambda way: way.instructions)
