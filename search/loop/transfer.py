"""What another run measured, for a cost model to start from: `--cost-model-from RUN`.

A run directory holds its saved cost model with the programs that it learned from. From a records.jsonl features are extracted
again: by sketch and genes where today's rules still derive the recorded program, else from its concrete steps. The tasks
are those that are searched now and those named by a `config.json` beside the records (for operators given by `--op`).

    known = transferred_programs("runs/a", target, tasks, SearchOptions())
    model.update(known.batch, known.costs, known.tasks)         # their task numbers are negative, so none is the search's own
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from ansor_py.cost_model.features import extract_features
from ansor_py.cost_model.interface import FeatureBatch
from ansor_py.cost_model.training_set import TrainingSet, read_training_set
from ansor_py.errors import AnsorError, OptionError
from ansor_py.measure.records import Record, credible_records, read_records
from ansor_py.schedule.sketch import Population, Sketch
from ansor_py.schedule.task import Task
from ansor_py.search.loop.run_directory import CONFIG, COST_MODEL, RECORDS
from ansor_py.search.loop.scoring import trainable, training_cost
from ansor_py.search.options import SearchOptions
from ansor_py.sketch_rules.derivation import generate_sketches
from ansor_py.target import Target

OPTION = "--cost-model-from"


def check_source(source: str | Path, target: Target) -> None:
    """Raise OptionError unless `source` is a run directory or records.jsonl of a target with the same vector lanes."""
    _target_of(_records_path(source), target)


def transferred_programs(source: str | Path, target: Target, tasks: Iterable[Task], search: SearchOptions) -> TrainingSet:
    """The programs of an earlier run with negative task numbers.

    Raises OptionError where there is no such run, when it is of a target with other lanes or of other program features, and
    when none of its programs can be used.
    """
    path = Path(source)
    records_path = _records_path(path)
    _target_of(records_path, target)
    saved = path / COST_MODEL
    if path.is_dir() and zipfile.is_zipfile(saved):  # other models have nothing to hand on
        known = read_training_set(saved)
        _, tasks_of_run = np.unique(known.tasks, return_inverse=True)
        known = TrainingSet(known.batch, known.costs, -1 - tasks_of_run.astype(np.int64))
    else:
        records, _ = read_records(records_path)
        known = programs_of_records(records, [*tasks, *tasks_of_config(records_path.with_name(CONFIG))], search)
    if not len(known):
        raise OptionError(
            f"{OPTION} {source}: none of its programs is of a task that is known here; name the directory of a run "
            "that saved its cost model"
        )
    return known


def programs_of_records(records: Sequence[Record], tasks: Iterable[Task], search: SearchOptions) -> TrainingSet:
    """Features extracted again, with the seconds of the records; the tasks get the numbers -1, -2, ... in their order.

    Records of other tasks, and those that today's rules and steps cannot express, are left out.
    """
    known = TrainingSet.empty()
    by_key = {task.workload_key: task for task in tasks}
    for number, (key, task) in enumerate(by_key.items()):
        mine = [record for record in records if record.workload_key == key]
        mine, _ = credible_records(mine, {key: task.flops}, task.target, task.target.cores)
        for text, threads in dict.fromkeys((record.target, record.threads) for record in mine):
            target = Target.parse(text).with_cores(threads)
            same = [record for record in mine if (record.target, record.threads) == (text, threads)]
            known = known.extended(_programs_of_task(same, task, target, search, -1 - number))
    return known


def _programs_of_task(records: Sequence[Record], task: Task, target: Target, search: SearchOptions, number: int) -> TrainingSet:
    sketches = generate_sketches(task.dag, target, search.rules, search.rule_options)
    known = TrainingSet.empty()
    derived: dict[int, list[Record]] = {}
    for record in records:
        if record.sketch_id is not None and trainable(record, sketches):
            derived.setdefault(record.sketch_id, []).append(record)
        else:
            known = known.extended(_of_batch(_concrete_features(record, task, target), [record], number))
    for sketch, chosen in sorted(derived.items()):
        genes = np.array([record.genes for record in chosen], dtype=np.int32).reshape(len(chosen), -1)
        batch = extract_features(Population(sketches[sketch], genes), target)
        known = known.extended(_of_batch(batch, chosen, number))
    return known


def _concrete_features(record: Record, task: Task, target: Target) -> FeatureBatch | None:
    """Features of a program that no sketch gives: its steps are a sketch without holes. None if they do not apply any more."""
    try:
        sketch = Sketch("recorded", task.dag, record.concrete_steps(task.dag), ())
        return extract_features(Population(sketch, np.zeros((1, 0), dtype=np.int32)), target)
    except AnsorError:
        return None


def _of_batch(batch: FeatureBatch | None, records: Sequence[Record], number: int) -> TrainingSet:
    if batch is None:
        return TrainingSet.empty()
    costs = np.array([training_cost(record) for record in records], dtype=np.float64)
    return TrainingSet(batch, costs, np.full(len(costs), number, dtype=np.int64))


def _records_path(source: str | Path) -> Path:
    path = Path(source)
    records = path / RECORDS if path.is_dir() else path
    if not records.is_file():
        raise OptionError(f"{OPTION} {source}: there is no such run; name a run directory with a {RECORDS}, or such a file")
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


def tasks_of_config(path: Path) -> list[Task]:
    """The task of a run of an operator; none for models, whose tasks only the graph layer can make."""
    try:
        config: Mapping[str, object] = json.loads(path.read_text())
        spec, target = str(config["model"]), Target.parse(str(config["target"]))
        return [Task.from_spec(spec, target)]
    except (OSError, ValueError, KeyError, TypeError, AnsorError):
        return []
