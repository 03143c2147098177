"""Train cost models on a data set, judge them on what a split holds out, and save them for searches.

    python experiments/train_cost_model.py data --model lightgbm --model roofline --split by_task --out trained
    python experiments/train_cost_model.py data --import experiments/ideas/step_reader.py --model step-reader --out trained
    python -m ansor_py.search --op matmul:512,512,512 --cost-model lightgbm --cost-model-from trained/lightgbm.npz

Figures are means over tasks (on a machine), each alike: the error of scaled scores as throughput relative to the task's best,
the share of pairs in the right order, the share of the best k that the model puts among its first k, and how fast the best of
its first k is, relative to the best. The folder gets `metrics.json`, with the figures of every task, and `MODEL.npz`.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from ansor_py.cost_model.checked_model import CheckedModel
from ansor_py.cost_model.model_file import ModelHeader, save_model
from ansor_py.errors import AnsorError, OptionError
from ansor_py.search.command_line.settings import parse_search_options
from ansor_py.search.data_set.accuracy import PEAKS, Accuracy, GroupAccuracy, judge, mean_accuracy, train
from ansor_py.search.data_set.data_set import DataSet
from ansor_py.search.data_set.parquet import read_data_set
from ansor_py.search.data_set.splits import SPLITS
from ansor_py.search.user_code import load_plug_ins

METRICS = "metrics.json"


def figures_of(accuracy: Accuracy, ks: Sequence[int]) -> dict[str, Any]:
    """The figures by the names of the table; None for what is not known."""
    found: dict[str, Any] = {"programs": accuracy.programs, "rmse": accuracy.rmse, "pairwise": accuracy.pairwise}
    found |= {f"recall@{k}": value for k, value in zip(ks, accuracy.recall, strict=True)}
    found |= {f"peak@{k}": value for k, value in zip(ks, accuracy.peak, strict=True)}
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in found.items()}


def tasks_as_json(found: Sequence[GroupAccuracy], ks: Sequence[int]) -> list[dict[str, Any]]:
    """The figures of every task on every machine."""
    return [{**asdict(item), "accuracy": figures_of(item.accuracy, ks)} for item in found]


def save(name: str, model: CheckedModel, data: DataSet, split: str, folder: Path) -> str:
    """Save a trained model; returns what to say of it."""
    places = ~data.splits[split]
    header = ModelHeader.of(name, model, data.targets(places), data.known_tasks(places))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        saved = save_model(folder / f"{name}.npz", model, header)
    except OSError as error:
        raise OptionError(f"cannot write to '{folder}': {error.strerror}; choose another --out") from error
    if not saved:
        return f"{name}: not saved, as the model has no method 'save' or it writes nothing"
    return f"{name}: --cost-model {name} --cost-model-from {folder / f'{name}.npz'}"


def print_table(rows: Sequence[dict[str, Any]]) -> None:
    """One row a model."""
    cells = [[f"{value:.3f}" if isinstance(value, float) else str(value) for value in row.values()] for row in rows]
    table = [list(rows[0]), *cells]
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    for row in table:
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))


@click.command()
@click.argument("data_set", metavar="DATASET", type=click.Path(path_type=Path))
@click.option("--model", "models", multiple=True, required=True, help="A registered cost model.")
@click.option("--import", "imports", multiple=True, metavar="FILE.py", help="Cost models and feature groups of your own.")
@click.option("--split", default="within_task", show_default=True, type=click.Choice(SPLITS), help="What is held out.")
@click.option("--k", "ks", multiple=True, type=click.IntRange(min=1), default=PEAKS, show_default=True)
@click.option("--search", multiple=True, metavar="NAME=VALUE", help="A constant of the models, such as model.trees=200.")
@click.option("--seed", default=0, show_default=True, help="Of the models.")
@click.option("--out", type=click.Path(path_type=Path), help="A folder for metrics and models. [default: none are kept]")
def main(
    data_set: Path,
    models: tuple[str, ...],
    imports: tuple[str, ...],
    split: str,
    ks: tuple[int, ...],
    search: tuple[str, ...],
    seed: int,
    out: Path | None,
) -> None:
    """Train cost models on DATASET, the folder that export_dataset.py made, and judge them on what a split holds out."""
    rows, saved, metrics = [], [], {}
    try:
        load_plug_ins(imports)
        data, options = read_data_set(data_set), parse_search_options(search)
        for name in models:
            model = train(name, data, split, seed, options)
            found = judge(model, data, data.splits[split], ks)
            rows.append({"model": name, **figures_of(mean_accuracy(found), ks)})
            metrics[name] = {"mean": figures_of(mean_accuracy(found), ks), "tasks": tasks_as_json(found, ks)}
            if out is not None:
                saved.append(save(name, model, data, split, out))
    except AnsorError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    is_test = data.splits[split]
    print(f"split {split}: {int((~is_test).sum())} programs to learn from, {len(found)} tasks to judge by")
    print_table(rows)
    if out is not None:
        content = {"data_set": str(data_set), "split": split, "seed": seed, "models": metrics}
        (out / METRICS).write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")
        print("\n".join(saved))


if __name__ == "__main__":
    main()
