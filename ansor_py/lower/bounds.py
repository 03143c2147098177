"""Bound inference: how far every loop runs and which part of every stage is computed where.

Consumers come first: a stage at root computes its whole tensor; a stage attached inside a consumer's loop computes the
region that is read from there on, halo included. Region origins are clamped so that a region never leaves its tensor: the
last tile of an extent that does not divide overlaps its neighbour instead of needing a guard. Two kinds of last tiles stay
where they are, and have a guard: along the rows of a register tile, where those that are left are a smaller tile and less work,
and where a packed layout is read: moved, vectors would lie across two panels.

The state may be concrete, or a sketch's template together with a genes matrix; then each number is an array over the
population (design, Idea 2).

    bounds = infer_bounds(state)
    bounds["C.local"].extents["i.3"]      # 8, or an int64 array
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ansor_py.errors import ScheduleError
from ansor_py.lower.affine import (
    Affine,
    Number,
    ceil_div,
    clamp,
    floor_div,
    from_expr,
    interval,
    is_number,
    larger,
    modulo,
    number,
    same,
    smaller,
    variable,
)
from ansor_py.schedule.hole import Genes, Hole
from ansor_py.schedule.sketch import Population, length_values
from ansor_py.schedule.state import Annotation, At, FuseRelation, Inlined, SplitRelation, Stage, State
from ansor_py.schedule.steps import ComputeAt
from ansor_py.te.expr import AxisKind, Binary, Const, Expr, Read, Var, postorder


@dataclass(frozen=True, eq=False)
class LoopBounds:
    """One loop of the scheduled nest. A fused iterator appears as its components, each with the iterator's annotation.

    `variable` is unique in the program; `iterator` is the stage's iterator to which stages may be attached (a component
    before the last one of a fused iterator has none).
    """

    variable: str
    name: str
    iterator: str | None
    kind: AxisKind
    annotation: Annotation
    extent: Number


@dataclass(frozen=True, eq=False)
class Guard:
    """Iterations with `value >= limit` do not happen (a length that does not divide)."""

    value: Affine
    limit: Number


@dataclass(frozen=True, eq=False)
class StageBounds:
    """Everything that bound inference knows of one stage that is not inlined."""

    stage: Stage
    body: Expr
    reads: tuple[Read, ...]
    loops: tuple[LoopBounds, ...]
    extents: dict[str, Number]
    region: tuple[Number, ...]
    origin: tuple[Affine, ...]
    values: dict[str, Affine]
    guards: tuple[Guard, ...]
    # Loops of the stages in which this one is attached, outermost first.
    enclosing: tuple[LoopBounds, ...]
    dtypes: frozenset[str]


Bounds = dict[str, StageBounds]


def infer_bounds(state: State, holes: Sequence[Hole] = (), genes: Genes | None = None) -> Bounds:
    """Bounds of all stages that are not inlined, in producer order.

    With `genes` int32[programs, holes] (and the sketch's `holes`) the state is a template and numbers become arrays.
    Raises ScheduleError if a stage is attached where not all of its consumers are.
    """
    found: Bounds = {}
    for stage in reversed(state.stages):
        if not isinstance(stage.location, Inlined):
            found[stage.name] = _stage_bounds(state, stage, found, holes, genes)
    return dict(reversed(found.items()))


@dataclass(frozen=True, eq=False)
class BoundedPopulation(Population):
    """A population whose bounds are inferred once, when they are first asked for: checks and features read the same ones."""

    @cached_property
    def bounds(self) -> tuple[tuple[State, NDArray[np.int64], Bounds], ...]:
        """The templates that occur, each with the rows of its programs and their bounds. Raises ScheduleError."""
        return tuple((t, rows, infer_bounds(t, self.sketch.holes, self.genes[rows])) for t, rows in self.groups())


def bounded(population: Population) -> BoundedPopulation:
    """The population itself if its bounds are kept, else one that keeps them."""
    if isinstance(population, BoundedPopulation):
        return population
    return BoundedPopulation(population.sketch, population.genes)


def _stage_bounds(state: State, stage: Stage, found: Bounds, holes: Sequence[Hole], genes: Genes | None) -> StageBounds:
    enclosing: tuple[LoopBounds, ...] = ()
    origin = tuple(number(0) for _ in stage.op.axes)
    region: tuple[Number, ...] = tuple(axis.extent for axis in stage.op.axes)
    leaving: tuple[bool, ...] = (False,) * len(region)
    if isinstance(stage.location, At):
        enclosing = _enclosing(state, stage, stage.location, found)
        origin, region, leaving = _required_region(state, stage, found, enclosing)
    extents: dict[str, Number] = {axis.name: e for axis, e in zip(stage.op.axes, region, strict=True)}
    extents |= {axis.name: axis.extent for axis in stage.op.reduce_axes}
    for relation in stage.relations:
        if isinstance(relation, SplitRelation):
            rest = extents[relation.parent]
            for part, length in zip(reversed(relation.parts[1:]), relation.lengths, strict=True):
                value = length if genes is None and isinstance(length, int) else _length(length, holes, genes, stage, part)
                extents[part], rest = smaller(value, rest), ceil_div(rest, value)
            extents[relation.parts[0]] = rest
        else:
            product: Number = 1
            for parent in relation.parents:
                product = product * extents[parent]
            extents[relation.fused] = product
    loops = _expanded_loops(stage, extents)
    values, guards = _values_and_guards(stage, extents, loops)
    absolute = {axis.name: values[axis.name] + start for axis, start in zip(stage.op.axes, origin, strict=True)} | {
        axis.name: values[axis.name] for axis in stage.op.reduce_axes
    }
    guards += tuple(Guard(absolute[a.name], a.extent) for a, leaves in zip(stage.op.axes, leaving, strict=True) if leaves)
    body, reads, dtypes = state.body(stage.name), state.reads(stage.name), state.dtypes(stage.name)
    return StageBounds(stage, body, reads, loops, extents, region, origin, absolute, guards, enclosing, dtypes)


def _length(length: object, holes: Sequence[Hole], genes: Genes | None, stage: Stage, part: str) -> Number:
    if genes is None:
        raise ScheduleError(f"stage '{stage.name}': the length of '{part}' is open ({length}); concretise the sketch first")
    return length_values(length, holes, genes)  # type: ignore[arg-type]


def _expanded_loops(stage: Stage, extents: dict[str, Number]) -> tuple[LoopBounds, ...]:
    """The loops, fused iterators expanded into the loops they were fused from."""
    fused = {relation.fused: relation.parents for relation in stage.relations if isinstance(relation, FuseRelation)}
    loops: list[LoopBounds] = []
    for iterator in stage.iterators:
        components = [iterator.name]
        while any(name in fused for name in components):
            components = [part for name in components for part in fused.get(name, (name,))]
        for name in components:
            attachable = iterator.name if name == components[-1] else None
            loops.append(
                LoopBounds(f"{stage.name}/{name}", name, attachable, iterator.kind, iterator.annotation, extents[name])
            )
    return tuple(loops)


def _values_and_guards(
    stage: Stage, extents: dict[str, Number], loops: Sequence[LoopBounds]
) -> tuple[dict[str, Affine], tuple[Guard, ...]]:
    """Each axis in terms of the loop variables (relative to the region), and the guards of splits that do not divide."""
    values = {loop.name: variable(loop.variable) for loop in loops}
    guards: list[Guard] = []
    for relation in reversed(stage.relations):
        if isinstance(relation, SplitRelation):
            stride: Number = 1
            value = number(0)
            for part in reversed(relation.parts):
                value = value + values[part] * stride
                stride = stride * extents[part]
            values[relation.parent] = value
            if not is_number(stride - extents[relation.parent], 0):
                guards.append(Guard(value, extents[relation.parent]))
        elif relation.fused in values:  # otherwise it was expanded and its parents are loops
            inner: Number = 1
            for position, parent in reversed(list(enumerate(relation.parents))):
                quotient = floor_div(values[relation.fused], inner)
                values[parent] = modulo(quotient, extents[parent]) if position else quotient
                inner = inner * extents[parent]
    return values, tuple(guards)


def _enclosing(state: State, stage: Stage, location: At, found: Bounds) -> tuple[LoopBounds, ...]:
    if location.stage not in found:
        raise ScheduleError(f"{_compute_at(stage)}: stage '{location.stage}' is not computed after it or is inlined")
    host = found[location.stage]
    for position, loop in enumerate(host.loops):
        if loop.iterator == location.iterator:
            return (*host.enclosing, *host.loops[: position + 1])
    raise ScheduleError(f"{_compute_at(stage)}: there is no such loop any more")


def _compute_at(stage: Stage) -> str:
    """The step that attached a stage, as its own errors name it."""
    assert isinstance(stage.location, At)
    return ComputeAt(stage.name, stage.location.stage, stage.location.iterator).title


def _required_region(
    state: State, stage: Stage, found: Bounds, enclosing: tuple[LoopBounds, ...]
) -> tuple[tuple[Affine, ...], tuple[Number, ...], tuple[bool, ...]]:
    """Origin and size of the part of a stage that is read inside the loops `enclosing`, and where it may leave the tensor."""
    fixed = {loop.variable for loop in enclosing}
    innermost = enclosing[-1].variable
    hulls: list[tuple[Affine, Number] | None] = [None] * len(stage.op.axes)
    lows: list[list[Affine]] = [[] for _ in stage.op.axes]
    full = [False] * len(stage.op.axes)
    for consumer in found.values():
        reads = [read for read in consumer.reads if read.tensor.name == stage.name]
        if not reads:
            continue
        around = {loop.variable: loop.extent for loop in (*consumer.enclosing, *consumer.loops)}
        if innermost not in around:
            raise ScheduleError(
                f"{_compute_at(stage)}: its consumer '{consumer.stage.name}' is computed elsewhere; "
                "attach it to a loop that encloses all consumers"
            )

        def varying(name: str, around: dict[str, Number] = around) -> Number | None:
            return None if name in fixed else around[name]

        for read in reads:
            for dimension, index in enumerate(read.indices):
                value = from_expr(index, consumer.values)
                if value is None:
                    full[dimension] = True
                    continue
                low, width = interval(value, varying)
                lows[dimension].append(low)
                hulls[dimension] = _hull(hulls[dimension], low, width, stage.op.axes[dimension].extent)
                full[dimension] |= hulls[dimension] is None
    origins: list[Affine] = []
    sizes: list[Number] = []
    leaving: list[bool] = []
    panels = dict.fromkeys(_tile_rows(stage), 0) | _panels(state.reads(stage.name))
    for axis, hull, whole, starts in zip(stage.op.axes, hulls, full, lows, strict=True):
        if whole or hull is None:
            hull = number(0), axis.extent
        size = smaller(hull[1], axis.extent)
        limit = last = axis.extent - size
        if axis.name in panels and all(same(low, hull[0]) for low in starts):
            limit = _last_origin(hull[0], last, panels[axis.name], {loop.variable: loop.extent for loop in enclosing})
        origins.append(clamp(hull[0], limit))
        sizes.append(size)
        leaving.append(not is_number(limit - last, 0))
    return tuple(origins), tuple(sizes), tuple(leaving)


def _tile_rows(stage: Stage) -> list[str]:
    """The axes along which a stated register tile has rows: all of its spatial ones that do not run in lanes."""
    if stage.register_tile is None:
        return []
    lanes = {iterator.name for iterator in stage.iterators if iterator.annotation == "vectorize"}
    found = {name: name for name in stage.register_tile.loops if name not in lanes}
    for relation in reversed(stage.relations):
        if isinstance(relation, SplitRelation):
            found = {name: relation.parent if axis in relation.parts else axis for name, axis in found.items()}
    return [axis.name for axis in stage.op.axes if axis.name in found.values()]


def _panels(reads: Sequence[Read]) -> dict[str, int]:
    """By axis how many of its values lie together where it is read by quotient and remainder, as packed layouts are."""
    found: dict[str, int] = {}
    for read in reads:
        for index in read.indices:
            for node in postorder(index):
                if (
                    isinstance(node, Binary)
                    and node.op == "mod"
                    and isinstance(node.left, Var)
                    and isinstance(node.right, Const)
                ):
                    found[node.left.name] = math.gcd(found.get(node.left.name, 0), int(node.right.value))
    return found


def _last_origin(low: Affine, last: Number, panel: int, extents: dict[str, Number]) -> Number:
    """What keeps an origin inside, at most `last`; or that it keeps by itself, where `last` lies otherwise in its panel.

    Without panels (0) it keeps by itself where `last` is not one of its values.
    """
    step: Number = low.constant
    for _, coefficient in low.terms:
        step = np.gcd(step, coefficient)
    lowest, width = interval(low, extents.get)
    first = lowest.constant
    moved = (last % np.maximum(np.gcd(step, panel), 1) != 0) & (first >= 0)
    limit = np.where(moved, np.maximum(first + width - 1, last), last)
    return limit if limit.ndim else int(limit)


def _hull(known: tuple[Affine, Number] | None, low: Affine, width: Number, extent: Number) -> tuple[Affine, Number] | None:
    """The smallest interval around two in a dimension of this extent; None if their distance is not a constant.

    An interval that was only kept from leaving the dimension counts as what it was before that, because the hull will be kept
    from leaving it as well: a row that two stages of one loop read is the same row.
    """
    if known is None:
        return low, width
    first = known[0]
    if not same(first, low):
        first, low = _before_clamping(*known, extent), _before_clamping(low, width, extent)
        if not same(first, low):
            return None
    start = smaller(first.constant, low.constant)
    end = larger(first.constant + known[1], low.constant + width)
    return replace(low, constant=start), end - start


def _before_clamping(low: Affine, width: Number, extent: Number) -> Affine:
    """The value that was clamped no more than lets `width` elements from it on end within the extent; others as they are."""
    while len(low.terms) == 1 and is_number(low.constant, 0):
        term, coefficient = low.terms[0]
        if isinstance(term, str) or term.kind != "clamp" or not is_number(coefficient, 1):
            break
        if not is_number(larger(term.divisor + width, extent) - term.divisor - width, 0):
            break
        low = term.value
    return low
