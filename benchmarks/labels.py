"""Names of cases, for those who have a record alone and no ce_ext."""

from collections.abc import Mapping, Sequence

# What most cases have, and neither names nor records repeat.
USUAL = {"reduction": "mean", "layout": "contiguous", "options": {}}


def label(shape: Sequence[int], reduction: str, layout: str, options: Mapping[str, object]) -> str:
    """The shape, and what is not as it mostly is."""
    unusual = [value for value, name in ((reduction, "reduction"), (layout, "layout")) if value != USUAL[name]]
    unusual += [name if value is True else f"{name}={value}" for name, value in options.items()]
    return ", ".join(["x".join(map(str, shape)), *unusual])
