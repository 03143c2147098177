"""A store of the best programs that searches have found, in a directory of the user's: `--database DIR`.

A task that was tuned once compiles from it at once, and another search of the same task, or of one that computes the same on
other sizes, starts from its programs. Beside each record stand the choices that were made for its sketch, so that they can be
looked up in the sketch of another task. All is one file of JSON lines, a program a line; every change replaces the file.

    database = Database("~/.ansor", create=True)
    database.add([Stored(record, family="...", kinds=("tile",), choices=((4, 8),), ratio=0.8)])
    database.records(target, threads=2)                 # for `compile(..., records=...)`
    database.relatives(family, target, threads=2)       # programs of tasks that compute the same
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from ansor_py.errors import OptionError
from ansor_py.measure.records import LostLine, Record, same_cpu
from ansor_py.target import Target

PROGRAMS, LOCK = "programs.jsonl", "lock"
KEPT = 3  # programs of a task on a target


class Stored(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A program of the store.

    Attributes:
        record: its trial.
        family: equal for tasks that compute the same thing on whatever sizes.
        kinds: of the holes of its sketch.
        choices: what was chosen for each.
        ratio: its seconds in units of the default schedule's.
    """

    record: Record
    family: str
    kinds: tuple[str, ...]
    choices: tuple[Any, ...]
    ratio: float


class Database:
    """An open store. With `create`, the directory is made if there is none. Raises OptionError for one that is no store."""

    def __init__(self, path: str | os.PathLike[str], create: bool = False) -> None:
        self.path = Path(path).expanduser()
        with self._using():
            if create:
                self.path.mkdir(parents=True, exist_ok=True)
            if not self.path.is_dir():
                fault = "is no directory" if self.path.exists() else "does not exist"
                raise OptionError(f"database '{self.path}' {fault}; name one that a search with --database DIR has made")
            if create and not os.access(self.path, os.W_OK):
                raise OptionError(f"database '{self.path}' cannot be written; choose another directory")
        self.lost: tuple[LostLine, ...] = ()
        self._programs = self._read()

    def records(self, target: Target, threads: int) -> list[Record]:
        """What is known of any task on this target with so many threads, the best program of each task first."""
        return [item.record for item in self._programs if _fits(item, target, threads)]

    def relatives(self, family: str, target: Target, threads: int) -> list[Stored]:
        """The programs of tasks of a family on this target, those first that gained most over their default schedules."""
        mine = [item for item in self._programs if item.family == family and _fits(item, target, threads)]
        return sorted(mine, key=lambda item: item.ratio)

    def add(self, programs: Iterable[Stored]) -> None:
        """Take up programs and keep the few best of every task on every target; a program that was there has its new seconds.

        What other processes have added meanwhile stays. Raises OptionError where the directory cannot be written.
        """
        with self._using(), self._locked():
            known = {_identity(item): item for item in [*self._read(), *programs]}
            by_task: dict[tuple[str, str, int], list[Stored]] = {}
            for item in known.values():
                by_task.setdefault(_identity(item)[:3], []).append(item)
            kept = [item for mine in by_task.values() for item in sorted(mine, key=lambda item: item.record.cost)[:KEPT]]
            partial = self.path / f"{PROGRAMS}.partial"
            partial.write_bytes(b"".join(msgspec.json.encode(item) + b"\n" for item in kept))
            os.replace(partial, self.path / PROGRAMS)
            self._programs = kept

    def _read(self) -> list[Stored]:
        """The programs of the file; `lost` tells of lines that are none."""
        file = self.path / PROGRAMS
        with self._using():
            lines = file.read_bytes().splitlines() if file.exists() else []
        programs: list[Stored] = []
        lost: list[LostLine] = []
        for number, line in enumerate(lines, start=1):
            try:
                item = msgspec.json.decode(line, type=Stored)
                if len(item.kinds) != len(item.choices):
                    raise ValueError(f"{len(item.choices)} choices of {len(item.kinds)} holes")
            except (msgspec.DecodeError, ValueError, RecursionError) as error:
                lost.append(LostLine(number, str(error)))
            else:
                programs.append(msgspec.structs.replace(item, choices=_as_tuples(item.choices)))
        self.lost = tuple(lost)
        return programs

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """No other process changes the store within the block."""
        with (self.path / LOCK).open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    @contextmanager
    def _using(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OptionError(f"database '{self.path}': {error.strerror}; choose another directory") from error


def _fits(item: Stored, target: Target, threads: int) -> bool:
    record = item.record
    return record.valid and record.threads == threads and same_cpu(record.target, target)


def _identity(item: Stored) -> tuple[str, str, int, str]:
    """Task, target, threads, and the program itself."""
    record = item.record
    return record.workload_key, record.target, record.threads, json.dumps(record.steps)


def _as_tuples(value: Any) -> Any:
    """JSON has lists where choices are tuples."""
    return tuple(map(_as_tuples, value)) if isinstance(value, (list, tuple)) else value
