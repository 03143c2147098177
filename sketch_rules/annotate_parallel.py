"""Annotation: how many of a stage's outermost loops are fused and run in parallel (paper, section 4.2).

A hole's choice is that number; 0 is serial. Loops are counted up to the first reduction or vector loop, and up to a loop
inside which something is always computed (that one included). Where a *choosable* location lies inside the fused loops, the
search's validity check rejects or mends the combination.
"""

from __future__ import annotations

from ansor_py.schedule.dag import tensor_flops
from ansor_py.schedule.hole_kinds import ParallelHole
from ansor_py.schedule.state import At, Root, Stage
from ansor_py.schedule.steps import ComputeAt
from ansor_py.sketch_rules.annotate_location import sampled_extents
from ansor_py.sketch_rules.notes import TileLevels
from ansor_py.sketch_rules.partial_sketch import PartialSketch


def annotate_parallel(sketch: PartialSketch) -> PartialSketch:
    """The sketch with a parallel hole for every stage that is or may be at root, if the target has more than one core."""
    if sketch.target.cores == 1:
        return sketch
    extents = sampled_extents(sketch)
    moves = [step for hole in sketch.structural for choice in hole.choices for step in hole.steps(choice)]
    movable = {step.stage for step in moves if isinstance(step, ComputeAt)}
    for stage in sketch.state.stages:
        if (not isinstance(stage.location, Root) and stage.name not in movable) or stage.name in sketch.state.prepacked:
            continue
        loops = _outer_loops(sketch, stage)
        counts = [number for number, loop in enumerate(loops, 1) if extents.get((stage.name, loop), 1) > 1]
        counts = _at_level_ends(sketch, stage, counts)
        if not counts:
            continue
        small = max(tensor_flops(stage.tensor), stage.tensor.size) < sketch.options.serial_operations
        if stage.name in movable or small:
            counts = [0, *counts]
        sketch = sketch.choose(ParallelHole(f"parallel {stage.name}", stage.name, tuple(counts), tuple(loops), small))
    return sketch


def _outer_loops(sketch: PartialSketch, stage: Stage) -> list[str]:
    fixed = {other.location.iterator for other in sketch.state.attached_to(stage.name) if isinstance(other.location, At)}
    loops: list[str] = []
    for iterator in stage.plain_outer_iterators:
        loops.append(iterator.name)
        if iterator.name in fixed:
            break
    return loops


def _at_level_ends(sketch: PartialSketch, stage: Stage, counts: list[int]) -> list[int]:
    """Of a tiled stage: any number of loops of the outermost level, or all of the two outermost levels."""
    levels = sketch.note(stage.name, TileLevels)
    if levels is None:
        return counts[: sketch.options.most_parallel_loops]
    first = len(levels.loops[0])
    second = first + len(levels.loops[1])
    return [count for count in counts if count <= first or count == second]
