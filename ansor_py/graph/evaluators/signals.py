"""The short-time Fourier transform, where it is not compiled as a convolution (`ansor_py.graph.decompositions`)."""

from __future__ import annotations

from typing import Any

import numpy as np

from ansor_py.graph.evaluators.registry import EvaluatorCall, evaluator


@evaluator("STFT")
def short_time_fourier_transform(call: EvaluatorCall) -> tuple[Any, ...]:
    """Of signals [batch, length, 1 or 2], and [batch, length] as exporters write it: [batch, frames, frequencies, 2]."""
    signal, step, window, length = call.x, call.number(1), call.optional(2), call.number(3)
    size = int(length) if length is not None else len(window if window is not None else ())
    taper = np.ones(size) if window is None else np.asarray(window, np.float64)
    values = signal[..., 0] + 1j * signal[..., 1] if signal.shape[2:] == (2,) else signal.reshape(signal.shape[:2])
    frames = np.lib.stride_tricks.sliding_window_view(values, size, axis=1)[:, :: int(step)] * taper
    result = np.fft.rfft(frames) if call.get("onesided", 1) else np.fft.fft(frames)
    return (np.stack([result.real, result.imag], axis=-1).astype(signal.dtype),)
