"""What the baseline is about: the four targets of `tests/targets.py` and the workloads of `experiments/workloads.py`.

kernel_text(workload_dag("nrm"), steps, TARGETS["avx2"], TARGETS["avx2"].cores)
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path

from ansor_py.schedule.dag import ComputeDAG

# Their modules import each other by bare name; at the end, where they hide nothing.
sys.path.extend(str(Path(__file__).resolve().parents[2] / folder) for folder in ("tests", "experiments"))

from targets import four_targets
from workloads import SUITE, workload

# Two threads, so that parallel loops are in the baseline too.
TARGETS = four_targets("cores=2")
NAMES = (*SUITE, "attention_128")


@functools.cache
def workload_dag(name: str) -> ComputeDAG:
    """The DAG of a workload of full size as a search sees it."""
    (unit,) = workload(name).partition().subgraphs
    return unit.dag
