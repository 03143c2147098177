"""Programs scored a second on one core: features and prediction on an evolved, mixed population of all sketches.

    python experiments/bench_scoring.py                          # c2d_56 and gmm_1024; costs of the training by the roofline
    python experiments/bench_scoring.py c2d_56 --run runs/a      # model trained on the first 512 trials of a run

The population is the third generation of an evolution over all sketches, as a search scores it. The model has the size of one
after 512 trials; without --run it is trained on 512 random programs whose seconds are the roofline's with 10 % of noise.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

import click
import numpy as np

from ansor_py.cost_model import FeatureBatch, GuidedModel, create_cost_model, extract_features
from ansor_py.cost_model.training_set import TrainingSet
from ansor_py.errors import AnsorError, OptionError
from ansor_py.measure.records import read_records
from ansor_py.schedule.sketch import Population
from ansor_py.schedule.task import Task
from ansor_py.search.evolution.generations import Individuals, next_generation, scored
from ansor_py.search.loop.run_directory import RECORDS
from ansor_py.search.loop.transfer import programs_of_records
from ansor_py.search.options import SearchOptions
from ansor_py.search.sampling.sampler import sample
from ansor_py.search.sampling.space import Space
from ansor_py.sketch_rules import generate_sketches
from ansor_py.target import Target
from machine import cpu_line, target_option
from workloads import workload

TRIALS, GENERATIONS, REPEATS = 512, 3, 7
MICRO = 1e6
HEADS = "workload sketches groups programs rows/program columns trees leaves features_us predict_us programs/s".split()


def training_set(task: Task, spaces: list[Space], run: Path | None, rng: np.random.Generator) -> TrainingSet:
    """512 programs with costs: those of a run, or random ones with the roofline's seconds."""
    if run is not None:
        records, _ = read_records(run / RECORDS)
        known = programs_of_records(records[:TRIALS], [task], SearchOptions()).known
        if not len(known):
            raise OptionError(f"'{run}' is not a run of this workload ('{task.name}', key {task.workload_key})")
        return known
    share = -(-TRIALS // len(spaces))
    populations = [Population(space.sketch, sample(space, share, rng)) for space in spaces]
    batch = FeatureBatch.concatenate([extract_features(population, task.target) for population in populations])
    costs = 1 / create_cost_model("roofline").predict(batch) * rng.lognormal(0, 0.1, len(batch))
    return TrainingSet(batch, costs.astype(np.float64), np.zeros(len(batch), dtype=np.int64))


def bench(name: str, target: Target, run: Path | None, seed: int) -> list[str]:
    """One line of the table, a cell for each of `HEADS`."""
    rng = np.random.default_rng(seed)
    task = Task.from_compute(workload(name).tensor(), target)
    options = SearchOptions()
    spaces = [Space(sketch, target, options) for sketch in generate_sketches(task.dag, target, options.rules)]
    known = training_set(task, spaces, run, rng)
    model = GuidedModel(rng)
    model.update(known.batch, known.costs, known.tasks)
    share = -(-options.population // len(spaces))
    generation = [Individuals.made(sample(space, share, rng)) for space in spaces]
    allowed = [space.legal_structures for space in spaces]
    for _ in range(GENERATIONS):
        parents = scored(spaces, generation, lambda given: [model.predict(extract_features(p, target)) for p in given])
        generation = next_generation(spaces, parents, rng, options, allowed)
    populations = [Population(s.sketch, rows.genes) for s, rows in zip(spaces, generation, strict=True) if len(rows)]
    programs = sum(len(population) for population in populations)
    features, predict = [], []
    for _ in range(REPEATS):
        start = time.perf_counter()
        batches = [extract_features(population, target) for population in populations]
        middle = time.perf_counter()
        for batch in batches:
            model.predict(batch)
        features.append(middle - start)
        predict.append(time.perf_counter() - middle)
    first, second = statistics.median(features), statistics.median(predict)
    rows = sum(len(batch.rows) for batch in batches) / programs
    trees = model.trees
    groups = sum(len(population.groups()) for population in populations)
    sizes = [str(len(populations)), str(groups), str(programs), f"{rows:.2f}", str(batches[0].rows.shape[1])]
    shape = [str(len(trees)), str(len(trees.leaf_value))] if trees is not None else ["0", "0"]
    times = [f"{part / programs * MICRO:.1f}" for part in (first, second)]
    return [name, *sizes, *shape, *times, f"{programs / (first + second):,.0f}"]


@click.command()
@click.argument("names", nargs=-1)
@click.option("--run", type=click.Path(path_type=Path), help="A run of the (one) workload to train on.")
@click.option("--seed", default=0, show_default=True)
@target_option(executes=False)
def main(names: tuple[str, ...], run: Path | None, seed: int, target: Target) -> None:
    """Print programs scored a second for the workloads NAMES."""
    print(cpu_line(target))
    print("  ".join(f"{head:>12s}" for head in HEADS))
    try:
        for name in names or ("c2d_56", "gmm_1024"):
            print("  ".join(f"{cell:>12s}" for cell in bench(name, target, run, seed)), flush=True)
    except AnsorError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
