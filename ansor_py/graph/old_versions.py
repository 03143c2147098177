"""Nodes of operator versions whose meaning is another one, written as nodes of a later version.

Before opset 7 the second operand of `Add` and its kin is broadcast only on request (`broadcast=1`), with its dimensions from
`axis` of the first operand on. The importer asks here first, so that nothing below knows more than NumPy's rules.

    replaced = modernised(node, 6, shapes)         # None for a node that means what it means today
    replaced.nodes                                 # [Unsqueeze(b) axes=[1], Add(a, b)]
    replaced.opset                                 # 7

What has no meaning in its version raises RefusedModelError. Other differences between versions (attributes that became
inputs, other defaults) are the operators' own affair, see `ansor_py.graph.onnx_ops`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from onnx import NodeProto, TensorProto, helper

from ansor_py.errors import RefusedModelError

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]  # of the values that a node reads

# Operators that NumPy's broadcasting came to with opset 7, and those it came to with opset 8.
BROADCAST_ON_REQUEST = frozenset("Add Sub Mul Div Pow And Or Xor Equal Greater Less".split())
EQUAL_SHAPES = frozenset("Sum Max Min Mean".split())
REMEDY = "correct the model, or convert it to a newer opset with onnx.version_converter"


@dataclass(frozen=True)
class Replaced:
    """Nodes that stand for an old one, and the version of the operator set that they are of."""

    nodes: tuple[NodeProto, ...]
    opset: int


def modernised(node: NodeProto, title: str, opset: int, shapes: Shapes) -> Replaced | None:
    """The nodes that mean the same, or None if the node can stay. Raises RefusedModelError for shapes that do not fit."""
    node = _without_empty_end(node)
    if node.op_type in BROADCAST_ON_REQUEST and opset < 7:
        return _broadcast_on_request(node, title, opset, shapes)
    if node.op_type in EQUAL_SHAPES and opset < 8:
        _require_equal_shapes(node, title, opset, shapes)
        return None
    rewrite = _REWRITES.get(node.op_type)
    return rewrite(node, title, opset, shapes) if rewrite is not None else None


def _without_empty_end(node: NodeProto) -> NodeProto:
    """The node, or a copy of it that does not list the optional inputs which are left out at the end."""
    if not node.input or node.input[-1]:
        return node
    copy = NodeProto()
    copy.CopyFrom(node)
    while copy.input and not copy.input[-1]:
        copy.input.pop()
    return copy


def _broadcast_on_request(node: NodeProto, title: str, opset: int, shapes: Shapes) -> Replaced:
    first, second = (shapes[name] for name in node.input)
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    if not attributes.get("broadcast", 0):
        if first != second:
            raise _refused(node, title, opset, f"shapes {list(first)} and {list(second)} differ, and 'broadcast' is not set")
        return Replaced((_without(node, title, *attributes),), 7)
    if all(extent == 1 for extent in second):  # one number, of whatever rank
        return _reshaped_second(node, title, (), second)
    axis = attributes.get("axis", len(first) - len(second))
    end = axis + len(second)
    fits = axis >= 0 and end <= len(first)
    if not fits or any(b not in (a, 1) for a, b in zip(first[axis:end], second, strict=True)):
        place = f"from axis {axis} on" if "axis" in attributes else "at the end"
        raise _refused(node, title, opset, f"shape {list(second)} does not fit into {list(first)} {place}")
    return _reshaped_second(node, title, (*second, *[1] * (len(first) - end)), second)


def _reshaped_second(node: NodeProto, title: str, wanted: Shape, shape: Shape) -> Replaced:
    """The node of version 7 with its second input under another shape, which differs by dimensions of extent 1."""
    plain = _without(node, title, "axis", "broadcast", "consumed_inputs")
    if wanted == shape:
        return Replaced((plain,), 7)
    name = f"{title}/{node.input[1]}/aligned"
    plain.input[1] = name
    if len(wanted) < len(shape):
        reshape = helper.make_node("Squeeze", [node.input[1]], [name], f"{title}/squeeze", axes=list(range(len(shape))))
    else:
        axes = list(range(len(shape), len(wanted)))
        reshape = helper.make_node("Unsqueeze", [node.input[1]], [name], f"{title}/unsqueeze", axes=axes)
    return Replaced((reshape, plain), 7)


def _require_equal_shapes(node: NodeProto, title: str, opset: int, shapes: Shapes) -> None:
    given = list(dict.fromkeys(shapes[name] for name in node.input))
    if len(given) > 1:
        listed = ", ".join(str(list(shape)) for shape in given)
        raise _refused(node, title, opset, f"shapes {listed} differ, and nothing is broadcast before opset 8")


def _slope_of_channels(node: NodeProto, title: str, opset: int, shapes: Shapes) -> Replaced | None:
    """PRelu before opset 7: a slope for all, or one a channel."""
    data, slope = (shapes[name] for name in node.input)
    if opset >= 7 or len(slope) != 1 or slope == (1,) or len(data) < 2:
        return None
    if slope[0] != data[1]:
        raise _refused(node, title, opset, f"{slope[0]} slopes are given for {data[1]} channels of shape {list(data)}")
    return _reshaped_second(node, title, (*slope, *[1] * (len(data) - 2)), slope)


def _addend_of_a_product(node: NodeProto, title: str, opset: int, shapes: Shapes) -> Replaced | None:
    """Gemm before opset 7: C is broadcast on request only."""
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    if opset >= 7:
        return None
    a, b, c = (shapes[name] for name in node.input)
    rows, columns = a[-1 if attributes.get("transA", 0) else 0], b[0 if attributes.get("transB", 0) else -1]
    if not attributes.get("broadcast", 0) and c != (rows, columns):
        raise _refused(node, title, opset, f"C has shape {list(c)} and not {[rows, columns]}, and 'broadcast' is not set")
    return Replaced((_without(node, title, "broadcast"),), 7)


def _dtype_by_name(node: NodeProto, title: str, opset: int, shapes: Shapes) -> Replaced | None:
    """Cast before opset 6: the dtype is a word."""
    if opset >= 6:
        return None
    word = next((attribute.s.decode(errors="replace") for attribute in node.attribute if attribute.name == "to"), "")
    if word.upper() not in dict(TensorProto.DataType.items()):
        raise _refused(node, title, opset, f"there is no dtype '{word}'")
    plain = _without(node, title, "to")
    plain.attribute.append(helper.make_attribute("to", TensorProto.DataType.Value(word.upper())))
    return Replaced((plain,), 6)


def _without(node: NodeProto, title: str, *attributes: str) -> NodeProto:
    """A copy of the node, with its name, that lacks some attributes."""
    copy = NodeProto()
    copy.CopyFrom(node)
    copy.name = title
    del copy.attribute[:]
    copy.attribute.extend(attribute for attribute in node.attribute if attribute.name not in attributes)
    return copy


def _refused(node: NodeProto, title: str, opset: int, complaint: str) -> RefusedModelError:
    return RefusedModelError(f"node '{title}' (operator {node.op_type}, opset {opset}): {complaint}; {REMEDY}")


_REWRITES: Mapping[str, Callable[[NodeProto, str, int, Shapes], Replaced | None]] = {
    "PRelu": _slope_of_channels,
    "Gemm": _addend_of_a_product,
    "Cast": _dtype_by_name,
}
