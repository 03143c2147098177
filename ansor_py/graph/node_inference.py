"""What ONNX's inference says of one node's result, for what a tensor expression leaves open.

The shape of a value is that of its tensor expression. The standard's inference is asked for the rest: an expression has at
least one dimension, because a loop nest needs a loop, so a result of shape [1] may stand for a scalar; no loop computes a
result without elements; and where an operator has no meaning for the shapes that it is given, both refuse it.

    shape_of_single(node, values)      # () or (1,)
    inferred_result(node, values)      # Value, None where nothing is inferred; raises ShapeConflictError
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from onnx import TensorProto, TypeProto, checker, defs, helper, numpy_helper, shape_inference

from ansor_py.errors import ShapeConflictError
from ansor_py.graph.ir import OperatorNode, Value
from ansor_py.graph.model_file import first_line
from ansor_py.graph.onnx_nodes import add_defaults, node_proto, supported_dtype
from ansor_py.graph.onnx_ops.registry import describe

# Constants of at most so many elements are given to inference: shapes, axes, sizes.
SHAPE_ELEMENTS = 64


def shape_of_single(node: OperatorNode, values: Mapping[str, Value]) -> tuple[int, ...]:
    """The shape of a result of one element: `()` where the standard says that it is a scalar, else `(1,)`."""
    try:
        found = inferred_result(node, values)
    except ShapeConflictError:
        return (1,)
    return () if found is not None and not found.shape else (1,)


def inferred_result(node: OperatorNode, values: Mapping[str, Value]) -> Value | None:
    """The result's shape and dtype as the standard infers them from what is read, None where they are not all known.

    Raises ShapeConflictError where the inference finds that shapes do not fit together.
    """
    types, data = dict[str, TypeProto](), dict[str, TensorProto]()
    for name in node.reads:
        types[name] = type_of(values[name])
        constant = values[name].constant
        if constant is not None and constant.size <= SHAPE_ELEMENTS:
            data[name] = numpy_helper.from_array(np.ascontiguousarray(constant).reshape(values[name].shape), name)
    outputs = [node.output if index == node.output_index else f"{node.output}.{index}" for index in range(node.output_count)]
    try:
        schema = defs.get_schema(node.op_type, node.opset, node.domain)
        proto = node_proto(node, node.inputs, outputs)
        add_defaults(proto, node.opset, node.domain)
        found = shape_inference.infer_node_outputs(schema, proto, types, data)
    except (shape_inference.InferenceError, checker.ValidationError) as error:  # shapes, or dtypes that it does not take
        raise ShapeConflictError(f"shapes of the model do not fit together: {describe(node)}: {first_line(error)}") from error
    except defs.SchemaError:
        return None
    except Exception as error:  # a dtype or an attribute beyond the standard is a ValueError, a RuntimeError, ...
        raise ShapeConflictError(f"{describe(node)} is nothing that the standard's inference understands: {error}") from error
    return static_value(node.output, found.get(node.output))


def type_of(value: Value) -> TypeProto:
    """The ONNX type of a value of the graph."""
    return helper.make_tensor_type_proto(helper.np_dtype_to_tensor_dtype(np.dtype(value.dtype)), value.shape)


def static_value(name: str, kind: TypeProto | None, extents: Mapping[str, object] | None = None) -> Value | None:
    """The value of a type that states a supported dtype and all extents, by number or by a name that `extents` knows."""
    if kind is None or not kind.HasField("tensor_type") or not kind.tensor_type.HasField("shape"):
        return None
    dtype = supported_dtype(kind.tensor_type.elem_type)
    shape = []
    for dimension in kind.tensor_type.shape.dim:
        known = (extents or {}).get(dimension.dim_param) if dimension.dim_param else None
        extent = dimension.dim_value if dimension.HasField("dim_value") else known
        if not isinstance(extent, int) or extent < 0:
            return None
        shape.append(extent)
    return None if dtype is None else Value(name, tuple(shape), dtype)
