"""ONNX import: a model file becomes a graph of operators that all have a tensor expression.

One walk over the nodes in topological order. A node whose inputs are all known is evaluated at once, so shape arithmetic
(`Shape`, `Gather`, `Concat`, ... into `Reshape`) never reaches the graph; inputs that must be known (a `Reshape`'s shape)
become attributes; the shape of every other value is that of its tensor expression, whatever the model states. Operators
without an expression are replaced by their ONNX function body if they have one. What cannot be compiled then becomes an
opaque node, which ONNX's reference evaluator runs, if `fallback` allows it. Operators with a library kernel (TopK) are opaque
nodes as well, always allowed.

    graph = import_model("m.onnx", shapes={"batch": 1})
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import (
    FunctionProto,
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    TypeProto,
    ValueInfoProto,
    defs,
    helper,
    numpy_helper,
)

from ansor_py.errors import ModelError, RefusedModelError, ShapeConflictError, SizeError, StaticInputError
from ansor_py.graph.decompositions import decomposed
from ansor_py.graph.function_bodies import expand_function, function_of
from ansor_py.graph.input_shapes import Shapes, fed_inputs, input_extents, is_numeric
from ansor_py.graph.ir import Array, Graph, OpaqueNode, OperatorNode, Value, rebuild
from ansor_py.graph.library_kernels import kernel_of
from ansor_py.graph.model_checks import check_model, versions_of
from ansor_py.graph.model_file import read_model
from ansor_py.graph.node_checks import check_dtypes, node_title
from ansor_py.graph.node_inference import inferred_result, shape_of_single, static_value, type_of
from ansor_py.graph.old_versions import modernised
from ansor_py.graph.onnx_nodes import attributes_of, default_attributes, dtype_name
from ansor_py.graph.onnx_ops.registry import OperatorCall, definition_of, describe, expression_of, registered
from ansor_py.graph.opaque_nodes import Context, MadeNode, evaluate_opaque, make_library, make_opaque
from ansor_py.graph.passes.constant_folding import FOLDED_ONLY, NONDETERMINISTIC, evaluate
from ansor_py.graph.stated_types import StatedTypes
from ansor_py.graph.static_inputs import resolve_static_inputs
from ansor_py.graph.subgraphs import inlined_branch, operators_in, subgraphs_of, values_read
from ansor_py.te.expr import DTYPE_BYTES
from ansor_py.te.tensor import Tensor, placeholder


def import_model(
    model: str | os.PathLike[str] | bytes | ModelProto, shapes: Shapes | None = None, *, fallback: bool = False
) -> Graph:
    """The graph of a model given as path, bytes or `ModelProto`. `fallback`: nodes that cannot be compiled become opaque.

    Raises ModelError for what is no ONNX model, cannot be understood or cannot be compiled: the message names the file, the
    node with operator and opset, or the input, and the remedy. What is wrong and has no consequences is in `Graph.notes`.
    """
    checked = check_model(read_model(model))
    proto, fixed = checked.model.graph, shapes or {}
    walk = _Walk(
        opsets=checked.opsets,
        functions={(function.domain, function.name): function for function in checked.model.functions},
        stated=StatedTypes.of(proto, fixed),
        ir_version=checked.model.ir_version,
        fallback=fallback,
    )
    extents = input_extents(proto, fixed)
    nodes, read = _needed(proto)
    _add_constants(walk, proto, read)
    fed = [_add_input(walk, info, extents) for info in fed_inputs(proto)]
    for index, node in nodes:
        walk.add(node, node_title(node, index))
    walk.forget_unread()
    results = {info.name: info.name for info in proto.output}
    graph = Graph(
        name=proto.name or "model",
        nodes=(),
        values=walk.values,
        inputs=tuple(name for name in fed if name in walk.values),
        outputs={public: name for public, name in results.items() if name in walk.values},
        opaque=tuple(walk.opaque),
        dynamic_inputs=tuple(name for name in fed if name in walk.dynamic),
        dynamic_outputs={public: name for public, name in results.items() if name in walk.dynamic},
        wanted=frozenset(walk.wanted & set(fed)),
        notes=(*checked.notes, *walk.stated.differences(walk.values)),
    )
    return rebuild(graph, walk.nodes)


@dataclass
class _Walk:
    """The state of the walk over the model's nodes: what has been imported so far."""

    opsets: Mapping[str, int]
    functions: Mapping[tuple[str, str], FunctionProto]
    stated: StatedTypes
    ir_version: int
    fallback: bool
    values: dict[str, Value] = field(default_factory=dict)
    nodes: list[OperatorNode] = field(default_factory=list)
    names: dict[str, None] = field(default_factory=dict)  # taken names of nodes, in order
    opaque: list[OpaqueNode] = field(default_factory=list)
    dynamic: dict[str, TypeProto] = field(default_factory=dict)  # values that are no numeric tensors of known shape
    wanted: set[str] = field(default_factory=set)
    trusted: set[str] = field(default_factory=set)  # results of opaque nodes whose shape is only what the model states

    def add(self, proto: NodeProto, title: str, opsets: Mapping[str, int] | None = None, whole: bool = True) -> None:
        """Import one ONNX node: as operators, as constants, by its function body, or as an opaque node.

        `whole` is false for a node of a function body that is compiled as a whole or not at all.
        """
        versions = opsets or self.opsets
        nodes, opaque = len(self.nodes), len(self.opaque)
        tables: list[dict[str, Any]] = [self.values, self.names, self.dynamic]
        sizes = [len(table) for table in tables]
        try:
            self._refuse_dynamic(proto, title, versions)
            self._add(proto, title, versions)
        except (RefusedModelError, ShapeConflictError):
            raise
        except SizeError as error:
            raise SizeError(
                str(error) if "node '" in str(error) else f"node '{title}' (operator {proto.op_type}): {error}"
            ) from error
        except ModelError as error:
            if isinstance(error, StaticInputError):
                error.origins |= self._origins(error.value)
                self.wanted |= error.origins
            if not (self.fallback and whole):
                raise
            del self.nodes[nodes:], self.opaque[opaque:]
            for table, size in zip(tables, sizes, strict=True):
                for name in list(table)[size:]:
                    del table[name]
            self.trusted.intersection_update(self.values)
            self._add_opaque(proto, title, str(error), versions)

    def _add(self, proto: NodeProto, title: str, versions: Mapping[str, int]) -> None:
        opset = versions.get(_domain(proto.domain), 0)
        if subgraphs_of(proto):
            self._add_with_subgraphs(proto, title, versions, opset)
            return
        if _domain(proto.domain) == "" and opset:
            dtypes = {name: self.values[name].dtype for name in proto.input if name in self.values}
            check_dtypes(proto, dtypes, f"node '{title}' (operator {proto.op_type}, opset {opset})", opset)
            read = {name: self.values[name].shape for name in proto.input if name in self.values}
            replaced = modernised(proto, title, opset, read)
            if replaced is not None:
                for index, node in enumerate(replaced.nodes):
                    self._add(node, node_title(node, index), {**versions, "": replaced.opset})
                return
        operators = list(self._operators(proto, title, opset))
        looks_at_shape = proto.op_type in ("Shape", "Size") and _domain(proto.domain) == ""
        known = not looks_at_shape and all(self._known(operator) for operator in operators)
        if known and all(self._fold(operator) for operator in operators):
            return
        if looks_at_shape:
            self._add_shape(operators[0])
        elif kernel_of(proto.op_type, proto.domain):
            self._add_library(proto, operators[0].name, versions)
        elif registered(proto.op_type) and _domain(proto.domain) == "":
            for operator in operators:
                self._add_operator(operator)
        elif (parts := decomposed(operators[0], self.values)) is not None:
            self._add_nodes(*parts, versions, whole=False)
        else:
            self._add_function(proto, operators[0], opset, versions)

    def _add_with_subgraphs(self, proto: NodeProto, title: str, versions: Mapping[str, int], opset: int) -> None:
        """A node with subgraphs: the branch of an If whose condition is known, or the node's function body."""
        condition = self.values[proto.input[0]].constant if proto.op_type == "If" else None
        if condition is None:
            outputs = [name for name in proto.output if name]
            node = OperatorNode(title, proto.op_type, tuple(proto.input), outputs[0], {}, _domain(proto.domain), opset)
            self._add_function(proto, node, opset, versions)
            return
        self._add_nodes(*inlined_branch(proto, bool(condition.reshape(-1)[0]), f"{title}/"), versions)

    def _add_nodes(
        self, tensors: Iterable[TensorProto], nodes: Iterable[NodeProto], versions: Mapping[str, int], whole: bool = True
    ) -> None:
        """Nodes that stand for another one, and their constants."""
        for tensor in tensors:
            _add_constant_tensor(self, tensor)
        for index, inner in enumerate(nodes):
            self.add(inner, node_title(inner, index), versions, whole)

    def _refuse_dynamic(self, proto: NodeProto, title: str, versions: Mapping[str, int]) -> None:
        for name in proto.input:
            if name in self.dynamic and not kernel_of(proto.op_type, proto.domain):
                opset = versions.get(_domain(proto.domain), 0)
                raise ModelError(
                    f"node '{title}' (operator {proto.op_type}, opset {opset}) reads '{name}', which is not a numeric tensor "
                    "of a shape that is known when the model is compiled"
                )

    def _origins(self, value: str) -> set[str]:
        """Everything that a value is computed from."""
        readings: dict[str, tuple[str, ...]] = {node.output: node.reads for node in self.nodes}
        for opaque in self.opaque:
            readings.update((name, tuple(opaque.inputs.values())) for name in opaque.outputs.values())
        found, waiting = set[str](), [value]
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                waiting.extend(readings.get(name, ()))
        return found

    def _add_opaque(self, proto: NodeProto, title: str, reason: str, versions: Mapping[str, int]) -> None:
        """A node for the reference evaluator, or its results if all that it reads is known."""
        context = Context(versions, tuple(self.functions.values()), self.ir_version)
        types, constants = self._known_of(proto)
        made = make_opaque(proto, self._unique(title), reason, context, types, constants)
        if not self._evaluate_now(made, proto, constants, title):
            self._add_made(made)

    def _evaluate_now(self, made: MadeNode, proto: NodeProto, constants: Mapping[str, Array], title: str) -> bool:
        """Whether all that a node reads is known, and so are its results now: arrays of supported dtypes."""
        if len(constants) < len(made.node.inputs) or operators_in(proto) & NONDETERMINISTIC:
            return False
        results = evaluate_opaque(made.node, constants)
        if not all(isinstance(array, np.ndarray) and str(array.dtype) in DTYPE_BYTES for array in results.values()):
            return False
        for name, array in results.items():
            self.add_constant(name, np.asarray(array), title)
        return True

    def _add_library(self, proto: NodeProto, title: str, versions: Mapping[str, int]) -> None:
        """A node for its library kernel. Inputs that decide a shape and are not known are wanted."""
        context = Context(versions, (), self.ir_version)
        types, constants = self._known_of(proto)
        made = make_library(proto, title, context, types, constants)
        self._add_made(made)
        kernel = kernel_of(proto.op_type)
        assert kernel is not None
        if any(name in self.dynamic for name in made.node.outputs.values()):
            for index in kernel.shape_inputs:
                name = made.node.inputs.get(str(index))
                if name is not None and name not in constants:
                    self.wanted |= self._origins(name)

    def _known_of(self, proto: NodeProto) -> tuple[dict[str, TypeProto], dict[str, Array]]:
        """The types of what a node reads, and the arrays that are known."""
        read = {name: self.values[name] for name in values_read(proto) if name in self.values}
        types = {name: type_of(value) for name, value in read.items()}
        types.update((name, self.dynamic[name]) for name in values_read(proto) if name in self.dynamic)
        return types, {name: value.constant for name, value in read.items() if value.constant is not None}

    def _add_made(self, made: MadeNode) -> None:
        """An opaque node and the values that it computes."""
        for name in made.node.outputs.values():
            inferred = made.types.get(name)
            known = static_value(name, inferred)
            if known is None and (known := self.stated.completing(name, inferred)) is not None:
                self.trusted.add(name)
            if known is not None:
                self.values[name] = known
            else:
                self.dynamic[name] = inferred or TypeProto()
        self.opaque.append(made.node)

    def forget_unread(self) -> None:
        """Drop what the model states of values that no node reads: they are given out as they come."""
        read = {name for node in self.nodes for name in node.reads}
        read.update(name for node in self.opaque for name in node.inputs.values())
        for name in self.trusted - read:
            self.dynamic[name] = type_of(self.values.pop(name))

    def _operators(self, proto: NodeProto, title: str, opset: int) -> Iterator[OperatorNode]:
        attributes = attributes_of(proto, f"node '{title}' (operator {proto.op_type}, opset {opset})")
        attributes = {**default_attributes(proto.op_type, opset, _domain(proto.domain)), **attributes}
        domain, inputs, count = _domain(proto.domain), tuple(proto.input), len(proto.output)
        for index, output in enumerate(proto.output):
            if output:
                name = self._unique(title if index == 0 else f"{title}.{index}")
                yield OperatorNode(name, proto.op_type, inputs, output, attributes, domain, opset, index, count)

    def _unique(self, wanted: str) -> str:
        name, number = wanted, 1
        while name in self.names:
            name, number = f"{wanted}_{number}", number + 1
        self.names[name] = None
        return name

    def _known(self, node: OperatorNode) -> bool:
        return all(name in self.values and self.values[name].constant is not None for name in node.reads)

    def _fold(self, node: OperatorNode) -> bool:
        known = [self.values[name].constant if name else None for name in node.inputs]
        array = evaluate(node, known)
        if array is None:
            return False
        self.add_constant(node.output, array, describe(node))
        return True

    def add_constant(self, name: str, array: Array, owner: str) -> None:
        """A value that is known."""
        if str(array.dtype) not in DTYPE_BYTES:
            raise ModelError(
                f"{owner} gives dtype {array.dtype}, which is not supported; supported are {', '.join(DTYPE_BYTES)}"
            )
        self.values[name] = Value(name, array.shape, str(array.dtype), array)

    def _add_shape(self, node: OperatorNode) -> None:
        shape = self.values[node.inputs[0]].shape
        if node.op_type == "Size":
            array = np.asarray(math.prod(shape), dtype=np.int64)
        else:
            call = OperatorCall(node, ())
            array = np.asarray(shape[call.integer("start", 0) : call.integer("end", len(shape))], dtype=np.int64)
        self.add_constant(node.output, array, describe(node))

    def _add_operator(self, node: OperatorNode) -> None:
        resolved = resolve_static_inputs(node, self.values)
        placeholders = [_stand_in(self.values[name]) if name else None for name in resolved.inputs]
        try:
            result = expression_of(resolved, placeholders)
        except ModelError:
            inferred = inferred_result(node, self.values)  # raises where the model contradicts itself
            if inferred is None or 0 not in inferred.shape:
                raise
            self._add_empty(node, inferred.shape, inferred.dtype)
            return
        if 0 in result.shape:
            self._add_empty(node, result.shape, result.dtype)
            return
        shape = shape_of_single(node, self.values) if result.shape == (1,) else result.shape
        self.values[node.output] = Value(node.output, shape, result.dtype)
        self.nodes.append(resolved)

    def _add_empty(self, node: OperatorNode, shape: tuple[int, ...], dtype: str) -> None:
        """A result without elements, which no loop can compute and nothing has to."""
        try:
            array = np.zeros(shape, dtype)
        except ValueError as error:  # other extents beyond what NumPy counts
            raise SizeError(f"{describe(node)}: its result has the shape {list(shape)}: {error}") from error
        self.add_constant(node.output, array, describe(node))

    def _add_function(self, proto: NodeProto, node: OperatorNode, opset: int, versions: Mapping[str, int]) -> None:
        types = [type_of(self.values[name]) if name else TypeProto() for name in proto.input]
        function = function_of(proto, opset, types, self.functions)
        if function is None:
            if proto.op_type in FOLDED_ONLY and node.reads:
                raise StaticInputError(f"{describe(node)}: its input '{node.reads[0]}' is not known", node.reads[0])
            if subgraphs_of(proto):
                raise ModelError(
                    f"{describe(node)} has a graph as attribute, which is compiled only for an If of known condition"
                )
            if self.fallback:
                raise ModelError(f"{describe(node)} has neither a tensor expression nor a function body")
            if self._known(node):
                context = Context(versions, tuple(self.functions.values()), self.ir_version)
                kinds, constants = self._known_of(proto)
                made = make_opaque(proto, node.name, f"{describe(node)} is not supported", context, kinds, constants)
                if self._evaluate_now(made, proto, constants, node.name):
                    return
            definition_of(node)  # raises the error that lists the supported operators
            raise ModelError(f"{describe(node)} is not supported")
        inner_opsets = {"": defs.onnx_opset_version(), **self.opsets, **versions_of(function.opset_import)}
        # A function of the model may be all of it; the standard's are one operator, and best run as one.
        separable = (proto.domain, proto.op_type) in self.functions
        for index, inner in enumerate(expand_function(proto, function, f"{node.name}/")):
            self.add(inner, node_title(inner, index), inner_opsets, whole=separable)


def _stand_in(value: Value) -> Tensor:
    return placeholder(value.shape, value.dtype, value.name, constant=value.constant is not None)


def _domain(name: str) -> str:
    return "" if name == "ai.onnx" else name


def _needed(graph: GraphProto) -> tuple[list[tuple[int, NodeProto]], set[str]]:
    """The nodes on which an output depends, with their positions, and all that they and the outputs read."""
    read = {info.name for info in graph.output}
    nodes = []
    for index, node in reversed(list(enumerate(graph.node))):
        if read.intersection(node.output):
            read.update(values_read(node))
            nodes.append((index, node))
    return nodes[::-1], read


def _add_constants(walk: _Walk, graph: GraphProto, read: set[str]) -> None:
    for sparse in graph.sparse_initializer:
        if sparse.values.name in read:
            raise ModelError(f"initialiser '{sparse.values.name}' is sparse, which is not supported")
    for tensor in graph.initializer:
        if tensor.name in read:
            _add_constant_tensor(walk, tensor)


def _add_constant_tensor(walk: _Walk, tensor: TensorProto) -> None:
    owner = f"initialiser '{tensor.name}'"
    if walk.fallback and tensor.data_type == TensorProto.STRING:
        walk.add(helper.make_node("Constant", [], [tensor.name], value=tensor), owner)
        return
    dtype_name(tensor.data_type, owner)
    walk.add_constant(tensor.name, _array(tensor, owner), owner)


def _array(tensor: TensorProto, owner: str) -> Array:
    if tensor.data_location == TensorProto.EXTERNAL:
        raise ModelError(f"{owner} keeps its data in a file beside the model; give the model by its path")
    try:
        return numpy_helper.to_array(tensor)
    except Exception as error:  # what NumPy raises for a wrong number of bytes, or ONNX for a dtype that it does not know
        raise ModelError(f"{owner} cannot be read: {error}") from error


def _add_input(walk: _Walk, info: ValueInfoProto, extents: Mapping[str, tuple[int, ...]]) -> str:
    if walk.fallback and not is_numeric(info):
        walk.dynamic[info.name] = info.type
        return info.name
    if not info.type.HasField("tensor_type"):
        raise ModelError(f"input '{info.name}' is a {info.type.WhichOneof('value')}, not a tensor; only tensors are supported")
    dtype = dtype_name(info.type.tensor_type.elem_type, f"input '{info.name}'")
    walk.values[info.name] = Value(info.name, extents.get(info.name, ()), dtype)
    return info.name
