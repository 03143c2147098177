"""Tensor expressions evaluated by NumPy: what a kernel would compute, without making one.

Constant folding uses it, so that a value known at compile time is what its definition says, whatever the target. Axes become
index arrays, reads become indexing, reductions become NumPy's; what depends on two axes is an array over both.

    x = placeholder((4, 8), name="x")
    evaluate(softmax(x), {x: array})            # an array [4, 8]
    evaluations(softmax(x))                     # how many elements that computes, reductions included

Casts saturate and turn NaN to 0 as compiled ones do; extremes are NaN where an operand is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ansor_py.errors import ExpressionError
from ansor_py.te.expr import (
    FLOAT_DTYPES,
    Binary,
    Call,
    Cast,
    Compare,
    Const,
    Expr,
    Not,
    Read,
    Reduce,
    Select,
    Var,
    reads_of,
)
from ansor_py.te.tensor import Compute, Tensor

Array: TypeAlias = NDArray[Any]


def _divisor(array: Array) -> Array:
    """1 in place of an integer 0: the quotient is unspecified, and compiled code divides by this."""
    return array if array.dtype.kind == "f" else np.where(array == 0, np.asarray(1, array.dtype), array)


# What the operators of `Binary` and `Compare` do to arrays.
BINARY_FUNCTIONS: dict[str, Callable[..., Array]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.true_divide,
    "floordiv": lambda a, b: np.floor_divide(a, _divisor(b)),
    "mod": lambda a, b: np.mod(a, _divisor(b)),
    "min": np.minimum,
    "max": np.maximum,
    "pow": np.power,
    "and": np.logical_and,
    "or": np.logical_or,
    "bitand": np.bitwise_and,
    "bitor": np.bitwise_or,
    "bitxor": np.bitwise_xor,
    "shl": np.left_shift,
    "shr": np.right_shift,
}
COMPARE_FUNCTIONS: dict[str, Callable[..., Array]] = {
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "eq": np.equal,
    "ne": np.not_equal,
}
_REDUCE: dict[str, Callable[..., Array]] = {
    "sum": lambda x, axis: np.sum(x, axis=axis, dtype=x.dtype),
    "prod": lambda x, axis: np.prod(x, axis=axis, dtype=x.dtype),
    "max": np.max,
    "min": np.min,
}
_FUNCTIONS: dict[str, Callable[..., Array]] = {
    "exp": np.exp,
    "log": np.log,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: (1 / np.sqrt(x)).astype(x.dtype),
    "tanh": np.tanh,
    "erf": lambda x: np.vectorize(math.erf, otypes=[np.float64])(x).astype(x.dtype),
    "sigmoid": lambda x: (1 / (1 + np.exp(-x))).astype(x.dtype),
    "abs": np.abs,
    "floor": np.floor,
    "ceil": np.ceil,
    "round": np.round,
    "sin": np.sin,
    "cos": np.cos,
    "atan": np.arctan,
    "fmod": np.fmod,
}


def evaluate(tensor: Tensor, feed: Mapping[Tensor, Array]) -> Array:
    """The value of `tensor` for the values of all placeholders below it. Every tensor between is evaluated once."""
    values = dict(feed)
    with np.errstate(all="ignore"):
        for stage in _stages(tensor):
            if stage not in values:
                values[stage] = _computed(stage, values)
    return values[tensor]


def evaluations(tensor: Tensor) -> int:
    """How many elements `evaluate` computes, each as often as reductions do."""
    stages = (stage.op for stage in _stages(tensor))
    return sum(math.prod(axis.extent for axis in (*op.axes, *op.reduce_axes)) for op in stages if isinstance(op, Compute))


def saturating_cast(array: Array, dtype: str) -> Array:
    """A conversion as compiled code makes it: floats to integers towards zero, limited to what fits, and NaN to 0."""
    if dtype == "bool":
        return np.asarray(array != 0)
    if array.dtype.kind != "f" or dtype in FLOAT_DTYPES:
        return array.astype(dtype)
    limits = np.iinfo(dtype)
    whole = np.trunc(np.where(np.isnan(array), 0, array)).astype(np.float64)
    # The largest integers are no floats: what reaches 2**63 is the limit itself, and is put in afterwards.
    inside = np.where((whole >= limits.min) & (whole < limits.max), whole, 0).astype(dtype)
    above = np.where(whole >= limits.max, np.asarray(limits.max, dtype), inside)
    return np.asarray(np.where(whole < limits.min, np.asarray(limits.min, dtype), above), dtype)


def _stages(tensor: Tensor) -> list[Tensor]:
    """The tensor and all below it, what is read before what reads it."""
    order: dict[Tensor, None] = {}
    waiting = [(tensor, False)]
    while waiting:
        stage, is_done = waiting.pop()
        if stage in order:
            continue
        if is_done or not isinstance(stage.op, Compute):
            order[stage] = None
            continue
        waiting.append((stage, True))
        waiting.extend((read.tensor, False) for read in reads_of(stage.op.body))
    return list(order)


def _computed(tensor: Tensor, values: Mapping[Tensor, Array]) -> Array:
    op = tensor.op
    if not isinstance(op, Compute):
        raise ExpressionError(f"tensor '{tensor.name}' has no value")
    axes = (*op.axes, *op.reduce_axes)
    grid: dict[str, Array] = {}
    for position, axis in enumerate(axes):
        shape = [1] * len(axes)
        shape[position] = axis.extent
        grid[axis.name] = np.arange(axis.extent, dtype=np.int64).reshape(shape)
    scope = _Scope(values, grid, tuple(axis.extent for axis in axes))
    if isinstance(op.body, Reduce):
        terms = np.broadcast_to(scope.value(op.body.source), scope.extents)
        inner = tuple(range(len(op.axes), len(axes)))
        result = _REDUCE[op.body.combiner](terms, axis=inner)
    else:
        result = np.broadcast_to(scope.value(op.body), scope.extents)
    return np.ascontiguousarray(result, dtype=tensor.dtype).reshape(tensor.shape)


class _Scope:
    """Expressions over some index arrays; each expression is evaluated once, however often it is used."""

    def __init__(self, values: Mapping[Tensor, Array], grid: Mapping[str, Array], extents: tuple[int, ...]) -> None:
        self.values = values
        self.grid = grid
        self.extents = extents
        self._known: dict[int, Array] = {}

    def value(self, expr: Expr) -> Array:
        """The value of an expression; it can be broadcast to the extents."""
        known = self._known.get(id(expr))
        if known is None:
            known = self._known[id(expr)] = self._value(expr)
        return known

    def _value(self, expr: Expr) -> Array:
        match expr:
            case Const():
                return np.asarray(expr.value, dtype=expr.dtype)
            case Var():
                return self.grid[expr.name]
            case Binary():
                return np.asarray(BINARY_FUNCTIONS[expr.op](self.value(expr.left), self.value(expr.right)))
            case Compare():
                return np.asarray(COMPARE_FUNCTIONS[expr.op](self.value(expr.left), self.value(expr.right)))
            case Not():
                return np.logical_not(self.value(expr.value))
            case Cast():
                return saturating_cast(self.value(expr.value), expr.dtype)
            case Call():
                return np.asarray(_FUNCTIONS[expr.function](*(self.value(argument) for argument in expr.arguments)))
            case Select():
                return self._select(expr)
            case Read():
                return np.asarray(self.values[expr.tensor][tuple(self.value(index) for index in expr.indices)])
        raise ExpressionError(f"expression '{expr}' has no value of its own")

    def _select(self, expr: Select) -> Array:
        """Reads of a branch are performed only where it is taken, because they may lie outside elsewhere."""
        if not reads_of(expr.then) and not reads_of(expr.otherwise):
            return np.where(self.value(expr.condition), self.value(expr.then), self.value(expr.otherwise))
        condition = np.broadcast_to(self.value(expr.condition), self.extents)
        result = np.zeros(self.extents, expr.dtype)
        for mask, branch in ((condition, expr.then), (~condition, expr.otherwise)):
            taken = {name: np.broadcast_to(places, self.extents)[mask] for name, places in self.grid.items()}
            result[mask] = _Scope(self.values, taken, (int(np.count_nonzero(mask)),)).value(branch)
        return result
