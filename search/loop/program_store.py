"""The store of a user's (`ansor_py/measure/database.py`) as a search sees it: what it starts from, and what it adds.

database = open_store(options, virtual=False)          # None without `TuningOptions(database=...)`
findings_of(database, task)                            # programs of the same task, then of similar ones
database.add([stored_program(record, sketches, task, default_seconds)])
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import msgspec

from ansor_py.errors import AnsorWarning, OptionError
from ansor_py.measure.database import Database, Stored
from ansor_py.measure.records import Record
from ansor_py.schedule.sketch import Sketch
from ansor_py.schedule.task import Task
from ansor_py.search.loop.inheriting_policy import Finding
from ansor_py.search.loop.recorded_programs import trainable
from ansor_py.search.loop.tuning_options import TuningOptions
from ansor_py.search.scheduler.strategies import expression_family


def open_store(options: TuningOptions, virtual: bool) -> Database | None:
    """The store of the user's, with a warning of what in it cannot be read. Raises OptionError where nothing is measured."""
    if options.database is None:
        return None
    if virtual:
        raise OptionError(f"database '{options.database}': a runner that runs nothing has nothing to store; leave it out")
    database = Database(options.database, create=True)
    for line in database.lost:
        warnings.warn(f"database '{database.path}', {line}; it is ignored", AnsorWarning, stacklevel=2)
    return database


def stored_program(record: Record, sketches: Sequence[Sketch], task: Task, default_seconds: float) -> Stored:
    """A program as the store keeps it: with the choices of its sketch, as far as it has one of these."""
    kinds: tuple[str, ...] = ()
    choices: tuple[Any, ...] = ()
    if trainable(record, sketches) and record.sketch_id is not None:
        finding = Finding.of_genes(sketches[record.sketch_id], record.genes, record.trial, 1.0)
        with suppress(TypeError):  # choices of a user's own kind of hole may be anything
            msgspec.json.encode(finding.choices)
            kinds, choices = finding.kinds, finding.choices
    return Stored(record, family_key(task), kinds, choices, record.cost / default_seconds)


def family_key(task: Task) -> str:
    """Equal for tasks that compute the same thing on whatever sizes."""
    return hashlib.sha256(expression_family(task.dag).encode()).hexdigest()[:16]


def findings_of(database: Database, task: Task) -> list[Finding]:
    """What a store has for a task: its own programs, then of each similar task the best, greatest gain first."""
    programs = database.relatives(family_key(task), task.target, task.target.cores)
    own = [item for item in programs if item.record.workload_key == task.workload_key]
    others = {item.record.workload_key: item for item in reversed(programs) if item not in own}
    return [Finding.of_stored(item) for item in (*own, *reversed(others.values()))]
