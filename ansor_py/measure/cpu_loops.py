"""How often everything in a lowered program happens, for the simulated CPU (`cpu_simulation.py`).

Extents that depend on outer loops (tails) and conditions are evaluated at a fixed set of evenly spread positions of the loops
around them, so averages are right without visiting every iteration. All numbers are those of the busiest thread.

    for region in region_sites(program, threads=2):
        for site in region.sites:
            site.tile, site.executions, [loop.trips for loop in site.loops]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from ansor_py.errors import LoweringError
from ansor_py.lower.ir import For, If, Node, Program, Region, Tile
from ansor_py.te.expr import Binary, Compare, Const, Expr, Not, Var
from ansor_py.te.interpreter import BINARY_FUNCTIONS, COMPARE_FUNCTIONS

Values = NDArray[np.float64]

POSITIONS = 64
# Square roots of primes have no common pattern, so the positions of loops do not depend on each other.
_STEPS = np.sqrt(np.array([2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71], dtype=np.float64))
_SPREAD = ((np.arange(POSITIONS) + 0.5)[None, :] * _STEPS[:, None]) % 1.0


@dataclass(frozen=True, eq=False)
class LoopLevel:
    """A loop around or in a tile, by identity: `trips` iterations on average each time that it is reached."""

    variable: str
    trips: float


@dataclass(frozen=True, eq=False)
class TileSite:
    """A tile where it stands.

    `around` are the loops outside of it, outermost first, `reduction` its reduction loops. `executions` counts the tile,
    `edge` is the share of them with iterations past an end, `first` the share whose accumulators start from the identity.
    """

    tile: Tile
    around: tuple[LoopLevel, ...]
    reduction: tuple[LoopLevel, ...]
    points: tuple[LoopLevel, ...]
    executions: float
    edge: float
    first: float

    @property
    def loops(self) -> tuple[LoopLevel, ...]:
        """All loops, outermost first."""
        return (*self.around, *self.reduction, *self.points)


@dataclass(frozen=True)
class RegionSites:
    """The tiles of a region, which `threads` threads work on; `iterations` are those of all loops outside of tiles."""

    stage: str
    threads: int
    iterations: float
    sites: tuple[TileSite, ...]


def region_sites(program: Program, threads: int) -> list[RegionSites]:
    """The regions of a call in order, without those that are prepacked."""
    return [_Walk(region, threads).result() for region in program.regions if not region.prepacked]


def evaluate(expr: Expr, values: Mapping[str, Values]) -> Values | float:
    """An integer expression or condition (as 0 or 1) at all positions. Raises LoweringError for any other expression."""
    match expr:
        case Const():
            return np.float64(expr.value)
        case Var():
            return values[expr.name]
        case Not():
            return 1.0 - evaluate(expr.value, values)
        case Compare() | Binary(op="add" | "sub" | "mul" | "floordiv" | "mod" | "min" | "max" | "and" | "or"):
            functions = COMPARE_FUNCTIONS if isinstance(expr, Compare) else BINARY_FUNCTIONS
            result = functions[expr.op](evaluate(expr.left, values), evaluate(expr.right, values))
            return np.asarray(result, dtype=np.float64)
    raise LoweringError(f"an extent or condition is '{expr}', which no loop position gives a value")


class _Walk:
    """One pass over a region, which knows the position of every open loop."""

    def __init__(self, region: Region, threads: int) -> None:
        self._region = region
        self._values: dict[str, Values] = {}
        self._sites: list[TileSite] = []
        self._iterations = 0.0
        total = prod(extent for _, extent in region.parallel)
        self._threads = min(threads, total) if region.parallel else 1
        share = -(-total // self._threads) / total  # of the busiest thread
        around: list[LoopLevel] = []
        for variable, extent in region.parallel:
            self._enter(variable, float(extent), len(around))
            trips = max(extent * share, 1.0)
            share *= extent / trips
            around.append(LoopLevel(variable, trips))
        weight = np.full(POSITIONS, prod(loop.trips for loop in around))
        self._iterations += float(weight[0]) if around else 0.0
        self._nodes(region.body, tuple(around), weight)

    def result(self) -> RegionSites:
        return RegionSites(self._region.stage, self._threads, self._iterations, tuple(self._sites))

    def _enter(self, variable: str, extent: Values | float, depth: int) -> None:
        self._values[variable] = np.floor(_SPREAD[depth % len(_SPREAD)] * extent)

    def _nodes(self, nodes: Sequence[Node], around: tuple[LoopLevel, ...], weight: Values) -> None:
        for node in nodes:
            match node:
                case If():
                    self._nodes(node.body, around, weight * evaluate(node.condition, self._values))
                case For():
                    level, inside = self._loop(node.variable, node.extent, len(around), weight)
                    self._iterations += 0.0 if node.annotation == "unroll" else float(inside.mean())
                    self._nodes(node.body, (*around, level), inside)
                case Tile():
                    self._tile(node, around, weight)

    def _loop(self, variable: str, extent: Expr, depth: int, weight: Values) -> tuple[LoopLevel, Values]:
        count = np.maximum(evaluate(extent, self._values), 0.0)
        self._enter(variable, count, depth)
        inside = weight * count
        outside = float(weight.mean())
        return LoopLevel(variable, float(inside.mean()) / outside if outside else 0.0), inside

    def _tile(self, tile: Tile, around: tuple[LoopLevel, ...], weight: Values) -> None:
        executions = float(weight.mean())
        if not executions:
            return
        first = 1.0 if tile.first is None else self._share(tile.first, weight)
        reduction: list[LoopLevel] = []
        inside = weight
        for loop in tile.reduction:
            level, inside = self._loop(loop.variable, loop.extent, len(around) + len(reduction), inside)
            reduction.append(level)
            self._nodes(loop.prologue, (*around, *reduction), inside)
        complete: Values | float = 1.0
        self._values.update((loop.variable, np.full(POSITIONS, loop.extent - 1.0)) for loop in tile.loops)
        for bounded in tile.loops:
            if bounded.limit is not None:
                complete = complete * np.greater_equal(evaluate(bounded.limit, self._values), bounded.extent).astype(np.float64)
        edge = 1.0 - float((weight * complete).mean()) / executions
        points = tuple(LoopLevel(loop.variable, float(loop.extent)) for loop in tile.loops)
        self._sites.append(TileSite(tile, around, tuple(reduction), points, executions, edge, first))

    def _share(self, condition: Expr, weight: Values) -> float:
        return float((weight * evaluate(condition, self._values)).mean() / weight.mean())
