"""Scalar expressions: the language in which the value of one tensor element is written.

An expression is an immutable tree of frozen dataclasses. Arithmetic operators build trees and fold constants on the
way, so `axis * 1 + 0` is `axis`. `==` compares structure; use `equal(a, b)` for a comparison that is evaluated when
the program runs. Index expressions have dtype `int64`.

    i = Axis("i", 8)
    value = (i * 2 + 1) % 3            # Binary('mod', ...)
    substitute(value, {"i": Const(4, INDEX)})   # folds to Const(0)
"""

from __future__ import annotations

import math
import operator
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Union

from ansor_py.errors import ExpressionError

if TYPE_CHECKING:
    from ansor_py.te.tensor import Tensor

INDEX = "int64"
DTYPE_BYTES = {"float32": 4, "float64": 8, "int64": 8, "int32": 4, "int8": 1, "uint8": 1, "bool": 1}
FLOAT_DTYPES = ("float32", "float64")

AxisKind = Literal["spatial", "reduction"]
Operand = Union["Expr", int, float, bool]


class Expr:
    """Base of all scalar expressions; carries `dtype` and the arithmetic operators."""

    dtype: str

    def __add__(self, other: Operand) -> Expr:
        return binary("add", self, other)

    def __radd__(self, other: Operand) -> Expr:
        return binary("add", other, self)

    def __sub__(self, other: Operand) -> Expr:
        return binary("sub", self, other)

    def __rsub__(self, other: Operand) -> Expr:
        return binary("sub", other, self)

    def __mul__(self, other: Operand) -> Expr:
        return binary("mul", self, other)

    def __rmul__(self, other: Operand) -> Expr:
        return binary("mul", other, self)

    def __truediv__(self, other: Operand) -> Expr:
        return binary("div", self, other)

    def __rtruediv__(self, other: Operand) -> Expr:
        return binary("div", other, self)

    def __floordiv__(self, other: Operand) -> Expr:
        return binary("floordiv", self, other)

    def __mod__(self, other: Operand) -> Expr:
        return binary("mod", self, other)

    def __neg__(self) -> Expr:
        return binary("sub", Const(0, self.dtype), self)

    def __lt__(self, other: Operand) -> Expr:
        return compare("lt", self, other)

    def __le__(self, other: Operand) -> Expr:
        return compare("le", self, other)

    def __gt__(self, other: Operand) -> Expr:
        return compare("gt", self, other)

    def __ge__(self, other: Operand) -> Expr:
        return compare("ge", self, other)

    def __bool__(self) -> bool:
        raise TypeError("a tensor expression has no truth value while the program is being built; use te.select")


@dataclass(frozen=True)
class Const(Expr):
    """A literal."""

    value: int | float | bool
    dtype: str

    def __str__(self) -> str:
        return _float_text(self.value, self.dtype) if isinstance(self.value, float) else str(self.value)


def _float_text(value: float, dtype: str) -> str:
    """The shortest text, of six digits or more, that means the same number of the dtype: texts identify computations."""
    for digits in (6, 7, 8, 9, 15, 16):
        text = f"{value:.{digits}g}"
        if converted(float(text), dtype) == value:
            return text
    return f"{value:.17g}"


@dataclass(frozen=True)
class Var(Expr):
    """A named scalar, identified by its name within one operation or one loop nest."""

    name: str
    dtype: str = INDEX

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Axis(Var):
    """An iteration variable of an operation, running over `0 <= axis < extent`."""

    extent: int = 1
    kind: AxisKind = "spatial"

    def __init__(self, name: str, extent: int, kind: AxisKind = "spatial") -> None:
        for field, value in (("name", name), ("dtype", INDEX), ("extent", int(extent)), ("kind", kind)):
            object.__setattr__(self, field, value)

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Binary(Expr):
    """Two operands of one dtype. `floordiv` and `mod` round towards minus infinity; `and`/`or` are on bool, the `bit...`
    operators and the shifts (by less than the width; `shr` keeps the sign) on integers."""

    op: str
    left: Expr
    right: Expr

    @property
    def dtype(self) -> str:  # type: ignore[override]
        return self.left.dtype

    def __str__(self) -> str:
        if self.op not in BINARY_SYMBOLS:
            return f"{self.op}({self.left}, {self.right})"
        return f"({self.left} {BINARY_SYMBOLS[self.op]} {self.right})"


@dataclass(frozen=True)
class Compare(Expr):
    """A comparison: `lt le gt ge eq ne`; dtype bool."""

    op: str
    left: Expr
    right: Expr
    dtype: str = "bool"

    def __str__(self) -> str:
        return f"({self.left} {COMPARE_SYMBOLS[self.op]} {self.right})"


@dataclass(frozen=True)
class Not(Expr):
    """Logical negation."""

    value: Expr
    dtype: str = "bool"

    def __str__(self) -> str:
        return f"!{self.value}"


@dataclass(frozen=True)
class Select(Expr):
    """`then` where `condition` holds, else `otherwise`. Reads in the branch not taken are not performed."""

    condition: Expr
    then: Expr
    otherwise: Expr

    @property
    def dtype(self) -> str:  # type: ignore[override]
        return self.then.dtype

    def __str__(self) -> str:
        return f"select({self.condition}, {self.then}, {self.otherwise})"


@dataclass(frozen=True)
class Call(Expr):
    """A mathematical function of its arguments, such as `exp`; the dtype is that of the first argument."""

    function: str
    arguments: tuple[Expr, ...]

    @property
    def dtype(self) -> str:  # type: ignore[override]
        return self.arguments[0].dtype

    def __str__(self) -> str:
        return f"{self.function}({', '.join(map(str, self.arguments))})"


@dataclass(frozen=True)
class Cast(Expr):
    """A conversion to another dtype; float to integer truncates."""

    value: Expr
    dtype: str

    def __str__(self) -> str:
        return f"{self.dtype}({self.value})"


@dataclass(frozen=True)
class Read(Expr):
    """One element of a tensor."""

    tensor: Tensor
    indices: tuple[Expr, ...]

    @property
    def dtype(self) -> str:  # type: ignore[override]
        return self.tensor.dtype

    def __str__(self) -> str:
        return f"{self.tensor.name}[{', '.join(map(str, self.indices))}]"


@dataclass(frozen=True)
class Reduce(Expr):
    """A reduction of `source` over `axes` with `sum`, `max`, `min` or `prod`. Only legal as the body of an operation."""

    combiner: str
    source: Expr
    axes: tuple[Axis, ...]

    @property
    def dtype(self) -> str:  # type: ignore[override]
        return self.source.dtype

    def __str__(self) -> str:
        return f"{self.combiner}({self.source}, axes=[{', '.join(a.name for a in self.axes)}])"


# Binary operators that are missing here are written as functions.
BINARY_SYMBOLS = {
    "add": "+",
    "sub": "-",
    "mul": "*",
    "div": "/",
    "floordiv": "//",
    "mod": "%",
    "and": "&&",
    "or": "||",
}
COMPARE_SYMBOLS = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}
# The binary operator by which a reduction combines two partial results.
COMBINERS = {"sum": "add", "max": "max", "min": "min", "prod": "mul"}
# Functions that code generation knows, of one argument but for `fmod` (x, y).
FUNCTIONS = tuple("exp log sqrt rsqrt tanh erf sigmoid abs floor ceil round sin cos atan fmod".split())

_FOLD: dict[str, Callable[[float, float], float]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "floordiv": operator.floordiv,
    "mod": operator.mod,
    "min": lambda a, b: a if a < b or a != a else b,  # NaN in either operand wins
    "max": lambda a, b: a if a > b or a != a else b,
    "and": lambda a, b: bool(a and b),
    "or": lambda a, b: bool(a or b),
}
_FOLD_COMPARE: dict[str, Callable[[float, float], bool]] = {
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
    "eq": operator.eq,
    "ne": operator.ne,
}


def reduction_identity(combiner: str, dtype: str) -> Const:
    """The value with which a reduction starts: 0, 1, or the lowest or highest value of the dtype."""
    if combiner in ("sum", "prod"):
        value = 0 if combiner == "sum" else 1
        return Const(float(value) if dtype in FLOAT_DTYPES else value, dtype)
    if dtype in FLOAT_DTYPES:
        return Const(-math.inf if combiner == "max" else math.inf, dtype)
    if dtype == "bool":
        return Const(combiner == "min", dtype)
    low, high = integer_limits(dtype)
    return Const(low if combiner == "max" else high, dtype)


def const(value: int | float | bool, dtype: str) -> Const:
    """A literal of the given dtype, the value converted to it as `converted` says."""
    if dtype not in DTYPE_BYTES:
        raise ExpressionError(f"unknown dtype '{dtype}'; known are {', '.join(DTYPE_BYTES)}")
    return Const(converted(value, dtype), dtype)


def converted(value: int | float | bool, dtype: str) -> int | float | bool:
    """A number as the dtype holds it: floats rounded, integers exact and wrapped around as machine arithmetic does.

    Raises ExpressionError for a float that is no whole number where an integer is wanted; `cast` cuts off what is behind the
    point.
    """
    if dtype == "bool":
        return bool(value)
    if dtype == "float64":
        return float(value)
    if dtype == "float32":
        wide = float(value)
        try:
            return float(struct.unpack("<f", struct.pack("<f", wide))[0])
        except OverflowError:
            return math.copysign(math.inf, wide)
    low, high = integer_limits(dtype)
    if isinstance(value, float) and not value.is_integer():
        raise ExpressionError(f"{value} is no number of dtype {dtype}")
    whole = int(value)
    return whole if low <= whole <= high else (whole - low) % (high - low + 1) + low


def integer_limits(dtype: str) -> tuple[int, int]:
    """The smallest and the largest number of an integer dtype."""
    bits = DTYPE_BYTES[dtype] * 8
    return (0, 2**bits - 1) if dtype.startswith("u") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def as_expr(value: Operand, dtype: str) -> Expr:
    """`value` as an expression; Python numbers take `dtype`."""
    return value if isinstance(value, Expr) else const(value, dtype)


def _operands(left: Operand, right: Operand) -> tuple[Expr, Expr]:
    dtype = left.dtype if isinstance(left, Expr) else right.dtype if isinstance(right, Expr) else INDEX
    a, b = as_expr(left, dtype), as_expr(right, dtype)
    if a.dtype != b.dtype:
        raise ExpressionError(f"operands '{a}' ({a.dtype}) and '{b}' ({b.dtype}) have different dtypes; use te.cast")
    return a, b


def binary(op: str, left: Operand, right: Operand) -> Expr:
    """`left op right` with constants folded and neutral elements removed. Floating division folds, integer uses floordiv."""
    a, b = _operands(left, right)
    if op == "div" and a.dtype not in FLOAT_DTYPES:
        raise ExpressionError(f"'/' is for floats; use '//' on '{a}' of dtype {a.dtype}")
    if isinstance(a, Const) and isinstance(b, Const) and op in _FOLD and not (op in ("floordiv", "mod") and b.value == 0):
        return const(_FOLD[op](a.value, b.value), a.dtype)
    zero_a, zero_b = _is_const(a, 0), _is_const(b, 0)
    one_a, one_b = _is_const(a, 1), _is_const(b, 1)
    is_int = a.dtype not in FLOAT_DTYPES
    if op == "add" and (zero_a or zero_b):
        return b if zero_a else a
    if op == "sub" and zero_b:
        return a
    if op == "mul" and (one_a or one_b):
        return b if one_a else a
    if op == "mul" and is_int and (zero_a or zero_b):  # for floats 0 * nan is nan
        return const(0, a.dtype)
    if op in ("div", "floordiv") and one_b:
        return a
    if op == "mod" and one_b and is_int:
        return const(0, a.dtype)
    if op in ("min", "max"):
        for this in (a, b):
            if isinstance(this, Const) and this.value != this.value:  # NaN wins
                return this
    if op in ("and", "or"):
        for this, other in ((a, b), (b, a)):
            if isinstance(this, Const):
                return other if bool(this.value) == (op == "and") else this
    return Binary(op, a, b)


def _is_const(expr: Expr, value: float) -> bool:
    return isinstance(expr, Const) and not isinstance(expr.value, bool) and expr.value == value


def compare(op: str, left: Operand, right: Operand) -> Expr:
    """A comparison, folded when both sides are constant."""
    a, b = _operands(left, right)
    if isinstance(a, Const) and isinstance(b, Const):
        return Const(_FOLD_COMPARE[op](a.value, b.value), "bool")
    return Compare(op, a, b)


def equal(left: Operand, right: Operand) -> Expr:
    """`left == right`, evaluated when the program runs."""
    return compare("eq", left, right)


def logical_and(*conditions: Expr) -> Expr:
    """True where all conditions hold; true for none."""
    result: Expr = Const(True, "bool")
    for condition in conditions:
        result = binary("and", result, condition)
    return result


def logical_or(left: Expr, right: Expr) -> Expr:
    """True where one of the conditions holds."""
    return binary("or", left, right)


def logical_not(value: Expr) -> Expr:
    """True where the condition does not hold."""
    return Const(not value.value, "bool") if isinstance(value, Const) else Not(value)


def minimum(left: Operand, right: Operand) -> Expr:
    """The smaller of two values."""
    return binary("min", left, right)


def maximum(left: Operand, right: Operand) -> Expr:
    """The larger of two values."""
    return binary("max", left, right)


def select(condition: Expr, then: Operand, otherwise: Operand) -> Expr:
    """`then` where the condition holds, else `otherwise`; reads of the branch not taken are not performed."""
    a, b = _operands(then, otherwise)
    if isinstance(condition, Const):
        return a if condition.value else b
    return Select(condition, a, b)


def call(function: str, *arguments: Expr) -> Expr:
    """A mathematical function by name, one of `FUNCTIONS`."""
    if function not in FUNCTIONS:
        raise ExpressionError(f"unknown function '{function}'; known are {', '.join(FUNCTIONS)}")
    return Call(function, arguments)


def cast(value: Expr, dtype: str) -> Expr:
    """Convert to another dtype; floats to integers towards zero, limited to what fits, and NaN to 0."""
    if value.dtype == dtype:
        return value
    if not isinstance(value, Const):
        return Cast(value, dtype)
    number = value.value
    if isinstance(number, float) and dtype not in FLOAT_DTYPES and dtype != "bool":
        low, high = integer_limits(dtype)
        number = 0 if math.isnan(number) else low if number < low else high if number > high else int(number)
    return const(number, dtype)


def children(expr: Expr) -> tuple[Expr, ...]:
    """The direct operands of an expression."""
    match expr:
        case Binary(left=a, right=b) | Compare(left=a, right=b):
            return (a, b)
        case Not(value=value) | Cast(value=value):
            return (value,)
        case Select():
            return (expr.condition, expr.then, expr.otherwise)
        case Call():
            return expr.arguments
        case Read():
            return expr.indices
        case Reduce():
            return (expr.source,)
        case _:
            return ()


def with_children(expr: Expr, new: tuple[Expr, ...]) -> Expr:
    """The same operation on other operands, folded again."""
    match expr:
        case Binary():
            return binary(expr.op, new[0], new[1])
        case Compare():
            return compare(expr.op, new[0], new[1])
        case Not():
            return logical_not(new[0])
        case Cast():
            return cast(new[0], expr.dtype)
        case Select():
            return select(new[0], new[1], new[2])
        case Call():
            return Call(expr.function, new)
        case Read():
            return Read(expr.tensor, new)
        case Reduce():
            return Reduce(expr.combiner, new[0], expr.axes)
        case _:
            return expr


def walk(expr: Expr) -> Iterator[Expr]:
    """All nodes of the tree, parents before children."""
    pending = [expr]
    while pending:  # recursive generators would take most of the time of bound inference
        node = pending.pop()
        yield node
        pending.extend(reversed(children(node)))


def transform(expr: Expr, function: Callable[[Expr], Expr | None]) -> Expr:
    """Rewrite from the leaves up: `function` may return a replacement for a node whose operands are already rewritten.

    It sees every node once: an operation that folds to one of its operands is not offered again, because that operand may
    be a replacement already (`i + j` under `i -> 0, j -> i` is `i`).
    """
    old = children(expr)
    new = tuple(transform(child, function) for child in old)
    if all(a is b for a, b in zip(old, new, strict=True)):
        rebuilt = expr
    else:
        rebuilt = with_children(expr, new)
        if any(rebuilt is child for child in new):
            return rebuilt
    replacement = function(rebuilt)
    return rebuilt if replacement is None else replacement


def substitute(expr: Expr, values: Mapping[str, Expr]) -> Expr:
    """Replace variables by name."""
    return transform(expr, lambda node: values.get(node.name) if isinstance(node, Var) else None)


def reads_of(expr: Expr) -> list[Read]:
    """All tensor reads of an expression, in the order in which they are written."""
    return [node for node in walk(expr) if isinstance(node, Read)]


def variables_of(expr: Expr) -> set[str]:
    """Names of all variables of an expression."""
    return {node.name for node in walk(expr) if isinstance(node, Var)}
