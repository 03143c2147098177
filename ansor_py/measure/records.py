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
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, get_args

from ansor_py.errors import RecordError

if TYPE_CHECKING:
    from ansor_py.schedule.steps import Step
    from ansor_py.target import Target

SCHEMA = 1
# No call of a kernel takes less; a smaller cost was not measured.
LEAST_SECONDS = 1e-9
# A program does at most this many times the operations that its target's multiply-add units can do. It cannot be less:
# Winograd's algorithm multiplies four times less than the definition says, and caches deliver more than memory.
MOST_TIMES_PEAK = 10.0

ErrorKind = Literal["none", "build", "build-timeout", "run", "run-timeout", "wrong-result", "out-of-bounds", "crash", "cut"]
ERROR_KINDS: tuple[ErrorKind, ...] = get_args(ErrorKind)


@dataclass(frozen=True)
class Record:
    """One trial. Times are seconds; time stamps are seconds since the epoch with fractions; None is "not known".

    Fields of the host are None when a virtual measurer made the record, so that equal seeds give equal bytes.
    """

    workload_key: str
    target: str
    threads: int
    trial: int
    steps: tuple[Any, ...] = ()  # concrete transform steps, each as JSON
    task: str = ""
    round: int = 0
    seed: int = 0
    sketch_id: int | None = None
    sketch: str | None = None
    genes: tuple[int, ...] = ()
    parent: int | None = None  # the trial whose program this one was made from
    operator: str | None = None  # what made it: a mutation, crossover, random sampling, the default schedule
    predicted: float | None = None  # score of the cost model before it was trained on this trial
    costs: tuple[float, ...] = ()  # seconds per call, one a repeat; for a `cut` trial a lower bound
    error: ErrorKind = "none"
    error_text: str = ""
    error_stage: str = ""
    output_checked: bool = False
    build_started: float | None = None
    build_finished: float | None = None
    run_started: float | None = None
    run_finished: float | None = None
    build_phases: Mapping[str, float] = field(default_factory=dict)
    elapsed: float = 0.0  # seconds since the search began
    host: str | None = None
    engine: str = ""
    schema: int = SCHEMA

    @property
    def valid(self) -> bool:
        """Whether the program ran to the end and passed its checks."""
        return self.error == "none" and bool(self.costs)

    @property
    def cost(self) -> float:
        """Median seconds per call; infinite for a failed trial."""
        return statistics.median(self.costs) if self.valid else math.inf

    def concrete_steps(self) -> tuple[Step, ...]:
        """The transform steps as objects. Raises ScheduleError for steps that this version does not know."""
        from ansor_py.schedule.steps import step_from_json

        return tuple(step_from_json(step) for step in self.steps)

    def to_json(self) -> dict[str, Any]:
        """The fields in a fixed order, with tuples as lists."""
        return {name: _plain(getattr(self, name)) for name in FIELD_NAMES}

    @staticmethod
    def from_json(value: object) -> Record:
        """The inverse of `to_json`. Raises RecordError naming the first field that is missing, unknown or of a wrong kind."""
        if not isinstance(value, dict):
            raise RecordError(f"a record must be a JSON object, not {type(value).__name__}")
        schema = value.get("schema")
        if schema != SCHEMA:
            raise RecordError(
                f"the record has schema {schema!r} and this version reads schema {SCHEMA}; use the ansor-py that wrote it"
            )
        unknown = [name for name in value if name not in FIELD_NAMES]
        if unknown:
            raise RecordError(f"the record has an unknown field '{unknown[0]}'")
        for name in REQUIRED_FIELDS:
            if name not in value:
                raise RecordError(f"the record has no field '{name}'")
        return Record(**{name: _checked_field(name, item) for name, item in value.items()})


FIELD_NAMES = tuple(item.name for item in reversed(fields(Record)) if item.name in ("schema", "engine", "host")) + tuple(
    item.name for item in fields(Record) if item.name not in ("schema", "engine", "host")
)
REQUIRED_FIELDS = ("schema", "workload_key", "target", "threads", "trial", "steps", "costs", "error")

_FIELD_KINDS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("schema", "threads", "trial", "round", "seed"), (int,)),
    **dict.fromkeys(("sketch_id", "parent"), (int, type(None))),
    **dict.fromkeys(("workload_key", "target", "task", "engine", "error_text", "error_stage", "error"), (str,)),
    **dict.fromkeys(("sketch", "operator", "host"), (str, type(None))),
    **dict.fromkeys(("steps", "genes", "costs"), (list,)),
    **dict.fromkeys(("predicted", "build_started", "build_finished", "run_started", "run_finished"), (int, float, type(None))),
    "elapsed": (int, float),
    "output_checked": (bool,),
    "build_phases": (dict,),
}


@dataclass(frozen=True)
class LostLine:
    """A line of a records file that could not be used. `number` counts from 1; `last` marks a file that was cut short."""

    number: int
    reason: str
    last: bool = False

    def __str__(self) -> str:
        return f"line {self.number}{' (the last one, cut short)' if self.last else ''}: {self.reason}"


class RecordWriter:
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

    def __enter__(self) -> RecordWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def read_records(path: str | Path, strict: bool = False) -> tuple[list[Record], list[LostLine]]:
    """All records of a file in order, and the lines that could not be used.

    A broken last line without an end of line is always dropped and reported (the writer was killed). Another broken line
    is reported too, or raises RecordError when `strict`. A file that cannot be read raises RecordError.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RecordError(f"cannot read records from '{path}': {error.strerror}") from error
    records: list[Record] = []
    lost: list[LostLine] = []
    lines = content.split(b"\n")  # the part after the last end of line is empty in a complete file
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            records.append(_record_of_line(line))
        except RecordError as error:
            cut = number == len(lines)
            if strict and not cut:
                raise RecordError(f"'{path}' line {number}: {error}; remove the line or read the file leniently") from error
            lost.append(LostLine(number, str(error), last=cut))
    return records, lost


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
        if record.costs and min(record.costs) < least:
            doubts.append(f"trial {record.trial}: {min(record.costs):.3g} s, where the machine needs at least {least:.3g} s")
        else:
            kept.append(record)
    return kept, doubts


def best_records(records: Iterable[Record], target: str | None = None, threads: int | None = None) -> dict[str, Record]:
    """For each workload key the valid record with the least median cost; the earlier one of equals.

    `target` (its text) and `threads` restrict the choice, because a cost holds only for the machine it was measured on.
    """
    best: dict[str, Record] = {}
    for record in records:
        if not record.valid or (target is not None and record.target != target):
            continue
        if threads is not None and record.threads != threads:
            continue
        known = best.get(record.workload_key)
        if known is None or record.cost < known.cost:
            best[record.workload_key] = record
    return best


def _record_of_line(line: bytes) -> Record:
    try:
        return Record.from_json(json.loads(line))
    except ValueError as error:  # also UnicodeDecodeError
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


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, tuple) else value


def _checked_field(name: str, value: Any) -> Any:
    kinds = _FIELD_KINDS[name]
    if type(value) not in kinds:
        raise _wrong_field(name, value, _kind_names(kinds))
    if name == "error" and value not in ERROR_KINDS:
        raise RecordError(f"field 'error' of the record is '{value}'; known are {', '.join(ERROR_KINDS)}")
    if isinstance(value, float) and not math.isfinite(value):
        raise _wrong_field(name, value, "a finite number")
    if name == "costs" and not all(_is_number(cost) and cost >= LEAST_SECONDS for cost in value):
        raise _wrong_field(name, value, f"finite seconds of at least {LEAST_SECONDS:g}")
    if name == "genes" and not all(isinstance(gene, int) and not isinstance(gene, bool) for gene in value):
        raise _wrong_field(name, value, "whole numbers")
    if name == "steps" and not all(isinstance(step, list) for step in value):
        raise _wrong_field(name, value, "a list of steps, each a list")
    if name == "build_phases" and not all(_is_number(seconds) for seconds in value.values()):
        raise _wrong_field(name, value, "finite seconds by name")
    return tuple(value) if isinstance(value, list) else value


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _wrong_field(name: str, value: object, expected: str) -> RecordError:
    return RecordError(f"field '{name}' of the record is {json.dumps(value)[:60]}; expected {expected}")


def _kind_names(kinds: Sequence[type]) -> str:
    words = {int: "a whole number", float: "a number", str: "a text", list: "a list", dict: "an object", bool: "true or false"}
    return " or ".join(words.get(kind, "null") for kind in kinds)
