"""The space of one sketch as arrays: columns by kind of hole, tables of lengths, and constraints between genes.

Everything here is computed once per sketch. `warm_up` makes all structure templates, after which sampling, mutation and
checking build no `State` any more.

    space = Space(sketch, target, options)
    space.warm_up()
    space.columns("tile")       # int64[...]
    space.neighbours(column)    # int32[choices, nearest]
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ansor_py.errors import ScheduleError
from ansor_py.lower.bounds import infer_bounds
from ansor_py.schedule.dag import tensor_flops
from ansor_py.schedule.sketch import Genes, HoleKind, Sketch
from ansor_py.schedule.state import Gene, State
from ansor_py.schedule.steps import Split
from ansor_py.search.options import SearchOptions
from ansor_py.target import Target

# Kinds whose choices are lengths.
LENGTH_KINDS: tuple[HoleKind, ...] = ("tile", "register_tile", "vectorize")


@dataclass(frozen=True)
class TiledAxis:
    """An axis that a sketch splits by genes: its extent and the lengths, inner to outer."""

    extent: int
    lengths: tuple[Gene, ...]


@dataclass(frozen=True, eq=False)
class ParallelLimit:
    """A parallel hole and a location hole that limits it: `most[location gene]` loops may be fused."""

    parallel: int
    location: int
    most: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Space:
    """A sketch, the machine and the options, with everything derived from them."""

    sketch: Sketch
    target: Target
    options: SearchOptions

    def columns(self, *kinds: HoleKind) -> NDArray[np.int64]:
        """Columns of the holes of some kinds that have more than one choice."""
        found = [c for c, hole in enumerate(self.sketch.holes) if hole.kind in kinds and len(hole.choices) > 1]
        return np.array(found, dtype=np.int64)

    @cached_property
    def first(self) -> State:
        """The template of the first structure."""
        return self.sketch.structure([0] * len(self.sketch.holes))

    @cached_property
    def nodes(self) -> dict[str, NDArray[np.int64]]:
        """Columns by the DAG node whose holes they are; a cached or factored part goes with its node."""
        groups: dict[str, list[int]] = {}
        for column, hole in enumerate(self.sketch.holes):
            groups.setdefault(node_of(hole.stage), []).append(column)
        return {name: np.array(group, dtype=np.int64) for name, group in groups.items()}

    @cached_property
    def tiled_axes(self) -> tuple[TiledAxis, ...]:
        """Axes that are split by tile genes right after their stage was made."""
        found = []
        for step in self.sketch.steps:
            if not isinstance(step, Split) or not self.first.has_stage(step.stage):
                continue
            op = self.first.stage(step.stage).op
            extents = {axis.name: axis.extent for axis in (*op.axes, *op.reduce_axes)}
            lengths = tuple(length for length in step.lengths if isinstance(length, Gene))
            kinds = {self.sketch.holes[length.hole].kind for length in lengths}
            if step.iterator in extents and len(lengths) == len(step.lengths) and kinds <= {"tile", "register_tile"}:
                found.append(TiledAxis(extents[step.iterator], lengths))
        return tuple(found)

    @cached_property
    def plain(self) -> NDArray[np.int32]:
        """By hole, the choice of tile lengths that adds no loops (1, or the whole axis of a reduction); -1 for other holes."""
        plain = np.full(len(self.sketch.holes), -1, dtype=np.int32)
        for column, hole in enumerate(self.sketch.holes):
            if hole.kind == "tile":
                ones = [number for number, lengths in enumerate(hole.choices) if set(lengths) == {1}]
                plain[column] = len(hole.choices) - 1 if len(hole.choices[0]) == 1 else ones[0] if ones else -1
        return plain

    def values(self, gene: Gene, genes: Genes) -> NDArray[np.int64]:
        """The lengths that a gene stands for, int64[n]."""
        return np.asarray(self.sketch.holes[gene.hole].table[genes[:, gene.hole], gene.part])

    def previous(self, gene: Gene) -> NDArray[np.int64]:
        """For every choice, the next smaller length that the same part has in some choice; 0 for the smallest."""
        return self._previous[gene]

    @cached_property
    def _previous(self) -> dict[Gene, NDArray[np.int64]]:
        found = {}
        for column, hole in enumerate(self.sketch.holes):
            if hole.kind in LENGTH_KINDS:
                for part in range(hole.table.shape[1]):
                    values = np.unique(hole.table[:, part])
                    found[Gene(column, part)] = np.array([0, *values])[np.searchsorted(values, hole.table[:, part])]
        return found

    def neighbours(self, column: int) -> NDArray[np.int32]:
        """The choices whose lengths are nearest to those of each choice (sum of log ratios), int32[choices, nearest]."""
        return self._neighbours[column]

    @cached_property
    def _neighbours(self) -> dict[int, NDArray[np.int32]]:
        found = {}
        for column in map(int, self.columns(*LENGTH_KINDS)):
            logs = np.log2(self.sketch.holes[column].table)
            distance = np.abs(logs[:, None, :] - logs[None, :, :]).sum(axis=2)
            np.fill_diagonal(distance, np.inf)
            nearest = min(self.options.nearest_lengths, len(logs) - 1)
            found[column] = np.argsort(distance, axis=1, kind="stable")[:, :nearest].astype(np.int32)
        return found

    @cached_property
    def parallel_limits(self) -> tuple[ParallelLimit, ...]:
        """Which locations limit how many loops can be fused: nothing may be computed inside a fused loop but the last."""
        found = []
        for parallel in np.flatnonzero([hole.kind == "parallel" for hole in self.sketch.holes]):
            host = self.first.stage(self.sketch.holes[parallel].stage)
            unlimited = len(host.iterators) + 1
            for location, hole in enumerate(self.sketch.holes):
                if hole.kind != "location":
                    continue
                inside = [choice is not None and choice[0] == host.name for choice in hole.choices]
                if any(inside):
                    most = [
                        host.position(choice[1]) + 1 if within else unlimited
                        for choice, within in zip(hole.choices, inside, strict=True)
                    ]
                    found.append(ParallelLimit(int(parallel), location, np.array(most, dtype=np.int64)))
        return tuple(found)

    @cached_property
    def own_location(self) -> dict[int, int]:
        """For each parallel hole of a movable stage, the column of the stage's location hole."""
        locations = {hole.stage: column for column, hole in enumerate(self.sketch.holes) if hole.kind == "location"}
        return {
            column: locations[hole.stage]
            for column, hole in enumerate(self.sketch.holes)
            if hole.kind == "parallel" and hole.stage in locations
        }

    @cached_property
    def may_be_serial(self) -> dict[int, bool]:
        """For each parallel hole, whether the stage is so small that it may run serially at root."""
        found = {}
        for column, hole in enumerate(self.sketch.holes):
            if hole.kind == "parallel":
                tensor = self.first.stage(hole.stage).tensor
                found[column] = max(tensor_flops(tensor), tensor.size) < self.options.space.serial_operations
        return found

    def structure_keys(self, genes: Genes) -> NDArray[np.int64]:
        """The structural genes of every row as one number."""
        key = np.zeros(len(genes), dtype=np.int64)
        for column in self.sketch.structural:
            key = key * self.sketch.sizes[column] + genes[:, column]
        return key

    @cached_property
    def legal_structures(self) -> NDArray[np.bool_]:
        """For every structure key, whether all stages are computed where their consumers find them. Makes all templates."""
        return np.array([self._is_legal(row) for row in self._structure_rows()], dtype=np.bool_)

    def _structure_rows(self) -> Iterator[Genes]:
        columns = [int(column) for column in self.sketch.structural]
        for choice in itertools.product(*(range(int(self.sketch.sizes[column])) for column in columns)):
            row = np.zeros(len(self.sketch.holes), dtype=np.int32)
            row[columns] = choice
            yield row

    def _is_legal(self, row: Genes) -> bool:
        try:
            infer_bounds(self.sketch.structure(row), self.sketch.holes, row[None, :])
        except ScheduleError:
            return False
        return True

    def warm_up(self) -> None:
        """Make every template and table, so that nothing is built while a population is worked on."""
        _ = (self.first, self.legal_structures, self.tiled_axes, self.parallel_limits, self.own_location)
        _ = (self.may_be_serial, self._neighbours, self._previous, self.nodes, self.sketch.sizes, self.sketch.structural)


def node_of(stage: str) -> str:
    """The DAG node of a stage: that of the stage itself, or the one whose local or partial results it holds."""
    return stage.removesuffix(".local").removesuffix(".rf")
