"""A data set: the measured programs of many runs with their features and tasks, for cost models that are trained off-line.

    data = data_set_of_runs(["runs/a", "runs/b"])
    data.splits["by_task"]                          # bool[programs]: who is held out
    known = data.training_set(~data.splits["by_task"], needs=("features",))
    model.update(known.batch, known.costs, known.tasks)

Programs of one task, target and number of threads are a *group*: only their seconds can be compared.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ansor_py.cost_model.feature_groups import FEATURE_VERSION, feature_names
from ansor_py.cost_model.interface import FeatureBatch
from ansor_py.cost_model.model_file import KnownTask
from ansor_py.cost_model.programs import Programs
from ansor_py.cost_model.training_set import TrainingSet
from ansor_py.errors import OptionError
from ansor_py.measure.records import Record, credible_records, read_records
from ansor_py.measure.tasks import load_tasks
from ansor_py.schedule.sketch import Population, Sketch
from ansor_py.schedule.task import Task
from ansor_py.search.data_set.splits import split
from ansor_py.search.loop.recorded_programs import batches_of_records, training_cost
from ansor_py.search.loop.run_directory import RECORDS
from ansor_py.search.options import SearchOptions
from ansor_py.sketch_rules.derivation import generate_sketches
from ansor_py.target import Target

TEST_SHARE = 0.1
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Group:
    """What makes seconds comparable: the computation, and the machine as the target says it."""

    workload_key: str
    target: str
    threads: int


@dataclass(frozen=True, eq=False)
class DataSet:
    """Programs: a record and a batch entry each, in the same order, and the run that each is of.

    `splits` are bool[programs] by name, true for programs that are held out. `left_out` counts records that are not here, by
    the reason. The features are those of `names` and `version`.
    """

    tasks: Mapping[str, Task]
    records: tuple[Record, ...]
    runs: tuple[str, ...]
    batch: FeatureBatch
    splits: Mapping[str, Mask]
    seed: int
    test_share: float
    names: tuple[str, ...] = field(default_factory=feature_names)
    version: int = FEATURE_VERSION
    left_out: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.records)

    @cached_property
    def costs(self) -> NDArray[np.float64]:
        """Seconds that a model learns, float64[programs]: of a program that was cut its lower bound, infinite for a failure."""
        return np.array([training_cost(record) for record in self.records], dtype=np.float64)

    @cached_property
    def is_valid(self) -> Mask:
        """Which programs have a latency: they ran to the end and passed their checks."""
        return np.array([record.valid for record in self.records], dtype=np.bool_)

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """The groups, in the order in which they come first."""
        return tuple(dict.fromkeys(map(group_of, self.records)))

    @cached_property
    def group_numbers(self) -> NDArray[np.int64]:
        """The place of every program's group in `groups`, int64[programs]."""
        places = {group: number for number, group in enumerate(self.groups)}
        return np.array([places[group_of(record)] for record in self.records], dtype=np.int64)

    def task_of(self, group: Group) -> Task:
        """The task of a group, for its target and threads."""
        return replace(self.tasks[group.workload_key], target=Target.parse(group.target).with_cores(group.threads))

    def known_tasks(self, places: Mask) -> list[KnownTask]:
        """The groups of some of the programs, by the numbers that `training_set` has for them."""
        numbers = np.unique(self.group_numbers[places]).tolist()
        keys = [self.groups[number].workload_key for number in numbers]
        return [KnownTask(number, key, self.tasks[key].name) for number, key in zip(numbers, keys, strict=True)]

    def targets(self, places: Mask) -> list[Target]:
        """The targets of some of the programs, each once."""
        numbers = np.unique(self.group_numbers[places]).tolist()
        return list({str(target): target for target in (self.task_of(self.groups[n]).target for n in numbers)}.values())

    def training_set(self, places: Mask, needs: Container[str]) -> TrainingSet:
        """Some of the programs with what a model needs of them; task numbers are places in `groups`.

        Raises OptionError if the model needs features and these are not those that are extracted now.
        """
        chosen = np.flatnonzero(places)
        if "features" not in needs:
            batch = FeatureBatch(np.empty((len(chosen), 0), np.float32), np.arange(len(chosen) + 1))
        elif (self.version, self.names) != (FEATURE_VERSION, feature_names()):
            raise OptionError("the data set has other program features than are extracted now; export its runs again")
        else:
            batch = self.batch.select(chosen)
        if "programs" in needs and len(chosen):
            batch = replace(batch, programs=self._programs(chosen))
        return TrainingSet(batch, self.costs[chosen], self.group_numbers[chosen])

    def _programs(self, chosen: NDArray[np.int64]) -> Programs:
        """The programs as a model may read them: each is its concrete steps, a sketch without holes."""
        tasks = [self.task_of(group) for group in self.groups]
        parts = []
        for place in chosen.tolist():
            task = tasks[self.group_numbers[place]]
            sketch = Sketch("recorded", task.dag, self.records[place].concrete_steps(task.dag), ())
            parts.append((task, Population(sketch, np.zeros((1, 0), dtype=np.int32))))
        return Programs(parts, np.arange(len(parts)), np.zeros(len(parts), dtype=np.int64))


def group_of(record: Record) -> Group:
    """The group of a program."""
    return Group(record.workload_key, record.target, record.threads)


def data_set_of_runs(
    runs: Sequence[str | Path], seed: int = 0, test_share: float = TEST_SHARE, search: SearchOptions | None = None
) -> DataSet:
    """All programs of run directories whose features can be extracted, failed ones included.

    `search` names the rules by which programs are found in sketches, which is faster than by their steps and gives the same.
    Raises RecordError for a run that cannot be read or whose tasks are not known, OptionError where there is no program.
    """
    search = search or SearchOptions()
    tasks: dict[str, Task] = {}
    found: dict[Group, list[tuple[str, Record]]] = {}
    for run in map(Path, runs):
        for key, task in load_tasks(run).items():
            tasks.setdefault(key, task)
        for record in read_records(run / RECORDS if run.is_dir() else run)[0]:
            found.setdefault(group_of(record), []).append((run.name if run.is_dir() else run.parent.name, record))
    left_out: Counter[str] = Counter()
    parts: list[tuple[FeatureBatch, list[Record]]] = []
    names: dict[int, str] = {}
    for group, pairs in found.items():
        names.update((id(record), run) for run, record in pairs)
        parts += _programs_of_group(group, [record for _, record in pairs], tasks, search, left_out)
    records = [record for _, chosen in parts for record in chosen]
    if not records:
        raise OptionError(f"none of {', '.join(map(str, runs)) or 'no run'} holds a program that can be used")
    batch = FeatureBatch.concatenate([part for part, _ in parts])
    splits = split(records, seed, test_share)
    run_names = tuple(names[id(record)] for record in records)
    return DataSet(tasks, tuple(records), run_names, batch, splits, seed, test_share, left_out=dict(left_out))


def _programs_of_group(
    group: Group, records: Sequence[Record], tasks: Mapping[str, Task], search: SearchOptions, left_out: Counter[str]
) -> Iterable[tuple[FeatureBatch, list[Record]]]:
    if group.workload_key not in tasks:
        left_out["of a task that is not known"] += len(records)
        return []
    target = Target.parse(group.target).with_cores(group.threads)
    task = replace(tasks[group.workload_key], target=target)
    credible, doubts = credible_records(records, {group.workload_key: task.flops}, target, group.threads)
    left_out["with costs that cannot be true"] += len(doubts)
    sketches = generate_sketches(task.dag, target, search.rules, search.rule_options)
    parts = list(batches_of_records(credible, sketches, task, ("features",)))
    left_out["without steps that apply"] += len(credible) - sum(len(chosen) for _, chosen in parts)
    return parts
