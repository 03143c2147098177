"""The programs that the baseline records: of every workload, for each of four targets, its default schedule and seeded ones.

Of every sketch at least two programs are drawn and of every workload at least thirteen, by a generator for each sketch whose
seed is the sketch's name, its workload and its target: a rule that adds a sketch leaves the programs of the others as they are.

    programs = draw_programs("avx2", "nrm")     # what `programs/avx2/nrm.txt` holds
"""

from __future__ import annotations

import numpy as np
from recorded import DEFAULT, Program
from subjects import TARGETS, workload_dag

from ansor_py.schedule.sketch import Sketch
from ansor_py.schedule.steps import Step
from ansor_py.search.options import SearchOptions
from ansor_py.search.sampling.default_schedule import default_steps
from ansor_py.search.sampling.sampler import sample
from ansor_py.search.sampling.space import Space
from ansor_py.sketch_rules import generate_sketches

LEAST_OF_WORKLOAD, LEAST_OF_SKETCH = 13, 2


def draw_programs(target: str, workload: str) -> list[Program]:
    """The default schedule of a workload for a target, then the programs of its sketches in the order of derivation."""
    dag, machine, options = workload_dag(workload), TARGETS[target], SearchOptions()
    sketches = generate_sketches(dag, machine, options.rules, options.space)
    programs = [Program(target, workload, DEFAULT, (), _plain(default_steps(dag, machine, machine.cores)))]
    total = max(LEAST_OF_WORKLOAD, LEAST_OF_SKETCH * len(sketches))
    for place, sketch in enumerate(sketches):
        count = len(range(place, total, len(sketches)))
        programs.extend(_programs_of(target, workload, sketch, count, options))
    return programs


def _programs_of(target: str, workload: str, sketch: Sketch, count: int, options: SearchOptions) -> list[Program]:
    rng = np.random.default_rng(list(f"{target} {workload} {sketch.name}".encode()))
    rows = sample(Space(sketch, TARGETS[target], options), count, rng)
    return [
        Program(target, workload, f"{sketch.name} #{number}", tuple(map(int, row)), _plain(sketch.concretise(row)))
        for number, row in enumerate(rows)
    ]


def _plain(steps: tuple[Step, ...]) -> tuple[list[object], ...]:
    return tuple(step.to_json() for step in steps)
