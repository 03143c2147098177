"""p-norms: of axes of a tensor, and tensors scaled to norm 1.

y = reduce_norm(x, p=2, axes=(1,))        # sqrt(sum of squares)
y = lp_normalize(x, axis=-1, p=1)         # x / sum of |x|
"""

from __future__ import annotations

from ansor_py.te import expr
from ansor_py.te.expr import INDEX, Const, Expr, binary, call, const, select
from ansor_py.te.ops.checks import axes_of, normalized_axis, require, require_float
from ansor_py.te.ops.elementwise import map_elements
from ansor_py.te.ops.reduction import Axes, reduce_sum
from ansor_py.te.ops.registry import operator
from ansor_py.te.tensor import Tensor, placeholder, tensor_from_body


def absolute_power(v: Expr, p: float) -> Expr:
    """|v| ** p; powers of 1 and 2 need no function."""
    if p == 2:
        return v * v
    return call("abs", v) if p == 1 else binary("pow", call("abs", v), expr.const(p, v.dtype))


def root(v: Expr, p: float) -> Expr:
    """v ** (1 / p) of a value that is not negative."""
    if p == 2:
        return call("sqrt", v)
    return v if p == 1 else binary("pow", v, expr.const(1 / p, v.dtype))


def reduce_norm(x: Tensor, p: float = 2, axes: Axes = None, keepdims: bool = False, name: str = "reduce_norm") -> Tensor:
    """(sum of |x| ** p) ** (1 / p) over axes (None: all)."""
    require_float(name, x)
    require(p > 0, name, f"p must be positive, got {p}", x)
    powers = map_elements(x, lambda v: absolute_power(v, p), f"{name}_powers")
    total = reduce_sum(powers, axes, keepdims, f"{name}_sum")
    return total if p == 1 else map_elements(total, lambda v: root(v, p), name)


def lp_normalize(x: Tensor, axis: int = -1, p: float = 2, name: str = "lp_normalize") -> Tensor:
    """x divided by its p-norm along `axis`; zeros stay zeros."""
    position = normalized_axis(name, axis, x)
    norm = reduce_norm(x, p, position, keepdims=True, name=f"{name}_norm")
    axes = axes_of(x.shape)
    length = norm[tuple(Const(0, INDEX) if i == position else axis for i, axis in enumerate(axes))]
    zero = const(0, x.dtype)
    return tensor_from_body(name, axes, select(expr.equal(length, zero), zero, x[axes] / length))


@operator("reduce_norm", example="reduce_norm:512,1024,axis=1")
def reduce_norm_workload(*shape: int, axis: int = -1, p: int = 2) -> Tensor:
    """p-norms along one axis of a tensor of any shape."""
    return reduce_norm(placeholder(shape, name="x"), p, axis)
