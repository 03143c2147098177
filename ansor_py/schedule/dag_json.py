"""A compute DAG as JSON and back, so that a task can be made again wherever its records are read.

A tensor is its name, shape and dtype, and either whether it is constant or its axes and body. A body is a list of nodes,
operands before what uses them, each a list of its kind, what it is, and the numbers of its operands; a value that is used
twice is one node. Whatever the workload key is a hash of is in it, and more: numbers are written in full.

    value = dag_to_json(task.dag)              # lists, texts and numbers, for `json.dumps`
    dag_from_json(value).workload_key          # that of the task
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansor_py.errors import AnsorError, RecordError
from ansor_py.schedule.dag import ComputeDAG
from ansor_py.te.expr import Axis, Binary, Call, Cast, Compare, Const, Expr, Not, Read, Reduce, Select, Var, postorder
from ansor_py.te.tensor import Compute, Placeholder, Tensor, placeholder

# What JSON has no number for.
NOT_FINITE = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}


def dag_to_json(dag: ComputeDAG) -> dict[str, Any]:
    """The DAG as values that `json.dumps` takes. Raises RecordError for an expression of a class that is not known here."""
    numbers = {id(tensor): number for number, tensor in enumerate(dag.tensors)}
    return {
        "tensors": [_tensor_to_json(tensor, numbers) for tensor in dag.tensors],
        "inputs": [numbers[id(tensor)] for tensor in dag.inputs],
        "outputs": [numbers[id(tensor)] for tensor in dag.outputs],
    }


def dag_from_json(value: Any) -> ComputeDAG:
    """The inverse of `dag_to_json`. Raises RecordError for anything else."""
    try:
        tensors: list[Tensor] = []
        for item in value["tensors"]:
            tensors.append(_tensor_from_json(item, tensors))
        inputs, outputs = (tuple(tensors[_number(n)] for n in value[name]) for name in ("inputs", "outputs"))
        return ComputeDAG(tuple(tensors), inputs, outputs)
    except (AnsorError, KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise RecordError(f"this is not a compute DAG as JSON: {type(error).__name__}: {error}") from error


def _tensor_to_json(tensor: Tensor, numbers: Mapping[int, int]) -> dict[str, Any]:
    head: dict[str, Any] = {"name": tensor.name, "shape": list(tensor.shape), "dtype": tensor.dtype}
    if isinstance(tensor.op, Placeholder):
        return {**head, "constant": tensor.op.constant}
    axes = [[axis.name, axis.extent] for axis in tensor.op.axes]
    reduce_axes = [[axis.name, axis.extent] for axis in tensor.op.reduce_axes]
    places: dict[int, int] = {}
    body: list[list[Any]] = []
    for node in postorder(tensor.op.body):
        places[id(node)] = len(body)
        body.append([*_head_of(node, numbers), [places[id(operand)] for operand in node.operands]])
    return {**head, "axes": axes, "reduce_axes": reduce_axes, "body": body}


def _head_of(node: Expr, numbers: Mapping[int, int]) -> list[Any]:
    """Kind of a node and what it is, without its operands."""
    match node:
        case Const():
            finite = not isinstance(node.value, float) or math.isfinite(node.value)
            return ["const", node.value if finite else str(node.value), node.dtype]
        case Axis():
            return ["axis", node.name, node.extent, node.kind]
        case Var():
            return ["var", node.name, node.dtype]
        case Binary() | Compare():
            return ["binary" if isinstance(node, Binary) else "compare", node.op]
        case Not() | Select():
            return ["not" if isinstance(node, Not) else "select"]
        case Call():
            return ["call", node.function]
        case Cast():
            return ["cast", node.dtype]
        case Read():
            return ["read", numbers[id(node.tensor)]]
        case Reduce():
            return ["reduce", node.combiner, [[axis.name, axis.extent] for axis in node.axes]]
    raise RecordError(f"an expression of class {type(node).__name__} cannot be written as JSON")


def _tensor_from_json(item: Mapping[str, Any], before: Sequence[Tensor]) -> Tensor:
    """A tensor of which those before it are known."""
    name, shape = _text(item["name"]), [_number(extent) for extent in item["shape"]]
    if "body" not in item:
        return placeholder(shape, _text(item["dtype"]), name, bool(item["constant"]))
    nodes: list[Expr] = []
    for kind, *what, operands in item["body"]:
        nodes.append(NODES[kind](what, tuple(nodes[_number(place)] for place in operands), before))
    axes = tuple(Axis(_text(axis), _number(extent)) for axis, extent in item["axes"])
    tensor = Tensor(name, tuple(shape), nodes[-1].dtype, Compute(axes, _reduce_axes(item["reduce_axes"]), nodes[-1]))
    if tensor.dtype != item["dtype"]:
        raise ValueError(f"tensor '{name}' is {item['dtype']} and its body {tensor.dtype}")
    return tensor


def _const(what: Sequence[Any]) -> Const:
    value, dtype = what
    value = NOT_FINITE[value] if isinstance(value, str) else value
    if not isinstance(value, bool | int | float):
        raise TypeError(f"{value!r} is no number")
    return Const(value, _text(dtype))


def _reduce_axes(pairs: Sequence[Any]) -> tuple[Axis, ...]:
    return tuple(Axis(_text(name), _number(extent), "reduction") for name, extent in pairs)


def _only(operands: tuple[Expr, ...]) -> Expr:
    (operand,) = operands
    return operand


def _number(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise TypeError(f"{value!r} is no whole number of 0 or more")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


# What makes a node again from what it is, its operands, and the tensors before its own. No constant is folded on the way.
NODES: Mapping[str, Callable[[list[Any], tuple[Expr, ...], Sequence[Tensor]], Expr]] = {
    "const": lambda what, operands, tensors: _const(what),
    "axis": lambda what, operands, tensors: Axis(*what),
    "var": lambda what, operands, tensors: Var(*what),
    "binary": lambda what, operands, tensors: Binary(*what, *operands),
    "compare": lambda what, operands, tensors: Compare(*what, *operands),
    "not": lambda what, operands, tensors: Not(_only(operands)),
    "select": lambda what, operands, tensors: Select(*operands),
    "call": lambda what, operands, tensors: Call(_text(*what), operands),
    "cast": lambda what, operands, tensors: Cast(_only(operands), _text(*what)),
    "read": lambda what, operands, tensors: Read(tensors[_number(*what)], operands),
    "reduce": lambda what, operands, tensors: Reduce(_text(what[0]), _only(operands), _reduce_axes(what[1])),
}
