"""Export the measured programs of runs as a data set for cost models: features, seconds, steps and tasks, in Parquet.

    python -m ansor_py.search --op matmul:512,512,512 --trials 256 --out runs/a
    python -m ansor_py.search bert.onnx --trials 2000 --out runs/b
    python experiments/export_dataset.py runs/a runs/b --out data
    python experiments/train_cost_model.py data --model lightgbm --out trained

`search/data_set/parquet.py` has the columns, `search/data_set/splits.py` the splits. Needs pyarrow.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from ansor_py.errors import AnsorError
from ansor_py.search.data_set.data_set import TEST_SHARE, DataSet, data_set_of_runs
from ansor_py.search.data_set.parquet import write_data_set
from ansor_py.search.user_code import load_plug_ins


def summary(data: DataSet) -> list[str]:
    """What a data set holds, in a few lines."""
    tasks, targets = ({getattr(group, name) for group in data.groups} for name in ("workload_key", "target"))
    failed, cut = int((~data.is_valid).sum()), sum(record.result.error == "cut" for record in data.records)
    words = f"{len(data)} programs of {len(tasks)} tasks on {len(targets)} targets; {failed} failed, {cut} of these cut short"
    lines = [words, f"{len(data.batch.rows)} statements with {len(data.names)} features"]
    lines += [f"{name}: {int(is_test.sum())} programs are held out" for name, is_test in data.splits.items()]
    return lines + [f"left out: {count} records {why}" for why, count in data.left_out.items() if count]


@click.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="A new folder.")
@click.option("--seed", default=0, show_default=True, help="Of the splits.")
@click.option("--test-share", default=TEST_SHARE, show_default=True, help="What is held out of each split.")
@click.option("--import", "imports", multiple=True, metavar="FILE.py", help="Feature groups of your own.")
def main(runs: tuple[Path, ...], out: Path, seed: int, test_share: float, imports: tuple[str, ...]) -> None:
    """Export the programs of RUNS (run directories) as a data set."""
    try:
        load_plug_ins(imports)
        data = data_set_of_runs(runs, seed, test_share)
        write_data_set(data, out)
    except AnsorError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    print("\n".join([*summary(data), f"data set: {out}"]))


if __name__ == "__main__":
    main()
