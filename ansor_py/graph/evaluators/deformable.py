"""DeformConv: a convolution that takes each element of its windows from somewhere else."""

from __future__ import annotations

from typing import Any

import numpy as np

from ansor_py.graph.evaluators.registry import EvaluatorCall, Numbers, evaluator


@evaluator("DeformConv")
def deform_conv(call: EvaluatorCall) -> tuple[Any, ...]:
    """Windows of images, sampled with linear interpolation at offsets, weighted by a mask. ValueError for other ranks."""
    x, weights, offsets = call.x, call.array(1), call.array(2)
    if x.ndim != 4:
        raise ValueError(f"DeformConv of {x.ndim - 2} spatial axes is not supported, only of 2")
    batch, channels, _, _ = x.shape
    kernel, outputs = weights.shape[2:], offsets.shape[2:]
    parts, groups = int(call.get("offset_group", 1)), int(call.get("group", 1))
    strides, dilations, pads = call.get("strides", [1, 1]), call.get("dilations", [1, 1]), call.get("pads", [0] * 4)
    moved = offsets.reshape(batch, parts, *kernel, 2, *outputs)
    places = []
    for axis in range(2):
        taps = np.arange(kernel[axis]).reshape([-1 if index == axis else 1 for index in range(4)]) * dilations[axis]
        starts = np.arange(outputs[axis]).reshape([-1 if index == axis + 2 else 1 for index in range(4)]) * strides[axis]
        places.append(moved[:, :, :, :, axis] + taps + starts - pads[axis])
    mask = np.ones(1) if call.optional(4) is None else call.array(4).reshape(batch, parts, *kernel, *outputs)
    images = x.reshape(batch, parts, channels // parts, *x.shape[2:]).astype(np.result_type(x.dtype, np.float32))
    sampled = sample(images, places[0], places[1]) * (mask[:, :, None] if mask.ndim > 1 else 1.0)
    columns = sampled.reshape(batch, groups, channels // groups, *kernel, *outputs)
    grouped = weights.reshape(groups, -1, channels // groups, *kernel)
    result = np.einsum("ngcijhw,gmcij->ngmhw", columns, grouped, optimize=True).reshape(batch, -1, *outputs)
    bias = 0 if call.optional(3) is None else call.array(3).reshape(-1, 1, 1)
    return ((result + bias).astype(x.dtype),)


def sample(images: Numbers, y: Numbers, x: Numbers) -> Numbers:
    """Images [n, g, c, h, w] at places [n, g, ...], linear between pixels and zero outside: [n, g, c, ...]."""
    height, width = images.shape[3:]
    low_y, low_x = np.floor(y), np.floor(x)
    image = np.arange(images.shape[0]).reshape(-1, *[1] * (y.ndim - 1))
    group = np.arange(images.shape[1]).reshape(-1, *[1] * (y.ndim - 2))
    result: Any = 0.0
    for step_y in (0, 1):
        for step_x in (0, 1):
            row, column = low_y + step_y, low_x + step_x
            weight = (1 - np.abs(y - row)) * (1 - np.abs(x - column))
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            rows = np.clip(row, 0, height - 1).astype(np.int64)
            columns = np.clip(column, 0, width - 1).astype(np.int64)
            pixels = images[image, group, :, rows, columns]  # the channels come last
            result = result + pixels * (weight * inside)[..., None]
    return np.moveaxis(result, -1, 2)
