"""All that a run has measured."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.limits import Ceilings
from benchmarks.measure import Failure, Row
from benchmarks.record import Record, complete


@dataclass
class Results:
    environment: dict[str, Any]
    providers: Sequence[str]  # the subject is the first
    ceilings: dict[str, Ceilings] = field(default_factory=dict)  # by when they were measured
    rows: list[Row] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)

    def as_record(self) -> Record:
        return complete(
            {
                "environment": self.environment,
                "providers": self.providers,
                "ceilings_gb_per_second": {when: asdict(rates) for when, rates in self.ceilings.items()},
                "failures": [str(failure) for failure in self.failures],
                "host_gaps": [[row.provider, *row.key] for row in self.rows if row.may_have_gaps],
                "rows": [_as_record(row) for row in self.rows],
            }
        )


def _as_record(row: Row) -> dict[str, Any]:
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
        "copied_bytes": row.floor.copied,
        "written_bytes": row.floor.written,
        "extra_bytes": row.extra_bytes,
    }
