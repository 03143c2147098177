"""ONNX models that are changed at random: dtypes, attributes, names, shapes, nodes, weights, operator versions, bytes.

    data, feed = mutated_model(np.random.default_rng(17))

The models that are changed are one node of every operator (`onnx_operator_cases.py`) and small networks.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from onnx import AttributeProto, ModelProto, NodeProto, helper, numpy_helper

import network_blocks as blocks
from graph_interpreter import Array, make_model
from onnx_operator_cases import CASES, Case
from test_fallback import branches, inverse_between_kernels

Rng = np.random.Generator
# What stands for a number: small ones, those at the ends of what 32 and 64 bits hold. None is large and possible.
NUMBERS = (0, 1, 2, 3, 5, 7, -1, -2, -9, 100, 2**31 - 1, 2**31, 2**62, 2**63 - 1, -(2**63))
EXTENTS = tuple(number for number in NUMBERS if abs(number) not in (2**31 - 1, 2**31))
REALS = (0.0, 1.0, -1.0, 0.5, 1e30, -1e30, 1e-40, float("inf"), float("-inf"), float("nan"))
WORDS = ("", "x", "SAME_UPPER", "reflect", "nearest", "linear", "NOTSET", "none", "é\n", "a" * 300)


@functools.cache
def originals() -> list[tuple[ModelProto, dict[str, Array]]]:
    """Models without a fault, with inputs."""
    small = [
        blocks.lstm_cell(4, 4),
        blocks.inverted_residual(4, 6, 2),
        blocks.unet_block(4, 8),
        branches(),
    ]
    small += [blocks.transformer_layer(16, 2, 4), inverse_between_kernels(), blocks.generator_block(4, 3)]
    return small * 8 + [_model_of(case) for case in CASES]


def _model_of(case: Case) -> tuple[ModelProto, dict[str, Array]]:
    data = {f"x{index}": np.asarray(array) for index, array in enumerate(case.inputs)}
    constants = {f"c{index}": np.asarray(array) for index, array in enumerate(case.constants)}
    behind = {f"z{index}": np.asarray(array) for index, array in enumerate(case.inputs_behind)}
    outputs = [f"y{index}" for index in range(case.outputs)]
    node = helper.make_node(case.op_type, [*data, *constants, *behind], outputs, name="node", **case.attributes)
    return make_model([node], data | behind, outputs, constants, case.opset), data | behind


def one_of(rng: Rng, items: Sequence[Any]) -> Any:
    """A random item."""
    return items[int(rng.integers(len(items)))]


def mutated_model(rng: Rng) -> tuple[bytes, dict[str, Array]]:
    """A model with one change or a few, as bytes, and inputs of the one that it was."""
    original, feed = one_of(rng, originals())
    model = ModelProto.FromString(original.SerializeToString())
    for _ in range(one_of(rng, (1, 1, 1, 2, 3))):
        one_of(rng, CHANGES)(model, rng)
    data = model.SerializeToString()
    return (_damaged(data, rng) if rng.random() < 0.15 else data), feed


def _damaged(data: bytes, rng: Rng) -> bytes:
    damaged = bytearray(data)
    kind = rng.random()
    if kind < 0.2:
        return bytes(damaged[: rng.integers(len(data) + 1)])
    for place in rng.integers(min(len(data), 2000), size=int(rng.integers(1, 4))):
        damaged[place] = int(rng.integers(256)) if kind < 0.6 else damaged[place] ^ (1 << int(rng.integers(8)))
    return bytes(damaged)


def _node(model: ModelProto, rng: Rng) -> NodeProto:
    return one_of(rng, model.graph.node) if len(model.graph.node) else model.graph.node.add(op_type="Relu")


def _port(model: ModelProto, rng: Rng) -> Any:
    ports = [*model.graph.input, *model.graph.output, *model.graph.value_info]
    return one_of(rng, ports) if ports else model.graph.input.add(name="new")


def change_dtype(model: ModelProto, rng: Rng) -> None:
    """Of an input, output or weight; also to none and to one that does not exist."""
    kind = one_of(rng, (*range(26), 99, -1))
    if len(model.graph.initializer) and rng.random() < 0.4:
        one_of(rng, model.graph.initializer).data_type = kind
    else:
        _port(model, rng).type.tensor_type.elem_type = kind


def change_shape(model: ModelProto, rng: Rng) -> None:
    """One extent another, unknown or named; one more or fewer; none at all."""
    if len(model.graph.initializer) and rng.random() < 0.4:
        tensor = one_of(rng, model.graph.initializer)
        if len(tensor.dims) and rng.random() < 0.7:
            tensor.dims[int(rng.integers(len(tensor.dims)))] = one_of(rng, EXTENTS)
        else:
            tensor.dims.append(one_of(rng, EXTENTS))
        return
    shape = _port(model, rng).type.tensor_type
    dims = shape.shape.dim
    choice = rng.random()
    if choice < 0.1:
        shape.ClearField("shape")
    elif choice < 0.25 or not len(dims):
        dims.add(dim_value=one_of(rng, EXTENTS))
    elif choice < 0.4:
        del dims[int(rng.integers(len(dims)))]
    elif choice < 0.5:
        one_of(rng, dims).dim_param = one_of(rng, WORDS)
    else:
        one_of(rng, dims).dim_value = one_of(rng, EXTENTS)


def change_attribute(model: ModelProto, rng: Rng) -> None:
    """Another value, one of another kind, a kind that its value does not have; one that is not known, or given twice."""
    node = _node(model, rng)
    choice = rng.random()
    if choice < 0.15 or not len(node.attribute):
        names = ("axis", "axes", "alpha", "kernel_shape", "pads", "strides", "group", "perm", "to", "keepdims", "mode", "new")
        node.attribute.append(_attribute(one_of(rng, names), rng))
        return
    place = int(rng.integers(len(node.attribute)))
    attribute = node.attribute[place]
    if choice < 0.25:
        del node.attribute[place]
    elif choice < 0.3:
        node.attribute.append(attribute)
    elif choice < 0.4:
        attribute.type = one_of(rng, range(15))
    elif choice < 0.45:
        attribute.name = one_of(rng, WORDS)
    elif choice < 0.75 and attribute.type in (AttributeProto.INT, AttributeProto.INTS):
        _change_numbers(attribute, rng)
    else:
        attribute.CopyFrom(_attribute(attribute.name, rng))


def _change_numbers(attribute: AttributeProto, rng: Rng) -> None:
    """Another number of those that there are, or one more or fewer."""
    if attribute.type == AttributeProto.INT:
        attribute.i = one_of(rng, NUMBERS)
    elif len(attribute.ints) and rng.random() < 0.6:
        attribute.ints[int(rng.integers(len(attribute.ints)))] = one_of(rng, NUMBERS)
    elif len(attribute.ints) and rng.random() < 0.5:
        attribute.ints.pop()
    else:
        attribute.ints.append(one_of(rng, NUMBERS))


def _attribute(name: str, rng: Rng) -> AttributeProto:
    """An attribute of any kind."""
    attribute = AttributeProto(name=name)
    kind = one_of(rng, ("i", "f", "s", "ints", "floats", "strings", "t", "none"))
    attribute.type = {"i": 2, "f": 1, "s": 3, "ints": 7, "floats": 6, "strings": 8, "t": 4, "none": 0}[kind]
    if kind == "i":
        attribute.i = one_of(rng, NUMBERS)
    elif kind == "f":
        attribute.f = one_of(rng, REALS)
    elif kind == "s":
        attribute.s = one_of(rng, (*(word.encode() for word in WORDS), b"\xff\xfe"))
    elif kind == "ints":
        attribute.ints.extend(one_of(rng, NUMBERS) for _ in range(int(rng.integers(5))))
    elif kind == "floats":
        attribute.floats.extend(one_of(rng, REALS) for _ in range(int(rng.integers(5))))
    elif kind == "strings":
        attribute.strings.extend(one_of(rng, WORDS).encode() for _ in range(int(rng.integers(4))))
    elif kind == "t":
        attribute.t.CopyFrom(numpy_helper.from_array(np.array(one_of(rng, REALS), np.float32), "t"))
    return attribute


def change_name(model: ModelProto, rng: Rng) -> None:
    """A node reads or gives another value, a missing one, none; it is another operator."""
    node = _node(model, rng)
    names = [name for other in model.graph.node for name in (*other.input, *other.output)] + ["", "nowhere"]
    ports = node.input if len(node.input) and rng.random() < 0.6 else node.output
    choice = rng.random()
    if choice < 0.5 and len(ports):
        ports[int(rng.integers(len(ports)))] = one_of(rng, names)
    elif choice < 0.65:
        ports.append(one_of(rng, names))
    elif choice < 0.75 and len(ports):
        ports.pop()
    elif choice < 0.95:
        node.op_type = one_of(rng, [other.op_type for model_, _ in originals() for other in model_.graph.node] + ["", "Foo"])
    else:
        node.domain = one_of(rng, ("ai.onnx.ml", "mine", "com.microsoft", "ai.onnx"))


def change_nodes(model: ModelProto, rng: Rng) -> None:
    """A node is missing, there twice or elsewhere; an output is missing."""
    place = int(rng.integers(len(model.graph.node))) if len(model.graph.node) else 0
    choice = rng.random()
    if choice < 0.4 and len(model.graph.node):
        del model.graph.node[place]
    elif choice < 0.6:
        model.graph.node.append(_node(model, rng))
    elif choice < 0.8 and len(model.graph.input):
        del model.graph.input[int(rng.integers(len(model.graph.input)))]
    elif len(model.graph.output):
        del model.graph.output[int(rng.integers(len(model.graph.output)))]


def change_weights(model: ModelProto, rng: Rng) -> None:
    """Some elements become infinite, no number, zero or extreme; or all bytes of a tensor are random or too few."""
    if not len(model.graph.initializer):
        return
    tensor = one_of(rng, model.graph.initializer)
    if rng.random() < 0.15:
        tensor.raw_data = rng.bytes(int(rng.integers(40)))
        return
    try:
        array = np.array(numpy_helper.to_array(tensor))
    except (ValueError, TypeError, KeyError, NotImplementedError):  # another change has been here
        return
    if not array.size:
        return
    flat, count = array.reshape(-1), 1 if rng.random() < 0.5 else array.size
    for place in rng.choice(array.size, count, replace=False):
        value = one_of(rng, REALS if array.dtype.kind == "f" else NUMBERS)
        if array.dtype.kind == "f" or (array.dtype.kind in "iu" and _fits(value, array.dtype)):
            with np.errstate(over="ignore"):
                flat[place] = value
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def _fits(value: int, dtype: np.dtype[Any]) -> bool:
    return bool(np.iinfo(dtype).min <= value <= np.iinfo(dtype).max)


def change_opset(model: ModelProto, rng: Rng) -> None:
    """Another version of the operators, none, or several."""
    choice = rng.random()
    if choice < 0.1:
        del model.opset_import[:]
    elif choice < 0.2 or not len(model.opset_import):
        model.opset_import.add(domain=one_of(rng, ("", "mine", "ai.onnx.ml")), version=one_of(rng, NUMBERS))
    else:
        version = int(rng.integers(1, 27)) if rng.random() < 0.8 else one_of(rng, NUMBERS)
        one_of(rng, model.opset_import).version = version


CHANGES: tuple[Callable[[ModelProto, Rng], None], ...] = (
    change_dtype, change_shape, change_attribute, change_attribute, change_name, change_nodes, change_weights, change_weights,
    change_opset,
)  # fmt: skip
