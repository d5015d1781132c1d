"""Results as bars: GB/s on floor bytes, one bar a provider, against the ceiling."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.measure import PASSES
from benchmarks.results import Contest, Results

COLORS = ("#d1495b", "#8d99ae", "#2b4162", "#6b9080", "#c9ada7")  # the subject's stands out
GROUP_WIDTH = 0.8


def plot(results: Results, path: Path) -> None:
    """One row of axes for each loss and dtype, one column for each pass; overheads are left out."""
    panels: dict[str, dict[str, list[Contest]]] = {}
    for contest in results.contests(tiny=False):
        row = contest[results.subject]
        panels.setdefault(row.case.heading, {name: [] for name in PASSES})
        panels[row.case.heading][row.pass_name].append(contest)
    if not panels:
        return
    figure = Figure(figsize=(13, 0.7 + 3.1 * len(panels)), layout="constrained")
    grid = figure.subplots(len(panels), len(PASSES), squeeze=False, sharey="row")
    for line, (heading, passes) in zip(grid, panels.items(), strict=True):
        for axes, (pass_name, contests) in zip(line, passes.items(), strict=True):
            _bars(results, contests, axes)
            axes.set_title(f"{heading}: {pass_name}", loc="left", fontsize=11)
        line[0].set_ylabel("GB/s on floor bytes")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=len(labels), frameon=False)
    figure.suptitle(results.machine, x=0.01, ha="left", fontsize=11)
    figure.savefig(path, dpi=150)


def _bars(results: Results, contests: list[Contest], axes: Axes) -> None:
    groups = np.arange(len(contests))
    width = GROUP_WIDTH / len(results.providers)
    for index, (provider, color) in enumerate(zip(results.providers, COLORS, strict=False)):
        left = groups - GROUP_WIDTH / 2 + index * width
        rates = [c[provider].gb_per_second if provider in c else 0 for c in contests]
        axes.bar(left, rates, 0.94 * width, align="edge", label=provider, color=color)
    rows = [contest[results.subject] for contest in contests]
    axes.hlines(
        [results.ceiling(row) for row in rows],
        groups - 0.5,
        groups + 0.5,
        colors="black",
        linestyles="--",
        linewidth=1,
        label="ceiling",
    )
    axes.set_xticks(groups, [row.case.shape_name for row in rows])
    axes.tick_params(length=0, labelsize=8)
    axes.grid(axis="y", color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
