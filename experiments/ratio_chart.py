"""A bar chart of how many times as fast ours is: a group of bars a workload, a bar a series, and a line at 1.

    draw_ratios(Path("ops.png"), ["gmm", "c2d"], {"1 thread": {"gmm": 1.2, "c2d": 0.9}}, "plain calls: best / ours", "A CPU")

What has no ratio has no bar. Needs matplotlib. A sibling module of the scripts in this folder.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path


def draw_ratios(
    path: Path, names: Sequence[str], series: Mapping[str, Mapping[str, float | None]], axis: str, title: str
) -> None:
    """Write a PNG: the names along the x axis, the ratios of every series by name, what the y axis is, and a title."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(6.0, 0.6 * len(names)), 5), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / max(len(series), 1)
    for index, (label, ratios) in enumerate(series.items()):
        places = [place + (index - (len(series) - 1) / 2) * width for place in range(len(names))]
        axes.bar(places, [ratios.get(name) or math.nan for name in names], width, label=label)
    axes.axhline(1.0, color="black", linewidth=1)
    axes.set_xticks(range(len(names)), names, rotation=60, ha="right")
    axes.set_ylabel(axis)
    axes.set_title(f"{title}\nOver 1: ours is faster.", fontsize="medium")
    if series:
        axes.legend()
    figure.savefig(path, dpi=120)
