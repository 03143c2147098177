"""How well the roofline, which learns nothing, orders programs: on random programs of many operators, measured really.

    python experiments/roofline_accuracy.py --programs 64 --out runs/roofline

For each workload it prints the share of pairs in the right order, and how fast the eight programs are that the roofline likes
best, relative to the fastest of all (geometric mean). Timings are kept as `OUT/NAME.jsonl` and used again, so that another
choice of the constants in `cost_model/feature_roofline.py` is judged in seconds.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click
import numpy as np

from ansor_py.cost_model import create_cost_model
from ansor_py.cost_model.metrics import pairwise_rank_accuracy
from ansor_py.errors import AnsorError
from ansor_py.schedule.task import Task
from ansor_py.search.loop.transfer import programs_of_records
from ansor_py.search.options import SearchOptions
from ansor_py.target import Target
from machine import cpu_line, target_option
from markdown_page import markdown_table
from simulated_correlation import real_records
from workloads import SUITE, workload

LIKED = 8


def judge(task: Task, name: str, programs: int, seed: int, out: Path) -> tuple[int, float, float, float]:
    """Programs, pairwise accuracy, relative speed of the best liked programs and of all (geometric means)."""
    records = [record for record in real_records(name, task, programs, seed, out) if record.valid]
    known = programs_of_records(records, [task], SearchOptions()).known
    scores = create_cost_model("roofline").predict(known.batch)
    speed = known.labels()
    liked = np.argsort(-scores, kind="stable")[:LIKED]
    means = [float(np.exp(np.log(part).mean())) for part in (speed[liked], speed)]
    return len(known), pairwise_rank_accuracy(scores, speed), *means


@click.command()
@click.option("--names", default=",".join(SUITE), show_default=True, help="Workloads, separated by commas.")
@click.option("--programs", default=64, type=click.IntRange(LIKED), show_default=True, help="Random programs a workload.")
@target_option()
@click.option("--threads", type=click.IntRange(min=1), help="Threads of a kernel. [default: the target's cores]")
@click.option("--seed", default=0, show_default=True, help="Seed of the programs.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/roofline"), show_default=True, help="Folder.")
def main(names: str, programs: int, target: Target, threads: int | None, seed: int, out: Path) -> None:
    """Judge the roofline on measured random programs."""
    found = []
    target = target.with_cores(threads or target.cores)
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name in names.split(","):
            found.append((name, *judge(Task.from_compute(workload(name).tensor(), target, name), name, programs, seed, out)))
    except AnsorError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    rows = [[name, str(count), *(f"{value:.3f}" for value in values)] for name, count, *values in found]
    means = [f"{np.mean(column):.3f}" for column in list(zip(*found, strict=True))[2:]]
    heads = ["workload", "programs", "pairs in order", f"speed of the {LIKED} liked best", "of all"]
    print(cpu_line(target), markdown_table(heads, [*rows, ["mean", "", *means]]), sep="\n\n", end="")


if __name__ == "__main__":
    main()
