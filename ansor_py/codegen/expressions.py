"""Scalar expressions to LLVM instructions, in one lane or in many.

An expression that depends on the lane variable has a vector value, any other stays scalar and is broadcast where it meets one.
Reads become contiguous vector loads, broadcasts, strided loads or gathers by the stride of the lane variable, masked under a
predicate.

    emitter = ExpressionEmitter(text, simplifier, {"A": "%a"}, target)
    emitter.coordinates["i"] = Coordinate("%i")
    emitter.value(a[i] * 2.0, predicate=None)      # Value("%v3", "float32")
"""

from __future__ import annotations

import operator
from collections.abc import Generator, Sequence
from typing import TypeAlias

from ansor_py.codegen.addresses import INTEGER_INSTRUCTIONS, REGISTER_TYPES, AddressEmitter, Coordinate, Value, memory_type
from ansor_py.codegen.casts import converted
from ansor_py.codegen.function_text import FunctionText
from ansor_py.codegen.select_branches import Placement, placement
from ansor_py.codegen.strided_loads import load_strided
from ansor_py.codegen.vector_math import expand
from ansor_py.codegen.vector_operations import constant, intrinsic_suffix, shaped
from ansor_py.errors import CodegenError
from ansor_py.target import Target
from ansor_py.te.expr import (
    DTYPE_BYTES,
    FLOAT_DTYPES,
    INDEX,
    Binary,
    Call,
    Cast,
    Compare,
    Const,
    Expr,
    Not,
    Read,
    Select,
    Var,
)
from ansor_py.te.simplify import Linear, Simplifier
from ansor_py.te.tensor import Tensor

# The evaluation of a node: it asks for the values of others, each an expression under a predicate, and returns its own. Nodes
# are not evaluated by functions that call each other, because formulas may be deeper than Python's stack.
Evaluation: TypeAlias = Generator[tuple[Expr, "Value | None"], Value, Value]
FEW = 1 << 29  # differences of indices below this are compared as integers of 32 bits
_COMPARE = {
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
    "eq": operator.eq,
    "ne": operator.ne,
}
_FLOAT_COMPARE = {"lt": "olt", "le": "ole", "gt": "ogt", "ge": "oge", "eq": "oeq", "ne": "une"}


class ExpressionEmitter(AddressEmitter):
    """Emits expressions of any dtype. Loads are remembered until `forget_values`."""

    def __init__(self, text: FunctionText, simplifier: Simplifier, pointers: dict[str, str], target: Target) -> None:
        super().__init__(text, simplifier, pointers)
        self.target = target
        self.registers: dict[str, Value] = {}
        self._values: dict[object, Value] = {}
        self._comparisons: dict[str, tuple[str, Sequence[int], str]] = {}  # by the name of a mask
        self._placements: dict[int, Placement] = {}
        # Of the expression that is being evaluated: what does not belong to a branch of a select, and the predicate of that.
        self._whole: tuple[Placement, Value | None] = (Placement(), None)

    def forget_values(self) -> None:
        """Memory may have changed: loads have to be repeated."""
        self._values = {}

    def value(self, expr: Expr, predicate: Value | None) -> Value:
        """The value of an expression where all loop variables stand. Reads are performed only where `predicate` holds."""
        own = self._key(expr, predicate)
        known = self._values.get(own)
        if known is not None:
            return known
        if id(expr) not in self._placements:
            self._placements[id(expr)] = placement(expr, self.simplifier)
        around, self._whole = self._whole, (self._placements[id(expr)], predicate)
        pending: list[tuple[object, Evaluation]] = [(own, self._evaluation(expr, predicate))]
        value: Value | None = None
        while pending:
            key, evaluation = pending[-1]
            try:
                wanted = evaluation.send(value)  # type: ignore[arg-type]  # None begins it
            except StopIteration as finished:
                pending.pop()
                value = self._values[key] = finished.value
            else:
                value = self._known_or_begun(*wanted, pending)
        self._whole = around
        return self._values[own]

    def _known_or_begun(self, expr: Expr, predicate: Value | None, pending: list[tuple[object, Evaluation]]) -> Value | None:
        """The value if it is known; else None, and its evaluation is the last of those that are pending."""
        if id(expr) in self._whole[0].outside:
            predicate = self._whole[1]
        key = self._key(expr, predicate)
        known = self._values.get(key)
        if known is None:
            pending.append((key, self._evaluation(expr, predicate)))
        return known

    def _key(self, expr: Expr, predicate: Value | None) -> object:
        variables = self.variables_of(expr)
        lanes = self.lanes if self.lane_variable in variables else 0
        return (id(expr), predicate, lanes, tuple([self.coordinates[name] for name in variables]))

    def value_of_registers(self, expr: Expr, name: str, registers: Value, predicate: Value | None) -> Value:
        """The value of an expression in which the variable `name` stands for some registers."""
        self.registers = {name: registers}
        self.coordinates[name] = Coordinate(registers.name)
        return self.value(expr, predicate)

    def remember(self, expr: Expr, predicate: Value | None, value: Value) -> None:
        """Take this for the value of an expression where all loop variables stand, until `forget_values`."""
        self._values[self._key(expr, predicate)] = value

    def _evaluation(self, expr: Expr, predicate: Value | None) -> Evaluation:
        if isinstance(expr, Const | Var | Binary) and self._is_scalar_index(expr):
            return Value(self.index(expr), INDEX)
        match expr:
            case Const():
                return self.constant(expr)
            case Var():
                return self.registers[expr.name] if expr.name in self.registers else self._lane_numbers(expr)
            case Read():
                for condition in self._whole[0].exists.get(id(expr), ()):
                    predicate = self.both(predicate, (yield condition, predicate))
                return self._read(expr, predicate)
            case Select():
                return (yield from self._select(expr, predicate))
            case Compare() if self.runs_in_lanes(expr) and (mask := self._mask(expr)) is not None:
                return mask
        operands: list[Value] = []
        for operand in expr.operands:
            operands.append((yield operand, predicate))
        match expr:
            case Binary():
                return self.binary(expr, *operands)
            case Compare():
                return self._compare(expr.op, *operands)
            case Not():
                [value] = operands
                return self._emitted(f"xor {value.type} {value.name}, {constant(1, value.type)}", "bool", value.lanes)
            case Cast():
                return converted(operands[0], expr.dtype, self.text)
            case Call():
                return self._call(expr.function, operands)
        raise CodegenError(f"expression '{expr}' cannot be translated")

    def _is_scalar_index(self, expr: Expr) -> bool:
        """Whether it is an integer made of loop variables that is the same in all lanes."""
        made_of_loops = expr.dtype == INDEX and not expr.has_reads and self.registers.keys().isdisjoint(self.variables_of(expr))
        return made_of_loops and not self.runs_in_lanes(expr)

    def _emitted(self, instruction: str, dtype: str, lanes: int) -> Value:
        return Value(self.text.emit(instruction), dtype, lanes)

    def constant(self, expr: Const) -> Value:
        """A literal."""
        if expr.dtype == "bool":
            return Value("true" if expr.value else "false", "bool")
        return Value(constant(expr.value, REGISTER_TYPES[expr.dtype]), expr.dtype)

    def broadcast(self, value: Value, lanes: int) -> Value:
        """The same value in every lane."""
        if value.lanes == lanes:
            return value
        if value.lanes:
            raise CodegenError(f"a vector of {value.lanes} lanes was used where {lanes} are needed")
        key = ("splat", value, lanes)
        known = self._values.get(key)
        if known is None:
            if not value.name.startswith("%"):
                known = Value(f"splat ({value.type} {value.name})", value.dtype, lanes)
            else:
                known = Value(self._splat(value.name, value.type, lanes), value.dtype, lanes)
            self._values[key] = known
        return known

    def _splat(self, register: str, element: str, lanes: int) -> str:
        kind = f"<{lanes} x {element}>"
        first = self.text.emit(f"insertelement {kind} poison, {element} {register}, i64 0")
        return self.text.emit(f"shufflevector {kind} {first}, {kind} poison, <{lanes} x i32> zeroinitializer")

    def _aligned(self, *values: Value) -> tuple[list[Value], int]:
        lanes = max(value.lanes for value in values)
        return [self.broadcast(value, lanes) for value in values], lanes

    def _lane_numbers(self, variable: Var) -> Value:
        at = self.coordinates[variable.name]
        kind = f"<{self.lanes} x i64>"
        steps = f"<{', '.join(f'i64 {at.offset + lane}' for lane in range(self.lanes))}>"
        if at.name is None:
            return Value(steps, INDEX, self.lanes)
        base = self.broadcast(Value(at.name, INDEX), self.lanes)
        return self._emitted(f"add {kind} {base.name}, {steps}", INDEX, self.lanes)

    def lanes_below(self, limit: str, start: int, lanes: int) -> Value:
        """A mask: which of the lanes `start`, `start + 1`, ... are below an integer operand."""
        if not limit.startswith("%"):
            valid = ", ".join(f"i1 {'true' if start + lane < int(limit) else 'false'}" for lane in range(lanes))
            return Value(f"<{valid}>", "bool", lanes)
        key = ("lanes below", limit, start, lanes)
        known = self._values.get(key)
        if known is None:
            bound = self.text.call("i64", "llvm.smin.i64", f"i64 {limit}, i64 {FEW}", "i64, i64")
            bound = self.text.call("i64", "llvm.smax.i64", f"i64 {bound}, i64 {-FEW}", "i64, i64")
            known = self._values[key] = self._comparison("slt", range(start, start + lanes), bound)
        return known

    def _mask(self, expr: Compare) -> Value | None:
        """In which lanes a comparison of sums of loop variables holds, by small integers; None if they may not be small.

        Vectors of the 64 bits of an index are twice as many and more, and are packed for a mask.
        """
        sides = (expr.left, expr.right)
        if any(side.dtype != INDEX or side.has_reads for side in sides) or self.registers.keys() & set(self.variables_of(expr)):
            return None
        difference = self.simplifier.linear(expr.left).plus(self.simplifier.linear(expr.right), -1)
        stride, (low, high) = difference.stride(self.lane_variable), self.simplifier.linear_interval(difference)
        if stride is None or min(low, -high) <= -FEW:
            return None
        parts, offset = self._dynamic(difference)
        numbers = range(offset, offset + stride * self.lanes, stride) if stride else [offset] * self.lanes
        total: str | None = None
        for part in parts:
            total = part if total is None else self.integer("add", total, part)
        if total is not None:
            sign = "" if expr.op in ("eq", "ne") else "s"
            return self._comparison(f"{sign}{expr.op}", numbers, self.integer("sub", "0", total))
        holds = _COMPARE[expr.op]
        return Value(f"<{', '.join(f'i1 {str(holds(number, 0)).lower()}' for number in numbers)}>", "bool", self.lanes)

    def _comparison(self, word: str, numbers: Sequence[int], bound: str, condition: str | None = None) -> Value:
        """Small numbers, one a lane, compared with a small number of 64 bits; false in all lanes without the condition.

        A condition that is the same in all lanes changes the bound: as a vector it would have other widths than the mask.
        """
        lanes, sign = len(numbers), 1 if word in ("sgt", "sge") else -1
        key = ("small", bound, lanes, condition and (condition, sign))
        splat = self._values.get(key)
        if splat is None:
            small = self.text.emit(f"trunc i64 {bound} to i32")
            if condition is not None:
                small = self.text.emit(f"select i1 {condition}, i32 {small}, i32 {sign * 2 * FEW}")
            splat = self._values[key] = Value(self._splat(small, "i32", lanes), "int32", lanes)
        listed = ", ".join(f"i32 {number}" for number in numbers)
        mask = self._emitted(f"icmp {word} <{lanes} x i32> <{listed}>, {splat.name}", "bool", lanes)
        if condition is None and word not in ("eq", "ne"):
            self._comparisons[mask.name] = (word, numbers, bound)
        return mask

    def binary(self, node: Binary, left: Value, right: Value) -> Value:
        """A binary operator on two values of one dtype."""
        if node.op == "and" and left.dtype == "bool" and (both := self.both(left, right)) is not None:
            return both
        (a, b), lanes = self._aligned(left, right)
        kind, dtype = a.type, a.dtype
        if dtype in FLOAT_DTYPES:
            if node.op in ("min", "max"):
                return self.extreme(node.op, a, b)
            if node.op == "pow":
                return self._call("pow", [a, b])
            word = {"add": "fadd contract", "sub": "fsub contract", "mul": "fmul contract", "div": "fdiv"}[node.op]
            return self._emitted(f"{word} {kind} {a.name}, {b.name}", dtype, lanes)
        if node.op in ("floordiv", "mod", "min", "max"):
            return Value(self.integer_operation(node, a.name, b.name, dtype, lanes), dtype, lanes)
        instruction = "lshr" if node.op == "shr" and dtype == "uint8" else INTEGER_INSTRUCTIONS.get(node.op)
        if instruction is None:
            raise CodegenError(f"operator '{node.op}' is not defined on {dtype}")
        return self._emitted(f"{instruction} {kind} {a.name}, {b.name}", dtype, lanes)

    def extreme(self, op: str, a: Value, b: Value) -> Value:
        """Minimum or maximum of floats; a NaN in either operand wins, as in NumPy. One comparison is enough with a constant."""
        if b.name.startswith("splat") or not b.name.startswith("%"):
            a, b = b, a
        if a.name.startswith("%"):
            intrinsic = f"llvm.{op}imum.{intrinsic_suffix(a.type)}"
            self.text.declarations.add(f"declare {a.type} @{intrinsic}({a.type}, {a.type})")
            return self._emitted(f"call nsz {a.type} @{intrinsic}({a.type} {a.name}, {b.type} {b.name})", a.dtype, a.lanes)
        test = self.text.emit(f"fcmp {'olt' if op == 'min' else 'ogt'} {a.type} {a.name}, {b.name}")
        condition = shaped("i1", a.lanes)
        return self._emitted(f"select {condition} {test}, {a.type} {a.name}, {b.type} {b.name}", a.dtype, a.lanes)

    def _compare(self, op: str, left: Value, right: Value) -> Value:
        (a, b), lanes = self._aligned(left, right)
        if a.dtype in FLOAT_DTYPES:
            return self._emitted(f"fcmp {_FLOAT_COMPARE[op]} {a.type} {a.name}, {b.name}", "bool", lanes)
        sign = "" if op in ("eq", "ne") else "u" if a.dtype in ("uint8", "bool") else "s"
        return self._emitted(f"icmp {sign}{op} {a.type} {a.name}, {b.name}", "bool", lanes)

    def _select(self, expr: Select, predicate: Value | None) -> Evaluation:
        condition = yield expr.condition, predicate
        then_predicate = otherwise_predicate = predicate
        if expr.then.has_reads:
            then_predicate = self.both(predicate, condition)
        if expr.otherwise.has_reads:
            inverse = self._emitted(
                f"xor {condition.type} {condition.name}, {constant(1, condition.type)}", "bool", condition.lanes
            )
            otherwise_predicate = self.both(predicate, inverse)
        then = yield expr.then, then_predicate
        otherwise = yield expr.otherwise, otherwise_predicate
        (test, a, b), lanes = self._aligned(condition, then, otherwise)
        return self._emitted(f"select {test.type} {test.name}, {a.type} {a.name}, {b.type} {b.name}", a.dtype, lanes)

    def both(self, a: Value | None, b: Value | None) -> Value | None:
        """The conjunction of two predicates, either of which may be absent."""
        if a is None or b is None:
            return b if a is None else a
        for scalar, mask in ((a, b), (b, a)):
            if mask.name in self._comparisons and not scalar.lanes and scalar.name.startswith("%"):
                return self._comparison(*self._comparisons[mask.name], scalar.name)
        (left, right), lanes = self._aligned(a, b)
        return self._emitted(f"and {left.type} {left.name}, {right.name}", "bool", lanes)

    def _call(self, function: str, arguments: Sequence[Value]) -> Value:
        values, lanes = self._aligned(*arguments)
        names = tuple(value.name for value in values)
        result = expand(function, names if len(names) > 1 else names[0], values[0].type, self.text, self.target.rounds_vectors)
        return Value(result, values[0].dtype, lanes)

    # Memory.

    def load(self, tensor: Tensor, indices: tuple[Expr, ...], predicate: Value | None) -> Value:
        """The element at the current position, in all lanes."""
        return self._read(Read(tensor, indices), predicate)

    def _read(self, read: Read, predicate: Value | None) -> Value:
        around, self.exists = self.exists, predicate
        value = self._loaded(read, predicate)
        self.exists = around
        return value

    def _loaded(self, read: Read, predicate: Value | None) -> Value:
        flat = self.flat_index(read.tensor, read.indices)
        stride = flat.stride(self.lane_variable) if self.lanes else 0
        dtype, kind = read.dtype, memory_type(read.dtype)
        if stride == 0:
            loaded = self._read_scalar(read.tensor, flat, predicate)
            return self._from_memory(loaded, dtype, 0)
        lanes = self.lanes
        vector = f"<{lanes} x {kind}>"
        size = DTYPE_BYTES[dtype]
        if stride == 1 and predicate is None:
            loaded = self.text.emit(f"load {vector}, ptr {self.address(read.tensor, flat)}, align {size}")
            return self._from_memory(loaded, dtype, lanes)
        mask = self.broadcast(predicate or Value("true", "bool"), lanes)
        suffix = intrinsic_suffix(vector)
        zero = f"{vector} zeroinitializer"
        if stride == 1:
            address = self.address(read.tensor, flat)
            loaded = self.text.call(
                vector,
                f"llvm.masked.load.{suffix}.p0",
                f"ptr align {size} {address}, {mask.type} {mask.name}, {zero}",
                f"ptr, {mask.type}, {vector}",
            )
            return self._from_memory(loaded, dtype, lanes)
        present = None if predicate is None else mask
        strided = load_strided(self, read.tensor, flat, stride, lanes, present, self.target.gathers) if stride else None
        if strided is not None:
            return self._from_memory(strided, dtype, lanes)
        loaded = self.text.call(
            vector,
            f"llvm.masked.gather.{suffix}.v{lanes}p0",
            f"<{lanes} x ptr> align {size} {self.lane_addresses(read.tensor, flat, stride)}, {mask.type} {mask.name}, {zero}",
            f"<{lanes} x ptr>, {mask.type}, {vector}",
        )
        return self._from_memory(loaded, dtype, lanes)

    def lane_addresses(self, tensor: Tensor, flat: Linear, stride: int | None) -> str:
        """The addresses of all lanes."""
        kind = memory_type(tensor.dtype)
        if stride is not None:
            offsets = f"<{', '.join(f'i64 {lane * stride}' for lane in range(self.lanes))}>"
            return self.text.emit(
                f"getelementptr inbounds {kind}, ptr {self.address(tensor, flat)}, <{self.lanes} x i64> {offsets}"
            )
        total: Value | None = None
        for atom, coefficient in flat.terms:
            value = self.value(atom, self.exists if atom.has_reads else None)
            term = self.binary(Binary("mul", atom, atom), value, Value(str(coefficient), INDEX))
            total = term if total is None else self.binary(Binary("add", atom, atom), total, term)
        assert total is not None
        return self.text.emit(f"getelementptr {kind}, ptr {self.shifted(tensor, flat.constant)}, {total.type} {total.name}")

    def _read_scalar(self, tensor: Tensor, flat: Linear, predicate: Value | None) -> str:
        """A scalar load. Under a scalar predicate element 0, which always exists, is read instead of one that may not."""
        kind, size = memory_type(tensor.dtype), DTYPE_BYTES[tensor.dtype]
        if predicate is None or predicate.name == "true":
            return self.text.emit(f"load {kind}, ptr {self.address(tensor, flat)}, align {size}")
        condition = predicate
        if predicate.lanes:
            reduced = f"llvm.vector.reduce.or.{intrinsic_suffix(predicate.type)}"
            condition = Value(self.text.call("i1", reduced, f"{predicate.type} {predicate.name}", predicate.type), "bool")
        index = self.linear_operand(flat)
        safe = self.text.emit(f"select i1 {condition.name}, i64 {index}, i64 0")
        address = self.text.emit(f"getelementptr inbounds {kind}, ptr {self.pointers[tensor.name]}, i64 {safe}")
        return self.text.emit(f"load {kind}, ptr {address}, align {size}")

    def _from_memory(self, loaded: str, dtype: str, lanes: int) -> Value:
        if dtype != "bool":
            return Value(loaded, dtype, lanes)
        kind = shaped("i8", lanes)
        return self._emitted(f"icmp ne {kind} {loaded}, {constant(0, kind)}", dtype, lanes)
