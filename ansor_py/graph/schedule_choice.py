"""Which schedule each task of a model gets: the best of its records that is credible and can be built, else the default.

known = records_of_tasks("runs/x/records.jsonl", parts.tasks, target, threads)       # best first, by workload key
kernels, origins = build_schedules(parts.tasks, known, target, threads)              # "trial 17" or "default"
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, Union

from ansor_py.errors import AnsorWarning, CodegenError, RecordError, ScheduleError
from ansor_py.graph.kernel_builds import BuildRequest, KernelBuilder
from ansor_py.graph.partition import TaskUnit
from ansor_py.measure.records import Record, best_first, credible_records, read_records, same_cpu
from ansor_py.schedule.algorithms import are_exact, check_math
from ansor_py.target import Target

if TYPE_CHECKING:
    from ansor_py.codegen.kernel import CompiledKernel
    from ansor_py.measure.database import Database
    from ansor_py.schedule.steps import Step

# One kernel for each task, and where its schedule comes from, by workload key.
BuiltSchedules: TypeAlias = "tuple[Mapping[str, CompiledKernel], Mapping[str, str]]"
Records: TypeAlias = "Union[str, os.PathLike[str], Iterable[Record]]"
DEFAULT_SCHEDULE = "default"
# Records of a task that are tried, the best first, before it gets the default schedule.
MOST_TRIES = 8


def records_of_tasks(
    records: Records | None,
    units: Sequence[TaskUnit],
    target: Target,
    threads: int,
    allow_untuned: bool = False,
    math: str = "exact",
    needed: Callable[[Mapping[str, Sequence[Record]]], Sequence[TaskUnit]] | None = None,
) -> dict[str, list[Record]]:
    """The valid and credible records of each task on this target with so many threads, best first, by workload key.

    `needed` says of what was found which of the tasks should have some; by default all.

    What is left out for a reason that the user may not expect is an `AnsorWarning`. Raises RecordError when records are given
    and none is for this machine, or (unless `allow_untuned`) for any of the tasks, and where some use algorithms that `math`
    does not admit.
    """
    if records is None:
        return {}
    given, where = _read(records)
    machines = {text: same_cpu(text, target) for text in {record.target for record in given}}
    fitting = [record for record in given if machines[record.target] and record.threads == threads]
    if given and not fitting:
        measured = sorted({f"'{record.target:.200}' with {record.threads} threads" for record in given})
        wanted = f"target '{target!s:.200}' with {threads} threads"
        raise RecordError(f"no record is for {wanted}; they are for {', '.join(measured[:3])}")
    flops = {unit.workload_key: unit.dag.flops for unit in units}
    credible, doubts = credible_records((r for r in fitting if r.workload_key in flops), flops, target, threads)
    if doubts:
        _warn(f"{where}: {len(doubts)} records with costs that cannot be true are left out ({doubts[0]})")
    by_task: dict[str, list[Record]] = {}
    for record in credible:
        if record.valid:
            by_task.setdefault(record.workload_key, []).append(record)
    known = {key: best_first(mine) for key, mine in by_task.items()}
    _require_admitted(known, where, math)
    if allow_untuned:
        return known
    units = units if needed is None else needed(known)
    if units and not known:
        names = sorted({record.task or record.workload_key for record in fitting})
        of = f"its {len(fitting)} records are of {', '.join(names[:3])}" if names else "it holds no records"
        raise RecordError(
            f"{where}: no record is of one of the model's {len(units)} tasks; {of}; give records of this model, none at all, "
            "or allow_untuned=True"
        )
    if len(known) < len(units):
        untuned = [unit.name for unit in units if unit.workload_key not in known]
        _warn(
            f"{where}: {len(known)} of {len(units)} tasks have records; the others get their default schedules: "
            f"{', '.join(untuned[:5])}{', …' * (len(untuned) > 5)}"
        )
    return known


def stored_records(
    database: Database, units: Sequence[TaskUnit], target: Target, threads: int, math: str = "exact"
) -> list[Record] | None:
    """What a store has for the tasks of a model, without what `math` does not admit; None and an `AnsorWarning` if nothing."""
    check_math(math)
    for line in database.lost:
        _warn(f"database '{database.path}', {line}; it is ignored")
    keys = {unit.workload_key for unit in units}
    mine = [record for record in database.records(target, threads) if record.workload_key in keys]
    mine = [record for record in mine if math == "fast" or are_exact(record.algorithms)]
    if not mine and keys:
        _warn(
            f"database '{database.path}' holds no program of the model's {len(keys)} tasks for target '{target!s:.200}' with "
            f"{threads} threads; they get their default schedules"
        )
    return mine or None


def _require_admitted(known: Mapping[str, Sequence[Record]], where: str, math: str) -> None:
    """Raise RecordError for records of a search with `fast` math where `exact` is wanted."""
    check_math(math)
    for record in (record for mine in known.values() for record in mine if math == "exact"):
        if not are_exact(record.algorithms):
            raise RecordError(
                f"{where}: trial {record.trial} of task '{record.task or record.workload_key}' uses "
                f"{', '.join(record.algorithms)}, which only math='fast' admits; compile with math='fast', or tune "
                "the model anew with math='exact'"
            )


def build_schedules(
    units: Iterable[TaskUnit],
    known: Mapping[str, Sequence[Record]],
    target: Target,
    threads: int,
    workers: int | None = None,
    tell: Callable[[str], None] = lambda text: None,
    math: str = "exact",
    optional: Collection[str] = (),
) -> tuple[dict[str, CompiledKernel], dict[str, str]]:
    """Kernels and the origins of their schedules, by workload key.

    A recorded program that cannot be built any more gives way to the next best one, and after a few to the default schedule,
    with an `AnsorWarning`. `math` says which algorithms default schedules may use. Raises CodegenError, naming the task, when
    that fails too, unless its key is among the `optional` ones, of which there is no kernel then.
    """
    kernels: dict[str, CompiledKernel] = {}
    origins: dict[str, str] = {}
    choices = [_choice(unit, known.get(unit.workload_key, ())[:MOST_TRIES]) for unit in units]
    with KernelBuilder(target, threads, workers, math=math) as builder:
        while choices:
            tell(f"compiling {len(choices)} kernels")
            results = builder.build([BuildRequest(choice.symbol, choice.unit.dag, choice.steps) for choice in choices])
            again = []
            for choice, result in zip(choices, results, strict=True):
                if not isinstance(result, str):
                    kernels[choice.unit.workload_key] = result
                    origins[choice.unit.workload_key] = choice.origin
                elif choice.origin == DEFAULT_SCHEDULE:
                    if choice.unit.workload_key in optional:
                        continue
                    raise CodegenError(f"task '{choice.unit.name}' cannot be compiled with its default schedule: {result}")
                else:
                    following = _choice(choice.unit, choice.others)
                    _warn_of(choice.unit, choice.origin, f"cannot be compiled ({result})", following.origin)
                    again.append(following)
            choices = again
    return kernels, origins


@dataclass(frozen=True, eq=False)
class _Choice:
    """The schedule of one task: steps (None: the default ones), where they come from, and the records to try if they cannot
    be built."""

    unit: TaskUnit
    steps: tuple[Step, ...] | None
    origin: str
    others: tuple[Record, ...] = ()

    @property
    def symbol(self) -> str:
        """The name of the kernel's function, unique among different computations."""
        return f"kernel_{self.unit.workload_key}"


def _choice(unit: TaskUnit, records: Sequence[Record]) -> _Choice:
    """The first record whose steps can be read, else the default schedule."""
    for number, record in enumerate(records):
        try:
            return _Choice(unit, record.concrete_steps(unit.dag), f"trial {record.trial}", tuple(records[number + 1 :]))
        except ScheduleError as error:
            following = f"trial {records[number + 1].trial}" if number + 1 < len(records) else DEFAULT_SCHEDULE
            _warn_of(unit, f"trial {record.trial}", f"cannot be read ({error})", following)
    return _Choice(unit, None, DEFAULT_SCHEDULE)


def _warn_of(unit: TaskUnit, origin: str, fault: str, following: str) -> None:
    instead = "its default schedule" if following == DEFAULT_SCHEDULE else following
    _warn(f"task '{unit.name}': {origin} {fault}; {instead} is used")


def _warn(text: str) -> None:
    warnings.warn(AnsorWarning(text), stacklevel=2)


def _read(records: Records) -> tuple[list[Record], str]:
    """The records, and what to call them."""
    if not isinstance(records, (str, os.PathLike)):
        return list(records), "the records"
    given, lost = read_records(Path(records))
    where = f"records file '{os.fspath(records)}'"
    for line in lost:
        _warn(f"{where} {line}; it is ignored")
    return given, where
