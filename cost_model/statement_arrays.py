"""One statement over a population: loop extents, index coefficients and footprints as dense arrays.

This is where the loop nest of a template becomes numbers (design, Idea 2). Axis names below: L loops that enclose the
statement, outermost first; D = L + 1 depths, where depth d means that the d outermost loops stand still and the others
run; B buffers (the stored one first); n programs. All arrays are float64, exact for integers up to 2**53.

    arrays = TemplateArrays(population.sketch, template, bounds, genes, target)      # template_arrays.py
    for statement in arrays.statements(slice(0, 100)):
        statement.footprint[b, d]                            # elements of buffer b touched inside depth d
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from ansor_py.cost_model.index_table import BufferUse
from ansor_py.cost_model.native_loops import Flags, Floats, Integers
from ansor_py.cost_model.operation_counts import OperationCounts
from ansor_py.lower.affine import Number
from ansor_py.lower.bounds import LoopBounds, StageBounds
from ansor_py.lower.register_tile import StageTile
from ansor_py.target import Target
from ansor_py.te.expr import Reduce


@dataclass(eq=False)
class StatementArrays:
    """What the feature groups read. The last fields depend on the other statements as well."""

    bounds: StageBounds
    tile: StageTile
    loops: tuple[LoopBounds, ...]
    programs: int
    chunk: slice  # which programs of the population, over which the numbers of `bounds` are
    extents: Floats  # [L, n]
    inner: Floats  # [D, n] iterations of the loops that run at a depth
    buffers: tuple[BufferUse, ...]
    strides: Floats  # [B, L, n] elements between consecutive iterations of a loop
    footprint: Floats  # [B, D, n] elements touched inside a depth
    runs: Floats  # [B, D, n] consecutive elements touched inside a depth
    neighbours: Floats  # [B, D, n] such runs along the next dimension
    pitches: Floats  # [2, B, D, n] elements from one of them to the next, and between what they make up; 0 where there is one
    touched_bytes: Floats  # [D, n] touched by the statement alone inside a depth
    parallel: Flags  # [L, n]
    unroll_limit: Floats  # [n]
    operations: OperationCounts
    allocated: Floats | None  # [n] elements of the stored buffer if it is a temporary
    allocation_depth: int  # number of loops around the allocation, those of other stages
    work: int  # iterations of the definition: all axes at full extent
    prepacked: bool  # computed from constants alone, once and not in every call
    sharers: Integers  # [B, D, n] statements using a buffer inside a depth, the same for all programs
    company: int  # number of outer loops that run around other statements, too
    body_bytes: Floats = field(default_factory=lambda: np.empty(0))  # [D, n] touched by all statements inside a depth
    shared_footprint: Floats = field(default_factory=lambda: np.empty(0))  # [B, D, n] least elements that one of them touches
    kept: dict[str, Floats] = field(default_factory=dict)  # what several groups read and is computed once

    def number(self, value: Number) -> Floats:
        """A number of `bounds` for these programs, [n] or []."""
        numbers = np.asarray(value, dtype=np.float64)
        return numbers[self.chunk] if numbers.ndim else numbers

    @cached_property
    def vectorised(self) -> Integers:
        """Positions of the vectorised loops."""
        return np.array(
            [position for position, loop in enumerate(self.loops) if loop.annotation == "vectorize"], dtype=np.int64
        )

    @cached_property
    def reduces(self) -> Flags:
        """Which of the loops are reduction loops [L]."""
        return np.array([loop.kind == "reduction" for loop in self.loops], dtype=np.bool_)

    @cached_property
    def element_bytes(self) -> Floats:
        """Bytes [B] of an element of each buffer."""
        return np.array([float(use.element_bytes) for use in self.buffers])

    @property
    def tile_depth(self) -> int:
        """The depth inside which the register tile runs."""
        return len(self.bounds.enclosing) + self.tile.first

    @cached_property
    def reduction_depth(self) -> int | None:
        """The same; None if the statement does not reduce in a loop of its own."""
        reduces = isinstance(self.bounds.body, Reduce) and any(loop.kind == "reduction" for loop in self.bounds.loops)
        return self.tile_depth if reduces else None

    @property
    def reduction_loops(self) -> list[int]:
        """Positions of the reduction loops right around the tile, innermost first."""
        first = len(self.bounds.enclosing)
        return [first + position for position in self.tile.reduction_loops(self.bounds)]

    def tile_registers(self, target: Target) -> Floats:
        """Vector registers [n] that the tile takes."""
        own = self.extents[len(self.bounds.enclosing) :].astype(np.int64)
        extents = {loop.name: extent for loop, extent in zip(self.bounds.loops, own, strict=True)}
        rows, vectors, is_partial = map(
            np.asarray, (self.tile.rows(extents), self.tile.vectors(extents), self.tile.is_partial(extents))
        )
        return np.asarray(self.tile.kernel.registers(rows, vectors, is_partial, target), dtype=np.float64)
