"""A record as bars: GB/s on floor bytes, one bar a provider, against the ceiling.

`python -m benchmarks.plot FILE.json PICTURE`
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.cases import is_tiny
from benchmarks.passes import PASSES
from benchmarks.record import Contest, Key, Record, contests_of_subject, machine, read

# The subject's stands out.
COLORS = ("#d1495b", "#8d99ae", "#2b4162", "#6b9080", "#c9ada7", "#e9c46a", "#a17fb0")
GROUP_HEIGHT = 0.8
INCHES_A_GROUP, INCHES_A_PANEL, INCHES_OF_LEGEND = 0.45, 0.7, 0.6


def plot(record: Record, path: Path) -> None:
    """One row of axes for each function and dtype, one column for each pass; overheads are left out."""
    panels: dict[str, dict[str, dict[Key, Contest]]] = {}
    for key, contest in contests_of_subject(record).items():
        if not is_tiny(contest[record["providers"][0]]["shape"]):
            passes = panels.setdefault(key.heading, {name: {} for name in PASSES})
            passes[key.pass_name][key] = contest
    if not panels:
        return
    heights = [INCHES_A_PANEL + INCHES_A_GROUP * max(map(len, passes.values())) for passes in panels.values()]
    figure = Figure(figsize=(15, INCHES_OF_LEGEND + sum(heights)), layout="constrained")
    grid = figure.subplots(len(panels), len(PASSES), squeeze=False, height_ratios=heights)
    for line, (heading, passes) in zip(grid, panels.items(), strict=True):
        for axes, (pass_name, contests) in zip(line, passes.items(), strict=True):
            _bars(record["providers"], contests, axes)
            axes.set_title(f"{heading}: {pass_name}", loc="left", fontsize=10)
        for axes in line[1:]:
            axes.set_yticklabels([])
    for axes in grid[-1]:
        axes.set_xlabel("GB/s on floor bytes")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=len(labels), frameon=False)
    figure.suptitle(machine(record), x=0.01, ha="left", fontsize=11)
    figure.savefig(path, dpi=100)


def _bars(providers: Sequence[str], contests: dict[Key, Contest], axes: Axes) -> None:
    groups = np.arange(len(contests))
    height = GROUP_HEIGHT / len(providers)
    for index, (provider, color) in enumerate(zip(providers, COLORS, strict=False)):
        top = groups - GROUP_HEIGHT / 2 + index * height
        rates = [c[provider]["gb_per_second"] if provider in c else 0 for c in contests.values()]
        axes.barh(top, rates, 0.94 * height, align="edge", label=provider, color=color)
    rows = [contest[providers[0]] for contest in contests.values()]
    axes.vlines(
        [row["gb_per_second"] / row["of_ceiling"] for row in rows],
        groups - 0.5,
        groups + 0.5,
        colors="black",
        linestyles="--",
        linewidth=1,
        label="ceiling",
    )
    axes.set_yticks(groups, [key.label for key in contests])
    axes.invert_yaxis()  # the first case is the uppermost
    axes.tick_params(length=0, labelsize=8)
    axes.grid(axis="x", color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "bottom"]].set_visible(False)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plot", description=__doc__)
    parser.add_argument("file", type=read)
    parser.add_argument("picture", type=Path, help="png, svg, pdf")
    options = parser.parse_args()
    plot(options.file, options.picture)


if __name__ == "__main__":
    main()
