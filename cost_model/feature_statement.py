"""Feature groups about the statement itself: computation, annotated loops, allocation, outer scope (Ansor's groups 1, 4, 5)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ansor_py.cost_model.feature_groups import Columns, feature_group
from ansor_py.cost_model.operation_counts import COUNT_FIELDS
from ansor_py.cost_model.statement_arrays import Flags, StatementArrays
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
    for column, name in enumerate(COUNT_FIELDS):
        count = getattr(statement.operations, name)
        out[column] = count * statement.inner[0] if count else 0


@feature_group("annotations", [f"{kind}.{name}" for kind in ANNOTATED for name in _ANNOTATION_FIELDS])
def annotated_loops(statement: StatementArrays, target: Target, out: Columns) -> None:
    """Number, product, innermost length and position of the vectorised, unrolled and parallel loops."""
    width = len(_ANNOTATION_FIELDS)
    kinds = [loop.kind for loop in statement.loops]
    for number, kind in enumerate(ANNOTATED):
        columns = out[number * width : (number + 1) * width]
        columns[:] = 0
        for mask, programs in _same_masks(statement, kind):
            marked = np.flatnonzero(mask)
            place = _place(kinds, marked)
            columns[3 + POSITIONS.index(place), programs] = 1
            if len(marked):
                columns[0, programs] = len(marked)
                columns[1, programs] = statement.extents[marked][:, programs].prod(axis=0)
                columns[2, programs] = statement.extents[marked[-1], programs]


Programs = slice | NDArray[np.int64]


def _same_masks(statement: StatementArrays, kind: Annotation) -> list[tuple[Flags, Programs]]:
    """Which loops carry an annotation, bool[L], and the programs for which it is so."""
    everyone = slice(0, statement.programs)
    if kind != "parallel":
        return [(annotated(statement, kind), everyone)]
    flags = statement.parallel
    keys = (1 << np.arange(len(flags))) @ flags
    found: list[tuple[Flags, Programs]] = []
    for key in np.unique(keys):
        programs = np.flatnonzero(keys == key)
        found.append((flags[:, programs[0]], everyone if len(programs) == statement.programs else programs))
    return found


def _place(kinds: Sequence[str], marked: NDArray[np.int64]) -> str:
    """The place of the innermost marked loop among the loops of its kind; see `POSITIONS`."""
    if not len(marked):
        return "none"
    last = int(marked[-1])
    if any(kinds[position] != kinds[last] for position in marked):
        return "mixed"
    same = [position for position, kind in enumerate(kinds) if kind == kinds[last]]
    where = "inner" if last == same[-1] else "outer" if last == same[0] else "middle"
    return f"{where}_{kinds[last]}"


def annotated(statement: StatementArrays, kind: Annotation) -> Flags:
    """bool[L]: which loops carry an annotation that does not depend on the program."""
    return np.array([loop.annotation == kind for loop in statement.loops], dtype=np.bool_)


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
