"""Annotation: up to how many emitted instructions the inner loops of a reduction are unrolled (paper, section 4.2)."""

from __future__ import annotations

from ansor_py.schedule.hole_kinds import UnrollHole
from ansor_py.schedule.state import Inlined
from ansor_py.sketch_rules.partial_sketch import PartialSketch


def annotate_unroll(sketch: PartialSketch) -> PartialSketch:
    """The sketch with an unroll hole for every stage that reduces."""
    limits = sketch.options.unroll_limits
    for stage in sketch.state.stages:
        if isinstance(stage.location, Inlined) or not any(item.kind == "reduction" for item in stage.iterators):
            continue
        sketch = sketch.choose(UnrollHole(f"unroll {stage.name}", stage.name, limits))
    return sketch
