"""Where the largest or smallest element along an axis is, and which it is, as one.

i = argmax(x, axis=1)                      # int64; of equal ones the first, and NaN before all else
i = argmin(x, axis=-1, keepdims=False, last=True)
y = hardmax(x, axis=-1)                    # 1 at the first largest element, else 0
"""

from __future__ import annotations

from ansor_py.te import tensor as te_tensor
from ansor_py.te.expr import FLOAT_DTYPES, INDEX, Axis, Expr, cast, compare, const, equal, logical_or, select
from ansor_py.te.ops.checks import axes_of, normalized_axis, require
from ansor_py.te.ops.elementwise import map_elements
from ansor_py.te.ops.layout import reshape
from ansor_py.te.ops.reduction import reduce_max, reduce_min
from ansor_py.te.ops.registry import operator
from ansor_py.te.tensor import Tensor, placeholder, reduce_axis, tensor_from_body

LARGEST_INT32 = 2**31 - 1


def argmax(x: Tensor, axis: int = 0, keepdims: bool = False, last: bool = False, name: str = "argmax") -> Tensor:
    """The position (int64) of the largest element along `axis`; of equal ones the first, or the last on request."""
    return _position(x, axis, keepdims, last, name, largest=True)


def argmin(x: Tensor, axis: int = 0, keepdims: bool = False, last: bool = False, name: str = "argmin") -> Tensor:
    """The position (int64) of the smallest element along `axis`; of equal ones the first, or the last on request."""
    return _position(x, axis, keepdims, last, name, largest=False)


def _position(x: Tensor, axis: int, keepdims: bool, last: bool, name: str, largest: bool) -> Tensor:
    """The extreme value first, then the extreme of the positions where it is. A NaN is the extreme, whichever is wanted."""
    along = normalized_axis(name, axis, x)
    require(x.shape[along] > 0, name, f"axis {axis} has no elements", x)
    extreme = (reduce_max if largest else reduce_min)(x, along, keepdims=True, name=f"{name}_value")
    k = reduce_axis(x.shape[along], "k")
    row = axes_of(x.shape)
    outer = [Axis(a.name, 1) if i == along else a for i, a in enumerate(row)]
    element = (*outer[:along], k, *outer[along + 1 :])
    here = equal_or_nan(x[element], extreme[tuple(outer)])
    missing = 0 if last else x.shape[along] - 1
    reduce = te_tensor.reduce_max if last else te_tensor.reduce_min
    # Positions in half the bits: as many of them as elements fit a vector.
    kind = "int32" if x.shape[along] <= LARGEST_INT32 else INDEX
    place = tensor_from_body(f"{name}_place", outer, reduce(select(here, cast(k, kind), const(missing, kind)), k))
    found = map_elements(place, lambda value: cast(value, INDEX), name)
    return found if keepdims else reshape(found, [e for i, e in enumerate(x.shape) if i != along], f"{name}_flat")


def equal_or_nan(value: Expr, extreme: Expr) -> Expr:
    """Whether an element is the extreme of those that it belongs to: NaN, which equals nothing, is it where there is one."""
    same = equal(value, extreme)
    return logical_or(same, compare("ne", value, value)) if value.dtype in FLOAT_DTYPES else same


def hardmax(x: Tensor, axis: int = -1, name: str = "hardmax") -> Tensor:
    """1 at the first largest element along `axis`, 0 elsewhere."""
    along = normalized_axis(name, axis, x)
    best = argmax(x, along, keepdims=True, name=f"{name}_position")
    axes = axes_of(x.shape)
    row: list[Expr] = [const(0, INDEX) if i == along else a for i, a in enumerate(axes)]
    return tensor_from_body(name, axes, cast(equal(best[tuple(row)], axes[along]), x.dtype))


@operator("argmax", example="argmax:512,1024,axis=1")
def argmax_workload(*shape: int, axis: int = -1) -> Tensor:
    """Positions of the largest elements along one axis of a tensor of any shape."""
    return argmax(placeholder(shape, name="x"), axis)


@operator("argmin", example="argmin:512,1024,axis=1")
def argmin_workload(*shape: int, axis: int = -1) -> Tensor:
    """Positions of the smallest elements along one axis of a tensor of any shape."""
    return argmin(placeholder(shape, name="x"), axis)
