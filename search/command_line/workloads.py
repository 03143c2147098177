"""What a run of the command line tunes: ONNX models and single operators, with what is done before and after the search.

workload = ModelWorkload("squeezenet.onnx")
workload.load(settings, timer)
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from ansor_py.errors import ModelError, SizeError

if TYPE_CHECKING:
    from ansor_py.graph import CompiledModel
    from ansor_py.graph.in_place import InPlaceChoice
    from ansor_py.graph.partition import Partition
    from ansor_py.graph.plan import FusionChoice
    from ansor_py.graph.schedule_choice import BuiltSchedules
    from ansor_py.schedule.task import Task
    from ansor_py.search.loop.phases import PhaseTimer
    from ansor_py.search.loop.results import TuningResult
    from ansor_py.search.loop.tuning_options import TuningOptions
    from ansor_py.search.scheduler.networks import Network
    from ansor_py.target import Target


@dataclass(frozen=True)
class Settings:
    """What the options of a run mean. `config` is what `config.json` says of them."""

    target: Target
    runner: str
    fallback_runner: str | None
    tuning: TuningOptions
    shapes: Mapping[str, int | Sequence[int]]
    fallback: bool
    fusion: str
    resume: bool
    profile: bool
    observers: Sequence[str]
    config: Mapping[str, Any]

    @property
    def virtual(self) -> bool:
        """Whether the runner runs nothing, so that no other time of this machine is taken either."""
        from ansor_py.measure import find_measurer

        return find_measurer(self.runner).virtual

    @property
    def math(self) -> str:
        """Which algorithms are admitted."""
        return self.tuning.search.space.math

    @property
    def in_place(self) -> bool:
        """Whether programs are timed inside the network at the end: on this machine, where they were measured."""
        return not self.virtual and self.tuning.measure.ray_address is None


class Workload(ABC):
    """A model or an operator that is tuned. Its methods are called in the order in which they stand here."""

    name: str
    tasks: list[Task]
    untuned: float | None = None  # seconds
    tuned: float | None = None
    choice: InPlaceChoice | None = None  # what was chosen inside the network
    interrupted = False  # while that was done
    default_seconds: Mapping[str, float] = {}  # inside the network, by workload key

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
    def finish(self, path: Path, in_place: bool, timer: PhaseTimer, console: Console) -> None:
        """Compile what is best and write it, after timing programs inside the network if `in_place`."""

    @property
    def short_name(self) -> str:
        """For names of files."""
        return self.name

    @property
    @abstractmethod
    def network(self) -> Network:
        """The workload as the task scheduler sees it."""

    @property
    def choices(self) -> tuple[FusionChoice, ...]:
        """Where one kernel could take the place of several, and what the compiled model has."""
        return ()


class ModelWorkload(Workload):
    """An ONNX model: benchmarked with default schedules before the search, and with the best programs after it."""

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    def short_name(self) -> str:
        """The file's name without its folder and ending."""
        return Path(self.name).stem

    @property
    def network(self) -> Network:
        """The model's tasks, and which may take the place of others."""
        from ansor_py.graph import network_of

        return network_of(self.parts, self.name, self.default_seconds)

    @property
    def choices(self) -> tuple[FusionChoice, ...]:
        """Those of the model that was saved, or so far of the untuned one."""
        return self._saved.choices

    def load(self, settings: Settings, timer: PhaseTimer) -> None:
        """Import and partition the model."""
        from ansor_py.codegen.machine_memory import require_memory
        from ansor_py.graph import extract_tasks, partition_model
        from ansor_py.graph.planning import least_memory

        self._settings = settings
        with timer.phase("import"):
            try:
                self.parts: Partition = partition_model(
                    self.name, settings.shapes, fallback=settings.fallback, fusion=settings.fusion
                )
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
        from ansor_py.graph.in_place import default_seconds, link_untuned, time_in_turns
        from ansor_py.graph.schedule_choice import build_schedules

        target = self._settings.target
        with timer.phase("compile"):
            optional = {choice.key for choice in self.parts.choices}
            self._built: BuiltSchedules = build_schedules(
                self.parts.all_tasks, {}, target, target.cores, math=self._settings.math, optional=optional
            )
            models = link_untuned(self.parts, self._built, target, target.cores)
            self._saved = self._model = models[0]
        for note in self._model.notes:
            say(console, f"{self.name}: note: {note}")
        _list_fallback(self.name, self._model, console)
        if self._settings.virtual:
            say(console, f"{self.name}: {len(self.tasks)} tasks on {target.summary()}")
            return
        with timer.phase("benchmark"):
            [self.untuned] = time_in_turns([self._model])
            if self._settings.in_place:
                self.default_seconds = default_seconds(models, self._built)
        say(console, f"{self.name}: {len(self.tasks)} tasks; untuned {self.untuned * 1e3:.4g} ms on {target.summary()}")

    def take(self, result: TuningResult, timer: PhaseTimer) -> None:
        """Keep the best programs, and the latencies by the runner's word where nothing is run."""
        keys = {task.workload_key for task in self.tasks}
        self._best = [record for key, record in result.best_records.items() if key in keys]
        self._contenders = {key: records for key, records in result.contenders.items() if key in keys and records}
        if self._settings.virtual and result.records:
            from ansor_py.search.scheduler.networks import describe_networks, total_seconds

            found = [item for item in result.tasks if item.task.workload_key in keys]
            networks = describe_networks([item.task for item in found], [self.network])
            self.untuned = total_seconds(networks, [item.default_seconds for item in found])
            self.tuned = total_seconds(networks, [item.latency for item in found])

    def finish(self, path: Path, in_place: bool, timer: PhaseTimer, console: Console) -> None:
        """Choose programs inside the network and save it. Where that cannot be done, or is interrupted, those that were best
        alone are taken, unless together they are slower than the default schedules."""
        if in_place and self._contenders:
            say(console, f"{self.name}: timing the best programs of each task inside the model")
            try:
                self._choose_in_place(timer)
            except KeyboardInterrupt:
                self.interrupted = True
                say(console, f"{self.name}: interrupted; the programs that were best alone are taken")
            except SizeError as error:
                say(console, f"{self.name}: {error}; the programs that were best alone are taken")
        if self.choice is None:
            self._saved = self._take_best(timer, console)
        else:
            self._saved = self.choice.model
            self.untuned, self.tuned = self.choice.untuned_seconds, self.choice.seconds
        self._saved.save(path)

    def _choose_in_place(self, timer: PhaseTimer) -> None:
        from ansor_py.graph.in_place import build_variants, choose_in_place

        target = self._settings.target
        with timer.phase("compile"):
            variants = build_variants(self.parts, self._contenders, target, target.cores, self._built)
        with timer.phase("benchmark"):
            self.choice = choose_in_place(variants)

    def _take_best(self, timer: PhaseTimer, console: Console) -> CompiledModel:
        """The model of the best programs or the untuned one, whichever is faster; with a virtual runner nothing is run."""
        from ansor_py.graph import compile_partition
        from ansor_py.graph.in_place import time_in_turns

        target = self._settings.target
        if not self._best:
            self.tuned = self.untuned if self.tuned is None else self.tuned
            return self._model
        with timer.phase("compile"):
            tuned = compile_partition(
                self.parts, self._best, target.cores, target, math=self._settings.math, allow_untuned=True
            )
        if self._settings.virtual:
            return tuned
        with timer.phase("benchmark"):
            self.untuned, self.tuned = time_in_turns([self._model, tuned])
        if self.tuned <= self.untuned:
            return tuned
        say(console, f"{self.name}: the best programs together are not faster than the default schedules; these are kept")
        self.tuned = self.untuned
        return self._model


class OperatorWorkload(Workload):
    """A single operator. Its latencies are those of the search; the model that it leaves holds one kernel."""

    def __init__(self, spec: str) -> None:
        self.name = spec

    @property
    def network(self) -> Network:
        """The one task."""
        from ansor_py.search.scheduler.networks import Network

        return Network(self.name, {task.workload_key: task.weight for task in self.tasks})

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

    def finish(self, path: Path, in_place: bool, timer: PhaseTimer, console: Console) -> None:
        """Compile the kernel and save it."""
        from ansor_py.graph import compile_task

        with timer.phase("compile"):
            workers = 0 if self._settings.runner == "inline" else None
            best = None if self._best is None else [self._best]
            compiled = compile_task(self.tasks[0], best, self._settings.target.cores, math=self._settings.math, workers=workers)
        compiled.save(path)


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
    steps = tuple(default_steps(task.dag, task.target, threads, settings.math))
    runner = "process" if settings.runner == "ray" else settings.runner
    with create_measurer(runner, target=task.target, threads=threads) as measurer:
        result = measurer.measure([MeasureInput(task.workload_key, task.dag, steps, task.target, threads)])[0]
    return result.cost if result.valid else None


def total(seconds: Sequence[float | None]) -> float | None:
    """The sum, or None when one is unknown."""
    known = [value for value in seconds if value is not None]
    return sum(known) if len(known) == len(seconds) else None
