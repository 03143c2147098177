"""Whether nodes use their operators as the standard defines them: inputs, outputs and attributes of each node.

What differs cannot be understood: an attribute that this version of the operator does not have would be ignored without a
word. Operators that the standard does not have are left to the importer, which knows what else can run them, and so are
deprecated ones, which files still hold.

    check_nodes(model.graph.node, {"": 17}, functions={})
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from onnx import AttributeProto, FunctionProto, NodeProto, defs

from ansor_py.errors import ModelError, RefusedModelError
from ansor_py.graph.subgraphs import subgraphs_of

# Integers that say yes or no; what others mean, the standard does not say.
SWITCHES = frozenset(
    "keepdims noop_with_empty_axes select_last_index exclusive reverse ceil_mode count_include_pad storage_order transA transB "
    "fmod largest sorted training_mode across_channels normalize_variance center_point_box align_corners".split()
)
# Integers that name or count dimensions, of which a tensor has 64 at most. With others ONNX's inference reads memory that is
# not there, and the process ends by a signal.
DIMENSIONS = frozenset("axis axes batch_axis time_axis batch_dims perm".split())
MOST_DIMENSIONS = 64
_TYPE_NAMES = {"float32": "float", "float64": "double"}
Functions = Mapping[tuple[str, str], FunctionProto]


def check_nodes(nodes: Iterable[NodeProto], opsets: Mapping[str, int], functions: Functions) -> None:
    """Raises ModelError for the first node, in subgraphs too, that does not fit its operator's definition."""
    for index, node in enumerate(nodes):
        domain = "" if node.domain == "ai.onnx" else node.domain
        title = f"node '{node_title(node, index)}' (operator {f'{domain}.' if domain else ''}{node.op_type}"
        if (node.domain, node.op_type) not in functions:
            if domain not in opsets:
                which = f"operator set '{domain}'" if domain else "standard operators"
                raise ModelError(
                    f"{title}): the model does not say which version of the {which} it uses; add it to opset_import"
                )
            _check_node(node, f"{title}, opset {opsets[domain]})", domain, opsets[domain])
        for graph in subgraphs_of(node):
            check_nodes(graph.node, opsets, functions)


def node_title(node: NodeProto, index: int) -> str:
    """A node's name, or one made of operator and position."""
    return node.name or f"{node.op_type}_{index}"


def _check_node(node: NodeProto, title: str, domain: str, version: int) -> None:
    try:
        schema: Any = defs.get_schema(node.op_type, version, domain)
    except defs.SchemaError:
        return
    _check_values("inputs", list(node.input), schema.inputs, (schema.min_input, schema.max_input), title)
    _check_values("outputs", list(node.output), schema.outputs, (schema.min_output, schema.max_output), title)
    for attribute in node.attribute:
        if attribute.name.startswith("__"):  # the standard leaves these names to whoever wrote the model
            continue
        if attribute.name not in schema.attributes:
            raise ModelError(f"{title} has an attribute '{attribute.name}', which the operator does not have in this version")
        expected = schema.attributes[attribute.name].type.value
        if attribute.type != expected:
            kinds = AttributeProto.AttributeType.Name
            found, right = kinds(attribute.type).lower(), kinds(expected).lower()
            raise ModelError(f"{title}: its attribute '{attribute.name}' is of type {found}, not {right}")
        if attribute.name in SWITCHES and expected == AttributeProto.INT and attribute.i not in (0, 1):
            raise ModelError(f"{title}: its attribute '{attribute.name}' is {attribute.i}; it must be 0 or 1")
        if attribute.name in DIMENSIONS:
            least = 0 if attribute.name == "batch_dims" else -MOST_DIMENSIONS
            for number in (attribute.i, *attribute.ints):
                if not least <= number < MOST_DIMENSIONS:
                    limits = f"it must lie between {least} and {MOST_DIMENSIONS - 1}"
                    raise ModelError(f"{title}: its attribute '{attribute.name}' is {number}; {limits}")
    names = [attribute.name for attribute in node.attribute]
    given = set(names)
    if twice := [name for name in names if names.count(name) > 1]:
        raise ModelError(f"{title} has its attribute '{twice[0]}' twice")
    for name, definition in schema.attributes.items():
        if definition.required and name not in given:
            raise ModelError(f"{title} lacks the attribute '{name}'")


def check_dtypes(node: NodeProto, dtypes: Mapping[str, str], title: str, version: int) -> None:
    """Raises RefusedModelError for an input of a dtype that the operator takes neither in this version nor in the newest."""
    try:
        schemas: list[Any] = [defs.get_schema(node.op_type, version), defs.get_schema(node.op_type)]
    except defs.SchemaError:
        return
    for position, name in enumerate(node.input):
        dtype = dtypes.get(name)
        formals = [schema.inputs[min(position, len(schema.inputs) - 1)] for schema in schemas if len(schema.inputs)]
        kind = f"tensor({_TYPE_NAMES.get(dtype, dtype)})" if dtype is not None else ""
        if kind and formals and not any(kind in formal.types for formal in formals):
            raise RefusedModelError(f"{title}: its input '{name}' is {dtype}, which the operator does not take; cast it")


def _check_values(what: str, names: list[str], formal: Any, limits: tuple[int, int], title: str) -> None:
    """The number of inputs or outputs, and that only optional ones are left out."""
    fewest, most = limits
    while names and not names[-1]:
        names.pop()
    if not fewest <= len(names) <= most:
        count = str(fewest) if fewest == most else f"{fewest} to {most}" if most < 2**31 - 1 else f"at least {fewest}"
        raise ModelError(f"{title} has {len(names)} {what}, but the operator has {count}")
    for position, name in enumerate(names[: len(formal)]):
        if not name and formal[position].option == defs.OpSchema.FormalParameterOption.Single and what == "inputs":
            raise ModelError(f"{title}: its input {position} ('{formal[position].name}') is missing")
