"""How many operations of each kind one evaluation of a statement does, counted on its formula.

An addition or subtraction with a multiplication among its operands counts as one multiply-add. Arithmetic on loop
indices (integers that come from no read) is not counted: strides and touched bytes say what it costs. Both branches of
a select count.

    count_operations(body).float_mad          # 1 for sum(A[i, k] * B[k, j])
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from ansor_py.te.expr import FLOAT_DTYPES, Binary, Call, Cast, Compare, Expr, Not, Read, Reduce, Select, children, walk

_CLASSES = {"add": "addsub", "sub": "addsub", "mul": "mul", "div": "divmod", "floordiv": "divmod", "mod": "divmod"}
_CLASSES |= {"min": "cmp", "max": "cmp", "pow": "math"}
_COMBINERS = {"sum": "add", "prod": "mul", "max": "max", "min": "min"}


@dataclass(frozen=True)
class OperationCounts:
    """Operations of one iteration. `cmp` holds minimum and maximum too, `math` functions and powers, `other` casts."""

    float_mad: int = 0
    float_addsub: int = 0
    float_mul: int = 0
    float_divmod: int = 0
    float_cmp: int = 0
    float_math: int = 0
    float_other: int = 0
    int_mad: int = 0
    int_addsub: int = 0
    int_mul: int = 0
    int_divmod: int = 0
    int_cmp: int = 0
    bool_op: int = 0
    select: int = 0

    @cached_property
    def column(self) -> NDArray[np.float64]:
        """All counts below each other, float64[kinds, 1]."""
        return np.array([[getattr(self, name)] for name in COUNT_FIELDS], dtype=np.float64)

    @cached_property
    def float_flops(self) -> int:
        """Floating-point operations; a multiply-add is two."""
        return self.float_mad + sum(int(getattr(self, name)) for name in FLOAT_FIELDS)


COUNT_FIELDS = tuple(item.name for item in fields(OperationCounts))
FLOAT_FIELDS = tuple(name for name in COUNT_FIELDS if name.startswith("float_"))


@lru_cache(maxsize=4096)
def count_operations(body: Expr) -> OperationCounts:
    """Count a stage's formula; a reduction counts its combination with the accumulator. Kept, as they are asked for often."""
    counts = dict.fromkeys(COUNT_FIELDS, 0)
    if isinstance(body, Reduce):
        _count_arithmetic(_COMBINERS[body.combiner], body.dtype, (body.source,), counts)
    else:
        _count(body, counts)
    return OperationCounts(**counts)


def _count(expr: Expr, counts: dict[str, int]) -> None:
    if isinstance(expr, Read) or _is_index(expr):
        return
    if isinstance(expr, Binary) and expr.op in _CLASSES:
        _count_arithmetic(expr.op, expr.dtype, (expr.left, expr.right), counts)
        return
    if isinstance(expr, Compare):
        counts[f"{_kind(expr.left.dtype)}_cmp"] += 1
    elif isinstance(expr, Binary | Not):
        counts["bool_op"] += 1
    elif isinstance(expr, Select):
        counts["select"] += 1
    elif isinstance(expr, Call):
        counts["float_math"] += 1
    elif isinstance(expr, Cast):
        counts["float_other"] += 1
    for child in children(expr):
        _count(child, counts)


def _count_arithmetic(op: str, dtype: str, operands: tuple[Expr, ...], counts: dict[str, int]) -> None:
    kind, name = _kind(dtype), _CLASSES[op]
    if name == "addsub":
        products = (item for item in operands if isinstance(item, Binary) and item.op == "mul" and not _is_index(item))
        product = next(products, None)
        if product is not None:
            counts[f"{kind}_mad"] += 1
            for operand in operands:
                for item in children(operand) if operand is product else (operand,):
                    _count(item, counts)
            return
    counts["float_math" if name == "math" else f"{kind}_{name}"] += 1
    for operand in operands:
        _count(operand, counts)


def _kind(dtype: str) -> str:
    return "float" if dtype in FLOAT_DTYPES else "int"


def _is_index(expr: Expr) -> bool:
    """Whether an integer expression depends on loop indices and constants only."""
    return _kind(expr.dtype) == "int" and expr.dtype != "bool" and not any(isinstance(node, Read) for node in walk(expr))
