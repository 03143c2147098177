"""Default schedules: a good guess for every computation without any measurement.

Seeded rows of the sketches of the built-in rules are scored by the roofline; the best one is the schedule of an untuned model,
and candidate 0 of every search, so that tuning never makes a model slower. Nothing that a user registers changes it.

    chosen = default_schedule(dag, target, threads=2)
    chosen.steps, chosen.sketch.name, chosen.genes
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf

import numpy as np

from ansor_py.cost_model.roofline_model import estimated_cycles
from ansor_py.errors import ScheduleError
from ansor_py.lower.bounds import bounded, infer_bounds
from ansor_py.schedule.dag import ComputeDAG
from ansor_py.schedule.sketch import Genes, Population, Sketch
from ansor_py.schedule.state import State
from ansor_py.schedule.steps import Step, UseAlgorithm
from ansor_py.search.options import SearchOptions
from ansor_py.search.sampling.sampler import sample
from ansor_py.search.sampling.space import Space
from ansor_py.search.sampling.validity import accepts, plausible, repair, within_bounds
from ansor_py.sketch_rules.derivation import DEFAULT_RULES, generate_sketches
from ansor_py.sketch_rules.space_options import DEFAULT_SPACE
from ansor_py.target import Target

ROWS = 64  # random ones of each sketch
# The best rows of so many sketches are improved in so many rounds, then those of the best of them in more.
DESCENTS = ((6, 3), (3, 3), (1, 8))
OPTIONS = SearchOptions()


@dataclass(frozen=True, eq=False)
class Descent:
    """A row of a sketch on its way down: the roofline's cycles of it, and cycles beside these (`cycles_of_larger_weights`)."""

    space: Space
    row: Genes
    roofline: float
    weights: float

    @property
    def cycles(self) -> float:
        """All of them."""
        return self.roofline + self.weights


@dataclass(frozen=True, eq=False)
class DefaultSchedule:
    """One program of one sketch, and the cycles that the roofline expects of it (infinite where it knows nothing)."""

    sketch: Sketch
    genes: tuple[int, ...]
    cycles: float = inf

    @property
    def steps(self) -> tuple[Step, ...]:
        """The concrete transform steps."""
        return self.sketch.concretise(self.genes)


def default_schedule(dag: ComputeDAG, target: Target, threads: int, math: str = "exact") -> DefaultSchedule:
    """The program for so many threads that the roofline likes best; the same whenever it is asked for.

    `math` says which algorithms are admitted (`SpaceOptions.math`).
    """
    offered = replace(DEFAULT_SPACE, math=math)
    machine = target.with_cores(threads)
    is_empty = any(
        tensor.iterations == 0 for tensor in (*dag.inputs, *dag.computed)
    )  # of loops that do not run there is nothing to estimate
    found: list[Descent] = []
    for sketch in [] if is_empty else generate_sketches(dag, machine, DEFAULT_RULES, offered):
        space = Space(sketch, machine, OPTIONS)
        rows = candidate_rows(space)
        if scores := scored(space, rows):
            first = int(np.argsort(scores, kind="stable")[0])
            found.append(Descent(space, rows[first], scores[first], cycles_of_larger_weights(sketch, machine)))
    for sketches, rounds in DESCENTS:
        found.sort(key=lambda item: item.cycles)
        found = [improved(item, rounds) for item in found[:sketches]]
    if not found:
        return DefaultSchedule(Sketch("untransformed", dag, (), ()), ())
    best = found[0]
    return DefaultSchedule(best.space.sketch, tuple(map(int, best.row)), best.cycles)


def default_steps(dag: ComputeDAG, target: Target, threads: int, math: str = "exact") -> tuple[Step, ...]:
    """The concrete steps of the default schedule."""
    return default_schedule(dag, target, threads, math).steps


def scored(space: Space, rows: Genes) -> list[float]:
    """The roofline's cycles of rows of one sketch."""
    return estimated_cycles(Population(space.sketch, rows), space.target).tolist() if len(rows) else []


def cycles_of_larger_weights(sketch: Sketch, target: Target) -> float:
    """Cycles in which the bytes arrive by which an algorithm's weights exceed the definition's.

    In a network the layers between two calls push weights out of the caches, so that they come from memory every time. The
    programs of one algorithm all read the same weights; between algorithms this decides where layers are small and deep.
    """
    if not any(isinstance(step, UseAlgorithm) for step in sketch.steps):
        return 0.0
    state = next(template for template in sketch.templates if template is not None)
    running = [stage for stage in state.stages if stage.name not in state.prepacked]
    reads = {read.tensor.name: read.tensor for stage in running for read in state.reads(stage.name)}
    kept = sum(tensor.bytes for name, tensor in reads.items() if tensor.is_constant or name in state.prepacked)
    defined = sum(tensor.bytes for tensor in sketch.dag.inputs if tensor.is_constant)
    return max(kept - defined, 0) / (target.core.memory_bytes * target.cores)


def improved(descent: Descent, rounds: int) -> Descent:
    """Steepest descent: in every round the best of the rows that differ in one gene, as long as there is a better one."""
    space, row, cycles = descent.space, descent.row, descent.roofline
    rng = np.random.default_rng(0)
    columns = np.repeat(np.arange(len(row)), space.sketch.sizes)
    choices = np.arange(len(columns)) - np.searchsorted(columns, columns)
    for _ in range(rounds if len(columns) else 0):
        others = np.flatnonzero(choices != row[columns])
        rows = np.repeat(row[None, :], len(others), axis=0)
        rows[np.arange(len(others)), columns[others]] = choices[others]
        rows = repair(space, rows, rng)
        population = bounded(Population(space.sketch, rows[plausible(space, rows)]))
        found = np.where(within_bounds(space, population), estimated_cycles(population, space.target), np.inf)
        if not len(found) or found.min() >= cycles:
            break
        row, cycles = population.genes[found.argmin()], float(found.min())
    return replace(descent, row=row, roofline=cycles)


def candidate_rows(space: Space) -> Genes:
    """Random rows of a sketch and the plain one, which has to do where all are invalid, such as those of a huge formula."""
    rng = np.random.default_rng(0)
    plain = repair(space, np.array([[hole.plain for hole in space.sketch.holes]], dtype=np.int32), rng)
    rows = np.concatenate([plain[accepts(space, plain)], sample(space, ROWS, rng)])
    return rows if len(rows) or not _is_legal(space.sketch, plain[0]) else plain


def _is_legal(sketch: Sketch, row: Genes) -> bool:
    try:
        infer_bounds(State.initial(sketch.dag).replay(sketch.concretise(row)))
    except ScheduleError:
        return False
    return True
