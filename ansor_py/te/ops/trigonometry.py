"""Trigonometric and hyperbolic functions and their inverses, written with exp, log, sqrt, sin, cos and atan.

Each form is chosen so that no digits cancel: near zero, near the ends of the domain, and where a square would overflow.

    y = asinh(x)                                          # a tensor
    z = compute((8,), lambda i: expm1(x[i]))              # a scalar
"""

from __future__ import annotations

import math

from ansor_py.te.expr import Expr, call, const, equal, logical_and, select
from ansor_py.te.ops.elementwise import Value, float_function


def expm1(x: Value, name: str = "expm1") -> Value:
    """exp(x) - 1, exact near zero: there by its series."""

    def of(v: Expr) -> Expr:
        series: Expr = const(1, v.dtype)
        for k in range(8 if v.dtype == "float32" else 15, 1, -1):  # 1 + x / 2 (1 + x / 3 (1 + ...))
            series = series * v * (1 / k) + 1
        return select(logical_and(v > -0.5, v < 0.5), v * series, call("exp", v) - 1)

    return float_function(x, of, name)


def log1p(x: Value, name: str = "log1p") -> Value:
    """log(1 + x), exact near zero (Kahan: the rounding errors of the sum and of the logarithm cancel)."""

    def of(v: Expr) -> Expr:
        u = v + 1
        near = logical_and(v > -0.5, v < 1)
        return select(near, select(equal(u, 1), v, call("log", u) * v / (u - 1)), call("log", u))

    return float_function(x, of, name)


def sin(x: Value, name: str = "sin") -> Value:
    """Sine."""
    return float_function(x, lambda v: call("sin", v), name)


def cos(x: Value, name: str = "cos") -> Value:
    """Cosine."""
    return float_function(x, lambda v: call("cos", v), name)


def tan(x: Value, name: str = "tan") -> Value:
    """Tangent."""
    return float_function(x, lambda v: call("sin", v) / call("cos", v), name)


def atan(x: Value, name: str = "atan") -> Value:
    """The angle in -pi/2 .. pi/2 whose tangent is x."""
    return float_function(x, lambda v: call("atan", v), name)


def asin(x: Value, name: str = "asin") -> Value:
    """The angle in -pi/2 .. pi/2 whose sine is x."""
    return float_function(x, lambda v: call("atan", v / (call("sqrt", (1 - v) * (v + 1)) + 1)) * 2, name)


def acos(x: Value, name: str = "acos") -> Value:
    """The angle in 0 .. pi whose cosine is x."""
    return float_function(x, lambda v: call("atan", call("sqrt", (1 - v) / (v + 1))) * 2, name)


def sinh(x: Value, name: str = "sinh") -> Value:
    """(exp(x) - exp(-x)) / 2."""

    def of(v: Expr) -> Expr:
        size = call("abs", v)
        half = call("exp", size * 0.5)
        large = half * 0.5 * half - 0.5 / (half * half)  # in this order the product overflows where the result does
        square = v * v
        series: Expr = const(1, v.dtype)
        terms = 7 if v.dtype == "float32" else 12
        for k in range(terms, 0, -1):  # 1 + x^2/(2*3) (1 + x^2/(4*5) (1 + ...))
            series = series * square * (1 / (2 * k * (2 * k + 1))) + 1
        return select(size < 1, v * series, select(v < 0, -large, large))

    return float_function(x, of, name)


def cosh(x: Value, name: str = "cosh") -> Value:
    """(exp(x) + exp(-x)) / 2."""

    def of(v: Expr) -> Expr:
        half = call("exp", call("abs", v) * 0.5)
        return half * 0.5 * half + 0.5 / (half * half)

    return float_function(x, of, name)


def asinh(x: Value, name: str = "asinh") -> Value:
    """The inverse of sinh: log(x + sqrt(x^2 + 1))."""

    def of(v: Expr) -> Expr:
        size = call("abs", v)
        far = call("log", size) + math.log(2)
        square = size * size
        near = log1p(size + square / (call("sqrt", square + 1) + 1))
        result = select(size > 1e9, far, near)
        return select(v < 0, -result, result)

    return float_function(x, of, name)


def acosh(x: Value, name: str = "acosh") -> Value:
    """The inverse of cosh for x >= 1: log(x + sqrt(x^2 - 1))."""

    def of(v: Expr) -> Expr:
        t = v - 1
        # Two roots, as the product of both would be positive again below -1, where there is no result.
        return select(v > 1e9, call("log", v) + math.log(2), log1p(t + call("sqrt", t) * call("sqrt", t + 2)))

    return float_function(x, of, name)


def atanh(x: Value, name: str = "atanh") -> Value:
    """The inverse of tanh for |x| < 1: log((1 + x) / (1 - x)) / 2."""

    def of(v: Expr) -> Expr:
        size = call("abs", v)
        half = log1p(size * 2 / (1 - size)) * 0.5
        return select(v < 0, -half, half)

    return float_function(x, of, name)
