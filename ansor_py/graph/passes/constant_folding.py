"""Constant folding: a node whose inputs are all known is replaced by its value.

Values come from NumPy alone: for the usual arithmetic on shapes and weights by `ansor_py.graph.known_values`, for every other
operator with a tensor expression by that expression (`ansor_py.te.interpreter`), so that what is known at compile time is what
a kernel would compute. Operators that only spread or look at an array stay cheap: `ConstantOfShape` gives an array with stride
0, which costs no memory however large its shape is.

    before:  shape = Shape(x: [1, 64, 7, 7]);  y = Reshape(x, shape)
    after:   shape is the constant [1, 64, 7, 7]
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ansor_py.errors import AnsorError, ModelError, words_of_error
from ansor_py.graph.ir import ANSOR_DOMAIN, Array, Graph, OperatorNode, Value, rebuild
from ansor_py.graph.known_values import known_result
from ansor_py.graph.library_kernels import LibraryCall, kernel_of, run_kernel
from ansor_py.graph.node_inference import shape_of_single
from ansor_py.graph.onnx_ops.registry import describe, expression_of, registered
from ansor_py.graph.static_inputs import resolve_static_inputs
from ansor_py.te.interpreter import evaluate as interpreted
from ansor_py.te.interpreter import evaluations
from ansor_py.te.tensor import Tensor, placeholder

# Operators with random results: never folded.
NONDETERMINISTIC = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"}
)

# Larger results stay in the model and are computed while it runs: index arrays of this size take a second.
MOST_EVALUATIONS = 2**24

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
            array = evaluate(node, known, shape)
        if array is None:
            kept.append(node)
        else:
            values[node.output] = Value(node.output, array.shape, str(array.dtype), array)
    return rebuild(graph, kept, values.values())


def evaluate(node: OperatorNode, inputs: Sequence[Array | None], shape: tuple[int, ...] | None = None) -> Array | None:
    """The node's result for known inputs; None for an operator that must not be folded, has no definition here, or would
    take too long.

    `shape` is what is known of the result's shape; it tells a scalar from a vector of one element. Raises ModelError for inputs
    for which the operator has no meaning.
    """
    if node.op_type in NONDETERMINISTIC or node.domain == ANSOR_DOMAIN:
        return None
    try:
        return _evaluate(node, inputs, shape)
    except AnsorError:
        raise
    except Exception as error:  # NumPy's, of inputs and attributes that do not fit together
        raise ModelError(f"{describe(node)} has no value for its constant inputs: {words_of_error(error)}") from error


def _evaluate(node: OperatorNode, inputs: Sequence[Array | None], shape: tuple[int, ...] | None) -> Array | None:
    quick = _QUICK.get(node.op_type)
    if quick is not None:
        result = quick(node, inputs)
        if result is not None:
            return result
    if kernel_of(node.op_type, node.domain):
        call = LibraryCall(describe(node), node.opset, node.attributes, inputs)  # type: ignore[arg-type]  # no arrays among them
        return run_kernel(node.op_type, call)[node.output_index]
    simple = known_result(node, inputs)
    if simple is not None:
        return simple
    return _by_definition(node, inputs, shape) if registered(node.op_type) and not node.domain else None


def _by_definition(node: OperatorNode, inputs: Sequence[Array | None], shape: tuple[int, ...] | None) -> Array | None:
    """The value of the node's tensor expression."""
    given = dict(zip(node.inputs, inputs, strict=True))
    values = {name: Value(name, array.shape, str(array.dtype), array) for name, array in given.items() if array is not None}
    resolved = resolve_static_inputs(node, values)
    tensors: list[Tensor | None] = []
    feed: dict[Tensor, Array] = {}
    for name in resolved.inputs:
        array = given[name] if name else None
        tensor = None if array is None else placeholder(array.shape, str(array.dtype), name, constant=True)
        tensors.append(tensor)
        if tensor is not None and array is not None:
            feed[tensor] = array
    result = expression_of(resolved, tensors)
    if evaluations(result) > MOST_EVALUATIONS:
        return None
    array = interpreted(result, feed)
    if shape is None and array.shape == (1,):
        shape = shape_of_single(node, values)
    return array.reshape(shape) if shape is not None and math.prod(shape) == array.size else array


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
