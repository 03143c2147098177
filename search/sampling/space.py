"""The space of one sketch as arrays: columns by mutation operator, lengths, and what genes must agree with.

Everything here is computed once per sketch. `warm_up` makes all structure templates, after which sampling, mutation and
checking build no `State` any more.

    space = Space(sketch, target, options)
    space.warm_up()
    space.columns("parallel")       # int64[...]
    space.plain                     # int32[holes]
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ansor_py.errors import ScheduleError, plug_in
from ansor_py.lower.bounds import infer_bounds
from ansor_py.schedule.hole import Agreement, Mask
from ansor_py.schedule.sketch import Genes, Sketch
from ansor_py.schedule.state import Gene, State
from ansor_py.schedule.steps import Split
from ansor_py.search.options import SearchOptions
from ansor_py.target import Target


@dataclass(frozen=True)
class TiledAxis:
    """An axis that a sketch splits by genes: its extent and the lengths, inner to outer."""

    extent: int
    lengths: tuple[Gene, ...]


@dataclass(frozen=True, eq=False)
class Space:
    """A sketch, the machine and the options, with everything derived from them."""

    sketch: Sketch
    target: Target
    options: SearchOptions

    def columns(self, move: str) -> NDArray[np.int64]:
        """Columns of the holes with more than one choice that a mutation operator changes."""
        found = [c for c, hole in enumerate(self.sketch.holes) if move in hole.moves and len(hole.choices) > 1]
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
            tiles = all(self.sketch.holes[length.hole].is_tile for length in lengths)
            if step.iterator in extents and len(lengths) == len(step.lengths) and tiles:
                found.append(TiledAxis(extents[step.iterator], lengths))
        return tuple(found)

    @cached_property
    def tile_genes(self) -> frozenset[Gene]:
        """The lengths of the tiled axes."""
        return frozenset(gene for axis in self.tiled_axes for gene in axis.lengths)

    @cached_property
    def plain(self) -> Genes:
        """The plain choice of every hole, int32[holes]."""
        plain = np.zeros(len(self.sketch.holes), dtype=np.int32)
        for column, hole in enumerate(self.sketch.holes):
            with plug_in(hole.title):
                plain[column] = range(len(hole.choices))[hole.plain]
        return plain

    @cached_property
    def often_plain(self) -> Mask:
        """For every hole, whether random programs take its plain choice more often than others, bool[holes]."""
        return np.array([hole.is_often_plain for hole in self.sketch.holes], dtype=np.bool_)

    @cached_property
    def agreements(self) -> dict[int, Agreement]:
        """What the genes of columns must agree with."""
        found: dict[int, Agreement] = {}
        for column, hole in enumerate(self.sketch.holes):
            with plug_in(hole.title):
                if agreement := hole.agreement(self.sketch, column):
                    found[column] = agreement
        return found

    def values(self, gene: Gene, genes: Genes) -> NDArray[np.int64]:
        """The lengths that a gene stands for, int64[n]."""
        return np.asarray(self.sketch.holes[gene.hole].table[genes[:, gene.hole], gene.part])

    def smaller(self, gene: Gene, genes: Genes) -> NDArray[np.int64]:
        """The next smaller lengths that choices of the hole have in the place of those, int64[n]; 0 for the smallest."""
        return np.asarray(self.sketch.holes[gene.hole].smaller[genes[:, gene.hole], gene.part])

    @cached_property
    def legal_structures(self) -> Mask:
        """For every structure key, whether all stages are computed where their consumers find them. Makes all templates."""
        return np.array([template is not None and self._is_legal(template) for template in self.sketch.templates])

    def _is_legal(self, template: State) -> bool:
        try:
            infer_bounds(template, self.sketch.holes, np.zeros((1, len(self.sketch.holes)), dtype=np.int32))
        except ScheduleError:
            return False
        return True

    def warm_up(self) -> None:
        """Make every template and table, so that nothing is built while a population is worked on."""
        _ = (self.first, self.legal_structures, self.tile_genes, self.agreements, self.nodes, self.plain)


def node_of(stage: str) -> str:
    """The DAG node of a stage: that of the stage itself, or the one whose local or partial results it holds."""
    return stage.removesuffix(".local").removesuffix(".rf")
