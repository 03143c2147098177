"""Whether a result of one element is a scalar.

A tensor expression has at least one dimension, because a loop nest needs a loop; so a result of shape [1] may stand for a
scalar. Shape inference of the whole model says so for the model's own values; inside of an expanded function body the
question is put to the operator's schema.

    shape_of_single(node, values)      # () or (1,)
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from onnx import TensorProto, defs, helper, numpy_helper, shape_inference

from ansor_py.graph.ir import OperatorNode, Value
from ansor_py.graph.onnx_nodes import node_proto


def shape_of_single(node: OperatorNode, values: Mapping[str, Value]) -> tuple[int, ...]:
    """The shape of a result of one element: `()` where the operator's schema says that it is a scalar, else `(1,)`."""
    types, data = {}, dict[str, TensorProto]()
    for name in node.reads:
        value = values[name]
        types[name] = helper.make_tensor_type_proto(helper.np_dtype_to_tensor_dtype(np.dtype(value.dtype)), value.shape)
        if value.constant is not None and value.constant.size <= 64:
            data[name] = numpy_helper.from_array(np.ascontiguousarray(value.constant).reshape(value.shape), name)
    outputs = [node.output if index == node.output_index else f"{node.output}.{index}" for index in range(node.output_count)]
    try:
        schema = defs.get_schema(node.op_type, node.opset, node.domain)
        found = shape_inference.infer_node_outputs(schema, node_proto(node, node.inputs, outputs), types, data)
    except (defs.SchemaError, shape_inference.InferenceError):
        return (1,)
    kind = found[node.output].tensor_type if node.output in found else None
    return () if kind is not None and kind.HasField("shape") and not kind.shape.dim else (1,)
