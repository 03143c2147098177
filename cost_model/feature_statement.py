"""Feature groups about the statement itself: computation, annotated loops, allocation, outer scope (Ansor's groups 1, 4, 5)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ansor_py.cost_model.feature_groups import Columns, feature_group
from ansor_py.cost_model.native_loops import Flags, Floats, Integers, native
from ansor_py.cost_model.operation_counts import COUNT_FIELDS
from ansor_py.cost_model.statement_arrays import StatementArrays
from ansor_py.schedule.state import Annotation
from ansor_py.target import Target

POSITIONS = (
    "none",
    "inner_spatial",
    "middle_spatial",
    "outer_spatial",
    "inner_reduction",
    "middle_reduction",
    "outer_reduction",
    "mixed",
)
ANNOTATED: tuple[Annotation, ...] = ("vectorize", "unroll", "parallel")
_ANNOTATION_FIELDS = ("loops", "product", "length", *(f"at_{position}" for position in POSITIONS))
WIDTH, MIXED = len(_ANNOTATION_FIELDS), POSITIONS.index("mixed")


@feature_group("computation", COUNT_FIELDS)
def computation(statement: StatementArrays, target: Target, out: Columns) -> None:
    """Operations of each kind times the iterations of all enclosing loops."""
    out[:] = statement.operations.column * statement.inner[0]


@feature_group("annotations", [f"{kind}.{name}" for kind in ANNOTATED for name in _ANNOTATION_FIELDS])
def annotated_loops(statement: StatementArrays, target: Target, out: Columns) -> None:
    """Number, product, innermost length and position of the vectorised, unrolled and parallel loops."""
    places = np.array(_places([loop.kind for loop in statement.loops]))
    annotated = np.array([[loop.annotation == kind for loop in statement.loops] for kind in ANNOTATED], dtype=np.bool_)
    _annotated_loops(statement.extents, statement.parallel, annotated, statement.reduces, places, out)


@native
def _annotated_loops(
    extents: Floats, parallel: Flags, annotated: Flags, reduces: Flags, places: Integers, out: Columns
) -> None:
    """`annotated` bool[kinds, L] are the loops of each kind; the parallel ones, the last, differ from program to program."""
    levels, programs = extents.shape
    kinds = len(annotated)
    for program in range(programs):
        for field in range(len(out)):
            out[field, program] = 0.0
        for kind in range(kinds):
            loops, product, length, spatial, reduction, place = 0, 1.0, 0.0, False, False, places[-1]
            for level in range(levels):
                if parallel[level, program] if kind == kinds - 1 else annotated[kind, level]:
                    loops += 1
                    product *= extents[level, program]
                    length, place = extents[level, program], places[level]
                    spatial, reduction = spatial or not reduces[level], reduction or reduces[level]
            start = kind * WIDTH
            if loops:
                out[start, program] = loops
                out[start + 1, program] = product
                out[start + 2, program] = length
            out[start + 3 + (MIXED if spatial and reduction else place), program] = 1.0


def _places(kinds: Sequence[str]) -> list[int]:
    """For each loop the entry of `POSITIONS` with its place among the loops of its kind; the last item, [-1], is "none"."""
    first = {kind: position for position, kind in reversed(list(enumerate(kinds)))}
    last = {kind: position for position, kind in enumerate(kinds)}
    places = []
    for position, kind in enumerate(kinds):
        where = "inner" if position == last[kind] else "outer" if position == first[kind] else "middle"
        places.append(POSITIONS.index(f"{where}_{kind}"))
    return [*places, POSITIONS.index("none")]


@feature_group("allocation", ["allocated_bytes", "allocated_total", "allocation_outer", "allocation_inner"])
def allocation(statement: StatementArrays, target: Target, out: Columns) -> None:
    """The temporary that the statement stores to; zeros for an output."""
    if statement.allocated is None:
        out[:] = 0
        return
    outside = statement.inner[0] / statement.inner[statement.allocation_depth]
    out[0] = statement.allocated * statement.buffers[0].element_bytes
    out[1] = statement.allocated * outside
    out[2] = outside
    out[3] = statement.inner[statement.allocation_depth]


@feature_group("outer_scope", ["iterations", "loops", "unroll_limit"])
def outer_scope(statement: StatementArrays, target: Target, out: Columns) -> None:
    """All iterations, the number of loops that run more than once, the auto-unroll limit."""
    out[0] = statement.inner[0]
    out[1] = (statement.extents > 1).sum(axis=0)
    out[2] = statement.unroll_limit
