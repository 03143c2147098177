"""A run of the command line: what is tuned together, its search, its run directory.

Usually that is one model or one operator; `--together` makes one run, with one search, of all that the command line names.
This is the top layer with `__main__.py`: it may import graphs, and nothing else imports it.

    outcome = Run("squeezenet.onnx", [ModelWorkload("squeezenet.onnx")], Path("runs/x"), settings, console).execute()
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console

from ansor_py.errors import MeasureError, OptionError, PlugInError
from ansor_py.search.command_line.settings import folder_names
from ansor_py.search.command_line.workloads import ModelWorkload, Settings, Workload, say, say_error, total

if TYPE_CHECKING:
    from ansor_py.graph.in_place import InPlaceChoice
    from ansor_py.graph.plan import FusionChoice
    from ansor_py.schedule.task import Task
    from ansor_py.search.loop.phases import PhaseTimer
    from ansor_py.search.loop.results import TuningResult
    from ansor_py.search.loop.run_directory import RunDirectory
    from ansor_py.search.scheduler.networks import Networks


Outcome = Literal["done", "interrupted", "failed"]


class Run:
    """One run of the command line: one search, one run directory."""

    def __init__(self, name: str, workloads: Sequence[Workload], path: Path, settings: Settings, console: Console) -> None:
        self.name = name
        self.path = path
        self._workloads = workloads
        self._settings = settings
        self._console = console

    def execute(self) -> Outcome:
        """Tune and write the run directory.

        An error that ends the search after its first trials is said at once, and what was measured is made use of.
        """
        from ansor_py.search.loop.phases import PhaseTimer
        from ansor_py.search.loop.tuning import check_memory, merge_tasks
        from ansor_py.search.scheduler.networks import describe_networks
        from ansor_py.search.scheduler.objectives import check_objective

        timer = PhaseTimer()
        for workload in self._workloads:
            workload.load(self._settings, timer)
        tasks = merge_tasks(task for workload in self._workloads for task in workload.tasks)
        options = self._settings.tuning
        networks = describe_networks(
            tasks, [workload.network for workload in self._workloads], options.target_latencies, options.reference_latencies
        )
        check_objective(options.objective, networks)
        self._check_records(tasks)
        check_memory(tasks, self._settings.runner, options)
        with self._open(tasks) as run:
            for workload in self._workloads:
                workload.prepare(timer, self._console)
            result, outcome = self._search(tasks, run, timer)
            for workload in self._workloads:
                workload.take(result, timer)
            self._write_summary(run, result, networks, timer)  # in case that what follows fails
            for workload, model in zip(self._workloads, self._model_paths(run), strict=True):
                in_place = self._settings.in_place and not any(other.interrupted for other in self._workloads)
                workload.finish(model, in_place, timer, self._console)
            if any(workload.interrupted for workload in self._workloads):
                result, outcome = replace(result, interrupted=True), "interrupted"
            result = self._take_choices(run, result)
            self._write_summary(run, result, networks, timer)
            self._say_result(run, result)
            if self._settings.profile:
                self._say_profiles(run)
        return outcome

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
        from ansor_py.search.loop.run_directory import RunDirectory, config_of_tasks

        settings, path = self._settings, self.path
        unfit = foreign_records(path, settings, tasks) if settings.resume else 0
        names = [workload.name for workload in self._workloads]
        config = {"model": self.name, "networks": names, **settings.config, "tasks": config_of_tasks(tasks)}
        run = RunDirectory.create(path, config, settings.resume)
        run.add_tasks(tasks)
        for line in run.lost:
            say(self._console, f"{path / 'records.jsonl'}, {line}; it is ignored")
        if unfit:
            say(self._console, f"{path}: {unfit} records of another target, number of threads or task are ignored")
        if settings.resume:
            trials = len(run.restored) - unfit
            say(self._console, f"{path}: continuing after {trials} trials" if trials else f"{path}: nothing to continue")
        return run

    def _search(self, tasks: Sequence[Task], run: RunDirectory, timer: PhaseTimer) -> tuple[TuningResult, Outcome]:
        """The search with its progress on the screen, and how it ended.

        The result is empty when there is nothing to measure and nothing was.
        """
        from ansor_py.search.command_line.progress import show_progress
        from ansor_py.search.loop.observers import create_observer
        from ansor_py.search.loop.results import TaskResult, TuningResult
        from ansor_py.search.loop.tuning import tune_tasks

        options = self._settings.tuning
        if not tasks or (options.trials == 0 and not run.restored):
            return TuningResult(tuple(TaskResult(task, None, None, 0) for task in tasks), (), (), 0.0, {}), "done"
        if options.time_budget is not None and not self._settings.virtual:
            options = replace(options, time_budget=options.time_budget - time_outside(timer, len(self._workloads)))
        networks = [workload.network for workload in self._workloads]
        observers = [create_observer(name, run.path, options.search) for name in self._settings.observers]
        try:
            with show_progress(self._console) as progress:
                result = tune_tasks(
                    tasks,
                    options,
                    self._settings.runner,
                    subscribers=[run.take, progress, *observers],
                    restored=run.restored,
                    networks=networks,
                    fallback_runner=self._settings.fallback_runner,
                )
        except (PlugInError, MeasureError) as error:
            if error.result is None or not any(round.trials for round in error.result.rounds):
                raise
            say_error(f"{error}; what was measured is kept, continue by --resume")
            return error.result, "failed"
        return result, "interrupted" if result.interrupted else "done"

    def _take_choices(self, run: RunDirectory, result: TuningResult) -> TuningResult:
        """The result with what the networks chose in place, which the records are told too.

        Of several networks with one task the word of that one counts which spends the most time in it.
        """
        spent: dict[str, float] = {}
        chosen: dict[str, InPlaceChoice] = {}
        for network, choice in [(workload.network, workload.choice) for workload in self._workloads if workload.choice]:
            for key, item in choice.tasks.items():
                seconds = network.most_calls(key) * item.seconds
                if seconds > spent.get(key, 0.0):
                    spent[key], chosen[key] = seconds, choice
        run.add_times_in_place(result.records, {key: choice.records[key] for key, choice in chosen.items()})
        items = [(item, chosen.get(item.task.workload_key)) for item in result.tasks]
        tasks = [item if c is None else replace(item, in_place=c.tasks[item.task.workload_key]) for item, c in items]
        return replace(result, tasks=tuple(tasks))

    def _model_paths(self, run: RunDirectory) -> list[Path]:
        """`model.ansor`, or one file for each of several."""
        if len(self._workloads) == 1:
            return [run.model_path]
        return [run.path / f"{name}.ansor" for name in folder_names([workload.short_name for workload in self._workloads])]

    def _write_summary(self, run: RunDirectory, result: TuningResult, networks: Networks, timer: PhaseTimer) -> None:
        """Write `summary.json`, with the phases before and after the search."""
        from ansor_py.search.loop.run_directory import summarise, summarise_networks

        outside = {phase: seconds for phase, seconds in timer.summary().items() if phase in ("import", "compile", "benchmark")}
        result = replace(result, phases={**outside, **result.phases})
        target = self._settings.target
        untuned, tuned = ([getattr(workload, name) for workload in self._workloads] for name in ("untuned", "tuned"))
        summary = summarise(result, self.name, str(target), target.cores, total(untuned), total(tuned))
        summary["networks"] = summarise_networks(result, networks, untuned, tuned)
        summary["choices"] = [_choice_summary(item.name, choice) for item in self._workloads for choice in item.choices]
        models = [workload for workload in self._workloads if isinstance(workload, ModelWorkload)]
        if models:
            opaque = [node for model in models for node in model.parts.graph.opaque]
            for key, library in (("fallback_nodes", False), ("library_nodes", True)):
                summary[key] = [
                    {"name": node.name, "operator": node.op_type, "opset": node.opset, "reason": node.reason}
                    for node in opaque
                    if node.library is library
                ]
        run.write_summary(summary)

    def _say_result(self, run: RunDirectory, result: TuningResult) -> None:
        """What came out."""
        from ansor_py.search.command_line.progress import duration, milliseconds

        for note in result.notes:
            say(self._console, note)
        for workload in self._workloads:
            words = f"{workload.name}: untuned {milliseconds(workload.untuned)}, tuned {milliseconds(workload.tuned)}"
            if workload.untuned and workload.tuned:
                words += f" ({workload.untuned / workload.tuned:.2f} times as fast)"
            say(self._console, words)
            for choice in workload.choices:
                say(self._console, f"  {choice}")
        if result.records:
            words = f"{len(result.records)} trials in {duration(result.search_seconds)}"
            say(self._console, f"{words}; {'interrupted' if result.interrupted else f'stopped after: {result.stopped}'}")
        say(self._console, f"run directory: {run.path}")

    def _say_profiles(self, run: RunDirectory) -> None:
        """Where the time of each model goes."""
        from ansor_py.graph import load

        for path in self._model_paths(run):
            self._console.print(load(path).profile().table())


def _choice_summary(network: str, choice: FusionChoice) -> dict[str, Any]:
    """What the summary says of one choice between one kernel and several."""
    seconds = {"wide_ms": choice.wide_seconds, "narrow_ms": choice.narrow_seconds}
    times = {name: None if value is None else round(value * 1e3, 6) for name, value in seconds.items()}
    ratio = None if choice.ratio is None else round(choice.ratio, 4)
    return {
        "network": network,
        "task": choice.task,
        "parts": list(choice.parts),
        "occurrences": choice.occurrences,
        "taken": "wide" if choice.wide else "narrow",
        **times,
        "ratio": ratio,
        "by": choice.by,
    }


def foreign_records(path: Path, settings: Settings, tasks: Sequence[Task]) -> int:
    """How many records of a run to be continued are not of this machine, threads and tasks.

    Raises OptionError if all of them are not, and if some use algorithms that are not admitted now.
    """
    from ansor_py.measure.records import read_records
    from ansor_py.schedule.algorithms import are_exact
    from ansor_py.search.loop.run_directory import RECORDS

    if not (path / RECORDS).exists():
        return 0
    records, _ = read_records(path / RECORDS)
    for record in records if settings.math == "exact" else ():
        if not are_exact(record.algorithms):
            raise OptionError(
                f"'{path}' was tuned with --math fast: its trial {record.trial} uses {', '.join(record.algorithms)}; continue "
                "it with --math fast or choose another --out"
            )
    keys, machine = {task.workload_key for task in tasks}, (str(settings.target), settings.target.cores)
    unfit = [record for record in records if (record.target, record.threads) != machine or record.workload_key not in keys]
    if unfit and len(unfit) == len(records):
        machine_words = f"target '{settings.target!s:.200}' with {settings.target.cores} threads"
        raise OptionError(
            f"no record in '{path}' is of these tasks on {machine_words}; "
            f"its first is for '{records[0].target:.200}' with {records[0].threads} threads; choose another --out"
        )
    return len(unfit)


def time_outside(timer: PhaseTimer, workloads: int) -> float:
    """Seconds of a time budget that are not the search's: what has passed, and compiling and benchmarking after it.

    Compiling, then of a few programs for each task, is taken to last three times as long as before the search. Benchmarking,
    then of as many variants and of the networks that come of them, lasts six times as long, but of each workload no longer than
    the limits of both but for a last turn.
    """
    from ansor_py.graph.in_place import LIMIT_SECONDS, NETWORK_LIMIT_SECONDS

    phases = timer.summary()
    before = phases.get("benchmark", 0.0)
    benchmark = min(6 * before, before + workloads * (LIMIT_SECONDS + NETWORK_LIMIT_SECONDS))
    return timer.elapsed() + 3 * phases.get("compile", 0.0) + benchmark
