"""The operators: values against NumPy and the ONNX reference, index arithmetic, stages, errors, text specifications."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator

from ansor_py import te
from ansor_py.errors import ExpressionError, OptionError
from ansor_py.te import Compute, Tensor
from ansor_py.te.expr import Binary, Select, walk
from te_interpreter import Array, evaluate, placeholders_of, random_feeds


def check(output: Tensor, reference: Callable[..., Array], *, low: float = -1.0, rtol: float = 1e-6) -> None:
    """`output` equals `reference(*placeholder values)` in float64, the placeholders in the order of their first read."""
    feeds = random_feeds(output, low=low)
    value = evaluate(output, feeds, widen=True)
    expected = reference(*(feeds[tensor].astype(np.float64) for tensor in placeholders_of(output)))
    np.testing.assert_allclose(value, expected, rtol=rtol, atol=1e-6)
    assert value.shape == output.shape == np.shape(expected)


def onnx_value(op_type: str, *inputs: Array, opset: int = 22, **attributes: Any) -> Array:
    """The output of one ONNX operator by the reference evaluator."""
    names = [f"x{position}" for position in range(len(inputs))]
    node = onnx.helper.make_node(op_type, names, ["y"], **attributes)
    infos = [
        onnx.helper.make_tensor_value_info(n, onnx.helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
        for n, v in zip(names, inputs, strict=True)
    ]
    graph = onnx.helper.make_graph(
        [node], "one", infos, [onnx.helper.make_tensor_value_info("y", infos[0].type.tensor_type.elem_type, None)]
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
    outputs: Any = ReferenceEvaluator(model).run(None, dict(zip(names, inputs, strict=True)))
    return np.asarray(outputs[0])


def x_of(*shape: int, name: str = "x", dtype: str = "float32") -> Tensor:
    return te.placeholder(shape, dtype, name)


def is_affine(tensor: Tensor) -> bool:
    assert isinstance(tensor.op, Compute)
    return not any(isinstance(node, Binary) and node.op in ("floordiv", "mod") for node in walk(tensor.op.body))


def test_matmul_of_extents_names_its_operands() -> None:
    c = te.matmul(5, 7, 3)
    assert [(t.name, t.shape) for t in placeholders_of(c)] == [("A", (5, 3)), ("B", (3, 7))]
    check(c, np.matmul)


@pytest.mark.parametrize(
    ("a", "b"), [((5, 3), (3, 4)), ((2, 5, 3), (3, 4)), ((2, 1, 5, 3), (6, 3, 4)), ((3,), (3, 4)), ((2, 5, 3), (3,))]
)
def test_matmul_broadcasts_as_numpy_does(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    check(te.matmul(x_of(*a), x_of(*b, name="y")), np.matmul)


def test_matmul_of_two_vectors_has_one_element() -> None:
    check(te.matmul(x_of(3), x_of(3, name="y")), lambda a, b: np.dot(a, b).reshape(1))


@pytest.mark.parametrize(("transpose_a", "transpose_b"), [(True, False), (False, True), (True, True)])
def test_matmul_of_transposed_operands(transpose_a: bool, transpose_b: bool) -> None:
    a, b = x_of(*((2, 3, 5) if transpose_a else (2, 5, 3))), x_of(*((4, 3) if transpose_b else (3, 4)), name="y")
    reference = lambda u, v: (u.swapaxes(-1, -2) if transpose_a else u) @ (v.T if transpose_b else v)  # noqa: E731
    check(te.matmul(a, b, transpose_a=transpose_a, transpose_b=transpose_b), reference)


def test_dense_adds_its_bias_in_a_stage_of_its_own() -> None:
    y = te.dense(x_of(2, 4, 5), x_of(3, 5, name="w"), x_of(3, name="b"))
    assert y.name == "dense_bias"
    check(y, lambda x, w, b: x @ w.T + b)


@pytest.mark.parametrize(
    ("channels", "filters", "groups", "stride", "padding", "dilation"),
    [
        (3, 4, 1, 1, 0, 1),
        (3, 4, 1, 2, 1, 1),
        (4, 6, 2, 1, (1, 0, 2, 1), 1),
        (4, 4, 4, (2, 1), 1, 1),
        (3, 6, 3, 1, 1, 1),
        (4, 6, 2, 1, (2, 1), (2, 1)),
        (6, 3, 3, 1, 0, 1),
    ],
)
def test_conv2d(
    channels: int,
    filters: int,
    groups: int,
    stride: int | tuple[int, int],
    padding: int | tuple[int, ...],
    dilation: int | tuple[int, int],
) -> None:
    data, weight, bias = x_of(2, channels, 8, 7), x_of(filters, channels // groups, 3, 2, name="w"), x_of(filters, name="b")
    y = te.conv2d(data, weight, bias, stride, padding, dilation, groups)

    def both(value: int | tuple[int, int]) -> list[int]:
        return [value, value] if isinstance(value, int) else list(value)

    pads = [padding] * 4 if isinstance(padding, int) else list(padding) * (4 // len(padding))
    attributes: dict[str, Any] = {"strides": both(stride), "pads": pads, "dilations": both(dilation), "group": groups}
    check(y, lambda x, w, b: onnx_value("Conv", x, w, b, **attributes), rtol=1e-5)


def test_conv2d_makes_a_pad_stage_only_for_padding() -> None:
    def stages(tensor: Tensor) -> list[str]:
        assert isinstance(tensor.op, Compute)
        reads = [node.tensor for node in walk(tensor.op.body) if isinstance(node, te.Read)]
        return [name for read in reads if isinstance(read.op, Compute) for name in stages(read)] + [tensor.name]

    assert stages(te.conv2d(x_of(1, 3, 5, 5), x_of(4, 3, 3, 3, name="w"))) == ["conv2d"]
    assert stages(te.conv2d(x_of(1, 3, 5, 5), x_of(4, 3, 3, 3, name="w"), padding=1)) == ["conv2d_pad", "conv2d"]


def test_depthwise_convolution_is_affine_and_reduces_over_its_window_only() -> None:
    y = te.conv2d(x_of(1, 6, 5, 5), x_of(6, 1, 3, 3, name="w"), groups=6)
    assert isinstance(y.op, Compute)
    assert [axis.name for axis in y.op.reduce_axes] == ["ry", "rx"]
    assert is_affine(y)


@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation"), [(2, 2, 0, 1), (3, 2, 1, 1), ((3, 2), (2, 3), (1, 0, 1, 1), 1), (2, 1, 1, 2)]
)
def test_pooling(
    kernel: int | tuple[int, int], stride: int | tuple[int, int], padding: int | tuple[int, ...], dilation: int, ceil_mode: bool
) -> None:
    data = x_of(1, 2, 8, 7)
    pads = [padding] * 4 if isinstance(padding, int) else list(padding)
    kernels = [kernel] * 2 if isinstance(kernel, int) else list(kernel)
    strides = [stride] * 2 if isinstance(stride, int) else list(stride)
    check(
        te.max_pool2d(data, kernel, stride, padding, dilation, ceil_mode),
        lambda x: slow_pool(x, kernels, strides, pads, dilation, ceil_mode, np.max),
    )
    check(
        te.average_pool2d(data, kernel, stride, padding, dilation, ceil_mode),
        lambda x: slow_pool(x, kernels, strides, pads, dilation, ceil_mode, np.mean),
    )
    check(
        te.average_pool2d(data, kernel, stride, padding, dilation, ceil_mode, count_include_pad=True),
        lambda x: slow_pool(x, kernels, strides, pads, dilation, ceil_mode, np.mean, include_pad=True),
    )


def slow_pool(
    x: Array,
    kernel: list[int],
    stride: list[int],
    pads: list[int],
    dilation: int,
    ceil_mode: bool,
    combine: Callable[..., Array],
    include_pad: bool = False,
) -> Array:
    """Pooling as its definition reads: collect what each window holds, window by window."""
    spans = [(k - 1) * dilation + 1 for k in kernel]
    sizes = []
    for d in (0, 1):
        room = x.shape[2 + d] + pads[d] + pads[2 + d] - spans[d]
        size = (math.ceil(room / stride[d]) if ceil_mode else room // stride[d]) + 1
        sizes.append(size - 1 if ceil_mode and (size - 1) * stride[d] >= x.shape[2 + d] + pads[d] else size)
    result = np.zeros((*x.shape[:2], *sizes))
    for n, c, i, j in np.ndindex(*result.shape):
        inside, padding = [], 0
        for a, b in np.ndindex(*kernel):
            row, column = i * stride[0] - pads[0] + a * dilation, j * stride[1] - pads[1] + b * dilation
            if 0 <= row < x.shape[2] and 0 <= column < x.shape[3]:
                inside.append(x[n, c, row, column])
            elif row < x.shape[2] + pads[2] and column < x.shape[3] + pads[3]:
                padding += 1
        result[n, c, i, j] = combine(inside + [0.0] * padding) if include_pad else combine(inside)
    return result


def test_pooling_agrees_with_onnx() -> None:
    data = x_of(1, 2, 8, 7)
    attributes: dict[str, Any] = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}
    check(te.max_pool2d(data, 3, 2, 1), lambda x: onnx_value("MaxPool", x, **attributes))
    check(te.average_pool2d(data, 3, 2, 1), lambda x: onnx_value("AveragePool", x, **attributes))


def test_global_pooling() -> None:
    check(te.global_average_pool(x_of(2, 3, 4, 5)), lambda x: x.mean((2, 3), keepdims=True))
    check(te.global_max_pool(x_of(2, 3, 4, 5)), lambda x: x.max((2, 3), keepdims=True))


@pytest.mark.parametrize(("shape", "axis"), [((4, 6), -1), ((2, 3, 4), 1), ((5,), 0), ((2, 3, 2, 2), 1)])
def test_softmax(shape: tuple[int, ...], axis: int) -> None:
    check(te.softmax(x_of(*shape), axis), lambda x: onnx_value("Softmax", x, axis=axis))
    check(te.log_softmax(x_of(*shape), axis), lambda x: onnx_value("LogSoftmax", x, axis=axis))


def test_softmax_does_not_overflow() -> None:
    y = te.softmax(x_of(1, 2))
    np.testing.assert_allclose(evaluate(y, {"x": np.array([[1000.0, 1000.0]])}), [[0.5, 0.5]])


UNARY: list[tuple[Callable[[Tensor], Tensor], Callable[[Array], Array], float]] = [
    (te.relu, lambda x: np.maximum(x, 0), -1.0),
    (lambda x: te.leaky_relu(x, 0.1), lambda x: np.where(x > 0, x, 0.1 * x), -1.0),
    (lambda x: te.clip(x, -0.5, 0.25), lambda x: np.clip(x, -0.5, 0.25), -1.0),
    (lambda x: te.clip(x, high=0.25), lambda x: np.minimum(x, 0.25), -1.0),
    (te.sigmoid, lambda x: 1 / (1 + np.exp(-x)), -1.0),
    (te.tanh, np.tanh, -1.0),
    (te.exp, np.exp, -1.0),
    (te.log, np.log, 0.1),
    (te.sqrt, np.sqrt, 0.0),
    (te.abs, np.abs, -1.0),
    (te.neg, np.negative, -1.0),
    (te.floor, np.floor, -1.0),
    (te.ceil, np.ceil, -1.0),
    (te.erf, lambda x: onnx_value("Erf", x), -1.0),
    (te.gelu, lambda x: onnx_value("Gelu", x), -1.0),
    (te.silu, lambda x: x / (1 + np.exp(-x)), -1.0),
    (te.hard_sigmoid, lambda x: onnx_value("HardSigmoid", x), -1.0),
    (lambda x: te.power(x, 2), np.square, -1.0),
    (lambda x: te.power(x, 0.5), np.sqrt, 0.0),
    (lambda x: te.subtract(1, x), lambda x: 1 - x, -1.0),
]


@pytest.mark.parametrize("index", range(len(UNARY)))
def test_elementwise(index: int) -> None:
    function, reference, low = UNARY[index]
    check(function(x_of(3, 4)), reference, low=low)


@pytest.mark.parametrize(
    ("function", "reference"),
    [
        (te.add, np.add),
        (te.subtract, np.subtract),
        (te.multiply, np.multiply),
        (te.divide, np.divide),
        (te.maximum, np.maximum),
        (te.minimum, np.minimum),
        (te.power, np.power),
    ],
)
@pytest.mark.parametrize(
    ("a", "b"), [((3, 4), (3, 4)), ((2, 3, 4), (4,)), ((2, 1, 4), (3, 1)), ((1,), (2, 3)), ((1, 1), (1, 1))]
)
def test_arithmetic_broadcasts(
    function: Callable[[Tensor, Tensor], Tensor], reference: Callable[..., Array], a: tuple[int, ...], b: tuple[int, ...]
) -> None:
    check(function(x_of(*a), x_of(*b, name="y")), reference, low=0.1)


def test_scalar_functions_serve_inside_compute() -> None:
    x, k = x_of(4, 5), te.reduce_axis(5, "k")
    y = te.compute((4,), lambda i: te.reduce_sum(te.exp(te.maximum(x[i, k], 0)), k), name="y")
    check(y, lambda v: np.exp(np.maximum(v, 0)).sum(1))


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("axes", [0, (0, 2), (-1,), None])
def test_reductions(axes: int | tuple[int, ...] | None, keepdims: bool) -> None:
    cases = (
        (te.reduce_sum, np.sum),
        (te.reduce_mean, np.mean),
        (te.reduce_max, np.max),
        (te.reduce_min, np.min),
        (te.reduce_prod, np.prod),
    )
    for function, reference in cases:
        reshaped = lambda x, reference=reference: np.atleast_1d(reference(x, axis=axes, keepdims=keepdims))  # noqa: E731
        check(function(x_of(2, 3, 4), axes, keepdims), reshaped)


def test_normalisations() -> None:
    scale, bias, mean, variance = (x_of(3, name=name) for name in ("scale", "bias", "mean", "variance"))
    y = te.batch_norm(x_of(2, 3, 4, 4), scale, bias, mean, variance, epsilon=1e-3)
    feeds = {t.name: v for t, v in random_feeds(y, low=0.2).items()}
    values = [feeds[name].astype(np.float64) for name in ("x", "scale", "bias", "mean", "variance")]
    np.testing.assert_allclose(
        evaluate(y, feeds, widen=True), onnx_value("BatchNormalization", *values, epsilon=1e-3), rtol=1e-5
    )
    for axis in (-1, 1):
        shape = (2, 3, 4)[axis:]
        y = te.layer_norm(x_of(2, 3, 4), x_of(*shape, name="scale"), x_of(*shape, name="bias"), axis)
        check(y, lambda x, s, b, axis=axis: slow_layer_norm(x, s, b, axis), rtol=1e-5)
    for size in (1, 4, 5):
        check(te.lrn(x_of(1, 7, 3, 3), size, alpha=0.1), lambda x, size=size: slow_lrn(x, size, 0.1))


def slow_layer_norm(x: Array, scale: Array, bias: Array, axis: int) -> Array:
    """Layer normalisation by its formula in the ONNX specification."""
    axes = tuple(range(axis % x.ndim, x.ndim))
    offset = x - x.mean(axes, keepdims=True)
    result: Array = offset / np.sqrt(np.square(offset).mean(axes, keepdims=True) + 1e-5) * scale + bias
    return result


def slow_lrn(x: Array, size: int, alpha: float) -> Array:
    """Local response normalisation by its formula in the ONNX specification."""
    result = np.zeros(x.shape)
    for c in range(x.shape[1]):
        low, high = max(0, c - (size - 1) // 2), min(x.shape[1] - 1, c + size // 2)
        squares = np.square(x[:, low : high + 1]).sum(1)
        result[:, c] = x[:, c] / (1 + alpha / size * squares) ** 0.75
    return result


def test_pad_crop_concat_transpose_slice_broadcast() -> None:
    check(te.pad(x_of(3, 4), (1, 0), (0, 2), 7.0), lambda x: np.pad(x, ((1, 0), (0, 2)), constant_values=7))
    check(te.pad(x_of(5, 4), (-1, 1), (-2, 0)), lambda x: np.pad(x[1:-2], ((0, 0), (1, 0))))
    check(te.concat([x_of(2, 3, name=n) for n in "abc"], 1), lambda a, b, c: np.concatenate([a, b, c], 1))
    check(te.concat([x_of(2, 3, name="a"), x_of(4, 3, name="b")], -2), lambda a, b: np.concatenate([a, b], 0))
    check(te.transpose(x_of(2, 3, 4)), np.transpose)
    check(te.transpose(x_of(2, 3, 4), (1, 2, 0)), lambda x: np.transpose(x, (1, 2, 0)))
    check(te.strided_slice(x_of(6, 5), (1, -1), (100, -6), (2, -1)), lambda x: x[1:100:2, ::-1])
    check(te.broadcast_to(x_of(3, 1), (2, 3, 4)), lambda x: np.broadcast_to(x, (2, 3, 4)))
    check(te.cast(x_of(3, dtype="int32"), "float32"), lambda x: x)


@pytest.mark.parametrize(
    ("source", "target", "affine"),
    [
        ((4, 6), (4, 2, 3), True),
        ((24,), (2, 3, 4), True),
        ((1, 4, 1, 6), (4, 6), True),
        ((2, 3, 4), (2, 12), False),
        ((6, 4), (3, 8), False),
        ((2, 3), (1, 2, 3, 1), True),
        ((2, 12, 3), (2, 3, 4, 3), True),
        ((1, 1), (1,), True),
    ],
)
def test_reshape(source: tuple[int, ...], target: tuple[int, ...], affine: bool) -> None:
    y = te.reshape(x_of(*source), target)
    check(y, lambda x: x.reshape(target))
    assert is_affine(y) == affine


EXTENTS = st.lists(st.sampled_from([1, 2, 3, 4, 6]), min_size=1, max_size=4)


@settings(max_examples=150, deadline=None)
@given(EXTENTS, st.randoms(use_true_random=False))
def test_reshape_to_any_factorisation(source: list[int], random: object) -> None:
    shuffled = list(source)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    merged = [shuffled[0] * shuffled[1], *shuffled[2:]] if len(shuffled) > 1 else shuffled
    for target in (shuffled, merged, [-1, source[0]]):
        check(te.reshape(x_of(*source), target), lambda x, target=target: x.reshape(target))


def test_flatten() -> None:
    for axis in (0, 1, 2, 3, -1):
        check(te.flatten(x_of(2, 3, 4), axis), lambda x, axis=axis: onnx_value("Flatten", x, axis=axis))


def test_pad_reads_only_inside() -> None:
    y = te.pad(x_of(3), (1,), (1,))
    assert isinstance(y.op, Compute)
    assert isinstance(y.op.body, Select)  # the interpreter would refuse an unguarded read outside


@pytest.mark.parametrize(
    ("build", "phrase"),
    [
        (
            lambda: te.matmul(x_of(2, 3), x_of(4, 5, name="y")),
            r"matmul: the inner extents 3 and 4 differ \(operands x\[2, 3\], y\[4, 5\]\)",
        ),
        (lambda: te.matmul(2, 3, 0), "matmul: extents"),
        (
            lambda: te.matmul(x_of(2, 3), 4),  # type: ignore[call-overload]
            "matmul: takes two tensors",
        ),
        (lambda: te.matmul(x_of(2, 5, 3), x_of(3, 3, 4)), "matmul: the shapes cannot be broadcast"),
        (lambda: te.dense(x_of(2, 3), x_of(4, 5, name="w")), "dense: "),
        (lambda: te.dense(x_of(2, 3), x_of(4, 3, name="w"), x_of(3, name="b")), r"dense: 'bias' must have shape \[4\]"),
        (lambda: te.conv2d(x_of(2, 3), x_of(4, 3, 3, 3)), "conv2d: 'x' must have 4 dimensions"),
        (lambda: te.conv2d(x_of(1, 3, 5, 5), x_of(4, 2, 3, 3)), "conv2d: 3 channels are not 1 x 2"),
        (lambda: te.conv2d(x_of(1, 3, 5, 5), x_of(4, 3, 3, 3), groups=3), "conv2d: 4 filters cannot form 3 groups"),
        (lambda: te.conv2d(x_of(1, 3, 2, 2), x_of(4, 3, 3, 3)), "conv2d: the window"),
        (lambda: te.conv2d(x_of(1, 3, 5, 5), x_of(4, 3, 3, 3), stride=0), "conv2d: stride"),
        (lambda: te.conv2d(x_of(1, 3, 5, 5), x_of(4, 3, 3, 3), padding=(1, 2, 3)), "conv2d: padding"),
        (lambda: te.max_pool2d(x_of(1, 3, 5, 5), 2, padding=2), "max_pool2d: padding"),
        (lambda: te.max_pool2d(x_of(1, 3, 5, 5), 6), "max_pool2d: the window"),
        (lambda: te.add(x_of(2, 3), x_of(4, name="y")), "add: the shapes cannot be broadcast together"),
        (lambda: te.add(x_of(2), x_of(2, name="y", dtype="int32")), "add: operands have different dtypes"),
        (lambda: te.add(1, 2), "add: at least one operand"),
        (lambda: te.exp(x_of(2, dtype="int32")), "exp: needs one float dtype"),
        (lambda: te.softmax(x_of(2, 3), 2), "softmax: there is no axis 2"),
        (lambda: te.reduce_sum(x_of(2, 3), (0, -2)), "reduce_sum: an axis is named twice"),
        (lambda: te.concat([x_of(2, 3), x_of(3, 4)], 0), "concat: shapes differ"),
        (lambda: te.concat([]), "concat: needs at least one"),
        (lambda: te.reshape(x_of(2, 3), (4, -1)), "reshape: .* has another size"),
        (lambda: te.reshape(x_of(2, 3), (-1, -1)), "reshape: more than one -1"),
        (lambda: te.transpose(x_of(2, 3), (0, 0)), "transpose: "),
        (lambda: te.pad(x_of(2, 3), (1,), (1,)), "pad: needs 2 widths"),
        (lambda: te.pad(x_of(2), (-1,), (-2,)), "pad: cropping"),
        (lambda: te.strided_slice(x_of(4), (3,), (1,), (0,)), "strided_slice: a stride must not be 0"),
        (lambda: te.clip(x_of(2), 1, 0), "clip: the lower limit"),
        (lambda: te.batch_norm(x_of(2, 3), x_of(2), x_of(3), x_of(3), x_of(3)), "batch_norm: 'scale' must have shape"),
    ],
)
def test_shape_errors_name_operator_and_shapes(build: Callable[[], Tensor], phrase: str) -> None:
    with pytest.raises(ExpressionError, match=phrase):
        build()


@pytest.mark.parametrize("name", list(te.operators()))
def test_every_operator_has_help_and_an_example_that_builds(name: str) -> None:
    known = te.operators()[name]
    assert known.help
    assert known.example.startswith(f"{name}:")
    assert isinstance(te.from_spec(known.example).op, Compute)


def test_specifications() -> None:
    y = te.from_spec("conv2d:1,8,9,9,4,3,stride=2,pad=1,groups=4,bias=1,relu=1")
    assert y.shape == (1, 4, 5, 5)
    assert {t.name: t.shape for t in placeholders_of(y)} == {"data": (1, 8, 9, 9), "weight": (4, 2, 3, 3), "bias": (4,)}
    assert te.build_operator("matmul", (4, 5, 6)).shape == (4, 5)
    assert te.from_spec("softmax:3,4,5,axis=0").shape == (3, 4, 5)


@pytest.mark.parametrize(
    ("text", "phrase"),
    [
        ("convolve:1,2", "unknown operator 'convolve'; known are abs, add"),
        ("matmul:1,2", "was given 2 extents; expected matmul:n,m,k"),
        ("matmul:1,2,3,4", "was given 4 extents"),
        ("matmul", "was given 0 extents"),
        ("relu:", "was given 0 extents; expected relu:shape,..."),
        ("matmul:1,2,x", "'x' is not a whole number"),
        ("matmul:1,2,0", "extents must be at least 1"),
        ("matmul:1,2,3,colour=1", "has no option 'colour'; expected matmul:"),
        ("matmul:1,transpose_b=1,2,3", "follows an option"),
        ("matmul:1,2,3,transpose_b=1,transpose_b=0", "given twice"),
    ],
)
def test_nonsense_in_a_specification_is_one_clear_error(text: str, phrase: str) -> None:
    with pytest.raises(OptionError, match=phrase):
        te.from_spec(text)
