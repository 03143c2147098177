"""Integers and addresses: where loop variables stand, and which element of a buffer that is.

An `AddressEmitter` knows the position of every loop variable as a name plus a constant, so that the repeated instructions of
an unrolled tile share everything but constants. One variable may run in vector lanes; the stride of an access along it decides
how memory is read. Integers are remembered as long as their block dominates, which is what keeps the emitted text short.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from ansor_py.codegen.function_text import FunctionText, Lines
from ansor_py.codegen.vector_operations import constant, intrinsic_suffix, shaped
from ansor_py.te.expr import DTYPE_BYTES, INDEX, Binary, Const, Expr, Var, variables_of
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


@dataclass(frozen=True)
class _Scope:
    """A block that is being emitted: the integers known since it began, and the place at its start for more of them."""

    place: Lines
    known: dict[object, str] = field(default_factory=dict)


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
        # Where the element exists whose address is computed: an index that is itself read may not exist elsewhere.
        self.exists: Value | None = None
        self._scopes = [_Scope(text.place())]
        # How many scopes enclose the one in which a name was defined, for names that are known from its start on.
        self._depths = dict.fromkeys(pointers.values(), 0)
        self._depends: dict[int, tuple[str, ...]] = {}
        self._kept: list[Expr] = []
        self._flat: dict[object, Linear] = {}

    def enter(self, index: str | None = None) -> None:
        """A block begins that may not dominate what follows; `index` is its variable if it is a loop's body."""
        self._scopes.append(_Scope(self.text.place()))
        if index is not None:
            self._depths[index] = len(self._scopes) - 1
        self.forget_values()

    def leave(self) -> None:
        """That block has ended."""
        self._scopes.pop()
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
        """A normal form as an operand."""
        parts, offset = self._dynamic(value)
        total: str | None = None
        for part in parts:
            total = part if total is None else self.integer("add", total, part)
        if total is None:
            return str(offset)
        return self.integer("add", total, offset) if offset else total

    def _dynamic(self, value: Linear) -> tuple[list[str], int]:
        """What is not constant here, one summand for every block, outermost first; and the constant."""
        offset = value.constant
        terms: list[tuple[int, str, int]] = []
        for atom, coefficient in value.terms:
            name, constant_part = self._atom(atom)
            offset += coefficient * constant_part
            if name is not None:
                terms.append((self._depth(name), name, coefficient))
        parts: dict[int, str] = {}
        for depth, name, coefficient in sorted(terms, key=lambda term: term[0]):
            product = name if coefficient == 1 else self.integer("mul", name, coefficient)
            parts[depth] = self.integer("add", parts[depth], product) if depth in parts else product
        return list(parts.values()), offset

    def _atom(self, atom: Expr) -> tuple[str | None, int]:
        if isinstance(atom, Var):
            at = self.coordinates[atom.name]
            return at.name, at.offset
        if not isinstance(atom, Binary) or atom.has_reads:
            return self.value(atom, self.exists if atom.has_reads else None).name, 0
        key = (id(atom), *(self.coordinates[name] for name in self.variables_of(atom)))
        known = next((scope.known[key] for scope in reversed(self._scopes) if key in scope.known), None)
        if known is None:
            known = self._scopes[-1].known[key] = self._operation(atom, self.index(atom.left), self.index(atom.right))
        return known, 0

    def _operation(self, atom: Binary, left: str, right: str) -> str:
        word = INTEGER_INSTRUCTIONS.get(atom.op)
        if word:
            return self.integer(word, left, right)
        return self._once((atom.op, left, right), (left, right), lambda: self.integer_operation(atom, left, right, INDEX, 0))

    def integer(self, word: str, left: str, right: str | int) -> str:
        """The result of an integer instruction, emitted as far out as its operands are known."""
        return self._once((word, left, right), (left, str(right)), lambda: self.text.emit(f"{word} i64 {left}, {right}"))

    def _depth(self, name: str) -> int:
        """The number of the scope in which a name (or literal) is known from the start on; of the present one if unknown."""
        return self._depths.get(name, len(self._scopes) - 1) if name.startswith("%") else 0

    def _once(self, key: object, operands: Sequence[str] | None, emit: Callable[[], str]) -> str:
        """The remembered result of some instructions, or a new one, in the outermost scope that knows the operands.

        Here and now if there is one of which only the present block is certain to know, or for None.
        """
        for scope in reversed(self._scopes):
            if key in scope.known:
                return scope.known[key]
        if operands is None or any(name.startswith("%") and name not in self._depths for name in operands):
            made = self._scopes[-1].known[key] = emit()
            return made
        depth = max(map(self._depth, operands))
        with self.text.at(self._scopes[depth].place):
            made = self._scopes[depth].known[key] = emit()
        self._depths[made] = depth
        return made

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
            known = self._depends[id(expr)] = tuple(sorted(variables_of(expr)))
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
            known = self._flat[key] = self.simplifier.recombine(self.simplifier.flat(tensor.shape, indices))
        return known

    def address(self, tensor: Tensor, flat: Linear) -> str:
        """The address of the element (of lane 0)."""
        parts, offset = self._dynamic(flat)
        kind = memory_type(tensor.dtype)
        address = self.pointers[tensor.name]
        for part in parts:
            address = self._element(kind, address, part)
        return self._element(kind, address, str(offset)) if offset else address

    def _element(self, kind: str, base: str, index: str, inbounds: str = " inbounds") -> str:
        """The address of an element. Constant distances are not moved out of loops: they become part of an instruction."""
        instruction = f"getelementptr{inbounds} {kind}, ptr {base}, i64 {index}"
        moves = index.startswith("%")
        return self._once(instruction, (base, index) if moves else None, lambda: self.text.emit(instruction))

    def prefetch(self, tensor: Tensor, flat: Linear, distance: int, count: int, line_bytes: int) -> None:
        """Fetch the lines of `count` elements into the second cache, so many elements from here; they need not exist."""
        kind, base = memory_type(tensor.dtype), self.address(tensor, flat)
        for start in range(0, count, max(1, line_bytes // DTYPE_BYTES[tensor.dtype])):
            address = self._element(kind, base, str(distance + start), "")
            self.text.call("void", "llvm.prefetch.p0", f"ptr {address}, i32 0, i32 2, i32 1", "ptr, i32, i32, i32")

    def shifted(self, tensor: Tensor, offset: int) -> str:
        base = self.pointers[tensor.name]
        return self._element(memory_type(tensor.dtype), base, str(offset), "") if offset else base

    def linear_here(self, flat: Linear) -> str:
        """An element number whose instructions stand in a block that dominates nothing else."""
        self._scopes.append(_Scope(self.text.place()))
        result = self.linear_operand(flat)
        self._scopes.pop()
        return result
