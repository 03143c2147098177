"""Annotation: where every stage is computed that the rules left at root (paper, section 4.2; reference page, section 4).

Each such stage gets a structural hole: root, or inside a loop of the stage that consumes it. Inside a tiled consumer the
candidates are the ends of its outer tile levels; inside an untiled one the loops that all reads share, and one loop further
in if the reads overlap there (a halo). Not every combination of several holes is legal: the search checks them.
"""

from __future__ import annotations

import math

import numpy as np

from ansor_py.errors import ScheduleError
from ansor_py.lower.bounds import Bounds, infer_bounds
from ansor_py.schedule.access import common_outer_axes
from ansor_py.schedule.hole_kinds import LocationHole
from ansor_py.schedule.hole_kinds.structure import Place
from ansor_py.schedule.state import At, Root, Stage
from ansor_py.schedule.steps import ComputeAt
from ansor_py.sketch_rules.notes import TileLevels
from ansor_py.sketch_rules.partial_sketch import PartialSketch
from ansor_py.te.expr import reads_of, variables_of

# Of a long chain of stages only the first ones are looked at: few of them can have a hole, whose choices multiply.
MOST_MOVABLE = 16


def annotate_location(sketch: PartialSketch) -> PartialSketch:
    """The sketch with a location hole for every stage that can be computed in more than one place."""
    found: dict[str, list[Place]] = {}
    extents = sampled_extents(sketch)
    movable = [stage for stage in sketch.state.stages if _is_movable(sketch, stage)]
    for stage in reversed(movable[:MOST_MOVABLE]):
        places = [place for place in _places(sketch, stage, found) if extents.get(place, 1) > 1]
        places = [place for place in places if _is_legal(sketch, stage.name, place, found)]
        if places:
            found[stage.name] = places
    for name, places in _bounded(sketch, found).items():
        sketch = sketch.choose(LocationHole(f"location {name}", name, (None, *places)))
    return sketch


def _is_movable(sketch: PartialSketch, stage: Stage) -> bool:
    """Whether the rules left it to this annotation where the stage is computed."""
    at_root = isinstance(stage.location, Root) and not sketch.state.is_output(stage.name)
    return at_root and sketch.note(stage.name, TileLevels) is None and stage.name not in sketch.state.prepacked


def _places(sketch: PartialSketch, stage: Stage, found: dict[str, list[Place]]) -> list[Place]:
    """Loops inside which a stage may be computed, outermost first; its consumer's before those of the hosts."""
    consumers = sketch.state.consumers(stage.name)
    if not consumers:
        return []
    # With several consumers the last one hosts the stage, provided that the others are computed inside it as well.
    host = max(consumers, key=lambda item: [s.name for s in sketch.state.stages].index(item.name))
    places = _places_in(sketch, stage, host)
    for upper in found.get(host.name, []):
        if upper not in places:
            places.append(upper)
    while isinstance(host.location, At):
        around = sketch.state.stage(host.location.stage)
        places += _places_in(sketch, stage, around, until=host.location.iterator)
        host = around
    return places


def _places_in(sketch: PartialSketch, stage: Stage, host: Stage, until: str | None = None) -> list[Place]:
    """Candidate loops of one host; `until` is the loop at which the actual consumer is attached (and beyond which it ends)."""
    levels = sketch.note(host.name, TileLevels)
    if levels is not None:
        ends = [level[-1] for level in levels.loops[: sketch.options.location_levels] if level]
    else:
        ends = _shared_loops(sketch, stage, host)
    places: list[Place] = []
    for iterator in host.iterators:
        if iterator.annotation == "vectorize":
            break
        if iterator.name in ends:
            places.append((host.name, iterator.name))
        if iterator.name == until or (until is None and sketch.state.attached_to(host.name, iterator.name)):
            break
    return places


def _shared_loops(sketch: PartialSketch, stage: Stage, host: Stage) -> list[str]:
    """Of an untiled host: the last loop over axes that all reads share, and the next one if the reads move along with it."""
    whole = sketch.state.whole(host.name)
    reads = [read for read in reads_of(sketch.state.body(host.name)) if read.tensor.name == stage.name]
    if not reads:
        return []
    shared = common_outer_axes(whole, stage.tensor)
    for other in sketch.state.consumers(stage.name):  # all have to find what they need within one iteration
        if other.name != host.name:
            shared = min(shared, common_outer_axes(sketch.state.whole(other.name), stage.tensor))
    axes = host.op.axes
    loops = [axes[shared - 1].name] if shared else []
    if shared < len(axes):
        used = set().union(*(variables_of(index) for read in reads for index in read.indices))
        if axes[shared].name in used:
            loops.append(axes[shared].name)
    while shared > 1 and axes[shared - 1].extent == 1:  # a loop of one iteration stands for the one around it
        shared -= 1
        loops.append(axes[shared - 1].name)
    return [name if any(item.name == name for item in host.iterators) else f"{name}.0" for name in loops]


def sampled_extents(sketch: PartialSketch) -> dict[Place, int]:
    """The largest extent that each loop reaches over a fixed sample of genes; loops that never run twice host nothing."""
    rng = np.random.default_rng(0)
    genes = rng.integers(0, [len(hole.choices) for hole in sketch.holes], (64, len(sketch.holes))).astype(np.int32)
    bounds: Bounds = infer_bounds(sketch.state, sketch.holes, genes)
    return {
        (name, iterator.name): int(np.max(b.extents[iterator.name]))
        for name, b in bounds.items()
        for iterator in b.stage.iterators
    }


def _is_legal(sketch: PartialSketch, name: str, place: Place, found: dict[str, list[Place]]) -> bool:
    """Whether the stage can be computed there, its other consumers being at root or, where they can, in the same place."""
    genes = np.zeros((1, len(sketch.holes)), dtype=np.int32)
    companions = [other for other, places in found.items() if place in places]
    for moved in ([], companions):
        try:
            trial = sketch.state.replay([ComputeAt(other, *place) for other in (*moved, name)])
            infer_bounds(trial, sketch.holes, genes)
        except ScheduleError:
            continue
        return True
    return False


def _bounded(sketch: PartialSketch, found: dict[str, list[Place]]) -> dict[str, list[Place]]:
    """The places, the innermost ones of the longest lists dropped until the sketch has few enough structures."""
    structural = math.prod(len(hole.choices) for hole in sketch.structural)
    kept = {name: list(places) for name, places in found.items()}
    while structural * math.prod(1 + len(places) for places in kept.values()) > sketch.options.location_structures:
        longest = max(kept, key=lambda name: len(kept[name]))
        kept[longest].pop()
        if not kept[longest]:
            del kept[longest]
    return kept
