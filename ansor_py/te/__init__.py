"""Tensor expressions: tensors, scalar expressions, and the operators built from them.

    from ansor_py import te

    a, b = te.placeholder((64, 32), name="A"), te.placeholder((32, 16), name="B")
    k = te.reduce_axis(32, "k")
    c = te.compute((64, 16), lambda i, j: te.reduce_sum(a[i, k] * b[k, j], k), name="C")
    d = te.relu(te.add(c, te.placeholder((16,), name="bias")))

Functions such as `te.exp`, `te.maximum`, `te.cast` and `te.reduce_sum` take tensors and scalar expressions alike.
"""

from __future__ import annotations

from ansor_py.te import ops
from ansor_py.te.expr import (
    Axis,
    Const,
    Expr,
    Read,
    Reduce,
    Var,
    call,
    const,
    equal,
    logical_and,
    logical_not,
    logical_or,
    select,
)
from ansor_py.te.ops import *  # noqa: F403  # the operators are this namespace; `ops.__all__` lists them
from ansor_py.te.tensor import Compute, Placeholder, Tensor, compute, placeholder, reduce_axis, tensor_from_body

__all__ = [
    "Axis",
    "Compute",
    "Const",
    "Expr",
    "Placeholder",
    "Read",
    "Reduce",
    "Tensor",
    "Var",
    "call",
    "compute",
    "const",
    "equal",
    "logical_and",
    "logical_not",
    "logical_or",
    "placeholder",
    "reduce_axis",
    "select",
    "tensor_from_body",
]
__all__ += ops.__all__
