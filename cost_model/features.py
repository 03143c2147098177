"""Features of a whole population at once (design, Idea 2; paper, appendix B).

For each structure of the sketch that occurs, bounds are inferred once with the genes matrix, so that every loop extent
and index coefficient is an array over the programs; the feature groups are arithmetic on these arrays. Python goes over
structures and their statements, native loops (`native_loops.py`) over programs, and no `State` is built.

Features are defined on the scheduled nest (`ansor_py.lower.nest`): every loop at full extent, fused loops as their
components, before any simplification. `docs/features.md` lists them; `tests/feature_oracle.py` computes the same the slow way.

    batch = extract_features(population, target)
    batch.rows.shape          # (rows, len(feature_names())): one row a statement

`batch_of` makes what a cost model needs of a population, which may be less than features, or more.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

import ansor_py.cost_model.feature_accesses
import ansor_py.cost_model.feature_buffers
import ansor_py.cost_model.feature_machine
import ansor_py.cost_model.feature_roofline
import ansor_py.cost_model.feature_statement
import ansor_py.cost_model.feature_tile  # noqa: F401  # the imports register the groups
from ansor_py.cost_model.feature_groups import FEATURE_GROUPS, FeatureGroup
from ansor_py.cost_model.interface import FeatureBatch
from ansor_py.cost_model.programs import Programs
from ansor_py.cost_model.statement_arrays import StatementArrays
from ansor_py.cost_model.template_arrays import TemplateArrays
from ansor_py.errors import PlugInError, plug_in
from ansor_py.lower.bounds import bounded
from ansor_py.schedule.sketch import Population
from ansor_py.schedule.task import Task
from ansor_py.target import Target

# Programs that are worked on together: the arrays of a statement stay small, Python's overhead is spread.
CHUNK = 1024


def batch_of(population: Population, task: Task, needs: Container[str]) -> FeatureBatch:
    """What a model that needs this (`CostModel.needs`) is given of programs of a task. Raises as `extract_features` does."""
    if "features" in needs:
        batch = extract_features(population, task.target)
    else:
        batch = FeatureBatch(np.empty((len(population), 0), np.float32), np.arange(len(population) + 1))
    return replace(batch, programs=Programs.of_population(task, population)) if "programs" in needs else batch


def extract_features(population: Population, target: Target) -> FeatureBatch:
    """Features of all programs, rows in the order of the population and, in a program, of its stages (producers first).

    Raises ScheduleError if a structure that occurs is illegal (a stage attached where not all of its consumers are), and
    PlugInError for a feature group that fails or gives a negative or undefined number.
    """
    batch = raw_features(population, target, tuple(FEATURE_GROUPS.values()))
    np.add(batch.rows, 1, out=batch.rows)
    np.log2(batch.rows, out=batch.rows)
    return batch


def raw_features(population: Population, target: Target, feature_groups: Sequence[FeatureGroup]) -> FeatureBatch:
    """The same for some of the groups, and before the columns are scaled: the numbers that the groups compute."""
    bounds_of = bounded(population).bounds
    counts = np.zeros(len(population), dtype=np.int64)
    for _, members, bounds in bounds_of:
        counts[members] = len(bounds)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    rows = np.empty((int(offsets[-1]), sum(len(group.fields) for group in feature_groups)), dtype=np.float32)
    for template, members, bounds in bounds_of:
        arrays = TemplateArrays(population.sketch, template, bounds, population.genes[members], target)
        for start in range(0, len(members), CHUNK):
            chunk = slice(start, min(start + CHUNK, len(members)))
            for number, statement in enumerate(arrays.statements(chunk)):
                rows[offsets[members[chunk]] + number] = _columns(statement, target, feature_groups).T
    _check(rows, feature_groups)
    return FeatureBatch(rows, offsets)


def _columns(statement: StatementArrays, target: Target, feature_groups: Sequence[FeatureGroup]) -> NDArray[np.float32]:
    """float32[features, programs] of one statement. Raises PlugInError that names a feature group that fails."""
    columns = np.empty((sum(len(group.fields) for group in feature_groups), statement.programs), dtype=np.float32)
    start = 0
    for group in feature_groups:
        end = start + len(group.fields)
        with plug_in(f"feature group '{group.name}'"):
            group.compute(statement, target, columns[start:end])
        start = end
    return columns


def _check(rows: NDArray[np.float32], feature_groups: Sequence[FeatureGroup]) -> None:
    """Raise PlugInError for a column with a number that is negative or none."""
    if not (rows.min(initial=0) >= 0 and rows.max(initial=0) < np.inf):
        valid = ((rows >= 0) & (rows < np.inf)).all(axis=0)
        names = [(group.name, field) for group in feature_groups for field in group.fields]
        name, wrong = names[int(valid.argmin())]
        raise PlugInError(f"feature group '{name}': feature '{wrong}' is not a finite number of at least 0 for some program")
