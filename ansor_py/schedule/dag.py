"""The compute DAG: the operations of one subgraph in topological order, and what identifies them.

    dag = ComputeDAG.from_outputs(te.matmul(512, 512, 512))
    dag.flops            # 2 * 512**3
    dag.workload_key     # a hash of the canonical text: names, shapes, dtypes, constant inputs, bodies

Tensor names are made unique within the DAG, and transform steps address stages by these names. The names are part
of the workload key, so a graph that wants equal subgraphs to share a key names them by what they compute.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod

from ansor_py.errors import ExpressionError
from ansor_py.te.expr import FLOAT_DTYPES, Binary, Compare, Expr, Read, Reduce, Select, postorder, reads_of, shared, transform
from ansor_py.te.tensor import Compute, Placeholder, Tensor


@dataclass(frozen=True, eq=False)
class ComputeDAG:
    """Operations in topological order (producers first) with unique names.

    `inputs` are the placeholders and `outputs` the results, both in the order in which a kernel takes its buffers.
    """

    tensors: tuple[Tensor, ...]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    @staticmethod
    def from_outputs(outputs: Tensor | Sequence[Tensor], inputs: Sequence[Tensor] | None = None) -> ComputeDAG:
        """Collect everything the outputs depend on. `inputs` fixes the order of the placeholders; the default is first use."""
        wanted = [outputs] if isinstance(outputs, Tensor) else list(outputs)
        order: list[Tensor] = list(inputs) if inputs is not None else []
        given = {id(tensor) for tensor in order}
        for tensor in wanted:
            _visit(tensor, order, {id(t) for t in order})
        for tensor in order:
            if isinstance(tensor.op, Placeholder) and inputs is not None and id(tensor) not in given:
                raise ExpressionError(f"placeholder '{tensor.name}' is used but not listed among the inputs")
        renamed: dict[int, Tensor] = {}
        taken: dict[str, int] = {}
        for tensor in order:
            renamed[id(tensor)] = _renamed(tensor, _unique(tensor.name, taken), renamed)
        tensors = tuple(renamed[id(tensor)] for tensor in order)
        if any(isinstance(tensor.op, Placeholder) for tensor in wanted):
            raise ExpressionError(f"output '{wanted[0].name}' is a placeholder; an output has to be computed")
        placeholders = tuple(tensor for tensor in tensors if isinstance(tensor.op, Placeholder))
        return ComputeDAG(tensors, placeholders, tuple(renamed[id(tensor)] for tensor in wanted))

    def __reduce__(self) -> tuple[object, ...]:
        # Whatever comes first in what is pickled is only referred to afterwards: each node before what uses it, however deep.
        bodies = ((*postorder(t.op.body), t) if isinstance(t.op, Compute) else (t,) for t in self.tensors)
        return _unpickled, ([part for body in bodies for part in body], self.tensors, self.inputs, self.outputs)

    @cached_property
    def computed(self) -> tuple[Tensor, ...]:
        """The computed tensors, producers first."""
        return tuple(tensor for tensor in self.tensors if isinstance(tensor.op, Compute))

    @cached_property
    def flops(self) -> int:
        """Floating-point operations of one evaluation, counted on the definition (not on a schedule)."""
        return sum(tensor_flops(tensor) for tensor in self.computed)

    @cached_property
    def workload_key(self) -> str:
        """32 hex digits that identify the computation: names, shapes, dtypes, constant inputs and bodies."""
        return hashlib.sha256(str(self).encode()).hexdigest()[:32]

    def tensor(self, name: str) -> Tensor:
        """A tensor by its unique name; KeyError if there is none."""
        for tensor in self.tensors:
            if tensor.name == name:
                return tensor
        raise KeyError(name)

    def __str__(self) -> str:
        return "\n".join(map(_definition, self.tensors))


def _unpickled(
    parts: Sequence[object], tensors: tuple[Tensor, ...], inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...]
) -> ComputeDAG:
    return ComputeDAG(tensors, inputs, outputs)


def producers(tensor: Tensor) -> list[Tensor]:
    """The distinct tensors that the body of `tensor` reads, in order of first read."""
    if isinstance(tensor.op, Placeholder):
        return []
    return list({id(read.tensor): read.tensor for read in reads_of(tensor.op.body)}.values())


def tensor_flops(tensor: Tensor) -> int:
    """Floating-point operations of one operation: output elements times operations of the body (reference section 1).

    Arithmetic and comparisons count one when they work on the output's kind of number, a select counts its condition
    and the dearer branch, calls count only their arguments, casts nothing; a reduction multiplies by its iterations. A value
    that is used several times is computed once.
    """
    if isinstance(tensor.op, Placeholder):
        return 0
    body, wants_float = shared(tensor.op.body), tensor.dtype in FLOAT_DTYPES
    if not isinstance(body, Reduce):
        return tensor.size * _expr_flops(body, wants_float)
    iterations = prod(axis.extent for axis in body.axes)
    return tensor.size * iterations * (1 + _expr_flops(body.source, wants_float))


def _expr_flops(expr: Expr, wants_float: bool) -> int:
    alone: dict[int, int] = {}  # of a node with everything below it
    for node in postorder(expr, lambda node: isinstance(node, Read)):
        alone[id(node)] = _own_flops(node, wants_float) + sum(alone.get(id(operand), 0) for operand in _taken(node, alone))
    total, seen, pending = 0, set[int](), [expr]
    while pending:
        node = pending.pop()
        if id(node) not in seen:
            seen.add(id(node))
            total += _own_flops(node, wants_float)
            pending.extend(_taken(node, alone))
    return total


def _own_flops(node: Expr, wants_float: bool) -> int:
    return int(isinstance(node, Binary | Compare) and (node.left.dtype in FLOAT_DTYPES) == wants_float)


def _taken(node: Expr, flops: dict[int, int]) -> tuple[Expr, ...]:
    """The operands that count; of a select only one branch."""
    if isinstance(node, Select):
        return node.condition, max(node.then, node.otherwise, key=lambda branch: flops.get(id(branch), 0))
    return () if isinstance(node, Read) else node.operands


def _visit(tensor: Tensor, order: list[Tensor], seen: set[int]) -> None:
    """Depth first, producers before consumers, without recursion (a graph can be deep)."""
    stack: list[tuple[Tensor, bool]] = [(tensor, False)]
    while stack:
        node, expanded = stack.pop()
        if id(node) in seen:
            continue
        if expanded:
            seen.add(id(node))
            order.append(node)
            continue
        stack.append((node, True))
        stack.extend((producer, False) for producer in reversed(producers(node)) if id(producer) not in seen)


def _unique(name: str, taken: dict[str, int]) -> str:
    """The name with the next free number behind it if it is taken; `taken` has the numbers from which to look on."""
    candidate = name
    while candidate in taken:
        candidate, taken[name] = f"{name}_{taken[name]}", taken[name] + 1
    taken[candidate] = 1
    return candidate


def _renamed(tensor: Tensor, name: str, renamed: dict[int, Tensor]) -> Tensor:
    if isinstance(tensor.op, Placeholder):
        return tensor if name == tensor.name else Tensor(name, tensor.shape, tensor.dtype, tensor.op)
    sources = producers(tensor)
    if name == tensor.name and all(renamed[id(source)] is source for source in sources):
        return tensor
    body = redirect_reads(tensor.op.body, {id(source): renamed[id(source)] for source in sources})
    return Tensor(name, tensor.shape, tensor.dtype, Compute(tensor.op.axes, tensor.op.reduce_axes, body))


def redirect_reads(body: Expr, replacement: dict[int, Tensor]) -> Expr:
    """The body with reads of some tensors (by identity) going to others of the same shape."""

    def rewrite(node: Expr) -> Expr | None:
        if isinstance(node, Read) and id(node.tensor) in replacement:
            return Read(replacement[id(node.tensor)], node.indices)
        return None

    return transform(body, rewrite)


def _definition(tensor: Tensor) -> str:
    if isinstance(tensor.op, Placeholder):
        return f"{tensor} = {'constant' if tensor.is_constant else 'placeholder'}"
    axes = ", ".join(axis.name for axis in tensor.op.axes)
    reduce = "".join(f" {axis.name}<{axis.extent}" for axis in tensor.op.reduce_axes)
    return f"{tensor}[{axes}]{reduce} = {tensor.op.body}"
