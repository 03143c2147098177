"""Storage: stages that are kept in the memory of what replaces them.

An element-wise stage with several readers cannot be inlined. If the last of them is an output of its shape that reads every
element just where it writes (the quotient of a softmax, after the sum over the exponentials), the stage needs no buffer: its
elements wait in the output's memory. That is one buffer less in the caches, and the output's lines are fetched while the stage
is computed, not while nothing but memory is at work.

    shared_storage(state, infer_bounds(state))     # {"softmax_exp": "softmax"}

What is computed in blocks inside a loop does the same among itself: scores, their exponentials and the quotients of these are
one buffer, a third of what would go through the caches.
"""

from __future__ import annotations

from collections.abc import Sequence

from ansor_py.lower.affine import Affine, Atom, Number, from_expr, interval, is_number, number, same
from ansor_py.lower.bounds import Bounds, StageBounds
from ansor_py.schedule.access import has_reduction, is_elementwise_read
from ansor_py.schedule.state import At, Root, State
from ansor_py.te.expr import reads_of

Region = tuple[tuple[Affine, Number], ...]  # first element and width in every dimension


def shared_storage(state: State, bounds: Bounds) -> dict[str, str]:
    """The stage in whose memory a stage is kept, by stage; `bounds` are those of the concrete state."""
    found = _kept_in_outputs(state, bounds)
    in_blocks = _kept_in_blocks(state, bounds, found)
    for guest, host in in_blocks.items():
        while host in in_blocks:
            host = in_blocks[host]
        found[guest] = host
    return found


def _kept_in_outputs(state: State, bounds: Bounds) -> dict[str, str]:
    found: dict[str, str] = {}
    for host in bounds.values():
        name = host.stage.name
        if not state.is_output(name) or has_reduction(host.stage.tensor) or _repeats_elements(host):
            continue
        for guest in bounds.values():
            if _may_share(state, guest, host) and _is_safe(bounds, guest, host):
                found[guest.stage.name] = name
                break
    return found


def _repeats_elements(host: StageBounds) -> bool:
    """Rows of a tile are repeated at an edge, which only a formula that does not read its own result survives."""
    return host.stage.register_tile is not None or any(loop.annotation == "unroll" for loop in host.loops)


def _kept_in_blocks(state: State, bounds: Bounds, kept: dict[str, str]) -> dict[str, str]:
    """Stages inside a loop whose elements are overwritten, one by one, by the last stage that reads them, inside that loop."""
    order = list(bounds)
    found: dict[str, str] = {}
    for position, host in enumerate(bounds.values()):
        name = host.stage.name
        free = isinstance(host.stage.location, At) and name not in kept and not has_reduction(host.stage.tensor)
        if not free or _repeats_elements(host):
            continue
        for guest in bounds.values():
            readers = [other for other in bounds.values() if any(r.tensor.name == guest.stage.name for r in other.reads)]
            together = all(item.stage.location == host.stage.location for item in (guest, *readers))
            last = together and all(order.index(reader.stage.name) <= position for reader in readers)
            if last and guest.stage.name not in (*found, *kept) and _has_same_block(state, guest, host):
                found[guest.stage.name] = name
                break
    return found


def _has_same_block(state: State, guest: StageBounds, host: StageBounds) -> bool:
    """Whether the host reads every element of the guest where it writes its own, in blocks of equal size and place."""
    if state.is_output(guest.stage.name) or guest.stage.storage_align or host.stage.storage_align:
        return False
    if guest.stage.tensor.dtype != host.stage.tensor.dtype or guest.region != host.region:
        return False
    pairs = zip(guest.origin, host.origin, strict=True)
    return all(same(a, b) and a.constant == b.constant for a, b in pairs) and is_elementwise_read(
        state.whole(host.stage.name), guest.stage.tensor
    )


def _may_share(state: State, guest: StageBounds, host: StageBounds) -> bool:
    tensor, name = guest.stage.tensor, guest.stage.name
    if state.is_output(name) or has_reduction(tensor) or tensor.dtype != host.stage.tensor.dtype or name in state.prepacked:
        return False
    return is_elementwise_read(state.whole(host.stage.name), tensor)


def _is_safe(bounds: Bounds, guest: StageBounds, host: StageBounds) -> bool:
    """Whether the output overwrites an element only after everything else that reads it.

    What is computed inside loops of the output has to keep to the elements that are written in the same iteration of them,
    and these have to be neighbours: between rows that lie apart are those of other iterations.
    """
    extents = {loop.variable: loop.extent for b in bounds.values() for loop in b.loops}
    order = list(bounds)
    variables = [loop.variable for loop in host.loops]
    for reader in bounds.values():
        reads = [read for read in reads_of(reader.body) if read.tensor.name == guest.stage.name]
        if reader is host or not (reads or reader is guest):
            continue
        root = _root(bounds, reader)
        if root is not host:
            if order.index(root.stage.name) > order.index(host.stage.name):
                return False
            continue
        around = {loop.variable for loop in reader.enclosing}
        fixed = {name for name in variables if name in around}
        places = [host.values[axis.name] for axis in host.stage.op.axes]
        if not all(_is_dense(_unclamped(place, extents), fixed, extents) for place in places):
            return False
        written = _region(places, fixed, extents)
        indices = [[from_expr(index, reader.values) for index in read.indices] for read in reads]
        if reader is guest:
            indices.append([guest.values[axis.name] for axis in guest.stage.op.axes])
        for values in indices:
            known = [value for value in values if value is not None]
            if len(known) < len(values) or not _contains(written, _region(known, around, extents)):
                return False
    return True


def _root(bounds: Bounds, stage: StageBounds) -> StageBounds:
    """The stage at root whose nest holds a stage."""
    while not isinstance(stage.stage.location, Root):
        stage = bounds[stage.stage.location.stage]  # type: ignore[union-attr]  # an inlined stage has no bounds
    return stage


def _region(values: Sequence[Affine], fixed: set[str], extents: dict[str, Number]) -> Region:
    def varying(name: str) -> Number | None:
        return None if name in fixed else extents[name]

    return tuple(interval(_unclamped(value, extents), varying) for value in values)


def _is_dense(value: Affine, fixed: set[str], extents: dict[str, Number]) -> bool:
    """Whether the loops that are not fixed reach every integer between the least and the largest value."""
    steps: list[tuple[Number, Number]] = []
    for term, step in value.terms:
        if isinstance(term, Atom):
            if not term.value.variables <= fixed:
                return False
        elif term not in fixed and not is_number(extents[term], 1):
            steps.append((step, extents[term]))
    reached: Number = 1
    for step, extent in sorted(steps):
        if not 0 < step <= reached:
            return False
        reached = reached + step * (extent - 1)
    return True


def _contains(outer: Region, inner: Region) -> bool:
    """Whether the inner region lies in the outer one wherever the fixed loops stand."""
    for (start, width), (low, reach) in zip(outer, inner, strict=True):
        before = low.constant - start.constant
        if not same(start, low) or before < 0 or before + reach > width:
            return False
    return True


def _unclamped(value: Affine, extents: dict[str, Number]) -> Affine:
    """The value without clamps that change nothing."""
    result = number(value.constant)
    for term, coefficient in value.terms:
        part = Affine(((term, 1),))
        if isinstance(term, Atom) and term.kind == "clamp":
            inner = _unclamped(term.value, extents)
            low, width = interval(inner, extents.get)
            if not low.terms and low.constant >= 0 and low.constant + width - 1 <= term.divisor:
                part = inner
        result = result + part * coefficient
    return result
