"""The nodes of scalar expressions, and the rules by which operations on constants fold when they are built.

`ansor_py.te.expr` is where the rest of the package takes them from, beside the functions that work on whole expressions.
"""

from __future__ import annotations

import math
import operator
import struct
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Union

from ansor_py.errors import ExpressionError
from ansor_py.te.expression_graph import expression_text, same_structure, structural_hash

if TYPE_CHECKING:
    from ansor_py.te.tensor import Tensor

INDEX = "int64"
DTYPE_BYTES = {"float32": 4, "float64": 8, "int64": 8, "int32": 4, "int8": 1, "uint8": 1, "bool": 1}
FLOAT_DTYPES = ("float32", "float64")

AxisKind = Literal["spatial", "reduction"]
Operand = Union["Expr", int, float, bool]

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
# What a node remembers of itself: hash values hold in one process only, and all of it is quickly found again.
_REMEMBERED = ("_hash", "_variables")


class Expr:
    """Base of all scalar expressions; carries `dtype` and the arithmetic operators.

    `operands` are the nodes right below, `label` is everything else that makes the node what it is. `has_reads`: some node at
    or below it reads a tensor.
    """

    dtype: str
    operands: tuple[Expr, ...] = ()
    has_reads: bool = False

    @property
    def label(self) -> tuple[object, ...]:
        """What tells the node from others of its class with the same operands."""
        return ()

    # Checked by mypy, without `ABC` as the base: walks through formulas ask `isinstance`, which would take three times as long.
    @abstractmethod
    def written(self, operands: Sequence[str]) -> str:
        """The node's text, given those of its operands."""

    def __str__(self) -> str:
        return expression_text(self)

    def __repr__(self) -> str:
        return f"<{self.dtype} {self}>"

    def __hash__(self) -> int:
        known: int | None = self.__dict__.get("_hash")
        return structural_hash(self) if known is None else known

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return isinstance(other, Expr) and self.__class__ is other.__class__ and same_structure(self, other)

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in self.__dict__.items() if name not in _REMEMBERED}

    def _note(self, dtype: str, *operands: Expr) -> None:
        """Set what is asked of a node often, when it is made."""
        has_reads = any(operand.has_reads for operand in operands)
        self.__dict__.update(dtype=dtype, operands=operands, has_reads=has_reads)

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


@dataclass(frozen=True, eq=False, repr=False)
class Const(Expr):
    """A literal."""

    value: int | float | bool
    dtype: str

    @property
    def label(self) -> tuple[object, ...]:
        # 0.0 and -0.0 are equal as numbers, but 1 divided by them is not.
        return (self.value, self.dtype, self.value == 0 and math.copysign(1.0, self.value))

    def written(self, operands: Sequence[str]) -> str:
        return _float_text(self.value, self.dtype) if isinstance(self.value, float) else str(self.value)


def _float_text(value: float, dtype: str) -> str:
    """The shortest text, of six digits or more, that means the same number of the dtype: texts identify computations."""
    for digits in (6, 7, 8, 9, 15, 16):
        text = f"{value:.{digits}g}"
        if converted(float(text), dtype) == value:
            return text
    return f"{value:.17g}"


@dataclass(frozen=True, eq=False, repr=False)
class Var(Expr):
    """A named scalar, identified by its name within one operation or one loop nest."""

    name: str
    dtype: str = INDEX

    @property
    def label(self) -> tuple[object, ...]:
        return (self.name, self.dtype)

    def written(self, operands: Sequence[str]) -> str:
        return self.name


@dataclass(frozen=True, eq=False, repr=False)
class Axis(Var):
    """An iteration variable of an operation, running over `0 <= axis < extent`."""

    extent: int = 1
    kind: AxisKind = "spatial"

    def __init__(self, name: str, extent: int, kind: AxisKind = "spatial") -> None:
        for field_name, value in (("name", name), ("dtype", INDEX), ("extent", int(extent)), ("kind", kind)):
            object.__setattr__(self, field_name, value)

    @property
    def label(self) -> tuple[object, ...]:
        return (self.name, self.extent, self.kind)


@dataclass(frozen=True, eq=False, repr=False)
class Binary(Expr):
    """Two operands of one dtype. `floordiv` and `mod` round towards minus infinity; `and`/`or` are on bool, the `bit...`
    operators and the shifts (by less than the width; `shr` keeps the sign) on integers."""

    op: str
    left: Expr
    right: Expr
    dtype: str = field(init=False)

    def __post_init__(self) -> None:
        self._note(self.left.dtype, self.left, self.right)

    @property
    def label(self) -> tuple[object, ...]:
        return (self.op,)

    def written(self, operands: Sequence[str]) -> str:
        if self.op not in BINARY_SYMBOLS:
            return f"{self.op}({operands[0]}, {operands[1]})"
        return f"({operands[0]} {BINARY_SYMBOLS[self.op]} {operands[1]})"


@dataclass(frozen=True, eq=False, repr=False)
class Compare(Expr):
    """A comparison: `lt le gt ge eq ne`; dtype bool."""

    op: str
    left: Expr
    right: Expr
    dtype: str = "bool"

    def __post_init__(self) -> None:
        self._note(self.dtype, self.left, self.right)

    @property
    def label(self) -> tuple[object, ...]:
        return (self.op,)

    def written(self, operands: Sequence[str]) -> str:
        return f"({operands[0]} {COMPARE_SYMBOLS[self.op]} {operands[1]})"


@dataclass(frozen=True, eq=False, repr=False)
class Not(Expr):
    """Logical negation."""

    value: Expr
    dtype: str = "bool"

    def __post_init__(self) -> None:
        self._note(self.dtype, self.value)

    def written(self, operands: Sequence[str]) -> str:
        return f"!{operands[0]}"


@dataclass(frozen=True, eq=False, repr=False)
class Select(Expr):
    """`then` where `condition` holds, else `otherwise`. Reads in the branch not taken are not performed."""

    condition: Expr
    then: Expr
    otherwise: Expr
    dtype: str = field(init=False)

    def __post_init__(self) -> None:
        self._note(self.then.dtype, self.condition, self.then, self.otherwise)

    def written(self, operands: Sequence[str]) -> str:
        return f"select({', '.join(operands)})"


@dataclass(frozen=True, eq=False, repr=False)
class Call(Expr):
    """A mathematical function of its arguments, such as `exp`; the dtype is that of the first argument."""

    function: str
    arguments: tuple[Expr, ...]
    dtype: str = field(init=False)

    def __post_init__(self) -> None:
        self._note(self.arguments[0].dtype, *self.arguments)

    @property
    def label(self) -> tuple[object, ...]:
        return (self.function,)

    def written(self, operands: Sequence[str]) -> str:
        return f"{self.function}({', '.join(operands)})"


@dataclass(frozen=True, eq=False, repr=False)
class Cast(Expr):
    """A conversion to another dtype; float to integer truncates."""

    value: Expr
    dtype: str

    def __post_init__(self) -> None:
        self._note(self.dtype, self.value)

    @property
    def label(self) -> tuple[object, ...]:
        return (self.dtype,)

    def written(self, operands: Sequence[str]) -> str:
        return f"{self.dtype}({operands[0]})"


@dataclass(frozen=True, eq=False, repr=False)
class Read(Expr):
    """One element of a tensor."""

    tensor: Tensor
    indices: tuple[Expr, ...]
    dtype: str = field(init=False)

    def __post_init__(self) -> None:
        self.__dict__.update(dtype=self.tensor.dtype, operands=self.indices, has_reads=True)

    @property
    def label(self) -> tuple[object, ...]:
        return (self.tensor,)

    def written(self, operands: Sequence[str]) -> str:
        return f"{self.tensor.name}[{', '.join(operands)}]"


@dataclass(frozen=True, eq=False, repr=False)
class Reduce(Expr):
    """A reduction of `source` over `axes` with `sum`, `max`, `min` or `prod`. Only legal as the body of an operation."""

    combiner: str
    source: Expr
    axes: tuple[Axis, ...]
    dtype: str = field(init=False)

    def __post_init__(self) -> None:
        self._note(self.source.dtype, self.source)

    @property
    def label(self) -> tuple[object, ...]:
        return (self.combiner, self.axes)

    def written(self, operands: Sequence[str]) -> str:
        return f"{self.combiner}({operands[0]}, axes=[{', '.join(a.name for a in self.axes)}])"


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


def operands_of_one_dtype(left: Operand, right: Operand) -> tuple[Expr, Expr]:
    """Both as expressions; a Python number takes the dtype of the other. Raises ExpressionError if the dtypes differ."""
    dtype = left.dtype if isinstance(left, Expr) else right.dtype if isinstance(right, Expr) else INDEX
    a, b = as_expr(left, dtype), as_expr(right, dtype)
    if a.dtype != b.dtype:
        raise ExpressionError(f"operands '{a}' ({a.dtype}) and '{b}' ({b.dtype}) have different dtypes; use te.cast")
    return a, b


def binary(op: str, left: Operand, right: Operand) -> Expr:
    """`left op right` with constants folded and neutral elements removed. Floating division folds, integer uses floordiv."""
    a, b = operands_of_one_dtype(left, right)
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
    a, b = operands_of_one_dtype(left, right)
    if isinstance(a, Const) and isinstance(b, Const):
        return Const(_FOLD_COMPARE[op](a.value, b.value), "bool")
    return Compare(op, a, b)
