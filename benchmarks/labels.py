"""Names of cases, for those who have a record alone and no ce_ext."""

from collections.abc import Mapping, Sequence


def label(shape: Sequence[int], reduction: str, layout: str, options: Mapping[str, object]) -> str:
    """The shape, and what is not as it mostly is."""
    unusual = [value for value, usual in ((reduction, "mean"), (layout, "contiguous")) if value != usual]
    unusual += [name if value is True else f"{name}={value}" for name, value in options.items()]
    return ", ".join(["x".join(map(str, shape)), *unusual])
