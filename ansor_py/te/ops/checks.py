"""Checks of operator arguments; every failure is an `ExpressionError` that names the operator and the shapes.

axis = normalized_axis("softmax", -1, x)        # 0 <= axis < rank, or an error
height, width = per_dimension("conv2d", "stride", 2, rank=2)     # (2, 2)
"""

from __future__ import annotations

from collections.abc import Sequence

from ansor_py.errors import BroadcastError, ExpressionError
from ansor_py.te.expr import FLOAT_DTYPES, INDEX, Axis, Const, Expr
from ansor_py.te.tensor import Tensor


def describe(*tensors: Tensor) -> str:
    """The shapes of tensors for a message: `A[2, 3], B[4]`."""
    return ", ".join(f"{tensor.name}{list(tensor.shape)}" for tensor in tensors)


def require(condition: bool, operator: str, complaint: str, *tensors: Tensor) -> None:
    """Raise an error about `operator` and the shapes of `tensors` unless the condition holds."""
    if not condition:
        shapes = f" (operands {describe(*tensors)})" if tensors else ""
        raise ExpressionError(f"{operator}: {complaint}{shapes}")


def require_fit(condition: bool, operator: str, complaint: str, *tensors: Tensor) -> None:
    """`require` of shapes that must fit together: without it an element would be read that does not exist."""
    if not condition:
        raise BroadcastError(f"{operator}: {complaint} (operands {describe(*tensors)})")


def require_rank(operator: str, tensor: Tensor, rank: int, layout: str) -> None:
    """The tensor must have the dimensions of `layout`."""
    require(len(tensor.shape) == rank, operator, f"'{tensor.name}' must have {rank} dimensions, {layout}", tensor)


def require_float(operator: str, *tensors: Tensor) -> None:
    """All tensors must be of one floating dtype."""
    dtypes = {tensor.dtype for tensor in tensors}
    require(
        len(dtypes) == 1 and dtypes <= set(FLOAT_DTYPES), operator, f"needs one float dtype, got {sorted(dtypes)}", *tensors
    )


def require_same_dtype(operator: str, *tensors: Tensor) -> None:
    """All tensors must have one dtype."""
    dtypes = {tensor.dtype for tensor in tensors}
    require(len(dtypes) == 1, operator, f"operands have different dtypes {sorted(dtypes)}", *tensors)


def require_channels(operator: str, what: str, vector: Tensor, channels: int) -> None:
    """A vector with one element a channel."""
    require(vector.shape == (channels,), operator, f"'{what}' must have shape [{channels}]", vector)


def normalized_axis(operator: str, axis: int, tensor: Tensor) -> int:
    """The axis counted from the front; negative ones count from the back."""
    rank = len(tensor.shape)
    require(-rank <= axis < rank, operator, f"there is no axis {axis}", tensor)
    return axis % rank


def normalized_axes(operator: str, axes: int | Sequence[int] | None, tensor: Tensor) -> tuple[int, ...]:
    """Sorted distinct axes; `None` is all of them."""
    listed = range(len(tensor.shape)) if axes is None else (axes,) if isinstance(axes, int) else axes
    result = tuple(sorted(normalized_axis(operator, axis, tensor) for axis in listed))
    require(len(set(result)) == len(result), operator, f"an axis is named twice in {list(result)}", tensor)
    return result


def per_dimension(operator: str, what: str, value: int | Sequence[int], rank: int, least: int = 1) -> tuple[int, ...]:
    """One number for all spatial dimensions, or one for each."""
    numbers = (value,) * rank if isinstance(value, int) else tuple(value)
    require(
        len(numbers) == rank and min(numbers, default=least) >= least,
        operator,
        f"{what} must be one number or {rank} of at least {least}, got {value}",
    )
    return numbers


def two_sided(operator: str, padding: int | Sequence[int], rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Padding before and after each spatial dimension, from one number, one a dimension, or all begins, then all ends."""
    given = (padding,) * rank if isinstance(padding, int) else tuple(padding)
    sides = given * 2 if len(given) == rank else given
    require(
        len(sides) == 2 * rank and min(sides, default=0) >= 0,
        operator,
        f"padding must be 1, {rank} or {2 * rank} numbers of at least 0, got {padding}",
    )
    return sides[:rank], sides[rank:]


def broadcast_shape(operator: str, shapes: Sequence[tuple[int, ...]], *tensors: Tensor) -> tuple[int, ...]:
    """The common shape by NumPy's rules: aligned at the back, extents equal or 1."""
    rank = max(map(len, shapes))
    aligned = [(1,) * (rank - len(shape)) + shape for shape in shapes]
    result = []
    for extents in zip(*aligned, strict=True):
        wide = {extent for extent in extents if extent != 1}
        if len(wide) > 1:
            raise BroadcastError(f"{operator}: the shapes cannot be broadcast together (operands {describe(*tensors)})")
        result.append(wide.pop() if wide else 1)
    return tuple(result)


def broadcast_index(shape: tuple[int, ...], axes: Sequence[Axis]) -> tuple[Expr, ...]:
    """Where the element of a broadcast operand of `shape` lies for the output `axes`."""
    aligned = axes[len(axes) - len(shape) :]
    return tuple(
        Const(0, INDEX) if extent == 1 and axis.extent != 1 else axis for extent, axis in zip(shape, aligned, strict=True)
    )


def axes_of(shape: Sequence[int], prefix: str = "i") -> tuple[Axis, ...]:
    """Spatial axes `i0, i1, ...` over a shape."""
    return tuple(Axis(f"{prefix}{position}", extent) for position, extent in enumerate(shape))
