"""What a cost model begins with: `--cost-model-from RUN` or `--cost-model-from FILE`.

A **saved model** (`cost_model.npz` of a run, or what `experiments/train_cost_model.py` wrote) is loaded as it is, if it fits.
From a **run directory** or its `records.jsonl` come measured programs, from which any model learns. A run directory holds the
programs that its own model learned from, with their features. From records they are made again: by sketch and genes where
today's rules still derive the recorded program, else from its concrete steps, for the tasks that are searched now and those
that the run wrote down (`tasks.jsonl`).

    begin_with("runs/a", model, target, tasks, SearchOptions())         # KnownTask, ...: what the model has seen
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ansor_py.cost_model.checked_model import CheckedModel, checked_model
from ansor_py.cost_model.interface import FeatureBatch, create_cost_model
from ansor_py.cost_model.model_file import KnownTask, is_model_file, load_into, read_header
from ansor_py.cost_model.training_set import TrainingSet, has_training_set, read_training_set
from ansor_py.errors import OptionError, RecordError
from ansor_py.measure.records import Record, credible_records, read_records
from ansor_py.measure.tasks import load_tasks
from ansor_py.schedule.task import Task
from ansor_py.search.loop.recorded_programs import batches_of_records, training_cost
from ansor_py.search.loop.run_directory import COST_MODEL, RECORDS
from ansor_py.search.options import SearchOptions
from ansor_py.sketch_rules.derivation import generate_sketches
from ansor_py.target import Target

OPTION = "--cost-model-from"
FEATURES = ("features",)


@dataclass(frozen=True, eq=False)
class Transfer:
    """Programs of an earlier run, and its tasks. Their numbers are negative, so that none is a task's of the search."""

    known: TrainingSet
    tasks: tuple[KnownTask, ...]


def check_source(source: str | Path, target: Target, cost_model: str | None = None) -> None:
    """Raise OptionError unless a search for `target` with that cost model can begin with `source`, as far as it tells."""
    path = Path(source)
    if is_model_file(path):
        read_header(path).check(path, target, cost_model)
        if cost_model is not None:
            checked_model(cost_model, create_cost_model(cost_model)).check_loading()
    else:
        _target_of(_records_path(source), target)


def begin_with(
    source: str | Path, model: CheckedModel, target: Target, tasks: Sequence[Task], search: SearchOptions
) -> tuple[KnownTask, ...]:
    """Load a saved model, or let the model learn from a run; returns the tasks of which it has seen programs.

    Raises OptionError as `transferred_programs` and `load_into` do, PlugInError for a model that fails.
    """
    path = Path(source)
    if is_model_file(path):
        return load_into(model, path, target).tasks
    found = transferred_programs(source, target, tasks, search, model.needs)
    model.update(found.known.batch, found.known.costs, found.known.tasks)
    return found.tasks


def transferred_programs(
    source: str | Path, target: Target, tasks: Iterable[Task], search: SearchOptions, needs: Container[str] = FEATURES
) -> Transfer:
    """The programs of an earlier run, with what a cost model needs of them.

    Raises OptionError where there is no such run, when it is of a target with other lanes or of other program features, and
    when none of its programs can be used.
    """
    path = Path(source)
    records_path = _records_path(path)
    _target_of(records_path, target)
    saved = path / COST_MODEL
    if path.is_dir() and "programs" not in needs and has_training_set(saved):  # other models have nothing to hand on
        found = _saved_programs(saved)
    else:
        records, _ = read_records(records_path)
        candidates = {task.workload_key: task for task in (*tasks, *_tasks_beside(records_path))}
        found = programs_of_records(records, candidates.values(), search, needs)
    if not len(found.known):
        raise OptionError(
            f"{OPTION} {source}: none of its programs is of a task that is known here; name the directory of a run "
            "that saved its cost model or its tasks"
        )
    return found


def programs_of_records(
    records: Sequence[Record], tasks: Iterable[Task], search: SearchOptions, needs: Container[str] = FEATURES
) -> Transfer:
    """Programs made again, with the seconds of the records; the tasks get the numbers -1, -2, ... in their order.

    Records of other tasks, and those that today's rules and steps cannot express, are left out.
    """
    known = TrainingSet.empty()
    by_key = {task.workload_key: task for task in tasks}
    names = [KnownTask(-1 - number, key, task.name) for number, (key, task) in enumerate(by_key.items())]
    for number, (key, task) in enumerate(by_key.items()):
        mine = [record for record in records if record.workload_key == key]
        mine, _ = credible_records(mine, {key: task.flops}, task.target, task.target.cores)
        for text, threads in dict.fromkeys((record.target, record.threads) for record in mine):
            machine = Target.parse(text).with_cores(threads)
            same = [record for record in mine if (record.target, record.threads) == (text, threads)]
            known = known.extended(_programs_of_task(same, replace(task, target=machine), search, needs, -1 - number))
    seen = set(known.tasks.tolist())
    return Transfer(known, tuple(task for task in names if task.number in seen))


def _programs_of_task(
    records: Sequence[Record], task: Task, search: SearchOptions, needs: Container[str], number: int
) -> TrainingSet:
    sketches = generate_sketches(task.dag, task.target, search.rules, search.rule_options)
    parts = list(batches_of_records(records, sketches, task, needs))
    if not parts:
        return TrainingSet.empty()
    costs = np.array([training_cost(record) for _, chosen in parts for record in chosen], dtype=np.float64)
    batch = FeatureBatch.concatenate([batch for batch, _ in parts])
    return TrainingSet(batch, costs, np.full(len(costs), number, dtype=np.int64))


def _saved_programs(path: Path) -> Transfer:
    """The programs of a run's saved model. Raises OptionError if their features are not those that are extracted now."""
    known = read_training_set(path)
    numbers, place = np.unique(known.tasks, return_inverse=True)
    known = TrainingSet(known.batch, known.costs, -1 - place.reshape(-1).astype(np.int64))
    try:
        named = {task.number: task for task in read_header(path).tasks}
    except OptionError:  # of a version that did not write down what they were
        named = {}
    tasks = (
        KnownTask(-1 - n, named[number].workload_key, named[number].name)
        for n, number in enumerate(numbers.tolist())
        if number in named
    )
    return Transfer(known, tuple(tasks))


def _tasks_beside(records: Path) -> Iterable[Task]:
    try:
        return load_tasks(records).values()
    except RecordError:  # of an older version
        return ()


def _records_path(source: str | Path) -> Path:
    path = Path(source)
    records = path / RECORDS if path.is_dir() else path
    if not records.is_file():
        raise OptionError(
            f"{OPTION} {source}: there is no such run; name a run directory with a {RECORDS}, such a file, or a saved model"
        )
    return records


def _target_of(records: Path, target: Target) -> Target:
    """The target of the first record. Raises OptionError if its vectors are not those of `target`."""
    found, _ = read_records(records)
    if not found:
        raise OptionError(f"{OPTION} {records}: it holds no records")
    other = Target.parse(found[0].target)
    if other.vector_bytes != target.vector_bytes:
        raise OptionError(
            f"{OPTION} {records}: it was measured with vectors of {other.vector_bytes} bytes and this target's have "
            f"{target.vector_bytes}; programs for one are no guide to the other, so start without it"
        )
    return other
