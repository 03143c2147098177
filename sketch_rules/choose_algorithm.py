"""Rule: another algorithm for a stage, such as Winograd's for a convolution by small windows (`ansor_py.schedule.algorithms`).

The algorithm's stages are then tiled, packed and fused by the other rules, as if the model had been written so.
"""

from __future__ import annotations

from ansor_py.schedule.access import is_elementwise_read
from ansor_py.schedule.algorithms import Algorithm, admitted
from ansor_py.schedule.hole_kinds import TileHole
from ansor_py.schedule.state import Gene, Inlined, Root, Stage
from ansor_py.schedule.steps import ComputeAt, ComputeInline, Reorder, Split, Step, UseAlgorithm
from ansor_py.sketch_rules.notes import ComputedForCopy, MadeByAlgorithm
from ansor_py.sketch_rules.partial_sketch import PartialSketch
from ansor_py.sketch_rules.rule import Derived, Rule, Verdict, rule
from ansor_py.sketch_rules.tile_sizes import level_sizes
from ansor_py.te.expr import Axis, Binary, Const


@rule("choose_algorithm")
class ChooseAlgorithm(Rule):
    """For a reduction, each algorithm that applies and that `SpaceOptions.math` admits; the definition as it is stays.

    The result is computed where its elementwise consumer reads it, if it has one.

    Before, and after on stage `S`:

        for i in 20:
          for k in 16:
            S[i] = sum(A[i, k], axes=[k])

        halves(S)
        for i0 in 2:
          for i1 in 20:
            for k in 8:
              S.halves[i0, i1] = sum(A[i1, ((i0 * 8) + k)], axes=[k])
        for i0 in 20:
          S[i0] = (S.halves[0, i0] + S.halves[1, i0])
    """

    def condition(self, sketch: PartialSketch, number: int) -> Verdict:
        return "apply" if _applicable(sketch, sketch.stage(number)) else "skip"

    def apply(self, sketch: PartialSketch, number: int) -> list[Derived]:
        name = sketch.stage(number).name
        found: list[Derived] = []
        for algorithm in _applicable(sketch, sketch.stage(number)):
            changed = _changed(sketch, name, algorithm)
            blocks = _in_blocks(changed, name)
            found += [(item, _position(item, name)) for item in (changed, blocks) if item is not None]
        return found


def _applicable(sketch: PartialSketch, stage: Stage) -> list[Algorithm]:
    untouched = bool(stage.op.reduce_axes) and stage.is_unscheduled and isinstance(stage.location, Root)
    noted = any(sketch.note(stage.name, kind) for kind in (MadeByAlgorithm, ComputedForCopy))
    if not untouched or noted or sketch.state.attached_to(stage.name):
        return []
    return [item for item in admitted(sketch.options.math) if item.built(stage.tensor) is not None]


def _position(sketch: PartialSketch, name: str) -> int:
    return [item.name for item in sketch.state.stages].index(name)


def _changed(sketch: PartialSketch, name: str, algorithm: Algorithm) -> PartialSketch:
    before = {stage.name for stage in sketch.state.stages}
    sketch = sketch.apply(UseAlgorithm(name, algorithm.name)).with_label(f"{algorithm.name}({name})")
    for stage in sketch.state.stages:
        if stage.name == name or stage.name not in before:
            sketch = sketch.with_note(stage.name, MadeByAlgorithm(algorithm.name))
    consumers = sketch.state.consumers(name)
    stage = sketch.state.stage(name)
    reduces = bool(stage.op.reduce_axes) or any(consumer.op.reduce_axes for consumer in consumers)
    alone = len(consumers) == 1 and not sketch.state.is_output(name) and not reduces
    if alone and is_elementwise_read(sketch.state.whole(consumers[0].name), stage.tensor):
        sketch = sketch.apply(ComputeInline(name)).with_note(consumers[0].name, MadeByAlgorithm(algorithm.name))
    return sketch


def _in_blocks(sketch: PartialSketch, name: str) -> PartialSketch | None:
    """The same with the algorithm's stages computed for blocks of tiles of the result, so that they stay in the cache.

    None for an algorithm that has no tiles.
    """
    stage = sketch.state.stage(name)
    host = sketch.state.consumers(name)[0] if isinstance(stage.location, Inlined) else stage
    tiled = _tiled_axes(sketch, host)
    if not tiled or not host.is_unscheduled:
        return None
    own = [item for item in sketch.state.stages if item.name not in (name, host.name) and _is_inside(sketch, item, name)]
    splits: list[Step] = []
    for axis, size in tiled.items():
        counts = level_sizes(-(-axis.extent // size), sketch.options.largest_block, sketch.options)
        hole = TileHole(f"block {host.name}.{axis.name}", host.name, tuple((size * count,) for count in counts))
        sketch, number = sketch.with_hole(hole)
        splits.append(Split(host.name, axis.name, (Gene(number),)))
    units = [axis.name for axis in host.op.axes if axis.extent == 1 and axis not in tiled]
    blocks = [f"{axis.name}.0" for axis in tiled]
    inside = [f"{axis.name}.1" if axis in tiled else axis.name for axis in host.op.axes if axis.name not in units]
    return sketch.apply(
        *splits,
        Reorder(host.name, (*units, *blocks, *inside)),
        *(ComputeAt(item.name, host.name, blocks[-1]) for item in reversed(own)),
    ).with_label("in blocks")


def _tiled_axes(sketch: PartialSketch, host: Stage) -> dict[Axis, int]:
    """The axes of a stage by whose quotients it reads what an algorithm made, and the divisors: how long a tile is."""
    found: dict[Axis, int] = {}
    for read in sketch.state.reads(host.name):
        for index in read.indices if sketch.note(read.tensor.name, MadeByAlgorithm) else ():
            if isinstance(index, Binary) and index.op == "floordiv" and isinstance(index.right, Const):
                size = int(index.right.value)
                found |= {axis: size for axis in host.op.axes if axis == index.left and axis.extent > size}
    return found


def _is_inside(sketch: PartialSketch, stage: Stage, name: str) -> bool:
    """Whether an algorithm brought the stage for another one, to be computed in every run."""
    return stage.name.startswith(f"{name}.") and stage.name not in sketch.state.prepacked
