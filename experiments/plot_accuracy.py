"""Plot how well the cost model knew the programs of each round before it learned them, from `accuracy.csv` of run directories.

    python experiments/plot_accuracy.py runs/demo/run runs/other --out accuracy.png

These programs were chosen because the model likes them, which makes them hard to order; `model_accuracy.py` judges a model on
programs that it did not choose. Needs matplotlib.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import click

from ansor_py.errors import AnsorError, OptionError
from ansor_py.search.loop.run_directory import ACCURACY

FIGURES = {"pairwise": "pairwise rank accuracy", "top_k_recall": "recall of the fastest quarter", "rmse": "RMSE of throughput"}


def read_accuracy(run: Path) -> list[dict[str, str]]:
    """The rows of a run's `accuracy.csv`. Raises OptionError where there are none."""
    try:
        with (run / ACCURACY).open(newline="") as file:
            rows = [row for row in csv.DictReader(file) if row.get("pairwise")]
    except OSError as error:
        raise OptionError(f"cannot read '{run / ACCURACY}': {error.strerror}; name the directory of a run") from error
    if not rows:
        raise OptionError(f"'{run / ACCURACY}' has no round with two programs to compare; nothing to plot")
    return rows


def draw(runs: list[Path], path: Path) -> None:
    """Write a PNG with one panel a figure and one line a run. Raises OptionError where matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise OptionError("plots need matplotlib; install it with: pip install matplotlib") from error
    tables = {run: read_accuracy(run) for run in runs}
    figure = Figure(figsize=(12, 4), layout="constrained")
    for axes, (column, title) in zip(figure.subplots(1, len(FIGURES)), FIGURES.items(), strict=True):
        for run, rows in tables.items():
            known = [row for row in rows if row[column]]
            rounds, values = [int(row["round"]) for row in known], [float(row[column]) for row in known]
            axes.plot(rounds, values, marker="o", label=run.name)
        axes.set_xlabel("round")
        axes.set_ylabel(title)
        axes.set_ylim(0, None if column == "rmse" else 1)
        axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)


@click.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="The PNG. [default: accuracy.png in the first run]")
def main(runs: tuple[Path, ...], out: Path | None) -> None:
    """Plot the accuracy of the cost model over the rounds of run directories."""
    path = out or runs[0] / "accuracy.png"
    try:
        draw(list(runs), path)
    except AnsorError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    print(path)


if __name__ == "__main__":
    main()
