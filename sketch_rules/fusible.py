"""What the tiling rules ask about a stage: whether it reuses data, and which consumer it can be fused into."""

from __future__ import annotations

from ansor_py.schedule.access import is_elementwise_read, needs_multi_level_tiling
from ansor_py.schedule.dag import producers
from ansor_py.schedule.state import Root, Stage
from ansor_py.sketch_rules.partial_sketch import PartialSketch
from ansor_py.te.expr import reads_of, variables_of


def reuses_data(stage: Stage) -> bool:
    """Whether multi-level tiling pays: the stage reads the same elements again and again.

    Ansor's test, less one quirk: an operation without reduction also has to reread *all* of its inputs. Otherwise
    `conv * scale[c] + shift[c]` would count as reuse, and be tiled by itself instead of taking the convolution in.
    """
    if not needs_multi_level_tiling(stage.tensor):
        return False
    if stage.op.reduce_axes:
        return True
    axes = {axis.name for axis in stage.op.axes if axis.extent > 1}
    for producer in producers(stage.tensor):
        reads = [read for read in reads_of(stage.op.body) if read.tensor is producer]
        used = set().union(*(variables_of(index) for read in reads for index in read.indices))
        if axes <= used:
            return False
    return True


def batch_axes(stage: Stage) -> set[str]:
    """The axes that all operands of a product move along, as a batch does: no operand is read again along them."""
    moving = [set().union(*map(variables_of, read.indices)) for read in reads_of(stage.op.body)]
    return {axis.name for axis in stage.op.axes if all(axis.name in names for names in moving)}


def fusible_consumer(sketch: PartialSketch, name: str) -> Stage | None:
    """The one consumer (seen through inlined stages) that reads the stage elementwise and is still untransformed, or None."""
    consumers = sketch.state.consumers(name)
    if len(consumers) != 1 or sketch.state.is_output(name):
        return None
    consumer = consumers[0]
    if consumer.op.reduce_axes or not consumer.is_unscheduled or not isinstance(consumer.location, Root):
        return None
    return consumer if is_elementwise_read(sketch.state.whole(consumer.name), sketch.state.stage(name).tensor) else None
