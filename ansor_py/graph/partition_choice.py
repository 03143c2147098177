"""What a partition's choices are decided for: measured seconds where there are some, else what the roofline expects.

choices = choices_by_records(parts, known)                    # by key of the whole, of those that the records decide
choices |= choices_by_roofline(parts, kernels, other_keys)    # of those whose kernels have default schedules
parts.decided(wide_keys(choices))
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from math import fsum, isfinite
from typing import TYPE_CHECKING

from ansor_py.graph.kernel_builds import DefaultKernel
from ansor_py.graph.plan import FusionChoice

if TYPE_CHECKING:
    from ansor_py.codegen.kernel import CompiledKernel
    from ansor_py.graph.partition import Choice, Partition
    from ansor_py.measure.records import Record

# One kernel has to be faster than several by this share of their time. The roofline is rough, and of equal ones the narrower
# have more uses.
PREDICTED_MARGIN, MEASURED_MARGIN = 0.02, 0.0

Seconds = Callable[[str], "float | None"]  # of a workload key


def distinct_choices(parts: Partition) -> dict[str, Choice]:
    """One of the choices of each key."""
    found: dict[str, Choice] = {}
    for choice in parts.choices:
        found.setdefault(choice.key, choice)
    return found


def choices_by_records(parts: Partition, known: Mapping[str, Sequence[Record]]) -> dict[str, FusionChoice]:
    """By key, what the best records of each task (those first in `known`) say: the lesser sum, or what was measured at all.

    Of what nothing was measured they say nothing. Times inside a model count where all tasks of both sides have some.
    """
    found = {}
    for key, choice in distinct_choices(parts).items():
        best = {task: known[task][0] for task in (key, *(part.workload_key for part in choice.parts)) if known.get(task)}
        if not best:
            continue
        alone = {task: record.cost for task, record in best.items()}
        place = {task: value for task, record in best.items() if (value := _in_place(record)) is not None}
        is_complete = {key, *(part.workload_key for part in choice.parts)} == place.keys()
        seconds, by = (place, "in place") if is_complete else (alone, "records")
        found[key] = weighed(parts, choice, seconds.get, by, MEASURED_MARGIN)
    return found


def choices_by_roofline(
    parts: Partition, kernels: Mapping[str, CompiledKernel], keys: Iterable[str]
) -> dict[str, FusionChoice]:
    """By key, what the roofline says of default schedules, for the choices of some keys."""

    def seconds(task: str) -> float | None:
        kernel = kernels.get(task)
        known = isinstance(kernel, DefaultKernel) and isfinite(kernel.predicted_seconds)
        return kernel.predicted_seconds if known else None  # type: ignore[union-attr]

    choices = distinct_choices(parts)
    return {key: weighed(parts, choices[key], seconds, "roofline", PREDICTED_MARGIN) for key in keys}


def weighed(parts: Partition, choice: Choice, seconds: Seconds, by: str, margin: float) -> FusionChoice:
    """What the seconds of a choice's tasks say. The whole is taken if it is faster by the margin, or only its time is known."""
    names = {unit.workload_key: unit.name for unit in parts.all_tasks}
    wide, sides = seconds(choice.key), [seconds(part.workload_key) for part in choice.parts]
    known = [value for value in sides if value is not None]
    narrow = fsum(known) if len(known) == len(sides) else None
    return FusionChoice(
        task=names[choice.key],
        parts=tuple(names[part.workload_key] for part in choice.parts),
        occurrences=sum(other.key == choice.key for other in parts.choices),
        wide=wide is not None and (narrow is None or wide < (1 - margin) * narrow),
        wide_seconds=wide,
        narrow_seconds=narrow,
        by=by,
    )


def extremes(choices: Mapping[str, FusionChoice]) -> list[dict[str, FusionChoice]]:
    """The choices with all decided for the parts, and with all for the wholes; once if there are none."""
    return [
        {key: replace(choice, wide=wide) for key, choice in choices.items()}
        for wide in ((False, True) if choices else (False,))
    ]


def wide_keys(choices: Mapping[str, FusionChoice]) -> frozenset[str]:
    """The keys of those that take the whole."""
    return frozenset(key for key, choice in choices.items() if choice.wide)


def _in_place(record: Record) -> float | None:
    place = record.result.in_place
    return None if place is None else place.seconds
