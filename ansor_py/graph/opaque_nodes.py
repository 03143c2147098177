"""ONNX nodes that are not compiled: each becomes an `OpaqueNode`, a small ONNX model of its own.

The model's inputs are what the node reads, the names that its subgraphs capture included; its opsets and functions are the
whole model's. What its outputs are is asked of ONNX's inference with all that is known of the inputs.

    made = make_opaque(node, "if1", reason, context, types, constants)
    made.node.model                  # bytes for the reference evaluator
    made.types["y"]                  # TypeProto; a value without static extents is dynamic

A node that has a library kernel keeps its attributes instead of a model (`make_library`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import (
    FunctionProto,
    GraphProto,
    ModelProto,
    NodeProto,
    TypeProto,
    ValueInfoProto,
    helper,
    numpy_helper,
)

from ansor_py.errors import ModelError, ShapeConflictError
from ansor_py.graph.ir import Array, OpaqueNode
from ansor_py.graph.library_kernels import Attribute
from ansor_py.graph.model_file import first_line
from ansor_py.graph.node_inference import SHAPE_ELEMENTS
from ansor_py.graph.onnx_nodes import add_defaults, attributes_of, default_attributes
from ansor_py.graph.reference import evaluator_of
from ansor_py.graph.subgraphs import operators_in, subgraphs_of, values_read

LIBRARY_REASON = "a library kernel computes it"


@dataclass(frozen=True)
class Context:
    """What surrounds a node: the versions of the operator sets, the model's functions, and the version of the format."""

    opsets: Mapping[str, int]
    functions: Sequence[FunctionProto]
    ir_version: int


@dataclass(frozen=True, eq=False)
class MadeNode:
    """An opaque node, and the types of the values that it computes where they are known."""

    node: OpaqueNode
    types: Mapping[str, TypeProto]


def make_opaque(
    proto: NodeProto,
    title: str,
    reason: str,
    context: Context,
    types: Mapping[str, TypeProto],
    constants: Mapping[str, Array],
) -> MadeNode:
    """The node as a model of its own. `types` are those of the values it reads, as far as they are known.

    Raises ModelError for an operator that ONNX's reference evaluator does not have either and for what it would ignore,
    ShapeConflictError for one that has no meaning for the shapes that it reads.
    """
    model = _model_of(proto, title, context, types)
    try:
        evaluator_of(model)
    except ModelError as error:  # something that no evaluator honours
        raise ModelError(f"{reason}; and {error}") from error
    except Exception as error:  # whatever the evaluator raises while it looks up implementations
        raise ModelError(f"{reason}; and ONNX's reference evaluator cannot run it either") from error
    outputs = [name for name in proto.output if name]
    names = [info.name for info in model.graph.input]
    domain = "" if proto.domain == "ai.onnx" else proto.domain
    opset = context.opsets.get(domain, 0)
    content = model.SerializeToString()
    node = OpaqueNode(
        title, proto.op_type, domain, opset, reason, content, {name: name for name in names}, {name: name for name in outputs}
    )
    try:
        return MadeNode(node, _inferred_types(model, constants))
    except onnx.shape_inference.InferenceError as error:
        where = f"node '{title}' (operator {f'{domain}.' if domain else ''}{proto.op_type}, opset {opset})"
        raise ShapeConflictError(f"shapes of the model do not fit together: {where}: {first_line(error)}") from error


def make_library(
    proto: NodeProto, title: str, context: Context, types: Mapping[str, TypeProto], constants: Mapping[str, Array]
) -> MadeNode:
    """The node for its library kernel; arguments as of `make_opaque`. Raises ModelError for an attribute that is an array."""
    opset = context.opsets.get("", 0)
    attributes: dict[str, Attribute] = {}
    given = attributes_of(proto, f"node '{title}' (operator {proto.op_type}, opset {opset})")
    for name, value in {**default_attributes(proto.op_type, opset), **given}.items():
        if isinstance(value, np.ndarray):
            raise ModelError(f"node '{title}' (operator {proto.op_type}) has a tensor as attribute '{name}'")
        attributes[name] = value
    inputs = {str(index): name for index, name in enumerate(proto.input) if name}
    outputs = {str(index): name for index, name in enumerate(proto.output) if name}
    node = OpaqueNode(title, proto.op_type, "", opset, LIBRARY_REASON, b"", inputs, outputs, True, attributes)
    return MadeNode(node, _inferred_types(_model_of(proto, title, context, types), constants))


def evaluate_opaque(node: OpaqueNode, constants: Mapping[str, Array]) -> dict[str, object]:
    """The outputs of a node all of whose inputs are known. Raises ModelError when the evaluator fails."""
    try:
        results = evaluator_of(node.model).run(None, {name: constants[value] for name, value in node.inputs.items()})
    except Exception as error:  # the evaluator raises whatever the operator's NumPy code raises
        raise ModelError(f"node '{node.name}' (operator {node.op_type}) cannot be evaluated: {error}") from error
    return dict(zip(node.outputs.values(), results, strict=True))


def _model_of(proto: NodeProto, title: str, context: Context, types: Mapping[str, TypeProto]) -> ModelProto:
    inputs = [_value_info(name, types.get(name)) for name in values_read(proto)]
    outputs = [_value_info(name, None) for name in proto.output if name]
    graph = helper.make_graph([proto], title, inputs, outputs)
    graph.node[0].name = title
    opsets = [helper.make_opsetid(domain, version) for domain, version in context.opsets.items()]
    uses_functions = any(function.name in operators_in(proto) for function in context.functions)
    functions = list(context.functions) if uses_functions else []
    return helper.make_model(graph, opset_imports=opsets, functions=functions, ir_version=context.ir_version)


def _value_info(name: str, kind: TypeProto | None) -> ValueInfoProto:
    info = ValueInfoProto(name=name)
    if kind is not None:
        info.type.CopyFrom(kind)
    return info


def _inferred_types(model: ModelProto, constants: Mapping[str, Array]) -> dict[str, TypeProto]:
    """The types of the model's outputs that inference finds, with small constants given to it.

    What is stated inside of subgraphs is not believed, and as not every branch has to run, nothing in them is a conflict.
    """
    known = ModelProto()
    known.CopyFrom(model)
    names = [info.name for info in known.graph.input]
    small = [name for name in names if name in constants and constants[name].size <= SHAPE_ELEMENTS]
    known.graph.initializer.extend(numpy_helper.from_array(constants[name], name) for name in small)
    for node in known.graph.node:
        domain = "" if node.domain == "ai.onnx" else node.domain
        add_defaults(node, {entry.domain: entry.version for entry in known.opset_import}.get(domain, 0), domain)
    subgraphs = [graph for node in known.graph.node for graph in subgraphs_of(node)]
    for graph in subgraphs:
        _forget_shapes(graph)
    inferred = onnx.shape_inference.infer_shapes(known, strict_mode=not subgraphs, data_prop=True)
    return {info.name: info.type for info in inferred.graph.output if info.type.WhichOneof("value")}


def _forget_shapes(graph: GraphProto) -> None:
    """Take the shapes away that a subgraph, and those in it, states."""
    for info in (*graph.input, *graph.output, *graph.value_info):
        if info.type.HasField("tensor_type"):
            info.type.tensor_type.ClearField("shape")
    for node in graph.node:
        for inner in subgraphs_of(node):
            _forget_shapes(inner)
