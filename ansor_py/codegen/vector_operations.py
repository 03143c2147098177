"""Instructions on LLVM scalars and vectors of one shape, and constants that LLVM reads back exactly.

v = Vector("<16 x float>", text)
v.multiply_add("%a", v.constant(0.5), "%b")      # "%v7": a call of llvm.fmuladd.v16f32
constant(0.1, "<8 x double>")           # "splat (double 0x3FB999999999999A)"
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from ansor_py.codegen.function_text import FunctionText
from ansor_py.errors import CodegenError

_TYPE = re.compile(r"^(?:<(\d+) x (\w+)>|(\w+))$")
_BITS = {"float": 32, "double": 64, "i8": 8, "i16": 16, "i32": 32, "i64": 64, "i1": 1}
_INTRINSIC = {"float": "f32", "double": "f64"}


def split_type(llvm_type: str) -> tuple[str, int]:
    """The element type of a scalar or vector type and the number of lanes (0 for a scalar).

    Raises CodegenError for any other type.
    """
    match = _TYPE.match(llvm_type)
    element = (match[2] or match[3]) if match else ""
    if match is None or element not in _BITS:
        raise CodegenError(f"'{llvm_type}' is not a scalar or vector type that kernels use; elements are {', '.join(_BITS)}")
    return element, int(match[1] or 0)


def shaped(element: str, lanes: int) -> str:
    """The type with this element and number of lanes (0: the scalar)."""
    return f"<{lanes} x {element}>" if lanes else element


def constant(value: float, llvm_type: str) -> str:
    """A constant of a scalar or vector type, all lanes equal; floats are rounded to the type and written exactly."""
    element, lanes = split_type(llvm_type)
    if element in ("float", "double"):
        text = _float_text(float(value), element)
    else:
        text = str(int(value))
    return f"splat ({element} {text})" if lanes else text


def intrinsic_suffix(llvm_type: str) -> str:
    """How intrinsics name the type: `v16f32` for `<16 x float>`."""
    element, lanes = split_type(llvm_type)
    return (f"v{lanes}" if lanes else "") + _INTRINSIC.get(element, element)


def _float_text(value: float, element: str) -> str:
    if element == "float":
        try:
            value = float(struct.unpack("<f", struct.pack("<f", value))[0])
        except OverflowError:
            value = float("inf") if value > 0 else float("-inf")
    return f"0x{struct.unpack('<Q', struct.pack('<d', value))[0]:016X}"


@dataclass(frozen=True)
class Vector:
    """Emits instructions whose operands and result have the floating-point type `type`, or the integer type of its shape.

    `rounds` says whether the target rounds vectors to whole numbers in one instruction (`Target.rounds_vectors`).
    """

    type: str
    text: FunctionText
    rounds: bool = True

    def emit(self, instruction: str) -> str:
        """Any instruction that has a result; returns its name."""
        return self.text.emit(instruction)

    @property
    def element(self) -> str:
        """`float` or `double`."""
        return split_type(self.type)[0]

    @property
    def lanes(self) -> int:
        """Lanes of the vector; 0 for a scalar."""
        return split_type(self.type)[1]

    @property
    def integer(self) -> str:
        """The integer type of the same shape and width."""
        return shaped(f"i{_BITS[self.element]}", self.lanes)

    def constant(self, value: float) -> str:
        """A floating-point constant in all lanes."""
        return constant(value, self.type)

    def whole(self, value: int) -> str:
        """An integer constant in all lanes."""
        return constant(value, self.integer)

    def add(self, a: str, b: str) -> str:
        return self.emit(f"fadd {self.type} {a}, {b}")

    def sub(self, a: str, b: str) -> str:
        return self.emit(f"fsub {self.type} {a}, {b}")

    def mul(self, a: str, b: str) -> str:
        return self.emit(f"fmul {self.type} {a}, {b}")

    def div(self, a: str, b: str) -> str:
        return self.emit(f"fdiv {self.type} {a}, {b}")

    def neg(self, a: str) -> str:
        return self.emit(f"fneg {self.type} {a}")

    def multiply_add(self, a: str, b: str, c: str) -> str:
        """a * b + c: one instruction and one rounding where the target has such an instruction, else two of each."""
        return self.call("fmuladd", a, b, c)

    def call(self, intrinsic: str, *arguments: str) -> str:
        """A call of the LLVM intrinsic with all operands of this type."""
        operands = ", ".join(f"{self.type} {argument}" for argument in arguments)
        name = f"llvm.{intrinsic}.{intrinsic_suffix(self.type)}"
        return self.text.call(self.type, name, operands, ", ".join([self.type] * len(arguments)))

    def rounded(self, direction: str, a: str) -> str:
        """The whole number next to `a`: `floor`, `ceil` or `roundeven` (to nearest, ties to even).

        Without an instruction for it LLVM would call libm for every lane; adding and subtracting 2**23 (2**52) rounds to
        nearest as well, where the magnitude is below that number, and all larger ones are whole.
        """
        if self.rounds or not self.lanes:
            return self.call(direction, a)
        size = self.call("fabs", a)
        magic = self.constant({"float": 2.0**23, "double": 2.0**52}[self.element])
        nearest = self.call("copysign", self.sub(self.add(size, magic), magic), a)
        if direction != "roundeven":
            one = self.constant(1.0 if direction == "floor" else -1.0)
            past = self.compare("ogt" if direction == "floor" else "olt", nearest, a)
            nearest = self.call("copysign", self.select(past, self.sub(nearest, one), nearest), a)
        return self.select(self.compare("olt", size, magic), nearest, a)

    def calls(self, function: str, *arguments: str, seldom: bool = False) -> str:
        """A call of a function of libm, such as `sinf`, for every lane; `seldom` tells LLVM that the way here is."""
        self.text.declarations.add(f"declare {self.element} @{function}({', '.join([self.element] * len(arguments))})")
        attribute = " cold" if seldom else ""
        if not self.lanes:
            operands = ", ".join(f"{self.type} {argument}" for argument in arguments)
            return self.emit(f"call {self.type} @{function}({operands}){attribute}")
        result = "poison"
        for lane in range(self.lanes):
            parts = [self.emit(f"extractelement {self.type} {argument}, i64 {lane}") for argument in arguments]
            operands = ", ".join(f"{self.element} {part}" for part in parts)
            value = self.emit(f"call {self.element} @{function}({operands}){attribute}")
            result = self.emit(f"insertelement {self.type} {result}, {self.element} {value}, i64 {lane}")
        return result

    def any(self, mask: str) -> str:
        """Whether the mask is set in a lane."""
        kind = shaped("i1", self.lanes)
        return self.text.call("i1", f"llvm.vector.reduce.or.v{self.lanes}i1", f"{kind} {mask}", kind) if self.lanes else mask

    def integer_op(self, operation: str, a: str, b: str) -> str:
        """An instruction such as `add`, `and`, `ashr` on the integer type."""
        return self.emit(f"{operation} {self.integer} {a}, {b}")

    def bits(self, a: str) -> str:
        """The bit pattern as integers."""
        return self.emit(f"bitcast {self.type} {a} to {self.integer}")

    def from_bits(self, a: str) -> str:
        """The float with this bit pattern."""
        return self.emit(f"bitcast {self.integer} {a} to {self.type}")

    def from_integer(self, a: str) -> str:
        """The float with this integer value."""
        return self.emit(f"sitofp {self.integer} {a} to {self.type}")

    def compare(self, predicate: str, a: str, b: str) -> str:
        """A mask: `fcmp` with a predicate such as `olt`."""
        return self.emit(f"fcmp {predicate} {self.type} {a}, {b}")

    def select(self, mask: str, a: str, b: str) -> str:
        """a where the mask is set, else b."""
        return self.emit(f"select {shaped('i1', self.lanes)} {mask}, {self.type} {a}, {self.type} {b}")

    def mask_and(self, a: str, b: str) -> str:
        """Both masks."""
        return self.emit(f"and {shaped('i1', self.lanes)} {a}, {b}")

    def lower_bound(self, a: str, low: float) -> str:
        """The larger of a and a constant; NaN stays NaN. One instruction on x86."""
        limit = self.constant(low)
        return self.select(self.compare("ogt", limit, a), limit, a)

    def upper_bound(self, a: str, high: float) -> str:
        """The smaller of a and a constant; NaN stays NaN."""
        limit = self.constant(high)
        return self.select(self.compare("olt", limit, a), limit, a)

    def polynomial(self, x: str, coefficients: Sequence[float]) -> str:
        """sum of coefficients[k] * x**k by Horner's rule in multiply-adds."""
        result = self.constant(coefficients[-1])
        for coefficient in reversed(coefficients[:-1]):
            result = self.multiply_add(result, x, self.constant(coefficient))
        return result
