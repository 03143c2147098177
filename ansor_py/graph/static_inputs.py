"""Inputs that have to be known when a model is compiled: they become attributes of the operator.

resolved = resolve_static_inputs(node, values)      # Reshape(x, shape) -> Reshape(x) shape=[2, 3]
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ansor_py.errors import StaticInputError
from ansor_py.graph.ir import AttributeValue, OperatorNode, Value
from ansor_py.graph.onnx_ops.registry import definition_of, describe


def resolve_static_inputs(node: OperatorNode, values: Mapping[str, Value]) -> OperatorNode:
    """The node with inputs that have to be known turned into attributes. Raises StaticInputError where one is not known.

    Optional ones become attributes where they are known and one number.
    """
    definition = definition_of(node)
    inputs = list(node.inputs)
    attributes: dict[str, AttributeValue] = dict(node.attributes)
    for index, name in {**definition.static, **definition.optional_static}.items():
        if index >= len(inputs) or not inputs[index]:
            continue
        array = values[inputs[index]].constant
        if array is not None and (index in definition.static or array.size == 1):
            attributes[name] = array
            inputs[index] = ""
        elif index in definition.static:
            raise StaticInputError(
                f"{describe(node)}: its input '{inputs[index]}' ({name}) is computed while the model runs; "
                "it has to be known when the model is compiled",
                inputs[index],
            )
    while inputs and not inputs[-1]:
        inputs.pop()
    return replace(node, inputs=tuple(inputs), attributes=attributes)
