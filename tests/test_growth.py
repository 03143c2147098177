"""No operator's work grows faster than its standard algorithm's: operations are counted, for a size and for four times it.

Of a compiled operator: every stage's elements (those of the reduction included) times the parts of its expression. Of a library
kernel: the elements that each NumPy call reads.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, helper

from ansor_py import te
from ansor_py.graph import partition_model
from ansor_py.graph.library_kernels import LibraryCall, kernel_operators, run_kernel
from ansor_py.graph.onnx_ops.registry import registered_operators
from ansor_py.schedule.dag import ComputeDAG
from ansor_py.te.expr import walk
from ansor_py.te.tensor import Compute
from graph_interpreter import Array, make_model

SMALL, FACTOR = 256, 4


def operations(dag: ComputeDAG) -> int:
    """The parts of expressions that are evaluated."""
    total = 0
    for tensor in dag.computed:
        assert isinstance(tensor.op, Compute)
        elements = tensor.size * math.prod(axis.extent for axis in tensor.op.reduce_axes)
        total += elements * sum(1 for _ in walk(tensor.op.body))
    return total


def of_model(model: ModelProto) -> int:
    parts = partition_model(model, fallback=False)
    assert not parts.graph.opaque
    return sum(operations(subgraph.dag) for subgraph in parts.subgraphs)


def ramp(*shape: int, dtype: Any = np.float32) -> Array:
    return (np.arange(math.prod(shape)) % 5 + 1).astype(dtype).reshape(shape)


def one_node(
    op_type: str,
    inputs: list[Array],
    constants: list[Array] | None = None,
    opset: int = 22,
    outputs: int = 1,
    **attributes: Any,
) -> ModelProto:
    data = {f"x{index}": array for index, array in enumerate(inputs)}
    known = {f"c{index}": array for index, array in enumerate(constants or [])}
    results = [f"y{index}" for index in range(outputs)]
    return make_model([helper.make_node(op_type, [*data, *known], results, **attributes)], data, results, known, opset)


Maker = Callable[[int], ModelProto]
UNARY = (
    "Abs Acos Acosh Asin Asinh Atan Atanh BitwiseNot Ceil Celu Cos Cosh Dropout Elu Erf Exp Floor Gelu HardSigmoid HardSwish "
    "Identity IsInf IsNaN LeakyRelu Log Mish Neg Not Reciprocal Relu Round Selu Shrink Sigmoid Sign Sin Sinh Softplus Softsign "
    "Sqrt Tan Tanh ThresholdedRelu Hardmax LogSoftmax Softmax LpNormalization"
).split()
BINARY = (
    "Add And BitwiseAnd BitwiseOr BitwiseXor Div Equal Greater GreaterOrEqual Less LessOrEqual Max Mean Min Mod Mul Or PRelu "
    "Pow Sub Sum Xor"
).split()
DTYPES = dict.fromkeys(("Not", "And", "Or", "Xor"), bool) | dict.fromkeys(
    ("BitwiseNot", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Mod"), np.int32
)
REDUCTIONS = (
    "ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare ArgMax "
    "ArgMin"
).split()
GLOBAL = "GlobalAveragePool GlobalLpPool GlobalMaxPool".split()
AXES, SCALE = np.array([0]), np.array(0.1, np.float32)
ONES = [ramp(3), ramp(3), ramp(3), ramp(3)]


def _image(n: int) -> Array:
    return ramp(1, 3, n, 8)


# Models whose work is linear in the size.
LINEAR: dict[str, Maker] = {
    **{name: lambda n, name=name: one_node(name, [ramp(n, dtype=DTYPES.get(name, np.float32))]) for name in UNARY},
    **{name: lambda n, name=name: one_node(name, [ramp(n, dtype=DTYPES.get(name, np.float32))] * 2) for name in BINARY},
    **{name: lambda n, name=name: one_node(name, [ramp(n)], opset=13, keepdims=0) for name in REDUCTIONS},
    **{name: lambda n, name=name: one_node(name, [_image(n)]) for name in GLOBAL},
    "Cast": lambda n: one_node("Cast", [ramp(n)], to=7),
    "CastLike": lambda n: one_node("CastLike", [ramp(n), ramp(n, dtype=np.int64)]),
    "Clip": lambda n: one_node("Clip", [ramp(n)], [np.float32(1), np.float32(2)]),
    "BitShift": lambda n: one_node("BitShift", [ramp(n, dtype=np.uint8)] * 2, direction="LEFT"),
    "Where": lambda n: one_node("Where", [ramp(n) > 2, ramp(n), ramp(n)]),
    "Swish": lambda n: one_node("Swish", [ramp(n)], opset=24),
    "CumSum": lambda n: one_node("CumSum", [ramp(n)], [np.array(0)]),
    "CumSum in the middle": lambda n: one_node("CumSum", [ramp(3, n, 2)], [np.array(1)], exclusive=1, reverse=1),
    "CumProd": lambda n: one_node("CumProd", [ramp(n)], [np.array(0)], opset=26),
    "BatchNormalization": lambda n: one_node("BatchNormalization", [_image(n)], ONES),
    "InstanceNormalization": lambda n: one_node("InstanceNormalization", [_image(n)], ONES[:2]),
    "GroupNormalization": lambda n: one_node("GroupNormalization", [_image(n)], ONES[:2], num_groups=1),
    "LayerNormalization": lambda n: one_node("LayerNormalization", [ramp(n)], [ramp(n), ramp(n)], outputs=3),
    "RMSNormalization": lambda n: one_node("RMSNormalization", [ramp(n)], [ramp(n)], opset=23),
    "MeanVarianceNormalization": lambda n: one_node("MeanVarianceNormalization", [_image(n)], opset=12),
    "LRN": lambda n: one_node("LRN", [ramp(1, n, 2, 2)], size=3),
    "MaxPool": lambda n: one_node("MaxPool", [_image(n)], kernel_shape=[3, 3], outputs=2),
    "AveragePool": lambda n: one_node("AveragePool", [_image(n)], kernel_shape=[3, 3]),
    "LpPool": lambda n: one_node("LpPool", [_image(n)], kernel_shape=[3, 3]),
    "Conv": lambda n: one_node("Conv", [_image(n)], [ramp(2, 3, 3, 3)]),
    "ConvTranspose": lambda n: one_node("ConvTranspose", [_image(n)], [ramp(3, 2, 3, 3)], strides=[2, 2]),
    "ConvInteger": lambda n: one_node("ConvInteger", [ramp(1, 3, n, 8, dtype=np.uint8)], [ramp(2, 3, 3, 3, dtype=np.uint8)]),
    "QLinearConv": lambda n: one_node(
        "QLinearConv",
        [ramp(1, 3, n, 8, dtype=np.uint8)],
        [SCALE, np.uint8(1), ramp(2, 3, 3, 3, dtype=np.uint8), SCALE, np.uint8(2), SCALE, np.uint8(3)],
    ),
    "QuantizeLinear": lambda n: one_node("QuantizeLinear", [ramp(n)], [SCALE, np.uint8(3)]),
    "DequantizeLinear": lambda n: one_node("DequantizeLinear", [ramp(n, dtype=np.uint8)], [SCALE, np.uint8(3)]),
    "Concat": lambda n: one_node("Concat", [ramp(n), ramp(n)], axis=0),
    "DepthToSpace": lambda n: one_node("DepthToSpace", [ramp(1, 4, n, 2)], blocksize=2),
    "SpaceToDepth": lambda n: one_node("SpaceToDepth", [ramp(1, 1, n, 2)], blocksize=2),
    "Expand": lambda n: one_node("Expand", [ramp(n)], [np.array([2, 1])]),
    "EyeLike": lambda n: one_node("EyeLike", [ramp(n, 3)]),
    "Flatten": lambda n: one_node("Flatten", [ramp(n, 3, 2)]),
    "Gather": lambda n: one_node("Gather", [ramp(n), ramp(n, dtype=np.int64)]),
    "GatherElements": lambda n: one_node("GatherElements", [ramp(n), ramp(n, dtype=np.int64)]),
    "GatherND": lambda n: one_node("GatherND", [ramp(n), ramp(n, 1, dtype=np.int64)]),
    "GridSample": lambda n: one_node("GridSample", [_image(n), ramp(1, n, 8, 2)], mode="cubic"),
    "OneHot": lambda n: one_node("OneHot", [ramp(n, dtype=np.int64)], [np.array(5), ramp(2)]),
    "Pad": lambda n: one_node("Pad", [ramp(n)], [np.array([n, n])]),
    "Reshape": lambda n: one_node("Reshape", [ramp(n)], [np.array([2, -1])]),
    "Resize": lambda n: one_node(
        "Resize", [_image(n)], [np.zeros(0, np.float32), np.array([1, 1, 2, 2], np.float32)], mode="cubic"
    ),
    "Upsample": lambda n: one_node("Upsample", [_image(n)], [np.array([1, 1, 2, 2], np.float32)], opset=9),
    "ReverseSequence": lambda n: one_node("ReverseSequence", [ramp(n, 3), ramp(3, dtype=np.int64)]),
    "Slice": lambda n: one_node("Slice", [ramp(n)], [np.array([1]), np.array([n]), AXES, np.array([2])]),
    "Split": lambda n: one_node("Split", [ramp(n)], opset=13, outputs=2),
    "Squeeze": lambda n: one_node("Squeeze", [ramp(1, n)], [AXES]),
    "Unsqueeze": lambda n: one_node("Unsqueeze", [ramp(n)], [AXES]),
    "Tile": lambda n: one_node("Tile", [ramp(3)], [np.array([n])]),
    "Transpose": lambda n: one_node("Transpose", [ramp(n, 3)]),
    "Trilu": lambda n: one_node("Trilu", [ramp(n, 3)]),
    "Einsum": lambda n: one_node("Einsum", [ramp(n, 2), ramp(2, 3), ramp(3)], equation="ij,jk,k->i"),
    "MatMul": lambda n: one_node("MatMul", [ramp(n, 3), ramp(3, 4)]),
    "MatMulInteger": lambda n: one_node("MatMulInteger", [ramp(n, 3, dtype=np.uint8), ramp(3, 4, dtype=np.uint8)]),
    "QLinearMatMul": lambda n: one_node(
        "QLinearMatMul",
        [ramp(n, 3, dtype=np.uint8)],
        [SCALE, np.uint8(1), ramp(3, 4, dtype=np.uint8), SCALE, np.uint8(1), SCALE, np.uint8(1)],
    ),
    "Gemm": lambda n: one_node("Gemm", [ramp(n, 3), ramp(3, 4)]),
}
MADE_BY_PASSES, FOLDED = {"ChannelAffine", "Join"}, {"Range"}


@pytest.mark.parametrize("name", LINEAR)
def test_the_work_of_a_compiled_operator_is_linear_in_its_elements(name: str) -> None:
    small, large = of_model(LINEAR[name](SMALL)), of_model(LINEAR[name](FACTOR * SMALL))
    assert large <= 1.15 * FACTOR * small


def test_every_compiled_operator_is_counted() -> None:
    assert set(registered_operators()) - MADE_BY_PASSES - FOLDED == {name.partition(" ")[0] for name in LINEAR}


def test_the_count_sees_what_compares_every_pair() -> None:
    def pairs(n: int) -> int:
        x, k = te.placeholder((n,), name="x"), te.reduce_axis(n, "k")
        rank = te.compute((n,), lambda i: te.reduce_sum(te.select(x[k] < x[i], 1.0, te.const(0, "float32")), k), name="rank")
        return operations(ComputeDAG.from_outputs(rank))

    assert pairs(FACTOR * SMALL) > 15 * pairs(SMALL)


def test_joining_many_tensors_is_not_quadratic_in_their_number() -> None:
    def joined(count: int) -> int:
        return of_model(one_node("Concat", [ramp(8) for _ in range(count)], axis=0))

    assert joined(256) <= 6 * joined(64)  # n log n


@pytest.mark.parametrize(
    ("equation", "ranks", "power"),
    [
        ("ij,jk,kl->il", (2, 2, 2), 3),  # two products of matrices, not all four indices at once
        ("ij,jk->k", (2, 2), 2),  # sums of the columns first
        ("i,j,k->", (1, 1, 1), 1),
        ("ij,j,jk->ik", (2, 1, 2), 3),
        ("bij,bjk->bik", (3, 3), 4),
    ],
)
def test_an_einsum_takes_operands_two_at_a_time(equation: str, ranks: tuple[int, ...], power: int) -> None:
    def work(n: int) -> int:
        operands = [te.placeholder((n,) * rank, name=f"x{index}") for index, rank in enumerate(ranks)]
        return operations(ComputeDAG.from_outputs(te.einsum(equation, *operands)))

    assert work(32) <= 1.15 * 4**power * work(8)


class Counted(np.ndarray[Any, Any]):
    """An array that counts the elements which NumPy functions read of it and of what is made from it."""

    count = 0

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        return _counted(lambda *plain: getattr(ufunc, method)(*plain, **options), inputs)

    def __array_function__(self, function: Any, types: Any, arguments: Any, options: Any) -> Any:
        return _counted(lambda *plain: function(*plain, **options), arguments)


def _counted(function: Callable[..., Any], arguments: Any) -> Any:
    plain = [np.asarray(a) if isinstance(a, np.ndarray) else a for a in arguments]
    Counted.count += sum(a.size for a in plain if isinstance(a, np.ndarray))
    result = function(*plain)
    wrapped = tuple(
        r.view(Counted) if isinstance(r, np.ndarray) else r for r in (result if isinstance(result, tuple) else (result,))
    )
    return wrapped if isinstance(result, tuple) else wrapped[0]


def elements_read(op_type: str, inputs: list[Array], **attributes: Any) -> int:
    Counted.count = 0
    run_kernel(op_type, LibraryCall("node 'n'", 22, attributes, [inputs[0].view(Counted), *inputs[1:]]))
    assert Counted.count > 0
    return Counted.count


LIBRARY: dict[str, Callable[[int], int]] = {
    "TopK": lambda n: elements_read("TopK", [ramp(n), np.array([5])]),
    "TopK of all": lambda n: elements_read("TopK", [ramp(n), np.array([n])], largest=0),
    "TopK of many rows": lambda n: elements_read("TopK", [ramp(n, 7), np.array([3])]),
}


@pytest.mark.parametrize("name", LIBRARY)
def test_a_library_kernel_calls_numpy_on_so_many_elements_as_it_has(name: str) -> None:
    assert LIBRARY[name](FACTOR * SMALL) <= 1.15 * FACTOR * LIBRARY[name](SMALL)


def test_every_library_kernel_is_counted() -> None:
    assert set(kernel_operators()) == {name.partition(" ")[0] for name in LIBRARY}
