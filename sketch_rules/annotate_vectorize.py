"""Annotation: the vector loop of every stage that has none yet (paper, section 4.2).

The innermost part of the vector axis is split by a hole's choice of lengths, moved innermost and computed in lanes. A length
beyond the loop's extent covers all of it.
"""

from __future__ import annotations

from ansor_py.schedule.sketch import Hole
from ansor_py.schedule.state import Gene, Inlined, Stage
from ansor_py.schedule.steps import Reorder, Split, Vectorize
from ansor_py.sketch_rules.partial_sketch import PartialSketch, innermost_part, moved_last
from ansor_py.sketch_rules.vector_axis import NEAR_STRIDE, read_stride, vector_axis
from ansor_py.te.expr import Axis, Expr, reads_of

VECTORS = (1, 2, 4)


def annotate_vectorize(sketch: PartialSketch) -> PartialSketch:
    """The sketch with a vector loop in every stage that is computed and has an axis longer than 1."""
    for stage in sketch.state.stages:
        vectorised = any(item.annotation == "vectorize" for item in stage.iterators)
        if not vectorised and not isinstance(stage.location, Inlined) and not sketch.state.is_prepared(stage.name):
            sketch = _vectorise(sketch, stage)
    return sketch


def _vectorise(sketch: PartialSketch, stage: Stage) -> PartialSketch:
    body = sketch.state.body(stage.name)
    axis = vector_axis(stage, body)
    if axis is None:
        return sketch
    loop = innermost_part(stage, axis.name)
    if sketch.state.attached_to(stage.name, loop):
        return sketch
    lanes = sketch.target.lanes(stage.tensor.dtype)
    choices = vector_choices(axis.extent, lanes, _is_contiguous(stage, body, axis))
    sketch, hole = sketch.with_hole(Hole(f"vectorize {stage.name}", "vectorize", stage.name, choices))
    sketch = sketch.apply(Split(stage.name, loop, (Gene(hole),)))
    inner = f"{loop}.1"
    order = moved_last(sketch.state.stage(stage.name), inner)
    if order[-2:] != (f"{loop}.0", inner):
        sketch = sketch.apply(Reorder(stage.name, order))
    levels = sketch.levels.get(stage.name)
    if levels is not None:
        parts = tuple(tuple(f"{item}.0" if item == loop else item for item in level) for level in levels)
        sketch = sketch.with_levels(stage.name, (*parts, (inner,)))
    return sketch.apply(Vectorize(stage.name, inner))


def vector_choices(extent: int, lanes: int, contiguous: bool) -> tuple[int, ...]:
    """Lengths of a vector loop: half a vector to four, the whole axis if shorter, and 1 where elements are not neighbours."""
    found = {min(extent, lanes * vectors) for vectors in VECTORS}
    if lanes // 2 > 1:
        found.add(min(extent, lanes // 2))
    return tuple(sorted(found if contiguous else found | {1}))


def _is_contiguous(stage: Stage, body: Expr, axis: Axis) -> bool:
    """Whether the lanes of every load are the same element or near ones."""
    strides = [read_stride(read, stage, axis) for read in reads_of(body)]
    return all(stride is not None and abs(stride) <= NEAR_STRIDE for stride in strides)
