"""What searches have found, measured again in one go: searches made minutes apart met another machine, and each has its luck.

The best few programs of every search run in turns, all of them once, then all of them again (`search/loop/retiming.py`), so
that a slow moment meets all searches alike and the luckiest first measurement does not count.

    retimed_ms(task, [Path("runs/a"), Path("runs/b")], "process")       # milliseconds, one a search
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from ansor_py.measure import MeasureInput, MeasureResult, Record, create_measurer, read_records
from ansor_py.schedule.task import Task
from ansor_py.search.loop.retiming import contenders_of, retime
from ansor_py.search.loop.run_directory import RECORDS


def retimed_ms(task: Task, runs: Sequence[Path], runner: str) -> list[float]:
    """The median latency of the best program of each run directory, in its order; infinite where there is none that works.

    The default schedule, which every search measures first, is not a find. All runs must be of this task.
    """
    target, key = task.target, task.workload_key
    groups = [_finds(path, key) for path in runs]
    with create_measurer(runner, target=target, threads=target.cores) as measurer:

        def measure(records: Sequence[Record]) -> list[MeasureResult | None]:
            programs = [
                MeasureInput(key, task.dag, record.concrete_steps(task.dag), target, target.cores) for record in records
            ]
            return list(measurer.measure(programs))

        again = retime(groups, measure)
    return [1e3 * min((record.cost for record in group), default=math.inf) for group in again]


def _finds(run: Path, key: str) -> list[Record]:
    records, _ = read_records(run / RECORDS)
    return contenders_of([item for item in records if item.workload_key == key and not item.is_default])
