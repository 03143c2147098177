"""ONNX import: a model file becomes a graph of operators that all have a tensor expression.

One walk over the nodes in topological order. A node whose inputs are all known is evaluated at once, so shape arithmetic
(`Shape`, `Gather`, `Concat`, ... into `Reshape`) never reaches the graph; inputs that must be known (a `Reshape`'s shape)
become attributes; the shape of every other value is that of its tensor expression. Operators without an expression are
replaced by their ONNX function body if they have one. What cannot be compiled then becomes an opaque node, which ONNX's
reference evaluator runs, if `fallback` allows it. Operators with a library kernel (TopK) are opaque nodes as well, always
allowed.

    graph = import_model("m.onnx", shapes={"batch": 1})
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

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

from ansor_py.errors import ModelError, RefusedModelError, StaticInputError
from ansor_py.graph.function_bodies import expand_function, function_of
from ansor_py.graph.ir import Array, Graph, OpaqueNode, OperatorNode, Value, rebuild
from ansor_py.graph.library_kernels import kernel_of
from ansor_py.graph.model_file import check_model, infer_shapes, node_title, read_model
from ansor_py.graph.old_versions import modernised
from ansor_py.graph.onnx_nodes import attributes_of, default_attributes, dtype_name, supported_dtype
from ansor_py.graph.onnx_ops.registry import OperatorCall, definition_of, describe, expression_of, registered
from ansor_py.graph.opaque_nodes import Context, MadeNode, evaluate_opaque, make_library, make_opaque
from ansor_py.graph.passes.constant_folding import FOLDED_ONLY, NONDETERMINISTIC, evaluate
from ansor_py.graph.scalar_results import shape_of_single
from ansor_py.graph.static_inputs import resolve_static_inputs
from ansor_py.graph.subgraphs import inlined_branch, operators_in, subgraphs_of, values_read
from ansor_py.te.expr import DTYPE_BYTES
from ansor_py.te.tensor import Tensor, placeholder

# `shapes` fixes dynamic dimensions: by the dimension's name (an extent) or by an input's name (all its extents).
Shapes = Mapping[str, int | Sequence[int]]


def import_model(
    model: str | os.PathLike[str] | bytes | ModelProto, shapes: Shapes | None = None, *, fallback: bool = False
) -> Graph:
    """The graph of a model given as path, bytes or `ModelProto`. `fallback`: nodes that cannot be compiled become opaque.

    Raises ModelError for anything that is not a valid ONNX model or cannot be compiled: the message names the file, the
    node with operator and opset, or the input, and the remedy.
    """
    checked = check_model(read_model(model))
    fixed = infer_shapes(_with_fixed_shapes(checked, shapes or {}))
    walk = _Walk(
        inferred=_static_shapes(fixed.graph),
        opsets={_domain(entry.domain): entry.version for entry in fixed.opset_import},
        functions={(function.domain, function.name): function for function in fixed.functions},
        types={info.name: info.type for info in (*fixed.graph.value_info, *fixed.graph.output)},
        ir_version=fixed.ir_version,
        fallback=fallback,
    )
    _add_constants(walk, fixed.graph)
    fed = [_add_input(walk, info) for info in _fed_inputs(fixed.graph)]
    for index, node in enumerate(fixed.graph.node):
        walk.add(node, node_title(node, index))
    results = {info.name: info.name for info in fixed.graph.output}
    graph = Graph(
        name=fixed.graph.name or "model",
        nodes=(),
        values=walk.values,
        inputs=tuple(name for name in fed if name in walk.values),
        outputs={public: name for public, name in results.items() if name in walk.values},
        opaque=tuple(walk.opaque),
        dynamic_inputs=tuple(name for name in fed if name in walk.dynamic),
        dynamic_outputs={public: name for public, name in results.items() if name in walk.dynamic},
        wanted=frozenset(walk.wanted & set(fed)),
    )
    return rebuild(graph, walk.nodes)


@dataclass
class _Walk:
    """The state of the walk over the model's nodes: what has been imported so far."""

    inferred: Mapping[str, tuple[int, ...]]
    opsets: Mapping[str, int]
    functions: Mapping[tuple[str, str], FunctionProto]
    types: Mapping[str, TypeProto]
    ir_version: int
    fallback: bool
    values: dict[str, Value] = field(default_factory=dict)
    nodes: list[OperatorNode] = field(default_factory=list)
    names: dict[str, None] = field(default_factory=dict)  # taken names of nodes, in order
    opaque: list[OpaqueNode] = field(default_factory=list)
    dynamic: dict[str, TypeProto] = field(default_factory=dict)  # values that are no numeric tensors of known shape
    wanted: set[str] = field(default_factory=set)

    def add(self, proto: NodeProto, title: str, opsets: Mapping[str, int] | None = None, whole: bool = True) -> None:
        """Import one ONNX node: as operators, as constants, by its function body, or as an opaque node.

        `whole` is false for a node of a function body that is compiled as a whole or not at all.
        """
        versions = opsets or self.opsets
        nodes, values, opaque, names = len(self.nodes), len(self.values), len(self.opaque), len(self.names)
        try:
            self._refuse_dynamic(proto, title, versions)
            self._add(proto, title, versions)
        except RefusedModelError:
            raise
        except ModelError as error:
            if isinstance(error, StaticInputError):
                error.origins |= self._origins(error.value)
                self.wanted |= error.origins
            if not (self.fallback and whole):
                raise
            del self.nodes[nodes:], self.opaque[opaque:]
            for table, size in ((self.values, values), (self.names, names)):
                for name in list(table)[size:]:
                    del table[name]
            self._add_opaque(proto, title, str(error), versions)

    def _add(self, proto: NodeProto, title: str, versions: Mapping[str, int]) -> None:
        opset = versions.get(_domain(proto.domain), 0)
        if subgraphs_of(proto):
            self._add_with_subgraphs(proto, title, versions, opset)
            return
        if _domain(proto.domain) == "" and opset:
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
        tensors, nodes = inlined_branch(proto, bool(condition.reshape(-1)[0]), f"{title}/")
        for tensor in tensors:
            _add_constant_tensor(self, tensor)
        for index, inner in enumerate(nodes):
            self.add(inner, node_title(inner, index), versions)

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
        types = {name: _type_proto(value) for name, value in read.items()}
        types.update((name, self.dynamic[name]) for name in values_read(proto) if name in self.dynamic)
        return types, {name: value.constant for name, value in read.items() if value.constant is not None}

    def _add_made(self, made: MadeNode) -> None:
        """An opaque node and the values that it computes."""
        for name in made.node.outputs.values():
            known = _static_value(name, self.types.get(name)) or _static_value(name, made.types.get(name))
            if known is not None:
                self.values[name] = known
            else:
                self.dynamic[name] = made.types.get(name) or self.types.get(name) or TypeProto()
        self.opaque.append(made.node)

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
        array = evaluate(node, known, self.inferred.get(node.output))
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
            array = np.asarray(int(np.prod(shape, dtype=np.int64)), dtype=np.int64)
        else:
            call = OperatorCall(node, ())
            array = np.asarray(shape[call.integer("start", 0) : call.integer("end", len(shape))], dtype=np.int64)
        self.add_constant(node.output, array, describe(node))

    def _add_operator(self, node: OperatorNode) -> None:
        stated = _static_value(node.output, self.types.get(node.output))
        if stated is not None and 0 in stated.shape:  # no loop can compute it, and nothing has to
            self.add_constant(node.output, np.zeros(stated.shape, stated.dtype), describe(node))
            return
        resolved = resolve_static_inputs(node, self.values)
        placeholders = [_stand_in(self.values[name]) if name else None for name in resolved.inputs]
        result = expression_of(resolved, placeholders)
        shape = self.inferred.get(node.output, result.shape)
        if node.output not in self.inferred and result.shape == (1,):
            shape = shape_of_single(node, self.values)
        if int(np.prod(shape, dtype=np.int64)) != result.size:
            raise ModelError(
                f"{describe(node)}: the model states shape {list(shape)} for its result, but it is {list(result.shape)}"
            )
        self.values[node.output] = Value(node.output, shape, result.dtype)
        self.nodes.append(resolved)

    def _add_function(self, proto: NodeProto, node: OperatorNode, opset: int, versions: Mapping[str, int]) -> None:
        types = [_type_proto(self.values[name]) if name else TypeProto() for name in proto.input]
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
        stated = {_domain(entry.domain): entry.version for entry in function.opset_import}
        inner_opsets = {"": defs.onnx_opset_version(), **self.opsets, **stated}
        # A function of the model may be all of it; the standard's are one operator, and best run as one.
        separable = (proto.domain, proto.op_type) in self.functions
        for index, inner in enumerate(expand_function(proto, function, f"{node.name}/")):
            self.add(inner, node_title(inner, index), inner_opsets, whole=separable)


def _stand_in(value: Value) -> Tensor:
    return placeholder(value.shape, value.dtype, value.name, constant=value.constant is not None)


def _type_proto(value: Value) -> TypeProto:
    return helper.make_tensor_type_proto(helper.np_dtype_to_tensor_dtype(np.dtype(value.dtype)), value.shape)


def _static_value(name: str, kind: TypeProto | None) -> Value | None:
    """The value of a type that states a supported dtype and all extents, else None."""
    if kind is None or not kind.HasField("tensor_type") or not kind.tensor_type.HasField("shape"):
        return None
    tensor = kind.tensor_type
    dtype = supported_dtype(tensor.elem_type)
    if dtype is None or not all(dimension.HasField("dim_value") for dimension in tensor.shape.dim):
        return None
    return Value(name, tuple(dimension.dim_value for dimension in tensor.shape.dim), dtype)


def _static_shapes(graph: GraphProto) -> dict[str, tuple[int, ...]]:
    """The shapes that inference found or the model states, where they are all numbers."""
    shapes = {}
    for info in (*graph.value_info, *graph.output):
        kind = info.type.tensor_type
        ranked = info.type.HasField("tensor_type") and kind.HasField("shape")
        if ranked and all(dimension.HasField("dim_value") for dimension in kind.shape.dim):
            shapes[info.name] = tuple(dimension.dim_value for dimension in kind.shape.dim)
    return shapes


def _domain(name: str) -> str:
    return "" if name == "ai.onnx" else name


def _fed_inputs(graph: GraphProto) -> list[ValueInfoProto]:
    """The inputs that a caller has to feed: those without an initialiser."""
    given = {tensor.name for tensor in graph.initializer}
    return [info for info in graph.input if info.name not in given]


def _add_constants(walk: _Walk, graph: GraphProto) -> None:
    if graph.sparse_initializer:
        raise ModelError(f"initialiser '{graph.sparse_initializer[0].values.name}' is sparse, which is not supported")
    for tensor in graph.initializer:
        _add_constant_tensor(walk, tensor)


def _add_constant_tensor(walk: _Walk, tensor: TensorProto) -> None:
    owner = f"initialiser '{tensor.name}'"
    if walk.fallback and tensor.data_type == TensorProto.STRING:
        walk.add(helper.make_node("Constant", [], [tensor.name], value=tensor), owner)
        return
    dtype_name(tensor.data_type, owner)
    walk.add_constant(tensor.name, _array(tensor, owner), owner)


def _array(tensor: TensorProto, owner: str) -> Array:
    try:
        return numpy_helper.to_array(tensor)
    except (ValueError, TypeError) as error:
        raise ModelError(f"{owner} cannot be read: {error}") from error


def _add_input(walk: _Walk, info: ValueInfoProto) -> str:
    if walk.fallback and not _is_numeric(info):
        walk.dynamic[info.name] = info.type
        return info.name
    if not info.type.HasField("tensor_type"):
        raise ModelError(f"input '{info.name}' is a {info.type.WhichOneof('value')}, not a tensor; only tensors are supported")
    kind = info.type.tensor_type
    extents = [dimension.dim_value for dimension in kind.shape.dim]
    walk.values[info.name] = Value(info.name, tuple(extents), dtype_name(kind.elem_type, f"input '{info.name}'"))
    return info.name


def _is_numeric(info: ValueInfoProto) -> bool:
    """Whether an input is a tensor, and not of strings."""
    return info.type.HasField("tensor_type") and info.type.tensor_type.elem_type != TensorProto.STRING


def _with_fixed_shapes(model: ModelProto, shapes: Shapes) -> ModelProto:
    """The model with every dimension of its inputs a number. Raises ModelError naming those that are still unknown."""
    fixed = ModelProto()
    fixed.CopyFrom(model)
    unused, unknown = set(shapes), []
    for info in _fed_inputs(fixed.graph):
        if not _is_numeric(info):
            continue
        kind = info.type.tensor_type
        if info.name in shapes:
            unused.discard(info.name)
            _set_extents(info, shapes[info.name])
        elif not kind.HasField("shape"):
            unknown.append(f"input '{info.name}' (give all its extents under its name)")
        for index, dimension in enumerate(kind.shape.dim):
            if dimension.HasField("dim_value"):
                continue
            extent = shapes.get(dimension.dim_param) if dimension.dim_param else None
            if isinstance(extent, int) and extent >= 0:
                unused.discard(dimension.dim_param)
                dimension.dim_value = extent
            else:
                unknown.append(
                    f"'{dimension.dim_param}'" if dimension.dim_param else f"dimension {index} of input '{info.name}'"
                )
    if unknown:
        listed = ", ".join(dict.fromkeys(unknown))
        raise ModelError(
            f"the model has dynamic shapes: {listed}; fix them with shapes={{'NAME': extent}} (--shape NAME=EXTENT)"
        )
    if unused:
        raise ModelError(
            f"shapes are given for {', '.join(sorted(unused))}, but the model has no such dynamic dimension or input"
        )
    return _without_symbols(fixed, shapes)


def _set_extents(info: ValueInfoProto, extents: int | Sequence[int]) -> None:
    listed = [extents] if isinstance(extents, int) else list(extents)
    kind = info.type.tensor_type
    rank = len(kind.shape.dim) if kind.HasField("shape") else len(listed)
    if rank != len(listed):
        raise ModelError(f"input '{info.name}' has {rank} dimensions, but {len(listed)} extents are given: {listed}")
    for index, dimension in enumerate(list(kind.shape.dim)):
        if dimension.HasField("dim_value") and dimension.dim_value != listed[index]:
            raise ModelError(
                f"input '{info.name}' has {dimension.dim_value} in dimension {index}, but {listed[index]} is given"
            )
    del kind.shape.dim[:]
    for extent in listed:
        kind.shape.dim.add().dim_value = extent


def _without_symbols(model: ModelProto, shapes: Shapes) -> ModelProto:
    """The model without shape annotations that still name a dimension: inference works them out again."""
    for info in model.graph.output:
        if info.type.HasField("tensor_type"):
            for dimension in info.type.tensor_type.shape.dim:
                extent = shapes.get(dimension.dim_param) if dimension.dim_param else None
                if isinstance(extent, int):
                    dimension.dim_value = extent
    kept = [info for info in model.graph.value_info if not any(d.dim_param for d in info.type.tensor_type.shape.dim)]
    if len(kept) < len(model.graph.value_info):
        copies = [ValueInfoProto.FromString(info.SerializeToString()) for info in kept]
        del model.graph.value_info[:]
        model.graph.value_info.extend(copies)
    return model
