"""Every version of every compiled operator: computed by the meaning that it has in that version, or refused.

What did not change is held equal to another version; what did change has its right values here, by the standard's text.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, defs, helper

from ansor_py.errors import ModelError, RefusedModelError
from ansor_py.graph import compile
from ansor_py.graph.ir import OperatorNode
from ansor_py.graph.onnx_ops.registry import definition_of, registered_operators
from graph_interpreter import Array, floats, make_model
from onnx_operator_cases import CASES, Case

INF = np.inf
MADE_BY_PASSES = {"ChannelAffine", "Join"}
SQUARE = np.array([[1, -2], [3, -4]], np.float32)


def run(
    op_type: str,
    opset: int,
    inputs: list[Any],
    constants: list[Any] | None = None,
    outputs: int = 1,
    fallback: bool = False,
    stated: tuple[int, ...] | None = None,
    **attributes: Any,
) -> list[Array]:
    """The results of one node; `stated` is their shape where ONNX does not infer one."""
    data = {f"x{index}": np.asarray(array) for index, array in enumerate(inputs)}
    known = {f"c{index}": np.asarray(array) for index, array in enumerate(constants or [])}
    results = [f"y{index}" for index in range(outputs)]
    node = helper.make_node(op_type, [*data, *known], results, name="node", **attributes)
    model = make_model([node], data, results, known, opset)
    for info in model.graph.output:
        if stated is not None and not info.type.tensor_type.HasField("shape"):
            info.type.tensor_type.shape.CopyFrom(helper.make_tensor_type_proto(1, stated).tensor_type.shape)
    got = compile(model, threads=1, workers=0, fallback=fallback).run(data)
    return [got[name] for name in results]


def zeros(*shape: int) -> Array:
    return np.zeros(shape, np.float32)


def numbers(*values: float) -> Array:
    return np.array(values, np.float32)


# Broadcasting on request: the first operand, the second, the attributes, and the second as NumPy would have to see it.
ALIGNED: dict[str, tuple[Array, Array, dict[str, int], tuple[int, ...]]] = {
    "from the first axis on": (SQUARE, numbers(1, 2), {"broadcast": 1, "axis": 0}, (2, 1)),
    "at the end": (SQUARE, numbers(1, 2), {"broadcast": 1}, (1, 2)),
    "in the middle": (floats(2, 3, 4), floats(3, seed=1), {"broadcast": 1, "axis": 1}, (1, 3, 1)),
    "two dimensions": (floats(2, 3, 4), floats(2, 3, seed=1), {"broadcast": 1, "axis": 0}, (2, 3, 1)),
    "one number": (SQUARE, np.float32(3), {"broadcast": 1}, ()),
    "one number of many dimensions": (numbers(1, 2), numbers(3).reshape(1, 1), {"broadcast": 1}, ()),
    "equal shapes": (SQUARE, SQUARE.T.copy(), {}, (2, 2)),
    "equal shapes, on request": (SQUARE, SQUARE.T.copy(), {"broadcast": 1}, (2, 2)),
}
FUNCTIONS: dict[str, Any] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": np.divide,
    "Pow": np.power,
    "Greater": np.greater,
    "Less": np.less,
    "And": np.logical_and,
    "Or": np.logical_or,
    "Xor": np.logical_xor,
    "Equal": np.equal,
}


def operands(op_type: str, name: str) -> tuple[Array, Array, dict[str, int], Array]:
    """Two operands of a dtype that the operator takes, its attributes, and the right result."""
    first, second, attributes, seen = ALIGNED[name]
    dtype = {"And": bool, "Or": bool, "Xor": bool, "Equal": np.int32}.get(op_type, np.float32)
    a, b = (np.abs(array) if op_type == "Pow" else array for array in (first, second))
    a, b = (np.asarray(array > 0 if dtype is bool else array).astype(dtype) for array in (a, b))
    return a, b, attributes, FUNCTIONS[op_type](a, b.reshape(seen))


@pytest.mark.parametrize("name", ALIGNED)
@pytest.mark.parametrize("op_type", FUNCTIONS)
def test_broadcasting_on_request_before_opset_7(op_type: str, name: str) -> None:
    a, b, attributes, expected = operands(op_type, name)
    (got,) = run(op_type, 6, [a, b], **attributes)
    np.testing.assert_allclose(got, expected, rtol=1e-6, strict=True)


@pytest.mark.parametrize("op_type", FUNCTIONS)
def test_broadcasting_of_a_constant_and_in_the_first_version(op_type: str) -> None:
    a, b, attributes, expected = operands(op_type, "in the middle")
    hint = {"consumed_inputs": [0, 0]} if "consumed_inputs" in defs.get_schema(op_type, 1).attributes else {}
    (got,) = run(op_type, 1, [a], [b], **attributes, **hint)
    np.testing.assert_allclose(got, expected, rtol=1e-6, strict=True)


@pytest.mark.parametrize("op_type", ["Mul", "Add", "Sub", "Div"])
def test_passes_see_the_channels_that_an_old_node_means(op_type: str) -> None:
    """As many columns as channels: what is scaled is the dimension that `axis` names, also where it is folded away."""
    x, vector = floats(2, 3, 3, 3), numbers(2, 3, 4)
    scale, shift, mean, variance = (np.abs(floats(3, seed=seed)) + 0.5 for seed in range(4))
    nodes = [
        helper.make_node("BatchNormalization", ["x", "s", "b", "m", "v"], ["n"], is_test=1, epsilon=0.0),
        helper.make_node(op_type, ["n", "c"], ["p"], broadcast=1, axis=1),
        helper.make_node(op_type, ["p", "c"], ["y"], broadcast=1),
    ]
    constants = {"s": scale, "b": shift, "m": mean, "v": variance, "c": vector}
    got = compile(make_model(nodes, {"x": x}, ["y"], constants, 6), threads=1, workers=0).run({"x": x})["y"]
    channels = [array.reshape(3, 1, 1) for array in (scale, shift, mean, variance, vector)]
    normal = (x - channels[2]) / np.sqrt(channels[3]) * channels[0] + channels[1]
    function = FUNCTIONS[op_type]
    np.testing.assert_allclose(got, function(function(normal, channels[4]), vector), rtol=1e-5, atol=1e-6)


def test_the_example_of_the_standard() -> None:
    (got,) = run("Add", 6, [zeros(2, 2), numbers(1, 2)], axis=0, broadcast=1)
    assert got.tolist() == [[1, 1], [2, 2]]


@pytest.mark.parametrize("op_type", FUNCTIONS)
@pytest.mark.parametrize(
    ("first", "second", "attributes", "complaint"),
    [
        ((2, 2), (3,), {"broadcast": 1}, r"shape \[3\] does not fit into \[2, 2\] at the end"),
        ((2, 3), (3,), {"broadcast": 1, "axis": 0}, r"shape \[3\] does not fit into \[2, 3\] from axis 0 on"),
        ((3,), (2, 3), {"broadcast": 1}, r"shape \[2, 3\] does not fit into \[3\]"),
        ((2, 2), (2,), {}, r"shapes \[2, 2\] and \[2\] differ, and 'broadcast' is not set"),
    ],
)
def test_shapes_that_do_not_fit_are_refused_when_the_model_is_compiled(
    op_type: str, first: tuple[int, ...], second: tuple[int, ...], attributes: dict[str, int], complaint: str
) -> None:
    """With fallback too: no evaluator could run it."""
    dtype = {"And": bool, "Or": bool, "Xor": bool, "Equal": np.int32}.get(op_type, np.float32)
    inputs = [np.ones(shape, dtype) for shape in (first, second)]
    with pytest.raises(
        RefusedModelError, match=rf"node 'node' \(operator {op_type}, opset 6\): {complaint}.*version_converter"
    ):
        run(op_type, 6, inputs, fallback=True, **attributes)


@pytest.mark.parametrize("op_type", ["Sum", "Max", "Min", "Mean"])
@pytest.mark.parametrize("opset", [1, 6, 7])
def test_operands_of_different_shapes_before_opset_8(op_type: str, opset: int) -> None:
    (got,) = run(op_type, opset, [SQUARE, SQUARE.T.copy()])
    expected = {"Sum": SQUARE + SQUARE.T, "Max": np.maximum(SQUARE, SQUARE.T), "Min": np.minimum(SQUARE, SQUARE.T)}
    np.testing.assert_allclose(got, expected.get(op_type, (SQUARE + SQUARE.T) / 2))
    with pytest.raises(RefusedModelError, match=r"shapes \[2, 2\], \[2\] differ, and nothing is broadcast before opset 8"):
        run(op_type, opset, [SQUARE, numbers(1, 2)], fallback=True)


def test_shapes_that_do_not_fit_since_opset_7_are_refused_too() -> None:
    with pytest.raises(ModelError, match=r"do not fit together|cannot be broadcast together"):
        run("Add", 7, [zeros(2, 2), zeros(3)], fallback=True, stated=(2, 2))


# Results by the text of the version: operator, opset, data, constants, attributes, right values.
CHANGED: list[tuple[str, int, list[Any], list[Any], dict[str, Any], Any]] = [
    # A slope for all channels, or one a channel: not one a column.
    ("PRelu", 6, [-np.ones((1, 2, 2, 2), np.float32), numbers(2, 3)], [], {}, [[[[-2, -2]] * 2, [[-3, -3]] * 2]]),
    ("PRelu", 1, [-np.ones((1, 2, 2), np.float32)], [numbers(2, 3)], {}, [[[-2, -2], [-3, -3]]]),
    ("PRelu", 6, [-np.ones((1, 2), np.float32), numbers(4)], [], {}, [[-4, -4]]),
    ("PRelu", 7, [-np.ones((1, 2, 2), np.float32), numbers(2, 3)], [], {}, [[[-2, -3], [-2, -3]]]),
    ("Gemm", 6, [SQUARE, SQUARE, numbers(1, 2)], [], {"broadcast": 1}, [[-4, 8], [-8, 12]]),
    ("Gemm", 1, [SQUARE, SQUARE, SQUARE], [], {"transB": 1, "alpha": 2.0}, [[11, 20], [25, 46]]),
    ("Cast", 1, [numbers(1.5, -2.5)], [], {"to": "INT32"}, np.array([1, -2], np.int32)),
    ("Cast", 1, [np.array([1, 0], np.int64)], [], {"to": "bool"}, np.array([True, False])),
    # The limits of version 6 are by default those of float32.
    ("Clip", 6, [numbers(-INF, 1, INF)], [], {}, [-3.4028234663852886e38, 1, 3.4028234663852886e38]),
    ("Clip", 6, [numbers(-INF, 1, INF)], [], {"min": 0.0}, [0, 1, 3.4028234663852886e38]),
    ("Clip", 1, [numbers(-INF, 1, INF)], [], {"min": 0.0}, [0, 1, INF]),
    ("Clip", 12, [numbers(-INF, 1, INF)], [np.float32(0)], {}, [0, 1, INF]),
    ("Selu", 1, [numbers(2, -INF)], [], {}, [2 * 1.0507, -1.0507 * 1.6732]),
    ("Selu", 6, [numbers(2, -INF)], [], {}, [2.1014020442962646, -1.7580993408473766]),
    ("Dropout", 6, [SQUARE], [], {"is_test": 1}, SQUARE),
    ("Dropout", 1, [SQUARE], [], {"ratio": 0.0}, SQUARE),
    ("Dropout", 7, [SQUARE], [], {}, SQUARE),
    ("Equal", 7, [np.array([[1, 2], [3, 4]]), np.array([1, 4])], [], {}, np.array([[True, False], [False, True]])),
    ("Concat", 1, [SQUARE, SQUARE], [], {}, [[1, -2, 1, -2], [3, -4, 3, -4]]),
    ("Split", 1, [SQUARE], [np.array([2])], {"axis": 0}, SQUARE),
    ("Pad", 1, [SQUARE], [], {"paddings": [0, 1, 1, 0], "value": 9.0}, [[9, 1, -2], [9, 3, -4], [9, 9, 9]]),
    ("Tile", 1, [SQUARE], [np.float32(2), np.float32(1)], {}, [[1, -2, 1, -2], [3, -4, 3, -4]]),
    ("Tile", 6, [SQUARE], [np.array([1, 2])], {}, [[1, -2, 1, -2], [3, -4, 3, -4]]),
    ("Slice", 1, [SQUARE], [], {"starts": [1], "ends": [9], "axes": [0]}, [[3, -4]]),
    ("Squeeze", 1, [SQUARE[None]], [], {"axes": [0]}, SQUARE),
    ("Unsqueeze", 1, [SQUARE], [], {"axes": [0]}, SQUARE[None]),
    ("Reshape", 1, [SQUARE], [], {"shape": [4]}, [1, -2, 3, -4]),
    ("Upsample", 1, [SQUARE[None, None]], [], {"height_scale": 1.0, "width_scale": 2.0}, [[[[1, 1, -2, -2], [3, 3, -4, -4]]]]),
    (
        "Upsample",
        1,
        [numbers(0, 2).reshape(1, 1, 1, 2)],
        [],
        {"height_scale": 1.0, "width_scale": 2.0, "mode": "bilinear"},
        [[[[0, 1, 2, 2]]]],
    ),
    ("Upsample", 7, [SQUARE[None, None]], [], {"scales": [1.0, 1.0, 2.0, 1.0]}, [[[[1, -2], [1, -2], [3, -4], [3, -4]]]]),
    ("Resize", 10, [SQUARE[None, None]], [numbers(1, 1, 1, 2)], {}, [[[[1, 1, -2, -2], [3, 3, -4, -4]]]]),
    ("AveragePool", 1, [SQUARE[None, None]], [], {"kernel_shape": [2, 2], "pads": [1, 1, 0, 0]}, [[[[1, -0.5], [2, -0.5]]]]),
    ("GlobalLpPool", 1, [SQUARE[None, None]], [], {"p": 1.0}, [[[[10]]]]),
    ("GlobalLpPool", 2, [SQUARE[None, None]], [], {"p": 1}, [[[[10]]]]),
    ("LpPool", 1, [SQUARE[None, None]], [], {"kernel_shape": [2, 2], "p": 1.0}, [[[[10]]]]),
    # Before opset 13 all axes from `axis` on (by default 1) are one row.
    ("Softmax", 1, [zeros(1, 2, 2)], [], {}, [[[0.25, 0.25], [0.25, 0.25]]]),
    ("Softmax", 11, [zeros(1, 2, 2)], [], {"axis": -2}, [[[0.25, 0.25], [0.25, 0.25]]]),
    ("Softmax", 13, [zeros(1, 2, 2)], [], {}, [[[0.5, 0.5], [0.5, 0.5]]]),
    ("LogSoftmax", 1, [zeros(1, 2, 2)], [], {}, np.full((1, 2, 2), np.log(0.25), np.float32)),
    ("LogSoftmax", 11, [zeros(2, 2)], [], {"axis": 0}, np.full((2, 2), np.log(0.25), np.float32)),
    ("Hardmax", 1, [SQUARE[None]], [], {}, [[[0, 0], [1, 0]]]),
    ("Hardmax", 11, [SQUARE[None]], [], {}, [[[0, 0], [1, 0]]]),
    ("Hardmax", 13, [SQUARE[None]], [], {}, [[[1, 0], [1, 0]]]),
    (
        "BatchNormalization",
        6,
        [SQUARE[None]],
        [numbers(2, 2), numbers(1, 0), numbers(0, 1), numbers(4, 1)],
        {"is_test": 1, "epsilon": 0.0},
        [[[2, -1], [4, -10]]],
    ),
    (
        "BatchNormalization",
        7,
        [SQUARE[None]],
        [np.full((2, 2), 2, np.float32), SQUARE, zeros(2, 2), numbers(1, 4, 1, 4).reshape(2, 2)],
        {"spatial": 0, "epsilon": 0.0},
        [[[3, -4], [9, -8]]],
    ),
    ("MeanVarianceNormalization", 9, [numbers(1, 3).reshape(1, 1, 1, 2)], [], {}, [[[[-1, 1]]]]),
    ("MeanVarianceNormalization", 13, [numbers(1, 3).reshape(1, 1, 1, 2)], [], {}, [[[[-1, 1]]]]),
    ("Range", 11, [], [np.int64(1), np.int64(6), np.int64(2)], {}, np.array([1, 3, 5])),
    ("Range", 27, [], [np.float32(1), np.float32(2), np.float32(0.5)], {}, [1, 1.5]),
]


@pytest.mark.parametrize("case", CHANGED, ids=lambda case: f"{case[0]}-{case[1]}")
def test_the_meaning_of_a_version(case: tuple[str, int, list[Any], list[Any], dict[str, Any], Any]) -> None:
    op_type, opset, inputs, constants, attributes, expected = case
    right = np.asarray(expected, np.float32 if isinstance(expected, list) else None)
    if not inputs:  # a model has to be fed with something
        data = {"x": zeros(1)}
        known = {f"c{index}": np.asarray(array) for index, array in enumerate(constants)}
        nodes = [helper.make_node(op_type, [*known], ["y"]), helper.make_node("Neg", ["x"], ["n"])]
        got = compile(make_model(nodes, data, ["y", "n"], known, opset), threads=1, workers=0, fallback=False).run(data)["y"]
    else:
        (got,) = run(op_type, opset, inputs, constants, stated=right.shape, **attributes)
    np.testing.assert_allclose(got, right, rtol=1e-6, atol=1e-7, strict=True)


@pytest.mark.parametrize(
    ("op_type", "opset", "inputs", "attributes", "complaint"),
    [
        ("Dropout", 6, [SQUARE], {}, r"Dropout, opset 6\) is in training mode"),
        ("Dropout", 1, [SQUARE], {"is_test": 0, "ratio": 0.3}, r"Dropout, opset 1\) is in training mode"),
        ("BatchNormalization", 6, [SQUARE[None], *[numbers(1, 1)] * 4], {}, r"opset 6\) is in training mode"),
        ("Gemm", 6, [SQUARE, SQUARE, numbers(1, 2)], {}, r"C has shape \[2\] and not \[2, 2\], and 'broadcast' is not set"),
        ("PRelu", 6, [zeros(1, 2, 3), numbers(1, 2, 3)], {}, r"3 slopes are given for 2 channels"),
        ("Cast", 1, [SQUARE], {"to": "FLOUT"}, r"Cast, opset 1\): there is no dtype 'FLOUT'"),
    ],
)
def test_what_has_no_meaning_here_is_refused_with_and_without_fallback(
    op_type: str, opset: int, inputs: list[Array], attributes: dict[str, Any], complaint: str
) -> None:
    for fallback in (False, True):
        with pytest.raises(RefusedModelError, match=complaint):
            run(op_type, opset, inputs, fallback=fallback, **attributes)


def test_the_mask_of_an_old_dropout_has_the_dtype_of_the_data() -> None:
    for opset, dtype in ((6, np.float32), (7, np.float32), (10, np.bool_), (12, np.bool_)):
        _, mask = run("Dropout", opset, [SQUARE], outputs=2, **({"is_test": 1} if opset < 7 else {}))
        np.testing.assert_array_equal(mask, np.ones((2, 2), dtype), strict=True)


# Versions that are tested above, and those that no model can use (Upsample-10 is deprecated) or that have a test elsewhere.
LITERAL = {(op_type, opset) for op_type, opset, *_ in CHANGED}
ABOVE = (
    {(op_type, version) for op_type in FUNCTIONS for version in (1, 6)}
    | {(op_type, version) for op_type in ("Sum", "Max", "Min", "Mean") for version in (1, 6)}
    | {("BatchNormalization", 1), ("Upsample", 10), ("GlobalLpPool", 22), ("QLinearConv", 10), ("GroupNormalization", 18)}
)


def versions_of(op_type: str) -> list[int]:
    found = {s.since_version for s in defs.get_all_schemas_with_history() if s.domain == "" and s.name == op_type}
    return sorted(found)


def of_version(case: Case, version: int) -> tuple[ModelProto, dict[str, Array]] | None:
    """The case in another version, inputs that were attributes then as attributes; None if that version cannot say it."""
    schema = defs.get_schema(case.op_type, version)
    definition = definition_of(OperatorNode("", case.op_type, (), ""))
    moved = {**definition.static, **definition.optional_static}
    attributes, data, constants, names = dict(case.attributes), dict[str, Array](), dict[str, Array](), list[str]()
    inputs = [("x", a) for a in case.inputs] + [("c", a) for a in case.constants] + [("z", a) for a in case.inputs_behind]
    for index, (kind, given) in enumerate(inputs):
        array, name = np.asarray(given), f"{kind}{index}"
        if index < schema.max_input:
            (constants if kind == "c" else data)[name] = array
            names.append(name)
        elif kind == "c" and index in moved:
            attributes[moved[index]] = array.tolist()
        else:
            return None
    if set(attributes) - set(schema.attributes) or case.outputs > schema.max_output:
        return None
    outputs = [f"y{index}" for index in range(case.outputs)]
    node = helper.make_node(case.op_type, names, outputs, name="node", **attributes)
    model = make_model([node], data, outputs, constants, version)
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError):
        return None
    return model, data


UNCHANGED = [
    (op_type, version)
    for op_type in registered_operators()
    if op_type not in MADE_BY_PASSES
    for version in versions_of(op_type)
    if (op_type, version) not in LITERAL | ABOVE
]


@pytest.mark.parametrize(("op_type", "version"), UNCHANGED)
def test_other_versions_compute_the_same(op_type: str, version: int) -> None:
    """Of each operator the first of the cases of ONNX's evaluator that the version can say."""
    for case in CASES:
        given = of_version(case, version) if case.op_type == op_type else None
        if given is not None:
            break
    else:
        pytest.fail(f"no case of {op_type} can be said in version {version}; give it right values above")
    model, data = given
    usual = of_version(case, case.opset)
    assert usual is not None
    got = compile(model, threads=1, workers=0, fallback=False).run(data)
    for name, expected in compile(usual[0], threads=1, workers=0).run(usual[1]).items():
        np.testing.assert_allclose(got[name], expected, rtol=1e-5, atol=1e-6, strict=True)
