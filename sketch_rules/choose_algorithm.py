"""Rule: another algorithm for a stage, such as Winograd's for a convolution by small windows (`ansor_py.schedule.algorithms`).

The algorithm's stages are then tiled, packed and fused by the other rules, as if the model had been written so.
"""

from __future__ import annotations

from collections.abc import Sequence

from ansor_py.schedule.access import is_elementwise_read
from ansor_py.schedule.algorithms import Algorithm, admitted
from ansor_py.schedule.hole_kinds import TileHole
from ansor_py.schedule.state import Gene, Inlined, Root, Stage
from ansor_py.schedule.steps import ComputeAt, ComputeInline, Reorder, Split, UseAlgorithm
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
    """The same with the algorithm's stages computed for blocks of tiles of the result, so that they stay in the cache."""
    stage = sketch.state.stage(name)
    host = sketch.state.consumers(name)[0] if isinstance(stage.location, Inlined) else stage
    tiled = _tiled_axis(sketch, host)
    if tiled is None or not host.is_unscheduled:
        return None
    axis, size = tiled
    own = [item for item in sketch.state.stages if item.name not in (name, host.name) and _is_inside(sketch, item, name)]
    counts = level_sizes(-(-axis.extent // size), sketch.options.largest_block, sketch.options)
    hole = TileHole(f"block {host.name}.{axis.name}", host.name, tuple((size * count,) for count in counts))
    sketch, number = sketch.with_hole(hole)
    others = [item.name for item in host.iterators if item.name != axis.name]
    first = [other.name for other in host.op.axes if other.extent == 1 and other.name in others]
    order = (*first, f"{axis.name}.0", *(item for item in others if item not in first))
    position = order.index(f"{axis.name}.0") + 1
    sketch = sketch.apply(
        Split(host.name, axis.name, (Gene(number),)),
        Reorder(host.name, (*order[:position], *_with_inner(order[position:], host, axis.name))),
        *(ComputeAt(item.name, host.name, f"{axis.name}.0") for item in reversed(own)),
    )
    return sketch.with_label("in blocks")


def _with_inner(order: Sequence[str], host: Stage, axis: str) -> list[str]:
    """The loops with the inner part of the axis where the axis was among them."""
    names = [item.name for item in host.iterators]
    before = [name for name in order if names.index(name) < names.index(axis)]
    return [*before, f"{axis}.1", *(name for name in order if name not in before)]


def _tiled_axis(sketch: PartialSketch, host: Stage) -> tuple[Axis, int] | None:
    """The first axis of a stage by whose quotient it reads what an algorithm made, and the divisor, a tile's length.

    The last axis runs in lanes.
    """
    outer = [axis for axis in host.op.axes if axis.extent > 1][:-1]
    for read in sketch.state.reads(host.name):
        for index in read.indices if sketch.note(read.tensor.name, MadeByAlgorithm) else ():
            if isinstance(index, Binary) and index.op == "floordiv" and isinstance(index.right, Const):
                axis = next((axis for axis in outer if axis == index.left), None)
                if axis is not None and axis.extent > index.right.value:
                    return axis, int(index.right.value)
    return None


def _is_inside(sketch: PartialSketch, stage: Stage, name: str) -> bool:
    """Whether an algorithm brought the stage for another one, to be computed in every run."""
    return stage.name.startswith(f"{name}.") and stage.name not in sketch.state.prepacked
