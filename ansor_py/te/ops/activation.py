"""Activation functions of neural networks, of tensors or scalar expressions.

y = gelu(x)
y = elu(x, alpha=0.5)
z = compute((8,), lambda i: softplus(x[i]))
"""

from __future__ import annotations

import math

from ansor_py.te import expr
from ansor_py.te.expr import Expr, call, const, select
from ansor_py.te.ops.elementwise import Value, float_function
from ansor_py.te.ops.registry import Builder, operator
from ansor_py.te.ops.trigonometry import expm1, log1p
from ansor_py.te.tensor import Tensor, placeholder


def gelu(x: Value, tanh_approximation: bool = False, name: str = "gelu") -> Value:
    """x * (1 + erf(x / sqrt(2))) / 2, exactly or with a tanh in place of the erf."""
    if tanh_approximation:
        scale = math.sqrt(2 / math.pi)
        return float_function(x, lambda v: v * 0.5 * (call("tanh", (v + v * v * v * 0.044715) * scale) + 1.0), name)
    return float_function(x, lambda v: v * 0.5 * (call("erf", v * (1 / math.sqrt(2))) + 1.0), name)


def silu(x: Value, alpha: float = 1.0, name: str = "silu") -> Value:
    """x * sigmoid(alpha * x), also called swish."""
    return float_function(x, lambda v: v * call("sigmoid", v * alpha), name)


def hard_sigmoid(x: Value, alpha: float = 0.2, beta: float = 0.5, name: str = "hard_sigmoid") -> Value:
    """alpha * x + beta, limited to 0 and 1."""
    return float_function(x, lambda v: expr.minimum(expr.maximum(v * alpha + beta, 0), 1), name)


def hard_swish(x: Value, name: str = "hard_swish") -> Value:
    """x * hard_sigmoid(x) with slope 1 / 6."""
    return float_function(x, lambda v: v * expr.minimum(expr.maximum(v * (1 / 6) + 0.5, 0), 1), name)


def elu(x: Value, alpha: float = 1.0, name: str = "elu") -> Value:
    """x where it is positive, else alpha * (exp(x) - 1)."""
    return float_function(x, lambda v: select(v > 0, v, expm1(v) * alpha), name)


def selu(x: Value, alpha: float = 1.6732632, gamma: float = 1.0507010, name: str = "selu") -> Value:
    """gamma * elu(x, alpha)."""
    return float_function(x, lambda v: select(v > 0, v, expm1(v) * alpha) * gamma, name)


def celu(x: Value, alpha: float = 1.0, name: str = "celu") -> Value:
    """x where it is positive, else alpha * (exp(x / alpha) - 1)."""
    return float_function(x, lambda v: select(v > 0, v, expm1(v * (1 / alpha)) * alpha), name)


def softplus(x: Value, name: str = "softplus") -> Value:
    """log(exp(x) + 1), without overflow."""
    return float_function(x, lambda v: expr.maximum(v, 0) + log1p(call("exp", -call("abs", v))), name)


def softsign(x: Value, name: str = "softsign") -> Value:
    """x / (1 + |x|)."""
    return float_function(x, lambda v: v / (call("abs", v) + 1), name)


def mish(x: Value, name: str = "mish") -> Value:
    """x * tanh(softplus(x))."""

    def of(v: Expr) -> Expr:
        # tanh(log(1 + e)) = ((1 + e)^2 - 1) / ((1 + e)^2 + 1) = e (e + 2) / (e (e + 2) + 2); at 20 it is 1.
        e = call("exp", expr.minimum(v, 20))
        squared = e * (e + 2)
        return v * (squared / (squared + 2))

    return float_function(x, of, name)


def thresholded_relu(x: Value, alpha: float = 1.0, name: str = "thresholded_relu") -> Value:
    """x where it is above alpha, else 0."""
    return float_function(x, lambda v: select(v > alpha, v, const(0, v.dtype)), name)


def shrink(x: Value, lambd: float = 0.5, bias: float = 0.0, name: str = "shrink") -> Value:
    """x + bias below -lambd, x - bias above lambd, 0 between."""

    def of(v: Expr) -> Expr:
        return select(v < -lambd, v + bias, select(v > lambd, v - bias, const(0, v.dtype)))

    return float_function(x, of, name)


def _workload(function: object) -> Builder:
    def build(*shape: int) -> Tensor:
        return function(placeholder(shape, name="x"))  # type: ignore[operator,no-any-return]  # an activation

    return build


for _activation in (gelu, silu, hard_swish, elu, selu, softplus, mish):
    _name = _activation.__name__
    operator(_name, f"{_name}:1,64,56,56", f"Element-wise {_name} of a tensor of any shape.")(_workload(_activation))
