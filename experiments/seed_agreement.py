"""Whether luck decides: searches of one workload with different seeds, and how far apart their winners are.

    python experiments/seed_agreement.py --out runs/agreement                                         # simulated measurements
    python experiments/seed_agreement.py --runner process --names gmm_512,c2d_56 --out runs/agreement-measured

Prints for every workload the best latency of each seed and how many times as long the slowest of them takes as the fastest, and
how many workloads lie within the bound. Where programs really run, the best finds are measured again in turns
(`final_programs.py`). Writes `agreement.json` to --out, where every search is a run directory; those that are there already are
not repeated.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from ansor_py.errors import AnsorError, OptionError
from ansor_py.measure import find_measurer
from ansor_py.search.loop.run_directory import read_curve
from ansor_py.target import Target
from bench_search import Search, make_all
from final_programs import retimed_ms
from machine import check_executable, cpu_line, origin, target_option
from markdown_page import markdown_table, number
from workloads import SUITE

BOUND = 1.05  # the slowest winner takes at most so many times as long as the fastest


def agreement(winners: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """How many times as long the slowest of the winners (milliseconds by seed) takes as the fastest, by workload."""
    return {name: max(found) / min(found) for name, found in winners.items()}


def agreement_table(winners: Mapping[str, Sequence[float]]) -> str:
    """The winners and their ratio, and how many workloads lie within the bound."""
    ratios = agreement(winners)
    seeds = max(map(len, winners.values()))
    rows = [[name, *map(number, found), number(ratios[name])] for name, found in winners.items()]
    within = sum(ratio <= BOUND for ratio in ratios.values())
    words = f"{within} of {len(ratios)} workloads lie within {BOUND - 1:.0%}.\n"
    return (
        markdown_table(["workload", *(f"seed {seed}, ms" for seed in range(seeds)), "slowest / fastest"], rows) + "\n" + words
    )


def winners_of(searches: Sequence[Search]) -> dict[str, list[float]]:
    """The best latency of each search in milliseconds, by workload; measured again where programs really run."""
    winners: dict[str, list[float]] = {}
    for name in dict.fromkeys(search.workload for search in searches):
        mine = [search for search in searches if search.workload == name]
        if find_measurer(mine[0].runner).virtual:
            curves = [[point.best_ms for point in read_curve(search.path)] for search in mine]
            winners[name] = [curve[-1] if curve and curve[-1] is not None else math.inf for curve in curves]
        else:
            winners[name] = retimed_ms(mine[0].task(), [search.path for search in mine], mine[0].runner)
    return winners


def _names(context: click.Context, parameter: click.Parameter, text: str) -> tuple[str, ...]:
    return tuple(text.replace(",", " ").split())


@click.command()
@click.option("--names", default=",".join(SUITE), callback=_names, help="Workloads.  [default: the suite of 22]")
@click.option("--policy", default="evolution", show_default=True)
@click.option("--runner", default="simulated", show_default=True, help="How to measure.")
@click.option("--trials", default=512, type=click.IntRange(1), show_default=True, help="Of every search.")
@click.option("--seeds", default=2, type=click.IntRange(2), show_default=True, help="Searches of each workload.")
@click.option("--search", multiple=True, metavar="NAME=VALUE", help="A constant of the search, such as population=512.")
@click.option("--scale", default=1, show_default=True, help="Divide the extents of the workloads.")
@target_option(executes=False)
@click.option("--out", default=Path("runs/agreement"), type=click.Path(path_type=Path), show_default=True)
def main(
    names: tuple[str, ...],
    policy: str,
    runner: str,
    trials: int,
    seeds: int,
    search: tuple[str, ...],
    scale: int,
    target: Target,
    out: Path,
) -> None:
    """Tune workloads with several seeds and compare what they end at."""
    try:
        if not find_measurer(runner).virtual:
            check_executable(target)
        searches = [
            Search(name, policy, seed, trials, None, search, runner, str(target), scale, out / f"{name}-{seed}")
            for name in names
            for seed in range(seeds)
        ]
        if not searches:
            raise OptionError("there are no workloads to tune; name some")
        searches[0].options().check_names()
        make_all(searches)
        winners = winners_of(searches)
    except AnsorError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    found = {**origin(target), "runner": runner, "trials": trials, "winners_ms": winners, "ratios": agreement(winners)}
    (out / "agreement.json").write_text(json.dumps(found, indent=2) + "\n")
    print(cpu_line(target), end="\n\n")
    print(agreement_table(winners), end="")


if __name__ == "__main__":
    main()
