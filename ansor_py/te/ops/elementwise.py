"""Element-wise functions and broadcasting arithmetic.

Functions of one value take a tensor or a scalar expression, so that `te.exp` serves both as an operator and inside
`te.compute`. Arithmetic follows NumPy's broadcasting; a Python number stands for a scalar of the other's dtype.

    y = relu(add(x, bias))                                    # tensors
    z = compute((8,), lambda i: exp(x[i]) + maximum(x[i], 0))   # scalars
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import TypeVar, overload

from ansor_py.te import expr
from ansor_py.te.expr import Expr, Operand, call, select
from ansor_py.te.ops.checks import axes_of, broadcast_index, broadcast_shape, require, require_float, require_same_dtype
from ansor_py.te.ops.registry import Builder, operator
from ansor_py.te.tensor import Tensor, placeholder, tensor_from_body

Value = TypeVar("Value", Tensor, Expr)
TensorOrNumber = Tensor | int | float


@overload
def map_elements(x: Tensor, function: Callable[[Expr], Expr], name: str) -> Tensor: ...
@overload
def map_elements(x: Expr, function: Callable[[Expr], Expr], name: str) -> Expr: ...
def map_elements(x: Tensor | Expr, function: Callable[[Expr], Expr], name: str) -> Tensor | Expr:
    """`function` of every element of a tensor, or of a scalar."""
    if isinstance(x, Expr):
        return function(x)
    axes = axes_of(x.shape)
    return tensor_from_body(name, axes, function(x[axes]))


def float_function(x: Value, function: Callable[[Expr], Expr], name: str) -> Value:
    """`map_elements` that refuses tensors of integers."""
    if isinstance(x, Tensor):
        require_float(name, x)
    return map_elements(x, function, name)


def relu(x: Value, name: str = "relu") -> Value:
    """The larger of x and 0."""
    return map_elements(x, lambda v: expr.maximum(v, 0), name)


def leaky_relu(x: Value, alpha: float = 0.01, name: str = "leaky_relu") -> Value:
    """x where it is positive, else alpha * x."""
    return float_function(x, lambda v: select(v > 0, v, v * alpha), name)


def clip(x: Value, low: float | None = None, high: float | None = None, name: str = "clip") -> Value:
    """x limited to `low <= x <= high`; None is no limit."""
    require(low is None or high is None or low <= high, "clip", f"the lower limit {low} is above the upper limit {high}")

    def limited(v: Expr) -> Expr:
        v = v if low is None else expr.maximum(v, low)
        return v if high is None else expr.minimum(v, high)

    return map_elements(x, limited, name)


def sigmoid(x: Value, name: str = "sigmoid") -> Value:
    """1 / (1 + exp(-x))."""
    return float_function(x, functools.partial(call, "sigmoid"), name)


def tanh(x: Value, name: str = "tanh") -> Value:
    """Hyperbolic tangent."""
    return float_function(x, functools.partial(call, "tanh"), name)


def exp(x: Value, name: str = "exp") -> Value:
    """Exponential."""
    return float_function(x, functools.partial(call, "exp"), name)


def log(x: Value, name: str = "log") -> Value:
    """Natural logarithm."""
    return float_function(x, functools.partial(call, "log"), name)


def sqrt(x: Value, name: str = "sqrt") -> Value:
    """Square root."""
    return float_function(x, functools.partial(call, "sqrt"), name)


def erf(x: Value, name: str = "erf") -> Value:
    """The error function."""
    return float_function(x, functools.partial(call, "erf"), name)


def floor(x: Value, name: str = "floor") -> Value:
    """The next lower whole number."""
    return float_function(x, functools.partial(call, "floor"), name)


def ceil(x: Value, name: str = "ceil") -> Value:
    """The next higher whole number."""
    return float_function(x, functools.partial(call, "ceil"), name)


def abs(x: Value, name: str = "abs") -> Value:
    """Absolute value."""
    return map_elements(x, functools.partial(call, "abs"), name)


def neg(x: Value, name: str = "neg") -> Value:
    """Minus x."""
    return map_elements(x, lambda v: -v, name)


def reciprocal(x: Value, name: str = "reciprocal") -> Value:
    """1 / x."""
    return float_function(x, lambda v: 1 / v, name)


def round(x: Value, name: str = "round") -> Value:
    """The nearest whole number, halves to the even one."""
    return float_function(x, functools.partial(call, "round"), name)


def sign(x: Value, name: str = "sign") -> Value:
    """1, 0 or -1."""
    return map_elements(x, lambda v: select(v > 0, expr.const(1, v.dtype), _negative_sign(v)), name)


def _negative_sign(v: Expr) -> Expr:
    return v if v.dtype in ("uint8", "bool") else select(v < 0, expr.const(-1, v.dtype), v)


def is_nan(x: Value, name: str = "is_nan") -> Value:
    """Whether x is not a number."""
    return float_function(x, lambda v: expr.compare("ne", v, v), name)


def is_inf(x: Value, negative: bool = True, positive: bool = True, name: str = "is_inf") -> Value:
    """Whether x is infinite, of one of the signs asked for."""

    def infinite(v: Expr) -> Expr:
        below = expr.equal(v, -math.inf) if negative else expr.const(False, "bool")
        return expr.logical_or(below, expr.equal(v, math.inf)) if positive else below

    return float_function(x, infinite, name)


def cast(x: Value, dtype: str, name: str = "cast") -> Value:
    """Convert to another dtype; float to integer truncates."""
    return map_elements(x, lambda v: expr.cast(v, dtype), name)


def broadcast(function: Callable[[Expr, Expr], Expr], a: TensorOrNumber, b: TensorOrNumber, name: str) -> Tensor:
    """`function` of two operands, element by element, broadcast by NumPy's rules; one of them must be a tensor."""
    tensors = [operand for operand in (a, b) if isinstance(operand, Tensor)]
    require(bool(tensors), name, "at least one operand must be a tensor")
    require_same_dtype(name, *tensors)
    axes = axes_of(broadcast_shape(name, [tensor.shape for tensor in tensors], *tensors))
    values = [v[broadcast_index(v.shape, axes)] if isinstance(v, Tensor) else expr.const(v, tensors[0].dtype) for v in (a, b)]
    return tensor_from_body(name, axes, function(values[0], values[1]))


def add(a: TensorOrNumber, b: TensorOrNumber, name: str = "add") -> Tensor:
    """a + b, broadcast."""
    return broadcast(lambda x, y: x + y, a, b, name)


def subtract(a: TensorOrNumber, b: TensorOrNumber, name: str = "subtract") -> Tensor:
    """a - b, broadcast."""
    return broadcast(lambda x, y: x - y, a, b, name)


def multiply(a: TensorOrNumber, b: TensorOrNumber, name: str = "multiply") -> Tensor:
    """a * b, broadcast."""
    return broadcast(lambda x, y: x * y, a, b, name)


def divide(a: TensorOrNumber, b: TensorOrNumber, name: str = "divide") -> Tensor:
    """a / b, broadcast; floats only."""
    require_float(name, *(operand for operand in (a, b) if isinstance(operand, Tensor)))
    return broadcast(lambda x, y: x / y, a, b, name)


def power(a: TensorOrNumber, b: TensorOrNumber, name: str = "power") -> Tensor:
    """a to the power of b, broadcast; floats only. The exponents 2, 3 and 0.5 are products and a square root."""
    require_float(name, *(operand for operand in (a, b) if isinstance(operand, Tensor)))
    simple: dict[float, Callable[[Expr], Expr]] = {1: lambda v: v, 2: lambda v: v * v, 3: lambda v: v * v * v}
    simple[0.5] = functools.partial(call, "sqrt")
    if isinstance(a, Tensor) and not isinstance(b, Tensor) and b in simple:
        return map_elements(a, simple[b], name)
    return broadcast(lambda x, y: expr.binary("pow", x, y), a, b, name)


@overload
def maximum(a: Tensor, b: TensorOrNumber, name: str = ...) -> Tensor: ...
@overload
def maximum(a: int | float, b: Tensor, name: str = ...) -> Tensor: ...
@overload
def maximum(a: Operand, b: Operand, name: str = ...) -> Expr: ...
def maximum(a: Tensor | Operand, b: Tensor | Operand, name: str = "maximum") -> Tensor | Expr:
    """The larger of two tensors, broadcast, or of two scalars."""
    return _tensors_or_scalars(expr.maximum, a, b, name)


@overload
def minimum(a: Tensor, b: TensorOrNumber, name: str = ...) -> Tensor: ...
@overload
def minimum(a: int | float, b: Tensor, name: str = ...) -> Tensor: ...
@overload
def minimum(a: Operand, b: Operand, name: str = ...) -> Expr: ...
def minimum(a: Tensor | Operand, b: Tensor | Operand, name: str = "minimum") -> Tensor | Expr:
    """The smaller of two tensors, broadcast, or of two scalars."""
    return _tensors_or_scalars(expr.minimum, a, b, name)


def _tensors_or_scalars(
    function: Callable[[Operand, Operand], Expr], a: Tensor | Operand, b: Tensor | Operand, name: str
) -> Tensor | Expr:
    if not isinstance(a, Expr) and not isinstance(b, Expr) and (isinstance(a, Tensor) or isinstance(b, Tensor)):
        return broadcast(function, a, b, name)
    require(not isinstance(a, Tensor) and not isinstance(b, Tensor), name, "a tensor and a scalar expression cannot be mixed")
    return function(a, b)  # type: ignore[arg-type]  # no tensor among them


def _unary_workload(function: Callable[[Tensor], Tensor]) -> Builder:
    return lambda *shape: function(placeholder(shape, name="x"))


def _binary_workload(function: Callable[[Tensor, Tensor], Tensor]) -> Builder:
    return lambda *shape: function(placeholder(shape, name="a"), placeholder(shape, name="b"))


for _unary in (relu, leaky_relu, sigmoid, tanh, exp, log, sqrt, erf, abs, neg):
    _summary = f"Element-wise {_unary.__name__} of a tensor of any shape."
    operator(_unary.__name__, f"{_unary.__name__}:1,64,56,56", _summary)(_unary_workload(_unary))
for _binary in (add, subtract, multiply, divide, maximum, minimum, power):
    _summary = f"Element-wise {_binary.__name__} of two tensors of one shape."
    operator(_binary.__name__, f"{_binary.__name__}:1,64,56,56", _summary)(_binary_workload(_binary))


@operator("clip", example="clip:1,64,56,56")
def clip_workload(*shape: int, low: int = 0, high: int = 6) -> Tensor:
    """Element-wise limit of a tensor of any shape to low..high."""
    return clip(placeholder(shape, name="x"), low, high)
