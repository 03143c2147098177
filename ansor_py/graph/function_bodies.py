"""ONNX operators that are defined by other operators: their bodies, spelled out as plain nodes.

The standard gives many operators (LayerNormalization, Gelu, HardSwish, ...) a function body; models bring functions of
their own. The importer asks here for an operator that has no tensor expression of its own.

    function = function_of(node, opset, input_types, model_functions)     # None if it has no body
    nodes = expand_function(node, function, prefix="gelu1/")
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from onnx import AttributeProto, FunctionProto, NodeProto, TypeProto, defs

from ansor_py.graph.subgraphs import rename_captures


def function_of(
    node: NodeProto, opset: int, input_types: Sequence[TypeProto], local: Mapping[tuple[str, str], FunctionProto]
) -> FunctionProto | None:
    """The body of a node's operator: a function of the model, or the standard's; None if it has neither."""
    if (node.domain, node.op_type) in local:
        return local[node.domain, node.op_type]
    try:
        schema: Any = defs.get_schema(node.op_type, opset, node.domain)
    except defs.SchemaError:
        return None
    if schema.has_function:
        return _with_defaults(schema.function_body, schema)
    if schema.has_context_dependent_function:
        data = schema.get_context_dependent_function(
            node.SerializeToString(), [kind.SerializeToString() for kind in input_types]
        )
        return _with_defaults(FunctionProto.FromString(data), schema)
    return None


def _with_defaults(body: FunctionProto, schema: Any) -> FunctionProto | None:
    """The body with the operator's attributes that have defaults, which a call may leave out; None for an empty body."""
    if not body.node:
        return None
    copy = FunctionProto()
    copy.CopyFrom(body)
    stated = {attribute.name for attribute in copy.attribute_proto}
    for name, attribute in schema.attributes.items():
        if name not in stated and attribute.default_value.name:
            copy.attribute_proto.append(attribute.default_value)
    return copy


def expand_function(node: NodeProto, function: FunctionProto, prefix: str) -> list[NodeProto]:
    """The nodes of a function body with the call's inputs, outputs and attributes put in; inner values get `prefix`."""
    names = dict.fromkeys((*function.input, *function.output), "")
    names.update(zip(function.input, node.input, strict=False))
    names.update(zip(function.output, node.output, strict=False))
    names = {formal: actual or (f"{prefix}{formal}" if formal in function.output else "") for formal, actual in names.items()}
    given = {attribute.name: attribute for attribute in function.attribute_proto}
    given.update({attribute.name: attribute for attribute in node.attribute})
    expanded = []
    for inner in function.node:
        copy = NodeProto()
        copy.CopyFrom(inner)
        copy.name = f"{prefix}{inner.name or inner.op_type}"
        copy.input[:] = [_renamed(name, names, prefix) for name in inner.input]
        copy.output[:] = [_renamed(name, names, prefix) for name in inner.output]
        del copy.attribute[:]
        copy.attribute.extend(_bound_attributes(inner, given))
        rename_captures(copy, lambda name: _renamed(name, names, prefix))
        expanded.append(copy)
    return expanded


def _renamed(name: str, names: Mapping[str, str], prefix: str) -> str:
    return names.get(name, f"{prefix}{name}") if name else ""


def _bound_attributes(inner: NodeProto, given: Mapping[str, AttributeProto]) -> list[AttributeProto]:
    """The attributes of an inner node; a reference to an attribute of the call takes the call's value or is left out."""
    bound = []
    for attribute in inner.attribute:
        if not attribute.ref_attr_name:
            copy = AttributeProto()
            copy.CopyFrom(attribute)
            for graph in (copy.g, *copy.graphs):
                for nested in graph.node:
                    nested_attributes = _bound_attributes(nested, given)
                    del nested.attribute[:]
                    nested.attribute.extend(nested_attributes)
            bound.append(copy)
        elif attribute.ref_attr_name in given:
            copy = AttributeProto()
            copy.CopyFrom(given[attribute.ref_attr_name])
            copy.name = attribute.name
            bound.append(copy)
    return bound
