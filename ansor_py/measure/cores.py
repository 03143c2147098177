"""Which cores run programs and which build them.

A timing that shares a core with a build is wrong by up to a factor of two. Where there are enough cores, runner and builders
own disjoint sets; where there are at most one more than the runner needs, builders use all cores and the phases alternate.

    plan = plan_cores(threads=2)          # on 2 cores: run (0, 1), build (0, 1), alternating True
    pin(plan.run)
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# NumPy's own pool of threads would sleep beside, in every worker.
WORKER_ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1"}
_SIBLINGS = "/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list"


@dataclass(frozen=True)
class CorePlan:
    """Numbers of the cores that run and that build, and whether runs and builds have to alternate in time."""

    run: tuple[int, ...]
    build: tuple[int, ...]
    alternating: bool


def available_cores() -> tuple[int, ...]:
    """The logical cores that this process may use, the first of each physical core before its hyperthreads."""
    allowed = sorted(os.sched_getaffinity(0))
    return tuple(sorted(allowed, key=lambda core: (_thread_number(core), core)))


def plan_cores(threads: int, cores: Sequence[int] | None = None) -> CorePlan:
    """Divide the cores between a runner of `threads` threads and the builders.

    A runner of more threads than there are cores has all of them, and its threads take turns.
    """
    chosen = available_cores() if cores is None else tuple(cores)
    run = chosen[:threads]
    if needs_alternation(len(chosen), threads):
        return CorePlan(run, chosen, True)
    return CorePlan(run, chosen[threads:], False)


def needs_alternation(cores: int, threads: int) -> bool:
    """Whether a machine has too few cores to build and run at the same time."""
    return cores <= threads + 1


def pin(cores: Sequence[int]) -> None:
    """Restrict the calling thread, and those that it will start, to some cores."""
    os.sched_setaffinity(0, cores)


def _thread_number(core: int) -> int:
    """0 for the first logical core of a physical core, 1 for its hyperthread, and so on."""
    try:
        siblings = _numbers(Path(_SIBLINGS.format(core=core)).read_text())
    except (OSError, ValueError):
        return 0  # the topology is not known
    return siblings.index(core) if core in siblings else 0


def _numbers(text: str) -> list[int]:
    """`0,4-6` as [0, 4, 5, 6]."""
    result: list[int] = []
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        result.extend(range(int(first), int(last or first) + 1))
    return result
