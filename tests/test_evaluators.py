"""Operators that are evaluated here and not by ONNX's classes: for each, the smallest inputs that its class gets wrong.

Expected values are the standard's text worked out by hand, NumPy's, PyTorch's or ONNX Runtime's; recurrent networks have a
test file of their own.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from ansor_py.graph import compile
from ansor_py.graph.evaluators import regions
from ansor_py.graph.evaluators.registry import evaluated_operators
from ansor_py.graph.fallback_limits import MACHINE_LEARNING, TRAINING
from graph_interpreter import Array, make_model
from operator_runs import assert_same, evaluated
from operator_runs import floats_of as floats
from operator_runs import ints_of as ints

RECURRENT = {("", "LSTM"), ("", "GRU"), ("", "RNN")}


@dataclass(frozen=True)
class Case:
    """An operator with inputs, what it has to give, and its attributes."""

    op_type: str
    inputs: tuple[Any, ...]
    expected: tuple[Any, ...]
    opset: int | None = None
    domain: str = ""
    attributes: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.op_type}-{self.opset or 'newest'}-{'-'.join(self.attributes)}"


def small(*values: Any, dtype: str = "uint8") -> Array:
    return np.array(values, dtype)


def of(op_type: str, inputs: list[Any], *expected: Any, opset: int | None = None, domain: str = "", **attributes: Any) -> Case:
    return Case(op_type, tuple(inputs), expected, opset, domain, attributes)


def ml(op_type: str, inputs: list[Any], *expected: Any, opset: int = 1, **attributes: Any) -> Case:
    return of(op_type, inputs, *expected, opset=opset, domain=MACHINE_LEARNING, **attributes)


GRID = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
ROI = [GRID, floats([0, 0, 2, 2]), ints(0)]
ONE_SAMPLE = {"output_height": 1, "output_width": 1, "sampling_ratio": 1}
BOXES = floats([[0, 0, 1, 1], [0, 0.1, 1, 1.1], [0, -0.1, 1, 0.9], [0, 10, 1, 11], [0, 10.1, 1, 11.1], [0, 100, 1, 101]])
SCORES = floats([[0.9, 0.75, 0.6, 0.95, 0.5, 0.3]])
CUBE = np.arange(8, dtype=np.float32).reshape(1, 2, 2, 2)
ROWS = np.arange(6, dtype=np.float32).reshape(2, 3)
LOGITS = floats([0, 200])
FAR = np.log(1 + np.exp(-200.0))
PLAIN = [np.array(1, np.float32), np.array(0, np.uint8)]  # a scale and a zero point that change nothing
TEXT = np.array(["café monday", "monday", "Tuesday"], dtype=object)

# One tree of one node: at most 2 goes left, more and NaN right.
STUMP: dict[str, Any] = {
    "nodes_treeids": [0, 0, 0],
    "nodes_nodeids": [0, 1, 2],
    "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF"],
    "nodes_featureids": [0, 0, 0],
    "nodes_values": [2.0, 0.0, 0.0],
    "nodes_truenodeids": [1, 0, 0],
    "nodes_falsenodeids": [2, 0, 0],
}
TARGETS: dict[str, Any] = {
    "target_treeids": [0, 0, 0],
    "target_nodeids": [1, 2, 2],
    "target_ids": [0, 0, 0],
    "target_weights": [0.5, 2.0, 0.75],
}

REGIONS = [
    of("RoiAlign", ROI, floats([[[5]]]), opset=10, **ONE_SAMPLE),
    of("RoiAlign", ROI, floats([[[2.5]]]), opset=16, **ONE_SAMPLE),
    of("RoiAlign", ROI, floats([[[5]]]), opset=16, coordinate_transformation_mode="output_half_pixel", **ONE_SAMPLE),
    of("RoiAlign", ROI, floats([[[5]]]), opset=10, output_height=1, output_width=1),  # 2 x 2 samples, their mean
    of("RoiAlign", [GRID, floats([1, 1, 1, 1]), ints(0)], floats([[[7.5]]]), opset=10, **ONE_SAMPLE),  # one pixel at least
    of("RoiAlign", [GRID, floats([9, 9, 9.5, 9.5]), ints(0)], floats([[[0]]]), opset=10, **ONE_SAMPLE),  # outside
    of("RoiAlign", [GRID, floats([0, 0, 3, 3]), ints(0)], floats([[[0.25 * 10]]]), opset=10, mode="max", **ONE_SAMPLE),
    of("NonMaxSuppression", [BOXES, SCORES, ints(3), floats(0.5), floats(0.0)], ints([0, 0, 3], [0, 0, 0], [0, 0, 5])),
    of("NonMaxSuppression", [BOXES, SCORES, np.array(2), np.float32(0.5).reshape(())], ints([0, 0, 3], [0, 0, 0])),
    of("NonMaxSuppression", [BOXES, SCORES, np.array(9)], ints([0, 0, 3], [0, 0, 0], [0, 0, 5])),  # overlap at most 0
    of("NonMaxSuppression", [BOXES, SCORES, np.array(9), None, np.array(0.4, np.float32)], ints([0, 0, 3], [0, 0, 0])),
    of("NonMaxSuppression", [BOXES, SCORES], np.zeros((0, 3), np.int64), opset=10),  # none is the default
    of(
        "NonMaxSuppression",
        [BOXES, SCORES * 0 + 0.5, np.array(2), np.array(1, np.float32)],
        ints([0, 0, 0], [0, 0, 1]),  # the first of equal scores comes first, and an overlap of 1 is not above 1
    ),
    of(
        "NonMaxSuppression",
        [floats([[0.5, 0.5, 1, 1], [0.5, 0.6, 1, 1], [0.5, 9, 1, 1]]), floats([[0.9, 0.8, 0.7]]), np.array(9), floats(0.5)],
        ints([0, 0, 0], [0, 0, 2]),
        center_point_box=1,
    ),
]

NORMALISATION = [
    of("Softmax", [np.zeros((2, 2, 2), np.float32)], np.full((2, 2, 2), 0.25, np.float32), opset=12),
    of("Softmax", [np.zeros((2, 2, 2), np.float32)], np.full((2, 2, 2), 0.5, np.float32), opset=13),
    of("Softmax", [np.zeros((2, 2), np.float32)], np.full((2, 2), 0.25, np.float32), opset=11, axis=0),
    of("Hardmax", [floats([[1, 5], [7, 2]])[None]], floats([[[0, 0], [1, 0]]]), opset=11),
    of("Hardmax", [floats([[1, 5], [7, 2]])[None]], floats([[[0, 1], [1, 0]]]), opset=13),
    of("LogSoftmax", [np.zeros((1, 2, 2), np.float32)], np.full((1, 2, 2), -np.log(4), np.float32), opset=11),
    of("LogSoftmax", [LOGITS], floats([-200, -FAR])),
    of("LRN", [np.ones((1, 3, 1, 1), np.float32)], floats([[[1 / 3]], [[1 / 4]], [[1 / 3]]]), size=3, alpha=3.0, beta=1.0),
    of(
        "BatchNormalization",
        [floats([[1, 3], [5, 7]]), *(floats(*pair) for pair in ((1, 1), (0, 0), (1, 3), (4, 4)))],
        floats([[0, 1], [1, 2]]),
        opset=9,
        epsilon=0.0,
    ),
    of(
        "BatchNormalization",
        [floats([[1, 3]]), *(floats(*pair) for pair in ([[1, 1]], [[0, 0]], [[1, 1]], [[1, 4]]))],
        floats([[0, 1]]),
        opset=7,
        epsilon=0.0,
        spatial=0,
    ),
    of(
        "BatchNormalization",
        [floats([1], [3]), floats(1), floats(0), floats(0), floats(1)],
        floats([-1], [1]),
        floats(0.2),
        floats(1),
        opset=15,
        epsilon=0.0,
        training_mode=1,
    ),
    of(
        "LayerNormalization",
        [np.array([[1.0, 3.0]]), np.array([1.0, 1.0])],
        np.array([[-1.0, 1.0]]),
        floats([2]),
        floats([1]),
        opset=17,
        epsilon=0.0,
    ),
    of("RMSNormalization", [floats([3, 4]), floats(2, 2)], floats([6, 8]) / np.float32(np.sqrt(12.5)), opset=23, epsilon=0.0),
    of("RMSNormalization", [np.full(2, 300, np.float16), np.ones(2, np.float16)], np.ones(2, np.float16), opset=23),
    of("LpNormalization", [floats([1, -3])], floats([0.25, -0.75]), p=1),
    of("LpNormalization", [floats([3, -4])], floats([0.6, -0.8])),
    of("Dropout", [floats(1, 2)], floats(1, 2), floats(1, 1), opset=7, ratio=0.9),
    of("Dropout", [floats(1, 2)], floats(1, 2), np.array([True, True]), opset=10),
    of("Dropout", [floats(1, 2)], floats(1, 2), floats(1, 1), opset=6, is_test=1),
    of("Dropout", [floats(1, 2), floats(0), np.array(True)], floats(1, 2), np.array([True, True]), opset=13),
]

POOLING = [
    of("AveragePool", [GRID], floats([[[5, 7], [13, 15]]]), kernel_shape=[3, 3], strides=[3, 3], ceil_mode=1),
    of("AveragePool", [floats([[1, 2, 3]])], floats([[1, 1.5, 2.5, 3]]), kernel_shape=[2], pads=[1, 1]),
    of(
        "AveragePool", [floats([[1, 2, 3]])], floats([[0.5, 1.5, 2.5, 1.5]]), kernel_shape=[2], pads=[1, 1], count_include_pad=1
    ),
    of("AveragePool", [floats([[1, 2, 3]])], floats([[1, 2.5]]), kernel_shape=[2], strides=[2], pads=[1, 1], ceil_mode=1),
    of("AveragePool", [floats([[1, 2, 3, 4]])], floats([[2, 3]]), opset=19, kernel_shape=[2], dilations=[2]),
    of("AveragePool", [floats([[1, 2, 3]])], floats([[1, 1.5, 2.5]]), kernel_shape=[2], auto_pad="SAME_LOWER"),
    of("LpPool", [floats([[3, -4, 0]])], floats([[3, 5, 4, 0]]), kernel_shape=[2], pads=[1, 1]),
    of("LpPool", [floats([[3, 1, -4]])], floats([[1, 5, 1]]), kernel_shape=[2], dilations=[2], auto_pad="SAME_UPPER"),
    of("GlobalLpPool", [floats([[3, -4]])], floats([[5]])),
    of("GlobalMaxPool", [floats([[1, 2, 3], [6, 5, 4]])], floats([[3], [6]])),
    of("GlobalMaxPool", [CUBE[:, :, None]], floats([[[[3]]], [[[7]]]])),
    of("MaxPool", [floats([[1, 3, 2]])], floats([[1, 3, 3, 2]]), ints([[0, 1, 1, 2]]), kernel_shape=[2], pads=[1, 1]),
    of("MaxPool", [GRID], floats([[[12, 13, 14, 15]]]), kernel_shape=[5, 1], pads=[0, 0, 1, 0]),
    of(
        "MaxPool",
        [GRID],
        floats([[[5, 7], [13, 15]]]),
        ints([[[5, 13], [7, 15]]]),
        kernel_shape=[2, 2],
        strides=[2, 2],
        storage_order=1,
    ),
    of("MaxPool", [small([[7, 3]], dtype="int8")], small([[7, 7, 3]], dtype="int8"), kernel_shape=[2], pads=[1, 1]),
]

PRODUCTS = [
    of("MatMulInteger", [small([5, 6], [7, 8]), small([1, 0], [0, 1]), small(1, 2)], small([4, 5], [5, 6], dtype="int32")),
    of(
        "QLinearMatMul",
        [small([2, 4], [2, 4]), floats(1, 0.5), small(0, 2), small([1, 0], [0, 1]), *PLAIN, *PLAIN],
        small([2, 4], [0, 1]),
    ),
    of(
        "ConvInteger",
        [small([[1, 2, 3]]), small([[1]], [[1]]), None, small(0, 1)],
        small([[1, 2, 3], [0, 0, 0]], dtype="int32"),
    ),
    of(
        "QLinearConv",
        [small([[2, 4]]), *PLAIN, small([[2]], [[2]]), floats(1, 0.5), small(0, 1), *PLAIN],
        small([[4, 8], [1, 2]]),
    ),
    of("QuantizeLinear", [floats(3e9, -3e9, 2.5), np.array(1, np.float32)], small(255, 0, 2), opset=13),
    of(
        "QuantizeLinear",
        [floats(np.inf, 1.5), np.array(1, np.float32), small(3, dtype="int8").reshape(())],
        small(127, 5, dtype="int8"),
    ),
    of("DequantizeLinear", [small(3, 5), np.array(0.5, np.float32), np.array(1, np.uint8)], floats(1, 2), opset=10),
    of("DequantizeLinear", [small([3, 5]), floats(0.5, 2), small(1, 2)], floats([1, 6]), opset=13, axis=1),
    of("DequantizeLinear", [small([3, 5, 7]), floats([0.5, 2])], floats([1.5, 2.5, 14]), opset=21, axis=1, block_size=2),
    of("Gemm", [floats([2]), floats([3]), floats([5])], floats([21]), opset=6, beta=3.0),
    of("Gemm", [ints([2**62]), ints([1]), ints(1)], ints([2**62 + 1]), opset=13),
]

ELEMENTS = [
    of("PRelu", [np.full((1, 2, 2), -1, np.float32), floats(2, 3)], floats([[-2, -2], [-3, -3]]), opset=6),
    of("PRelu", [np.full((1, 2, 2), -1, np.float32), floats(2, 3)], floats([[-2, -3], [-2, -3]]), opset=9),
    of("Erf", [np.array([0.5])], np.array([0.5204998778130465])),
    of("Selu", [floats(-1)], floats(1.05069995 * 1.6732 * np.expm1(-1)), opset=5),
    of("Mean", [floats(1), floats([1, 2], [3, 4])], floats([1, 1.5], [2, 2.5])),
    of("OneHot", [ints(1, -3, 3), np.array(3), floats(1, 1e-8)], floats([1, 1e-8, 1], [1e-8, 1, 1], [1, 1, 1])),
    of("OneHot", [ints(1), np.array(2), np.array([False, True])], np.array([[False, True]])),
    of("NegativeLogLikelihoodLoss", [floats([1, 2], [3, 4]), ints(-1, 0)], np.array(-3, np.float32), ignore_index=-1),
    of("NegativeLogLikelihoodLoss", [floats([1, 2], [3, 4]), ints(1, 0), floats(1, 3)], np.array(-9 / 4, np.float32)),
    of("SoftmaxCrossEntropyLoss", [LOGITS, ints(0)], np.array(200, np.float32), floats([-200, -FAR])),
]

REDUCTIONS = [
    of("ReduceSumSquare", [small(3, 4, dtype="int32")], small(25, dtype="int32"), opset=18),
    of("ReduceSumSquare", [floats(3, 4)], floats(9, 16), opset=18, noop_with_empty_axes=1),
    of("ReduceSumSquare", [ROWS], floats([5], [50]), opset=11, axes=[-1]),
    of("ReduceLogSumExp", [floats(-np.inf, -np.inf)], floats(-np.inf)),
    of("ReduceLogSumExp", [floats(200, 200)], floats(200 + np.log(2))),
    of("ReduceLogSumExp", [floats([200], [np.inf]), ints(1)], floats(200, np.inf), opset=18, keepdims=0),
]

INDEXING = [
    of("GatherElements", [np.arange(100.0)[:, None], np.zeros((100, 1), np.int64)], np.zeros((100, 1)), axis=0),
    of("GatherElements", [ROWS, ints([0, -1])], floats([0, 2]), axis=1),
    of("Scatter", [ROWS, ints([1, 0, 1]), floats([7, 8, 9])], floats([0, 8, 2], [7, 4, 9]), opset=9),
    of("ScatterElements", [floats(1, 2), ints(0, 0, -1), floats(5, 6, 7)], floats(12, 9), opset=18, reduction="add"),
    of("ScatterElements", [floats(1, 2), ints(0, 1), floats(np.nan, 0)], floats(np.nan, 2), opset=18, reduction="max"),
    of(
        "ScatterND",
        [ROWS, ints([1], [1]), floats([1, 1, 1], [2, 2, 2])],
        floats([0, 1, 2], [6, 8, 10]),
        opset=16,
        reduction="mul",
    ),
    of("ScatterND", [ROWS, ints([0, -1]), floats(9)], floats([0, 1, 9], [3, 4, 5]), opset=11),
    of("Unsqueeze", [ROWS], ROWS.reshape(1, 2, 1, 3), opset=11, axes=[2, 0]),
    of("Unsqueeze", [ROWS, ints(-1, 0)], ROWS.reshape(1, 2, 3, 1), opset=13),
    of("Unique", [ints(5, 1, 5)], ints(5, 1), sorted=0),
    of("Unique", [ints([5, 1], [1, 5])], ints(5, 1), ints(0, 1), ints(0, 1, 1, 0), ints(2, 2), sorted=0),
    of("Unique", [ints([7, 2, 7])], ints([7, 2]), ints(0, 1), ints(0, 1, 0), ints(2, 1), sorted=0, axis=1),
    of("Shape", [np.zeros((2, 3, 4))], ints(), opset=15, end=-5),
    of("Shape", [np.zeros((2, 3, 4))], ints(3), opset=15, start=1, end=-1),
]

IMAGES = [
    of(
        "AffineGrid",
        [np.array([[[1.0, 0, 0], [0, 1.0, 0]]]), ints(1, 1, 1, 2)],
        np.array([[[[-1.0, 0.0], [1.0, 0.0]]]]),
        align_corners=1,
    ),
    of("AffineGrid", [floats([[2, 0, 1], [0, 1, 0]]), ints(1, 1, 1, 2)], floats([[[0, 0], [2, 0]]])),
    of(
        "DeformConv",
        [floats([[[1, 2, 4]]]), floats([[[1]]]), floats([[[0, 0, 0]], [[0.5, 0, 9]]])],
        floats([[[1.5, 2, 0]]]),
    ),
]

SEQUENCES = [
    of("Optional", [floats(1)], floats(1)),
    of("Optional", [], None, type=helper.make_tensor_type_proto(TensorProto.FLOAT, [1])),
    of("OptionalHasElement", [floats(1)], np.array(True)),
    of("OptionalHasElement", [], np.array(False), opset=18),
    of("OptionalGetElement", [floats(1)], floats(1)),
    of("SequenceInsert", [[floats(1), floats(2)], floats(3), np.array(2)], [floats(1), floats(2), floats(3)]),
    of("SequenceInsert", [[floats(1), floats(2)], floats(3), np.array(-2)], [floats(3), floats(1), floats(2)]),
    of("SequenceInsert", [[], floats(3), np.array(0)], [floats(3)]),
]

STRINGS = [
    of(
        "StringNormalizer",
        [TEXT],
        np.array(["CAFÉ MONDAY", "TUESDAY"], object),
        stopwords=["Monday"],
        case_change_action="UPPER",
    ),
    of("StringNormalizer", [TEXT], np.array([*TEXT], object), stopwords=["Monday"], is_case_sensitive=1),
    of("StringNormalizer", [TEXT[None, 1:2]], np.array([[""]], object), stopwords=["monday"]),
    of("RegexFullMatch", [np.array(["12", "١٢"], object)], np.array([True, False]), pattern=r"\d+"),
]

LEARNING = [
    ml("Scaler", [ints([1, 2])], floats([1, 3]), offset=[0.5], scale=[2.0]),
    ml("FeatureVectorizer", [ints([1, 2]), ints([3])], floats([1, 3, 0]), inputdimensions=[1, 2]),
    ml("FeatureVectorizer", [floats(1, 2), floats(3, 4)], floats([1, 2, 3, 4]), inputdimensions=[2, 2]),
    ml("Normalizer", [floats([1, -4], [0, 0])], floats([1, -4], [0, 0]), norm="MAX"),
    ml("Normalizer", [floats(1, -3)], floats(0.25, -0.75), norm="L1"),
    ml("Normalizer", [floats([3, -4])], floats([0.6, -0.8]), norm="L2"),
    ml("LinearRegressor", [ints([1, 2])], floats([1.5]), coefficients=[0.5, 0.5]),
    ml("ZipMap", [floats([0.25, 0.75])], [{7: 0.25, 9: 0.75}], classlabels_int64s=[7, 9]),
    ml("ZipMap", [floats([1, 2], [3, 4])], [{"a": 1.0, "b": 2.0}, {"a": 3.0, "b": 4.0}], classlabels_strings=["a", "b"]),
    of(
        "STFT",
        [floats([1, 0, 0, 0, 0, 1, 0, 0]), np.int64(4), None, np.int64(4)],
        floats([[[1, 0], [1, 0], [1, 0]], [[1, 0], [0, -1], [-1, 0]]]),
    ),
    ml(
        "LinearRegressor",
        [floats([1, 2])],
        floats([1.5, -2]),
        coefficients=[0.5, 0.5, 1.0, -2.0],
        targets=2,
        intercepts=[0.0, 1.0],
    ),
    ml(
        "LinearClassifier",
        [floats([1, 2])],
        ints(7),
        floats([1, 2]),
        coefficients=[1.0, 0.0, 0.0, 1.0],
        classlabels_ints=[3, 7],
    ),
    ml(
        "LinearClassifier",
        [floats([0, 0])],
        np.array(["b"], object),
        floats([1 / 3, 2 / 3]),
        coefficients=[1.0, 0.0],
        intercepts=[float(np.log(2))],
        classlabels_strings=["a", "b"],
        post_transform="LOGISTIC",
    ),
    ml("LabelEncoder", [floats(1, np.nan, 2)], ints(5, 6, -1), opset=2, keys_floats=[1.0, np.nan], values_int64s=[5, 6]),
    ml("LabelEncoder", [np.array(["b", "z"], object)], ints(1, -1), classes_strings=["a", "b"]),
    ml("LabelEncoder", [ints(1, 9)], np.array(["b", "_Unused"], object), classes_strings=["a", "b"]),
    ml(
        "LabelEncoder",
        [ints(1, 2)],
        np.array([7.5, -0.0]),
        opset=4,
        keys_tensor=numpy_helper.from_array(ints(1)),
        values_tensor=numpy_helper.from_array(np.array([7.5])),
    ),
    ml("SVMRegressor", [ints([1, 2])], floats([3.5]), coefficients=[1.0, 1.0], n_supports=0, rho=[0.5]),
    ml(
        "SVMRegressor",
        [floats([1, 0])],
        floats([2 * np.exp(-0.5) + 0.25]),
        kernel_type="RBF",
        kernel_params=[0.5, 0.0, 0.0],
        support_vectors=[0.0, 0.0],
        coefficients=[2.0],
        n_supports=1,
        rho=[0.25],
    ),
    ml("TreeEnsembleRegressor", [ints([1], [3])], floats([0.5], [2.75]), **STUMP, **TARGETS, n_targets=1),
    ml("TreeEnsembleRegressor", [floats([np.nan])], floats([2.75]), **STUMP, **TARGETS, n_targets=1),
    ml(
        "TreeEnsembleRegressor",
        [np.array([[1.0]])],
        floats([1.5]),
        opset=3,
        **STUMP,
        **TARGETS,
        n_targets=1,
        base_values_as_tensor=numpy_helper.from_array(np.array([1.0])),
    ),
    ml(
        "TreeEnsembleClassifier",
        [floats([1], [3])],
        ints(9, 9),
        floats([0.5, 0.75], [0.5, 3]),
        opset=3,
        **STUMP,
        class_treeids=[0, 0, 0, 0],
        class_nodeids=[1, 1, 2, 2],
        class_ids=[0, 1, 0, 1],
        class_weights=[0.5, -0.25, 0.5, 2.0],
        classlabels_int64s=[4, 9],
        base_values_as_tensor=numpy_helper.from_array(np.array([0.0, 1.0])),
    ),
    of(
        "Adam",
        [np.array(0.1), np.array(0), *(np.array([v]) for v in (1.0, 2.0, 1.0, 2.0, 0.0, 0.0, 0.0, 0.0))],
        *(np.array([v]) for v in (0.9, 1.9, 1.0, 2.0, 1.0, 4.0)),
        domain=TRAINING,
        alpha=0.0,
        beta=0.0,
        epsilon=0.0,
    ),
]

CASES = [
    *(
        *REGIONS,
        *NORMALISATION,
        *POOLING,
        *PRODUCTS,
        *ELEMENTS,
        *REDUCTIONS,
        *INDEXING,
        *IMAGES,
        *SEQUENCES,
        *STRINGS,
        *LEARNING,
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_values(case: Case) -> None:
    options = {"opset": case.opset, "domain": case.domain, **case.attributes}
    got = evaluated(case.op_type, case.inputs, len(case.expected), **options)
    assert len(got) == len(case.expected)
    for one, other in zip(got, case.expected, strict=True):
        assert_same(one, other)


def test_every_evaluator_has_a_case() -> None:
    """Those of graphs, images and recurrent networks have tests of their own."""
    elsewhere = RECURRENT | {("", name) for name in ("Loop", "Scan", "SequenceMap", "ImageDecoder")}
    assert {(case.domain, case.op_type) for case in CASES} | elsewhere == set(evaluated_operators())


@pytest.mark.parametrize("kind", ["RGB", "L", "RGBA"])
@pytest.mark.parametrize("wanted", ["RGB", "BGR", "Grayscale"])
def test_images_of_every_kind_are_decoded(kind: str, wanted: str) -> None:
    image = pytest.importorskip("PIL.Image")
    stored = io.BytesIO()
    image.new(kind, (3, 2), color={"RGB": (255, 0, 0), "L": 100, "RGBA": (255, 0, 0, 255)}[kind]).save(stored, format="PNG")
    [pixels] = evaluated("ImageDecoder", [np.frombuffer(stored.getvalue(), np.uint8)], opset=20, pixel_format=wanted)
    red, grey = [255, 0, 0], {"L": 100}.get(kind, 76)
    expected = [grey] if wanted == "Grayscale" else [100] * 3 if kind == "L" else red if wanted == "RGB" else red[::-1]
    assert pixels.shape == (2, 3, len(expected))
    assert pixels[1, 2].tolist() == expected


@pytest.mark.parametrize("most", [5, 60, 3000])
def test_suppression_takes_no_more_comparisons_than_the_algorithm(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of n boxes against at most `most` that stay, and against its block; the plain loop is the oracle."""
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 100, (3000, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(5, 30, (3000, 2))], axis=1).astype(np.float32)
    scores = rng.permutation(3000).astype(np.float32)
    compared = 0
    overlaps = regions.overlaps

    def counted(some: Array, others: Array) -> Array:
        nonlocal compared
        compared += some.shape[1] * others.shape[1]
        return overlaps(some, others)

    monkeypatch.setattr(regions, "overlaps", counted)
    limits = [np.array(most), np.array(0.3, np.float32)]
    [got] = evaluated("NonMaxSuppression", [boxes[None], scores[None, None], *limits], opset=11)
    kept: list[int] = []
    sides = regions.sides_of(boxes, centred=False)
    for index in np.argsort(-scores).tolist():
        if len(kept) < most and not (overlaps(sides[:, [index]], sides[:, kept]) > np.float32(0.3)).any():
            kept.append(index)
    assert got[:, 2].tolist() == kept
    assert compared <= 3000 * (len(kept) + 64)
    assert compared < 3000 * 3000


@pytest.mark.parametrize("known", [False, True], ids=["run", "folded"])
def test_a_compiled_model_takes_the_standards_coordinates(known: bool) -> None:
    """An evaluator of ours is used between kernels and when constants are folded alike."""
    node = helper.make_node("RoiAlign", ["x", "rois", "images"], ["y"], **ONE_SAMPLE)
    factor = np.full(1, 2, np.float32)
    given = {"rois": ROI[1], "images": ROI[2]} | ({"x": GRID} if known else {"factor": factor})
    data = {"factor": factor} if known else {"x": GRID}
    model = make_model([node, helper.make_node("Mul", ["y", "factor"], ["z"])], data, ["z"], given, opset=11)
    compiled = compile(model, threads=1, workers=0)
    assert len(compiled.fallback_nodes) == (0 if known else 1)
    assert compiled.run(data)["z"].reshape(-1).tolist() == [10]
