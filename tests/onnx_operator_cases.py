"""Small models of one node each, for every ONNX operator with a tensor expression; `Case` says what a model holds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graph_interpreter import Array, floats


@dataclass(frozen=True)
class Case:
    """One node: data inputs, constant inputs behind them, perhaps more data inputs behind those, attributes."""

    op_type: str
    inputs: tuple[Array, ...]
    constants: tuple[Array, ...] = ()
    attributes: dict[str, Any] = field(default_factory=dict)
    opset: int = 17
    outputs: int = 1
    inputs_behind: tuple[Array, ...] = ()

    def __str__(self) -> str:
        return f"{self.op_type}-{self.opset}-{'-'.join(f'{key}={value}' for key, value in self.attributes.items())}"


def ints(*values: int) -> Array:
    return np.array(values, dtype=np.int64)


X = floats(2, 3, 4)
IMAGE = floats(1, 4, 7, 8)
COUNTS = np.random.default_rng(5).integers(-9, 10, (3, 4))
BYTES = np.random.default_rng(6).integers(0, 256, (3, 5), dtype=np.uint8)
FLOAT_FUNCTIONS = (
    "Relu Sigmoid Tanh Exp Erf Floor Ceil Abs Neg Reciprocal Round Sin Cos Identity Elu HardSigmoid LeakyRelu Softplus Sign "
    "Tan Atan Sinh Cosh Asinh Softsign Selu Celu Mish ThresholdedRelu Shrink HardSwish IsNaN"
).split()
BINARY = "Add Sub Mul Div Less LessOrEqual Greater GreaterOrEqual Equal PRelu".split()
REDUCTIONS = ("ReduceMean ReduceMax ReduceMin ReduceProd ReduceSumSquare ReduceL1 ReduceL2 ReduceLogSumExp").split()
SPECIAL = np.array([np.nan, np.inf, -np.inf, 0.0, -2.5], np.float32)

# Arithmetic, functions, logic, bits and conversions.
ELEMENTWISE = [
    *(Case(name, (X,), opset=22) for name in FLOAT_FUNCTIONS),
    *(Case(name, (X.astype(np.float64),), opset=22) for name in "Exp Tanh Erf Sin Atan Sinh Asinh Round".split()),
    *(Case(name, (np.abs(X) + 0.5,)) for name in ("Log", "Sqrt")),
    *(Case(name, (np.tanh(X),)) for name in ("Asin", "Acos", "Atanh")),
    *(Case(name, (np.array([1e-6, -1e-4, 0.02, -0.9], np.float32),)) for name in ("Sinh", "Asinh", "Atanh", "Asin", "Elu")),
    Case("Acosh", (np.abs(X) + 1,)),
    *(Case(name, (X, floats(3, 1, seed=1))) for name in BINARY),
    *(Case(name, (X > 0, floats(3, 4) > 0)) for name in ("And", "Or", "Xor")),
    *(Case(name, (X, floats(4, seed=1), floats(2, 1, 1, seed=2))) for name in ("Sum", "Max", "Min", "Mean")),
    *(Case(name, (COUNTS, ints(3, -2, 5, -7))) for name in ("Add", "Sub", "Mul", "Div", "Mod", "Less", "Max", "Min")),
    *(Case(name, (BYTES, np.array([3, 1, 255, 7, 16], np.uint8))) for name in ("Add", "Mul", "Div", "Mod")),
    *(
        Case(name, (COUNTS.astype(np.int8), np.array([3, -1, 5, -7], np.int8)))
        for name in ("Add", "Sub", "Mul", "Div", "Equal")
    ),
    *(Case(name, (COUNTS.astype(np.int32),)) for name in ("Abs", "Neg", "Sign", "Relu")),
    Case("Mod", (COUNTS, ints(3, -2, 5, -7)), attributes={"fmod": 1}),
    Case("Mod", (X * 9, floats(3, 4, seed=1)), attributes={"fmod": 1}),
    *(Case(name, (COUNTS, ints(12, -3, 5, 0)), opset=18) for name in ("BitwiseAnd", "BitwiseOr", "BitwiseXor")),
    Case("BitwiseNot", (COUNTS.astype(np.int32),), opset=18),
    *(
        Case("BitShift", (BYTES, np.array([0, 1, 3, 7, 2], np.uint8)), attributes={"direction": way})
        for way in ("LEFT", "RIGHT")
    ),
    *(Case(name, (SPECIAL,)) for name in ("IsNaN", "IsInf")),
    Case("IsInf", (SPECIAL,), attributes={"detect_negative": 0}),
    Case("Not", (X > 0,)),
    Case("Pow", (X,), (np.array(2.0, np.float32),)),
    Case("Pow", (np.abs(X),), (np.array([0.7], np.float32),)),
    Case("Pow", (np.abs(X), floats(4, seed=1))),
    Case("Pow", (np.abs(X),), (floats(4, seed=1),)),
    Case("Pow", (X, np.array([2, 3, 1, 0], np.int64))),
    Case("Pow", (COUNTS, ints(2, 3, 1, 0))),
    Case("Where", (X > 0, X, floats(1, seed=1))),
    Case("Where", (COUNTS > 0, COUNTS, ints(7))),
    Case("Clip", (X,), (np.array(-0.5, np.float32), np.array(0.5, np.float32))),
    Case("Clip", (X, np.array(-0.5, np.float32), np.array(0.5, np.float32))),
    Case("Clip", (X,), attributes={"min": 0.0}, opset=10),
    *(Case("Cast", (X * 5,), attributes={"to": kind}) for kind in (6, 7, 3, 11, 9)),
    *(Case("Cast", (COUNTS,), attributes={"to": kind}) for kind in (1, 11, 6, 3, 9)),
    *(Case("Cast", (BYTES,), attributes={"to": kind}) for kind in (1, 6, 7, 9)),
    *(Case("Cast", (X > 0,), attributes={"to": kind}) for kind in (1, 2, 7, 11)),
    Case("CastLike", (X, COUNTS)),
    Case("Gelu", (X,), opset=20),
    Case("Gelu", (X,), attributes={"approximate": "tanh"}, opset=20),
    Case("Swish", (X,), attributes={"alpha": 1.5}, opset=24),
    Case("Dropout", (X,)),
]

# Reductions, positions, running sums, softmax and normalisations.
REDUCING = [
    *(Case(name, (X,), attributes={"axes": [0, -1], "keepdims": keep}) for name in REDUCTIONS for keep in (0, 1)),
    *(Case(name, (X,), (ints(1),), opset=18) for name in REDUCTIONS),
    Case("ReduceLogSum", (np.abs(X),), (ints(1),), opset=18),
    *(
        Case(name, (COUNTS,), (ints(1),), opset=18)
        for name in ("ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1")
    ),
    Case("ReduceSum", (X,), (ints(1),)),
    Case("ReduceSum", (X,), attributes={"keepdims": 0}),
    Case("ReduceSum", (X,), attributes={"noop_with_empty_axes": 1}),
    Case("ReduceSum", (floats(2, 0, 3),), (ints(1),)),
    Case("ReduceMax", (COUNTS,), attributes={"axes": [0], "keepdims": 0}),
    *(Case(name, (COUNTS,), attributes={"axis": 1, "keepdims": keep}) for name in ("ArgMax", "ArgMin") for keep in (0, 1)),
    *(Case(name, (COUNTS // 4,), attributes={"axis": 0, "select_last_index": 1}) for name in ("ArgMax", "ArgMin")),
    Case("CumSum", (X,), (np.array(1),)),
    Case("CumSum", (COUNTS,), (np.array(-1),), {"exclusive": 1, "reverse": 1}),
    Case("CumProd", (X,), (np.array(0),), opset=26),
    Case("Softmax", (X,), attributes={"axis": 1}),
    Case("LogSoftmax", (X,)),
    Case("Hardmax", (X,), attributes={"axis": 1}),
    Case("LRN", (floats(4, 4, 2, 3),), attributes={"size": 3, "alpha": 0.1, "bias": 2.0}),
    Case("BatchNormalization", (IMAGE,), tuple(np.abs(floats(4, seed=seed)) + 0.1 for seed in range(4))),
    Case(
        "BatchNormalization",
        (IMAGE, *(np.abs(floats(4, seed=seed)) + 0.1 for seed in range(4))),
        attributes={"training_mode": 1, "momentum": 0.7},
        outputs=3,
    ),
    Case("LayerNormalization", (X, floats(4, seed=1), floats(4, seed=2))),
    Case("LayerNormalization", (X, floats(3, 4, seed=1)), attributes={"axis": 1}, outputs=3),
    Case("RMSNormalization", (X, floats(4, seed=1)), opset=23),
    Case("InstanceNormalization", (IMAGE, floats(4, seed=1), floats(4, seed=2))),
    Case("GroupNormalization", (IMAGE, floats(4, seed=1), floats(4, seed=2)), attributes={"num_groups": 2}, opset=21),
    Case("LpNormalization", (np.abs(X),), attributes={"axis": 1, "p": 1}),
    Case("LpNormalization", (X,)),
]

# Convolutions and pooling.
SPATIAL = [
    Case("Conv", (IMAGE, floats(6, 4, 3, 3, seed=1), floats(6, seed=2)), attributes={"pads": [1, 0, 2, 1], "strides": [2, 1]}),
    Case("Conv", (IMAGE, floats(6, 2, 3, 2, seed=1)), attributes={"group": 2, "dilations": [2, 1], "auto_pad": "SAME_UPPER"}),
    Case("Conv", (IMAGE, floats(4, 1, 3, 3, seed=1)), attributes={"group": 4, "auto_pad": "SAME_LOWER", "strides": [2, 2]}),
    Case("MaxPool", (IMAGE,), attributes={"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 1, 1]}),
    Case("MaxPool", (IMAGE,), attributes={"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}),
    Case("AveragePool", (IMAGE,), attributes={"kernel_shape": [3, 3], "strides": [2, 1], "pads": [1, 1, 1, 1]}),
    Case("AveragePool", (IMAGE,), attributes={"kernel_shape": [2, 2], "pads": [1, 1, 0, 0], "count_include_pad": 1}),
    Case("Conv", (floats(1, 4, 9), floats(6, 2, 3, seed=1)), attributes={"group": 2, "strides": [2], "pads": [1, 2]}),
    Case("Conv", (floats(1, 2, 4, 5, 6), floats(3, 2, 3, 2, 3, seed=1), floats(3, seed=2)), attributes={"pads": [1, 0, 1] * 2}),
    Case("ConvTranspose", (IMAGE, floats(4, 3, 4, 3, seed=1), floats(3, seed=2)), attributes={"strides": [2, 2]}),
    Case(
        "ConvTranspose",
        (floats(1, 4, 5), floats(4, 1, 3, seed=1)),
        attributes={"strides": [3], "group": 4, "pads": [1, 0], "output_padding": [2]},
    ),
    Case("ConvTranspose", (IMAGE, floats(4, 2, 3, 3, seed=1)), attributes={"dilations": [2, 1], "pads": [1, 0, 2, 1]}),
    Case("ConvTranspose", (floats(1, 2, 3, 4, 3), floats(2, 2, 2, 3, 4, seed=1)), attributes={"strides": [2, 1, 2]}),
    Case("ConvTranspose", (IMAGE, floats(4, 2, 3, 3, seed=1)), attributes={"strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    Case("MaxPool", (floats(1, 2, 9),), attributes={"kernel_shape": [3], "dilations": [2]}),
    Case("MaxPool", (floats(1, 2, 5, 6, 4),), attributes={"kernel_shape": [2, 3, 2], "strides": [2, 1, 2]}),
    Case("MaxPool", (IMAGE,), attributes={"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 1, 1]}, outputs=2),
    Case("AveragePool", (floats(1, 2, 5, 6, 4),), attributes={"kernel_shape": [2, 3, 2], "strides": [2, 2, 1]}, opset=19),
    Case("LpPool", (IMAGE,), attributes={"kernel_shape": [2, 3], "strides": [1, 2]}, opset=18),
    Case("LpPool", (IMAGE,), attributes={"kernel_shape": [3, 3], "p": 3}, opset=18),
    Case("GlobalAveragePool", (IMAGE,)),
    Case("GlobalMaxPool", (IMAGE,)),
]

# Operators that move elements, and products of matrices.
MOVING = [
    Case("Reshape", (X,), (ints(0, -1),)),
    Case("Flatten", (X,), attributes={"axis": 2}),
    Case("Squeeze", (floats(1, 3, 1, 4),), (ints(-2),)),
    Case("Unsqueeze", (X,), (ints(0, -1),)),
    Case("Unsqueeze", (X,), attributes={"axes": [1]}, opset=11),
    Case("Transpose", (X,), attributes={"perm": [2, 0, 1]}),
    Case("Transpose", (X,)),
    Case("Concat", (X, floats(2, 2, 4, seed=1)), attributes={"axis": -2}),
    Case("Slice", (floats(9, 8),), (ints(1, 7), ints(100, -100), ints(0, 1), ints(2, -3))),
    Case("Slice", (floats(9, 8),), attributes={"starts": [-3], "ends": [-1], "axes": [1]}, opset=9),
    Case("Split", (floats(6, 4),), (ints(1, 3, 2),), {"axis": 0}, outputs=3),
    Case("Split", (floats(6, 4),), attributes={"axis": 1}, opset=11, outputs=2),
    Case("Pad", (X,), (ints(0, 1, 2, 1, 0, 3), np.array(1.5, np.float32))),
    Case("Expand", (floats(3, 1),), (ints(2, 1, 4),)),
    Case("Gather", (X, np.array([[0, 2], [-1, 1]])), attributes={"axis": 1}),
    Case("MatMul", (X, floats(4, 5, seed=1))),
    Case("MatMul", (floats(2, 1, 3, 4), floats(3, 4, 2, seed=1))),
    Case("Gemm", (floats(3, 4), floats(5, 4, seed=1), floats(5, seed=2)), attributes={"transB": 1}),
    Case(
        "Gemm", (floats(4, 3), floats(4, 5, seed=1), floats(3, 1, seed=2)), attributes={"transA": 1, "alpha": 0.5, "beta": 2.0}
    ),
    *(Case("Pad", (X,), (ints(0, 1, 2, 1, 0, 3),), {"mode": mode}, opset=19) for mode in ("edge", "reflect", "wrap")),
    Case("Pad", (COUNTS,), (ints(1, 0, 0, 2), np.array(7, np.int64))),
    Case("Pad", (X,), (ints(1, 2), np.array(0.5, np.float32), ints(1)), opset=18),
    Case("Pad", (X,), attributes={"pads": [0, 1, 2, 1, 0, 3], "value": 1.5}, opset=10),
    Case("Pad", (X,), (ints(0, 1, 2, 1, 0, 3),), inputs_behind=(np.array(2.5, np.float32),)),
    Case("Slice", (floats(9, 8),), (ints(5), ints(2), ints(0))),
    Case("Concat", (COUNTS, COUNTS + 1), attributes={"axis": 1}),
    Case("Transpose", (X > 0,), attributes={"perm": [2, 0, 1]}),
    Case("Gather", (X, np.array(-2)), attributes={"axis": 2}),
    Case("GatherElements", (X, np.array([[[0, -1, 1, 2]], [[1, 2, 0, 0]]])), attributes={"axis": 1}),
    Case("GatherND", (X, np.array([[0, 1], [1, -1]]))),
    Case("GatherND", (X, np.array([[1], [2]])), attributes={"batch_dims": 1}),
    *(
        Case(
            "GridSample",
            (IMAGE, 1.3 * np.tanh(floats(1, 3, 2, 2, seed=1))),
            attributes={"mode": mode, "padding_mode": padding, "align_corners": align},
            opset=20,
        )
        for mode, padding, align in (("linear", "zeros", 0), ("nearest", "border", 1), ("cubic", "reflection", 0))
    ),
    Case("OneHot", (ints(1, -1, 3),), (np.array(4),), attributes={"axis": 0}, inputs_behind=(floats(2, seed=3),)),
    Case("ReverseSequence", (floats(4, 3), ints(1, 3, 4)), attributes={"time_axis": 0, "batch_axis": 1}),
    Case("Tile", (X,), (ints(2, 1, 3),)),
    Case("Trilu", (floats(2, 3, 5),), (np.array(1),), {"upper": 0}),
    Case("Trilu", (floats(4, 4),)),
    Case("EyeLike", (floats(3, 5),), attributes={"k": 1, "dtype": 7}),
    Case("DepthToSpace", (floats(1, 8, 2, 3),), attributes={"blocksize": 2}),
    Case("DepthToSpace", (floats(1, 8, 2, 3),), attributes={"blocksize": 2, "mode": "CRD"}),
    Case("SpaceToDepth", (floats(1, 2, 4, 6),), attributes={"blocksize": 2}),
    Case("Einsum", (X, floats(2, 4, 5, seed=1)), attributes={"equation": "bij, bjk -> bik"}),
    Case("Einsum", (floats(2, 3, 3),), attributes={"equation": "...ii->...i"}),
    Case("Einsum", (X, floats(4, seed=1)), attributes={"equation": "...j,j"}),
    Case("Upsample", (IMAGE,), (np.array([1, 1, 2, 3], np.float32),), opset=9),
    *(
        Case("Resize", (IMAGE,), (floats(0), scales), {"mode": mode, "coordinate_transformation_mode": where}, opset=19)
        for mode in ("nearest", "linear", "cubic")
        for scales, where in (
            (np.array([1, 1, 2, 3], np.float32), "half_pixel"),
            (np.array([1, 1, 0.6, 0.8], np.float32), "asymmetric"),
            (np.array([1, 1, 2, 1.5], np.float32), "align_corners"),
        )
    ),
    Case("Resize", (IMAGE,), (floats(0), floats(0), ints(1, 4, 3, 5)), {"mode": "linear", "antialias": 1}, opset=19),
    Case("MatMul", (floats(3), floats(3, 2, seed=1))),
    Case("MatMul", (COUNTS, COUNTS.T.copy())),
]

SCALE, ZERO = np.array(0.05, np.float32), np.array(120, np.uint8)
QUANTISED = [
    Case("QuantizeLinear", (X, SCALE, ZERO)),
    Case("QuantizeLinear", (X, np.array([0.1, 0.02, 0.5], np.float32), np.array([1, -3, 0], np.int8)), attributes={"axis": 1}),
    Case("DequantizeLinear", (BYTES, SCALE, ZERO), opset=21),
    Case("MatMulInteger", (BYTES, BYTES.T.copy(), np.array(12, np.uint8), np.array(3, np.uint8))),
    Case("QLinearMatMul", (BYTES, SCALE, ZERO, BYTES.T.copy(), SCALE, ZERO, np.array(2.0, np.float32), np.array(9, np.uint8))),
    Case(
        "ConvInteger",
        (BYTES.reshape(1, 1, 3, 5), BYTES[:2, :4].reshape(2, 1, 2, 2), np.array(4, np.uint8)),
        attributes={"pads": [1] * 4},
    ),
]

CASES = [*ELEMENTWISE, *REDUCING, *SPATIAL, *MOVING, *QUANTISED]
