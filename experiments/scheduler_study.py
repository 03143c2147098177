"""The task schedulers beside each other: a network of three tasks of very different cost, with equal trials and seeds.

    python experiments/scheduler_study.py --runner simulated --out runs/schedulers-simulated
    python experiments/scheduler_study.py --runner process --out runs/schedulers --trials 192 --seeds 0

What counts is how many trials a scheduler needs to reach the latency at which round-robin ends, both as medians over the
seeds. Every search is a run directory below --out; those that are there already are not repeated, so that a study can be
made in pieces. Writes `study.json` and `study.png` there.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np

from ansor_py.errors import AnsorError, OptionError
from ansor_py.measure import find_measurer
from ansor_py.schedule.task import Task
from ansor_py.search.command_line.settings import parse_search_options
from ansor_py.search.loop.run_directory import RunDirectory, config_of_tasks, read_curve, summarise
from ansor_py.search.loop.tuning import tune_tasks
from ansor_py.search.loop.tuning_options import TuningOptions
from ansor_py.target import Target
from machine import check_executable, cpu_line, origin, target_option
from markdown_page import markdown_table, number
from workloads import workload

# How often the network runs what: the first is nearly all of its latency, the last next to nothing.
NETWORK = {"gmm_bert": 4, "grp": 2, "dep_112": 1}
BASELINE = "round-robin"
SCHEDULERS = ("gradient", BASELINE, "random")


@dataclass(frozen=True)
class Outcome:
    """One search: the estimated latency (milliseconds) after each trial, and the trials that every task got."""

    scheduler: str
    seed: int
    total_ms: tuple[float, ...]
    task_trials: Mapping[str, int]


def network_tasks(network: Mapping[str, int], target: Target, scale: int = 1) -> list[Task]:
    """The tasks with their weights; `scale` divides the extents."""
    return [
        replace(Task.from_compute(workload(name, scale).tensor(), target, name=name), weight=weight)
        for name, weight in network.items()
    ]


def search_into(
    path: Path, tasks: Sequence[Task], options: TuningOptions, runner: str, clock: Callable[[], float] | None = None
) -> None:
    """One search, as a run directory that appears when it is complete. `clock` returns seconds, as in `tune_tasks`."""
    partial = path.with_name(path.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    config = {
        "policy": options.policy,
        "scheduler": options.strategy,
        "seed": options.seed,
        "trials": options.trials,
        "runner": runner,
    }
    target = tasks[0].target
    with RunDirectory.create(partial, {**config, "tasks": config_of_tasks(tasks)}) as run:
        result = tune_tasks(tasks, options, runner, subscribers=[run.take], clock=clock)
        if result.interrupted:
            raise KeyboardInterrupt
        run.write_summary(summarise(result, "+".join(task.name for task in tasks), str(target), target.cores, None, None))
    partial.rename(path)


def check_target(path: Path, target: Target) -> None:
    """OptionError where a run directory is of another target."""
    held = json.loads((path / "summary.json").read_text())["target"]
    if held != str(target):
        raise OptionError(f"'{path}' holds a search for target '{held}'; choose another --out or remove it")


def outcome_of(path: Path) -> Outcome:
    """What a run directory says."""
    config = json.loads((path / "config.json").read_text())
    summary = json.loads((path / "summary.json").read_text())
    totals = [point.estimated_total_ms for point in read_curve(path)]
    if not totals or None in totals:
        raise OptionError(f"'{path}' has trials with an unknown latency of the network; remove it and run the study again")
    trials = {task["name"]: task["trials"] for task in summary["tasks"]}
    return Outcome(config["scheduler"], config["seed"], tuple(total for total in totals if total is not None), trials)


def compare(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """For every scheduler the trials to the latency at which round-robin ends: of the median curve over the seeds, and of each.

    Single searches are a matter of luck, so that what a scheduler saves is a statement about the median curves: one minus
    the trials after which its own first is at or below the end of round-robin's, over those after which round-robin's is.
    """
    curves = {name: median_curve(outcomes, name) for name in dict.fromkeys(outcome.scheduler for outcome in outcomes)}
    if BASELINE not in curves:
        raise OptionError(f"there is no search by {BASELINE} to compare with; add --schedulers {BASELINE}")
    goal = curves[BASELINE][-1]
    base_needed = trials_to_reach(curves[BASELINE], goal) or 0
    report: dict[str, Any] = {}
    for name, curve in curves.items():
        needed = trials_to_reach(curve, goal)
        runs = [
            {
                "seed": outcome.seed,
                "final_ms": outcome.total_ms[-1],
                "trials_to_goal": trials_to_reach(outcome.total_ms, goal),
                "task_trials": dict(outcome.task_trials),
            }
            for outcome in outcomes
            if outcome.scheduler == name
        ]
        report[name] = {
            "median_final_ms": curve[-1],
            "goal_ms": goal,
            "trials_to_goal": needed,
            "saved": None if needed is None else round(1 - needed / base_needed, 4),
            "runs": runs,
        }
    return report


def median_curve(outcomes: Sequence[Outcome], scheduler: str) -> list[float]:
    """Median over the seeds of the latency after each trial, as far as all searches went."""
    chosen = [outcome.total_ms for outcome in outcomes if outcome.scheduler == scheduler]
    length = min(map(len, chosen))
    medians: list[float] = np.median(np.array([curve[:length] for curve in chosen]), axis=0).tolist()
    return medians


def table(report: Mapping[str, Any]) -> str:
    """The report for a person: for each scheduler its median curve, then its searches."""
    header = ["scheduler", "seed", "final ms", "trials to round-robin's median end", "saved", "trials by task"]
    rows = []
    for name, item in report.items():
        saved = "never there" if item["saved"] is None else f"{100 * item['saved']:.0f} %"
        rows.append([f"**{name}**", "median", number(item["median_final_ms"]), str(item["trials_to_goal"] or "-"), saved, ""])
        for run in item["runs"]:
            by_task = " / ".join(str(count) for count in run["task_trials"].values())
            needed = str(run["trials_to_goal"] or "-")
            rows.append([name, str(run["seed"]), number(run["final_ms"]), needed, "", by_task])
    return markdown_table(header, rows)


def draw(outcomes: Sequence[Outcome], path: Path, title: str) -> None:
    """Median and range over the seeds of the latency after each trial, as a PNG."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise OptionError("plots need matplotlib; install it with: pip install matplotlib") from error
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for index, scheduler in enumerate(dict.fromkeys(outcome.scheduler for outcome in outcomes)):
        curves = [outcome.total_ms for outcome in outcomes if outcome.scheduler == scheduler]
        length = min(map(len, curves))
        totals = np.array([curve[:length] for curve in curves])
        trials = np.arange(1, length + 1)
        axes.plot(trials, np.median(totals, axis=0), color=f"C{index}", label=f"{scheduler} (median of {len(curves)})")
        axes.fill_between(trials, totals.min(axis=0), totals.max(axis=0), color=f"C{index}", alpha=0.15, linewidth=0)
    axes.set_xlabel("measured candidates")
    axes.set_ylabel("estimated latency of the network (ms)")
    axes.set_title(title)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)


def trials_to_reach(curve: Sequence[float], goal: float) -> int | None:
    """The number of trials after which a curve is at or below the goal; None if it never is."""
    return next((trial for trial, total in enumerate(curve, start=1) if total <= goal), None)


def _pairs(texts: Sequence[str]) -> dict[str, int]:
    """`NAME=WEIGHT` texts."""
    network = {}
    for text in texts:
        name, _, weight = text.partition("=")
        if not weight.isdigit() or not int(weight):
            raise OptionError(f"--task '{text}': write WORKLOAD=WEIGHT, such as c2d_56=8")
        network[name] = int(weight)
    return network


@click.command()
@click.option("--runner", default="simulated", show_default=True, help="How to measure.")
@click.option("--trials", default=288, show_default=True, help="Of every search.")
@click.option("--seeds", default=[0, 1, 2, 3, 4], multiple=True, show_default=True, help="Once for each.")
@click.option("--schedulers", default=SCHEDULERS, multiple=True, show_default=True, help="Once for each.")
@click.option(
    "--task",
    default=[f"{name}={weight}" for name, weight in NETWORK.items()],
    multiple=True,
    show_default=True,
    help="WORKLOAD=WEIGHT.",
)
@click.option("--scale", default=1, show_default=True, help="Divide the extents of the workloads.")
@click.option("--batch", type=int, help="Candidates a round.")
@click.option("--threads", type=click.IntRange(min=1), help="Threads of a kernel. [default: the target's cores]")
@target_option(executes=False)
@click.option("--policy", default="evolution", show_default=True)
@click.option("--search", multiple=True, metavar="NAME=VALUE", help="A constant of the search, such as population=512.")
@click.option("--out", default=Path("runs/schedulers"), type=click.Path(path_type=Path), show_default=True)
def main(
    runner: str,
    trials: int,
    seeds: tuple[int, ...],
    schedulers: tuple[str, ...],
    task: tuple[str, ...],
    scale: int,
    batch: int | None,
    threads: int | None,
    target: Target,
    policy: str,
    search: tuple[str, ...],
    out: Path,
) -> None:
    """Tune one network with each task scheduler and compare the trials they need."""
    try:
        target = target.with_cores(threads or target.cores)
        if not find_measurer(runner).virtual:
            check_executable(target)
        tasks = network_tasks(_pairs(task), target, scale)
        for seed in seeds:
            for scheduler in schedulers:
                path = out / f"{scheduler}-{seed}"
                if path.exists():
                    check_target(path, target)
                else:
                    print(f"{scheduler}, seed {seed}", flush=True)
                    options = TuningOptions(
                        trials=trials,
                        seed=seed,
                        batch=batch,
                        strategy=scheduler,
                        policy=policy,
                        search=parse_search_options(search),
                    )
                    search_into(path, tasks, options, runner)
        found = [outcome_of(path) for path in sorted(out.glob("*-*[0-9]")) if (path / "summary.json").exists()]
        outcomes = sorted(found, key=lambda outcome: (outcome.scheduler, outcome.seed))
        report = compare(outcomes)
        network = " + ".join(f"{item.weight} x {item.name}" for item in tasks)
        draw(outcomes, out / "study.png", f"{cpu_line(target)}\n{network}, {runner}")
    except AnsorError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    study = {**origin(target), "runner": runner, "network": _pairs(task), "schedulers": report}
    (out / "study.json").write_text(json.dumps(study, indent=2) + "\n")
    print(cpu_line(target), table(report), sep="\n\n", end="")


if __name__ == "__main__":
    main()
