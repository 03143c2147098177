"""Splitting of axes where views join or part them, so that operations on both sides of a view have the same axes.

Attention is often written with products over `[batch * heads, ...]` and a mask over `[batch, heads, ...]`, and a reshape
between them. Here every dimension that some view takes apart is several dimensions for all operations, as far as one reads
the other, and the view is a plain copy, which is inlined. Buffers keep their bytes; only the shapes that a DAG states for them
change. `merge_axes` undoes what no operation tells apart.

    y[b, h, i] = x[b * 12 + h, i]        becomes        y[b, h, i] = x[b, h, i]
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from ansor_py.schedule.dag import ComputeDAG
from ansor_py.te.expr import INDEX, Axis, Binary, Const, Expr, Read, Reduce, Var, binary, substitute, transform
from ansor_py.te.simplify import Simplifier
from ansor_py.te.tensor import Compute, Tensor, tensor_from_body

# (tensor name, position): a dimension, or a reduction axis, counted after the dimensions.
Place = tuple[str, int]
# Where an axis is cut: at `c` it is `outer * c + inner`.
Cuts = dict[Place, set[int]]


@dataclass(frozen=True)
class _Piece:
    """`coefficient * (axis // low % (high // low))`, a term of an index; `place` is the axis' position."""

    place: int
    low: int
    high: int
    coefficient: int

    @property
    def extent(self) -> int:
        return self.high // self.low


def split_axes(dag: ComputeDAG) -> ComputeDAG:
    """The DAG with all axes split where a view cuts them; names stay. The DAG itself if there is nothing to split."""
    cuts: Cuts = {}
    for tensor in dag.computed:
        if not _reductions(tensor):
            _cut(tensor, cuts)
    if not cuts:
        return dag
    before = -1
    while before != (before := sum(map(len, cuts.values()))):  # both ways along a chain
        for tensor in (*dag.computed, *reversed(dag.computed)):
            _pass_on(tensor, cuts)
    if not all(_is_chain(tensor, place, cuts) for tensor in dag.tensors for place in range(len(_extents(tensor)))):
        return dag
    new: dict[int, Tensor] = {}
    for tensor in dag.tensors:
        new[id(tensor)] = _split_tensor(tensor, cuts, new)
    return ComputeDAG.from_outputs([new[id(t)] for t in dag.outputs], inputs=[new[id(t)] for t in dag.inputs])


def _reductions(tensor: Tensor) -> tuple[Axis, ...]:
    return tensor.op.reduce_axes if isinstance(tensor.op, Compute) else ()


def _axes(tensor: Tensor) -> tuple[Axis, ...]:
    return (*tensor.op.axes, *tensor.op.reduce_axes) if isinstance(tensor.op, Compute) else ()


def _extents(tensor: Tensor) -> tuple[int, ...]:
    return (*tensor.shape, *(axis.extent for axis in _reductions(tensor)))


def _pieces(tensor: Tensor, index: Expr, extent: int) -> list[_Piece]:
    """What an index into a dimension of this extent is made of, the fastest piece first; nothing unless it covers all of the
    dimension, each element once."""
    axes = _axes(tensor)
    linear = Simplifier({axis.name: (0, axis.extent - 1) for axis in axes}).linear(index)
    places = {axis.name: place for place, axis in enumerate(axes)}
    pieces = []
    for atom, coefficient in sorted(linear.terms, key=lambda term: term[1]):
        part = _part(atom)
        if part is None or part[0] not in places:
            return []
        name, low, high = part
        high = min(high or axes[places[name]].extent, axes[places[name]].extent)
        pieces.append(_Piece(places[name], low, high, coefficient))
    size = 1
    for piece in pieces:
        if piece.coefficient != size or piece.high % piece.low:
            return []
        size *= piece.extent
    return pieces if size == extent and linear.constant == 0 else []


def _part(atom: Expr) -> tuple[str, int, int] | None:
    """An axis' name, `low` and `high` (0: its extent) of `axis`, `axis // low`, `axis % high` and `axis // low % n`."""
    if isinstance(atom, Var):
        return atom.name, 1, 0
    if not isinstance(atom, Binary) or not isinstance(atom.right, Const):
        return None
    number = int(atom.right.value)
    if atom.op == "floordiv" and isinstance(atom.left, Var):
        return atom.left.name, number, 0
    inner = _part(atom.left) if atom.op == "mod" else None
    return None if inner is None or inner[2] else (inner[0], inner[1], inner[1] * number)


def _cut(tensor: Tensor, cuts: Cuts) -> None:
    """The cuts that the reads of one operation make: in its axes, and in what it reads."""
    assert isinstance(tensor.op, Compute)
    axes = _axes(tensor)
    for read in tensor.op.reads:
        for dimension, (index, extent) in enumerate(zip(read.indices, read.tensor.shape, strict=True)):
            for piece in _pieces(tensor, index, extent):
                own = {piece.low, piece.high} - {1, axes[piece.place].extent}
                if own:
                    cuts.setdefault((tensor.name, piece.place), set()).update(own)
                if piece.coefficient > 1:
                    cuts.setdefault((read.tensor.name, dimension), set()).add(piece.coefficient)


def _pass_on(tensor: Tensor, cuts: Cuts) -> None:
    """Let an operation's axes and the dimensions that they address have the same cuts."""
    assert isinstance(tensor.op, Compute)
    if not any((tensor.name, place) in cuts for place in range(len(_axes(tensor)))) and not any(
        (read.tensor.name, dimension) in cuts for read in tensor.op.reads for dimension in range(len(read.indices))
    ):
        return
    for read in tensor.op.reads:
        for dimension, (index, extent) in enumerate(zip(read.indices, read.tensor.shape, strict=True)):
            there = (read.tensor.name, dimension)
            for piece in _pieces(tensor, index, extent):
                here = (tensor.name, piece.place)
                inside = {c for c in cuts.get(here, ()) if piece.low < c < piece.high and c % piece.low == 0}
                last = piece.coefficient * piece.extent
                beyond = {c for c in cuts.get(there, ()) if piece.coefficient < c < last and c % piece.coefficient == 0}
                if inside:
                    cuts.setdefault(there, set()).update(c // piece.low * piece.coefficient for c in inside)
                if beyond:
                    cuts.setdefault(here, set()).update(c // piece.coefficient * piece.low for c in beyond)


def _is_chain(tensor: Tensor, place: int, cuts: Cuts) -> bool:
    """Whether each cut of an axis divides the next one, and the last the extent."""
    marks = [*sorted(cuts.get((tensor.name, place), ())), _extents(tensor)[place]]
    return all(outer % inner == 0 for inner, outer in pairwise(marks))


def _lengths(tensor: Tensor, place: int, cuts: Cuts) -> list[tuple[int, int]]:
    """Of each part of an axis, the outermost first, its stride in the axis and its extent."""
    marks = [1, *sorted(cuts.get((tensor.name, place), ())), _extents(tensor)[place]]
    return [(inner, outer // inner) for inner, outer in pairwise(marks)][::-1]


def _split_tensor(tensor: Tensor, cuts: Cuts, new: dict[int, Tensor]) -> Tensor:
    parts = [_lengths(tensor, place, cuts) for place in range(len(_extents(tensor)))]
    if not isinstance(tensor.op, Compute):
        return Tensor(tensor.name, tuple(extent for part in parts for _, extent in part), tensor.dtype, tensor.op)
    split: list[list[Axis]] = []
    whole: dict[str, Expr] = {}
    for axis, part in zip(_axes(tensor), parts, strict=True):
        names = [axis.name] if len(part) == 1 else [f"{axis.name}_{number}" for number in range(len(part))]
        split.append([Axis(name, extent, axis.kind) for name, (_, extent) in zip(names, part, strict=True)])
        if len(part) > 1:
            total: Expr = Const(0, INDEX)
            for item, (stride, _) in zip(split[-1], part, strict=True):
                total = total + item * stride
            whole[axis.name] = total
    simplifier = Simplifier({axis.name: (0, axis.extent - 1) for axes in split for axis in axes})

    def redirected(node: Expr) -> Expr | None:
        if not isinstance(node, Read):
            return None
        indices: list[Expr] = []
        for dimension, index in enumerate(node.indices):
            lengths = _lengths(node.tensor, dimension, cuts)
            for number, (stride, extent) in enumerate(lengths):
                outer = index if stride == 1 else binary("floordiv", index, stride)
                indices.append(simplifier.simplify(outer if number == 0 else binary("mod", outer, extent)))
        return Read(new[id(node.tensor)], tuple(indices))

    body = tensor.op.body
    source = transform(substitute(body.source if isinstance(body, Reduce) else body, whole), redirected)
    count = len(tensor.shape)
    if isinstance(body, Reduce):
        source = Reduce(body.combiner, source, tuple(axis for axes in split[count:] for axis in axes))
    return tensor_from_body(tensor.name, tuple(axis for axes in split[:count] for axis in axes), source)
