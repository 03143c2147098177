"""What is wrong with a model: what stops it from being understood is an error, the rest a note.

An error is a value that nothing or more than one node computes, a cycle, operators of an unknown version, and a node that
uses its operator otherwise than the standard defines it (`ansor_py.graph.node_checks`). What ONNX's checker complains of
besides, a missing type of an output or a format version that it does not know yet, is told and has no consequences.

    checked = check_model(read_model("m.onnx"))
    checked.model                    # nodes in topological order
    checked.notes                    # ("onnx.checker: Field 'shape' of 'type' is required but missing.",)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import MutableSequence, Sequence
from dataclasses import dataclass

import networkx as nx
import onnx
from onnx import GraphProto, ModelProto, NodeProto

from ansor_py.errors import ModelError
from ansor_py.graph.model_file import first_line
from ansor_py.graph.node_checks import check_nodes, node_title
from ansor_py.graph.subgraphs import subgraphs_of, values_read

# Protobuf's limit on one message; a larger model keeps its weights in external files.
MESSAGE_LIMIT_BYTES = 2**31 - 1


@dataclass(frozen=True, eq=False)
class CheckedModel:
    """A model that can be understood as far as its structure goes, and what is remarkable about it."""

    model: ModelProto
    opsets: dict[str, int]
    notes: tuple[str, ...]


def check_model(model: ModelProto) -> CheckedModel:
    """The model with its nodes in topological order. Raises ModelError, which names the node or value."""
    opsets = _opsets(model)
    for nodes in (model.graph.node, *(function.node for function in model.functions)):
        _check_names(nodes)
    _check_definitions(model.graph)
    scopes = [(model.graph.node, _given(model.graph)), *((f.node, set(f.input)) for f in model.functions)]
    straight = [_in_order(nodes, known) for nodes, known in scopes]  # also says what nothing produces
    if not all(straight):
        ordered = ModelProto()
        ordered.CopyFrom(model)
        model = ordered
        _sort(model.graph.node, _given(model.graph))
        for function in model.functions:
            _sort(function.node, set(function.input))
    functions = {(function.domain, function.name): function for function in model.functions}
    check_nodes(model.graph.node, opsets, functions)
    for function in model.functions:
        check_nodes(function.node, {**opsets, **versions_of(function.opset_import)}, functions)
    return CheckedModel(model, opsets, _complaints(model))


def versions_of(imports: Sequence[onnx.OperatorSetIdProto]) -> dict[str, int]:
    """The version of each domain; the standard's two names are one. Raises ModelError for a domain of two versions."""
    versions: dict[str, int] = {}
    for entry in imports:
        domain = "" if entry.domain == "ai.onnx" else entry.domain
        if not 1 <= entry.version < 2**31:
            raise ModelError(f"the model imports the operator set '{domain}' in version {entry.version}; versions begin with 1")
        if versions.setdefault(domain, entry.version) != entry.version:
            raise ModelError(
                f"the model imports the operator set '{entry.domain}' in the versions {versions[domain]} and {entry.version}"
            )
    return versions


def _opsets(model: ModelProto) -> dict[str, int]:
    versions = versions_of(model.opset_import)
    if not versions and 0 < model.ir_version < 3:
        versions[""] = 1  # the format had no imports yet
    newest = onnx.defs.onnx_opset_version()
    if versions.get("", 0) > newest:
        raise ModelError(
            f"the model uses opset {versions['']}, and the installed onnx {onnx.__version__} knows up to {newest}; "
            "install a newer onnx"
        )
    return versions


def _complaints(model: ModelProto) -> tuple[str, ...]:
    if model.ByteSize() >= MESSAGE_LIMIT_BYTES:  # the checker cannot take it
        return ()
    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError) as error:
        return (f"onnx.checker: {first_line(error)}",)
    return ()


def _check_names(nodes: Sequence[NodeProto]) -> None:
    """ModelError for a name that is no text: protobuf gives bytes for what is not UTF-8."""
    for index, node in enumerate(nodes):
        texts = [node.op_type, node.domain, node.name, *node.input, *node.output, *(item.name for item in node.attribute)]
        if not all(isinstance(text, str) for text in texts):
            raise ModelError(f"the model is damaged: in its node {index}, a name is no text")
        for graph in subgraphs_of(node):
            _check_names(graph.node)


def _check_definitions(graph: GraphProto) -> None:
    """ModelError for a value that is defined twice, and for an output that nothing computes."""
    tensors = [tensor.name for tensor in graph.initializer] + [tensor.values.name for tensor in graph.sparse_initializer]
    inputs = [info.name for info in graph.input]
    computed = [name for node in graph.node for name in node.output if name]
    twice = [name for name, count in Counter([*inputs, *computed]).items() if count > 1]
    twice += sorted(set(tensors) & set(computed))
    for name, count in Counter(tensors).items():
        if count > 1:
            first, *others = (tensor for tensor in graph.initializer if tensor.name == name)
            twice += [name] if any(other != first for other in others) else []
    if twice:
        raise ModelError(f"value '{twice[0]}' is defined more than once")
    known = {*inputs, *tensors, *computed}
    for value in graph.output:
        if value.name not in known:
            raise ModelError(f"graph output '{value.name}' is produced by no node")


def _given(graph: GraphProto) -> set[str]:
    """The names that a graph has without any node: inputs and initialisers."""
    tensors = {tensor.name for tensor in graph.initializer} | {tensor.values.name for tensor in graph.sparse_initializer}
    return tensors | {info.name for info in graph.input}


def _in_order(nodes: Sequence[NodeProto], known: set[str]) -> bool:
    """Whether nodes stand behind what they read, in subgraphs too; ModelError for a name that nothing produces."""
    producer, reads = _edges(nodes, known)
    straight = all(producer[name] < index for index, names in enumerate(reads) for name in names)
    inner = [_in_order(graph.node, {*known, *producer, *_given(graph)}) for node in nodes for graph in subgraphs_of(node)]
    return straight and all(inner)


def _sort(nodes: MutableSequence[NodeProto], known: set[str]) -> None:
    """Put nodes into topological order, in subgraphs too; ModelError for a cycle."""
    producer, reads = _edges(nodes, known)
    order = nx.DiGraph()
    order.add_nodes_from(range(len(nodes)))
    order.add_edges_from((producer[name], index) for index, names in enumerate(reads) for name in names)
    try:
        sequence = list(nx.lexicographical_topological_sort(order))
    except nx.NetworkXUnfeasible as error:
        cycle = [node_title(nodes[edge[0]], edge[0]) for edge in nx.find_cycle(order)]
        raise ModelError(f"the graph has a cycle: {' -> '.join([*cycle, cycle[0]])}") from error
    copies = [NodeProto.FromString(nodes[index].SerializeToString()) for index in sequence]
    del nodes[:]
    nodes.extend(copies)
    for node in nodes:
        for graph in subgraphs_of(node):
            _sort(graph.node, {*known, *producer, *_given(graph)})


def _edges(nodes: Sequence[NodeProto], known: set[str]) -> tuple[dict[str, int], list[list[str]]]:
    """The position of each computed value's node, and what each node reads of these values."""
    producer = {name: index for index, node in enumerate(nodes) for name in node.output if name}
    reads = [[name for name in values_read(node) if name not in known] for node in nodes]
    for index, names in enumerate(reads):
        for name in names:
            if name not in producer:
                node = nodes[index]
                raise ModelError(
                    f"node '{node_title(node, index)}' (operator {node.op_type}) reads '{name}', which nothing produces"
                )
    return producer, reads
