"""Feature groups about the statement itself: computation, annotated loops, allocation, outer scope (Ansor's groups 1, 4, 5)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ansor_py.cost_model.feature_groups import Columns, feature_group
from ansor_py.cost_model.operation_counts import COUNT_FIELDS
from ansor_py.cost_model.statement_arrays import StatementArrays, innermost, parallel_chunks
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


@feature_group("computation", COUNT_FIELDS)
def computation(statement: StatementArrays, target: Target, out: Columns) -> None:
    """Operations of each kind times the iterations of all enclosing loops."""
    out[:] = statement.operations.column * statement.inner[0]


@feature_group("annotations", [f"{kind}.{name}" for kind in ANNOTATED for name in _ANNOTATION_FIELDS])
def annotated_loops(statement: StatementArrays, target: Target, out: Columns) -> None:
    """Number, product, innermost length and position of the vectorised, unrolled and parallel loops."""
    width = len(_ANNOTATION_FIELDS)
    places = _places([loop.kind for loop in statement.loops])
    out[:] = 0
    for number, kind in enumerate(ANNOTATED):
        columns = out[number * width : (number + 1) * width]
        if kind == "parallel":
            _parallel_loops(statement, places, columns)
            continue
        marked = statement.annotated[kind]
        mixed = len({statement.loops[position].kind for position in marked}) > 1
        columns[3 + (POSITIONS.index("mixed") if mixed else places[marked[-1] if marked else -1])] = 1
        if len(marked):
            columns[0] = len(marked)
            columns[1] = statement.extents[marked].prod(axis=0)
            columns[2] = statement.extents[marked[-1]]


def _parallel_loops(statement: StatementArrays, places: Sequence[int], columns: Columns) -> None:
    """The fields of the parallel loops, which differ from program to program; `columns` are zeros."""
    flags, programs = statement.parallel, statement.everyone
    last = innermost(flags)
    reduces = np.array([loop.kind == "reduction" for loop in statement.loops], dtype=np.bool_)[:, None]
    mixed = (flags & reduces).any(axis=0) & (flags & ~reduces).any(axis=0)
    place = np.where(mixed, POSITIONS.index("mixed"), np.array(places)[last])
    columns[3 + place, programs] = 1
    columns[0] = flags.sum(axis=0)
    some = last >= 0
    columns[1] = np.where(some, parallel_chunks(statement), 0)
    if len(flags):
        columns[2] = np.where(some, statement.extents[last, programs], 0)


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
