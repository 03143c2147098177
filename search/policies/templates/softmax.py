"""Template `softmax`: maxima, exponentials and sums of a block of rows stay in the cache until its results are written.

Knobs are the number of rows in a block, the lengths of the vector loops and the unroll limits. Blocks run in parallel.

    template_sketches(ComputeDAG.from_outputs(from_spec("softmax:512,1024")), target)
"""

from __future__ import annotations

from dataclasses import dataclass

from ansor_py.schedule.hole_kinds import TileHole
from ansor_py.schedule.state import Gene, Inlined, Stage
from ansor_py.schedule.steps import ComputeAt, Reorder, Split
from ansor_py.search.policies.templates.registry import template
from ansor_py.sketch_rules.notes import TileLevels
from ansor_py.sketch_rules.partial_sketch import PartialSketch
from ansor_py.sketch_rules.tile_sizes import level_sizes
from ansor_py.te.expr import Call, Reduce, Var, reads_of, walk


@dataclass(frozen=True)
class _Parts:
    """The stages of a softmax, producers first, the last of which writes the result, and the axes of that one along rows."""

    stages: tuple[Stage, ...]
    rows: tuple[str, ...]


@template("softmax")
def softmax(partial: PartialSketch) -> list[PartialSketch]:
    """For `exp(x - max(x)) / sum(exp(x - max(x)))`, the reductions along one axis; also its logarithm."""
    parts = _parts(partial)
    if parts is None:
        return []
    *producers, output = parts.stages
    if not parts.rows:  # one row: nothing to make blocks of
        return [partial]
    block = parts.rows[-1]
    extent = next(axis.extent for axis in output.op.axes if axis.name == block)
    sizes = tuple((size,) for size in level_sizes(extent, partial.options.largest_block, partial.options))
    partial, hole = partial.with_hole(TileHole(f"tile {output.name}.{block}", output.name, sizes))
    outer = (*parts.rows[:-1], f"{block}.0")
    inner = tuple(f"{axis.name}.1" if axis.name == block else axis.name for axis in output.op.axes)
    order = (*outer, *(loop for loop in inner if loop not in outer))
    partial = partial.apply(Split(output.name, block, (Gene(hole),)), Reorder(output.name, order))
    for stage in reversed(producers):
        partial = partial.apply(ComputeAt(stage.name, output.name, outer[-1]))
    return [partial.with_note(output.name, TileLevels((outer, order[len(outer) :])))]


def _parts(partial: PartialSketch) -> _Parts | None:
    """The stages of a softmax, if that is what the DAG computes besides producers of its input."""
    state = partial.state
    stages = [stage for stage in state.stages if not isinstance(stage.location, Inlined)]
    reductions = [stage for stage in stages if stage.op.reduce_axes and stage.name not in state.prepacked]
    if [_combiner(stage) for stage in reductions] != ["max", "sum"] or len(partial.dag.outputs) != 1:
        return None
    largest, total = reductions
    output = stages[-1]
    between = [stage for stage in stages[stages.index(largest) + 1 : -1] if stage is not total]
    alike = largest.tensor.shape == total.tensor.shape and _extents(largest) == _extents(total)
    exponential = any(_takes_exponentials(partial, stage) for stage in (*between, total))
    shifted = all(_reads(partial, stage, largest) for stage in between)
    if output is total or not (alike and exponential and shifted and _reads(partial, output, total)):
        return None
    rows = _row_axes(partial, output, total)
    return None if rows is None else _Parts((largest, *between, total, output), rows)


def _combiner(stage: Stage) -> str:
    return stage.op.body.combiner if isinstance(stage.op.body, Reduce) else ""


def _extents(stage: Stage) -> list[int]:
    return [axis.extent for axis in stage.op.reduce_axes]


def _takes_exponentials(partial: PartialSketch, stage: Stage) -> bool:
    return any(isinstance(node, Call) and node.function == "exp" for node in walk(partial.state.body(stage.name)))


def _reads(partial: PartialSketch, stage: Stage, other: Stage) -> bool:
    return any(read.tensor.name == other.name for read in reads_of(partial.state.body(stage.name)))


def _row_axes(partial: PartialSketch, output: Stage, total: Stage) -> tuple[str, ...] | None:
    """The axes of the output, longer than 1, that say which sum is read; None if it is not read row by row."""
    extents = {axis.name: axis.extent for axis in output.op.axes}
    rows: list[str] = []
    for read in reads_of(partial.state.body(output.name)):
        if read.tensor.name == total.name:
            for index, extent in zip(read.indices, total.tensor.shape, strict=True):
                if extent > 1:
                    if not isinstance(index, Var) or extents.get(index.name) != extent:
                        return None
                    rows.append(index.name)
    return tuple(dict.fromkeys(rows))
