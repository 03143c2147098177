"""Integers and addresses: where loop variables stand, and which element of a buffer that is.

An `AddressEmitter` knows the position of every loop variable as a name plus a constant, so that the repeated instructions of
an unrolled tile share everything but constants. One variable may run in vector lanes; the stride of an access along it decides
how memory is read. Integers are remembered as long as their block dominates, which is what keeps the emitted text short.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ansor_py.codegen.function_text import FunctionText
from ansor_py.codegen.vector_operations import constant, intrinsic_suffix, shaped
from ansor_py.te.expr import INDEX, Binary, Const, Expr, Var, children
from ansor_py.te.simplify import Linear, Simplifier
from ansor_py.te.tensor import Tensor

# How values are held in registers; in memory a bool is one byte.
REGISTER_TYPES = {
    "float32": "float",
    "float64": "double",
    "int64": "i64",
    "int32": "i32",
    "int8": "i8",
    "uint8": "i8",
    "bool": "i1",
}

# Binary operators that are one instruction on (signed) integers.
INTEGER_INSTRUCTIONS = {word: word for word in ("add", "sub", "mul", "and", "or", "shl")}
INTEGER_INSTRUCTIONS |= {"bitand": "and", "bitor": "or", "bitxor": "xor", "shr": "ashr"}


@dataclass(frozen=True)
class Value:
    """A value in registers; `lanes` is 0 for a scalar."""

    name: str
    dtype: str
    lanes: int = 0

    @property
    def type(self) -> str:
        """The LLVM type."""
        return shaped(REGISTER_TYPES[self.dtype], self.lanes)


@dataclass(frozen=True)
class Coordinate:
    """Where a loop variable stands: `name + offset` (no name: a known constant)."""

    name: str | None
    offset: int = 0


def memory_type(dtype: str) -> str:
    """The LLVM type of an element in memory."""
    return "i8" if dtype == "bool" else REGISTER_TYPES[dtype]


class AddressEmitter(ABC):
    """Emits integer expressions and addresses into a function.

    `coordinates` gives the position of every loop variable; `lane_variable` and `lanes` say which one runs in lanes, its
    coordinate being that of lane 0. `pointers` are the names of the buffers' addresses.
    """

    def __init__(self, text: FunctionText, simplifier: Simplifier, pointers: dict[str, str]) -> None:
        self.text = text
        self.simplifier = simplifier
        self.pointers = pointers
        self.coordinates: dict[str, Coordinate] = {}
        self.lane_variable: str | None = None
        self.lanes = 0
        self._integers: list[dict[object, str]] = [{}]
        self._depends: dict[int, tuple[str, ...]] = {}
        self._kept: list[Expr] = []
        self._flat: dict[object, Linear] = {}

    def enter(self) -> None:
        """A block begins that may not dominate what follows."""
        self._integers.append({})
        self.forget_values()

    def leave(self) -> None:
        """That block has ended."""
        self._integers.pop()
        self.forget_values()

    @abstractmethod
    def forget_values(self) -> None:
        """Memory may have changed: loads have to be repeated."""

    @abstractmethod
    def value(self, expr: Expr, predicate: Value | None) -> Value:
        """The value of any expression where all loop variables stand."""

    # Integers: loop variables, offsets, conditions on them.

    def index(self, expr: Expr) -> str:
        """A scalar integer as an operand (a name or a literal)."""
        return self.linear_operand(self.simplifier.linear(expr))

    def linear_operand(self, value: Linear) -> str:
        dynamic, offset = self._dynamic(value)
        return self._plus(dynamic, offset)

    def _plus(self, name: str | None, offset: int) -> str:
        if name is None:
            return str(offset)
        return name if not offset else self._integer(("add", name, offset), f"add i64 {name}, {offset}")

    def _dynamic(self, value: Linear) -> tuple[str | None, int]:
        """The sum of everything that is not constant here (None: nothing), and the constant."""
        offset = value.constant
        parts: list[tuple[str, int]] = []
        for atom, coefficient in value.terms:
            name, constant_part = self._atom(atom)
            offset += coefficient * constant_part
            if name is not None:
                parts.append((name, coefficient))
        key = ("sum", tuple(parts))
        if not parts:
            return None, offset
        known = self._known_integer(key)
        if known is not None:
            return known, offset
        total: str | None = None
        for name, coefficient in parts:
            product = name if coefficient == 1 else self._integer(("mul", name, coefficient), f"mul i64 {name}, {coefficient}")
            total = product if total is None else self.text.emit(f"add i64 {total}, {product}")
        assert total is not None
        self._integers[-1][key] = total
        return total, offset

    def _atom(self, atom: Expr) -> tuple[str | None, int]:
        if isinstance(atom, Var):
            at = self.coordinates[atom.name]
            return at.name, at.offset
        if isinstance(atom, Binary):
            left, right = self.index(atom.left), self.index(atom.right)
            key = (atom.op, left, right)
            known = self._known_integer(key)
            if known is None:
                word = INTEGER_INSTRUCTIONS.get(atom.op)
                made = (
                    self.text.emit(f"{word} i64 {left}, {right}")
                    if word
                    else self.integer_operation(atom, left, right, INDEX, 0)
                )
                known = self._integers[-1][key] = made
            return known, 0
        return self.value(atom, None).name, 0

    def _known_integer(self, key: object) -> str | None:
        for scope in reversed(self._integers):
            if key in scope:
                return scope[key]
        return None

    def _integer(self, key: object, instruction: str) -> str:
        known = self._known_integer(key)
        if known is None:
            known = self._integers[-1][key] = self.text.emit(instruction)
        return known

    def integer_operation(self, node: Binary, left: str, right: str, dtype: str, lanes: int) -> str:
        """`floordiv`, `mod`, `min`, `max` on integers; division rounds towards minus infinity."""
        kind = shaped(REGISTER_TYPES[dtype], lanes)
        unsigned = dtype in ("uint8", "bool")
        if node.op in ("min", "max"):
            intrinsic = f"llvm.{'u' if unsigned else 's'}{node.op}.{intrinsic_suffix(kind)}"
            return self.text.call(kind, intrinsic, f"{kind} {left}, {kind} {right}", f"{kind}, {kind}")
        is_positive = isinstance(node.right, Const) and node.right.value > 0
        if not is_positive:
            return self._guarded_division(node.op, left, right, dtype, lanes)
        if unsigned or (dtype == INDEX and self.simplifier.interval(node.left)[0] >= 0):
            return self.text.emit(f"{'udiv' if node.op == 'floordiv' else 'urem'} {kind} {left}, {right}")
        return self._floored_division(node.op, left, right, dtype, lanes)

    def _guarded_division(self, op: str, left: str, right: str, dtype: str, lanes: int) -> str:
        """Division by a value that may be 0, also in a lane that does not count; the processor traps on 0 and on lowest / -1.

        The quotient by 0 is unspecified.
        """
        kind, condition = shaped(REGISTER_TYPES[dtype], lanes), shaped("i1", lanes)
        one = constant(1, kind)
        if dtype in ("uint8", "bool"):
            bad = self.text.emit(f"icmp eq {kind} {right}, {constant(0, kind)}")
            safe = self.text.emit(f"select {condition} {bad}, {kind} {one}, {kind} {right}")
            return self.text.emit(f"{'udiv' if op == 'floordiv' else 'urem'} {kind} {left}, {safe}")
        next_one = self.text.emit(f"add {kind} {right}, {one}")
        bad = self.text.emit(f"icmp ule {kind} {next_one}, {one}")
        safe = self.text.emit(f"select {condition} {bad}, {kind} {one}, {kind} {right}")
        result = self._floored_division(op, left, safe, dtype, lanes)
        if op == "mod":
            return result
        negated = self.text.emit(f"sub {kind} {constant(0, kind)}, {left}")
        minus_one = self.text.emit(f"icmp eq {kind} {right}, {constant(-1, kind)}")
        return self.text.emit(f"select {condition} {minus_one}, {kind} {negated}, {kind} {result}")

    def _floored_division(self, op: str, left: str, right: str, dtype: str, lanes: int) -> str:
        kind = shaped(REGISTER_TYPES[dtype], lanes)
        rest = self.text.emit(f"srem {kind} {left}, {right}")
        flips = self.text.emit(f"xor {kind} {rest}, {right}")
        zero = constant(0, kind)
        condition = shaped("i1", lanes)
        negative = self.text.emit(f"icmp slt {kind} {flips}, {zero}")
        inexact = self.text.emit(f"icmp ne {kind} {rest}, {zero}")
        adjust = self.text.emit(f"and {condition} {negative}, {inexact}")
        if op == "mod":
            added = self.text.emit(f"add {kind} {rest}, {right}")
            return self.text.emit(f"select {condition} {adjust}, {kind} {added}, {kind} {rest}")
        quotient = self.text.emit(f"sdiv {kind} {left}, {right}")
        return self.text.emit(f"add {kind} {quotient}, {self.text.emit(f'sext {condition} {adjust} to {kind}')}")

    def variables_of(self, expr: Expr) -> tuple[str, ...]:
        known = self._depends.get(id(expr))
        if known is None:
            names = {expr.name} if isinstance(expr, Var) else set()
            for child in children(expr):
                names.update(self.variables_of(child))
            known = self._depends[id(expr)] = tuple(sorted(names))
            self._kept.append(expr)  # keeps the id from being used again
        return known

    def runs_in_lanes(self, expr: Expr) -> bool:
        return self.lane_variable is not None and self.lane_variable in self.variables_of(expr)

    def hide_pointers(self, names: Iterable[str]) -> None:
        """Let LLVM believe that some buffers have moved, so that it keeps what follows apart from what came before."""
        for name in names:
            self.pointers[name] = self.text.emit(f'call ptr asm sideeffect "", "=r,0"(ptr {self.pointers[name]})')

    def flat_index(self, tensor: Tensor, indices: Sequence[Expr]) -> Linear:
        """The row-major element number."""
        key = (tensor.name, tuple(map(id, indices)))
        known = self._flat.get(key)
        if known is None:
            self._kept.extend(indices)
            known = Linear((), 0)
            stride = 1
            for extent, index in zip(reversed(tensor.shape), reversed(indices), strict=True):
                known = known.plus(self.simplifier.linear(index), stride)
                stride *= extent
            known = self._flat[key] = self.simplifier.recombine(known)
        return known

    def lane_stride(self, flat: Linear) -> int | None:
        """How far apart (elements) neighbouring lanes are; None if that is not constant."""
        stride = 0
        for atom, coefficient in flat.terms:
            if isinstance(atom, Var) and atom.name == self.lane_variable:
                stride = coefficient
            elif self.runs_in_lanes(atom):
                return None
        return stride

    def address(self, tensor: Tensor, flat: Linear) -> str:
        """The address of the element (of lane 0)."""
        name, offset = self._dynamic(flat)
        kind = memory_type(tensor.dtype)
        base = self.pointers[tensor.name]
        if name is not None:
            base = self._integer(("base", base, name), f"getelementptr inbounds {kind}, ptr {base}, i64 {name}")
        if not offset:
            return base
        return self._integer(("element", base, offset), f"getelementptr inbounds {kind}, ptr {base}, i64 {offset}")

    def shifted(self, tensor: Tensor, offset: int) -> str:
        base = self.pointers[tensor.name]
        if not offset:
            return base
        return self._integer(("shift", base, offset), f"getelementptr {memory_type(tensor.dtype)}, ptr {base}, i64 {offset}")

    def linear_here(self, flat: Linear) -> str:
        """An element number whose instructions stand in a block that dominates nothing else."""
        self._integers.append({})
        result = self.linear_operand(flat)
        self._integers.pop()
        return result
