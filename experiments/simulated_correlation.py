"""How well the simulated CPU ranks programs: its seconds beside real ones for random programs of all sketches.

    python experiments/simulated_correlation.py --names gmm_512,c2d_56 --programs 100 --threads 2 --out runs/simulated

Real timings are kept as `OUT/NAME.jsonl` (records, which `--runner replay` reads too) and used again by the next run with the
same OUT, so that the machine has to be quiet only once. It prints a table and writes `OUT/correlation.json`.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from ansor_py.errors import AnsorError
from ansor_py.measure import (
    MeasureInput,
    MeasureResult,
    Record,
    RecordWriter,
    create_measurer,
    read_records,
)
from ansor_py.schedule.task import Task
from ansor_py.search.loop.task_search import Program, trial_record
from ansor_py.search.options import SearchOptions
from ansor_py.search.policies.policy import create_policy
from ansor_py.sketch_rules.derivation import generate_sketches
from ansor_py.target import Target
from machine import cpu_line, origin, target_option
from markdown_page import markdown_table
from workloads import workload

NAMES = ("gmm_512", "c2d_56", "dep_112", "softmax")


def random_programs(task: Task, count: int, seed: int) -> list[Record]:
    """Random programs of all sketches, an equal share of each, as records without costs."""
    sketches = generate_sketches(task.dag, task.target, SearchOptions().rules)
    rng = np.random.default_rng([seed, 0])
    policy = create_policy("random", sketches, task.target, lambda populations: [], rng, SearchOptions())
    programs = [Program.of_candidate(candidate, sketches[candidate.sketch]) for candidate in policy.propose(count)]
    return [
        replace(trial_record(task, program, MeasureResult()), trial=trial, seed=seed) for trial, program in enumerate(programs)
    ]


def measured(task: Task, records: Sequence[Record], runner: str) -> list[Record]:
    """The records with the costs that a measurer finds."""
    inputs = [
        MeasureInput(r.workload_key, task.dag, r.concrete_steps(task.dag), task.target, task.target.cores) for r in records
    ]
    with create_measurer(runner, target=task.target, threads=task.target.cores) as measurer:
        results = measurer.measure(inputs)
    return [replace(record, result=result) for record, result in zip(records, results, strict=True)]


def real_records(name: str, task: Task, programs: int, seed: int, out: Path) -> list[Record]:
    """Really measured programs: those of an earlier run with this folder, or new ones."""
    path = out / f"{name}.jsonl"
    if path.exists():
        known, _ = read_records(path)
        wanted = (task.workload_key, str(task.target), task.target.cores)
        fitting = [r for r in known if (r.workload_key, r.target, r.threads) == wanted]
        if fitting:
            return fitting
    records = measured(task, random_programs(task, programs, seed), "process")
    with RecordWriter(path) as writer:
        writer.write(records)
    return records


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> float:
    """Spearman's coefficient of two sequences without ties of note."""
    ranks = [np.argsort(np.argsort(np.asarray(values))).astype(np.float64) for values in (a, b)]
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def comparison(name: str, task: Task, real: Sequence[Record]) -> dict[str, Any]:
    """One row of the table: rank correlation, spread of the ratio of real to simulated seconds, milliseconds per answer."""
    begun = time.perf_counter()
    simulated = measured(task, real, "simulated")
    spent = time.perf_counter() - begun
    pairs = [(r.cost, s.cost) for r, s in zip(real, simulated, strict=True) if r.valid and s.valid]
    ratios: NDArray[np.float64] = np.array([a / b for a, b in pairs])
    best = min(range(len(pairs)), key=lambda place: pairs[place][1])
    return {
        "name": name,
        "programs": len(pairs),
        "failed": len(real) - len(pairs),
        "disagreeing": sum(r.valid != s.valid for r, s in zip(real, simulated, strict=True)),
        "spearman": round(rank_correlation([a for a, _ in pairs], [b for _, b in pairs]), 3),
        "real_over_simulated": [round(float(np.quantile(ratios, q)), 3) for q in (0.1, 0.5, 0.9)],
        "picked_over_best": round(pairs[best][0] / min(a for a, _ in pairs), 3),
        "milliseconds_per_program": round(spent / len(real) * 1e3, 2),
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    heads = ["workload", "programs", "Spearman", "real / simulated (10, 50, 90 %)", "its best / the best", "ms a program"]
    cells = [
        [
            row["name"],
            str(row["programs"]),
            f"{row['spearman']:.2f}",
            ", ".join(f"{ratio:.2f}" for ratio in row["real_over_simulated"]),
            f"{row['picked_over_best']:.2f}",
            f"{row['milliseconds_per_program']:.1f}",
        ]
        for row in rows
    ]
    return markdown_table(heads, cells)


@click.command()
@click.option("--names", default=",".join(NAMES), show_default=True, help="Workloads, separated by commas.")
@click.option("--programs", default=100, show_default=True, help="Random programs a workload.")
@target_option()
@click.option("--threads", type=click.IntRange(min=1), help="Threads of a kernel. [default: the target's cores]")
@click.option("--seed", default=0, show_default=True, help="Seed of the programs.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/simulated"), show_default=True, help="Folder.")
def main(names: str, programs: int, target: Target, threads: int | None, seed: int, out: Path) -> None:
    """Compare simulated with real timings."""
    rows = []
    target = target.with_cores(threads or target.cores)
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name in names.split(","):
            task = Task.from_compute(workload(name).tensor(), target, name)
            rows.append(comparison(name, task, real_records(name, task, programs, seed, out)))
    except AnsorError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    document = {**origin(target), "threads": target.cores, "rows": rows}
    (out / "correlation.json").write_text(json.dumps(document, indent=2) + "\n")
    print(cpu_line(target), table(rows), sep="\n\n", end="")


if __name__ == "__main__":
    main()
