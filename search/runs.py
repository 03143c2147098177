"""A run of the command line: what is tuned together, its search, its run directory.

Usually that is one model or one operator; `--together` makes one run, with one search, of all that the command line names.
This is the top layer with `__main__.py`: it may import graphs, and nothing else imports it.

    interrupted = Run("squeezenet.onnx", [ModelSubject("squeezenet.onnx")], Path("runs/x"), settings, console).execute()
"""

from __future__ import annotations

import statistics
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from ansor_py.errors import ModelError, OptionError
from ansor_py.search.settings import folder_names

if TYPE_CHECKING:
    from ansor_py.graph import CompiledModel
    from ansor_py.graph.partition import Partition
    from ansor_py.schedule.task import Task
    from ansor_py.search.objectives import Network, Networks
    from ansor_py.search.phases import PhaseTimer
    from ansor_py.search.results import TuningResult
    from ansor_py.search.run_directory import RunDirectory
    from ansor_py.search.tuning_options import TuningOptions
    from ansor_py.target import Target

BENCHMARK_SECONDS = 1.0  # for each of the untuned and the tuned model, within the limits below
BENCHMARK_LIMIT_SECONDS = 8.0  # after which no further turn begins
BENCHMARK_TURNS, FEWEST_REPEATS, MOST_REPEATS = 5, 1, 20  # repeats a turn


@dataclass(frozen=True)
class Settings:
    """What the options of a run mean. `config` is what `config.json` says of them."""

    target: Target
    runner: str
    tuning: TuningOptions
    shapes: Mapping[str, int | Sequence[int]]
    fallback: bool
    resume: bool
    config: Mapping[str, Any]

    @property
    def virtual(self) -> bool:
        """Whether the runner runs nothing, so that no other time of this machine is taken either."""
        from ansor_py.measure import find_measurer

        return find_measurer(self.runner).virtual


class Subject(ABC):
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
        """The subject as the task scheduler sees it."""
        from ansor_py.search.objectives import Network

        weights: dict[str, float] = {}
        for task in self.tasks:
            weights[task.workload_key] = weights.get(task.workload_key, 0.0) + task.weight
        return Network(self.name, weights)


class ModelSubject(Subject):
    """An ONNX model: benchmarked with default schedules before the search, and with the best programs after it."""

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    def short_name(self) -> str:
        """The file's name without its folder and ending."""
        return Path(self.name).stem

    def load(self, settings: Settings, timer: PhaseTimer) -> None:
        """Import and partition the model."""
        from ansor_py.graph import extract_tasks, partition_model

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

    def prepare(self, timer: PhaseTimer, console: Console) -> None:
        """Compile and benchmark the default schedules; with a virtual runner nothing is run."""
        from ansor_py.graph import compile_partition

        target = self._settings.target
        with timer.phase("compile"):
            self._models = [compile_partition(self.parts, None, target.cores, target)]
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
            self.untuned = _total([None if i.default_seconds is None else weight * i.default_seconds for weight, i in items])
            self.tuned = _total([None if i.latency is None else weight * i.latency for weight, i in items])

    def finish(self, path: Path, timer: PhaseTimer, console: Console) -> None:
        """Compile the best programs, benchmark both models in turns (not with a virtual runner) and save the faster one."""
        from ansor_py.graph import compile_partition

        target = self._settings.target
        models = self._models
        if self._best:
            with timer.phase("compile"):
                models = [*models, compile_partition(self.parts, self._best, target.cores, target)]
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


class OperatorSubject(Subject):
    """A single operator. Its latencies are those of the search; the model that it leaves holds one kernel."""

    def __init__(self, spec: str) -> None:
        self.name = spec

    def load(self, settings: Settings, timer: PhaseTimer) -> None:
        """Make the task."""
        from ansor_py.schedule.task import Task

        self._settings = settings
        with timer.phase("import"):
            self.tasks = [Task.from_spec(self.name, settings.target)]

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


class Run:
    """One run of the command line: one search, one run directory."""

    def __init__(self, name: str, subjects: Sequence[Subject], path: Path, settings: Settings, console: Console) -> None:
        self.name = name
        self.path = path
        self._subjects = subjects
        self._settings = settings
        self._console = console

    def execute(self) -> bool:
        """Tune and write the run directory. Returns whether the user interrupted it."""
        from ansor_py.search.objectives import check_objective, describe_networks
        from ansor_py.search.phases import PhaseTimer
        from ansor_py.search.tuning import merge_tasks

        timer = PhaseTimer()
        for subject in self._subjects:
            subject.load(self._settings, timer)
        tasks = merge_tasks(task for subject in self._subjects for task in subject.tasks)
        options = self._settings.tuning
        networks = describe_networks(
            tasks, [subject.network for subject in self._subjects], options.target_latencies, options.reference_latencies
        )
        check_objective(options.objective, networks)
        self._check_records(tasks)
        with self._open(tasks) as run:
            for subject in self._subjects:
                subject.prepare(timer, self._console)
            result = self._search(tasks, run, timer)
            for subject in self._subjects:
                subject.take(result, timer)
            self._write_summary(run, result, networks, timer)  # in case that what follows fails
            for subject, model in zip(self._subjects, self._model_paths(run), strict=True):
                subject.finish(model, timer, self._console)
            self._write_summary(run, result, networks, timer)
            self._say_result(run, result)
        return result.interrupted

    def _check_records(self, tasks: Sequence[Task]) -> None:
        """Complain before there is a run directory when a virtual runner knows nothing of a task."""
        from ansor_py.measure import create_measurer

        settings = self._settings
        if settings.virtual:
            target = settings.target
            with create_measurer(
                settings.runner, target=target, threads=target.cores, options=settings.tuning.measure
            ) as known:
                for task in tasks:
                    known.known_programs(task.workload_key)

    def _open(self, tasks: Sequence[Task]) -> RunDirectory:
        """The run directory, with a word on what is continued and what could not be read."""
        from ansor_py.search.run_directory import RunDirectory, config_of_tasks

        settings, path = self._settings, self.path
        unfit = foreign_records(path, settings, tasks) if settings.resume else 0
        names = [subject.name for subject in self._subjects]
        config = {"model": self.name, "networks": names, **settings.config, "tasks": config_of_tasks(tasks)}
        run = RunDirectory.create(path, config, settings.resume)
        for line in run.lost:
            say(self._console, f"{path / 'records.jsonl'}, {line}; it is ignored")
        if unfit:
            say(self._console, f"{path}: {unfit} records of another target, number of threads or task are ignored")
        if settings.resume:
            trials = len(run.restored) - unfit
            say(self._console, f"{path}: continuing after {trials} trials" if trials else f"{path}: nothing to continue")
        return run

    def _search(self, tasks: Sequence[Task], run: RunDirectory, timer: PhaseTimer) -> TuningResult:
        """The search with its progress on the screen; an empty result when there is nothing to measure and nothing was."""
        from ansor_py.search.progress import create_progress
        from ansor_py.search.results import TaskResult, TuningResult
        from ansor_py.search.tuning import tune_tasks

        options = self._settings.tuning
        if not tasks or (options.trials == 0 and not run.restored):
            return TuningResult(tuple(TaskResult(task, None, None, 0) for task in tasks), (), (), 0.0, {})
        if options.time_budget is not None and not self._settings.virtual:
            options = replace(options, time_budget=options.time_budget - time_outside(timer))
        networks = [subject.network for subject in self._subjects]
        with create_progress(self._console) as progress:
            return tune_tasks(
                tasks,
                options,
                self._settings.runner,
                observer=progress.show,
                sink=run,
                restored=run.restored,
                networks=networks,
            )

    def _model_paths(self, run: RunDirectory) -> list[Path]:
        """`model.ansor`, or one file for each of several."""
        if len(self._subjects) == 1:
            return [run.model_path]
        return [run.path / f"{name}.ansor" for name in folder_names([subject.short_name for subject in self._subjects])]

    def _write_summary(self, run: RunDirectory, result: TuningResult, networks: Networks, timer: PhaseTimer) -> None:
        """Write `summary.json`, with the phases before and after the search."""
        from ansor_py.search.run_directory import summarise, summarise_networks

        outside = {phase: seconds for phase, seconds in timer.summary().items() if phase in ("import", "compile", "benchmark")}
        result = replace(result, phases={**outside, **result.phases})
        target = self._settings.target
        untuned, tuned = ([getattr(subject, name) for subject in self._subjects] for name in ("untuned", "tuned"))
        summary = summarise(result, self.name, str(target), target.cores, _total(untuned), _total(tuned))
        summary["networks"] = summarise_networks(result, networks, untuned, tuned)
        models = [subject for subject in self._subjects if isinstance(subject, ModelSubject)]
        if models:
            summary["fallback_nodes"] = [
                {"name": node.name, "operator": node.op_type, "opset": node.opset, "reason": node.reason}
                for model in models
                for node in model.parts.graph.opaque
            ]
        run.write_summary(summary)

    def _say_result(self, run: RunDirectory, result: TuningResult) -> None:
        """What came out."""
        from ansor_py.search.progress import duration, milliseconds

        for note in result.notes:
            say(self._console, note)
        for subject in self._subjects:
            words = f"{subject.name}: untuned {milliseconds(subject.untuned)}, tuned {milliseconds(subject.tuned)}"
            if subject.untuned and subject.tuned:
                words += f" ({subject.untuned / subject.tuned:.2f} times as fast)"
            say(self._console, words)
        if result.records:
            words = f"{len(result.records)} trials in {duration(result.search_seconds)}"
            say(self._console, f"{words}; {'interrupted' if result.interrupted else f'stopped after: {result.stopped}'}")
        say(self._console, f"run directory: {run.path}")


def foreign_records(path: Path, settings: Settings, tasks: Sequence[Task]) -> int:
    """How many records of a run to be continued are not of this machine, threads and tasks. OptionError if all of them."""
    from ansor_py.measure.records import read_records
    from ansor_py.search.run_directory import RECORDS

    if not (path / RECORDS).exists():
        return 0
    records, _ = read_records(path / RECORDS)
    keys, machine = {task.workload_key for task in tasks}, (str(settings.target), settings.target.cores)
    unfit = [record for record in records if (record.target, record.threads) != machine or record.workload_key not in keys]
    if unfit and len(unfit) == len(records):
        raise OptionError(
            f"no record in '{path}' is of these tasks on target '{settings.target}' with {settings.target.cores} threads; "
            f"its first is for '{records[0].target}' with {records[0].threads} threads; choose another --out"
        )
    return len(unfit)


def time_outside(timer: PhaseTimer) -> float:
    """Seconds of a time budget that are not the search's: what has passed, and compiling and benchmarking after it.

    Compiling is taken to last as long as before the search, benchmarking, which is then of two models, twice as long.
    """
    phases = timer.summary()
    return timer.elapsed() + phases.get("compile", 0.0) + 2 * phases.get("benchmark", 0.0)


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


def _list_fallback(name: str, model: CompiledModel, console: Console) -> None:
    """Say which nodes of a model are not compiled."""
    nodes = model.fallback_nodes
    if nodes:
        say(console, f"{name}: {len(nodes)} nodes are not compiled; ONNX's reference evaluator, which is slow, runs them:")
    for node in nodes:
        say(console, f"  {node}")


def _default_seconds(task: Task, settings: Settings) -> float | None:
    """Latency of the default schedule alone, measured in a child process (no Ray is started); None if it fails."""
    from ansor_py.codegen.default_schedule import default_steps
    from ansor_py.measure import MeasureInput, create_measurer

    threads = settings.target.cores
    steps = tuple(default_steps(task.dag, task.target, threads))
    runner = "process" if settings.runner == "ray" else settings.runner
    with create_measurer(runner, target=task.target, threads=threads) as measurer:
        result = measurer.measure([MeasureInput(task.workload_key, task.dag, steps, task.target, threads)])[0]
    return result.cost if result.valid else None


def _total(seconds: Sequence[float | None]) -> float | None:
    """The sum, or None when one is unknown."""
    known = [value for value in seconds if value is not None]
    return sum(known) if len(known) == len(seconds) else None
