"""Small models of one node each, for every ONNX operator with a tensor expression; `Case` says what a model holds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graph_interpreter import Array, floats


@dataclass(frozen=True)
class Case:
    """One node: data inputs, constant inputs behind them, attributes."""

    op_type: str
    inputs: tuple[Array, ...]
    constants: tuple[Array, ...] = ()
    attributes: dict[str, Any] = field(default_factory=dict)
    opset: int = 17
    outputs: int = 1

    def __str__(self) -> str:
        return f"{self.op_type}-{self.opset}-{'-'.join(f'{key}={value}' for key, value in self.attributes.items())}"


def ints(*values: int) -> Array:
    return np.array(values, dtype=np.int64)


X = floats(2, 3, 4)
IMAGE = floats(1, 4, 7, 8)
UNARY = (
    "Relu Sigmoid Tanh Exp Erf Floor Ceil Abs Neg Reciprocal Round Sin Cos Identity Elu HardSigmoid LeakyRelu Softplus"
).split()
BINARY = "Add Sub Mul Div Less LessOrEqual Greater GreaterOrEqual Equal PRelu".split()
REDUCTIONS = "ReduceMean ReduceMax ReduceMin ReduceProd ReduceSumSquare ReduceL1 ReduceL2".split()
CASES = [
    *(Case(name, (X,)) for name in UNARY),
    *(Case(name, (np.abs(X) + 0.5,)) for name in ("Log", "Sqrt")),
    *(Case(name, (X, floats(3, 1, seed=1))) for name in BINARY),
    *(Case(name, (X > 0, floats(3, 4) > 0)) for name in ("And", "Or")),
    *(Case(name, (X, floats(4, seed=1), floats(2, 1, 1, seed=2))) for name in ("Sum", "Max", "Min", "Mean")),
    *(Case(name, (X,), attributes={"axes": [0, -1], "keepdims": keep}) for name in REDUCTIONS for keep in (0, 1)),
    Case("Not", (X > 0,)),
    Case("Div", (ints(7, -7, 6), ints(2, 2, -4))),
    Case("ReduceSum", (X,), (ints(1),)),
    Case("ReduceSum", (X,), attributes={"keepdims": 0}),
    Case("Pow", (X,), (np.float32(2.0),)),
    Case("Pow", (np.abs(X),), (np.array([0.7], np.float32),)),
    Case("Pow", (np.abs(X), floats(4, seed=1))),
    Case("Where", (X > 0, X, floats(1, seed=1))),
    Case("Clip", (X,), (np.float32(-0.5), np.float32(0.5))),
    Case("Clip", (X,), attributes={"min": 0.0}, opset=10),
    Case("Cast", (X * 5,), attributes={"to": 6}),
    Case("Cast", (X,), attributes={"to": 9}),
    Case("Gelu", (X,), opset=20),
    Case("Gelu", (X,), attributes={"approximate": "tanh"}, opset=20),
    Case("HardSwish", (X,)),
    Case("Dropout", (X,)),
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
    Case("Pad", (X,), (ints(0, 1, 2, 1, 0, 3), np.float32(1.5))),
    Case("Expand", (floats(3, 1),), (ints(2, 1, 4),)),
    Case("Gather", (X, np.array([[0, 2], [-1, 1]])), attributes={"axis": 1}),
    Case("Softmax", (X,), attributes={"axis": 1}),
    Case("LogSoftmax", (X,)),
    Case("MatMul", (X, floats(4, 5, seed=1))),
    Case("MatMul", (floats(2, 1, 3, 4), floats(3, 4, 2, seed=1))),
    Case("Gemm", (floats(3, 4), floats(5, 4, seed=1), floats(5, seed=2)), attributes={"transB": 1}),
    Case(
        "Gemm", (floats(4, 3), floats(4, 5, seed=1), floats(3, 1, seed=2)), attributes={"transA": 1, "alpha": 0.5, "beta": 2.0}
    ),
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
    Case("LRN", (floats(4, 4, 2, 3),), attributes={"size": 3, "alpha": 0.1, "bias": 2.0}),
    Case("BatchNormalization", (IMAGE,), tuple(np.abs(floats(4, seed=seed)) + 0.1 for seed in range(4))),
    Case("LayerNormalization", (X, floats(4, seed=1), floats(4, seed=2))),
]
