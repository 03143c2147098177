"""Merging of axes that every operation of a DAG treats as one.

A 1x1 convolution over 13x13 images, or a chain of element-wise operators, never tells neighbouring dimensions apart: in
memory they are one. Seen as one axis they fill vectors (169 elements instead of rows of 13), and there are fewer loops to
search. Buffers keep their bytes; only the shapes that a DAG states for them change.

    merged = merge_axes(ComputeDAG.from_outputs(te.relu(te.placeholder((1, 64, 13, 13)))))
    merged.outputs[0].shape      # (10816,)
"""

from __future__ import annotations

from collections.abc import Sequence

from ansor_py.schedule.dag import ComputeDAG, redirect_reads
from ansor_py.te.expr import (
    INDEX,
    Axis,
    Const,
    Expr,
    Read,
    Reduce,
    Var,
    reads_of,
    substitute,
    transform,
    variables_of,
    walk,
)
from ansor_py.te.tensor import Compute, Tensor, tensor_from_body

# (tensor name, dimension): that dimension and the next one are the same axis everywhere. Reduction axes of an operation
# are counted after its dimensions.
Pair = tuple[str, int]


def merge_axes(dag: ComputeDAG) -> ComputeDAG:
    """The DAG with neighbouring axes merged wherever all reads and definitions allow it; names stay.

    Reduction axes of extent 1 (the window of a 1x1 convolution) are dropped first, as they hide what is the same.
    """
    dag = _without_unit_reductions(dag)
    pairs = _mergeable(dag)
    if not pairs:
        return dag
    merged: dict[str, Tensor] = {}
    for tensor in dag.tensors:
        merged[tensor.name] = _merged_tensor(tensor, pairs, merged)
    return ComputeDAG.from_outputs(
        [merged[tensor.name] for tensor in dag.outputs], inputs=[merged[tensor.name] for tensor in dag.inputs]
    )


def _axes(tensor: Tensor) -> tuple[Axis, ...]:
    return (*tensor.op.axes, *tensor.op.reduce_axes) if isinstance(tensor.op, Compute) else ()


def _without_unit_reductions(dag: ComputeDAG) -> ComputeDAG:
    if all(axis.extent > 1 for tensor in dag.computed for axis in _axes(tensor) if axis.kind == "reduction"):
        return dag
    new: dict[str, Tensor] = {}
    redirected: dict[int, Tensor] = {}
    for tensor in dag.tensors:
        new[tensor.name] = tensor
        if isinstance(tensor.op, Compute):
            body = redirect_reads(tensor.op.body, redirected)
            if isinstance(body, Reduce):
                unit = {axis.name: Const(0, INDEX) for axis in body.axes if axis.extent == 1}
                kept = tuple(axis for axis in body.axes if axis.extent > 1)
                source = substitute(body.source, unit)
                body = Reduce(body.combiner, source, kept) if kept else source
            new[tensor.name] = tensor_from_body(tensor.name, tensor.op.axes, body)
        redirected[id(tensor)] = new[tensor.name]
    return ComputeDAG.from_outputs([new[t.name] for t in dag.outputs], inputs=[new[t.name] for t in dag.inputs])


def _mergeable(dag: ComputeDAG) -> set[Pair]:
    """All pairs that may be merged: those that are left after striking out whatever some read contradicts."""
    pairs = {(t.name, d) for t in dag.tensors for d in range(len(t.shape) - 1)}
    for tensor in dag.computed:
        first = len(tensor.shape)
        pairs |= {(tensor.name, first + d) for d in range(len(_axes(tensor)) - first - 1)}
    before = -1
    while len(pairs) != before:  # both ways along a chain at once
        before = len(pairs)
        for tensor in (*dag.computed, *reversed(dag.computed)):
            pairs -= _contradictions(tensor, pairs)
    return pairs


def _contradictions(tensor: Tensor, pairs: set[Pair]) -> set[Pair]:
    """Pairs that the definition of one tensor rules out: of its own axes, or of the dimensions of what it reads."""
    assert isinstance(tensor.op, Compute)
    axes = _axes(tensor)
    loose = _loose_variables(tensor.op.body)
    wrong = {(tensor.name, s) for s in range(len(axes) - 1) if loose & {axes[s].name, axes[s + 1].name}}
    first = len(tensor.shape)
    wrong |= {(tensor.name, first - 1)} if first and len(axes) > first else set()  # a spatial and a reduction axis
    for read in reads_of(tensor.op.body):
        joined = {_joined_axis(read, dimension, axes) for dimension in range(len(read.indices) - 1)}
        used = {index.name for index in read.indices if isinstance(index, Var)}
        for dimension in range(len(read.indices) - 1):
            start = _joined_axis(read, dimension, axes)
            constant = isinstance(read.indices[dimension], Const) and isinstance(read.indices[dimension + 1], Const)
            if not constant and (start is None or (tensor.name, start) not in pairs):
                wrong.add((read.tensor.name, dimension))
            if start is not None and (read.tensor.name, dimension) not in pairs:
                wrong.add((tensor.name, start))
        for start in range(len(axes) - 1):
            if start not in joined and used & {axes[start].name, axes[start + 1].name}:
                wrong.add((tensor.name, start))
    return wrong


def _loose_variables(body: Expr) -> set[str]:
    """Variables that stand anywhere else than alone as an index of one read, or as such more than once."""
    loose: set[str] = set()
    for node in walk(body):
        inside = node.operands
        if isinstance(node, Read):
            plain = [index.name for index in node.indices if isinstance(index, Var)]
            loose |= {name for name in plain if plain.count(name) > 1}
            loose |= set().union(*(variables_of(index) for index in inside if not isinstance(index, Var)), set())
        else:
            loose |= {child.name for child in inside if isinstance(child, Var)}
    return loose | ({body.name} if isinstance(body, Var) else set())


def _joined_axis(read: Read, dimension: int, axes: Sequence[Axis]) -> int | None:
    """The axis `a` if this dimension and the next are indexed by `axes[a]` and `axes[a + 1]` of the same inner extent."""
    names = [axis.name for axis in axes]
    outer, inner = read.indices[dimension], read.indices[dimension + 1]
    if not (isinstance(outer, Var) and isinstance(inner, Var) and outer.name in names and inner.name in names):
        return None
    start = names.index(outer.name)
    follows = names.index(inner.name) == start + 1 and axes[start].kind == axes[start + 1].kind
    return start if follows and axes[start + 1].extent == read.tensor.shape[dimension + 1] else None


def _runs(first: int, count: int, name: str, pairs: set[Pair]) -> list[list[int]]:
    """The positions `first ... first + count - 1` of a tensor grouped into merged axes."""
    runs: list[list[int]] = []
    for position in range(first, first + count):
        if position > first and (name, position - 1) in pairs:
            runs[-1].append(position)
        else:
            runs.append([position])
    return runs


def _product(extents: Sequence[int]) -> int:
    result = 1
    for extent in extents:
        result *= extent
    return result


def _merged_tensor(tensor: Tensor, pairs: set[Pair], merged: dict[str, Tensor]) -> Tensor:
    runs = _runs(0, len(tensor.shape), tensor.name, pairs)
    shape = tuple(_product([tensor.shape[p] for p in run]) for run in runs)
    if not isinstance(tensor.op, Compute):
        return Tensor(tensor.name, shape, tensor.dtype, tensor.op)
    old = _axes(tensor)
    reduce_runs = _runs(len(tensor.shape), len(tensor.op.reduce_axes), tensor.name, pairs)
    new: dict[int, Axis] = {}
    for run in (*runs, *reduce_runs):
        names = "_".join(old[p].name for p in run)
        new[run[0]] = Axis(names, _product([old[p].extent for p in run]), old[run[0]].kind)
    first_of = {old[run[0]].name: new[run[0]] for run in (*runs, *reduce_runs)}

    def rewrite(node: Expr) -> Expr | None:
        if isinstance(node, Read):
            source_runs = _runs(0, len(node.tensor.shape), node.tensor.name, pairs)
            return Read(merged[node.tensor.name], tuple(_index(node, run) for run in source_runs))
        return None

    def _index(node: Read, run: list[int]) -> Expr:
        """A run of neighbouring axes is its merged axis; a run of constants the constant element number."""
        first = node.indices[run[0]]
        if isinstance(first, Const) and len(run) > 1:
            number = 0
            for dimension in run:
                index = node.indices[dimension]
                assert isinstance(index, Const)
                number = number * node.tensor.shape[dimension] + int(index.value)
            return Const(number, first.dtype)
        return first

    body = tensor.op.body
    source = body.source if isinstance(body, Reduce) else body
    source = transform(source, rewrite)
    source = transform(source, lambda node: first_of.get(node.name) if isinstance(node, Var) else None)
    if isinstance(body, Reduce):
        source = Reduce(body.combiner, source, tuple(new[run[0]] for run in reduce_runs))
    return tensor_from_body(tensor.name, tuple(new[run[0]] for run in runs), source)
