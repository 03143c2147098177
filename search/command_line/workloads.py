"""What a run of the command line tunes: ONNX models and single operators, with what is done before and after the search.

workload = ModelWorkload("squeezenet.onnx")
workload.load(settings, timer)
"""

from __future__ import annotations

import statistics
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from ansor_py.errors import ModelError

if TYPE_CHECKING:
    from ansor_py.graph import CompiledModel
    from ansor_py.graph.partition import Partition
    from ansor_py.schedule.task import Task
    from ansor_py.search.loop.phases import PhaseTimer
    from ansor_py.search.loop.results import TuningResult
    from ansor_py.search.loop.tuning_options import TuningOptions
    from ansor_py.search.scheduler.objectives import Network
    from ansor_py.target import Target

BENCHMARK_SECONDS = 1.0  # for each of the untuned and the tuned model, within the limits below
BENCHMARK_LIMIT_SECONDS = 8.0  # after which no further turn begins
BENCHMARK_TURNS, FEWEST_REPEATS, MOST_REPEATS = 5, 1, 20  # repeats a turn


@dataclass(frozen=True)
class Settings:
    """What the options of a run mean. `config` is what `config.json` says of them."""

    target: Target
    runner: str
    fallback_runner: str | None
    tuning: TuningOptions
    shapes: Mapping[str, int | Sequence[int]]
    fallback: bool
    resume: bool
    profile: bool
    config: Mapping[str, Any]

    @property
    def virtual(self) -> bool:
        """Whether the runner runs nothing, so that no other time of this machine is taken either."""
        from ansor_py.measure import find_measurer

        return find_measurer(self.runner).virtual


class Workload(ABC):
    """A model or an operator that is tuned. Its methods are called in the order in which they stand here."""

    name: str
    tasks: list[Task]
    untuned: float | None = None  # seconds
    tuned: float | None = None

    @abstractmethod
    def load(self, settings: Settings, timer: PhaseTimer) -> None:
        """Find the tasks."""

    @abstractmethod
    def prepare(self, timer: PhaseTimer, console: Console) -> None:
        """What comes before the search."""

    @abstractmethod
    def take(self, result: TuningResult, timer: PhaseTimer) -> None:
        """Take up what the search found."""

    @abstractmethod
    def finish(self, path: Path, timer: PhaseTimer, console: Console) -> None:
        """Compile what is best and write it."""

    @property
    def short_name(self) -> str:
        """For names of files."""
        return self.name

    @property
    def network(self) -> Network:
        """The workload as the task scheduler sees it."""
        from ansor_py.search.scheduler.objectives import Network

        weights: dict[str, float] = {}
        for task in self.tasks:
            weights[task.workload_key] = weights.get(task.workload_key, 0.0) + task.weight
        return Network(self.name, weights)


class ModelWorkload(Workload):
    """An ONNX model: benchmarked with default schedules before the search, and with the best programs after it."""

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    def short_name(self) -> str:
        """The file's name without its folder and ending."""
        return Path(self.name).stem

    def load(self, settings: Settings, timer: PhaseTimer) -> None:
        """Import and partition the model."""
        from ansor_py.codegen.machine_memory import require_memory
        from ansor_py.graph import extract_tasks, partition_model
        from ansor_py.graph.planning import least_memory

        self._settings = settings
        with timer.phase("import"):
            try:
                self.parts: Partition = partition_model(self.name, settings.shapes, fallback=settings.fallback)
            except ModelError as error:  # of several models, which one
                raise (error if self.name in str(error) else ModelError(f"{self.name}: {error}")) from error
            self.tasks = list(extract_tasks(self.parts, settings.target))
        if self.parts.graph.dynamic_inputs:
            raise ModelError(
                f"{self.name}: input '{self.parts.graph.dynamic_inputs[0]}' is not a numeric tensor, so the model cannot be "
                "benchmarked; compile it from Python by ansor_py.compile"
            )
        require_memory(least_memory(self.parts), self.name)

    def prepare(self, timer: PhaseTimer, console: Console) -> None:
        """Compile and benchmark the default schedules; with a virtual runner nothing is run."""
        from ansor_py.graph import compile_partition

        target = self._settings.target
        with timer.phase("compile"):
            self._models = [compile_partition(self.parts, None, target.cores, target)]
        for note in self._models[0].notes:
            say(console, f"{self.name}: note: {note}")
        _list_fallback(self.name, self._models[0], console)
        if self._settings.virtual:
            say(console, f"{self.name}: {len(self.tasks)} tasks on {target.summary()}")
            return
        with timer.phase("benchmark"):
            self.untuned = benchmark(self._models)[0]
        say(console, f"{self.name}: {len(self.tasks)} tasks; untuned {self.untuned * 1e3:.4g} ms on {target.summary()}")

    def take(self, result: TuningResult, timer: PhaseTimer) -> None:
        """Keep the best programs, and the latencies by the runner's word where nothing is run."""
        keys = {task.workload_key for task in self.tasks}
        self._best = [record for key, record in result.best_records.items() if key in keys]
        if self._settings.virtual and result.records:
            found = {item.task.workload_key: item for item in result.tasks}
            items = [(task.weight, found[task.workload_key]) for task in self.tasks]
            self.untuned = total([None if i.default_seconds is None else weight * i.default_seconds for weight, i in items])
            self.tuned = total([None if i.latency is None else weight * i.latency for weight, i in items])

    def finish(self, path: Path, timer: PhaseTimer, console: Console) -> None:
        """Compile the best programs, benchmark both models in turns (not with a virtual runner) and save the faster one."""
        from ansor_py.graph import compile_partition

        target = self._settings.target
        models = self._models
        if self._best:
            with timer.phase("compile"):
                models = [*models, compile_partition(self.parts, self._best, target.cores, target, allow_untuned=True)]
        if self._settings.virtual:
            models[-1].save(path)
            return
        latencies = [self.untuned]
        if len(models) > 1:
            with timer.phase("benchmark"):
                latencies = list(benchmark(models))
            if latencies[1] > latencies[0]:  # type: ignore[operator]
                say(
                    console,
                    f"{self.name}: the best programs together are not faster than the default schedules; these are kept",
                )
                models, latencies = models[:1], latencies[:1]
        models[-1].save(path)
        self.untuned, self.tuned = latencies[0], latencies[-1]


class OperatorWorkload(Workload):
    """A single operator. Its latencies are those of the search; the model that it leaves holds one kernel."""

    def __init__(self, spec: str) -> None:
        self.name = spec

    def load(self, settings: Settings, timer: PhaseTimer) -> None:
        """Make the task."""
        from ansor_py.codegen.machine_memory import require_memory
        from ansor_py.graph.task_model import least_memory_of_task
        from ansor_py.schedule.task import Task

        self._settings = settings
        with timer.phase("import"):
            task = Task.from_spec(self.name, settings.target)
            require_memory(least_memory_of_task(task.dag), f"'{self.name}'")
            self.tasks = [task]

    def prepare(self, timer: PhaseTimer, console: Console) -> None:
        """The search measures the default schedule."""

    def take(self, result: TuningResult, timer: PhaseTimer) -> None:
        """Keep the latencies and the best program; where nothing was searched, the default schedule is measured."""
        [task] = self.tasks
        item = next(item for item in result.tasks if item.task.workload_key == task.workload_key)
        self._best = item.best
        self.untuned, self.tuned = item.default_seconds, item.latency
        if not result.records and self.untuned is None:
            with timer.phase("benchmark"):
                self.untuned = self.tuned = _default_seconds(task, self._settings)

    def finish(self, path: Path, timer: PhaseTimer, console: Console) -> None:
        """Compile the kernel and save it."""
        from ansor_py.graph import compile_task

        with timer.phase("compile"):
            workers = 0 if self._settings.runner == "inline" else None
            best = None if self._best is None else [self._best]
            compiled = compile_task(self.tasks[0], best, self._settings.target.cores, workers=workers)
        compiled.save(path)


def benchmark(models: Sequence[CompiledModel]) -> list[float]:
    """Median latency of each model in seconds; they take turns, so that a slow moment meets all of them."""
    started = time.monotonic()
    fastest = min(model.benchmark(repeats=1).median for model in models) / 1e3
    repeats = int(min(max(BENCHMARK_SECONDS / BENCHMARK_TURNS / max(fastest, 1e-9), FEWEST_REPEATS), MOST_REPEATS))
    samples: list[list[float]] = [[] for _ in models]
    while len(samples[0]) < repeats * BENCHMARK_TURNS:
        for model, taken in zip(models, samples, strict=True):
            taken.extend(model.benchmark(repeats=repeats).samples)
        if time.monotonic() - started > BENCHMARK_LIMIT_SECONDS:
            break
    return [statistics.median(taken) / 1e3 for taken in samples]


def say(console: Console, text: str) -> None:
    """One message, as it is, never broken into lines."""
    console.print(Text(text), soft_wrap=True)


def say_error(text: str) -> None:
    """One line on standard error."""
    print(f"error: {' '.join(text.split())}", file=sys.stderr)


def _list_fallback(name: str, model: CompiledModel, console: Console) -> None:
    """Say which nodes of a model are not compiled."""
    nodes = model.fallback_nodes
    if nodes:
        say(console, f"{name}: {len(nodes)} nodes are not compiled; ONNX's reference evaluator, which is slow, runs them:")
    for node in nodes:
        say(console, f"  {node}")


def _default_seconds(task: Task, settings: Settings) -> float | None:
    """Latency of the default schedule alone, measured in a child process (no Ray is started); None if it fails."""
    from ansor_py.measure import MeasureInput, create_measurer
    from ansor_py.search.sampling.default_schedule import default_steps

    threads = settings.target.cores
    steps = tuple(default_steps(task.dag, task.target, threads))
    runner = "process" if settings.runner == "ray" else settings.runner
    with create_measurer(runner, target=task.target, threads=threads) as measurer:
        result = measurer.measure([MeasureInput(task.workload_key, task.dag, steps, task.target, threads)])[0]
    return result.cost if result.valid else None


def total(seconds: Sequence[float | None]) -> float | None:
    """The sum, or None when one is unknown."""
    known = [value for value in seconds if value is not None]
    return sum(known) if len(known) == len(seconds) else None
