"""ONNX Resize and Upsample."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from ansor_py.errors import ModelError, RefusedModelError
from ansor_py.graph.ir import Pattern
from ansor_py.graph.onnx_ops.registry import OperatorCall, describe, onnx_op
from ansor_py.te import ops
from ansor_py.te.ops.resampling import constant_fraction
from ansor_py.te.tensor import Tensor


@dataclass(frozen=True)
class _Target:
    """One resized dimension: its extents before and after, and the scale between them."""

    axis: int
    extent: int
    count: int
    scale: Fraction


@onnx_op("Resize", pattern=Pattern.OPAQUE, static={1: "roi", 2: "scales", 3: "sizes"})
def resize(call: OperatorCall) -> Tensor:
    """Nearest, linear or cubic, in any coordinate mode, with or without a wider filter against aliasing."""
    if call.opset < 11:  # the scales are the second input, and positions those of Upsample
        return _upsampled(call, _scale_list(call, "roi"))
    if call.integer("antialias", 0) and call.text("mode", "nearest") == "nearest":
        raise ModelError(f"{describe(call.node)}: antialias is for the modes linear and cubic")
    mode, coordinates = call.text("mode", "nearest"), call.text("coordinate_transformation_mode", "half_pixel")
    regions = np.asarray(call.node.attributes.get("roi", ()), dtype=np.float64).reshape(-1).tolist()
    axes = call.axes(default=range(len(call.x.shape)))
    result = call.x
    for index, target in enumerate(_targets(call, axes)):
        region = (regions[index], regions[index + len(axes)]) if coordinates == "tf_crop_and_resize" else (0.0, 1.0)
        step, offset = _positions(call, coordinates, target, region)
        is_same = target.count == target.extent and step == 1 and offset == 0
        if is_same and coordinates != "tf_crop_and_resize":
            continue
        result = ops.resample(
            result,
            target.axis,
            target.count,
            step,
            offset,
            mode,
            rounding=call.text("nearest_mode", "round_prefer_floor"),
            cubic=call.number("cubic_coeff_a", -0.75),
            shrink=min(float(target.scale), 1.0) if call.integer("antialias", 0) else 1.0,
            exclude_outside=bool(call.integer("exclude_outside", 0)),
            extrapolation=call.number("extrapolation_value", 0.0) if coordinates == "tf_crop_and_resize" else None,
            name=f"resize{target.axis}",
        )
    return result if result is not call.x else ops.map_elements(result, lambda v: v, "resize")


@onnx_op("Upsample", pattern=Pattern.OPAQUE, static={1: "scales"})
def upsample(call: OperatorCall) -> Tensor:
    """The older resizing: element i is at position i / scale. Before opset 7 only images, with a scale of height and width."""
    if call.opset < 7:
        return _upsampled(call, [1.0, 1.0, call.number("height_scale"), call.number("width_scale")])
    return _upsampled(call, _scale_list(call, "scales"))


def _scale_list(call: OperatorCall, name: str) -> list[float]:
    return [float(scale) for scale in np.asarray(call.node.attributes.get(name, ())).reshape(-1).tolist()]


def _upsampled(call: OperatorCall, scales: list[float]) -> Tensor:
    result = call.x
    if len(scales) != len(result.shape):
        raise ModelError(f"{describe(call.node)}: {len(scales)} scales are given for {len(result.shape)} dimensions")
    for axis, scale in enumerate(map(constant_fraction, scales)):
        if scale != 1:
            count = math.floor(result.shape[axis] * scale)
            mode = call.text("mode", "nearest").replace("bilinear", "linear")
            result = ops.resample(result, axis, count, 1 / scale, Fraction(0), mode, rounding="floor", name=f"upsample{axis}")
    return result if result is not call.x else ops.map_elements(result, lambda v: v, "upsample")


def _targets(call: OperatorCall, axes: tuple[int, ...]) -> list[_Target]:
    sizes = call.integers("sizes", ())
    extents = [call.x.shape[axis] for axis in axes]
    if sizes:
        if len(sizes) != len(axes):
            raise ModelError(f"{describe(call.node)}: {len(sizes)} sizes are given for {len(axes)} dimensions")
        ratios = [Fraction(size, extent) for size, extent in zip(sizes, extents, strict=True)]
        policy = call.text("keep_aspect_ratio_policy", "stretch")
        if policy != "stretch":
            ratio = (min if policy == "not_larger" else max)(ratios)
            sizes = tuple(math.floor(extent * ratio + Fraction(1, 2)) for extent in extents)
            ratios = [ratio] * len(ratios)
        return [_Target(*given) for given in zip(axes, extents, sizes, ratios, strict=True)]
    given = _scale_list(call, "scales")
    if len(given) != len(axes):
        raise ModelError(f"{describe(call.node)}: {len(given)} scales are given for {len(axes)} dimensions")
    if not all(0 < scale < math.inf for scale in given):
        raise RefusedModelError(f"{describe(call.node)}: the scales are {list(given)}; they must be finite and more than 0")
    scales = [constant_fraction(scale) for scale in given]
    counts = [math.floor(extent * scale) for extent, scale in zip(extents, scales, strict=True)]
    return [_Target(*target) for target in zip(axes, extents, counts, scales, strict=True)]


def _positions(call: OperatorCall, coordinates: str, target: _Target, region: tuple[float, float]) -> tuple[Fraction, Fraction]:
    """Where in the input the i-th output element is: step * i + offset."""
    scale, extent, count = target.scale, target.extent, target.count
    half, step = Fraction(1, 2), 1 / scale
    natural = scale * extent  # the extent before it was rounded down to `count`
    match coordinates:
        case "half_pixel":
            return step, half * step - half
        case "pytorch_half_pixel":
            return (step, half * step - half) if natural > 1 else (Fraction(0), Fraction(0))
        case "half_pixel_symmetric":
            return step, half * extent * (1 - count / natural) + half * step - half
        case "align_corners":
            return (Fraction(extent - 1) / (natural - 1) if natural != 1 else Fraction(0)), Fraction(0)
        case "asymmetric":
            return step, Fraction(0)
        case "tf_half_pixel_for_nn":
            return step, half * step
        case "tf_crop_and_resize":
            start, end = (constant_fraction(bound) for bound in region)
            if count == 1:
                return Fraction(0), half * (start + end) * (extent - 1)
            return (end - start) * (extent - 1) / (count - 1), start * (extent - 1)
    raise ModelError(f"{describe(call.node)}: coordinate mode '{coordinates}' is not supported")
