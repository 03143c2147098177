"""The scheduled nest: the loops of all stages after bound inference, before any simplification, tail or unrolling.

This is the form on which program features are defined. Every loop has its full extent (tails are not split off), fused
iterators are shown as the loops they were fused from, and each statement stores one stage.

    nest = scheduled_nest(state)
    print(nest)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal, Union

from ansor_py.lower.affine import Affine, number
from ansor_py.lower.bounds import Bounds, LoopBounds, StageBounds, infer_bounds
from ansor_py.lower.register_tile import StageTile, register_tile
from ansor_py.schedule.state import Annotation, At, Root, State
from ansor_py.target import Target
from ansor_py.te.expr import INDEX, AxisKind, Const, Expr, Read, Reduce, Var, binary, maximum, minimum, substitute, transform
from ansor_py.te.tensor import Tensor


@dataclass(frozen=True)
class Loop:
    """A loop over `0 <= variable < extent`; `body` holds loops and statements in order."""

    variable: str
    extent: int
    kind: AxisKind
    annotation: Annotation
    body: tuple[Node, ...]


@dataclass(frozen=True)
class Statement:
    """`buffer[indices] = value` or, with a combiner, `buffer[indices] = combine(buffer[indices], value)`.

    Expressions are in terms of loop variables; indices are relative to the buffer, which holds just the region that the
    stage computes. `guards` are (value, limit): the statement happens only where every value is below its limit.
    """

    stage: str
    buffer: Tensor
    indices: tuple[Expr, ...]
    value: Expr
    combiner: str | None
    guards: tuple[tuple[Expr, int], ...]
    unroll_limit: int
    tile: StageTile | None = None

    def __str__(self) -> str:
        target = f"{self.buffer.name}[{', '.join(map(str, self.indices))}]"
        value = f"{self.combiner}({target}, {self.value})" if self.combiner else str(self.value)
        condition = " if " + " and ".join(f"{value} < {limit}" for value, limit in self.guards) if self.guards else ""
        return f"{target} = {value}{condition}"


Node = Union[Loop, Statement]
Scope = Literal["input", "constant", "output", "workspace"]


@dataclass(frozen=True)
class BufferPlace:
    """A buffer and where it lives; `allocated_in` is the loop inside which a temporary is needed (None: outside all)."""

    tensor: Tensor
    scope: Scope
    allocated_in: str | None


@dataclass(frozen=True)
class Nest:
    """The nests of all stages at root, in order, and the buffers they use by name."""

    body: tuple[Node, ...]
    buffers: dict[str, BufferPlace]

    def __str__(self) -> str:
        return "\n".join(line for node in self.body for line in _lines(node, ""))


def scheduled_nest(state: State) -> Nest:
    """The nest of a concrete state; raises ScheduleError where stages are attached illegally."""
    bounds = infer_bounds(state)
    return build_nest(state, bounds)


def build_nest(state: State, bounds: Bounds, shared: Mapping[str, str] | None = None, target: Target | None = None) -> Nest:
    """The nest from bounds that are already known; stages of `shared` are kept in the buffer of the given stage.

    With a target its statements know their register tiles.
    """
    shared = shared or {}
    # In the buffer of an output elements stand at their place in it, not at one relative to the region that is computed.
    moved = {name for name, host in shared.items() if state.is_output(host)}
    bounds = {n: replace(b, origin=tuple(number(0) for _ in b.origin)) if n in moved else b for n, b in bounds.items()}
    buffers = _buffers(state, bounds)
    buffers |= {name: buffers[host] for name, host in shared.items()}
    body = tuple(
        node
        for b in bounds.values()
        if isinstance(b.stage.location, Root)
        for node in _stage_nodes(state, bounds, buffers, b, target)
    )
    return Nest(body, {name: place for name, place in buffers.items() if name not in shared})


def to_expr(value: Affine) -> Expr:
    """A concrete affine value (coefficients are ints) as an expression over loop variables."""
    result: Expr = Const(int(value.constant), INDEX)
    for term, coefficient in value.terms:
        if isinstance(term, str):
            atom: Expr = Var(term)
        elif term.kind == "clamp":
            atom = maximum(minimum(to_expr(term.value), int(term.divisor)), 0)
        else:
            atom = binary(term.kind, to_expr(term.value), int(term.divisor))
        result = result + atom * int(coefficient)
    return result


def _buffers(state: State, bounds: Bounds) -> dict[str, BufferPlace]:
    places: dict[str, BufferPlace] = {}
    for tensor in state.dag.inputs:
        places[tensor.name] = BufferPlace(tensor, "constant" if tensor.is_constant else "input", None)
    for name, b in bounds.items():
        tensor = replace(b.stage.tensor, shape=tuple(int(extent) for extent in b.region))
        if state.is_output(name):
            places[name] = BufferPlace(tensor, "output", None)
        else:
            if b.stage.storage_align and tensor.shape:
                factor, offset = b.stage.storage_align
                row = tensor.shape[-1]
                tensor = replace(tensor, shape=(*tensor.shape[:-1], row + (offset - row) % factor))
            places[name] = BufferPlace(tensor, "workspace", b.enclosing[-1].variable if b.enclosing else None)
    return places


def _stage_nodes(
    state: State, bounds: Bounds, buffers: dict[str, BufferPlace], b: StageBounds, target: Target | None
) -> tuple[Node, ...]:
    def attached(loop: LoopBounds) -> tuple[Node, ...]:
        if loop.iterator is None:
            return ()
        hosts = (other for other in bounds.values() if other.stage.location == At(b.stage.name, loop.iterator))
        return tuple(node for other in hosts for node in _stage_nodes(state, bounds, buffers, other, target))

    nodes: tuple[Node, ...] = (_statement(bounds, buffers, b, target),)
    for loop in reversed(b.loops):
        nodes = (Loop(loop.variable, int(loop.extent), loop.kind, loop.annotation, (*attached(loop), *nodes)),)
    return nodes


def _statement(bounds: Bounds, buffers: dict[str, BufferPlace], b: StageBounds, target: Target | None) -> Statement:
    axis_values = {name: to_expr(value) for name, value in b.values.items()}
    body = substitute(b.body, axis_values)

    def relative(node: Expr) -> Expr | None:
        if isinstance(node, Read):
            producer = bounds.get(node.tensor.name)
            indices = node.indices
            if producer is not None:
                indices = tuple(i - to_expr(o) for i, o in zip(indices, producer.origin, strict=True))
            return Read(buffers[node.tensor.name].tensor, indices)
        return None

    body = transform(body, relative)
    store = tuple(axis_values[axis.name] - to_expr(origin) for axis, origin in zip(b.stage.op.axes, b.origin, strict=True))
    return Statement(
        b.stage.name,
        buffers[b.stage.name].tensor,
        store,
        body.source if isinstance(body, Reduce) else body,
        body.combiner if isinstance(body, Reduce) else None,
        tuple((to_expr(guard.value), int(guard.limit)) for guard in b.guards),
        b.stage.unroll_limit,
        register_tile(b, target) if target is not None else None,
    )


def statements(node: Node | Nest) -> Iterator[tuple[tuple[Loop, ...], Statement]]:
    """All statements with their enclosing loops, outermost first, in program order."""
    stack: list[tuple[tuple[Loop, ...], Node]] = [((), n) for n in reversed(node.body if isinstance(node, Nest) else (node,))]
    while stack:
        loops, item = stack.pop()
        if isinstance(item, Statement):
            yield loops, item
        else:
            stack.extend(((*loops, item), child) for child in reversed(item.body))


def _lines(node: Node, indent: str) -> Iterator[str]:
    if isinstance(node, Loop):
        word = "for" if node.annotation == "none" else node.annotation
        yield f"{indent}{word} {node.variable} in {node.extent}:"
        for child in node.body:
            yield from _lines(child, indent + "  ")
        return
    yield f"{indent}{node}"
