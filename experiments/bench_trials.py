"""What a trial of a search costs, and where its time goes; two versions of the engine in turns.

    python experiments/bench_trials.py --trials 128                                       # this version alone
    python experiments/bench_trials.py --old ../ansor-old --repeats 2 --json trials.json  # beside another checkout

Each workload (an operator of the suite, or a network such as `resnet50`) is saved as an ONNX file and searched by the command
line of every engine, one search after another, with a run directory of its own. `--old` is the folder of another checkout with
its own interpreter in `.venv/bin/python`, or the one that `--old-python` names.

The table has trials a second of the whole search (deriving sketches, starting workers, re-timing included), and the
milliseconds of a round's wall-clock time that a trial takes by phase, as `rounds.csv` has them. `build` is the time in which
programs were built and none ran. Of several repeats, whose seeds differ, the one with the median rate is shown.
"""

from __future__ import annotations

import csv
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import onnx
from rich.console import Console
from rich.table import Table

from ansor_py.errors import AnsorError
from ansor_py.target import Target
from machine import cpu_line, origin, short_text, target_option
from networks import network
from workloads import WORKLOADS, workload

NAMES = ("gmm_512", "c2d_56", "dep_112", "softmax", "resnet50")
NEW, OLD = "new", "old"
PHASES = ("build", "run", "evolve", "features", "predict", "train", "other")
TABLE_WIDTH = 128
_NOT_TUNED = ("default schedules", "re-timing")  # rows of rounds.csv that are no rounds


@dataclass(frozen=True)
class Search:
    """One finished search: seconds in all, trials a second of these, and milliseconds a trial of the rounds by phase."""

    workload: str
    engine: str
    repeat: int
    trials: int
    seconds: float
    rate: float
    round_rate: float
    milliseconds: dict[str, float]
    best_ms: float | None
    errors: dict[str, int]


def finished_search(name: str, engine: str, repeat: int, path: Path) -> Search:
    """The figures of a run directory."""
    summary = json.loads((path / "summary.json").read_text())
    with (path / "rounds.csv").open(newline="") as file:
        rounds = [row for row in csv.DictReader(file) if row["task"] not in _NOT_TUNED]
    trials = sum(int(row["trials"]) for row in rounds)
    spent = {phase: 1e3 * sum(float(row[phase]) for row in rounds) / trials for phase in PHASES}
    seconds = float(summary["search_seconds"])
    return Search(
        name,
        engine,
        repeat,
        summary["trials"],
        seconds,
        summary["trials"] / seconds,
        1e3 / sum(spent.values()),
        spent,
        summary["tuned_latency_ms"],
        summary["errors"],
    )


@dataclass(frozen=True)
class Engine:
    """A checkout of the engine and the interpreter that runs it."""

    name: str
    interpreter: Path
    folder: Path

    def search(self, model: Path, out: Path, options: Mapping[str, object]) -> None:
        """Search for programs of a model by the command line. Raises ClickException if that fails."""
        words = [str(word) for option in options.items() for word in option]
        command = [str(self.interpreter), "-m", "ansor_py.search", str(model), "--out", str(out), *words]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False)
        if done.returncode:
            raise click.ClickException(f"the {self.name} engine failed on {model.name}: {(done.stderr or done.stdout)[-800:]}")


def save_model(name: str, folder: Path) -> Path:
    """The workload or network as an ONNX file."""
    path = folder / f"{name}.onnx"
    onnx.save(workload(name).model() if name in WORKLOADS else network(name).model, path)
    return path


def median_search(searches: Sequence[Search]) -> Search:
    """The search with the median rate among those of one engine on one workload."""
    return sorted(searches, key=lambda search: search.rate)[len(searches) // 2]


def ratios(searches: Sequence[Search]) -> dict[str, float]:
    """For each workload that both engines searched: the new one's median rate as a multiple of the old one's."""
    rates: dict[tuple[str, str], list[float]] = {}
    for search in searches:
        rates.setdefault((search.workload, search.engine), []).append(search.rate)
    names = dict.fromkeys(search.workload for search in searches)
    return {
        name: statistics.median(rates[name, NEW]) / statistics.median(rates[name, OLD])
        for name in names
        if (name, OLD) in rates and (name, NEW) in rates
    }


def terminal_table(searches: Sequence[Search]) -> Table:
    """A row for each workload and engine."""
    table = Table()
    table.add_column("workload", no_wrap=True)
    for column in ("engine", "trials", "s", "trials/s", "in rounds", *PHASES, "best ms"):
        table.add_column(column, justify="right")
    groups: dict[tuple[str, str], list[Search]] = {}
    for search in searches:
        groups.setdefault((search.workload, search.engine), []).append(search)
    for (name, engine), members in groups.items():
        chosen = median_search(members)
        table.add_row(
            name,
            engine,
            str(chosen.trials),
            *(f"{value:.1f}" for value in (chosen.seconds, chosen.rate, chosen.round_rate)),
            *(f"{chosen.milliseconds[phase]:.1f}" for phase in PHASES),
            "-" if chosen.best_ms is None else f"{chosen.best_ms:.4g}",
        )
    return table


@click.command()
@click.option("--names", multiple=True, default=NAMES, show_default=True, help="Workloads or networks. Repeatable.")
@click.option("--trials", type=click.IntRange(min=1), default=128, show_default=True)
@click.option(
    "--repeats", type=click.IntRange(min=1), default=1, show_default=True, help="Searches of each engine, other seeds."
)
@click.option("--runner", default="process", show_default=True)
@click.option("--old", type=click.Path(path_type=Path), help="Another checkout to compare with.")
@click.option("--old-python", type=click.Path(path_type=Path), help="Its interpreter. [default: .venv/bin/python in it]")
@target_option()
@click.option("--threads", type=click.IntRange(min=1), help="Threads of a kernel. [default: the target's cores]")
@click.option("--out", type=click.Path(path_type=Path), help="Keep the run directories here.")
@click.option("--json", "path", type=click.Path(path_type=Path), help="Write everything to this file.")
def main(
    names: tuple[str, ...],
    trials: int,
    repeats: int,
    runner: str,
    old: Path | None,
    old_python: Path | None,
    target: Target,
    threads: int | None,
    out: Path | None,
    path: Path | None,
) -> None:
    """Print what trials of searches cost."""
    target = target.with_cores(threads or target.cores)
    engines = [Engine(NEW, Path(sys.executable), Path(__file__).parent.parent)]
    if old is not None:
        interpreter = old_python or old.resolve() / ".venv" / "bin" / "python"
        if not interpreter.exists():
            raise click.ClickException(f"there is no interpreter '{interpreter}' for --old; name one with --old-python")
        engines.insert(0, Engine(OLD, interpreter, old.resolve()))
    searches: list[Search] = []
    with tempfile.TemporaryDirectory() as temporary:
        try:
            models = {name: save_model(name, Path(temporary)) for name in names}
        except AnsorError as error:
            raise click.ClickException(str(error)) from error
        for repeat in range(repeats):
            for name, model in models.items():
                for engine in engines:
                    run = (out or Path(temporary)).resolve() / f"{name}-{engine.name}-{repeat}"
                    options = {"--trials": trials, "--threads": target.cores, "--seed": repeat, "--runner": runner}
                    engine.search(model, run, options | {"--target": short_text(target)})
                    searches.append(finished_search(name, engine.name, repeat, run))
    console = Console(width=TABLE_WIDTH)
    print(cpu_line(target))
    console.print(terminal_table(searches))
    found = ratios(searches)
    if found:
        rows = ", ".join(f"{name} {ratio:.2f}" for name, ratio in found.items())
        print(f"trials a second, new / old: {rows}; geometric mean {statistics.geometric_mean(found.values()):.2f}")
    if path is not None:
        report = {**origin(target), "searches": [asdict(search) for search in searches], "ratios": found}
        path.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
