"""Plot the search curve of one or more run directories as a PNG.

    python experiments/plot_curve.py runs/demo/run runs/other --out curves.png --x seconds

Needs matplotlib (`pip install matplotlib`, or the extra `notebook`). `search_curves.ipynb` draws through the same functions.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ansor_py.errors import AnsorError, OptionError
from ansor_py.search.loop.run_directory import read_curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Curve:
    """What is plotted of one run: the estimated latency (milliseconds) after each trial, and the measured ones."""

    name: str
    trials: tuple[int, ...]
    seconds: tuple[float, ...]
    total_ms: tuple[float, ...]
    untuned_ms: float | None
    tuned_ms: float | None


def curve_of(run: Path) -> Curve:
    """The curve of a run directory. Raises OptionError when there is none."""
    points = [point for point in read_curve(run) if point.estimated_total_ms is not None]
    if not points:
        raise OptionError(f"'{run}' has no trial with a known latency; nothing to plot")
    summary = json.loads((run / "summary.json").read_text()) if (run / "summary.json").exists() else {}
    return Curve(
        name=f"{Path(summary.get('model', run.name)).stem} ({run.name})",
        trials=tuple(point.trial + 1 for point in points),
        seconds=tuple(point.elapsed_s for point in points),
        total_ms=tuple(point.estimated_total_ms or 0.0 for point in points),
        untuned_ms=summary.get("untuned_latency_ms"),
        tuned_ms=summary.get("tuned_latency_ms"),
    )


def draw(curves: Sequence[Curve], path: Path, against: str = "trials") -> None:
    """Write a PNG with the curves against `trials` or `seconds`. Raises OptionError where matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise OptionError("plots need matplotlib; install it with: pip install matplotlib") from error
    figure = Figure(figsize=(8, 5), layout="constrained")
    draw_on(figure.subplots(), curves, against)
    figure.savefig(path, dpi=120)


def draw_on(axes: Axes, curves: Sequence[Curve], against: str = "trials") -> None:
    """Draw best latency so far against `trials` or `seconds`, and the measured latencies of the whole model as lines."""
    for index, curve in enumerate(curves):
        color = f"C{index % 10}"
        axes.step(getattr(curve, against), curve.total_ms, where="post", color=color, label=curve.name)
        for value, style, word in ((curve.untuned_ms, ":", "untuned"), (curve.tuned_ms, "--", "tuned")):
            if value is not None:
                axes.axhline(value, color=color, linestyle=style, linewidth=1, label=f"{word}, measured: {value:.4g} ms")
    axes.set_xlabel({"trials": "measured candidates", "seconds": "seconds of search"}[against])
    axes.set_ylabel("estimated latency of the best programs (ms)")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()


@click.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="The PNG. [default: curve.png in the first run]")
@click.option("--x", "against", type=click.Choice(["trials", "seconds"]), default="trials", show_default=True)
def main(runs: tuple[Path, ...], out: Path | None, against: str) -> None:
    """Plot the search curves of run directories."""
    path = out or runs[0] / "curve.png"
    try:
        draw([curve_of(run) for run in runs], path, against)
    except AnsorError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    print(path)


if __name__ == "__main__":
    main()
