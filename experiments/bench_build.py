"""Build times of random programs of the operator suite, and where they go.

    python experiments/bench_build.py --names c2d_56 --names softmax --programs 64 --seed 0 --json build.json

Programs are drawn as a search draws its first generation, an equal share of every sketch, and built one after the other by a
fresh process that does what a builder of the measurers does. For each workload the table has the median, 95th percentile and
maximum of the build time, the mean milliseconds of its parts, and the size of the module (LLVM instructions as written).
`concretise` (steps from genes, done by the search) stands beside the builds and is not part of them.
A build fails if it raises, ends its process, or exceeds the build timeout. Exit status 1: more than 2 % failed.
"""

from __future__ import annotations

import functools
import json
import multiprocessing
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from ansor_py.codegen.kernel import build_kernel, kernel_text
from ansor_py.errors import AnsorError
from ansor_py.measure.build import BuildJob, perform_build
from ansor_py.measure.interface import MeasureOptions
from ansor_py.schedule.dag import ComputeDAG
from ansor_py.schedule.steps import Step
from ansor_py.search.options import SearchOptions
from ansor_py.search.sampling.sampler import sample
from ansor_py.search.sampling.space import Space
from ansor_py.sketch_rules import generate_sketches
from ansor_py.target import Target
from machine import cpu_line, origin, target_option
from workloads import SUITE, WORKLOADS, workload

PHASES = ("replay", "lower", "text", "parse", "passes", "code_generation")
FAILURES_ALLOWED = 0.02


@dataclass(frozen=True)
class Build:
    """One program: milliseconds of its build and of the parts, instructions of its module, or what went wrong."""

    workload: str
    sketch: str
    genes: tuple[int, ...]
    milliseconds: float
    phases: dict[str, float] = field(default_factory=dict)
    instructions: int = 0
    object_bytes: int = 0
    error: str = ""


@functools.cache
def workload_dag(name: str) -> ComputeDAG:
    """The DAG of a workload as the search sees it; made once a process, as a builder receives it once."""
    (unit,) = workload(name).partition().subgraphs
    return unit.dag


def build(name: str, sketch: str, genes: tuple[int, ...], steps: tuple[Step, ...], target: Target) -> Build:
    """Build one program in this process. The time of the whole call includes what a builder does besides compiling."""
    dag = workload_dag(name)
    begin = time.perf_counter()
    reply = perform_build(BuildJob(dag.workload_key, steps, target, target.cores, build_kernel), dag)  # which remembers nothing
    milliseconds = 1e3 * (time.perf_counter() - begin)
    if reply.kernel is None:
        return Build(name, sketch, genes, milliseconds, error=reply.result.error_text)
    phases = {phase: 1e3 * seconds for phase, seconds in reply.kernel.build_phases.items()}
    text = kernel_text(dag, steps, target, target.cores)
    instructions = sum(line.startswith("  ") for line in text.splitlines())
    return Build(name, sketch, genes, milliseconds, phases, instructions, len(reply.kernel.object_code))


@dataclass(frozen=True)
class Program:
    """A sampled program and the milliseconds that its steps took to be made."""

    sketch: str
    genes: tuple[int, ...]
    steps: tuple[Step, ...]
    milliseconds: float


def programs_of(dag: ComputeDAG, count: int, seed: int, target: Target) -> list[Program]:
    """About `count` random valid programs, an equal share of every sketch."""
    rng = np.random.default_rng(seed)
    sketches = generate_sketches(dag, target)
    found = []
    for sketch in sketches:
        space = Space(sketch, target, SearchOptions())
        for row in sample(space, -(-count // len(sketches)), rng):
            begin = time.perf_counter()
            steps = sketch.concretise(row)
            found.append(Program(sketch.name, tuple(map(int, row)), steps, 1e3 * (time.perf_counter() - begin)))
    return found


class Builder:
    """A process that builds; a new one when a build has ended it."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._start()

    def _start(self) -> None:
        self._pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))

    def build_all(self, name: str, programs: Sequence[Program]) -> Iterator[Build]:
        """Build programs of one workload. The first is built twice: the first time does not count."""
        for position, program in enumerate([*programs[:1], *programs]):
            job = (name, program.sketch, program.genes, program.steps, self._target)
            try:
                result = self._pool.submit(build, *job).result()
            except BrokenProcessPool:
                result = Build(name, program.sketch, program.genes, 0.0, error="crash of the builder")
                self._start()
            if position:
                yield result

    def close(self) -> None:
        """End the process."""
        self._pool.shutdown()


@dataclass(frozen=True)
class Row:
    """The builds of one workload, in milliseconds and instructions. Parts are means; `failures` counts kinds."""

    name: str
    sketches: int
    programs: int
    median: float
    p95: float
    maximum: float
    mean: float
    concretise: float
    phases: dict[str, float]
    instructions_median: float
    instructions_maximum: float
    failures: dict[str, int]


def summary(name: str, builds: Sequence[Build], concretise: Sequence[float], timeout: float) -> Row:
    """The figures of a row. A build that took longer than `timeout` milliseconds is a failure."""
    failures = Counter(item.error.partition(":")[0] for item in builds if item.error)
    failures["timeout"] += sum(item.milliseconds > timeout for item in builds if not item.error)
    done = [item for item in builds if not item.error]
    times = [item.milliseconds for item in done] or [float("nan")]
    sizes = [item.instructions for item in done] or [0]
    return Row(
        name,
        len({item.sketch for item in builds}),
        len(builds),
        float(np.median(times)),
        float(np.percentile(times, 95)),
        float(max(times)),
        float(np.mean(times)),
        float(np.mean(concretise)) if concretise else 0.0,
        {phase: float(np.mean([item.phases.get(phase, 0.0) for item in done])) if done else 0.0 for phase in PHASES},
        float(np.median(sizes)),
        float(max(sizes)),
        {kind: count for kind, count in failures.items() if count},
    )


def terminal_table(rows: Sequence[Row]) -> Table:
    """The rows for the terminal."""
    table = Table()
    table.add_column("workload", no_wrap=True)
    columns = ["programs", "median ms", "p95", "max", "concretise", *PHASES, "instr. median", "max", "failures"]
    for column in columns:
        table.add_column(column.replace("_", " "), justify="right")
    for row in rows:
        table.add_row(
            row.name,
            str(row.programs),
            *(f"{value:.1f}" for value in (row.median, row.p95, row.maximum, row.concretise)),
            *(f"{row.phases[phase]:.1f}" for phase in PHASES),
            f"{row.instructions_median:.0f}",
            f"{row.instructions_maximum:.0f}",
            ", ".join(f"{count} {kind}" for kind, count in row.failures.items()) or "0",
        )
    return table


def report(rows: Sequence[Row], builds: Sequence[Build], target: Target) -> dict[str, Any]:
    """Everything that was measured, and where, for the JSON file."""
    return {
        **origin(target),
        "rows": [asdict(row) for row in rows],
        "builds": [asdict(item) for item in builds],
    }


@click.command()
@click.option("--names", multiple=True, type=click.Choice(list(WORKLOADS)), help="Workloads; the suite by default. Repeatable.")
@click.option("--programs", default=48, show_default=True, help="Random programs of each workload.")
@click.option("--seed", default=0, show_default=True)
@target_option(executes=False)
@click.option("--threads", type=click.IntRange(min=1), help="Threads of a kernel. [default: the target's cores]")
@click.option("--json", "path", type=click.Path(path_type=Path), help="Write everything to this file.")
def main(names: tuple[str, ...], programs: int, seed: int, target: Target, threads: int | None, path: Path | None) -> None:
    """Print how long random programs of the suite take to build."""
    console = Console()
    target = target.with_cores(threads or target.cores)
    timeout = 1e3 * MeasureOptions().build_timeout
    rows: list[Row] = []
    everything: list[Build] = []
    builder = Builder(target)
    try:
        for name in names or SUITE:
            drawn = programs_of(workload_dag(name), programs, seed, target)
            builds = list(builder.build_all(name, drawn))
            rows.append(summary(name, builds, [program.milliseconds for program in drawn], timeout))
            everything.extend(builds)
    except AnsorError as error:
        raise click.ClickException(str(error)) from error
    finally:
        builder.close()
    rows.append(summary("all", everything, [row.concretise for row in rows], timeout))
    print(cpu_line(target))
    console.print(terminal_table(rows))
    failed = sum(rows[-1].failures.values())
    for text, count in Counter(item.error for item in everything if item.error).most_common():
        console.print(f"{count} x {text}", markup=False)
    console.print(f"{failed} of {len(everything)} programs failed ({100 * failed / max(1, len(everything)):.1f} %)")
    if path is not None:
        path.write_text(json.dumps(report(rows, everything, target), indent=1) + "\n")
    if failed > FAILURES_ALLOWED * len(everything):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
