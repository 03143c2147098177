"""The final word on the best programs: they are measured again, in turns, so that luck and drift do not choose.

Of each task at most eight programs take part, those whose first measurement came close to the best, and the default
schedule, so that what is tuned is never slower than what is not. All of them run once, then all of them again: a slow
minute of the machine meets every program alike.

    [again] = retime([[*contenders_of(records), default]], measure)     # records with the new costs
    min(again, key=lambda record: record.cost)
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Callable, Sequence

from ansor_py.measure import MeasureInput, MeasureResult, Record
from ansor_py.measure.records import CLOSE

CONTENDERS = 8
TRIALS_PER_CONTENDER = 8  # a task with few trials has few contenders, so that this takes a small part of the search
PASSES = 3
# So many programs of a task, at most this much slower alone than the best, are timed inside the network.
IN_PLACE_PROGRAMS = 3
IN_PLACE_MARGIN = 1.25
# Of each other algorithm the best program, too: one with smaller weights may win where these come from memory.
ALGORITHM_MARGIN = 3.0


def contenders_of(records: Sequence[Record]) -> list[Record]:
    """The programs worth another look, the best first; equal programs once."""
    limit = min(CONTENDERS, max(len(records) // TRIALS_PER_CONTENDER, 1))
    valid = sorted((record for record in records if record.valid), key=lambda record: record.cost)
    distinct: dict[str, Record] = {}
    for record in valid:
        if record.cost > CLOSE * valid[0].cost or len(distinct) == limit:
            break
        distinct.setdefault(json.dumps(record.steps), record)
    return list(distinct.values())


def in_place_contenders(best: Record, records: Sequence[Record], retimed: Sequence[Record]) -> tuple[Record, ...]:
    """The programs worth timing inside a network: the best first, the next few by cost, the best by other algorithms, the
    default schedule, and what the network chose before; equal programs once, with the costs of the re-timing where there are
    such.

    `best` and `retimed` are what the re-timing gave.
    """
    again = {record.trial: record for record in retimed}
    valid = [again.get(record.trial, record) for record in records if record.valid]
    valid.sort(key=lambda record: (record.trial != best.trial, record.cost))
    distinct: dict[str, Record] = {}
    algorithms: set[tuple[str, ...]] = set()
    searched = 0
    for record in valid:
        place, steps = record.result.in_place, json.dumps(record.steps)
        fast = searched < IN_PLACE_PROGRAMS and record.cost <= IN_PLACE_MARGIN * best.cost
        other = record.algorithms not in algorithms and record.cost <= ALGORITHM_MARGIN * best.cost and not fast
        if record.is_default or (steps not in distinct and (fast or other or (place is not None and place.chosen))):
            distinct[steps] = record
            searched += fast and not record.is_default
        algorithms.add(record.algorithms)
    return tuple(distinct.values())


def retime(
    groups: Sequence[Sequence[Record]], measure: Callable[[Sequence[Record]], Sequence[MeasureResult | None]]
) -> list[list[Record]]:
    """The records of every group with the costs of all passes, in the same order, without those that failed in any pass.

    `measure` runs programs in the given order.
    """
    everyone = [record for group in groups for record in group]
    results = list(measure(everyone * PASSES))
    again: list[list[Record]] = []
    position = 0
    for group in groups:
        retimed = []
        for offset, record in enumerate(group):
            passes = results[position + offset :: len(everyone)]
            costs = [result.costs for result in passes if result is not None and result.valid]
            if len(costs) == PASSES:
                retimed.append(record.with_costs(tuple(itertools.chain.from_iterable(costs))))
        position += len(group)
        again.append(retimed)
    return again


def timed_to_the_end(program: MeasureInput) -> MeasureInput:
    """The program with all its samples, however slow it is."""
    return dataclasses.replace(program, cut_seconds=None, best_seconds=None)
