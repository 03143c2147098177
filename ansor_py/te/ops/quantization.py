"""Between real numbers and small integers: `real = (integer - zero_point) * scale`.

q = quantize(x, scale, zero_point)              # uint8 or int8, saturating, halves to even
y = dequantize(q, scale, zero_point, axis=1)    # one scale for all, one an element of `axis`, or one a block
p = centred(q, zero_point)                      # int32: q - zero_point
"""

from __future__ import annotations

from ansor_py.te import expr
from ansor_py.te.expr import DTYPE_BYTES, FLOAT_DTYPES, Axis, Expr, call, cast
from ansor_py.te.ops.checks import axes_of, normalized_axis, require, require_fit, require_float
from ansor_py.te.ops.registry import operator
from ansor_py.te.tensor import Tensor, placeholder, tensor_from_body


def _parameter(vector: Tensor, axes: tuple[Axis, ...], axis: int, block: int, name: str) -> Expr:
    """The element of a scale or zero point that belongs to the element at `axes`."""
    if vector.size == 1:
        return vector[(0,) * len(vector.shape)]
    if len(vector.shape) == 1:
        require(vector.shape == (axes[axis].extent,), name, f"needs one number, or one an element of axis {axis}", vector)
        return vector[axes[axis]]
    require(block >= 1 and len(vector.shape) == len(axes), name, "a blocked scale needs the rank of the data", vector)
    extents = tuple(-(-a.extent // block) if i == axis else a.extent for i, a in enumerate(axes))
    require_fit(vector.shape == extents, name, f"a scale of blocks of {block} must have the shape {list(extents)}", vector)
    return vector[tuple(a // block if i == axis else a for i, a in enumerate(axes))]


def quantize(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor | None = None,
    axis: int = 1,
    block: int = 0,
    dtype: str = "uint8",
    precision: str | None = None,
    name: str = "quantize",
) -> Tensor:
    """round(x / scale) + zero_point as `dtype` (the zero point's, if there is one), limited to what it can hold.

    The division is in the float dtype `precision` (default: the scale's).
    """
    require_float(name, scale)
    wide = scale.dtype if precision is None else precision
    require(wide in FLOAT_DTYPES, name, f"divides in {' or '.join(FLOAT_DTYPES)}, not {wide}", x)
    target = dtype if zero_point is None else zero_point.dtype
    require(target in ("uint8", "int8"), name, f"quantises to uint8 or int8, not {target}", x)
    axes = axes_of(x.shape)
    along = normalized_axis(name, axis, x) if scale.size != 1 else 0
    value = call("round", cast(x[axes], wide) / cast(_parameter(scale, axes, along, block, name), wide))
    if zero_point is not None:
        value = value + cast(_parameter(zero_point, axes, along, block, name), wide)
    low, high = (0, 255) if target == "uint8" else (-128, 127)
    return tensor_from_body(name, axes, cast(expr.minimum(expr.maximum(value, low), high), target))


def dequantize(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor | None = None,
    axis: int = 1,
    block: int = 0,
    dtype: str | None = None,
    name: str = "dequantize",
) -> Tensor:
    """(x - zero_point) * scale in the float `dtype` (default: the scale's)."""
    require_float(name, scale)
    wide = scale.dtype if dtype is None else dtype
    require(wide in FLOAT_DTYPES, name, f"dequantises to {' or '.join(FLOAT_DTYPES)}, not {wide}", x)
    axes = axes_of(x.shape)
    along = normalized_axis(name, axis, x) if scale.size != 1 else 0
    value = cast(x[axes], "int32")
    if zero_point is not None:
        value = value - cast(_parameter(zero_point, axes, along, block, name), "int32")
    return tensor_from_body(name, axes, cast(value, wide) * cast(_parameter(scale, axes, along, block, name), wide))


def centred(x: Tensor, zero_point: Tensor | None, axis: int = 0, name: str = "centred") -> Tensor:
    """x - zero_point as int32; the zero point is one number, or one an element of `axis`."""
    require(DTYPE_BYTES[x.dtype] == 1, name, f"needs uint8 or int8, not {x.dtype}", x)
    axes = axes_of(x.shape)
    value = cast(x[axes], "int32")
    if zero_point is not None:
        along = normalized_axis(name, axis, x) if zero_point.size != 1 else 0
        value = value - cast(_parameter(zero_point, axes, along, 0, name), "int32")
    return tensor_from_body(name, axes, value)


@operator("quantize", example="quantize:1,64,56,56")
def quantize_workload(*shape: int) -> Tensor:
    """A tensor of any shape as uint8."""
    scale, zero_point = placeholder((1,), name="scale", constant=True), placeholder((1,), "uint8", "zero", constant=True)
    return quantize(placeholder(shape, name="x"), scale, zero_point)
