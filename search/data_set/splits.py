"""Who is held out: the three splits of TenSet (Zheng et al., NeurIPS 2021), each from easy to hard, all fixed by a seed.

| split | held out are |
| --- | --- |
| `within_task` | a share of the programs of every task |
| `by_task` | all programs of a share of the tasks |
| `by_target` | all programs of a share of the targets; none where there is only one |

    is_test = split(records, seed=0, test_share=0.1)["by_task"]     # bool[programs]

Equal programs of one task are on one side, however often and by however many runs they were measured. Which task, target or
program is held out depends neither on the order of the records nor, for the programs of a task, on the other tasks: it is
drawn by hashes with the seed, not in turn, so that a data set that grows goes on holding out the same ones, as far as the
share allows.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from ansor_py.errors import OptionError
from ansor_py.measure.records import Record

SPLITS = ("within_task", "by_task", "by_target")


def split(records: Sequence[Record], seed: int, test_share: float) -> dict[str, NDArray[np.bool_]]:
    """Who is held out by each of `SPLITS`. Raises OptionError for a share that is none."""
    if not 0 < test_share < 1:
        raise OptionError(f"the share of what is held out must be above 0 and below 1, not {test_share}")
    tasks = [record.workload_key for record in records]
    targets = [f"{record.target} threads={record.threads}" for record in records]
    programs = [json.dumps(record.steps) for record in records]
    within = np.zeros(len(records), dtype=np.bool_)
    places: dict[str, list[int]] = {}
    for place, task in enumerate(tasks):
        places.setdefault(task, []).append(place)
    for task, mine in places.items():
        within[mine] = _held_out([programs[place] for place in mine], test_share, seed, task)
    return {
        "within_task": within,
        "by_task": _held_out(tasks, test_share, seed, "tasks"),
        "by_target": _held_out(targets, test_share, seed, "targets"),
    }


def _held_out(labels: Sequence[str], test_share: float, seed: int, salt: str) -> NDArray[np.bool_]:
    """Which labels are among the held out share of all different ones, at least one and not all; none if there is only one."""
    different = sorted(set(labels), key=lambda label: _chance(seed, salt, label))
    count = min(max(1, math.floor(test_share * len(different) + 0.5)), len(different) - 1)
    chosen = set(different[:count])
    return np.array([label in chosen for label in labels], dtype=np.bool_)


def _chance(*parts: Hashable) -> bytes:
    """A random place in an order, the same in every process."""
    return hashlib.sha256("\n".join(map(str, parts)).encode()).digest()
