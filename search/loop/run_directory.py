"""The folder a search leaves behind: `config.json`, `tasks.jsonl`, `records.jsonl`, `curve.csv`, `rounds.csv`,
`accuracy.csv`, `summary.json`, `cost_model.npz` (and `model.ansor`).

Records, curve, rounds and accuracy grow after every round, so that a search that is killed loses at most the round it was in.

    with RunDirectory.create("runs/squeezenet", config={...}) as run:
        result = tune_tasks(tasks, options, subscribers=[run.take])
        run.write_summary({...})
    RunDirectory.create("runs/squeezenet", config={...}, resume=True).restored      # the records that were there
"""

from __future__ import annotations

import csv
import errno
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, astuple, fields
from pathlib import Path
from types import TracebackType
from typing import Any

from msgspec import structs

from ansor_py.cost_model.interface import CostModel
from ansor_py.cost_model.model_file import ModelHeader, save_model
from ansor_py.errors import OptionError, RecordError
from ansor_py.measure.records import LostLine, Record, RecordWriter, read_records
from ansor_py.measure.result import InPlace
from ansor_py.measure.tasks import CONFIG, TASKS, read_tasks, write_tasks
from ansor_py.schedule.task import Task
from ansor_py.search.loop.accuracy import ACCURACY_COLUMNS, RoundAccuracy
from ansor_py.search.loop.events import Begun, Event, Restored, Stopped, TrialsMeasured
from ansor_py.search.loop.phases import PHASES
from ansor_py.search.loop.results import CurvePoint, TaskResult, TuningResult
from ansor_py.search.loop.round_times import RoundTimes, trial_budget
from ansor_py.search.scheduler.networks import Networks

RECORDS, CURVE, ROUNDS = "records.jsonl", "curve.csv", "rounds.csv"
ACCURACY, COST_MODEL = "accuracy.csv", "cost_model.npz"
SUMMARY, MODEL = "summary.json", "model.ansor"
CURVE_COLUMNS = tuple(field.name for field in fields(CurvePoint))
ROUND_COLUMNS = ("round", "task", "trials", "scored", "seconds", *PHASES)
_CURVE_DIGITS = {"elapsed_s": 4, "latency_ms": 6, "best_ms": 6, "estimated_total_ms": 6}


class RunDirectory(AbstractContextManager["RunDirectory"]):
    """An open run directory. `restored` are the records of an earlier search that is continued, `lost` what was unreadable.

    What an earlier search left is replaced by what is complete and by nothing else: a search that fails before its first
    trial changes no file, and summary and model are the earlier ones until there are new ones.
    """

    def __init__(self, path: Path, config: Mapping[str, Any], resume: bool, writer: RecordWriter) -> None:
        self.path = path
        self._config = config
        self._writer = writer
        restored, lost = read_records(path / RECORDS) if resume else ([], [])
        self.restored: tuple[Record, ...] = tuple(restored)
        self.lost: tuple[LostLine, ...] = tuple(lost)
        self._begun = False
        self._tasks: tuple[Task, ...] = ()

    @staticmethod
    def create(path: str | Path, config: Mapping[str, Any], resume: bool = False) -> RunDirectory:
        """Make the folder, and write its configuration unless it is a run that is continued.

        A folder that holds records is continued when `resume` is set and refused otherwise. Raises OptionError for that and
        when the folder cannot be written, RecordError when another search is writing there.
        """
        path = Path(path)
        with _writing(path):
            path.mkdir(parents=True, exist_ok=True)
            if not resume and (path / RECORDS).exists() and (path / RECORDS).stat().st_size:
                raise OptionError(
                    f"'{path}' holds the records of a run already; continue it by --resume or choose another --out"
                )
        writer = RecordWriter(path / RECORDS)
        try:
            run = RunDirectory(path, config, resume, writer)
            if not run.restored:
                run.add_points([])
        except BaseException:
            writer.close()
            raise
        return run

    @property
    def model_path(self) -> Path:
        """Where the compiled model belongs."""
        return self.path / MODEL

    def take(self, event: Event) -> None:
        """Write what a search tells."""
        match event:
            case Begun(tasks):
                self.add_tasks(tasks)
            case Restored(points=points):
                self.add_points(points)
            case TrialsMeasured(records, points):
                self._writer.write(records)
                self.add_points(points)
            case RoundTimes():
                self.add_round(event)
            case RoundAccuracy():
                with _writing(self.path):
                    _append(self.path / ACCURACY, [event.row()])
            case Stopped(model=model, header=header):
                self.save_cost_model(model, header)

    def add_tasks(self, tasks: Sequence[Task]) -> None:
        """Write down the tasks that the records are of, beside those of an earlier search, when there are first points."""
        self._tasks = tuple(tasks)
        if self._begun:
            with _writing(self.path):
                self._write_tasks()

    def _write_tasks(self) -> None:
        path, mine = self.path / TASKS, {task.workload_key for task in self._tasks}
        try:
            earlier = read_tasks(path) if self.restored and path.exists() else {}
        except RecordError:
            earlier = {}  # which nobody could have used
        write_tasks(path, [*self._tasks, *(task for key, task in earlier.items() if key not in mine)])

    def add_points(self, points: Sequence[CurvePoint]) -> None:
        """Append points of the curve alone. The first ones, those of restored records, begin a new curve."""
        rows = [_curve_row(point) for point in points]
        with _writing(self.path):
            if self._begun:
                _append(self.path / CURVE, rows)
                return
            write_json(self.path / CONFIG, self._config)
            if self._tasks:
                self._write_tasks()
            _replace(self.path / CURVE, [list(CURVE_COLUMNS), *rows])
            for name, columns in ((ROUNDS, ROUND_COLUMNS), (ACCURACY, ACCURACY_COLUMNS)):
                if not self.restored or not (self.path / name).exists():  # it cannot be made again from the records
                    _replace(self.path / name, [list(columns)])
            self._begun = True

    def add_round(self, times: RoundTimes) -> None:
        """Append a round's seconds by phase."""
        seconds = [f"{value:.4f}" for value in (times.seconds, *(times.phases[name] for name in PHASES))]
        with _writing(self.path):
            _append(self.path / ROUNDS, [[times.round, times.task, times.trials, times.scored, *seconds]])

    def save_cost_model(self, model: CostModel, header: ModelHeader) -> None:
        """Write what the cost model has learned, for `--cost-model-from`."""
        with _writing(self.path):
            save_model(self.path / COST_MODEL, model, header)

    def add_times_in_place(self, records: Sequence[Record], timed: Mapping[str, Sequence[Record]]) -> None:
        """Append the lines of trials anew that were timed inside the network: `timed` of all `records`, by workload key.

        What an earlier search had chosen for these tasks is chosen no longer, and what looked faster than all that was tried,
        but was not when it was measured again, is marked as well: nothing new is known of it.
        """
        times = {(key, record.trial): record.result.in_place for key, mine in timed.items() for record in mine}
        least: dict[str, float] = {}
        for record in records:
            if (record.workload_key, record.trial) in times:
                least[record.workload_key] = min(least.get(record.workload_key, math.inf), record.cost)
        again = []
        for record in records:
            before, now = record.result.in_place, times.get((record.workload_key, record.trial))
            if now is None and before is not None and record.workload_key in timed:
                now = structs.replace(before, chosen=False)
            elif now is None and record.cost < least.get(record.workload_key, 0.0):
                now = InPlace(None, chosen=False)
            if now is not None and now != before:
                again.append(structs.replace(record, result=structs.replace(record.result, in_place=now)))
        self._writer.write(again)

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write `summary.json`, replacing an earlier one at once."""
        if not self._begun:
            self.add_points([])
        with _writing(self.path):
            write_json(self.path / SUMMARY, summary)

    def close(self) -> None:
        """Close the records file."""
        self._writer.close()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """OptionError for what the operating system refuses."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        remedy = "make room and continue with --resume" if full else "choose another --out"
        raise OptionError(f"cannot write to '{path}': {error.strerror}; {remedy}") from error


def _append(path: Path, rows: Sequence[Sequence[object]]) -> None:
    with path.open("a", newline="") as file:
        csv.writer(file).writerows(rows)


def _replace(path: Path, rows: Sequence[Sequence[object]]) -> None:
    """Write a table by way of a temporary file."""
    temporary = path.with_name(path.name + ".partial")
    with temporary.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    os.replace(temporary, path)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON file by way of a temporary one, so that a reader never sees half of it."""
    temporary = path.with_name(path.name + ".partial")
    temporary.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n")
    os.replace(temporary, path)


def read_curve(path: str | Path) -> list[CurvePoint]:
    """The points of a `curve.csv`, or of the one in a run directory. Raises OptionError for anything else."""
    path = Path(path)
    path = path / CURVE if path.is_dir() else path
    try:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise OptionError(f"cannot read the curve '{path}': {error.strerror}") from error
    try:
        return [
            CurvePoint(
                int(row["trial"]),
                float(row["elapsed_s"]),
                row["task"],
                *(float(row[name]) if row[name] else None for name in CURVE_COLUMNS[3:]),
            )
            for row in rows
        ]
    except (KeyError, ValueError, TypeError) as error:
        raise OptionError(f"'{path}' is not a search curve with the columns {', '.join(CURVE_COLUMNS)}: {error}") from error


def summarise(
    result: TuningResult, model: str, target: str, threads: int, untuned_seconds: float | None, tuned_seconds: float | None
) -> dict[str, Any]:
    """The content of `summary.json`: latencies in milliseconds, everything else in seconds; null is "not known"."""
    scoring = sum(result.phases.get(name, 0.0) for name in ("features", "predict"))
    trials = len(result.records)
    return {
        "model": model,
        "target": target,
        "threads": threads,
        "tasks": [_task_summary(item) for item in result.tasks],
        "untuned_latency_ms": _milliseconds(untuned_seconds),
        "tuned_latency_ms": _milliseconds(tuned_seconds),
        "estimated_total_ms": _milliseconds(result.estimated_seconds),
        "search_seconds": round(result.search_seconds, 3),
        "trials": trials,
        "trials_per_second": round(trials / result.search_seconds, 3) if result.search_seconds > 0 and trials else None,
        "errors": result.errors,
        "phases": {name: round(seconds, 4) for name, seconds in result.phases.items()},
        "programs_scored": result.programs_scored,
        "programs_scored_per_second": round(result.programs_scored / scoring, 1)
        if scoring and result.programs_scored
        else None,
        "drift_ms": [_milliseconds(seconds) for seconds in result.drift],
        "machine": asdict(result.machine),
        "trial_budget": trial_budget(result.records, result.rounds),
        "stopped": result.stopped,
        "interrupted": result.interrupted,
        "notes": list(result.notes),
    }


def summarise_networks(
    result: TuningResult, networks: Networks, untuned: Sequence[float | None], tuned: Sequence[float | None]
) -> list[dict[str, Any]]:
    """Every network's latencies in milliseconds (the arguments are seconds) and its tasks by workload key."""
    latencies = [item.network_latency for item in result.tasks]
    estimated = networks.known_seconds(latencies) if result.tasks else [math.inf] * len(untuned)
    networks = networks.folded(networks.shares(latencies)) if result.tasks else networks
    keys = [item.task.workload_key for item in result.tasks]
    return [
        {
            "name": name,
            "untuned_latency_ms": _milliseconds(untuned[number]),
            "tuned_latency_ms": _milliseconds(tuned[number]),
            "estimated_ms": _milliseconds(float(estimated[number])) if math.isfinite(estimated[number]) else None,
            "target_ms": _milliseconds(float(networks.targets[number])) if len(networks.targets) else None,
            "weights": {key: weight for key, weight in zip(keys, networks.weights[number].tolist(), strict=True) if weight},
        }
        for number, name in enumerate(networks.names)
    ]


def config_of_tasks(tasks: Sequence[Task]) -> list[dict[str, Any]]:
    """What `config.json` says about the tasks."""
    return [{"key": t.workload_key, "name": t.name, "flops": t.flops, "weight": t.weight} for t in tasks]


def _task_summary(item: TaskResult) -> dict[str, Any]:
    task, place, sure = item.task, item.in_place, item.confirmed
    return {
        "key": task.workload_key,
        "name": task.name,
        "flops": task.flops,
        "weight": task.weight,
        "trials": item.trials,
        "best_ms": _milliseconds(item.best.cost if item.best is not None else None),
        "default_ms": _milliseconds(item.default_seconds),
        "best_interval_ms": [_milliseconds(bound) for bound in sure.interval] if sure is not None else None,
        "speedup": _rounded(sure.speedup if sure is not None else None),
        "speedup_interval": _rounded_all(sure.speedup_interval if sure is not None else None),
        "gflops": round(item.gflops, 3) if item.gflops is not None else None,
        "best_trial": item.best.trial if item.best is not None else None,
        "algorithms": list(item.algorithms),
        "output_error": item.best.result.output_error if item.best is not None else None,
        "in_place_ms": _milliseconds(place.seconds if place is not None else None),
        "default_in_place_ms": _milliseconds(place.default_seconds if place is not None else None),
        "in_place_trial": place.trial if place is not None else None,
        "ended": item.ended,
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _rounded_all(values: Sequence[float] | None) -> list[float | None] | None:
    return None if values is None else [_rounded(value) for value in values]


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1e3, 6)


def _curve_row(point: CurvePoint) -> list[str]:
    row = []
    for name, value in zip(CURVE_COLUMNS, astuple(point), strict=True):
        digits = _CURVE_DIGITS.get(name)
        row.append("" if value is None else f"{value:.{digits}f}" if digits is not None else str(value))
    return row
