"""Reading a model: from a path, bytes or a `ModelProto` to a checked `ModelProto`, with one clear error for each defect.

model = check_model(read_model("m.onnx"))     # with external data loaded; nodes in topological order
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import networkx as nx
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped,unused-ignore]
from onnx import ModelProto, NodeProto

from ansor_py.errors import ModelError

# Protobuf's limit on one message; a larger model keeps its weights in external files.
MESSAGE_LIMIT_BYTES = 2**31 - 1


def read_model(model: str | os.PathLike[str] | bytes | ModelProto) -> ModelProto:
    """The model, with the weights of external data files (beside a file given by path) loaded. Raises ModelError."""
    if isinstance(model, ModelProto):
        return model
    if isinstance(model, bytes):
        return _parsed(model, "the given bytes")
    path = Path(model)
    if not path.exists():
        raise ModelError(f"model file '{path}' does not exist")
    if path.is_dir():
        raise ModelError(f"'{path}' is a folder; give the ONNX file in it")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"model file '{path}' cannot be read: {error.strerror}") from error
    parsed = _parsed(data, f"'{path}'")
    try:
        onnx.load_external_data_for_model(parsed, str(path.resolve().parent))
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        raise ModelError(f"external data of '{path}' cannot be loaded: {_first_line(error)}") from error
    return parsed


def _parsed(data: bytes, what: str) -> ModelProto:
    model = ModelProto()
    # Field 1 of a ModelProto is `ir_version`, and every writer emits fields in order: an ONNX file starts with 0x08.
    starts_like_onnx = data[:1] == b"\x08"
    try:
        model.ParseFromString(data)
    except DecodeError as error:
        if starts_like_onnx and data:
            raise ModelError(f"{what} is truncated or damaged: it starts like an ONNX model but cannot be decoded") from error
        raise ModelError(f"{what} is not an ONNX file") from error
    if not model.ir_version or not model.HasField("graph"):
        if starts_like_onnx:
            raise ModelError(f"{what} is truncated or damaged: it holds no graph")
        raise ModelError(f"{what} is not an ONNX file")
    return model


def check_model(model: ModelProto) -> ModelProto:
    """The model with its nodes in topological order. ModelError for dangling names, cycles, what ONNX's checker finds."""
    ordered = _ordered_nodes(model)
    if ordered is not None:
        sorted_model = ModelProto()
        sorted_model.CopyFrom(model)
        del sorted_model.graph.node[:]
        sorted_model.graph.node.extend(ordered)
        model = sorted_model
    try:
        if model.ByteSize() < MESSAGE_LIMIT_BYTES:  # the checker cannot take a larger message
            onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError) as error:
        raise ModelError(f"the model is not valid ONNX: {_first_line(error)}") from error
    _check_opset(model)
    return model


def _check_opset(model: ModelProto) -> None:
    newest = onnx.defs.onnx_opset_version()
    for entry in model.opset_import:
        if entry.domain in ("", "ai.onnx") and entry.version > newest:
            raise ModelError(
                f"the model uses opset {entry.version}, and the installed onnx {onnx.__version__} knows up to {newest}; "
                "install a newer onnx"
            )


def infer_shapes(model: ModelProto) -> ModelProto:
    """The model with ONNX's shape and type inference applied, strictly. ModelError where shapes contradict each other."""
    if model.ByteSize() >= MESSAGE_LIMIT_BYTES:
        return model
    try:
        return onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    except (onnx.shape_inference.InferenceError, ValueError):
        complete = _with_function_defaults(model)  # inference does not see defaults inside of an operator's function body
    try:
        return onnx.shape_inference.infer_shapes(complete, strict_mode=True, data_prop=True)
    except (onnx.shape_inference.InferenceError, ValueError) as error:
        raise ModelError(f"shapes of the model do not fit together: {_first_line(error)}") from error


def _with_function_defaults(model: ModelProto) -> ModelProto:
    """The model with the default attributes of operators that have a function body written out."""
    copy = ModelProto()
    copy.CopyFrom(model)
    versions = {entry.domain: entry.version for entry in copy.opset_import}
    for node in copy.graph.node:
        try:
            schema: Any = onnx.defs.get_schema(node.op_type, versions.get(node.domain, 0), node.domain)
        except onnx.defs.SchemaError:
            continue
        if schema.has_function:
            given = {attribute.name for attribute in node.attribute}
            defaults = [item.default_value for name, item in schema.attributes.items() if name not in given]
            node.attribute.extend(value for value in defaults if value.name)
    return copy


def _ordered_nodes(model: ModelProto) -> list[NodeProto] | None:
    """Nodes in topological order if they are not in it already; ModelError for a dangling name or a cycle."""
    graph = model.graph
    known = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    known |= {tensor.values.name for tensor in graph.sparse_initializer}
    producer = {name: index for index, node in enumerate(graph.node) for name in node.output if name}
    in_order = True
    for index, node in enumerate(graph.node):
        for name in node.input:
            if name and name not in known and name not in producer:
                raise ModelError(
                    f"node '{node_title(node, index)}' (operator {node.op_type}) reads '{name}', which nothing produces"
                )
            in_order = in_order and (not name or name in known or producer[name] < index)
    for value in graph.output:
        if value.name not in known and value.name not in producer:
            raise ModelError(f"graph output '{value.name}' is produced by no node")
    if in_order:
        return None
    order = nx.DiGraph()
    order.add_nodes_from(range(len(graph.node)))
    order.add_edges_from((producer[n], i) for i, node in enumerate(graph.node) for n in node.input if n in producer)
    try:
        return [graph.node[index] for index in nx.lexicographical_topological_sort(order)]
    except nx.NetworkXUnfeasible as error:
        cycle = [node_title(graph.node[edge[0]], edge[0]) for edge in nx.find_cycle(order)]
        raise ModelError(f"the graph has a cycle: {' -> '.join([*cycle, cycle[0]])}") from error


def node_title(node: NodeProto, index: int) -> str:
    """A node's name, or one made of operator and position."""
    return node.name or f"{node.op_type}_{index}"


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n\n")[0].replace("\n", " ")[:400]
