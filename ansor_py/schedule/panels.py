"""Panels: how an operand of a reduction is copied so that a vectorised inner loop reads it in one stream.

`B[k, j]` becomes `B.cache[j / w, k, j % w]`: panels of `w` neighbouring elements along an output axis, the reduction inside,
zero-filled at the end. A sketch rule decides with these functions what can be packed.

    [panels] = possible_panels(stage, width=32)     # Panels(read=B[k, j], axis='j', width=32)
    state = state.replay(panel_steps(state, stage, panels))
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

from ansor_py.schedule.access import is_plain, is_transposition
from ansor_py.schedule.state import Root, Stage, State
from ansor_py.schedule.steps import CacheOperand, CacheRead, Step, TransformLayout
from ansor_py.te.expr import Axis, Read, Var, reads_of, variables_of

# A copy over the reader's axes may hold elements several times, and zeros: at most this many times the operand.
MOST_GROWTH = 2
# An operand that has to be copied in every run is worth it if its elements are read by at least so many others, ...
FEWEST_REUSES = 32
# ... and if it has at least so many bytes: a smaller one stays in the first-level cache as it is.
SMALLEST_OPERAND = 1 << 15


@dataclass(frozen=True)
class Panels:
    """An operand that may be packed: the read, the output axis along which panels are made, and their width (elements)."""

    read: Read
    axis: str
    width: int


def is_known_before(state: State, panels: Panels) -> bool:
    """Whether the operand is a constant or made of such, so that it is packed once, before any run."""
    return panels.read.tensor.is_constant or panels.read.tensor.name in state.prepacked


def possible_panels(stage: Stage, width: int) -> list[Panels]:
    """Operands of a reduction that have an output axis and are read in one way only; one entry an axis.

    Every index is a plain axis, or the operand is a constant and its copy not much larger than itself.
    """
    reads = reads_of(stage.op.body)
    reduced = {axis.name for axis in stage.op.reduce_axes}
    found: list[Panels] = []
    for read in reads:
        used = set().union(*(variables_of(index) for index in read.indices))
        alone = sum(other.tensor is read.tensor for other in reads) == 1
        if alone and reduced & used and (is_plain(read) or _may_be_gathered(stage, read)):
            found.extend(Panels(read, axis.name, width) for axis in stage.op.axes if axis.name in used)
    return found


def _may_be_gathered(stage: Stage, read: Read) -> bool:
    used = set().union(*(variables_of(index) for index in read.indices))
    elements = prod(axis.extent for axis in (*stage.op.axes, *stage.op.reduce_axes) if axis.name in used)
    return read.tensor.is_constant and elements <= MOST_GROWTH * read.tensor.size


def is_worth_copying(state: State, stage: Stage, panels: Panels) -> bool:
    """Whether an operand that is no constant, packed along the last output axis, is large, read often, and in a buffer."""
    read = panels.read
    last = next((axis.name for axis in reversed(stage.op.axes) if axis.extent > 1), None)
    has_buffer = not state.has_stage(read.tensor.name) or isinstance(state.stage(read.tensor.name).location, Root)
    large = read.tensor.bytes >= SMALLEST_OPERAND
    return panels.axis == last and large and reuses(stage, read) >= FEWEST_REUSES and has_buffer


def is_reused_along(stage: Stage, panels: Panels) -> bool:
    """Whether along the axis of the panels the other operands stay: not in a batch, of which each element has its own."""
    others = [read for read in reads_of(stage.op.body) if read != panels.read]
    return not any(panels.axis in variables_of(index) for read in others for index in read.indices)


def reuses(stage: Stage, read: Read) -> int:
    """By how many results an element of an operand is used."""
    used = set().union(*(variables_of(index) for index in read.indices))
    return prod(axis.extent for axis in stage.op.axes if axis.name not in used)


def panel_steps(state: State, stage: Stage, panels: Panels) -> tuple[Step, ...]:
    """The steps that copy the operand for this stage and give the copy its layout."""
    read = panels.read
    source = read.tensor.name
    if _takes_layout(state, stage, panels):
        made = state.stage(source).op
        names = {index.name: own.name for index, own in zip(read.indices, made.axes, strict=True) if isinstance(index, Var)}
        return (TransformLayout(source, ((names[panels.axis], panels.width),), _panel_order(stage, panels, made.axes, names)),)
    if is_plain(read):
        copy: Step = CacheRead(source, (stage.name,))
        axes = copy.apply(state).stage(f"{source}.cache").op.axes
        names = {index.name: own.name for index, own in zip(read.indices, axes, strict=True) if isinstance(index, Var)}
    else:
        copy = CacheOperand(source, stage.name)
        axes = copy.apply(state).stage(f"{source}.cache").op.axes
        names = {own.name: own.name for own in axes}
    order = _panel_order(stage, panels, axes, names)
    return copy, TransformLayout(f"{source}.cache", ((names[panels.axis], panels.width),), order)


def _takes_layout(state: State, stage: Stage, panels: Panels) -> bool:
    """Whether the operand is made of constants, or transposed, for this stage alone, and can be made in panels at once."""
    name = panels.read.tensor.name
    if not state.has_stage(name) or not is_plain(panels.read) or state.readers(name) != [stage]:
        return False
    made = state.stage(name)
    free = isinstance(made.location, Root) and made.is_unscheduled and not state.attached_to(name)
    return free and (is_transposition(made.tensor) or (name in state.prepacked and not made.op.reduce_axes))


def _panel_order(stage: Stage, panels: Panels, axes: Sequence[Axis], names: Mapping[str, str]) -> tuple[str, ...]:
    """The axes of the panels: other ones, panels, the reduction, what lies in a row of a panel."""
    along = names[panels.axis]
    reduced = [names[item.name] for item in stage.op.reduce_axes if item.name in names]
    outer = [own.name for own in axes if own.name not in (along, *reduced)]
    return (*outer, f"{along}.outer", *reduced, f"{along}.inner")


def filling(extent: int, width: int) -> float:
    """The zeros that fill the last panel, as a share of the axis."""
    return -extent % width / extent
