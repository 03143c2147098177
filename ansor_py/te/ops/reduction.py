"""Reductions over axes of a tensor, and the same names for scalar expressions inside `te.compute`.

reduce_mean(x, axes=(2, 3), keepdims=True)                   # a tensor over two of its axes
compute((n,), lambda i: reduce_sum(x[i, k], k), name="s")    # a scalar expression over a reduction axis
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import overload

from ansor_py.te import tensor as te_tensor
from ansor_py.te.expr import INDEX, Axis, Const, Expr, call, const
from ansor_py.te.ops.checks import axes_of, normalized_axes, normalized_axis, require_float
from ansor_py.te.ops.elementwise import map_elements, maximum, minimum
from ansor_py.te.ops.layout import reshape
from ansor_py.te.ops.registry import Builder, operator
from ansor_py.te.tensor import Tensor, placeholder, reduce_axis, tensor_from_body

ReduceExpression = Callable[[Expr, Axis | Sequence[Axis]], Expr]
Axes = int | Sequence[int] | None
LARGEST = {"float32": 3.4028234663852886e38, "float64": 1.7976931348623157e308}


def reduce_tensor(x: Tensor, reduce: ReduceExpression, axes: Axes, keepdims: bool, name: str) -> Tensor:
    """Reduce over `axes` (None: all); reduced axes stay with extent 1 if `keepdims`.

    A full reduction without `keepdims` has shape [1], so that there is an axis to schedule.
    """
    reduced = normalized_axes(name, axes, x)
    kept = {position: Axis(f"i{position}", extent) for position, extent in enumerate(x.shape) if position not in reduced}
    inner = {position: reduce_axis(x.shape[position], f"r{position}") for position in reduced}
    singles = {position: Axis(f"i{position}", 1) for position in reduced} if keepdims else {}
    output_axes = tuple(axis for _, axis in sorted((kept | singles).items())) or (Axis("i0", 1),)
    element = x[tuple((kept | inner)[position] for position in range(len(x.shape)))]
    return tensor_from_body(name, output_axes, reduce(element, tuple(inner.values())))


@overload
def reduce_sum(x: Tensor, axes: Axes = ..., keepdims: bool = ..., name: str = ...) -> Tensor: ...
@overload
def reduce_sum(x: Expr, axes: Axis | Sequence[Axis]) -> Expr: ...
def reduce_sum(
    x: Tensor | Expr, axes: Axes | Axis | Sequence[Axis] = None, keepdims: bool = False, name: str = "reduce_sum"
) -> Tensor | Expr:
    """Sum over axes of a tensor (positions), or of an expression (reduction axes)."""
    return _reduce(te_tensor.reduce_sum, x, axes, keepdims, name)


@overload
def reduce_max(x: Tensor, axes: Axes = ..., keepdims: bool = ..., name: str = ...) -> Tensor: ...
@overload
def reduce_max(x: Expr, axes: Axis | Sequence[Axis]) -> Expr: ...
def reduce_max(
    x: Tensor | Expr, axes: Axes | Axis | Sequence[Axis] = None, keepdims: bool = False, name: str = "reduce_max"
) -> Tensor | Expr:
    """Maximum over axes of a tensor (positions), or of an expression (reduction axes)."""
    return _reduce(te_tensor.reduce_max, x, axes, keepdims, name)


@overload
def reduce_min(x: Tensor, axes: Axes = ..., keepdims: bool = ..., name: str = ...) -> Tensor: ...
@overload
def reduce_min(x: Expr, axes: Axis | Sequence[Axis]) -> Expr: ...
def reduce_min(
    x: Tensor | Expr, axes: Axes | Axis | Sequence[Axis] = None, keepdims: bool = False, name: str = "reduce_min"
) -> Tensor | Expr:
    """Minimum over axes of a tensor (positions), or of an expression (reduction axes)."""
    return _reduce(te_tensor.reduce_min, x, axes, keepdims, name)


@overload
def reduce_prod(x: Tensor, axes: Axes = ..., keepdims: bool = ..., name: str = ...) -> Tensor: ...
@overload
def reduce_prod(x: Expr, axes: Axis | Sequence[Axis]) -> Expr: ...
def reduce_prod(
    x: Tensor | Expr, axes: Axes | Axis | Sequence[Axis] = None, keepdims: bool = False, name: str = "reduce_prod"
) -> Tensor | Expr:
    """Product over axes of a tensor (positions), or of an expression (reduction axes)."""
    return _reduce(te_tensor.reduce_prod, x, axes, keepdims, name)


def reduce_log_sum_exp(x: Tensor, axes: Axes = None, keepdims: bool = False, name: str = "reduce_log_sum_exp") -> Tensor:
    """log(sum of exp(x)) over axes, computed from the differences to the largest element, so that nothing overflows."""
    require_float(name, x)
    reduced = normalized_axes(name, axes, x)
    limit = LARGEST[x.dtype]
    # An infinite element must not meet an infinite maximum: the difference is not a number.
    largest = reduce_max(x, reduced, keepdims=True, name=f"{name}_max")
    shift = map_elements(largest, lambda v: minimum(maximum(v, -limit), limit), f"{name}_shift")
    axes_x = axes_of(x.shape)
    row = tuple(Const(0, INDEX) if p in reduced else axis for p, axis in enumerate(axes_x))
    exponential = tensor_from_body(f"{name}_exp", axes_x, call("exp", x[axes_x] - shift[row]))
    total = reduce_sum(exponential, reduced, keepdims=True, name=f"{name}_sum")
    assert isinstance(total.op, te_tensor.Compute)
    outer = total.op.axes
    result = tensor_from_body(name, outer, call("log", total[outer]) + shift[outer])
    return result if keepdims else reshape(result, [e for p, e in enumerate(x.shape) if p not in reduced], f"{name}_flat")


def reduce_mean(x: Tensor, axes: Axes = None, keepdims: bool = False, name: str = "reduce_mean") -> Tensor:
    """Arithmetic mean over axes: a sum, then a division."""
    require_float(name, x)
    total = reduce_sum(x, axes, keepdims, f"{name}_sum")
    return map_elements(total, lambda v: v * const(total.size / max(x.size, 1), x.dtype), name)


def _reduce(
    reduce: ReduceExpression, x: Tensor | Expr, axes: Axes | Axis | Sequence[Axis], keepdims: bool, name: str
) -> Tensor | Expr:
    if isinstance(x, Tensor):
        return reduce_tensor(x, reduce, axes, keepdims, name)  # type: ignore[arg-type]  # positions, by the overloads
    return reduce(x, axes)  # type: ignore[arg-type]  # reduction axes, by the overloads


def softmax(x: Tensor, axis: int = -1, name: str = "softmax") -> Tensor:
    """exp(x) normalised to sum 1 along `axis`, in four stages: maximum, exponential, sum, quotient."""
    return _softmax(x, axis, name, logarithm=False)


def log_softmax(x: Tensor, axis: int = -1, name: str = "log_softmax") -> Tensor:
    """The logarithm of `softmax`, computed without its underflow."""
    return _softmax(x, axis, name, logarithm=True)


def _softmax(x: Tensor, axis: int, name: str, logarithm: bool) -> Tensor:
    require_float(name, x)
    position = normalized_axis(name, axis, x)
    axes = axes_of(x.shape)
    # The row's index; a one-dimensional tensor is a single row, kept in a tensor of shape [1].
    row: tuple[Expr, ...] = tuple(a for a in axes if a is not axes[position]) or (Const(0, INDEX),)
    largest = reduce_max(x, position, name=f"{name}_max")
    exponential = tensor_from_body(f"{name}_exp", axes, call("exp", x[axes] - largest[row]))
    total = reduce_sum(exponential, position, name=f"{name}_sum")
    if logarithm:
        return tensor_from_body(name, axes, x[axes] - largest[row] - call("log", total[row]))
    # The reciprocal, at most 1, does not depend on the axis: one division a row.
    return tensor_from_body(name, axes, exponential[axes] * (1.0 / total[row]))


def _reduction_workload(function: Callable[..., Tensor]) -> Builder:
    def build(*shape: int, axis: int = -1) -> Tensor:
        return function(placeholder(shape, name="x"), axis)

    return build


for _reduction in (reduce_sum, reduce_max, reduce_min, reduce_prod, reduce_mean, softmax, log_softmax):
    _name = _reduction.__name__
    operator(_name, f"{_name}:512,1024,axis=1", f"{_name} of a tensor of any shape over one axis.")(
        _reduction_workload(_reduction)
    )
