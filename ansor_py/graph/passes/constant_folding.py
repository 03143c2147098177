"""Constant folding: a node whose inputs are all known is replaced by its value.

Values come from NumPy for the usual arithmetic on shapes (`ansor_py.graph.known_values`) and from ONNX's own reference
evaluator for the rest. Operators that only spread or look at an array stay cheap: `ConstantOfShape` gives an array with
stride 0, which costs no memory however large its shape is.

    before:  shape = Shape(x: [1, 64, 7, 7]);  y = Reshape(x, shape)
    after:   shape is the constant [1, 64, 7, 7]
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from ansor_py.errors import ModelError
from ansor_py.graph.ir import ANSOR_DOMAIN, Array, AttributeValue, Graph, OperatorNode, Value, rebuild
from ansor_py.graph.known_values import known_result
from ansor_py.graph.onnx_ops.registry import definition_of, registered

# Operators with random results: never folded.
NONDETERMINISTIC = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"}
)

# Operators that are computed here or not at all: what they make has no bytes worth computing while a model runs.
FOLDED_ONLY = frozenset({"ConstantOfShape"})


def fold_constants(graph: Graph) -> Graph:
    """Evaluate every node whose inputs are all constant, and every value that has no elements."""
    values = dict(graph.values)
    kept: list[OperatorNode] = []
    for node in graph.nodes:
        known = [values[name].constant if name else None for name in node.inputs]
        shape, dtype = values[node.output].shape, values[node.output].dtype
        array: Array | None = None
        if 0 in shape:
            array = np.zeros(shape, dtype)
        elif all(item is not None or not name for item, name in zip(known, node.inputs, strict=True)):
            array = evaluate(node, known)
        if array is None:
            kept.append(node)
        else:
            values[node.output] = Value(node.output, array.shape, str(array.dtype), array)
    return rebuild(graph, kept, values.values())


def evaluate(node: OperatorNode, inputs: Sequence[Array | None]) -> Array | None:
    """The node's result for known inputs, or None for an operator that must not be folded."""
    if node.op_type in NONDETERMINISTIC or node.domain == ANSOR_DOMAIN:
        return None
    quick = _QUICK.get(node.op_type)
    if quick is not None:
        result = quick(node, inputs)
        if result is not None:
            return result
    simple = known_result(node, inputs)
    return simple if simple is not None else _reference_result(node, inputs)


def _constant_of_shape(node: OperatorNode, inputs: Sequence[Array | None]) -> Array | None:
    shape = inputs[0]
    if shape is None:
        return None
    fill = np.asarray(node.attributes.get("value", np.zeros(1, np.float32))).reshape(())
    return np.broadcast_to(fill, tuple(int(extent) for extent in shape.tolist()))


def _constant(node: OperatorNode, inputs: Sequence[Array | None]) -> Array | None:
    kinds: Mapping[str, str] = {
        "value_float": "float32",
        "value_floats": "float32",
        "value_int": "int64",
        "value_ints": "int64",
    }
    for key, value in node.attributes.items():
        if key == "value":
            return np.asarray(value)
        if key in kinds:
            return np.asarray(value, dtype=kinds[key])
    return None


def _identity(node: OperatorNode, inputs: Sequence[Array | None]) -> Array | None:
    return inputs[0]


def _unsqueeze(node: OperatorNode, inputs: Sequence[Array | None]) -> Array | None:
    axes = node.attributes.get("axes", inputs[1] if len(inputs) > 1 else None)
    if inputs[0] is None or axes is None:
        return None
    return np.expand_dims(inputs[0], tuple(int(axis) for axis in np.asarray(axes).reshape(-1).tolist()))


_QUICK: dict[str, Callable[[OperatorNode, Sequence[Array | None]], Array | None]] = {
    "ConstantOfShape": _constant_of_shape,
    "Constant": _constant,
    "Identity": _identity,
    "Unsqueeze": _unsqueeze,
}


def _reference_result(node: OperatorNode, inputs: Sequence[Array | None]) -> Array | None:
    from onnx import helper
    from onnx.reference import ReferenceEvaluator

    from ansor_py.graph.onnx_nodes import node_proto
    from ansor_py.graph.reference import corrected_operators

    inputs, attributes = _as_in_the_model(node, inputs)
    outputs = [f"out{index}" for index in range(node.output_count)]
    names = [f"in{index}" if array is not None else "" for index, array in enumerate(inputs)]
    given = {name: array for name, array in zip(names, inputs, strict=True) if name}
    proto = node_proto(replace(node, attributes=attributes), names, outputs)
    function = helper.make_function(
        "ansor_py.fold",
        "fold",
        list(given),
        [outputs[node.output_index]],
        [proto],
        [helper.make_opsetid(node.domain, node.opset)],
    )
    try:
        (result,) = ReferenceEvaluator(function, new_ops=corrected_operators(node.opset)).run(None, given, attributes={})
    except Exception as error:  # the evaluator raises whatever the operator's NumPy code raises
        raise ModelError(f"constant node '{node.name}' (operator {node.op_type}) cannot be evaluated: {error}") from error
    return np.asarray(result) if isinstance(result, (np.ndarray, np.generic)) else None  # None: a sequence


def _as_in_the_model(
    node: OperatorNode, inputs: Sequence[Array | None]
) -> tuple[list[Array | None], dict[str, AttributeValue]]:
    """Inputs and attributes with what the importer turned from an input into an attribute turned back."""
    from onnx import defs

    attributes, restored = dict(node.attributes), list(inputs)
    if registered(node.op_type):
        definition = definition_of(node)
        try:
            declared = defs.get_schema(node.op_type, node.opset, node.domain).attributes
        except defs.SchemaError as error:
            raise ModelError(f"constant node '{node.name}' (operator {node.op_type}, opset {node.opset}): {error}") from error
        for index, name in {**definition.static, **definition.optional_static}.items():
            if name in attributes and name not in declared:
                restored += [None] * (index + 1 - len(restored))
                restored[index] = np.asarray(attributes.pop(name))
    return restored, attributes
