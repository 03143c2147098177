"""Features of a whole population at once (design, Idea 2; paper, appendix B).

For each structure of the sketch that occurs, bounds are inferred once with the genes matrix, so that every loop extent
and index coefficient is an array over the programs; the feature groups are arithmetic on these arrays. Python loops run
over statements, buffers and loop levels, never over programs, and no `State` is built. A statement that has the same loops
and buffers in several structures is worked on once for all of them.

Features are defined on the scheduled nest (`ansor_py.lower.nest`): every loop at full extent, fused loops as their
components, before any simplification. `docs/features.md` lists them; `tests/feature_oracle.py` computes the same the slow way.

    batch = extract_features(population, target)
    batch.rows.shape          # (rows, len(feature_names())): one row a statement
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

import ansor_py.cost_model.feature_accesses
import ansor_py.cost_model.feature_buffers
import ansor_py.cost_model.feature_machine
import ansor_py.cost_model.feature_roofline
import ansor_py.cost_model.feature_statement
import ansor_py.cost_model.feature_tile  # noqa: F401  # the imports register the groups
from ansor_py.cost_model.feature_groups import FEATURE_GROUPS, FeatureGroup
from ansor_py.cost_model.feature_machine import statement_bytes
from ansor_py.cost_model.interface import FeatureBatch
from ansor_py.cost_model.statement_arrays import (
    BufferUse,
    Flags,
    StatementArrays,
    buffer_shapes,
    buffer_uses,
    joined,
    stage_of,
    statement_arrays,
)
from ansor_py.errors import PlugInError, plug_in
from ansor_py.lower.affine import Number
from ansor_py.lower.bounds import Bounds, StageBounds, bounded
from ansor_py.lower.register_tile import register_tile
from ansor_py.schedule.sketch import Genes, Population, Sketch
from ansor_py.schedule.state import Inlined, State
from ansor_py.target import Target

# Programs that are worked on together: arrays of one statement stay in the L2 cache, Python's overhead is spread.
CHUNK = 1024


def extract_features(population: Population, target: Target) -> FeatureBatch:
    """Features of all programs, rows in the order of the population and, in a program, of its stages (producers first).

    Raises ScheduleError if a structure that occurs is illegal (a stage attached where not all of its consumers are), and
    PlugInError for a feature group that fails or gives a negative or undefined number.
    """
    batch = raw_features(population, target, FEATURE_GROUPS)
    np.add(batch.rows, 1, out=batch.rows)
    np.log2(batch.rows, out=batch.rows)
    return batch


def raw_features(population: Population, target: Target, feature_groups: Sequence[FeatureGroup]) -> FeatureBatch:
    """The same for some of the groups, and before the columns are scaled: the numbers that the groups compute."""
    groups = bounded(population).bounds
    counts = np.zeros(len(population), dtype=np.int64)
    for template, members, _ in groups:
        counts[members] = sum(not isinstance(stage.location, Inlined) for stage in template.stages)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    rows = np.empty((int(offsets[-1]), sum(len(group.fields) for group in feature_groups)), dtype=np.float32)
    # Statements that occur alike in several structures wait for each other: the feature groups cost most for few programs.
    waiting: dict[Hashable, list[tuple[StatementArrays, NDArray[np.int64]]]] = {}
    for template, members, bounds in groups:
        genes = population.genes[members]
        for statement, places in _statements(population.sketch, template, bounds, genes, offsets[members], target):
            parts = waiting.setdefault(statement.form, [])
            if parts and sum(len(others) for _, others in parts) + len(places) > CHUNK:
                _fill(rows, parts, target, feature_groups)
                parts.clear()
            parts.append((statement, places))
    for parts in waiting.values():
        _fill(rows, parts, target, feature_groups)
    return FeatureBatch(rows, offsets)


def _fill(
    rows: NDArray[np.float32],
    parts: Sequence[tuple[StatementArrays, NDArray[np.int64]]],
    target: Target,
    feature_groups: Sequence[FeatureGroup],
) -> None:
    """Compute the rows of statements of one form."""
    columns = _columns(joined([statement for statement, _ in parts]), target, feature_groups)
    rows[np.concatenate([places for _, places in parts])] = columns.T


def _statements(
    sketch: Sketch, template: State, bounds: Bounds, genes: Genes, offsets: NDArray[np.int64], target: Target
) -> Iterator[tuple[StatementArrays, NDArray[np.int64]]]:
    """The statements of programs that share a template, with the rows of their features; a program's begin at its offset."""
    tiles = {name: register_tile(b, target) for name, b in bounds.items()}
    shapes = buffer_shapes(template, bounds)
    uses = {name: buffer_uses(bounds, shapes, b) for name, b in bounds.items()}
    members = statements_by_depth(bounds)
    parallel = sketch.stage_values("parallel_loops", genes)
    limits: dict[str, Number] = {name: b.stage.unroll_limit for name, b in bounds.items()}
    limits |= sketch.stage_values("unroll_limit", genes)
    for start in range(0, len(genes), CHUNK):
        chunk = slice(start, min(start + CHUNK, len(genes)))
        size = chunk.stop - chunk.start
        arrays = {
            name: statement_arrays(
                template, b, tiles[name], uses[name], _parallel_flags(b, parallel, chunk, size), limits[name], chunk, size
            )
            for name, b in bounds.items()
        }
        link(arrays, members)
        for number, statement in enumerate(arrays.values()):
            yield statement, offsets[chunk] + number


def _columns(statement: StatementArrays, target: Target, feature_groups: Sequence[FeatureGroup]) -> NDArray[np.float32]:
    """float32[features, programs] of one statement. Raises PlugInError that names a feature group."""
    columns = np.empty((sum(len(group.fields) for group in feature_groups), statement.programs), dtype=np.float32)
    start = 0
    for group in feature_groups:
        part = columns[start : start + len(group.fields)]
        with plug_in(f"feature group '{group.name}'"):
            group.compute(statement, target, part)
        valid = ((part >= 0) & (part < np.inf)).all(axis=1)
        if not valid.all():
            wrong = group.fields[int(valid.argmin())]
            raise PlugInError(f"feature '{wrong}' is not a finite number of at least 0 for some program")
        start += len(group.fields)
    return columns


def _parallel_flags(b: StageBounds, parallel: Mapping[str, NDArray[np.int64]], chunk: slice, programs: int) -> Flags:
    """bool[L, programs]: which of the loops around a statement run in parallel."""
    loops = (*b.enclosing, *b.loops)
    flags = np.zeros((len(loops), programs), dtype=np.bool_)
    before: dict[str, int] = {}
    for position, loop in enumerate(loops):
        stage = stage_of(loop)
        number = before.get(stage, 0)
        if loop.annotation == "parallel":
            flags[position] = True
        elif stage in parallel:
            flags[position] = parallel[stage][chunk] > number
        before[stage] = number + (loop.iterator is not None)
    return flags


Members = Mapping[str | None, tuple[int, list[str]]]


def statements_by_depth(bounds: Bounds) -> Members:
    """For each loop variable (None: the whole program) its depth and the statements inside it."""
    members: dict[str | None, tuple[int, list[str]]] = {None: (0, list(bounds))}
    for name, b in bounds.items():
        for position, loop in enumerate((*b.enclosing, *b.loops)):
            members.setdefault(loop.variable, (position + 1, []))[1].append(name)
    return members


def link(arrays: Mapping[str, StatementArrays], members: Members) -> None:
    """Fill what a statement shares with others: bytes touched inside each depth, and who else uses its buffers."""
    for statement in arrays.values():
        statement.body_bytes = statement_bytes(statement).copy()
        statement.sharers = np.ones(statement.footprint.shape, dtype=np.int64)
        statement.shared_footprint = statement.footprint.copy()
    for depth, names in members.values():
        if len(names) > 1:
            _link_body(depth, [arrays[name] for name in names])


def _link_body(depth: int, statements: Sequence[StatementArrays]) -> None:
    users: dict[str, list[tuple[StatementArrays, int, BufferUse]]] = {}
    for statement in statements:
        for number, use in enumerate(statement.buffers):
            users.setdefault(use.name, []).append((statement, number, use))
    total = np.zeros(statements[0].programs)
    for items in users.values():
        most = least = items[0][0].footprint[items[0][1], depth]
        for statement, number, _ in items[1:]:
            most = np.maximum(most, statement.footprint[number, depth])
            least = np.minimum(least, statement.footprint[number, depth])
        total += most * items[0][2].element_bytes
        if len(items) > 1:
            for statement, number, _ in items:
                statement.sharers[number, depth] = len(items)
                statement.shared_footprint[number, depth] = least
    for statement in statements:
        statement.body_bytes[depth] = total
        statement.company = max(statement.company, depth)
