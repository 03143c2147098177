"""The search in numbers, and the policies beside each other on several workloads, with equal trials and seeds.

    python experiments/bench_search.py --out runs/policies                                     # simulated measurements
    python experiments/bench_search.py --runner process --trials 256 --seeds 3 --out runs/policies-measured

Prints how many programs are scored and measured in a second and where the seconds go, then the trials after which evolution
reaches what random search ends at, and how much slower the others' final programs are; all on medians over the seeds. Where
programs really run, the final ones of all searches are measured again in turns for that (`final_programs.py`). The default
schedule, which every search measures first, counts neither as a trial nor as a find. Writes `study.json`, `curves.csv` and
`curves.png` to --out, where every search is a run directory; those that are there already are not repeated, so that a study can
be made in pieces. Simulated searches run beside each other, one a core; measured ones never do. With `--busy N`, N processes
spin beside the searches (`neighbours.py`), whose run directories are others; final programs are measured again without them.
"""

from __future__ import annotations

import csv
import json
import math
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import click
import numpy as np
from numpy.typing import NDArray

from ansor_py.errors import AnsorError, NoSpaceError, OptionError
from ansor_py.measure import find_measurer
from ansor_py.schedule.task import Task
from ansor_py.search.command_line.settings import parse_search_options
from ansor_py.search.loop.run_directory import read_curve
from ansor_py.search.loop.tuning_options import TuningOptions
from ansor_py.search.policies.policy import sketches_for
from ansor_py.target import Target
from bench_phases import ORDER
from bench_scoring import HEADS, bench
from final_programs import retimed_ms
from machine import check_executable, cpu_line, origin, target_option
from markdown_page import markdown_table, number
from neighbours import busy_processes
from scheduler_study import search_into, trials_to_reach
from workloads import workload

NAMES = ("gmm_512", "c2d_56", "dep_112", "softmax")
POLICIES = ("evolution", "random", "beam", "limited", "template")
SUBJECT, BASELINE = "evolution", "random"
RATES = {"trials": "trials a second", "programs_scored": "programs scored a second"}
GOAL_SHARE = 1 / 3  # of the trials: the subject should have reached the baseline's end by then

Curve = NDArray[np.float64]


@dataclass(frozen=True)
class Search:
    """One search of a study, in words that another process can be sent, and where its run directory is."""

    workload: str
    policy: str
    seed: int
    trials: int
    batch: int | None
    constants: tuple[str, ...]
    runner: str
    target: str
    scale: int
    path: Path

    def options(self) -> TuningOptions:
        """Settings of the search; the default schedule is one trial more."""
        constants = parse_search_options(self.constants)
        return TuningOptions(self.trials + 1, self.seed, self.batch, self.policy, search=constants)

    def task(self) -> Task:
        """What is tuned; `scale` divides the extents."""
        return Task.from_compute(workload(self.workload, self.scale).tensor(), Target.parse(self.target), name=self.workload)

    def possible(self) -> bool:
        """Whether the policy has a search space for the workload (there are templates for some operators only)."""
        task = self.task()
        try:
            return bool(sketches_for(self.policy, task.dag, task.target, self.options().search))
        except NoSpaceError:
            return False

    def finished(self) -> bool:
        """Whether it was made already. Raises OptionError where another search is in its place."""
        if not self.path.exists():
            return False
        held = json.loads((self.path / "summary.json").read_text()) | json.loads((self.path / "config.json").read_text())
        wanted = {"policy": self.policy, "trials": self.trials + 1, "runner": self.runner, "target": self.target}
        other = {name: held.get(name) for name, value in wanted.items() if held.get(name) != value}
        if other:
            raise OptionError(f"'{self.path}' holds a search with {other}; choose another --out or remove it")
        return True

    def make(self) -> None:
        """Search. The clock is the host's, also where measurements are simulated: a virtual one hides what searching costs."""
        search_into(self.path, [self.task()], self.options(), self.runner, time.perf_counter)


@dataclass(frozen=True, eq=False)
class Band:
    """Best latency (milliseconds) after each trial over several searches, float64[trials]; infinite before the first find."""

    median: Curve
    lower: Curve
    upper: Curve
    searches: int


Bands: TypeAlias = Mapping[str, Mapping[str, Band]]  # by workload, then policy


def best_so_far(latencies: Sequence[float | None], trials: int) -> Curve:
    """The best latency after each trial, float64[trials]. A search that ended early keeps what it had."""
    found = np.full(trials, np.inf)
    for trial, latency in enumerate(latencies[:trials]):
        found[trial] = np.inf if latency is None else latency
    return np.asarray(np.minimum.accumulate(found))


def band(curves: Sequence[Curve]) -> Band:
    """Median and quartiles of curves of one length. The quartiles are values that occur, so that they can be infinite."""
    stacked = np.stack(curves)
    lower = np.quantile(stacked, 0.25, axis=0, method="lower")
    upper = np.quantile(stacked, 0.75, axis=0, method="higher")
    return Band(np.median(stacked, axis=0), lower, upper, len(curves))


Finals: TypeAlias = Mapping[str, Mapping[str, float]]  # milliseconds by workload, then policy


def compare(bands: Bands, retimed: Finals | None = None) -> dict[str, Any]:
    """What the bands (by workload, then policy) say about evolution: trials to random search's end, and ratios of ends.

    The ends are those of the median curves, or where final programs were measured again, the medians of that.

    A policy without a search space for a workload has no band there: its ratio is null and its mean is over the others.
    """
    report: dict[str, Any] = {"workloads": {}, "geometric_mean": {}}
    for name, found in bands.items():
        finals = {policy: float(item.median[-1]) for policy, item in found.items() if np.isfinite(item.median[-1])}
        item: dict[str, Any] = {"final_ms": finals}
        ends = finals if retimed is None else retimed.get(name, {})
        if retimed is not None:
            item["retimed_ms"] = dict(ends)
        if SUBJECT in ends:
            item["relative"] = {policy: value / ends[SUBJECT] for policy, value in ends.items()}
        if SUBJECT in found and BASELINE in finals:
            trials = len(found[SUBJECT].median)
            needed = trials_to_reach(found[SUBJECT].median.tolist(), finals[BASELINE])
            item["trials_to_baseline"] = needed
            item["within_goal"] = needed is not None and needed <= GOAL_SHARE * trials
        report["workloads"][name] = item
    for policy in dict.fromkeys(policy for found in bands.values() for policy in found):
        ratios = [item["relative"][policy] for item in report["workloads"].values() if policy in item.get("relative", {})]
        report["geometric_mean"][policy] = statistics.geometric_mean(ratios) if ratios else None
    return report


def comparison_table(report: Mapping[str, Any], policies: Sequence[str], trials: int) -> str:
    """The report for a person; a dash is a policy that has no search space for the workload."""
    head = ["workload", f"{SUBJECT}, ms", f"trials of {trials} to {BASELINE}'s end", f"at most {GOAL_SHARE * trials:.0f}"]
    others = [policy for policy in policies if policy != SUBJECT]
    rows = []
    for name, item in report["workloads"].items():
        needed = item.get("trials_to_baseline")
        goal = {True: "yes", False: "no", None: "–"}[item.get("within_goal")]
        ratios = [number(item.get("relative", {}).get(policy)) for policy in others]
        rows.append(
            [name, number(item.get("retimed_ms", item["final_ms"]).get(SUBJECT)), str(needed or "never"), goal, *ratios]
        )
    means = [number(report["geometric_mean"].get(policy)) for policy in others]
    rows.append(["geometric mean", "", "", "", *means])
    return markdown_table([*head, *(f"{policy} / {SUBJECT}" for policy in others)], rows)


def rates(summaries: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Medians over searches: trials and scored programs a second of the search, and the seconds of each phase."""
    rows = [
        {name: item[name] / item["search_seconds"] for name in RATES}
        | {name: item["phases"][name] for name in ORDER if name in item["phases"]}
        for item in summaries
    ]
    return {name: float(np.median([row[name] for row in rows])) for name in rows[0]}


def rates_table(found: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """Rates and seconds by phase of every policy on every workload."""
    rows = [(name, policy, values) for name, policies in found.items() for policy, values in policies.items()]
    columns = list(rows[0][2]) if rows else []
    heads = [RATES.get(column, f"{column}, s") for column in columns]
    cells = [[name, policy, *(number(values[column]) for column in columns)] for name, policy, values in rows]
    return markdown_table(["workload", "policy", *heads], cells, texts=(0, 1))


def write_curves(bands: Bands, path: Path) -> None:
    """A CSV with a line for each workload, policy and trial; what is not known yet is left empty."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["workload", "policy", "searches", "trial", "median_ms", "lower_quartile_ms", "upper_quartile_ms"])
        for name, found in bands.items():
            for policy, item in found.items():
                for trial, values in enumerate(zip(item.median, item.lower, item.upper, strict=True), start=1):
                    cells = [f"{value:.6f}" if np.isfinite(value) else "" for value in values]
                    writer.writerow([name, policy, item.searches, trial, *cells])


def draw(bands: Bands, policies: Sequence[str], path: Path, title: str) -> None:
    """A PNG with one field for each workload: median and quartile band of every policy against trials."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise OptionError("plots need matplotlib; install it with: pip install matplotlib") from error
    figure = Figure(figsize=(6 * len(bands), 5), layout="constrained")
    fields = figure.subplots(1, len(bands), squeeze=False).ravel()
    for axes, (name, found) in zip(fields, bands.items(), strict=True):
        for policy, item in found.items():
            color, trials = f"C{policies.index(policy)}", np.arange(1, len(item.median) + 1)
            axes.step(trials, item.median, where="post", color=color, label=f"{policy} ({item.searches})")
            axes.fill_between(trials, item.lower, item.upper, step="post", color=color, alpha=0.15, linewidth=0)
        axes.set(title=name, xlabel="measured candidates", ylabel="best latency (ms)", xscale="log", yscale="log")
        axes.grid(alpha=0.3, which="both")
        axes.legend()
    figure.suptitle(title)
    figure.savefig(path, dpi=120)


def make_all(searches: Sequence[Search], busy: int = 0) -> None:
    """Make what is not finished: one search a core where nothing is timed, otherwise one after the other."""
    missing = [search for search in searches if not search.finished()]
    neighbours = busy_processes(busy if missing else 0)
    with ProcessPoolExecutor(os.cpu_count(), mp_context=multiprocessing.get_context("spawn")) as pool, neighbours:
        made = pool.map(Search.make, missing) if find_measurer(searches[0].runner).virtual else map(Search.make, missing)
        for search, _ in zip(missing, made, strict=True):
            print(f"{search.workload}: {search.policy}, seed {search.seed}", file=sys.stderr, flush=True)


def measured_again(searches: Sequence[Search]) -> Finals:
    """Medians over the seeds of what the searches have found, measured again."""
    finals: dict[str, dict[str, float]] = {}
    for name in dict.fromkeys(search.workload for search in searches):
        mine = [search for search in searches if search.workload == name]
        latencies = retimed_ms(mine[0].task(), [search.path for search in mine], mine[0].runner)
        for policy in dict.fromkeys(search.policy for search in mine):
            found = [latency for search, latency in zip(mine, latencies, strict=True) if search.policy == policy]
            if math.isfinite(median := statistics.median(found)):
                finals.setdefault(name, {})[policy] = median
        print(f"{name}: final programs measured again", file=sys.stderr, flush=True)
    return finals


def collect(searches: Sequence[Search], trials: int) -> tuple[Bands, dict[str, dict[str, dict[str, float]]]]:
    """Bands and rates of finished searches, by workload, then policy."""
    curves: dict[str, dict[str, list[Curve]]] = {}
    summaries: dict[str, dict[str, list[Any]]] = {}
    for search in searches:
        latencies = [point.latency_ms for point in read_curve(search.path) if point.trial > 0]
        summary = json.loads((search.path / "summary.json").read_text())
        curves.setdefault(search.workload, {}).setdefault(search.policy, []).append(best_so_far(latencies, trials))
        summaries.setdefault(search.workload, {}).setdefault(search.policy, []).append(summary)
    bands = {name: {policy: band(found) for policy, found in item.items()} for name, item in curves.items()}
    return bands, {name: {policy: rates(found) for policy, found in item.items()} for name, item in summaries.items()}


def _words(context: click.Context, parameter: click.Parameter, text: str) -> tuple[str, ...]:
    return tuple(text.replace(",", " ").split())


@click.command()
@click.option("--names", default=",".join(NAMES), callback=_words, show_default=True, help="Workloads.")
@click.option("--policies", default=",".join(POLICIES), callback=_words, show_default=True, help="Policies.")
@click.option("--runner", default="simulated", show_default=True, help="How to measure.")
@click.option(
    "--trials", default=512, type=click.IntRange(1), show_default=True, help="Of every search, without the default schedule."
)
@click.option("--batch", type=click.IntRange(1), help="Candidates a round.  [default: by the trials]")
@click.option("--seeds", default=5, type=click.IntRange(1), show_default=True, help="Searches of each policy on each workload.")
@target_option(executes=False)
@click.option("--scale", default=1, show_default=True, help="Divide the extents of the workloads.")
@click.option("--busy", default=0, type=click.IntRange(0), show_default=True, help="Processes that spin beside the searches.")
@click.option("--search", multiple=True, metavar="NAME=VALUE", help="A constant of the search, such as population=512.")
@click.option("--scoring/--no-scoring", default=True, show_default=True, help="Time scoring alone as well, on one core.")
@click.option("--out", default=Path("runs/policies"), type=click.Path(path_type=Path), show_default=True)
def main(
    names: tuple[str, ...],
    policies: tuple[str, ...],
    runner: str,
    trials: int,
    batch: int | None,
    seeds: int,
    target: Target,
    scale: int,
    busy: int,
    search: tuple[str, ...],
    scoring: bool,
    out: Path,
) -> None:
    """Tune workloads with every policy and compare the best programs after each trial."""
    try:
        if not find_measurer(runner).virtual:
            check_executable(target)
        wanted: list[Search] = []
        for name in names:
            for policy in policies:
                common = (trials, batch, search, runner, str(target), scale)
                stem = f"{policy}-busy{busy}" if busy else policy
                made = [Search(name, policy, seed, *common, out / name / f"{stem}-{seed}") for seed in range(seeds)]
                made[0].options().check_names()
                wanted += made if made[0].possible() else []
        if not wanted:
            raise OptionError("none of the policies has a search space for any of the workloads; name others")
        make_all(wanted, busy)
        bands, found_rates = collect(wanted, trials)
        finals = None if find_measurer(runner).virtual else measured_again(wanted)
        scored = [bench(name, target, None, 0) for name in names] if scoring else []
        where = cpu_line(target, busy=busy)
        draw(bands, policies, out / "curves.png", f"{where}\n{runner} measurements, median and quartiles over seeds")
    except AnsorError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    write_curves(bands, out / "curves.csv")
    report = compare(bands, finals)
    study: dict[str, Any] = {
        **origin(target, busy=busy),
        "busy": busy,
        "runner": runner,
        "trials": trials,
        "seeds": seeds,
        "rates": found_rates,
        "comparison": report,
    }
    study["scoring"] = [dict(zip(HEADS, cells, strict=True)) for cells in scored]
    (out / "study.json").write_text(json.dumps(study, indent=2) + "\n")
    tables = [markdown_table(HEADS, scored)] if scored else []
    print(where, end="\n\n")
    print("\n".join([*tables, rates_table(found_rates), comparison_table(report, policies, trials)]), end="")


if __name__ == "__main__":
    main()
