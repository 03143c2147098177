"""Measured programs as a cost model learns them: what it needs of the programs of records, and their seconds.

A program is taken from its sketch and genes where today's sketches still give the recorded steps. What no sketch gives (the
default schedule under other rules, programs of an earlier version) is taken from its concrete steps.

    for batch, chosen in batches_of_records(records, sketches, task, needs=("features",)):
        model.update(batch, np.array([training_cost(record) for record in chosen]), numbers)
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterator, Sequence
from typing import Any

import numpy as np

from ansor_py.cost_model.features import batch_of
from ansor_py.cost_model.interface import FeatureBatch
from ansor_py.errors import AnsorError
from ansor_py.measure.records import Record
from ansor_py.schedule.sketch import Population, Sketch
from ansor_py.schedule.task import Task

# Of which a record has no steps that could be applied.
NEVER_MADE = "concretise"


def batches_of_records(
    records: Sequence[Record], sketches: Sequence[Sketch], task: Task, needs: Container[str]
) -> Iterator[tuple[FeatureBatch, list[Record]]]:
    """Batches of the programs of one task with their records: those of each sketch, then those that none gives, one by one.

    Programs without steps, and those whose steps do not apply any more, are left out.
    """
    derived: dict[int, list[Record]] = {}
    others: list[Record] = []
    for record in records:
        if record.sketch_id is not None and trainable(record, sketches):
            derived.setdefault(record.sketch_id, []).append(record)
        elif record.result.error_stage != NEVER_MADE:
            others.append(record)
    for number, chosen in sorted(derived.items()):
        genes = np.array([record.genes for record in chosen], dtype=np.int32).reshape(len(chosen), -1)
        yield batch_of(Population(sketches[number], genes), task, needs), chosen
    for record in others:
        if (batch := concrete_batch(record, task, needs)) is not None:
            yield batch, [record]


def concrete_batch(record: Record, task: Task, needs: Container[str]) -> FeatureBatch | None:
    """The batch of a program that no sketch gives: its steps are a sketch without holes. None if they do not apply any more."""
    try:
        sketch = Sketch("recorded", task.dag, record.concrete_steps(task.dag), ())
        return batch_of(Population(sketch, np.zeros((1, 0), dtype=np.int32)), task, needs)
    except AnsorError:
        return None


def trainable(record: Record, sketches: Sequence[Sketch]) -> bool:
    """Whether the record is of a program that these sketches still contain, so that a policy can know it by its genes."""
    number = record.sketch_id
    if number is None or not 0 <= number < len(sketches):
        return False
    return contains(sketches[number], record.genes, record.steps)


def contains(sketch: Sketch, genes: Sequence[int], steps: Sequence[Any]) -> bool:
    """Whether the genes give these steps (as JSON) in a sketch.

    Genes are indices into tables of choices that another version or another set of rules fills otherwise.
    """
    sizes = sketch.sizes.tolist()
    if len(genes) != len(sizes) or not all(0 <= gene < size for gene, size in zip(genes, sizes, strict=True)):
        return False
    return tuple(step.to_json() for step in sketch.concretise(genes)) == tuple(steps)


def training_cost(record: Record) -> float:
    """Seconds that the model learns: the median, for a program that was cut the lower bound, infinite for a failed one."""
    if record.result.error == "cut" and record.result.costs:
        return max(record.result.costs)
    return record.cost if record.valid else math.inf
