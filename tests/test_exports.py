"""What exporters write: scikit-learn's classifiers, PyTorch's short-time Fourier transform, operators deprecated since."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from ansor_py.errors import ModelError, StaticInputError
from ansor_py.graph import compile, import_model
from ansor_py.graph.decompositions import LONGEST_FRAME
from graph_interpreter import Array, floats, make_model

# Short-time Fourier transforms.


def transform(signal: Array, step: int, window: Array | None, length: int | None, onesided: bool) -> Array:
    """Frame by frame, by NumPy's Fourier transform in double precision."""
    size = length or len(window if window is not None else ())
    taper = np.ones(size) if window is None else window.astype(np.float64)
    values = signal.reshape(signal.shape[:2]) if signal.shape[2:] != (2,) else signal[..., 0] + 1j * signal[..., 1]
    frames = [values[:, at : at + size] * taper for at in range(0, values.shape[1] - size + 1, step)]
    result = np.stack([(np.fft.rfft if onesided else np.fft.fft)(frame) for frame in frames], axis=1)
    return np.stack([result.real, result.imag], axis=-1)


def stft(
    signal: Array, step: int, window: Array | None, length: int | None, onesided: bool | None, opset: int = 17
) -> onnx.ModelProto:
    constants: dict[str, Array] = {"step": np.array(step)}
    names = ["x", "step", "", ""]
    if window is not None:
        constants["window"], names[2] = window, "window"
    if length is not None:
        constants["length"], names[3] = np.array(length), "length"
    attributes = {} if onesided is None else {"onesided": int(onesided)}
    return make_model(
        [helper.make_node("STFT", names, ["y"], name="stft", **attributes)], {"x": signal}, ["y"], constants, opset
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("onesided", [None, True, False])
@pytest.mark.parametrize("given", ["window", "length", "both"])
@pytest.mark.parametrize("shape", [(2, 50), (2, 50, 1), (1, 37, 1)])
def test_a_transform_of_real_signals_is_compiled(shape: tuple[int, ...], given: str, onesided: bool | None, dtype: str) -> None:
    """Signals of [batch, length], which is how PyTorch exports `torch.stft`, as well as of [batch, length, 1]."""
    x = floats(*shape).astype(dtype)
    window = np.hanning(16).astype(dtype) if given != "length" else None
    model = stft(x, 5, window, 16 if given != "window" else None, onesided)
    expected = transform(x, 5, window, 16, onesided in (None, True))
    got = compile(model, threads=1, workers=0, fallback=False).run({"x": x})["y"]
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5 if dtype == "float32" else 1e-12)
    assert (got.shape, str(got.dtype)) == (expected.shape, dtype)


@pytest.mark.parametrize("size", [1, 2, 15, 16])
@pytest.mark.parametrize("opset", [17, 20, 22])
def test_a_transform_of_complex_signals_is_compiled(size: int, opset: int) -> None:
    x, window = floats(2, 40, 2), np.hamming(size).astype(np.float32)
    got = compile(stft(x, 3, window, size, False, opset), threads=1, workers=0, fallback=False).run({"x": x})["y"]
    np.testing.assert_allclose(got, transform(x, 3, window, size, False), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("onesided", [None, True, False])
def test_a_transform_of_long_frames_is_left_to_a_fast_one(onesided: bool | None) -> None:
    x, size = floats(1, LONGEST_FRAME + 300), LONGEST_FRAME + 2
    window = np.hanning(size).astype(np.float32)
    compiled = compile(stft(x, 128, window, size, onesided), threads=1, workers=0)
    assert [node.op_type for node in compiled.fallback_nodes] == ["STFT"]
    np.testing.assert_allclose(
        compiled.run({"x": x})["y"], transform(x, 128, window, size, onesided is not False), rtol=1e-4, atol=1e-3
    )


def test_transforms_that_make_no_sense() -> None:
    x, window = floats(1, 20), np.ones(8, np.float32)
    for model, message in (
        (stft(floats(1, 20, 3), 4, window, 8, False), "must be \\[batch, length, 1 or 2\\]"),
        (stft(x, 4, window, 6, True), "frames of 6 elements every 4 under a window of \\[8\\]"),
        (stft(x, 4, np.ones(30, np.float32), None, True), "do not fit a signal of 20"),
        (stft(x, 0, window, 8, True), "every 0"),
        (stft(x, 4, None, None, True), "a window or a frame length"),
        (stft(floats(1, 20, 2), 4, window, 8, True), "one-sided"),
    ):
        with pytest.raises(ModelError, match=message):
            compile(model, threads=1, workers=0, fallback=False)


def test_a_window_may_be_computed_and_a_step_is_wanted() -> None:
    x, window = floats(1, 20, 1), np.hanning(8).astype(np.float32)
    nodes = [helper.make_node("STFT", ["x", "step", "w"], ["y"], name="stft")]
    model = make_model(nodes, {"x": x, "w": window}, ["y"], {"step": np.array(4)})
    expected = transform(x, 4, window, None, True)
    compiled = compile(model, threads=1, workers=0, fallback=False)
    np.testing.assert_allclose(compiled.run({"x": x, "w": window})["y"], expected, rtol=1e-4, atol=1e-5)

    model = make_model(nodes, {"x": x, "w": window, "step": np.array(4)}, ["y"])
    with pytest.raises(StaticInputError, match="'step' is computed while the model runs"):
        import_model(model)
    compiled = compile(model, threads=1, workers=0)
    got = compiled.run({"x": x, "w": window, "step": np.array(4)})["y"]
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


# Classifiers of scikit-learn, as skl2onnx writes them.


def classifier(labels: list[int] | list[str], multiclass: bool) -> tuple[onnx.ModelProto, Array, Array]:
    """LinearClassifier, Normalizer and ZipMap; an input, and the probabilities of its rows."""
    classes, x = len(labels), floats(5, 3)
    weights = floats(classes, 3, seed=1)
    strings = isinstance(labels[0], str)
    key = "classlabels_strings" if strings else "classlabels_ints"
    post = "SOFTMAX" if multiclass else "LOGISTIC"
    linear = helper.make_node(
        "LinearClassifier",
        ["X"],
        ["label", "scores"],
        "LinearClassifier",
        domain="ai.onnx.ml",
        coefficients=weights.reshape(-1).tolist(),
        intercepts=[0.0] * classes,
        multi_class=int(multiclass),
        post_transform=post,
        **{key: labels},
    )
    zipped = {"classlabels_strings" if strings else "classlabels_int64s": labels}
    nodes = [
        linear,
        helper.make_node("Normalizer", ["scores"], ["probabilities"], domain="ai.onnx.ml", norm="L1"),
        helper.make_node("ZipMap", ["probabilities"], ["output_probability"], "ZipMap", domain="ai.onnx.ml", **zipped),
    ]
    kind = TensorProto.STRING if strings else TensorProto.INT64
    outputs = [helper.make_tensor_value_info("label", kind, [None]), onnx.ValueInfoProto(name="output_probability")]
    entry = outputs[1].type.sequence_type.elem_type.map_type
    entry.key_type = kind
    entry.value_type.tensor_type.elem_type = TensorProto.FLOAT
    graph = helper.make_graph(nodes, "classifier", [helper.make_tensor_value_info("X", TensorProto.FLOAT, [None, 3])], outputs)
    opsets = [helper.make_opsetid("ai.onnx.ml", 1), helper.make_opsetid("", 18)]
    scores = x @ weights.T
    raw = np.exp(scores - scores.max(1, keepdims=True)) if multiclass else 1 / (1 + np.exp(-scores))
    return helper.make_model(graph, opset_imports=opsets, ir_version=8), x, raw / raw.sum(1, keepdims=True)


@pytest.mark.parametrize("multiclass", [True, False])
@pytest.mark.parametrize("labels", [[0, 1, 2], [7, 3, 5], ["a", "b", "c"]], ids=str)
def test_a_classifier_gives_a_dictionary_a_row(labels: Any, multiclass: bool) -> None:
    model, x, probabilities = classifier(labels, multiclass)
    compiled = compile(model, threads=1, workers=0, shapes={"X": (5, 3)})
    result = compiled.run({"X": x})
    assert [list(row) for row in result["output_probability"]] == [labels] * 5
    rows = np.array([list(row.values()) for row in result["output_probability"]])
    np.testing.assert_allclose(rows, probabilities, rtol=1e-5)
    assert list(result["label"]) == [labels[column] for column in probabilities.argmax(1)]


def test_a_zipmap_of_compiled_scores() -> None:
    """The scores are compiled; the dictionaries alone are left to the fallback."""
    nodes = [
        helper.make_node("MatMul", ["X", "w"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["p"], axis=1),
        helper.make_node("ZipMap", ["p"], ["z"], domain="ai.onnx.ml", classlabels_int64s=[10, 20]),
    ]
    graph = helper.make_graph(
        nodes,
        "zip",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, [4, 3])],
        [onnx.ValueInfoProto(name="z")],
        [numpy_helper.from_array(floats(3, 2), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 1)])
    compiled = compile(model, threads=1, workers=0)
    assert [node.op_type for node in compiled.fallback_nodes] == ["ZipMap"]
    x = floats(4, 3, seed=2)
    scores = np.exp(x @ floats(3, 2))
    expected = scores / scores.sum(1, keepdims=True)
    rows = compiled.run({"X": x})["z"]
    np.testing.assert_allclose([[row[10], row[20]] for row in rows], expected, rtol=1e-5)


# Operators that later versions of the standard have deprecated.


@pytest.mark.parametrize(("groups", "channels"), [(1, 4), (2, 4), (4, 4), (3, 6)])
@pytest.mark.parametrize("shape", [(), (5,), (3, 2), (2, 2, 2)])
@pytest.mark.parametrize("opset", [18, 20, 21])
def test_group_normalisation_before_and_after_opset_21(opset: int, shape: tuple[int, ...], groups: int, channels: int) -> None:
    """Scale and bias are one a group before opset 21, which deprecated that, and one a channel from then on."""
    x = floats(2, channels, *shape)
    count = groups if opset < 21 else channels
    scale, bias = floats(count, seed=1), floats(count, seed=2)
    node = helper.make_node("GroupNormalization", ["x", "s", "b"], ["y"], num_groups=groups, epsilon=1e-3)
    model = make_model([node], {"x": x}, ["y"], {"s": scale, "b": bias}, opset)
    got = compile(model, threads=1, workers=0, fallback=False).run({"x": x})["y"]
    grouped = x.reshape(2, groups, -1).astype(np.float64)
    normal = (grouped - grouped.mean(-1, keepdims=True)) / np.sqrt(grouped.var(-1, keepdims=True) + 1e-3)
    each = (1, channels, *(1 for _ in shape))
    factor, offset = (np.repeat(vector, channels // count).reshape(each) for vector in (scale, bias))
    np.testing.assert_allclose(got, normal.reshape(x.shape) * factor + offset, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("opset", [9, 10, 13])
def test_upsample_of_any_opset(opset: int) -> None:
    node = helper.make_node("Upsample", ["x", "scales"], ["y"], mode="nearest")
    x = floats(1, 1, 2, 2)
    model = make_model([node], {"x": x}, ["y"], {"scales": np.array([1, 1, 2, 3], np.float32)}, opset)
    got = compile(model, threads=1, workers=0, fallback=False).run({"x": x})["y"]
    np.testing.assert_array_equal(got, x.repeat(2, 2).repeat(3, 3))
