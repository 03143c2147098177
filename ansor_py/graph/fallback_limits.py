"""What is refused of the operators that are not compiled: data that was compared with the standard, operator by operator.

Every version of every operator of the standard (onnx 1.23.2) was held against what would evaluate it: a function of
`ansor_py.graph.evaluators`, or the class of ONNX's reference evaluator. `_CHECKED` lists them; a version that is not listed
was not compared, and is refused. `LIMITS` says which attributes, inputs and versions are not honoured; a node that uses one
is an error, where otherwise it would give wrong numbers without a word. `REPLACED` says what ONNX's own class does wrong
where there is an evaluator here. `make conformance` writes all of it into docs/conformance.md.

    refusal(node, schema)      # None, or what is not honoured and what to do about it
    reviews()                  # one row an operator, for the table
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from onnx import NodeProto

from ansor_py.graph.evaluators.registry import MACHINE_LEARNING, evaluator_for
from ansor_py.graph.fallback_conditions import (
    Limit,
    always,
    given,
    has_input,
    has_zero,
    one_label,
    other_than,
    raw_scores_after_softcap,
    special_casing,
    unclear_single_class,
    value,
    weights_by_gram,
)

PREVIEW, TRAINING = "ai.onnx.preview", "ai.onnx.preview.training"


@dataclass(frozen=True)
class Review:
    """An operator as the table shows it: versions, what evaluates it, what is refused, why it is not ONNX's class."""

    operator: str
    versions: tuple[int, ...]
    evaluator: str
    refused: tuple[str, ...]
    replaced: str


def _newer(opset: int) -> str:
    return f"convert the model to opset {opset} or newer (onnx.version_converter)"


_EXPORT = "export the model without it"
_REPLACE = "replace it by other operators"
_FLOAT_WINDOW = (None, 1, 11)

LIMITS = (
    Limit(
        "",
        ("Add", "And", "Div", "Equal", "Greater", "Less", "Mul", "Or", "Pow", "Sub", "Xor"),
        "attributes `broadcast` and `axis`",
        lambda node: bool(value(node, "broadcast")) or value(node, "axis") is not None,
        _newer(7),
        before=7,
    ),
    Limit(
        "",
        ("Attention",),
        "output 3 in mode 0 beside `softcap`, which it should not have seen",
        raw_scores_after_softcap,
        "set qk_matmul_output_mode",
    ),
    Limit("", ("Cast",), "attribute `to`, which is a text", always, _newer(6), before=6),
    Limit("", ("CastLike",), "attribute `round_mode`", other_than("round_mode", "up"), "use Cast", since=24),
    Limit("", ("Clip",), "all of it: there is no implementation", always, _newer(6), before=6),
    Limit("", ("Concat",), "the default of `axis`", lambda node: value(node, "axis") is None, "state axis=1", before=4),
    Limit("", ("Constant",), "attribute `sparse_value`", given("sparse_value"), "make the constant dense"),
    Limit("", ("ConvTranspose",), "attribute `group` other than 1", other_than("group", 1), "split it into one for each group"),
    Limit("", ("ConvTranspose",), "attribute `output_shape`", given("output_shape"), "state pads instead"),
    Limit(
        "",
        ("Dropout",),
        "training, which is meant unless `is_test` is set",
        lambda node: not value(node, "is_test"),
        "set is_test, or " + _newer(7),
        before=7,
    ),
    Limit(
        "",
        ("BatchNormalization",),
        "outputs beside the first: training",
        lambda node: any(node.output[1:]),
        "export the model for inference",
        before=14,
    ),
    Limit(
        "",
        ("GridSample",),
        "modes `bilinear` and `bicubic` by these names",
        other_than("mode", "nearest"),
        _newer(20),
        before=20,
    ),
    Limit(
        "",
        ("HammingWindow", "HannWindow"),
        "attribute `output_datatype` other than float32 and float64",
        lambda node: value(node, "output_datatype") not in _FLOAT_WINDOW,
        "make a window of float32 and cast it",
    ),
    Limit("", ("MaxRoiPool", "Multinomial"), "all of it: there is no implementation", always, _REPLACE),
    Limit(
        "",
        ("MaxUnpool",),
        "input `output_shape` beside `pads`",
        lambda node: has_input(2)(node) and any(value(node, "pads") or []),
        "leave pads out: they do not count then",
    ),
    Limit("", ("Reshape",), "all of it: there is no implementation", always, _newer(5), before=5),
    Limit("", ("Resize",), "the coordinates of version 10", always, _newer(11), before=11),
    Limit(
        "",
        ("Resize",),
        "attribute `coordinate_transformation_mode` = tf_half_pixel_for_nn",
        lambda node: value(node, "coordinate_transformation_mode") == "tf_half_pixel_for_nn",
        "use half_pixel with nearest_mode floor",
        since=11,
        before=13,
    ),
    Limit(
        "",
        ("Resize",),
        "negative numbers in attribute `axes`",
        lambda node: any(axis < 0 for axis in value(node, "axes") or []),
        "count axes from the first",
        since=18,
    ),
    Limit("", ("Split",), "all of it: there is no implementation", always, _newer(2), before=2),
    Limit("", ("StringNormalizer",), "attribute `locale` with letters of its own cases", special_casing, _EXPORT),
    Limit(
        "",
        ("TfIdfVectorizer",),
        "attribute `weights`, unless it is given and `ngram_indexes` are 0, 1, 2, ...",
        weights_by_gram,
        "count with mode TF and multiply by the weights",
    ),
    Limit("", ("Tile",), "inputs `tiles` and `axis`", always, _newer(6), before=6),
    Limit("", ("Upsample",), "attributes for scales", always, _newer(9), before=9),
    Limit("", ("Upsample",), "attribute `mode` other than nearest", other_than("mode", "nearest"), "use Resize", since=9),
    Limit(MACHINE_LEARNING, ("CastMap", "CategoryMapper"), "all of it: there is no implementation", always, _EXPORT),
    Limit(
        MACHINE_LEARNING,
        ("LinearClassifier",),
        "attribute `post_transform` other than NONE, LOGISTIC and SOFTMAX",
        other_than("post_transform", "NONE", "LOGISTIC", "SOFTMAX"),
        _EXPORT,
    ),
    Limit(
        MACHINE_LEARNING,
        ("LinearRegressor", "SVMRegressor", "TreeEnsembleRegressor"),
        "attribute `post_transform` other than NONE",
        other_than("post_transform", "NONE"),
        _EXPORT,
    ),
    Limit(
        MACHINE_LEARNING,
        ("SVMClassifier",),
        "all of it: labels and scores are another runtime's in few cases",
        always,
        _EXPORT,
    ),
    Limit(MACHINE_LEARNING, ("TreeEnsemble",), "attribute `post_transform`", other_than("post_transform", 0), _EXPORT),
    Limit(MACHINE_LEARNING, ("TreeEnsemble",), "zero among `membership_values`", has_zero("membership_values"), _EXPORT),
    Limit(
        MACHINE_LEARNING,
        ("TreeEnsemble", "TreeEnsembleRegressor"),
        "attribute `aggregate_function` = MIN or MAX for several targets",
        lambda node: value(node, "aggregate_function") in (2, 3, "MIN", "MAX") and (value(node, "n_targets") or 1) > 1,
        "make one of each target",
    ),
    Limit(
        MACHINE_LEARNING,
        ("TreeEnsembleClassifier",),
        "attribute `post_transform` = PROBIT",
        other_than("post_transform", "NONE", "LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO"),
        _EXPORT,
    ),
    Limit(
        MACHINE_LEARNING,
        ("TreeEnsembleClassifier",),
        "weights of one class alone, unless not negative and NONE, or some negative and LOGISTIC",
        unclear_single_class,
        "give weights for every class",
    ),
    Limit(MACHINE_LEARNING, ("TreeEnsembleClassifier",), "a single class label", one_label, "give a label for every class"),
    Limit(TRAINING, ("Gradient",), "all of it: there is no implementation", always, _EXPORT),
)

# What ONNX's class does where there is an evaluator here.
REPLACED: Mapping[str, str] = {
    "AffineGrid": "gives float32 for float64, fails for one pixel with align_corners",
    "AveragePool": "shifts windows by half of what ceil_mode lacks; ignores dilations beside auto_pad; leaves NaN out",
    "BatchNormalization": "mixes the batch's statistics in before version 14; ignores spatial",
    "ConvInteger": "fails for zero points of channels but of images",
    "DeformConv": "divides by zero for images of one row or column",
    "DequantizeLinear": "has none before version 19",
    "Dropout": "takes ratio for the seed before version 12; masks are bool in all versions",
    "Erf": "computes float64 in float32",
    "GRU": "ignores sequence_lens, activations and their parameters, clip",
    "GatherElements": "ignores the axis where there are more than 64 elements to choose from",
    "Gemm": "ignores beta without broadcast; has none before version 6",
    "GlobalLpPool": "has none",
    "GlobalMaxPool": "takes the last two axes, whatever the rank is",
    "Hardmax": "works on one axis before version 13 too, by default the last",
    "ImageDecoder": "ignores pixel_format RGB for images of other kinds",
    "LRN": "normalises as many channels as the batch has images",
    "LSTM": "ignores sequence_lens, activations and their parameters, clip, input_forget",
    "LayerNormalization": "ignores stash_type for outputs and for float16 and float64",
    "LogSoftmax": "as Softmax; gives -inf where an exponential underflows",
    "Loop": "stacks scan outputs along axis 0; a condition that is left out ends it at once",
    "LpNormalization": "sums without magnitudes for p = 1",
    "LpPool": "as AveragePool",
    "MatMulInteger": "takes zero points of rows for those of columns",
    "MaxPool": "without strides, takes pads in another order and none but of images; leaves NaN out",
    "Mean": "fails where inputs after the first are larger",
    "NegativeLogLikelihoodLoss": "counts what it ignores in the mean, for ignore_index -1",
    "NonMaxSuppression": "fails for scalars and without iou_threshold; is slow",
    "OneHot": "loses digits of the values; fails for bool and strings",
    "Optional": "makes a list of the value",
    "OptionalGetElement": "as Optional",
    "OptionalHasElement": "as Optional: always true",
    "PRelu": "takes slopes of channels for those of columns before version 7",
    "QLinearConv": "broadcasts scales of channels wrongly but of images",
    "QLinearMatMul": "takes parameters of rows for those of columns",
    "QuantizeLinear": "wraps around beyond 32 bits instead of saturating",
    "RMSNormalization": "ignores stash_type for float16 and float64",
    "RNN": "ignores sequence_lens and clip; knows Tanh and Affine alone",
    "ReduceLogSumExp": "gives NaN for -inf alone",
    "ReduceSumSquare": "gives int64 for int32",
    "RegexFullMatch": "matches \\d, \\s and \\w beyond ASCII",
    "RoiAlign": "shifts by half a pixel before version 16 too",
    "Scan": "ignores negative axes; fails for axes, directions, zero steps and version 8",
    "Scatter": "has none",
    "ScatterElements": "is slow; min and max take NaN by order",
    "ScatterND": "is slow",
    "Selu": "takes the newest defaults for version 1",
    "SequenceInsert": "inserts at the front for a position at the end",
    "SequenceMap": "iterates over no more than one further sequence",
    "Shape": "cuts an end below -rank off wrongly",
    "Softmax": "works on one axis before version 13 too, by default the last",
    "SoftmaxCrossEntropyLoss": "gives infinity where an exponential underflows",
    "STFT": "fails for signals of rank 2; is slow",
    "StringNormalizer": "takes accents off, removes words inside of strings",
    "Unique": "ignores sorted=0 for one output, takes slices along axis 0 for it",
    "Unsqueeze": "takes unsorted axes one after the other before version 13",
    "ai.onnx.ml.FeatureVectorizer": "gives integers for integers, columns for vectors",
    "ai.onnx.ml.LabelEncoder": "does not find NaN; ignores classes_strings; has no default for tensors",
    "ai.onnx.ml.LinearClassifier": "gives NaN without intercepts",
    "ai.onnx.ml.LinearRegressor": "gives NaN without intercepts, integers for integers",
    "ai.onnx.ml.Normalizer": "divides by the largest magnitude for MAX; fails for vectors",
    "ai.onnx.ml.SVMRegressor": "gives integers for integers",
    "ai.onnx.ml.Scaler": "gives integers for integers",
    "ai.onnx.ml.TreeEnsembleClassifier": "ignores base_values_as_tensor; is slow",
    "ai.onnx.ml.TreeEnsembleRegressor": "gives integers for integers; ignores base_values_as_tensor; is slow",
    "ai.onnx.ml.ZipMap": "has none",
    "ai.onnx.preview.training.Adam": "gives float32 for several tensors of float64",
}

# Every operator of the standard with the versions that were compared.
_CHECKED: Mapping[str, str] = {
    "": """
        Abs 1 6 13; Acos 7 22; Acosh 9 22; Add 1 6 7 13 14; AffineGrid 20; And 1 7; ArgMax 1 11 12 13; ArgMin 1 11 12 13; Asin
        7 22; Asinh 9 22; Atan 7 22; Atanh 9 22; Attention 23 24 25; AveragePool 1 7 10 11 19 22; BatchNormalization 1 6 7 9
        14 15; Bernoulli 15 22; BitCast 26; BitShift 11 28; BitwiseAnd 18; BitwiseNot 18; BitwiseOr 18; BitwiseXor 18;
        BlackmanWindow 17; Cast 1 6 9 13 19 21 23 24 25 28; CastLike 15 19 21 23 24 25; CausalConvWithState 27; Ceil 1 6 13;
        Celu 12 28; CenterCropPad 18; Clip 1 6 11 12 13; Col2Im 18; Compress 9 11 28; Concat 1 4 11 13; ConcatFromSequence 11;
        Constant 1 9 11 12 13 19 21 23 24 25; ConstantOfShape 9 20 21 23 24 25; Conv 1 11 22; ConvInteger 10; ConvTranspose 1
        11 22; Cos 7 22; Cosh 9 22; CumProd 26; CumSum 11 14; DFT 17 20; DeformConv 19 22; DepthToSpace 1 11 13 28;
        DequantizeLinear 10 13 19 21 23 24 25 28; Det 11 22; Div 1 6 7 13 14; Dropout 1 6 7 10 12 13 22; DynamicQuantizeLinear
        11; Einsum 12 28; Elu 1 6 22; Equal 1 7 11 13 19; Erf 9 13; Exp 1 6 13; Expand 8 13; EyeLike 9 22; Flatten 1 9 11 13
        21 23 24 25; Floor 1 6 13; GRU 1 3 7 14 22; Gather 1 11 13; GatherElements 11 13; GatherND 11 12 13; Gelu 20; Gemm 1 6
        7 9 11 13; GlobalAveragePool 1 22; GlobalLpPool 1 2 22; GlobalMaxPool 1 22; Greater 1 7 9 13; GreaterOrEqual 12 16;
        GridSample 16 20 22; GroupNormalization 18 21; HammingWindow 17; HannWindow 17; HardSigmoid 1 6 22; HardSwish 14 22;
        Hardmax 1 11 13; Identity 1 13 14 16 19 21 23 24 25; If 1 11 13 16 19 21 23 24 25; ImageDecoder 20;
        InstanceNormalization 1 6 22; IsInf 10 20; IsNaN 9 13 20; LRN 1 13; LSTM 1 7 14 22; LayerNormalization 17; LeakyRelu 1
        6 16; Less 1 7 9 13; LessOrEqual 12 16; LinearAttention 27; Log 1 6 13; LogSoftmax 1 11 13; Loop 1 11 13 16 19 21 23
        24 25; LpNormalization 1 22; LpPool 1 2 11 18 22; MatMul 1 9 13; MatMulInteger 10; Max 1 6 8 12 13; MaxPool 1 8 10 11
        12 22; MaxRoiPool 1 22; MaxUnpool 9 11 22; Mean 1 6 8 13; MeanVarianceNormalization 9 13; MelWeightMatrix 17; Min 1 6
        8 12 13; Mish 18 22; Mod 10 13 28; Mul 1 6 7 13 14; Multinomial 7 22; Neg 1 6 13; NegativeLogLikelihoodLoss 12 13 22;
        NonMaxSuppression 10 11; NonZero 9 13; Not 1; OneHot 9 11 28; Optional 15 28; OptionalGetElement 15 18 28;
        OptionalHasElement 15 18 28; Or 1 7; PRelu 1 6 7 9 16; Pad 1 2 11 13 18 19 21 23 24 25; Pow 1 7 12 13 15; QLinearConv
        10; QLinearMatMul 10 21; QuantizeLinear 10 13 19 21 23 24 25 28; RMSNormalization 23; RNN 1 7 14 22; RandomNormal 1
        22; RandomNormalLike 1 22; RandomUniform 1 22; RandomUniformLike 1 22; Range 11 27; Reciprocal 1 6 13; ReduceL1 1 11
        13 18; ReduceL2 1 11 13 18; ReduceLogSum 1 11 13 18 28; ReduceLogSumExp 1 11 13 18 28; ReduceMax 1 11 12 13 18 20;
        ReduceMean 1 11 13 18; ReduceMin 1 11 12 13 18 20; ReduceProd 1 11 13 18; ReduceSum 1 11 13; ReduceSumSquare 1 11 13
        18; RegexFullMatch 20; Relu 1 6 13 14; Reshape 1 5 13 14 19 21 23 24 25; Resize 10 11 13 18 19; ReverseSequence 10 28;
        RoiAlign 10 16 22; RotaryEmbedding 23; Round 11 22; STFT 17; Scan 8 9 11 16 19 21 23 24 25; Scatter 9 11;
        ScatterElements 11 13 16 18; ScatterND 11 13 16 18; Selu 1 6 22; SequenceAt 11; SequenceConstruct 11; SequenceEmpty
        11; SequenceErase 11; SequenceInsert 11; SequenceLength 11; SequenceMap 17; Shape 1 13 15 19 21 23 24 25; Shrink 9;
        Sigmoid 1 6 13; Sign 9 13; Sin 7 22; Sinh 9 22; Size 1 13 19 21 23 24 25; Slice 1 10 11 13; Softmax 1 11 13;
        SoftmaxCrossEntropyLoss 12 13; Softplus 1 22; Softsign 1 22; SpaceToDepth 1 13 28; Split 1 2 11 13 18; SplitToSequence
        11 24; Sqrt 1 6 13; Squeeze 1 11 13 21 23 24 25; StringConcat 20; StringNormalizer 10; StringSplit 20; Sub 1 6 7 13
        14; Sum 1 6 8 13; SwiGLU 28; Swish 24; Tan 7 22; Tanh 1 6 13; TensorScatter 24; TfIdfVectorizer 9; ThresholdedRelu 10
        22; Tile 1 6 13; TopK 1 10 11 24; Transpose 1 13 21 23 24 25; Trilu 14; Unique 11 28; Unsqueeze 1 11 13 21 23 24 25;
        Upsample 1 7 9 10; Where 9 16; Xor 1 7
    """,
    MACHINE_LEARNING: """
        ArrayFeatureExtractor 1; Binarizer 1; CastMap 1; CategoryMapper 1; DictVectorizer 1; FeatureVectorizer 1; Imputer 1;
        LabelEncoder 1 2 4; LinearClassifier 1; LinearRegressor 1; Normalizer 1; OneHotEncoder 1; SVMClassifier 1;
        SVMRegressor 1; Scaler 1; TreeEnsemble 5; TreeEnsembleClassifier 1 3 5; TreeEnsembleRegressor 1 3 5; ZipMap 1
    """,
    PREVIEW: """
        FlexAttention 1
    """,
    TRAINING: """
        Adagrad 1; Adam 1; Gradient 1; Momentum 1
    """,
}


@functools.cache
def checked_versions() -> dict[tuple[str, str], tuple[int, ...]]:
    """The versions that were compared with the standard, by domain and operator."""
    found = {}
    for domain, text in _CHECKED.items():
        for entry in " ".join(text.split()).split("; "):
            name, *versions = entry.split()
            found[domain, name] = tuple(int(version) for version in versions)
    return found


def refusal(node: NodeProto, schema: Any) -> str | None:
    """What an evaluation of the node would not honour, with the remedy; None if it would honour everything.

    `schema` is the operator's in the version that the node has.
    """
    version = schema.since_version
    if version not in checked_versions().get((node.domain, node.op_type), ()):
        return f"version {version} of the operator has not been compared with the standard; {_REPLACE}"
    for attribute in node.attribute:
        if attribute.name not in schema.attributes:
            return f"the operator has no attribute '{attribute.name}' in this opset; remove it, or convert the model's opset"
    if len(node.input) > schema.max_input:
        return f"the operator has at most {schema.max_input} inputs in this opset, not {len(node.input)}"
    for limit in LIMITS:
        if limit.covers(node.domain, node.op_type, version) and limit.concerns(node):
            return f"its evaluator does not honour {limit.what.replace('`', chr(39))}; {limit.remedy}"
    return None


def reviews() -> list[Review]:
    """One row for each operator of the standard, in the order of their names."""
    rows = []
    for (domain, op_type), versions in sorted(checked_versions().items()):
        name = f"{domain}.{op_type}" if domain else op_type
        own = [version for version in versions if evaluator_for(domain, op_type, version) is not None]
        by = "ansor_py" if len(own) == len(versions) else "onnx" if not own else f"onnx; {', '.join(map(str, own))} ansor_py"
        refused = tuple(
            f"{limit.versions}: {limit.what}" if limit.versions else limit.what
            for limit in LIMITS
            if any(limit.covers(domain, op_type, version) for version in versions)
        )
        rows.append(Review(name, versions, by, refused, REPLACED.get(name, "")))
    return rows
