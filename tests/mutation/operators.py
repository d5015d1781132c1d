"""Bugs of a line in the Python layer: where cosmic-ray's operators, and two more, can make one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import parso
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.operator import Example, Operator
from cosmic_ray.operators.provider import OperatorProvider

from tests.mutation.equivalents import BY_FILE, EQUIVALENT
from tests.support.forks import ROOT

PACKAGE = "ce_ext"
GENERATED = "_built_with.py"

# Of what cosmic-ray puts in the place of an operator, the one that differs least: who sees that sees the others.
_NEIGHBOURS = (
    *(f"ReplaceBinaryOperator_{old}_{new}" for old, new in (
        ("Add", "Sub"), ("Sub", "Add"), ("Mul", "Div"), ("Div", "Mul"), ("FloorDiv", "Div"), ("Mod", "Mul"),
        ("Pow", "Mul"), ("BitAnd", "BitOr"), ("BitOr", "BitAnd"),
    )),
    *(f"ReplaceComparisonOperator_{old}_{new}" for old, new in (
        ("Gt", "GtE"), ("GtE", "Gt"), ("Lt", "LtE"), ("LtE", "Lt"),
    )),
    *(f"ReplaceUnaryOperator_Delete_{old}" for old in ("USub", "Invert")),
    "ReplaceAndWithOr", "ReplaceOrWithAnd", "ReplaceTrueWithFalse", "ReplaceFalseWithTrue", "AddNot",
    "ReplaceBreakWithContinue", "ReplaceContinueWithBreak", "ZeroIterationForLoop", "ExceptionReplacer",
    "RemoveDecorator",
)  # fmt: skip
# Of a whole condition they are what AddNot makes of it.
_NEGATIONS = (
    *(f"ReplaceComparisonOperator_{old}_{new}" for old, new in (
        ("Is", "IsNot"), ("IsNot", "Is"), ("Eq", "NotEq"), ("NotEq", "Eq"),
    )),
    "ReplaceUnaryOperator_Delete_Not",
)  # fmt: skip


class DropStatement(Operator):
    """A call whose result nobody takes, an error, or a name that gets another value."""

    def mutation_positions(self, node: Any) -> Sequence[Any]:
        is_one = node.type == "simple_stmt" and self._has_effect(node.children[0])
        return [(node.start_pos, node.end_pos)] if is_one else []

    def mutate(self, node: Any, index: int) -> Any:
        node.children[0] = parso.parse(f"{node.get_first_leaf().prefix}pass")
        return node

    @staticmethod
    def _has_effect(statement: Any) -> bool:
        if statement.type == "expr_stmt":
            targets, value = statement.get_defined_names(), statement.get_rhs()
            names = {leaf.value for leaf in ast_nodes(value) if leaf.type == "name"}
            sign = statement.children[1]
            return sign.type == "operator" and (sign.value != "=" or any(target.value in names for target in targets))
        return statement.type in ("atom_expr", "raise_stmt", "del_stmt")

    @classmethod
    def examples(cls) -> Iterable[Example]:
        return (
            Example("check(x)\ny = 1", "pass\ny = 1"),
            Example("def f(x):\n    x = abs(x)\n", "def f(x):\n    pass\n"),
            Example("if x:\n    raise ValueError(x)\n", "if x:\n    pass\n"),
        )


class DropArgument(Operator):
    """One that a call names."""

    def mutation_positions(self, node: Any) -> Sequence[Any]:
        return [(node.children[place].start_pos, node.children[place].end_pos) for place in self._places(node)]

    def mutate(self, node: Any, index: int) -> Any:
        place = self._places(node)[index]
        if node.type == "trailer":
            del node.children[place]
        else:  # with a comma
            first = max(place - 1, 0)
            del node.children[first : first + 2]
        return node

    @staticmethod
    def _places(node: Any) -> list[int]:
        if node.type not in ("arglist", "trailer"):
            return []
        return [
            place
            for place, child in enumerate(node.children)
            if child.type == "argument" and child.children[1].type == "operator" and child.children[1].value == "="
            if not _is_assertion(child.children[0])
        ]

    @classmethod
    def examples(cls) -> Iterable[Example]:
        return (
            Example("f(x, a=1)", "f(x)"),
            Example("f(a=1, b=2)", "f( b=2)"),
            Example("f(a=1, b=2)", "f(a=1)", occurrence=1),
            Example("f(a=1)", "f()"),
        )


class NumberPlusOne(OperatorProvider()["NumberReplacer"]):  # type: ignore[misc]
    """The first of the two numbers that it has."""

    def mutation_positions(self, node: Any) -> Sequence[Any]:
        return list(super().mutation_positions(node))[:1]


OWN = (DropStatement, DropArgument)
_OPERATORS: dict[str, Operator] = {
    **{name: OperatorProvider()[name]() for name in (*_NEIGHBOURS, *_NEGATIONS)},
    **{operator.__name__: operator() for operator in (*OWN, NumberPlusOne)},
}


@dataclass(frozen=True)
class Mutant:
    file: str
    operator: str
    occurrence: int
    lines: range  # of the statement, counted from 1

    @property
    def name(self) -> str:
        return f"{self.operator} {self.occurrence}, line {self.lines.start}"

    @property
    def equivalent(self) -> bool:
        # To find the change takes a while.
        return self.file in BY_FILE and (self.file, *self.change()) in EQUIVALENT

    def source(self) -> str:
        """That of the file, with the bug."""
        code = mutate_code((ROOT / self.file).read_text(), _OPERATORS[self.operator], self.occurrence)
        assert code is not None
        return code

    def change(self) -> tuple[str, str]:
        """The lines that it takes, and those that it puts in their place, without what indents them."""
        before, after = (ROOT / self.file).read_text().splitlines(), self.source().splitlines()
        changed = [line for line in difflib.ndiff(before, after) if line[0] in "-+"]
        old, new = ([line[2:].strip() for line in changed if line[0] == sign] for sign in "-+")
        return "\n".join(old), "\n".join(new)


def files() -> list[str]:
    return [f"{PACKAGE}/{file.name}" for file in sorted((ROOT / PACKAGE).glob("*.py")) if file.name != GENERATED]


def mutants_of(file: str) -> list[Mutant]:
    nodes = list(ast_nodes(get_ast((ROOT / file).read_text())))
    mutants = []
    for name, operator in _OPERATORS.items():
        occurrence = 0
        for node in nodes:
            for _ in operator.mutation_positions(node):
                is_negation = name in _NEGATIONS and _is_condition(node)
                if not (is_negation or _is_annotation(node) or _is_assertion(node)):
                    mutants.append(Mutant(file, name, occurrence, _lines(node)))
                occurrence += 1
    return sorted(mutants, key=lambda mutant: mutant.lines.start)


def _is_annotation(node: Any) -> bool:
    """Or the bare star of parameters, which is no product."""
    while node.parent is not None:
        parent = node.parent
        if parent.type == "parameters" and node.type == "operator":
            return True
        if parent.type == "annassign" or (parent.type == "tfpdef" and node is parent.children[2]):
            return True
        if parent.type == "funcdef" and node is parent.annotation:
            return True
        node = parent
    return False


def _is_assertion(node: Any) -> bool:
    """The argument ``strict`` of zip, of what is as long anyway."""
    argument = node.parent
    return argument is not None and argument.type == "argument" and argument.get_first_leaf().value == "strict"


def _is_condition(node: Any) -> bool:
    parent = node.parent
    return (parent.type in ("if_stmt", "while_stmt") and parent.children[1] is node) or (
        parent.type == "test" and parent.children[2] is node
    )


def _lines(node: Any) -> range:
    """Those of the smallest statement around it; of a compound one, the first."""
    start = node.start_pos[0]
    while node.parent is not None and node.type not in ("simple_stmt", "suite", "file_input"):
        if node.type in ("if_stmt", "for_stmt", "while_stmt", "try_stmt", "with_stmt", "funcdef", "classdef"):
            return range(start, start + 1)
        start, node = min(start, node.start_pos[0]), node.parent
    is_simple = node.type == "simple_stmt"
    return range(node.start_pos[0], node.get_last_leaf().start_pos[0] + 1) if is_simple else range(start, start + 1)
