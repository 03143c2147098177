"""Where a micro-kernel writes its update of an accumulator (`UpdateWriter`, `schedule/micro_kernels/interface.py`)."""

from __future__ import annotations

from dataclasses import dataclass

from ansor_py.codegen.addresses import Value
from ansor_py.codegen.expressions import ExpressionEmitter
from ansor_py.codegen.vector_operations import intrinsic_suffix
from ansor_py.te.expr import Expr


@dataclass(frozen=True)
class AccumulatorWriter:
    """At one accumulator, whose point is where everything stands."""

    expressions: ExpressionEmitter
    factors: tuple[Expr, ...]
    predicate: Value | None
    old: Value

    @property
    def type(self) -> str:
        return self.old.type

    def operand(self, number: int) -> str:
        value = self.expressions.value(self.factors[number], self.predicate)
        return self.expressions.broadcast(value, self.old.lanes).name

    def emit(self, instruction: str) -> str:
        return self.expressions.text.emit(instruction)

    def intrinsic(self, name: str, *registers: str) -> str:
        arguments = ", ".join(f"{self.type} {register}" for register in registers)
        function = f"{name}.{intrinsic_suffix(self.type)}"
        return self.expressions.text.call(self.type, function, arguments, ", ".join([self.type] * len(registers)))
