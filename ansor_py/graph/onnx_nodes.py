"""Between ONNX's `NodeProto` and the graph IR's `OperatorNode`: attributes as Python values, dtypes as names.

attributes_of(node, title)   # {"strides": (2, 2), "value": array(...)}
node_proto(operator, names)  # back again, for ONNX's reference evaluator
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnx import AttributeProto, NodeProto, TensorProto, defs, helper, numpy_helper

from ansor_py.errors import ModelError, words_of_error
from ansor_py.graph.ir import AttributeValue, OperatorNode
from ansor_py.te.expr import DTYPE_BYTES


def supported_dtype(element_type: int) -> str | None:
    """The NumPy name of an ONNX element type, or None if it is not among the supported ones."""
    try:
        name = str(helper.tensor_dtype_to_np_dtype(element_type))
    except (KeyError, ValueError, TypeError):
        return None
    return name if name in DTYPE_BYTES else None


def dtype_name(element_type: int, owner: str) -> str:
    """The NumPy name of an ONNX element type; ModelError naming `owner` if it is not among the supported ones."""
    name = supported_dtype(element_type)
    if name is None:
        kind = any_dtype_name(element_type)
        raise ModelError(f"{owner} has dtype {kind}, which is not supported; supported are {', '.join(DTYPE_BYTES)}")
    return name


def any_dtype_name(element_type: int) -> str:
    """How messages name an ONNX element type, supported or not."""
    kinds = {number: kind.lower() for kind, number in TensorProto.DataType.items()}
    return supported_dtype(element_type) or kinds.get(element_type, "unknown")


def attributes_of(node: NodeProto, title: str) -> dict[str, AttributeValue]:
    """The node's attributes as numbers, strings, tuples and arrays. ModelError names the node by `title`."""
    return {attribute.name: _attribute_value(attribute, title) for attribute in node.attribute}


@functools.cache
def default_attributes(op_type: str, opset: int, domain: str = "") -> Mapping[str, AttributeValue]:
    """The attributes that have a default in this version of an operator: defaults change from version to version."""
    try:
        declared = defs.get_schema(op_type, opset, domain).attributes
    except defs.SchemaError:
        return {}
    values = (attribute.default_value for attribute in declared.values())
    return {value.name: _attribute_value(value, op_type) for value in values if value.name}


def _attribute_value(attribute: AttributeProto, title: str) -> AttributeValue:
    try:
        value = helper.get_attribute_value(attribute)
    except ValueError as error:
        raise ModelError(f"{title}: its attribute '{attribute.name}' has no value of a known type") from error
    match value:
        case bytes():
            return value.decode(errors="replace")
        case int() | float() | str():
            return value
        case TensorProto():
            try:
                return numpy_helper.to_array(value)
            except Exception as error:  # as for initialisers: a wrong number of bytes, an unknown dtype
                words = words_of_error(error)
                raise ModelError(f"{title}: its attribute '{attribute.name}' cannot be read: {words}") from error
        case _ if attribute.type in (AttributeProto.INTS, AttributeProto.FLOATS):
            return tuple(value)
        case _ if attribute.type == AttributeProto.STRINGS:
            return tuple(item.decode(errors="replace") for item in value)
        case _:
            kind = AttributeProto.AttributeType.Name(attribute.type).lower()
            raise ModelError(f"{title} has a {kind} as attribute '{attribute.name}', which is not supported")


def add_defaults(node: NodeProto, opset: int, domain: str) -> None:
    """Write the defaults of attributes that are left out into the node; ONNX's inference does not apply all of them."""
    try:
        schema: Any = defs.get_schema(node.op_type, opset, domain)
    except defs.SchemaError:
        return
    given = {attribute.name for attribute in node.attribute}
    defaults = [item.default_value for name, item in schema.attributes.items() if name not in given]
    node.attribute.extend(value for value in defaults if value.name)


def node_proto(node: OperatorNode, inputs: Sequence[str], outputs: Sequence[str]) -> NodeProto:
    """The ONNX node of an operator that still has its original attributes."""
    proto = helper.make_node(node.op_type, list(inputs), list(outputs), name=node.name, domain=node.domain)
    for name, value in node.attributes.items():
        plain: Any = numpy_helper.from_array(value) if isinstance(value, np.ndarray) else value
        kind = AttributeProto.INTS if plain == () else None  # a list without elements does not show of what it is: of axes
        proto.attribute.append(helper.make_attribute(name, plain, attr_type=kind))
    return proto
