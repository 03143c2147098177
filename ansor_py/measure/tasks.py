"""The tasks of a run, and the task of a record: `tasks.jsonl`, one task a line, beside the records.

A record says which computation its program is of by a workload key, a hash. The file holds the compute DAG of every key, so
that a task can be made again without the model, the operator or the script that it came from.

    tasks = load_tasks("runs/squeezenet")                   # {workload key: Task}
    task = task_of_record(record, "runs/squeezenet")        # for the record's target and threads
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ansor_py.errors import AnsorError, RecordError
from ansor_py.measure.records import Record
from ansor_py.schedule.dag_json import dag_from_json, dag_to_json
from ansor_py.schedule.task import Task
from ansor_py.target import Target

TASKS, CONFIG = "tasks.jsonl", "config.json"
SCHEMA = 1
_REMEDY = "continue that run once with --resume, which writes them, or make the task from its model or operator"


def task_to_json(task: Task) -> dict[str, Any]:
    """The task as values that `json.dumps` takes."""
    return {
        "schema": SCHEMA,
        "workload_key": task.workload_key,
        "name": task.name,
        "weight": task.weight,
        "target": str(task.target),
        "dag": dag_to_json(task.dag),
    }


def task_from_json(value: Any) -> Task:
    """The inverse of `task_to_json`.

    Raises RecordError for anything else, and for a DAG whose workload key is not the stated one: the file was changed, or
    another version wrote it, to which the same expressions had another text.
    """
    if not isinstance(value, dict) or value.get("schema") != SCHEMA:
        raise RecordError(f"a task must be a JSON object of schema {SCHEMA}; use the ansor-py that wrote it")
    try:
        key, name, weight, target = value["workload_key"], value["name"], value["weight"], Target.parse(value["target"])
        task = Task(str(name), dag_from_json(value["dag"]), target, int(weight))
    except (AnsorError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise RecordError(f"the task is wrong: {error}") from error
    if task.workload_key != key:
        raise RecordError(f"the DAG of task '{name}' has key {task.workload_key}, not {key}: changed, or of another version")
    return task


def write_tasks(path: Path, tasks: Iterable[Task]) -> None:
    """Write a file of tasks by way of a temporary one, so that a reader never sees half of it. Raises OSError."""
    temporary = path.with_name(path.name + ".partial")
    lines = [json.dumps(task_to_json(task), separators=(",", ":"), allow_nan=False) for task in tasks]
    temporary.write_text("".join(f"{line}\n" for line in lines))
    os.replace(temporary, path)


def read_tasks(path: Path) -> dict[str, Task]:
    """The tasks of a file by workload key. Raises RecordError that names the line."""
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RecordError(f"cannot read tasks from '{path}': {error}") from error
    tasks: dict[str, Task] = {}
    for number, line in enumerate(lines, start=1):
        try:
            task = task_from_json(json.loads(line))
        except (ValueError, RecursionError, RecordError) as error:
            raise RecordError(f"'{path}' line {number}: {error}; {_REMEDY}") from error
        tasks[task.workload_key] = task
    return tasks


def load_tasks(run: str | Path) -> dict[str, Task]:
    """The tasks of a run directory by workload key, each for the target it was tuned for.

    `run` may also be the `records.jsonl` (or `tasks.jsonl`) in it. Runs of older versions have no file of tasks; of these
    only that of an operator is known, by the configuration. Raises RecordError where no task is known.
    """
    run = Path(run)
    folder = run if run.is_dir() else run.parent
    path = folder / TASKS
    if path.is_file():
        return read_tasks(path)
    task = _task_of_config(folder / CONFIG)
    if task is None:
        raise RecordError(f"'{folder}' has no {TASKS}, so its tasks are not known; {_REMEDY}")
    return {task.workload_key: task}


def task_of_record(record: Record, run: str | Path | Mapping[str, Task]) -> Task:
    """The task of a record, for the record's target and threads.

    `run` is the run directory (or a file in it) that holds the record, or what `load_tasks` gave for it. Raises RecordError
    where there is no such task.
    """
    tasks = run if isinstance(run, Mapping) else load_tasks(run)
    if record.workload_key not in tasks:
        place = "" if isinstance(run, Mapping) else f" in '{run}'"
        raise RecordError(f"there is no task {record.workload_key} ('{record.task}'){place}; {_REMEDY}")
    task = tasks[record.workload_key]
    return replace(task, target=Target.parse(record.target).with_cores(record.threads))


def _task_of_config(path: Path) -> Task | None:
    """The task of a run of one operator; None where the configuration names none."""
    try:
        config = json.loads(path.read_text())
        return Task.from_spec(str(config["model"]), Target.parse(str(config["target"])))
    except (OSError, ValueError, KeyError, TypeError, AnsorError):
        return None
