"""Operators beyond the basic ones, family by family: values against NumPy, stages and index arithmetic, errors."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from ansor_py import te
from ansor_py.errors import ExpressionError
from ansor_py.te import Compute, Tensor
from ansor_py.te.expr import Select, reads_of, walk
from te_interpreter import Array, evaluate, random_feeds
from test_te_ops import check, onnx_value, x_of


def slow_transposed(
    x: Array, w: Array, stride: Sequence[int], pads: Sequence[int], extra: Sequence[int], dilation: Sequence[int], groups: int
) -> Array:
    """Transposed convolution as its definition reads: every input element is spread over the output by the kernel."""
    rank, members, filters = x.ndim - 2, x.shape[1] // groups, w.shape[1]
    natural = [(x.shape[2 + d] - 1) * stride[d] + (w.shape[2 + d] - 1) * dilation[d] + 1 for d in range(rank)]
    full = np.zeros((x.shape[0], filters * groups, *(n + e for n, e in zip(natural, extra, strict=True))))
    for group, tap in itertools.product(range(groups), np.ndindex(*w.shape[2:])):
        reached = tuple(
            slice(tap[d] * dilation[d], tap[d] * dilation[d] + (x.shape[2 + d] - 1) * stride[d] + 1, stride[d])
            for d in range(rank)
        )
        rows = slice(group * members, (group + 1) * members)
        spread = np.einsum("nc...,cf->nf...", x[:, rows], w[(rows, slice(None), *tap)])
        full[(slice(None), slice(group * filters, (group + 1) * filters), *reached)] += spread
    kept = (slice(pads[d], full.shape[2 + d] - pads[rank + d]) for d in range(rank))
    return np.asarray(full[(slice(None), slice(None), *kept)])


@pytest.mark.parametrize(
    ("data", "weight", "stride", "pads", "extra", "dilation", "groups"),
    [
        ((2, 4, 5), (4, 2, 3), (3,), (1, 0), (2,), (1,), 2),
        ((1, 3, 5, 6), (3, 4, 4, 4), (2, 2), (1, 1, 1, 1), (0, 0), (1, 1), 1),
        ((1, 2, 7, 4), (2, 2, 3, 5), (1, 2), (0, 0, 0, 0), (0, 0), (1, 1), 2),
        ((1, 3, 5, 5), (3, 1, 3, 3), (1, 1), (1, 1, 1, 1), (0, 0), (2, 2), 3),
        ((1, 3, 5, 5), (3, 2, 3, 2), (2, 2), (1, 0, 2, 1), (1, 1), (2, 1), 1),
        ((1, 2, 4, 4), (2, 2, 2, 2), (3, 3), (0, 0, 0, 0), (1, 1), (1, 1), 1),
        ((1, 2, 3, 4, 3), (2, 3, 3, 2, 3), (2, 2, 2), (1, 1, 1, 1, 1, 1), (1, 1, 1), (1, 1, 1), 1),
    ],
)
def test_transposed_convolution(
    data: tuple[int, ...],
    weight: tuple[int, ...],
    stride: tuple[int, ...],
    pads: tuple[int, ...],
    extra: tuple[int, ...],
    dilation: tuple[int, ...],
    groups: int,
) -> None:
    y = te.conv_transpose(x_of(*data), x_of(*weight, name="w"), None, stride, pads, extra, dilation, groups)
    check(y, lambda x, w: slow_transposed(x, w, stride, pads, extra, dilation, groups), rtol=1e-5)


def test_transposed_convolution_multiplies_no_inserted_zeros() -> None:
    y = te.conv2d_transpose(x_of(1, 8, 6, 6), x_of(8, 4, 4, 4, name="w"), stride=2, padding=1)
    assert isinstance(y.op, Compute)
    (phases,) = {read.tensor for read in reads_of(y.op.body)}
    assert isinstance(phases.op, Compute)
    assert not any(isinstance(node, Select) for node in walk(phases.op.body))
    products = phases.size * np.prod([axis.extent for axis in phases.op.reduce_axes])
    assert products <= 1.4 * 8 * 4 * (6 * 6) * (4 * 4)  # what the input elements meet; a phase may hold one more row


@pytest.mark.parametrize(
    ("data", "weight", "stride", "pads", "dilation", "groups"),
    [
        ((2, 4, 9), (6, 2, 3), [2], [1, 2], [1], 2),
        ((1, 3, 12), (3, 1, 3), [1], [2, 2], [2], 3),
        ((1, 2, 5, 6, 4), (3, 2, 3, 3, 2), [1, 2, 1], [1, 0, 1, 1, 1, 0], [1, 1, 1], 1),
    ],
)
def test_convolution_in_one_and_three_dimensions(
    data: tuple[int, ...], weight: tuple[int, ...], stride: list[int], pads: list[int], dilation: list[int], groups: int
) -> None:
    y = te.convolution(x_of(*data), x_of(*weight, name="w"), x_of(weight[0], name="b"), stride, pads, dilation, groups)
    attributes: dict[str, Any] = {"strides": stride, "pads": pads, "dilations": dilation, "group": groups}
    check(y, lambda x, w, b: onnx_value("Conv", x, w, b, **attributes), rtol=1e-5)


def test_capsule_convolution_multiplies_matrices() -> None:
    y = te.capsule_conv2d(x_of(1, 6, 6, 3, 2, 4), x_of(3, 3, 2, 5, 4, 6, name="w"), stride=2, padding=1)

    def slow(x: Array, w: Array) -> Array:
        padded, result = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0), (0, 0), (0, 0))), np.zeros(y.shape)
        for i, j in np.ndindex(3, 3):
            window = padded[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3]
            result[:, i, j] = np.einsum("nabpkc,abkqcf->npqf", window, w)
        return result

    check(y, slow, rtol=1e-5)


def test_pooling_in_one_and_three_dimensions() -> None:
    check(te.max_pool(x_of(1, 2, 9), 3, 2, 1), lambda x: onnx_value("MaxPool", x, kernel_shape=[3], strides=[2], pads=[1, 1]))
    attributes: dict[str, Any] = {"kernel_shape": [2, 3, 2], "strides": [2, 1, 2]}
    check(te.average_pool(x_of(1, 2, 5, 6, 4), (2, 3, 2), (2, 1, 2)), lambda x: onnx_value("AveragePool", x, **attributes))
    check(te.lp_pool(x_of(1, 2, 6, 6), 2, p=3), lambda x: onnx_value("LpPool", x, kernel_shape=[2, 2], strides=[2, 2], p=3))


def test_max_pool_indices_count_all_elements() -> None:
    x = np.array([[[[1.0, 5, 5], [0, 9, 2], [9, 3, 4]], [[7, 1, 1], [1, 1, 1], [1, 1, 8]]]])
    rows = te.max_pool_indices(x_of(1, 2, 3, 3), 2, 1)
    assert evaluate(rows, {"x": x}).tolist() == [[[[4, 4], [4, 4]], [[9, 10], [12, 17]]]]
    columns = te.max_pool_indices(x_of(1, 2, 3, 3), 2, 1, column_major=True)
    assert evaluate(columns, {"x": x})[0, 1].tolist() == [[9, 12], [10, 17]]


def normal(x: Array, axes: tuple[int, ...], epsilon: float = 1e-5) -> Array:
    """Less the mean, divided by the deviation."""
    result: Array = (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + epsilon)
    return result


def test_normalisations_of_other_axes() -> None:
    column = (1, 4, 1, 1)
    x, s, b = x_of(2, 4, 3, 5), x_of(4, name="s"), x_of(4, name="b")
    check(te.instance_norm(x, s, b), lambda x, s, b: normal(x, (2, 3)) * s.reshape(column) + b.reshape(column), rtol=1e-4)

    def grouped(x: Array) -> Array:
        return normal(x.reshape(2, 2, 2, 3, 5), (2, 3, 4)).reshape(x.shape)

    check(te.group_norm(x, s, b, 2), lambda x, s, b: grouped(x) * s.reshape(column) + b.reshape(column), rtol=1e-4)
    check(te.mean_variance_norm(x), lambda x: normal(x, (0, 2, 3), 0), rtol=1e-4)
    check(
        te.rms_norm(x_of(3, 8), x_of(8, name="s")),
        lambda x, s: x / np.sqrt((x * x).mean(1, keepdims=True) + 1e-5) * s,
        rtol=1e-4,
    )
    for p in (1, 2, 3):
        length = lambda x, p=p: (np.abs(x) ** p).sum(1, keepdims=True) ** (1 / p)  # noqa: E731
        check(te.reduce_norm(x_of(3, 8), p, 1, keepdims=True), length, rtol=1e-4)
        check(te.lp_normalize(x_of(3, 8), 1, p), lambda x, length=length: x / length(x), rtol=1e-4)
    np.testing.assert_array_equal(evaluate(te.lp_normalize(x_of(2, 2)), {"x": np.zeros((2, 2))}), np.zeros((2, 2)))


def test_log_sum_exp_neither_overflows_nor_divides_infinities() -> None:
    x = np.array([[1000.0, 1000.0], [-np.inf, -np.inf], [np.inf, 0.0], [-np.inf, 3.0]])
    with np.errstate(all="ignore"):
        result = evaluate(te.reduce_log_sum_exp(x_of(4, 2), 1), {"x": x.astype(np.float32)})
    np.testing.assert_allclose(result, [1000 + np.log(2), -np.inf, np.inf, 3.0], rtol=1e-6)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_positions_and_running_sums(axis: int) -> None:
    x = np.random.default_rng(0).integers(-2, 3, (3, 4, 5)).astype(np.float32)
    feed, source = {"x": x}, x_of(3, 4, 5)
    assert (evaluate(te.argmax(source, axis), feed) == x.argmax(axis)).all()
    last = x.shape[axis] - 1 - np.flip(x, axis).argmin(axis)
    assert (evaluate(te.argmin(source, axis, last=True), feed) == last).all()
    assert evaluate(te.argmax(source, axis, keepdims=True), feed).shape == x.argmax(axis, keepdims=True).shape
    assert (evaluate(te.hardmax(source, axis), feed) == onnx_value("Hardmax", x, axis=axis)).all()
    np.testing.assert_allclose(evaluate(te.cumulative_sum(source, axis), feed), x.cumsum(axis))
    np.testing.assert_allclose(evaluate(te.cumulative_product(source, axis), feed), x.cumprod(axis))
    backwards = np.flip(np.flip(x, axis).cumsum(axis), axis) - x
    np.testing.assert_allclose(evaluate(te.cumulative_sum(source, axis, exclusive=True, reverse=True), feed), backwards)


@pytest.mark.parametrize("length", [1, 16, 32, 33, 48, 511, 515])
@pytest.mark.parametrize("exclusive", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
def test_running_sums_of_any_length(length: int, exclusive: bool, reverse: bool) -> None:
    """In one stage, in blocks, and in blocks of blocks; integers, whose sums are exact."""
    x = np.random.default_rng(length).integers(-9, 10, (2, length, 3))
    source = te.placeholder(x.shape, "int64", "x")
    turned = np.flip(x, 1) if reverse else x
    expected = turned.cumsum(1) - (turned if exclusive else 0)
    expected = np.flip(expected, 1) if reverse else expected
    got = evaluate(te.cumulative_sum(source, 1, exclusive=exclusive, reverse=reverse), {"x": x})
    np.testing.assert_array_equal(got, expected)


def test_running_products_in_blocks() -> None:
    x = np.where(np.arange(70) % 3, -1.0, 1.25)
    source = te.placeholder(x.shape, "float64", "x")
    np.testing.assert_allclose(evaluate(te.cumulative_product(source), {"x": x}), x.cumprod())
    exclusive = np.concatenate([[1], x.cumprod()[:-1]])
    np.testing.assert_allclose(evaluate(te.cumulative_product(source, exclusive=True), {"x": x}), exclusive)


FUNCTIONS: list[tuple[Callable[[Tensor], Tensor], Callable[[Array], Array], float, float]] = [
    (te.tan, np.tan, -1.5, 1.5),
    (te.asin, np.arcsin, -1, 1),
    (te.acos, np.arccos, -1, 1),
    (te.atan, np.arctan, -50, 50),
    (te.sinh, np.sinh, -20, 20),
    (te.sinh, np.sinh, 85, 89.4),
    (te.cosh, np.cosh, -20, 20),
    (te.cosh, np.cosh, 85, 89.4),
    (te.asinh, np.arcsinh, -1e4, 1e4),
    (te.acosh, np.arccosh, 1, 1e4),
    (te.atanh, np.arctanh, -0.999, 0.999),
    (te.expm1, np.expm1, -3, 3),
    (te.log1p, np.log1p, -0.9, 5),
]


@pytest.mark.parametrize("index", range(len(FUNCTIONS)))
def test_functions_keep_their_digits_near_zero(index: int) -> None:
    function, reference, low, high = FUNCTIONS[index]
    small = np.array([1e-30, 1e-9, -1e-6, 3e-5, -1e-3], np.float64)
    small = low + np.abs(small) if low >= 1 else small
    x = np.concatenate([np.linspace(low, high, 301), small])
    with np.errstate(all="ignore"):  # acos(-1) divides by zero on its way
        got = evaluate(function(x_of(x.size, dtype="float64")), {"x": x})
    np.testing.assert_allclose(got, reference(x), rtol=1e-13, atol=0 if low < 1 else 1e-12)
    with np.errstate(all="ignore"):
        single = evaluate(function(x_of(x.size)), {"x": x.astype(np.float32)})
        wide = reference(x.astype(np.float32).astype(np.float64))
    np.testing.assert_allclose(single, wide, rtol=2e-6, atol=1e-7 if low >= 1 or function is te.acos else 0)


def test_remainders_and_shifts() -> None:
    a, b = np.array([7, -7, 7, -7, 6]), np.array([3, 3, -3, -3, 2])
    x, y = x_of(5, name="x", dtype="int64"), x_of(5, name="y", dtype="int64")
    feed = {"x": a, "y": b}
    assert (evaluate(te.truncated_divide(x, y), feed) == np.trunc(a / b)).all()
    assert (evaluate(te.remainder(x, y), feed) == a % b).all()
    assert (evaluate(te.fmod(x, y), feed) == np.fmod(a, b)).all()
    floats = {"x": a + 0.25, "y": b - 0.5}
    u, v = x_of(5, dtype="float64"), x_of(5, name="y", dtype="float64")
    np.testing.assert_allclose(evaluate(te.remainder(u, v), floats), floats["x"] % floats["y"])
    np.testing.assert_allclose(evaluate(te.fmod(u, v), floats), np.fmod(floats["x"], floats["y"]))
    places = {"x": a, "y": np.array([1, 2, 64, 3, 0])}
    assert evaluate(te.shift_left(x, y), places).tolist() == [14, -28, 0, -56, 6]
    assert evaluate(te.shift_right(x, y), places).tolist() == [3, -2, 0, -1, 6]


def test_gathers() -> None:
    x = np.arange(24.0).reshape(2, 3, 4)
    indices = np.array([[0, -1], [2, 1]])
    source, where = x_of(2, 3, 4), x_of(2, 2, name="i", dtype="int64")
    assert (evaluate(te.gather(source, where, 1), {"x": x, "i": indices}) == x[:, indices]).all()
    nd = np.array([[0, 2], [1, -1]])
    assert (evaluate(te.gather_nd(source, where), {"x": x, "i": nd}) == x[nd[:, 0], nd[:, 1]]).all()
    single = np.array([[[1], [0], [-1]], [[3], [2], [0]]])
    taken = te.gather_elements(source, x_of(2, 3, 1, name="i", dtype="int64"), 2)
    assert (evaluate(taken, {"x": x, "i": single}) == np.take_along_axis(x, single, 2)).all()


def test_pads_that_repeat() -> None:
    modes = ("edge", "reflect", "wrap")
    for mode in modes:
        y = te.pad_repeating(x_of(3, 4), (2, 0), (1, 3), mode)
        check(y, lambda x, mode=mode: np.pad(x, ((2, 1), (0, 3)), mode=mode))
    check(te.pad_repeating(x_of(5), (-1,), (2,), "edge"), lambda x: np.pad(x[1:], (0, 2), mode="edge"))
    check(te.pad_repeating(x_of(3), (7,), (9,), "reflect"), lambda x: np.pad(x, (7, 9), mode="reflect"))


def test_resampling_reads_at_exact_positions() -> None:
    x = x_of(10)
    check(te.resample(x, 0, 20, Fraction(1, 2), Fraction(0), "nearest", "floor"), lambda v: np.repeat(v, 2))
    check(te.resample(x, 0, 5, Fraction(2), Fraction(1, 2), "linear"), lambda v: (v[::2] + v[1::2]) / 2)
    third = te.resample(x, 0, 28, Fraction(1, 3), Fraction(0), "linear")
    check(third, lambda v: np.interp(np.arange(28) / 3, np.arange(10), v))
    outside = te.resample(x, 0, 3, Fraction(6), Fraction(-1), "nearest", extrapolation=-9.0)
    check(outside, lambda v: np.array([-9.0, v[5], -9.0]))
    check(te.resize2d(x_of(1, 2, 4, 5), 8, 10, "nearest"), lambda v: v.repeat(2, 2).repeat(2, 3))


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("ij,jk->ik", [(3, 4), (4, 5)]),
        ("bij,bkj", [(2, 3, 4), (2, 5, 4)]),
        ("ii", [(3, 3)]),
        ("...ij->...ji", [(2, 3, 4)]),
        ("...i,...i->...", [(2, 1, 4), (3, 4)]),
        ("i,j,k->kji", [(2,), (3,), (4,)]),
    ],
)
def test_einsum(equation: str, shapes: list[tuple[int, ...]]) -> None:
    operands = [x_of(*shape, name=f"x{index}") for index, shape in enumerate(shapes)]
    check(te.einsum(equation, *operands), lambda *values: np.atleast_1d(np.einsum(equation, *values)))


def test_quantisation_saturates_and_rounds_to_even() -> None:
    x, scale, zero = x_of(5), x_of(1, name="s"), x_of(1, name="z", dtype="uint8")
    feed: dict[str, Array] = {
        "x": np.array([-100, 0.5, 1.5, 2.6, 1000], np.float32),
        "s": np.array([1], np.float32),
        "z": np.array([3], np.uint8),
    }
    assert evaluate(te.quantize(x, scale, zero), feed).tolist() == [0, 3, 5, 6, 255]
    back = te.dequantize(x_of(5, dtype="uint8"), scale, zero)
    assert evaluate(back, {**feed, "x": np.array([0, 3, 4, 250, 255], np.uint8)}).tolist() == [-3, 0, 1, 247, 252]


def test_moving_blocks_and_triangles() -> None:
    x = x_of(2, 8, 3, 2)
    for first in (False, True):
        spread = te.depth_to_space(x, 2, channels_first=first)
        check(spread, lambda v, first=first: onnx_value("DepthToSpace", v, blocksize=2, mode="CRD" if first else "DCR"))
        feed = {tensor.name: value for tensor, value in random_feeds(spread).items()}
        assert (evaluate(te.space_to_depth(spread, 2, channels_first=first), feed) == feed["x"]).all()
    check(te.trilu(x_of(4, 5), k=1), lambda v: np.triu(v, 1))
    check(te.trilu(x_of(4, 5), upper=False), np.tril)
    check(te.tile(x_of(2, 3), (2, 3)), lambda v: np.tile(v, (2, 3)))
    assert (evaluate(te.eye((3, 4), 1), {}) == np.eye(3, 4, 1)).all()


def test_reductions_and_slices_of_nothing() -> None:
    empty = {"x": np.zeros((2, 0, 3), np.float32)}
    assert (evaluate(te.reduce_sum(x_of(2, 0, 3), 1), empty) == np.zeros((2, 3))).all()
    assert (evaluate(te.reduce_max(x_of(2, 0, 3), 1), empty) == np.full((2, 3), -np.inf)).all()
    assert te.strided_slice(x_of(4), (3,), (1,)).shape == (0,)
    assert te.pad(x_of(2), (-1,), (-1,)).shape == (0,)


@pytest.mark.parametrize(
    ("build", "phrase"),
    [
        (lambda: te.conv1d(x_of(1, 3, 5, 5), x_of(4, 3, 3, name="w")), "conv1d: 'x' must have 3 dimensions"),
        (lambda: te.conv2d_transpose(x_of(1, 3, 5, 5), x_of(4, 2, 3, 3, name="w")), "3 channels meet a weight for 4"),
        (lambda: te.conv1d_transpose(x_of(1, 3, 2), x_of(3, 2, 1, name="w"), padding=3), "leaves nothing of dimension 2"),
        (lambda: te.group_norm(x_of(1, 6, 4), x_of(6), x_of(6), 4), "6 channels cannot form 4 groups"),
        (lambda: te.argmax(x_of(2, 0), 1), "argmax: axis 1 has no elements"),
        (lambda: te.einsum("ij,jk->ik", x_of(2, 3)), "has 2 operands, not 1"),
        (lambda: te.einsum("ij->i", x_of(2)), "does not fit the operand"),
        (lambda: te.resample(x_of(2), 0, 4, Fraction(1, 2), Fraction(0), "sinc"), "unknown mode 'sinc'"),
        (lambda: te.pad_repeating(x_of(2), (1,), (1,), "mirror"), "unknown mode 'mirror'"),
        (lambda: te.depth_to_space(x_of(1, 6, 2, 2), 2), "6 channels do not fill blocks of 2"),
        (lambda: te.tile(x_of(2, 3), (2,)), "tile: needs 2 repeats"),
        (lambda: te.bitwise_and(x_of(2), x_of(2, name="y")), "needs integers, not float32"),
    ],
)
def test_errors_name_the_operator(build: Callable[[], Tensor], phrase: str) -> None:
    with pytest.raises(ExpressionError, match=phrase):
        build()
