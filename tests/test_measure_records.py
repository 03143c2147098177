"""Records: round trip, broken files, best of a log."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ansor_py.errors import RecordError
from ansor_py.measure.records import (
    Origin,
    Record,
    RecordWriter,
    best_records,
    credible_records,
    read_records,
)
from ansor_py.measure.result import ERROR_KINDS, ErrorKind, InPlace, MeasureResult, Span
from ansor_py.target import Target

_finite = st.floats(allow_nan=False, allow_infinity=False)
_spans = st.builds(
    Span, st.floats(0, 2e9), st.floats(0, 2e9), st.dictionaries(st.text(max_size=4), st.floats(0, 9), max_size=2)
)
_origins = st.builds(
    Origin,
    genes=st.lists(st.integers(0, 99), max_size=6).map(tuple),
    sketch_id=st.none() | st.integers(0, 9),
    sketch=st.none() | st.text(max_size=4),
    parent=st.none() | st.integers(0, 99),
    operator=st.none() | st.text(max_size=4),
    predicted=st.none() | _finite,
)
_results = st.builds(
    MeasureResult,
    costs=st.lists(st.floats(1e-9, 1e9) | st.integers(1, 9), max_size=4).map(tuple),
    error=st.sampled_from(ERROR_KINDS),
    error_text=st.text(max_size=12),
    output_checked=st.booleans(),
    build=st.none() | _spans,
    run=st.none() | _spans,
    in_place=st.none() | st.builds(InPlace, st.none() | st.floats(1e-9, 1e9), st.booleans()),
)
_records = st.builds(
    Record,
    workload_key=st.text(max_size=8),
    target=st.text(max_size=8),
    threads=st.integers(1, 64),
    trial=st.integers(0, 10_000),
    steps=st.lists(st.lists(st.integers() | st.text(max_size=4), max_size=3), max_size=3).map(tuple),
    origin=_origins,
    result=_results,
    elapsed=_finite,
)


def record(trial: int = 0, **changes: object) -> Record:
    base = Record(workload_key="key", target="cpu", threads=1, trial=trial, steps=(), result=MeasureResult((1.0,)))
    return msgspec.structs.replace(base, **changes)


def timed(trial: int, *costs: float, error: ErrorKind = "none", **changes: object) -> Record:
    return record(trial, result=MeasureResult(costs, error), **changes)


def with_field(path: str, value: object) -> dict[str, Any]:
    """A record as JSON with one of its fields, such as `result.costs`, changed."""
    changed = inner = record(1).to_json()
    *outer, name = path.split(".")
    for part in outer:
        inner[part] = inner = dict(inner[part] or {"started": 1.0, "finished": 2.0})
    inner[name] = value
    return changed


WRONG_FIELDS: list[tuple[str, object, str]] = [
    *(("result.costs", [cost], "$.result.costs[0]") for cost in (1e-12, 0, 0.0, -1.0, "fast", None, True, [1.0])),
    ("result.costs", [1e-3, -1e-3], "$.result.costs[1]"),
    *(("result.costs", [cost], "not valid JSON") for cost in (math.nan, math.inf, -math.inf)),
    *((name, math.nan, "not valid JSON") for name in ("result.run.finished", "elapsed", "origin.predicted")),
    ("result.build.started", None, "$.result.build.started"),
    ("result.build.phases", {"parse": "long"}, "$.result.build.phases[...]"),
    ("result.error", "gremlins", "Invalid enum value 'gremlins' - at `$.result.error`"),
    ("result.in_place", {"seconds": 0.0, "chosen": True}, "Expected `float` >= 1e-09 - at `$.result.in_place.seconds`"),
    ("result.verdict", "good", "Object contains unknown field `verdict` - at `$.result`"),
    ("steps", [1, 2], "$.steps[0]"),
    ("steps", [["split"], {"kind": "split"}], "$.steps[1]"),
    ("origin.genes", [1.5], "$.origin.genes[0]"),
    ("origin.genes", ["a"], "$.origin.genes[0]"),
    ("origin.genes", [True], "$.origin.genes[0]"),
    ("threads", "two", "Expected `int`, got `str` - at `$.threads`"),
    ("threads", True, "Expected `int`, got `bool` - at `$.threads`"),
    ("surprise", 1, "Object contains unknown field `surprise`"),
    ("schema", 99, "schema 99"),
]


@pytest.mark.parametrize(("name", "value", "words"), WRONG_FIELDS)
def test_a_field_that_cannot_be_true_makes_the_line_unusable(name: str, value: object, words: str, tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    lines = [json.dumps(item) for item in (record(0).to_json(), with_field(name, value), record(2).to_json())]
    path.write_text("\n".join(lines) + "\n")
    records, lost = read_records(path)
    assert [item.trial for item in records] == [0, 2]
    [line] = lost
    assert line.number == 2
    assert words in line.reason


@pytest.mark.parametrize("name", ["trial", "steps", "result", "workload_key"])
def test_a_field_that_is_missing_is_named(name: str) -> None:
    value = record().to_json()
    del value[name]
    with pytest.raises(RecordError, match=f"Object missing required field `{name}`"):
        Record.from_json(value)


FIRST_SCHEMA = {
    "schema": 1,
    "engine": "0.1.0",
    "host": "box",
    "workload_key": "key",
    "target": "cpu",
    "threads": 1,
    "trial": 3,
    "steps": [["split", "C", "i", [4]]],
    "task": "matmul",
    "round": 1,
    "seed": 5,
    "sketch_id": 0,
    "sketch": "tiled",
    "genes": [1, 2],
    "parent": 1,
    "operator": "crossover",
    "predicted": 0.25,
    "costs": [0.001, 0.002],
    "error": "cut",
    "error_text": "slow",
    "error_stage": "time",
    "output_checked": True,
    "build_started": 10.0,
    "build_finished": 11.0,
    "run_started": None,
    "run_finished": None,
    "build_phases": {"llvm": 0.5},
    "elapsed": 1.5,
}


def test_records_of_the_first_schema_are_read() -> None:
    assert Record.from_json(FIRST_SCHEMA) == Record(
        engine="0.1.0",
        host="box",
        workload_key="key",
        target="cpu",
        threads=1,
        task="matmul",
        trial=3,
        round=1,
        seed=5,
        elapsed=1.5,
        steps=(["split", "C", "i", [4]],),
        states_tiles=False,
        origin=Origin(0, "tiled", (1, 2), 1, "crossover", 0.25),
        result=MeasureResult((0.001, 0.002), "cut", "slow", "time", True, build=Span(10.0, 11.0, {"llvm": 0.5})),
    )
    with pytest.raises(RecordError, match=r"Expected `int`, got `str` - at `\$.threads`"):
        Record.from_json(FIRST_SCHEMA | {"threads": "two"})
    with pytest.raises(RecordError, match="unknown field `surprise`"):
        Record.from_json(FIRST_SCHEMA | {"surprise": 1})


def test_costs_below_what_the_machine_can_do_are_left_out() -> None:
    target = Target.parse("x86-64 cpu=haswell cores=2")
    flops = {"key": 2 * 512**3}
    # 16 float32 multiply-adds a cycle on each of two cores at 6 GHz are 384 GFLOP/s; ten times that is the limit.
    least = flops["key"] / (10 * 2 * 32 * 6e9)
    records = [
        timed(0, least * 1.01),
        timed(1, 1.0, least * 0.99),
        timed(2, error="run"),
    ]
    records += [
        timed(3, 1e-9, workload_key="unknown"),
        timed(4, least * 0.4, error="cut"),
    ]
    kept, doubts = credible_records(records, flops, target, 2)
    assert [item.trial for item in kept] == [0, 2, 3]
    assert [line.split(":")[0] for line in doubts] == ["trial 1", "trial 4"]
    assert len(credible_records(records, flops, target, 4)[0]) == 4  # more threads do more


@settings(suppress_health_check=[HealthCheck.too_slow])  # of a busy machine
@given(_records)
def test_json_round_trip(original: Record) -> None:
    assert Record.from_json(json.loads(json.dumps(original.to_json()))) == original


def test_every_field_is_written_schema_first() -> None:
    written = record().to_json()
    assert list(written) == list(Record.__struct_fields__)
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


def test_missing_file_and_infinite_number(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="cannot read"):
        read_records(tmp_path / "none.jsonl")
    with RecordWriter(tmp_path / "r.jsonl") as writer, pytest.raises(RecordError, match="JSON"):
        writer.write([record(result=MeasureResult((math.inf,)))])
    assert (tmp_path / "r.jsonl").read_bytes() == b""


def test_best_records_take_the_least_median_of_valid_ones() -> None:
    records = [
        timed(0, 3.0, 3.0, 3.0),
        timed(1, 1.0, 9.0, 9.0),  # the minimum is not what counts
        timed(2, 0.1, error="wrong-result"),
        timed(3, 2.0, 2.0, 50.0),
        timed(4, 2.0),
        timed(5, 0.5, threads=2),
        timed(6, 0.5, target="other"),
        timed(7, 0.4, workload_key="second"),
        timed(8, 0.01, error="cut"),
    ]
    best = best_records(records, target="cpu", threads=1)
    assert {key: r.trial for key, r in best.items()} == {"key": 3, "second": 7}
    assert best_records(records)["key"].trial == 5
