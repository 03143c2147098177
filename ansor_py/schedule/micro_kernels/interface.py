"""What a micro-kernel is: one step of the reduction of a register tile, as plain data (design, Idea 3).

A description says what numbers it multiplies and adds, along which axes of the tile its operands move, how many registers that
takes, what a CPU must have, and how one accumulator is brought up to date. `RegisterTile` steps name one; registers are counted
by it, in rules, checks and the simulated CPU, and code generation calls its `update` for each accumulator.

A new one is a file with a description under `micro_kernel`, imported where its neighbours are:

    micro_kernel(MicroKernel("float32 outer product", ("float32", "float32"), ("rows", "lanes"), "float32", _fused))
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from ansor_py.target import Target
from ansor_py.te.expr import Binary, Expr, Reduce

# Along what an operand moves inside a tile: a broadcast for every row, or a vector for every vector of a row.
Along = Literal["rows", "lanes"]


Count = TypeVar("Count", int, NDArray[np.int64])  # a number, or one for each program of a population


class UpdateWriter(Protocol):
    """Where an update is written: at one accumulator of a tile, a vector or a scalar of LLVM type `type`."""

    @property
    def type(self) -> str:
        """The LLVM type of the accumulator."""
        ...

    def operand(self, number: int) -> str:
        """The register with a factor of the product, in the shape of the accumulator."""
        ...

    def emit(self, instruction: str) -> str:
        """Write an LLVM instruction; the register of its result."""
        ...

    def intrinsic(self, name: str, *registers: str) -> str:
        """Call an intrinsic, such as `llvm.fmuladd`, whose arguments and result have the accumulator's type."""
        ...


Update = Callable[[UpdateWriter, str], str]


@dataclass(frozen=True)
class MicroKernel:
    """One step of a register tile.

    `operands` are the dtypes of the two factors whose products are summed in accumulators of dtype `accumulator`, and `along`
    how they move. `features` are those that the CPU must have, as LLVM names them. `update(writer, register)` writes what makes
    of an accumulator the next one, and gives its register. Without operands it is any formula and any combiner (`FORMULA`).
    """

    name: str
    operands: tuple[str, ...]
    along: tuple[Along, ...]
    accumulator: str
    update: Update | None
    features: frozenset[str] = field(default=frozenset())

    def registers(self, rows: Count, vectors: Count, is_partial: Count, target: Target) -> Count:
        """Vector registers for `rows` times `vectors` accumulators and for what is at hand of the operands; arrays or numbers.

        Of a product either the vectors of one operand stay while the other's broadcasts come one by one, or the other way
        round; a formula's rows come one by one. Where instructions overwrite their operands, one that stays is copied first.
        `is_partial` is 1 where the last vector of a row has lanes that do not exist, of which a mask may take a register.
        """
        kept = vectors - (vectors - rows) * (vectors > rows) if self.keeps_either else vectors  # the fewer of the two
        return rows * vectors + kept + 1 + (kept > 1) * target.overwrites_operands + is_partial * target.masks_by_vectors

    @property
    def keeps_either(self) -> bool:
        """Whether one operand moves along the rows of a tile and the other along its lanes, so that either may stay."""
        return set(self.along) == {"rows", "lanes"}

    def goes_by_columns(self, rows: int, vectors: int, target: Target) -> bool:
        """Whether accumulators are brought up to date column by column: the broadcasts fit the registers, vectors do not."""
        return self.keeps_either and rows < vectors and rows * vectors + vectors + 1 > target.vector_registers

    def fits(self, body: Expr, target: Target) -> bool:
        """Whether it computes this formula (with its reduction) on this CPU."""
        if not self.operands:
            return True
        if not isinstance(body, Reduce) or body.combiner != "sum":
            return False
        product = body.source
        if not isinstance(product, Binary) or product.op != "mul" or product.dtype != self.accumulator:
            return False
        named = set(target.features.split(","))
        return tuple(item.dtype for item in product.operands) == self.operands and self.features <= named


# Any formula: nothing is known of its operands but that they are computed row by row.
FORMULA = MicroKernel("formula", (), (), "", None)

MICRO_KERNELS: dict[str, MicroKernel] = {FORMULA.name: FORMULA}


def micro_kernel(kernel: MicroKernel) -> MicroKernel:
    """Register a micro-kernel under its name. Of several that fit, the first registered one is taken."""
    MICRO_KERNELS[kernel.name] = kernel
    return kernel


def micro_kernel_for(body: Expr, target: Target) -> MicroKernel:
    """The micro-kernel for a formula: the first that fits, `FORMULA` if none does."""
    fitting = (kernel for kernel in MICRO_KERNELS.values() if kernel is not FORMULA and kernel.fits(body, target))
    return next(fitting, FORMULA)
