"""How many cycles a core's execution units need for a tile, if everything lies in the nearest cache (`cpu_simulation.py`).

Code generation makes one value of an expression for each point of the tile on which it depends, and LLVM moves out of the
reduction loops what does not depend on them; both is counted here, operation by operation.

    demand = tile_demand(site, simplifier, target)
    max(demand.arithmetic / 2, demand.latency), max(demand.loads / 2, demand.stores)     # cycles for one execution
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import gcd, prod

from ansor_py.measure.cpu_caches import Access
from ansor_py.measure.cpu_loops import TileSite
from ansor_py.schedule.access import instructions_of
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
    variables_of,
)
from ansor_py.te.simplify import Simplifier
from ansor_py.te.tensor import Tensor

# Slots of the two vector units; vectors of any width take the same number, except where a unit is narrow.
SIMPLE_FUNCTION_SLOTS = 2  # abs, floor, ceil, round
INTEGER_DIVISION_SLOTS = 4  # by a constant: a multiplication and shifts
EXTREME_SLOTS = 4  # two comparisons and two blends, so that NaN wins
EXTREME_LATENCY = 7.0  # cycles from one step of an accumulator to the next
ACROSS_LANES_SLOTS = 12
GATHER_SLOTS = 8
MASK_SLOTS = 2
LOOP_SLOTS = 2  # add, compare and branch
TILE_SLOTS, ACCESS_SLOTS = 2, 1.5  # integers of one execution of a tile: the tile itself, each address of it


@dataclass
class Demand:
    """What one execution of a tile asks of a core: slots by kind of unit, and cycles that its longest chain takes."""

    arithmetic: float = 0.0
    loads: float = 0.0
    stores: float = 0.0
    other: float = 0.0
    latency: float = 0.0
    code: float = 0.0  # instructions of the innermost loop's body
    accesses: list[Access] = field(default_factory=list)

    @property
    def slots(self) -> float:
        """All instructions."""
        return self.arithmetic + self.loads + self.stores + self.other


def tile_demand(site: TileSite, simplifier: Simplifier, target: Target) -> Demand:
    """The demand of one execution of the tile at this site."""
    return _TileCount(site, simplifier, target).demand()


class _TileCount:
    """Counts the instructions of one tile."""

    def __init__(self, site: TileSite, simplifier: Simplifier, target: Target) -> None:
        tile = site.tile
        self._site, self._tile, self._simplifier, self._target = site, tile, simplifier, target
        self._rows = {loop.variable: loop.extent for loop in tile.loops if loop.variable != tile.vector}
        extent = tile.loops[-1].extent if tile.vector is not None else 1
        self._lanes = min(tile.lanes, extent) if tile.vector is not None else 0
        self._vectors = -(-extent // tile.lanes) if tile.vector is not None else 1
        self._is_partial = int(tile.vector is not None and extent % tile.lanes > 0)
        self._points = prod(self._rows.values()) * self._vectors
        self._trips = [max(loop.trips, 1e-9) for loop in site.reduction]
        self._steps = prod(self._trips)
        self._demand = Demand()
        self._counted: set[Expr] = set()

    def demand(self) -> Demand:
        tile, demand = self._tile, self._demand
        if tile.combiner is None:
            self._operation(tile.value)
        else:
            self._combination(tile.combiner)
        for condition in tile.predicates:
            self._operation(condition)
            demand.arithmetic += MASK_SLOTS
        demand.accesses.append(Access(tile.buffer, tile.indices, write=True))
        demand.code = demand.slots / self._steps * (tile.reduction[-1].unroll if tile.reduction else 1)
        if tile.combiner is not None:
            self._loop_overhead()
            self._initial()
        self._results()
        demand.arithmetic += self._site.edge * 0.3 * demand.loads
        demand.other += TILE_SLOTS + ACCESS_SLOTS * len(demand.accesses)
        return demand

    # Reductions.

    def _combination(self, combiner: str) -> None:
        demand, value = self._demand, self._tile.value
        fused = combiner == "sum" and value.dtype in FLOAT_DTYPES and isinstance(value, Binary) and value.op == "mul"
        for operand in value.operands if fused else (value,):
            self._operation(operand)
        extreme = combiner in ("max", "min")
        demand.arithmetic += self._points * self._steps * (EXTREME_SLOTS if extreme else 1)
        demand.latency = self._steps * (EXTREME_LATENCY if extreme else self._target.core.latency)
        taken = self._tile.kernel.registers(self._points // self._vectors, self._vectors, self._is_partial, self._target)
        spilled = max(taken - self._target.vector_registers, 0)
        demand.loads += spilled * self._steps
        demand.stores += spilled * self._steps

    def _loop_overhead(self) -> None:
        pointers = len(self._demand.accesses) - 1
        rounds = 1.0
        for loop, trips in zip(self._tile.reduction, self._trips, strict=True):
            rounds *= trips
            self._demand.other += rounds / loop.unroll * (LOOP_SLOTS + pointers)

    def _initial(self) -> None:
        """Accumulators that go on from what is in memory are loaded, lane by lane where memory has them apart."""
        if self._site.first < 1.0 and not self._tile.reduces_lanes:
            stride, crossing = self._stride(self._tile.buffer, self._tile.indices)
            apart = stride not in (0, 1)
            again = 1.0 - self._site.first
            self._demand.loads += again * self._points * (self._lanes if apart else 1.0 + crossing)
            self._demand.arithmetic += again * self._points * (GATHER_SLOTS if apart else 0)

    def _results(self) -> None:
        demand, tile = self._demand, self._tile
        if tile.reduces_lanes:
            rows = prod(self._rows.values())
            demand.arithmetic += ACROSS_LANES_SLOTS * rows + self._points - rows
            demand.latency += ACROSS_LANES_SLOTS * 2
            demand.stores += rows
            return
        stride, crossing = self._stride(tile.buffer, tile.indices)
        if not self._lanes or stride == 1:
            demand.stores += self._points * (1.0 + crossing)
            return
        scattered = float(self._points * self._lanes)
        run = self._row_of_memory() if stride else 0
        share = self._site.edge if run else 1.0
        demand.stores += share * scattered
        demand.arithmetic += share * scattered
        if run:  # transposed in registers
            demand.stores += (1.0 - share) * scattered / min(run, self._lanes)
            demand.arithmetic += (1.0 - share) * 2 * self._points * max(min(run, self._lanes) - 1, 1).bit_length()

    def _row_of_memory(self) -> int:
        """The extent of a loop of the tile along which results are neighbours in memory; 0 if there is none."""
        flat = self._simplifier.recombine(self._simplifier.flat(self._tile.buffer.shape, self._tile.indices))
        return max((extent for name, extent in self._rows.items() if flat.stride(name) == 1 and extent >= 4), default=0)

    # Operations.

    def _operation(self, expr: Expr) -> None:
        """Count an expression with everything in it, once for each combination of what it depends on."""
        pending = [expr]
        while pending:
            node = pending.pop()
            if node in self._counted or isinstance(node, Const | Var):
                continue
            self._counted.add(node)
            if isinstance(node, Read):
                self._read(node)
                pending.extend(index for index in reversed(node.indices) if index.has_reads)
            else:
                self._instruction(node)
                pending.extend(reversed(node.operands))

    def _instruction(self, expr: Expr) -> None:
        times, in_lanes = self._times(expr)
        wide = 2 if in_lanes and self._is_wide(expr) else 1
        slots = self._slots(expr) * wide
        if in_lanes or expr.dtype in FLOAT_DTYPES:
            self._demand.arithmetic += times * slots
        else:
            self._demand.other += times * slots

    def _is_wide(self, expr: Expr) -> bool:
        """Whether the lanes of an operation take two registers: 64-bit integers beside 32-bit numbers."""
        operands = (expr, *expr.operands)
        return any(node.dtype == INDEX for node in operands) and self._lanes * DTYPE_BYTES[INDEX] > self._target.vector_bytes

    def _slots(self, expr: Expr) -> float:
        core = self._target.core
        match expr:
            case Call():
                if expr.function in ("sqrt", "rsqrt"):
                    return core.root * core.vector_units
                return max(instructions_of(expr), SIMPLE_FUNCTION_SLOTS)
            case Binary(op="div"):
                return core.division * core.vector_units
            case Binary(op="pow"):
                return instructions_of(expr)
            case Binary(op="floordiv" | "mod"):
                return INTEGER_DIVISION_SLOTS
            case Binary(op="min" | "max"):
                constant = isinstance(expr.left, Const) or isinstance(expr.right, Const)
                return MASK_SLOTS if constant else EXTREME_SLOTS
            case Select() | Compare() | Not() | Cast() | Binary():
                return 1
        return 1

    def _times(self, expr: Expr) -> tuple[float, bool]:
        """How often an operation is done in one execution of the tile, and whether in lanes.

        What does not change within the loops right around the tile is done outside of them, once for many executions.
        """
        names = variables_of(expr)
        if not names & {loop.variable for loop in (*self._site.reduction, *self._site.points)}:
            share = 1.0
            for loop in reversed(self._site.around):
                if loop.variable in names:
                    break
                share /= max(loop.trips, 1.0)
            return share, False
        in_lanes = self._tile.vector in names
        times = float(prod(extent for name, extent in self._rows.items() if name in names))
        times *= self._vectors if in_lanes else 1
        deepest = max((k + 1 for k, loop in enumerate(self._tile.reduction) if loop.variable in names), default=0)
        return times * prod(self._trips[:deepest]), in_lanes

    def _read(self, read: Read) -> None:
        demand = self._demand
        demand.accesses.append(Access(read.tensor, read.indices, write=False))
        times, in_lanes = self._times(read)
        if not in_lanes:
            demand.loads += times
            return
        stride, crossing = self._stride(read.tensor, read.indices)
        if stride == 1:
            demand.loads += times * (1.0 + crossing)
        elif stride == 0:
            demand.loads += times
        else:
            demand.loads += times * self._lanes
            demand.arithmetic += times * GATHER_SLOTS

    # Addresses.

    def _stride(self, tensor: Tensor, indices: Sequence[Expr]) -> tuple[int | None, float]:
        """Distance of neighbouring lanes in elements (None: no constant), and how often a vector lies in two cache lines."""
        flat = self._simplifier.recombine(self._simplifier.flat(tensor.shape, indices))
        stride, size, line = flat.stride(self._tile.vector), DTYPE_BYTES[tensor.dtype], self._target.cache_line_bytes
        if stride != 1:
            return stride, 0.0
        fixed = [(atom, c) for atom, c in flat.terms if self._tile.vector not in variables_of(atom)]
        grain = gcd(line, flat.constant * size, *(c * size * self._multiple_of(atom) for atom, c in fixed))
        return stride, max(min(max(self._lanes, 1) * size, line) - grain, 0) / line

    def _multiple_of(self, atom: Expr) -> int:
        """A number that divides the atom wherever its loops stand."""
        if not isinstance(atom, Binary) or atom.op not in ("min", "max", "mod"):
            return 1
        divisors = []
        for side in (atom.left, atom.right):
            value = self._simplifier.linear(side)
            divisors.append(gcd(value.constant, *(c * self._multiple_of(a) for a, c in value.terms)))
        return gcd(*divisors)
