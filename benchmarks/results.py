"""All rows of a run, and what follows from them. The subject is the first provider."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import reduce
from itertools import groupby
from typing import Any

from benchmarks.ceilings import Ceilings
from benchmarks.measure import Failure, Row

Contest = dict[str, Row]  # one pass of one case, by provider


@dataclass
class Results:
    environment: dict[str, Any]
    providers: Sequence[str]
    ceilings: dict[str, Ceilings] = field(default_factory=dict)  # by when they were measured
    rows: list[Row] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)

    @property
    def machine(self) -> str:
        host = "driver {driver}" if self.environment["driver"] else "{threads} threads"
        return f"{{device}}, {host}, torch {{torch}}".format(**self.environment)

    @property
    def subject(self) -> str:
        return self.providers[0]

    @property
    def peers(self) -> Sequence[str]:
        return self.providers[1:]

    def contests(self, tiny: bool) -> list[Contest]:
        """Those that the subject took part in."""
        rows = (row for row in self.rows if row.case.is_tiny == tiny)
        groups = groupby(rows, key=lambda row: (row.case, row.pass_name))
        contests = [{row.provider: row for row in group} for _, group in groups]
        return [contest for contest in contests if self.subject in contest]

    def ceiling(self, row: Row) -> float:
        return row.floor.ceiling(reduce(Ceilings.best, self.ceilings.values()))

    def speedup(self, contest: Contest, peer: str) -> float | None:
        """The peer's best time over the subject's."""
        if peer not in contest:
            return None
        return contest[peer].timing.best / contest[self.subject].timing.best

    def as_json(self) -> dict[str, Any]:
        return {
            "environment": self.environment,
            "providers": self.providers,
            "ceilings_gb_per_second": {when: asdict(rates) for when, rates in self.ceilings.items()},
            "rows": [self._row_as_json(row) for row in self.rows],
            "failures": [str(failure) for failure in self.failures],
        }

    def _row_as_json(self, row: Row) -> dict[str, Any]:
        return {
            "loss": row.case.loss.name,
            "shape": row.case.shape,
            "dtype": row.case.dtype_name,
            "reduction": row.case.reduction,
            "layout": row.case.layout,
            "options": row.case.options,
            "pass": row.pass_name,
            "provider": row.provider,
            "relative_errors": row.errors,
            "seconds": asdict(row.timing),
            "floor_bytes": row.floor.bytes,
            "written_bytes": row.floor.written,
            "gb_per_second": row.gb_per_second,
            "of_ceiling": row.gb_per_second / self.ceiling(row),
            "extra_bytes": row.extra_bytes,
            "extra_per_input": row.extra_per_input,
        }
