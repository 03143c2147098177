"""Records: round trip, broken files, best of a log."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansor_py.errors import RecordError
from ansor_py.measure.records import (
    ERROR_KINDS,
    Record,
    RecordWriter,
    best_records,
    credible_records,
    read_records,
)
from ansor_py.target import Target

_finite = st.floats(allow_nan=False, allow_infinity=False)
_maybe_time = st.none() | st.floats(0, 2e9)
_records = st.builds(
    Record,
    workload_key=st.text(max_size=8),
    target=st.text(max_size=8),
    threads=st.integers(1, 64),
    trial=st.integers(0, 10_000),
    steps=st.lists(st.lists(st.integers() | st.text(max_size=4), max_size=3), max_size=3).map(tuple),
    genes=st.lists(st.integers(0, 99), max_size=6).map(tuple),
    sketch_id=st.none() | st.integers(0, 9),
    sketch=st.none() | st.text(max_size=4),
    parent=st.none() | st.integers(0, 99),
    operator=st.none() | st.text(max_size=4),
    predicted=st.none() | _finite,
    costs=st.lists(st.floats(1e-9, 1e9) | st.integers(1, 9), max_size=4).map(tuple),
    error=st.sampled_from(ERROR_KINDS),
    error_text=st.text(max_size=12),
    output_checked=st.booleans(),
    build_started=_maybe_time,
    run_finished=_maybe_time,
    build_phases=st.dictionaries(st.text(max_size=4), _finite, max_size=2),
    elapsed=_finite,
)


def record(trial: int = 0, **changes: object) -> Record:
    base = Record(workload_key="key", target="cpu", threads=1, trial=trial, costs=(1.0,))
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


WRONG_FIELDS: list[tuple[str, object]] = [
    *(("costs", [cost]) for cost in (1e-12, 0, 0.0, -1.0, math.nan, math.inf, -math.inf, "fast", None, True, [1.0])),
    ("costs", [1e-3, -1e-3]),
    *((name, value) for name in ("run_finished", "build_started", "elapsed", "predicted") for value in (math.inf, math.nan)),
    ("build_phases", {"parse": math.nan}),
    ("build_phases", {"parse": "long"}),
    ("steps", [1, 2]),
    ("steps", [["split"], {"kind": "split"}]),
    ("genes", [1.5]),
    ("genes", ["a"]),
    ("genes", [True]),
]


@pytest.mark.parametrize(("name", "value"), WRONG_FIELDS)
def test_a_field_that_cannot_be_true_makes_the_line_unusable(name: str, value: object, tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    lines = [json.dumps(record(number).to_json() | change) for number, change in enumerate(({}, {name: value}, {}))]
    path.write_text("\n".join(lines) + "\n")
    records, lost = read_records(path)
    assert [item.trial for item in records] == [0, 2]
    [line] = lost
    assert line.number == 2
    assert f"field '{name}' of the record is" in line.reason


def test_costs_below_what_the_machine_can_do_are_left_out() -> None:
    target = Target.parse("x86-64 cpu=haswell cores=2")
    flops = {"key": 2 * 512**3}
    # 16 float32 multiply-adds a cycle on each of two cores at 6 GHz are 384 GFLOP/s; ten times that is the limit.
    least = flops["key"] / (10 * 2 * 32 * 6e9)
    records = [record(0, costs=(least * 1.01,)), record(1, costs=(1.0, least * 0.99)), record(2, costs=(), error="run")]
    records += [record(3, costs=(1e-9,), workload_key="unknown"), record(4, costs=(least * 0.4,), error="cut")]
    kept, doubts = credible_records(records, flops, target, 2)
    assert [item.trial for item in kept] == [0, 2, 3]
    assert [line.split(":")[0] for line in doubts] == ["trial 1", "trial 4"]
    assert len(credible_records(records, flops, target, 4)[0]) == 4  # more threads do more


@given(_records)
def test_json_round_trip(original: Record) -> None:
    assert Record.from_json(json.loads(json.dumps(original.to_json()))) == original


def test_every_field_is_written_schema_first() -> None:
    written = record().to_json()
    assert set(written) == {item.name for item in dataclasses.fields(Record)}
    assert next(iter(written)) == "schema"


def test_writer_appends_lines(tmp_path: Path) -> None:
    path = tmp_path / "new" / "records.jsonl"
    with RecordWriter(path) as writer:
        writer.write([record(0), record(1)])
        assert len(path.read_text().splitlines()) == 2  # flushed before the file is closed
    with RecordWriter(path) as writer:
        writer.write([record(2)])
    records, lost = read_records(path)
    assert [r.trial for r in records] == [0, 1, 2]
    assert not lost


def test_broken_last_line_is_dropped_and_reported(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    with RecordWriter(path) as writer:
        writer.write([record(0), record(1)])
    path.write_bytes(path.read_bytes()[:-20])
    records, lost = read_records(path, strict=True)
    assert [r.trial for r in records] == [0]
    assert [(line.number, line.last) for line in lost] == [(2, True)]
    with RecordWriter(path) as writer:  # resuming: the rest must not spoil the next record
        writer.write([record(7)])
    records, lost = read_records(path, strict=True)
    assert ([r.trial for r in records], lost) == ([0, 7], [])


def test_last_record_without_end_of_line_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    with RecordWriter(path) as writer:
        writer.write([record(0)])
    path.write_bytes(path.read_bytes()[:-1])
    assert len(read_records(path)[0]) == 1
    with RecordWriter(path) as writer:
        writer.write([record(1)])
    assert [r.trial for r in read_records(path)[0]] == [0, 1]


def test_broken_line_in_the_middle(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    with RecordWriter(path) as writer:
        writer.write([record(0)])
    with path.open("ab") as file:
        file.write(b"{oops\n\xff\xfe\n")
    with RecordWriter(path) as writer:
        writer.write([record(1)])
    records, lost = read_records(path)
    assert [r.trial for r in records] == [0, 1]
    assert [(line.number, line.last) for line in lost] == [(2, False), (3, False)]
    with pytest.raises(RecordError, match="line 2"):
        read_records(path, strict=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 99}, "schema 99"),
        ({"surprise": 1}, "unknown field 'surprise'"),
        ({"threads": "two"}, "field 'threads'"),
        ({"threads": True}, "field 'threads'"),
        ({"error": "gremlins"}, "gremlins"),
    ],
)
def test_unusable_records_are_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(RecordError, match=message):
        Record.from_json({**record().to_json(), **change})


def test_missing_file_and_infinite_number(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="cannot read"):
        read_records(tmp_path / "none.jsonl")
    with RecordWriter(tmp_path / "r.jsonl") as writer, pytest.raises(RecordError, match="JSON"):
        writer.write([record(costs=(math.inf,))])
    assert (tmp_path / "r.jsonl").read_bytes() == b""


def test_best_records_take_the_least_median_of_valid_ones() -> None:
    records = [
        record(0, costs=(3.0, 3.0, 3.0)),
        record(1, costs=(1.0, 9.0, 9.0)),  # the minimum is not what counts
        record(2, costs=(0.1,), error="wrong-result"),
        record(3, costs=(2.0, 2.0, 50.0)),
        record(4, costs=(2.0,)),
        record(5, costs=(0.5,), threads=2),
        record(6, costs=(0.5,), target="other"),
        record(7, costs=(0.4,), workload_key="second"),
        record(8, costs=(0.01,), error="cut"),
    ]
    best = best_records(records, target="cpu", threads=1)
    assert {key: r.trial for key, r in best.items()} == {"key": 3, "second": 7}
    assert best_records(records)["key"].trial == 5
