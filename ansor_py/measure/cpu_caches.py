"""Which cache lines the tiles of a program touch, and how many of them have to be fetched (`cpu_simulation.py`).

For every access and every level of the loops around it: how many distinct lines the inner loops touch. What the body of a loop
touches stays in a cache that is large enough, so the next iteration fetches only what is new; from a smaller cache
everything is fetched again, as a cache that replaces the line used least recently does.

    [footprint] = footprints_of(site, [access], simplifier, target)
    footprint.lines                                                   # float64[loops + 1], innermost first
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import gcd

import numpy as np
from numpy.typing import NDArray

from ansor_py.measure.cpu_loops import LoopLevel, TileSite
from ansor_py.target import Target
from ansor_py.te.expr import DTYPE_BYTES, Binary, Const, Expr, Var, variables_of
from ansor_py.te.simplify import Linear, Simplifier
from ansor_py.te.tensor import Tensor

Levels = NDArray[np.float64]

# Up to this part of its size a cache holds all that is used in turn; from the other one on it holds nothing of it.
FITS, OVERFLOWS = 0.7, 1.5


@dataclass(frozen=True, eq=False)
class Access:
    """A tensor and the indices at which a tile reads or writes it."""

    tensor: Tensor
    indices: tuple[Expr, ...]
    write: bool


@dataclass(frozen=True, eq=False)
class Footprint:
    """What one access touches: distinct lines within the innermost 0, 1, ... loops of its site.

    `crowd` is the number of lines that would fill the first cache as much if they were spread over all of its sets.
    """

    access: Access
    site: TileSite
    lines: Levels
    crowd: Levels

    @property
    def first(self) -> int:
        """How many innermost loops the access stands outside of: results are in registers until a reduction's loops end."""
        site = self.site
        return len(site.points) + len(site.reduction) if self.access.write and site.tile.combiner is not None else 0


@dataclass(frozen=True)
class Cache:
    """A cache: its capacity and line size in bytes, and the cycles that a line costs which has to be fetched from beyond.

    With `crowded` lines whose addresses have the same low bits drive each other out.
    """

    capacity: float
    line_bytes: int
    cycles: float
    crowded: bool = False


def footprints_of(site: TileSite, accesses: Sequence[Access], simplifier: Simplifier, target: Target) -> list[Footprint]:
    """The lines of every access of a tile."""
    reaches = _Reaches(site, simplifier)
    return [Footprint(access, site, *reaches.lines(access, target)) for access in accesses]


def fetch_cycles(regions: Sequence[Sequence[Footprint]], cache: Cache) -> dict[TileSite, float]:
    """Cycles that each tile waits for lines in all of its executions, when the program is called again and again."""
    whole = [_bytes_of_region(footprints, cache.line_bytes) for footprints in regions]
    cycles: dict[TileSite, float] = {}
    for number, footprints in enumerate(regions):
        inside = _bytes_inside(footprints, cache)
        inside[None] = sum(whole[number].values())
        before: dict[str, list[Footprint]] = {}
        for item in footprints:
            name = item.access.tensor.name
            distance = _since_last_use(name, number, whole)
            moved = _fetched(item, inside, cache.capacity) * (1.0 - fit(distance, cache.capacity))
            earlier = before.setdefault(name, [])
            share = _missing(item, earlier, inside, cache.capacity)
            if item.access.write:  # what is written has to be returned as well
                share += _missing(item, [other for other in earlier if other.access.write], inside, cache.capacity)
            cycles[item.site] = cycles.get(item.site, 0.0) + share * moved * cache.cycles
            earlier.append(item)
    return cycles


def _missing(item: Footprint, earlier: Sequence[Footprint], inside: Mapping[LoopLevel | None, float], capacity: float) -> float:
    """The share of an access's lines that accesses before it, in the same iteration of a common loop, have not left behind."""
    missing = 1.0
    for other in earlier:
        if other.site is item.site:
            return 0.0
        common = [a for a, b in zip(item.site.around, other.site.loops, strict=False) if a is b]
        missing = min(missing, 1.0 - fit(inside[common[-1] if common else None], capacity))
    return missing


def fit(size: float, capacity: float) -> float:
    """Which share of the lines survives in a cache until `size` bytes have been used: from 1 to 0 around its capacity."""
    if not capacity:
        return 0.0
    return float(min(max((OVERFLOWS - size / capacity) / (OVERFLOWS - FITS), 0.0), 1.0))


def _fetched(item: Footprint, inside: Mapping[LoopLevel | None, float], capacity: float) -> float:
    """Lines fetched over all loops: an inner loop's body that fits leaves only new lines to the next iteration."""
    loops = item.site.loops[::-1]
    lines = item.lines
    fetched = float(lines[item.first])
    for k, loop in list(enumerate(loops))[item.first :]:
        kept = fit(inside[loop], capacity)
        fresh = min(float(lines[k + 1] / lines[k]), loop.trips)
        fetched *= fresh**kept * loop.trips ** (1.0 - kept)
    return fetched


def _bytes_inside(footprints: Sequence[Footprint], cache: Cache) -> dict[LoopLevel | None, float]:
    """Bytes that one iteration of each loop touches, over all tiles in it; a buffer that several tiles use counts once."""
    found: dict[LoopLevel | None, dict[str, float]] = {}
    for item in footprints:
        for k, loop in list(enumerate(item.site.loops[::-1]))[item.first :]:
            buffers = found.setdefault(loop, {})
            name = item.access.tensor.name
            lines = item.crowd if cache.crowded else item.lines
            buffers[name] = max(buffers.get(name, 0.0), float(lines[k]) * cache.line_bytes)
    return {loop: sum(buffers.values()) for loop, buffers in found.items()}


def _bytes_of_region(footprints: Sequence[Footprint], line_bytes: int) -> dict[str, float]:
    buffers: dict[str, float] = {}
    for item in footprints:
        name = item.access.tensor.name
        buffers[name] = max(buffers.get(name, 0.0), float(item.lines[-1]) * line_bytes)
    return buffers


def _since_last_use(name: str, number: int, whole: Sequence[dict[str, float]]) -> float:
    """Bytes used from the region that used a buffer before this one (in the call before, if need be) to this one's end."""
    used = sum(whole[number].values())
    for back in range(1, len(whole) + 1):
        earlier = whole[number - back]
        if back < len(whole):
            used += sum(size for buffer, size in earlier.items() if buffer not in whole[number])
        if name in earlier:
            break
    return used


class _Reaches:
    """How far index expressions move within the innermost loops of a site, for every number of them."""

    def __init__(self, site: TileSite, simplifier: Simplifier) -> None:
        self._simplifier = simplifier
        self._trips: dict[str, Levels] = {}
        loops = site.loops[::-1]
        self._levels = len(loops) + 1
        for k, loop in enumerate(loops):
            reach = np.zeros(self._levels)
            reach[k + 1 :] = max(loop.trips - 1.0, 0.0)
            self._trips[loop.variable] = reach
        self._none = np.zeros(self._levels)

    def lines(self, access: Access, target: Target) -> tuple[Levels, Levels]:
        """Distinct lines of an access: runs of neighbouring elements, a line or more each, of which neighbours share some.

        And that number times how unevenly they lie in the sets of the first cache.
        """
        size, line_bytes = DTYPE_BYTES[access.tensor.dtype], target.cache_line_bytes
        # Addresses that differ by a multiple of this many bytes compete for the same few lines of the first cache.
        span_of_sets = target.l1 // target.core.first_ways
        run, runs, span = np.ones(self._levels), np.ones(self._levels), np.ones(self._levels)
        whole = np.ones(self._levels, dtype=np.bool_)  # whether all inner dimensions are covered
        places = np.ones(self._levels)  # of the starts of runs, modulo the span of the sets
        stride = 1
        for extent, index in zip(reversed(access.tensor.shape), reversed(access.indices), strict=True):
            reach, count = self._of(self._simplifier.linear(index))
            reach, count = np.minimum(reach, extent - 1.0), np.minimum(count, extent)
            count = np.minimum(count, reach + 1.0)
            dense = whole & (count >= reach + 1.0)
            run = np.where(dense, run * count, run)
            runs = np.where(dense, runs, runs * count)
            places = np.where(dense, places, places * np.minimum(count, span_of_sets / gcd(span_of_sets, stride * size)))
            whole = dense & (count >= extent)
            span = span + reach * stride
            stride *= extent
        lines = runs * (1.0 + (run - 1.0) * size / line_bytes)
        lines = np.minimum(np.minimum(lines, runs * run), 1.0 + (span - 1.0) * size / line_bytes)
        lines = np.maximum.accumulate(lines)
        sets = span_of_sets / line_bytes
        used = np.minimum(places * np.ceil(run * size / line_bytes), sets)
        return lines, np.maximum(lines, (lines - used) * sets / used)

    def _of(self, value: Linear) -> tuple[Levels, Levels]:
        """The distance between lowest and highest value, and how many combinations of loop positions there are."""
        reach, count = self._none, self._none + 1.0
        for atom, coefficient in value.terms:
            moved = self._atom(atom)
            reach = reach + abs(coefficient) * moved
            count = count * (moved + 1.0)
        return reach, count

    def _atom(self, atom: Expr) -> Levels:
        if isinstance(atom, Var):
            return self._trips.get(atom.name, self._none)
        if isinstance(atom, Binary) and atom.op in ("min", "max"):
            left, right = self._of(self._simplifier.linear(atom.left))[0], self._of(self._simplifier.linear(atom.right))[0]
            return np.maximum(left, right)
        if isinstance(atom, Binary) and atom.op in ("floordiv", "mod") and isinstance(atom.right, Const):
            divisor = int(atom.right.value)
            value = self._simplifier.linear(atom.left)
            reach = self._of(value)[0]
            if atom.op == "mod":
                return np.minimum(reach, divisor - 1.0)
            aligned = np.full(self._levels, value.constant % divisor == 0)
            for term, coefficient in value.terms:
                aligned &= (self._atom(term) > 0) | (coefficient % divisor == 0)
            return np.where(aligned, np.floor(reach / divisor), reach / divisor)
        count = self._none + 1.0
        for name in variables_of(atom):
            count = count * (self._trips.get(name, self._none) + 1.0)
        return count - 1.0
