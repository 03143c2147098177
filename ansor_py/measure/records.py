"""Records: everything that is known about one measured program, one JSON object per line.

The search appends a batch of records after each round; plots, `best_records`, resuming and transfer read them. A file that was
cut in the middle of a line (power loss, `kill -9`) loses that line and nothing else.

    with RecordWriter("run/records.jsonl") as writer:
        writer.write(batch)
    records, lost = read_records("run/records.jsonl")
    best = best_records(records, target=str(target), threads=2)     # {workload key: Record}
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

import msgspec
from msgspec import Struct

from ansor_py.errors import LoweringError, RecordError, ScheduleError, TargetError
from ansor_py.measure.result import MeasureResult
from ansor_py.measure.schema_1 import converted

if TYPE_CHECKING:
    from ansor_py.schedule.dag import ComputeDAG
    from ansor_py.schedule.steps import Step
    from ansor_py.target import Target

SCHEMA: Literal[2] = 2
DEFAULT_OPERATOR = "default"  # what a record's `operator` says about candidate 0, the default schedule
# A program does at most this many times the operations that its target's multiply-add units can do. It cannot be less:
# Winograd's algorithm multiplies four times less than the definition says, and caches deliver more than memory.
MOST_TIMES_PEAK = 10.0
# A cost at most this much above another one may be as good: programs so close are measured again, or timed in place.
CLOSE = 1.05


class Origin(Struct, frozen=True, forbid_unknown_fields=True):
    """Where a program comes from; None is "not known".

    `parent` is the trial whose program it was made from, `operator` what made it (a mutation, crossover, random sampling),
    `predicted` the score of the cost model before it was trained on this trial.
    """

    sketch_id: int | None = None
    sketch: str | None = None
    genes: tuple[int, ...] = ()
    parent: int | None = None
    operator: str | None = None
    predicted: float | None = None


class Record(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One trial. `steps` are concrete transform steps, each as JSON; `elapsed` seconds since the search began.

    `states_tiles` is False for a program from before the step `RegisterTile`, whose register tiles lowering guessed.

    `host` is None, and time stamps are the virtual clock's, when a virtual measurer made the record, so that equal seeds give
    equal bytes.
    """

    schema: Literal[2] = SCHEMA
    engine: str = ""
    host: str | None = None
    workload_key: str
    target: str
    threads: int
    task: str = ""
    trial: int
    round: int = 0
    seed: int = 0
    elapsed: float = 0.0
    steps: tuple[list[Any], ...]
    states_tiles: bool = True
    origin: Origin = Origin()
    result: MeasureResult

    @property
    def valid(self) -> bool:
        """Whether the program ran to the end and passed its checks."""
        return self.result.valid

    @property
    def is_default(self) -> bool:
        """Whether the program is the default schedule, candidate 0 of its task."""
        return self.origin.operator == DEFAULT_OPERATOR

    @property
    def cost(self) -> float:
        """Median seconds per call; infinite for a failed trial."""
        return self.result.cost

    def with_costs(self, costs: tuple[float, ...]) -> Record:
        """The record with other seconds per call, such as those of another measurement."""
        return msgspec.structs.replace(self, result=msgspec.structs.replace(self.result, costs=costs))

    @property
    def sketch_id(self) -> int | None:
        """The number of the sketch, None for a program that was not made from one."""
        return self.origin.sketch_id

    @property
    def genes(self) -> tuple[int, ...]:
        """One gene for every hole of the sketch."""
        return self.origin.genes

    @property
    def algorithms(self) -> tuple[str, ...]:
        """The algorithms that the program uses in place of the definition, each once."""
        return tuple(dict.fromkeys(str(step[2]) for step in self.steps if step[:1] == ["use_algorithm"] and len(step) > 2))

    def concrete_steps(self, dag: ComputeDAG) -> tuple[Step, ...]:
        """The transform steps as objects, for the DAG that the record is about; those of an older program state its tiles.

        Raises ScheduleError for steps that this version does not know or cannot apply.
        """
        from ansor_py.schedule.steps import step_from_json

        steps = tuple(step_from_json(step) for step in self.steps)
        if self.states_tiles:
            return steps
        from ansor_py.lower.guessed_tiles import with_register_tiles
        from ansor_py.target import Target

        try:
            return with_register_tiles(dag, steps, Target.parse(self.target))
        except LoweringError as error:
            raise ScheduleError(str(error)) from error

    def to_json(self) -> dict[str, Any]:
        """The fields in a fixed order, with tuples as lists."""
        written: dict[str, Any] = msgspec.to_builtins(self)
        return written

    @staticmethod
    def from_json(value: object) -> Record:
        """The inverse of `to_json`; also takes records of schema 1. Raises RecordError that names what is wrong and where."""
        if not isinstance(value, dict):
            raise RecordError(f"a record must be a JSON object, not {type(value).__name__}")
        schema = value.get("schema")
        if schema not in (1, SCHEMA):
            raise RecordError(
                f"the record has schema {schema!r:.20} and this version reads 1 and {SCHEMA}; use the ansor-py that wrote it"
            )
        try:
            return msgspec.convert(converted(value) if schema == 1 else value, Record)
        except msgspec.ValidationError as error:
            raise RecordError(f"the record is wrong: {error}") from error


@dataclass(frozen=True)
class LostLine:
    """A line of a records file that could not be used. `number` counts from 1; `last` marks a file that was cut short."""

    number: int
    reason: str
    last: bool = False

    def __str__(self) -> str:
        return f"line {self.number}{' (the last one, cut short)' if self.last else ''}: {self.reason}"


class RecordWriter(AbstractContextManager["RecordWriter"]):
    """Appends records to a file, one line each, and flushes them to the operating system after each batch.

    A rest without an end of line, left by an earlier run that was killed, is completed when it is a whole record and
    dropped when it is not, so that a new record never joins it. The file is locked, so that two searches never mix their
    records; the lock ends with the process, however it ends. Raises RecordError when the file cannot be opened, or when
    another writer has it.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._mended = False
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file: BinaryIO = self.path.open("ab")
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BaseException:
                self._file.close()
                raise
        except BlockingIOError as error:
            raise RecordError(
                f"another process writes records to '{self.path}', a search with the same --out; "
                "wait for its end or choose another --out"
            ) from error
        except OSError as error:
            raise RecordError(f"cannot write records to '{self.path}': {error.strerror}; choose another --out") from error

    def write(self, records: Iterable[Record]) -> None:
        """Append a batch. A record with an infinite or undefined number raises RecordError, and nothing is written."""
        try:
            text = "".join(json.dumps(r.to_json(), separators=(",", ":"), allow_nan=False) + "\n" for r in records)
        except ValueError as error:
            raise RecordError(f"a record for '{self.path}' cannot be written as JSON: {error}") from error
        try:
            if not self._mended:
                _mend_last_line(self.path)
                self._mended = True
            self._file.write(text.encode())
            self._file.flush()
        except OSError as error:
            raise RecordError(
                f"records cannot be written to '{self.path}': {error.strerror}; make room and continue with --resume"
            ) from error

    def close(self) -> None:
        """Close the file; calling it again does nothing."""
        with suppress(OSError):  # what could not be written was reported by `write`
            self._file.close()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def read_records(path: str | Path, strict: bool = False) -> tuple[list[Record], list[LostLine]]:
    """All records of a file in order, and the lines that could not be used.

    A line about a trial that an earlier line is about, with its time inside a network, takes the place of that line.
    A broken last line without an end of line is always dropped and reported (the writer was killed). Another broken line
    is reported too, or raises RecordError when `strict`. A file that cannot be read raises RecordError.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RecordError(f"cannot read records from '{path}': {error.strerror}") from error
    records: list[Record] = []
    places: dict[tuple[Any, ...], int] = {}
    lost: list[LostLine] = []
    lines = content.split(b"\n")  # the part after the last end of line is empty in a complete file
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            _take(_record_of_line(line), records, places)
        except RecordError as error:
            cut = number == len(lines)
            if strict and not cut:
                raise RecordError(f"'{path}' line {number}: {error}; remove the line or read the file leniently") from error
            lost.append(LostLine(number, str(error), last=cut))
    return records, lost


def _take(record: Record, records: list[Record], places: dict[tuple[Any, ...], int]) -> None:
    """Append a record, or replace what was known of its trial before it was timed in place; `places` says where trials are."""
    trial = (record.workload_key, record.target, record.threads, record.trial, record.elapsed)
    place = places.setdefault(trial, len(records))
    if place == len(records) or record.result.in_place is None or records[place].steps != record.steps:
        records.append(record)
    else:
        records[place] = record


def credible_records(
    records: Iterable[Record], flops: Mapping[str, int], target: Target, threads: int
) -> tuple[list[Record], list[str]]:
    """The records whose costs can be true, and a line for each of the others that says why not.

    `flops` are the operations of the tasks by workload key; a record of another task is not judged.
    """
    rate = MOST_TIMES_PEAK * target.most_flops(threads)
    kept: list[Record] = []
    doubts: list[str] = []
    for record in records:
        least = flops.get(record.workload_key, 0) / rate
        if (costs := record.result.costs) and min(costs) < least:
            doubts.append(f"trial {record.trial}: {min(costs):.3g} s, where the machine needs at least {least:.3g} s")
        else:
            kept.append(record)
    return kept, doubts


def best_first(records: Iterable[Record]) -> list[Record]:
    """The valid records of one task on one machine in order of preference: by median cost, the earlier one of equals first,
    but before all others the one that a network chose in place, unless one that the network did not try is clearly faster.
    """
    valid = sorted((record for record in records if record.valid), key=lambda record: record.cost)
    tried = [record for record in valid if record.result.in_place is not None]
    chosen = {place.seconds: record for record in tried if (place := record.result.in_place) and place.chosen and place.seconds}
    if not chosen or tried[0].cost > CLOSE * valid[0].cost:
        return valid
    first = chosen[min(chosen)]
    return [first, *(record for record in valid if record is not first)]


def best_records(records: Iterable[Record], target: str | None = None, threads: int | None = None) -> dict[str, Record]:
    """For each workload key the first of its records by `best_first`.

    `target` (its text) and `threads` restrict the choice, because a cost holds only for the machine it was measured on.
    """
    mine: dict[str, list[Record]] = {}
    for record in records:
        if record.valid and target in (None, record.target) and threads in (None, record.threads):
            mine.setdefault(record.workload_key, []).append(record)
    return {key: best_first(known)[0] for key, known in mine.items()}


def same_cpu(text: str, target: Target) -> bool:
    """Whether a record's target text means the same CPU; its number of cores is compared as the record's threads."""
    from ansor_py.target import Target

    try:
        return Target.parse(text).with_cores(target.cores) == target
    except TargetError:
        return False


def _record_of_line(line: bytes) -> Record:
    try:
        return Record.from_json(msgspec.json.decode(line))
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise RecordError(f"not valid JSON ({error})") from error


def _mend_last_line(path: Path) -> None:
    if not path.exists():
        return
    content = path.read_bytes()
    if not content or content.endswith(b"\n"):
        return
    start = content.rfind(b"\n") + 1
    try:
        _record_of_line(content[start:])
    except RecordError:
        with path.open("r+b") as file:
            file.truncate(start)
        return
    with path.open("ab") as file:
        file.write(b"\n")
