"""A deterministic model of a CPU: a program in, seconds per call out, in about a millisecond and without any code.

The program is lowered as for code generation, then three questions are asked of every tile: how often does it happen
(`cpu_loops`), what does it ask of a core's units (`cpu_instructions`), which cache lines does it fetch (`cpu_caches`). Time is
composed as in the execution-cache-memory model of Stengel, Treibig, Hager and Wellein (2015): arithmetic overlaps with
everything, loads and stores do not overlap with lines that come from farther away. Threads share the work of a region evenly
but for the last iteration, and starting them takes time.

    simulate(dag, steps, Target.detect(), threads=2)      # 0.00087
"""

from __future__ import annotations

from collections.abc import Sequence

from ansor_py.lower.ir import Program
from ansor_py.lower.lower import lower
from ansor_py.measure.cpu_caches import Cache, fetch_cycles, footprints_of
from ansor_py.measure.cpu_instructions import Demand, tile_demand
from ansor_py.measure.cpu_loops import TileSite, region_sites
from ansor_py.schedule.dag import ComputeDAG
from ansor_py.schedule.state import State
from ansor_py.schedule.steps import Step
from ansor_py.target import NOMINAL_HERTZ, Core, Target
from ansor_py.te.simplify import Simplifier

LOOP_CYCLES = 1.0  # an iteration of a loop outside of tiles
RESULT_CYCLES = 60.0  # until what waits for the result of a reduction over lanes can go on
EXIT_CYCLES = 6.0  # leaving a reduction loop: the branch is mispredicted now and then
REGION_SECONDS = 1.5e-6  # starting and joining threads
CALL_SECONDS = 2e-7


def simulate(dag: ComputeDAG, steps: Sequence[Step], target: Target, threads: int) -> float:
    """Seconds per call of a program. Raises ScheduleError or LoweringError where building it would."""
    return program_seconds(lower(State.initial(dag).replay(steps), target), target, threads)


def program_seconds(program: Program, target: Target, threads: int) -> float:
    """Seconds per call of a lowered program; prepacked regions, which run once, take none."""
    simplifier = Simplifier(program.ranges)
    regions = region_sites(program, threads)
    demands = {site: tile_demand(site, simplifier, target) for region in regions for site in region.sites}
    waits = dict.fromkeys(demands, 0.0)
    footprints = [
        [f for site in r.sites for f in footprints_of(site, demands[site].accesses, simplifier, target)] for r in regions
    ]
    for cache in _caches(target, threads):
        for site, cycles in fetch_cycles(footprints, cache).items():
            waits[site] += cycles
    seconds = CALL_SECONDS
    for region in regions:
        cycles = region.iterations * LOOP_CYCLES
        for site in region.sites:
            cycles += _tile_cycles(site, demands[site], waits[site], target.core)
            if site.tile.reduces_lanes and program.buffers[site.tile.buffer.name].allocated_in is not None:
                cycles += RESULT_CYCLES * site.executions
        seconds += cycles / NOMINAL_HERTZ + (REGION_SECONDS if region.threads > 1 else 0.0)
    return seconds


def _caches(target: Target, threads: int) -> list[Cache]:
    """The caches as one thread sees them; those beyond the second are shared."""
    line, core = target.cache_line_bytes, target.core
    third = max(target.l3 / threads, target.l2)
    first = Cache(target.l1, line, line / core.second_bytes, crowded=True)
    return [first, Cache(target.l2, line, line / core.third_bytes), Cache(third, line, line / core.memory_bytes)]


def _tile_cycles(site: TileSite, demand: Demand, waiting: float, core: Core) -> float:
    """Cycles of all executions of a tile, `waiting` for lines included."""
    width = core.width if demand.code <= core.kept_instructions else core.decoded
    chain = demand.latency / (1.0 + core.in_flight / max(demand.slots, 1.0))
    exits = EXIT_CYCLES * sum(loop.trips > 1 for loop in site.reduction)
    busy = max(demand.arithmetic / core.vector_units, demand.slots / width, chain) + exits
    moving = max(demand.loads / core.loads, demand.stores / core.stores)
    return max(busy * site.executions, moving * site.executions + waiting)
