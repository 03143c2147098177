"""Panels: how an operand of a reduction is copied so that a vectorised inner loop reads it in one stream.

`B[k, j]` becomes `B.cache[j / w, k, j % w]`: panels of `w` neighbouring elements along an output axis, the reduction inside,
zero-filled at the end. The default schedules and a sketch rule both decide with these functions what can be packed.

    [panels] = possible_panels(stage, width=32)     # Panels(read=B[k, j], axis='j', width=32)
    state = state.replay(panel_steps(state, stage, panels))
"""

from __future__ import annotations

from dataclasses import dataclass

from ansor_py.schedule.state import Stage, State
from ansor_py.schedule.steps import CacheRead, Step, TransformLayout
from ansor_py.te.expr import Const, Read, Var, reads_of
from ansor_py.te.tensor import Placeholder


@dataclass(frozen=True)
class Panels:
    """An operand that may be packed: the read, the output axis along which panels are made, and their width (elements)."""

    read: Read
    axis: str
    width: int

    @property
    def is_constant(self) -> bool:
        """Whether the operand is a constant, which is packed once, before any run."""
        return isinstance(self.read.tensor.op, Placeholder) and self.read.tensor.op.constant


def possible_panels(stage: Stage, width: int) -> list[Panels]:
    """Operands of a reduction that have an output axis and are read once, every index a plain axis; one entry an axis."""
    reads = reads_of(stage.op.body)
    reduced = {axis.name for axis in stage.op.reduce_axes}
    found: list[Panels] = []
    for read in reads:
        names = [index.name for index in read.indices if isinstance(index, Var)]
        plain = all(isinstance(index, Var | Const) for index in read.indices) and len(set(names)) == len(names)
        alone = sum(other.tensor is read.tensor for other in reads) == 1
        if plain and alone and reduced & set(names):
            found.extend(Panels(read, axis.name, width) for axis in stage.op.axes if axis.name in names)
    return found


def panel_steps(state: State, stage: Stage, panels: Panels) -> tuple[Step, ...]:
    """The steps that copy the operand for this stage and give the copy its layout."""
    read = panels.read
    copy = CacheRead(read.tensor.name, (stage.name,))
    axes = copy.apply(state).stage(f"{read.tensor.name}.cache").op.axes
    names = {index.name: own.name for index, own in zip(read.indices, axes, strict=True) if isinstance(index, Var)}
    along = names[panels.axis]
    reduced = [names[item.name] for item in stage.op.reduce_axes if item.name in names]
    outer = [own.name for own in axes if own.name not in (along, *reduced)]
    order = (*outer, f"{along}.outer", *reduced, f"{along}.inner")
    return copy, TransformLayout(f"{read.tensor.name}.cache", ((along, panels.width),), order)


def filling(extent: int, width: int) -> float:
    """The zeros that fill the last panel, as a share of the axis."""
    return -extent % width / extent
