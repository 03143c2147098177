"""Seconds of one round's evolution, by the number of candidates in the round. Nothing is measured: costs are synthetic.

    python experiments/bench_evolution.py --names c2d_56 --names gmm_1024 --candidates 64 --candidates 8

The cost model is trained on 512 random programs of all sketches whose costs are a random function of their features, so that
its trees are as large as after 512 trials.
"""

from __future__ import annotations

import statistics
import time

import click
import numpy as np

from ansor_py import Target, Task
from ansor_py.cost_model.features import extract_features
from ansor_py.cost_model.interface import CostModel, FeatureBatch, create_cost_model
from ansor_py.schedule.sketch import Population, Sketch
from ansor_py.search.loop.phases import PhaseTimer
from ansor_py.search.loop.scoring import Scorer
from ansor_py.search.options import SearchOptions
from ansor_py.search.policies.policy import create_policy
from ansor_py.search.sampling.sampler import sample
from ansor_py.search.sampling.space import Space
from ansor_py.sketch_rules import generate_sketches
from machine import cpu_line, target_option
from workloads import workload

TRAINING_PROGRAMS = 512
ROUNDS = 5


def trained_model(sketches: list[Sketch], target: Target, seed: int) -> CostModel:
    """A model trained on random programs with synthetic costs."""
    rng = np.random.default_rng(seed)
    share = -(-TRAINING_PROGRAMS // len(sketches))
    rows = [sample(Space(sketch, target, SearchOptions()), share, rng) for sketch in sketches]
    batch = FeatureBatch.concatenate(
        [extract_features(Population(sketch, genes), target) for sketch, genes in zip(sketches, rows, strict=True)]
    )
    sums = np.add.reduceat(batch.rows.astype(np.float64), batch.offsets[:-1])
    scaled = (sums - sums.mean(axis=0)) / (sums.std(axis=0) + 1e-9)
    logs = scaled @ rng.normal(size=scaled.shape[1])
    model = create_cost_model("lightgbm-roofline", seed)
    model.update(batch, np.exp(np.clip(logs / logs.std(), -3, 3)) * 1e-3, np.zeros(len(batch), dtype=np.int64))
    return model


@click.command()
@click.option("--names", multiple=True, default=("c2d_56", "gmm_1024"), show_default=True, help="Workloads.")
@click.option("--candidates", multiple=True, type=int, default=(64, 16, 8), show_default=True, help="Candidates a round.")
@click.option("--seed", default=0, show_default=True)
@target_option(executes=False)
def main(names: tuple[str, ...], candidates: tuple[int, ...], seed: int, target: Target) -> None:
    """Print the median seconds of a round's evolution and what it scored."""
    print(cpu_line(target))
    for name in names:
        task = Task.from_compute(workload(name).tensor(), target)
        sketches = generate_sketches(task.dag, target)
        timer = PhaseTimer()
        scorer = Scorer(trained_model(sketches, target, seed), task, 0, timer)
        policy = create_policy("evolution", sketches, target, scorer, np.random.default_rng(seed), SearchOptions())
        policy.propose(1)
        for count in candidates:
            seconds, before = [], scorer.scored
            for _ in range(ROUNDS):
                start = time.perf_counter()
                policy.propose(count)
                seconds.append(time.perf_counter() - start)
            scored = (scorer.scored - before) // ROUNDS
            print(f"{name}: {count} candidates: {statistics.median(seconds):.2f} s, {scored:,} programs scored")


if __name__ == "__main__":
    main()
