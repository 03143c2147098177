"""What of an earlier search's records a new one goes on from.

known, doubts = usable_records(run.restored, tasks, target)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ansor_py.errors import ScheduleError
from ansor_py.measure.records import Record, credible_records
from ansor_py.schedule.task import Task
from ansor_py.target import Target


def usable_records(records: Iterable[Record], tasks: Sequence[Task], target: Target) -> tuple[list[Record], list[str]]:
    """The records of these tasks on this target by trial, and a line for each that is left out because it cannot be believed.

    Those are records with costs that cannot be true, and with steps that this version cannot replay. Records of another task,
    target or number of threads are left out without a word.
    """
    dags = {task.workload_key: task.dag for task in tasks}
    flops = {task.workload_key: task.flops for task in tasks}
    machine = (str(target), target.cores)
    mine = [record for record in records if record.workload_key in flops and (record.target, record.threads) == machine]
    credible, doubts = credible_records(mine, flops, target, target.cores)
    known = []
    for record in credible:
        try:
            record.concrete_steps(dags[record.workload_key])
        except ScheduleError as error:
            doubts.append(f"trial {record.trial}: {error}")
        else:
            known.append(record)
    return sorted(known, key=lambda record: record.trial), doubts
