"""Feature groups about the statement itself: computation, annotated loops, allocation, outer scope (Ansor's groups 1, 4, 5)."""

from __future__ import annotations

import numpy as np

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
    for number, kind in enumerate(ANNOTATED):
        mask = annotated(statement, kind)
        columns = out[number * width : (number + 1) * width]
        columns[:] = 0
        if not mask.any():
            columns[3] = 1
            continue
        columns[0] = mask.sum(axis=0)
        columns[1] = np.where(mask, statement.extents, 1.0).prod(axis=0)
        innermost = innermost_flag(mask)
        columns[1] *= innermost >= 0
        lengths = np.take_along_axis(statement.extents, np.maximum(innermost, 0)[None], axis=0)[0]
        columns[2] = np.where(innermost >= 0, lengths, 0)
        place = _places(statement)[innermost]  # index -1 is the last entry, "none"
        reduction = np.array([loop.kind == "reduction" for loop in statement.loops])
        mixed = mask[reduction].any(axis=0) & mask[~reduction].any(axis=0)
        place = np.where(mixed, POSITIONS.index("mixed"), place)
        columns[3:] = place[None] == np.arange(len(POSITIONS))[:, None]


def annotated(statement: StatementArrays, kind: Annotation) -> Flags:
    """bool[L, n]: which loops carry an annotation."""
    if kind == "parallel":
        return statement.parallel
    flags = np.array([loop.annotation == kind for loop in statement.loops], dtype=np.bool_)
    return np.broadcast_to(flags[:, None], statement.extents.shape)


def innermost_flag(mask: Flags) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """The largest index along axis -2 whose flag is set; -1 if none is."""
    levels = np.arange(1, mask.shape[-2] + 1)[:, None]
    return np.asarray((mask * levels).max(axis=-2, initial=0) - 1)


def _places(statement: StatementArrays) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """For each loop its place among the statement's loops of the same kind; a last entry says none."""
    places = []
    for position, loop in enumerate(statement.loops):
        same = [p for p, other in enumerate(statement.loops) if other.kind == loop.kind]
        where = "inner" if position == same[-1] else "outer" if position == same[0] else "middle"
        places.append(POSITIONS.index(f"{where}_{loop.kind}"))
    return np.array([*places, POSITIONS.index("none")])


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
