"""The buffer plan: where in one arena each intermediate value lies, so that values which are never alive together share bytes.

Placing intervals in the least height is NP-hard. A greedy best fit (each buffer into the smallest gap that holds it,
buffers in some order) is close to the largest live set; several orders are tried, and then the buffer that sticks out is
moved to the front of the order, until the plan meets the lower bound or stops improving.

    plan = plan_memory([Buffer("a", 4096, first=0, last=2), Buffer("b", 4096, first=2, last=3)])
    plan.offsets["b"], plan.arena_bytes, plan.live_bytes
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ansor_py.codegen.memory import aligned

# How often a plan above the lower bound is improved by moving its highest buffer to the front.
IMPROVEMENT_ROUNDS = 64


@dataclass(frozen=True)
class Buffer:
    """A value of `bytes` bytes, alive from step `first` (which writes it) to step `last` (its last reader), both included."""

    name: str
    bytes: int
    first: int
    last: int


@dataclass(frozen=True)
class MemoryPlan:
    """Offsets in bytes into an arena of `arena_bytes`; `live_bytes` is the largest sum of buffers alive in one step."""

    offsets: Mapping[str, int]
    arena_bytes: int
    live_bytes: int


def largest_live_set(buffers: Sequence[Buffer]) -> int:
    """The most bytes (each buffer rounded up to the alignment) that are alive in one step: no plan can be smaller."""
    if not buffers:
        return 0
    change = [0] * (max(buffer.last for buffer in buffers) + 2)  # Python's numbers: the sum may be of any size
    for buffer in buffers:
        change[buffer.first] += aligned(buffer.bytes)
        change[buffer.last + 1] -= aligned(buffer.bytes)
    return max(itertools.accumulate(change))


def plan_memory(buffers: Sequence[Buffer]) -> MemoryPlan:
    """A plan in which buffers whose lifetimes meet do not overlap. Deterministic."""
    live = largest_live_set(buffers)
    if not buffers:
        return MemoryPlan({}, 0, 0)
    intervals = _Intervals.of(buffers)
    length = intervals.last - intervals.first + 1
    orders = [
        np.lexsort((intervals.first, -intervals.size)),  # largest first
        np.lexsort((intervals.first, -intervals.size * length)),  # largest area first
        np.lexsort((-intervals.size, intervals.first)),  # in order of execution
        np.lexsort((-intervals.size, -length)),  # longest-lived first
    ]
    best = min((intervals.place(order) for order in orders), key=lambda placed: placed.height)
    for _ in range(IMPROVEMENT_ROUNDS):
        if best.height <= live:
            break
        candidate = intervals.place(intervals.with_top_first(best))
        if candidate.height > best.height or np.array_equal(candidate.order, best.order):
            break
        best = candidate
    offsets = {buffer.name: int(offset) for buffer, offset in zip(buffers, best.offsets, strict=True)}
    return MemoryPlan(offsets, best.height, live)


@dataclass(frozen=True, eq=False)
class _Placement:
    order: NDArray[np.int64]
    offsets: NDArray[np.int64]
    height: int


@dataclass(frozen=True, eq=False)
class _Intervals:
    """The buffers as arrays: aligned sizes and lifetimes."""

    size: NDArray[np.int64]
    first: NDArray[np.int64]
    last: NDArray[np.int64]

    @staticmethod
    def of(buffers: Sequence[Buffer]) -> _Intervals:
        rows = np.array([(aligned(buffer.bytes), buffer.first, buffer.last) for buffer in buffers], dtype=np.int64)
        return _Intervals(rows[:, 0], rows[:, 1], rows[:, 2])

    def place(self, order: NDArray[np.int64]) -> _Placement:
        """Best fit: each buffer goes into the smallest gap between its neighbours that holds it, else on top of them."""
        offsets = np.full(len(self.size), -1, dtype=np.int64)
        for index in order:
            together = (offsets >= 0) & (self.first <= self.last[index]) & (self.first[index] <= self.last)
            offsets[index] = _best_gap(offsets[together], self.size[together], int(self.size[index]))
        return _Placement(order, offsets, int((offsets + self.size).max()))

    def with_top_first(self, placed: _Placement) -> NDArray[np.int64]:
        """The order with the buffers that reach the arena's end moved to the front."""
        on_top = (placed.offsets + self.size)[placed.order] == placed.height
        return np.concatenate([placed.order[on_top], placed.order[~on_top]])


def _best_gap(offsets: NDArray[np.int64], sizes: NDArray[np.int64], wanted: int) -> int:
    """The start of the smallest gap of at least `wanted` bytes between occupied ranges, else the end of the last one."""
    order = np.argsort(offsets, kind="stable")
    starts = offsets[order]
    ends = np.concatenate([[0], np.maximum.accumulate((offsets + sizes)[order])]) if len(order) else np.zeros(1, np.int64)
    gaps = starts - ends[:-1]
    fitting = np.flatnonzero(gaps >= wanted)
    if len(fitting) and wanted > 0:
        return int(ends[fitting[np.argmin(gaps[fitting])]])
    return int(ends[-1])
