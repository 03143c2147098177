"""How many operations of each kind one evaluation of a statement does, counted on its formula.

A value that the formula uses several times is computed once, and counts once. An addition or subtraction with a multiplication
among its operands, which nothing else uses, counts with it as one multiply-add. Arithmetic on loop indices (integers that come
from no read) is not counted: strides and touched bytes say what it costs. Both branches of a select count.

    count_operations(body).float_mad          # 1 for sum(A[i, k] * B[k, j])
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from ansor_py.schedule.access import rows_of_table
from ansor_py.te.expr import FLOAT_DTYPES, Binary, Call, Cast, Compare, Expr, Not, Read, Reduce, Select, postorder, shared

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
    """Count a stage's formula; a reduction counts its combination with the accumulator. Kept, as they are asked for often.

    Of a table by the value of an axis, whose loop is unrolled, the rows count in the mean.
    """
    rows = rows_of_table(body)
    if len(rows) > 1:
        counted = [vars(count_operations(row)) for row in rows]
        return OperationCounts(**{name: -(-sum(row[name] for row in counted) // len(rows)) for name in COUNT_FIELDS})
    formula = shared(body.source if isinstance(body, Reduce) else body)
    nodes = _computed(formula)
    uses = Counter(id(operand) for node in nodes for operand in node.operands)
    counts = dict.fromkeys(COUNT_FIELDS, 0)
    added: set[int] = set()  # products that count with the sum that uses them
    if isinstance(body, Reduce):
        uses[id(formula)] += 1
        counts[_field(_COMBINERS[body.combiner], body.dtype, (formula,), uses, added)] += 1
    for node in nodes:  # a sum comes before the products in it
        if id(node) in added:
            continue
        if isinstance(node, Binary) and node.op in _CLASSES:
            counts[_field(node.op, node.dtype, node.operands, uses, added)] += 1
        elif isinstance(node, Compare):
            counts[f"{_kind(node.left.dtype)}_cmp"] += 1
        elif type(node) in _OTHERS:
            counts[_OTHERS[type(node)]] += 1
    return OperationCounts(**counts)


@lru_cache(maxsize=4096)
def mask_operations(body: Expr) -> int:
    """How many of a formula's operations make conditions on loop indices alone, as the frame of a padded input has them."""
    formula = shared(body.source if isinstance(body, Reduce) else body)
    return sum(node.dtype == "bool" and not node.has_reads for node in _computed(formula))


_OTHERS = {Binary: "bool_op", Not: "bool_op", Select: "select", Call: "float_math", Cast: "float_other"}


def _computed(formula: Expr) -> list[Expr]:
    """What is computed for a formula, each value once, what uses a value before it; neither reads nor indices."""
    found = [node for node in postorder(formula, _is_given) if not _is_given(node)]
    return found[::-1]


def _is_given(expr: Expr) -> bool:
    """Whether a value is read, or depends on loop indices and constants only."""
    is_index = _kind(expr.dtype) == "int" and expr.dtype != "bool" and not expr.has_reads
    return isinstance(expr, Read) or is_index


def _field(op: str, dtype: str, operands: tuple[Expr, ...], uses: Counter[int], added: set[int]) -> str:
    """What an operation counts as; a product that becomes a part of it is added to those."""
    kind, name = _kind(dtype), _CLASSES[op]
    if name == "addsub":
        for operand in operands:
            if isinstance(operand, Binary) and operand.op == "mul" and uses[id(operand)] == 1 and not _is_given(operand):
                added.add(id(operand))
                return f"{kind}_mad"
    return "float_math" if name == "math" else f"{kind}_{name}"


def _kind(dtype: str) -> str:
    return "float" if dtype in FLOAT_DTYPES else "int"
