"""Reference outputs of a whole model by ONNX's own evaluator, for checking what compiled code computes.

Three operators of the evaluator (onnx 1.23) do not follow the standard and are replaced here: LRN normalises only as many
channels as the batch has images; Softmax before opset 13 works on the last axis instead of all from `axis` on; and
BatchNormalization before opset 14 mixes the statistics of the input into the given ones although it has one output. Two are
added: ZipMap, with which classifiers of scikit-learn end, and STFT, which the evaluator has by a loop and for signals of one
layout alone.

    expected = reference_outputs(model, {"data_0": image})
    expected = reference_outputs(model, {"data_0": image}, names=["fc6_1"])     # any values of the model
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from ansor_py.graph.ir import Array


class LRN(OpRun):  # type: ignore[misc,unused-ignore]
    """Local response normalisation over neighbouring channels."""

    def _run(self, x: NDArray[Any], alpha: float, beta: float, bias: float, size: int) -> tuple[NDArray[Any]]:
        before, after = (size - 1) // 2, size // 2
        padded = np.pad(x.astype(np.float64) ** 2, [(0, 0), (before, after)] + [(0, 0)] * (x.ndim - 2))
        squares = sum(padded[:, shift : shift + x.shape[1]] for shift in range(size))
        return ((x / (bias + alpha / size * squares) ** beta).astype(x.dtype),)


class Softmax(OpRun):  # type: ignore[misc,unused-ignore]
    """Softmax as before opset 13: all axes from `axis` on are one."""

    def _run(self, x: NDArray[Any], axis: int | None = None) -> tuple[NDArray[Any]]:
        stated = any(attribute.name == "axis" for attribute in self.onnx_node.attribute)
        axis = axis if stated and axis is not None else 1  # the evaluator fills in the default of newer opsets
        rows = x.reshape(math.prod(x.shape[: axis % x.ndim]), -1)
        exponential = np.exp(rows - rows.max(axis=1, keepdims=True))
        return ((exponential / exponential.sum(axis=1, keepdims=True)).reshape(x.shape).astype(x.dtype),)


class BatchNormalization(OpRun):  # type: ignore[misc,unused-ignore]
    """Batch normalisation at inference: by the given statistics alone."""

    def _run(
        self,
        x: NDArray[Any],
        scale: NDArray[Any],
        bias: NDArray[Any],
        mean: NDArray[Any],
        variance: NDArray[Any],
        epsilon: float = 1e-5,
        **others: object,
    ) -> tuple[NDArray[Any]]:
        shape = (-1, *[1] * (x.ndim - 2))
        factor = scale / np.sqrt(variance + np.asarray(epsilon, variance.dtype))
        return ((factor.reshape(shape) * (x - mean.reshape(shape)) + bias.reshape(shape)).astype(x.dtype),)


class STFT(OpRun):  # type: ignore[misc,unused-ignore]
    """Short-time Fourier transform by NumPy's, of signals [batch, length, 1 or 2] and [batch, length]."""

    def _run(
        self,
        signal: NDArray[Any],
        frame_step: NDArray[Any],
        window: NDArray[Any] | None = None,
        frame_length: NDArray[Any] | None = None,
        onesided: int = 1,
    ) -> tuple[NDArray[Any]]:
        size = int(frame_length) if frame_length is not None else len(window if window is not None else ())
        taper = np.ones(size) if window is None else window.astype(np.float64)
        values = signal[..., 0] + 1j * signal[..., 1] if signal.shape[2:] == (2,) else signal.reshape(signal.shape[:2])
        frames = np.lib.stride_tricks.sliding_window_view(values, size, axis=1)[:, :: int(frame_step)] * taper
        result = np.fft.rfft(frames) if onesided else np.fft.fft(frames)
        return (np.stack([result.real, result.imag], axis=-1).astype(signal.dtype),)


class ZipMap(OpRun):  # type: ignore[misc,unused-ignore]
    """A dictionary from class to score for each row."""

    op_domain = "ai.onnx.ml"

    def _run(
        self, x: NDArray[Any], classlabels_int64s: Any = None, classlabels_strings: Any = None
    ) -> tuple[list[dict[int | str, float]]]:
        labels = classlabels_int64s if classlabels_int64s is not None else classlabels_strings
        return ([dict(zip(labels, row, strict=True)) for row in x.reshape(-1, x.shape[-1]).tolist()],)


def corrected_operators(opset: int) -> list[type[OpRun]]:
    """The replacements (`new_ops` of the evaluator) that a model of this opset needs."""
    return [LRN, STFT, ZipMap, *([Softmax] if opset < 13 else []), *([BatchNormalization] if opset < 14 else [])]


def evaluator_of(model: bytes | ModelProto) -> ReferenceEvaluator:
    """ONNX's evaluator for a model, with the corrected operators."""
    parsed = ModelProto.FromString(model) if isinstance(model, bytes) else model
    return ReferenceEvaluator(parsed, new_ops=corrected_operators(opset_of(parsed)))


def opset_of(model: ModelProto) -> int:
    """The version of the standard operator set that a model uses; 0 if it uses none."""
    return max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)


def reference_outputs(model: ModelProto, feed: Mapping[str, Array], names: Sequence[str] | None = None) -> dict[str, Array]:
    """The model's outputs for the given inputs, or the values `names` inside of it."""
    evaluator = evaluator_of(model if names is None else _with_outputs(model, names))
    results = evaluator.run(None, dict(feed))
    return {name: np.asarray(result) for name, result in zip(evaluator.output_names, results, strict=True)}


def _with_outputs(model: ModelProto, names: Sequence[str]) -> ModelProto:
    """The model with other outputs, and only the nodes that they need."""
    needed = set(names)
    kept = []
    for node in reversed(model.graph.node):
        if needed & set(node.output):
            needed.update(node.input)
            kept.append(node)
    cut = ModelProto()
    cut.CopyFrom(model)
    del cut.graph.node[:]
    cut.graph.node.extend(reversed(kept))
    del cut.graph.output[:]
    cut.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
    return cut
