"""How well cost models order programs that they have never seen, after more and more trials of a search.

    OP=conv2d:1,64,56,56,64,3,pad=1,bias=1,relu=1
    python -m ansor_py.search --op $OP --trials 512 --out runs/learned
    python -m ansor_py.search --op $OP --trials 256 --seed 1 --policy random --cost-model random --out runs/random
    python -m ansor_py.search --op $OP --trials 320 --seed 2 --out runs/evolved
    python experiments/model_accuracy.py runs/learned --unseen runs/random --unseen runs/evolved --out accuracy.csv

The programs of a round of one's own search are a biased sample (the model chose them), so those of other searches with other
seeds are held out: all random ones, and of an evolution those after its first, random round. Programs that occur in the
first run are left out, and so are failures. A model is trained anew on the first N trials for every N. (Models that are trained
off-line, on many tasks, are judged by `train_cost_model.py`.)
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np

from ansor_py.cost_model import create_cost_model
from ansor_py.cost_model.training_set import TrainingSet
from ansor_py.errors import AnsorError, OptionError
from ansor_py.measure.records import Record, read_records
from ansor_py.measure.tasks import load_tasks
from ansor_py.schedule.task import Task
from ansor_py.search.command_line.settings import parse_search_options
from ansor_py.search.data_set.accuracy import Accuracy
from ansor_py.search.loop.run_directory import RECORDS
from ansor_py.search.loop.transfer import programs_of_records
from ansor_py.search.options import SearchOptions
from ansor_py.strategy_options import OptionSet
from ansor_py.target import Target
from machine import cpu_line

COLUMNS = ("model", "trials", "unseen", "programs", "pairwise", "recall_30", "liked_30", "rmse")
BEST = 30


def records_of(run: Path) -> list[Record]:
    """Records of programs that were made from sketches, with a latency or a lower bound of it."""
    records, _ = read_records(run / RECORDS)
    return [record for record in records if record.sketch_id is not None and (record.valid or record.result.error == "cut")]


def held_out(run: Path, seen: set[str]) -> list[Record]:
    """The valid records that count as unseen: not those of the random round with which an evolution begins."""
    records = [record for record in records_of(run) if record.valid and json.dumps(record.steps) not in seen]
    evolved = any(record.origin.operator != "random" for record in records)
    return [record for record in records if not evolved or record.round > 1]


def judge(name: str, constants: OptionSet, known: TrainingSet, unseen: TrainingSet, seeds: int) -> tuple[float, ...]:
    """Pairwise accuracy, recall of the best 30, speed of the 30 liked best (relative to the best), RMSE: means over seeds.

    Throughput is relative to the best of what was learned, as a model's labels are.
    """
    figures = []
    truth = known.costs[np.isfinite(known.costs)].min() / unseen.costs
    for seed in range(seeds):
        model = create_cost_model(name, seed, constants)
        model.update(known.batch, known.costs, known.tasks)
        scores = model.predict(unseen.batch).astype(np.float64)
        liked = truth[np.argsort(-scores, kind="stable")[:BEST]] / truth.max()
        speed = float(np.exp(np.log(liked).mean()))
        found = Accuracy.of(scores, truth, [BEST])
        figures.append((found.pairwise, found.recall[0], speed, found.rmse))
    return tuple(map(float, np.mean(figures, axis=0)))


def table(
    run: Path,
    unseen: Sequence[Path],
    tasks: Sequence[Task],
    models: Sequence[str],
    search: SearchOptions,
    trials: Sequence[int],
    seeds: int,
) -> list[list[str]]:
    """Rows of `COLUMNS`. Raises OptionError where a run cannot be read."""
    records = records_of(run)
    seen = {json.dumps(record.steps) for record in records}
    sets = {path.name: programs_of_records(held_out(path, seen), tasks, search).known for path in unseen}
    everything = TrainingSet.empty()
    for part in sets.values():
        everything = everything.extended(part)
    rows = []
    for count in trials:
        known = programs_of_records(records[:count], tasks, search).known
        for name in models:
            for label, part in {**sets, "all": everything}.items():
                figures = judge(name, search, known, part, seeds)
                rows.append([name, str(count), label, str(len(part)), *(f"{figure:.3f}" for figure in figures)])
    return rows


def target_of(run: Path) -> Target:
    """What the programs of a run were made for. Raises OptionError where it has none."""
    records, _ = read_records(run / RECORDS)
    if not records:
        raise OptionError(f"'{run / RECORDS}' holds no record; name a run that has measured something")
    return Target.parse(records[0].target).with_cores(records[0].threads)


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--unseen", multiple=True, required=True, type=click.Path(path_type=Path), help="A run whose programs are held out."
)
@click.option(
    "--model",
    "models",
    multiple=True,
    default=("lightgbm-roofline", "lightgbm", "lightgbm-rank", "roofline", "random"),
    show_default=True,
)
@click.option("--search", multiple=True, metavar="NAME=VALUE", help="A constant of the models, such as model.trees=200.")
@click.option("--trials", multiple=True, type=int, default=(64, 128, 256, 384, 512), show_default=True)
@click.option("--seeds", default=3, show_default=True, help="Models a figure is the mean of.")
@click.option("--out", type=click.Path(path_type=Path), help="Write the table as CSV.")
def main(
    run: Path,
    unseen: tuple[Path, ...],
    models: tuple[str, ...],
    search: tuple[str, ...],
    trials: tuple[int, ...],
    seeds: int,
    out: Path | None,
) -> None:
    """Train models on the first trials of RUN and judge them on the programs of other runs."""
    try:
        print(cpu_line(target_of(run)))
        rows = table(run, unseen, tuple(load_tasks(run).values()), models, parse_search_options(search), trials, seeds)
    except AnsorError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    for row in [list(COLUMNS), *rows]:
        print("  ".join(f"{cell:>14s}" for cell in row))
    if out is not None:
        with out.open("w", newline="") as file:
            csv.writer(file).writerows([COLUMNS, *rows])


if __name__ == "__main__":
    main()
