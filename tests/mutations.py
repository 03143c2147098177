"""The families of the campaign: how a thing is mutated, and how the answer to it is checked (see `campaign.py`)."""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
import warnings
import zipfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

import ansor_py.graph
from ansor_py.codegen.kernel import LoadedKernel, build_kernel
from ansor_py.graph import CompiledModel, compile, load, partition_model
from ansor_py.graph.task_model import compile_task
from ansor_py.measure import Record
from ansor_py.measure.result import MeasureResult
from ansor_py.schedule.dag import ComputeDAG
from ansor_py.schedule.steps import step_from_json
from ansor_py.schedule.task import Task
from ansor_py.search.__main__ import main
from ansor_py.target import Target
from campaign import Check, HangError, WrongError, check_line
from graph_interpreter import Array, floats, interpret, make_model, reference
from model_mutations import NUMBERS, REALS, WORDS, mutated_model, one_of
from random_schedules import random_state
from te_interpreter import evaluate, random_feeds
from test_compiled_schedules import WORKLOADS

Rng = np.random.Generator
JSON_VALUES: tuple[Any, ...] = (None, True, False, *NUMBERS, *REALS, *WORDS, [], {}, [1], [None], {"a": 1}, [[1, 2]], 10**30)


def compare(got: Mapping[str, Array], expected: Mapping[str, Array], whole: bool = True) -> None:
    """Raise WrongError where results differ by more than rounding; of elements that are finite in both unless `whole`."""
    for name, array in expected.items():
        wanted, given = np.asarray(array), np.asarray(got[name])
        if not wanted.size and not given.size:
            continue  # ONNX's evaluator does not always know the shape of nothing
        if wanted.dtype != given.dtype or wanted.shape != given.shape:
            raise WrongError(f"'{name}' is {given.dtype}{given.shape}, not\n{wanted.dtype}{wanted.shape}")
        if wanted.dtype.kind not in "fiub":
            continue
        if not whole:
            both = np.isfinite(wanted) & np.isfinite(given)
            wanted, given = wanted[both], given[both]
        scale = np.max(np.abs(wanted[np.isfinite(wanted)].astype(np.float64)), initial=0.0)
        if not np.allclose(given, wanted, rtol=2e-3, atol=1e-4 * scale + 1e-5, equal_nan=True):
            raise WrongError(f"'{name}' is {given!s:.300}, not\n{wanted!s:.300}")


def changed_json(value: Any, rng: Rng, depth: int = 0) -> Any:
    """The value with one part of it replaced, missing, there twice or moved."""
    if isinstance(value, (list, dict)) and value and rng.random() < 0.9 - 0.1 * depth:
        keys = list(value) if isinstance(value, dict) else range(len(value))
        key = one_of(rng, keys)
        copy = dict(value) if isinstance(value, dict) else list(value)
        choice = rng.random()
        if choice < 0.1:
            del copy[key]
        elif choice < 0.2 and isinstance(copy, list):
            copy.insert(int(rng.integers(len(copy) + 1)), copy[key])
        elif choice < 0.3:
            other = one_of(rng, keys)
            copy[key], copy[other] = copy[other], copy[key]
        else:
            copy[key] = changed_json(copy[key], rng, depth + 1)
        return copy
    if type(value) is int and rng.random() < 0.5:
        return value + int(rng.integers(-3, 4))
    if isinstance(value, str) and rng.random() < 0.3:
        return value + one_of(rng, (".", "x", ".0", ".1", "@"))
    return one_of(rng, JSON_VALUES)


def damaged(data: bytes, rng: Rng) -> bytes:
    """Bytes cut, flipped, repeated or put in between."""
    changed = bytearray(data)
    choice = rng.random()
    place = int(rng.integers(len(data))) if data else 0
    if choice < 0.2:
        return bytes(changed[:place])
    if choice < 0.35:
        return bytes(changed[:place] + rng.bytes(int(rng.integers(1, 30))) + changed[place:])
    if choice < 0.45:
        return bytes(changed[:place] + changed[place + int(rng.integers(1, 200)) :])
    for place in rng.integers(len(data), size=int(rng.integers(1, 4))):
        changed[place] ^= 1 << int(rng.integers(8))
    return bytes(changed)


# Models.

# Operators of which ONNX's reference evaluator computes some version or some case otherwise than the standard says, and those
# that convert numbers beyond the range of a dtype to it, which the standard leaves open.
MISTAKEN = frozenset(
    "BatchNormalization ReduceSumSquare GlobalMaxPool GlobalAveragePool MaxPool LRN Cast CastLike LpNormalization".split()
)
OLDEST = 13  # of older versions that evaluator knows few


def check_model(rng: Rng, folder: Path) -> str:
    """Compile a mutated model, and compare what it computes with ONNX's reference evaluator where that can run it."""
    data, feed = mutated_model(rng)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # NumPy's, of which no user knows what to make
        compiled = compile(data, threads=1, workers=0)
    given = {}
    for port in compiled.inputs:
        known = feed.get(port.name)
        fits = known is not None and known.shape == tuple(port.shape) and known.dtype == port.dtype
        given[port.name] = known if fits and known is not None else _random(port.shape, port.dtype, rng)
    got = compiled.run(given)
    model = ModelProto.FromString(data)
    expected = _by_reference(model, given) or _by_definition(data, given)
    if expected is None or not all(array.size for array in given.values()):
        return "unjudged"  # the standard does not say what a mean of nothing is
    # Whether infinity times nothing (a weight on the padding) is anything depends on how a result is computed.
    finite = all(_is_finite(tensor) for tensor in model.graph.initializer)
    compare(got, expected, whole=finite and all(np.isfinite(a.f) for node in model.graph.node for a in node.attribute))
    return "right"


def _by_reference(model: ModelProto, feed: Mapping[str, Array]) -> Mapping[str, Array] | None:
    """The outputs by ONNX's reference evaluator; None for a model that it cannot run, or not as the standard says."""
    versions = {entry.domain: entry.version for entry in model.opset_import}
    if versions.get("", 99) < OLDEST or MISTAKEN.intersection(node.op_type for node in model.graph.node):
        return None
    try:
        return reference(model, feed)
    except HangError:
        raise
    except Exception:  # whatever the NumPy code of an operator raises
        return None


def _by_definition(data: bytes, feed: Mapping[str, Array]) -> Mapping[str, Array] | None:
    """The outputs by the interpreter of tensor expressions; None for a model that is not compiled as a whole, or casts.

    A number that the other dtype does not have becomes one thing in the interpreter, another in a kernel.
    """
    parts = partition_model(data, fallback=True)
    casts = any(node.op_type in ("Cast", "CastLike") for node in parts.graph.nodes)
    return None if casts or parts.graph.opaque else interpret(parts, feed)


def _is_finite(tensor: TensorProto) -> bool:
    try:
        array = numpy_helper.to_array(tensor)
    except Exception:  # damaged, and read by no node
        return False
    return array.dtype.kind != "f" or bool(np.all(np.abs(array) < 1e15))


def _random(shape: tuple[int, ...], dtype: Any, rng: Rng) -> Array:
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return rng.standard_normal(shape).astype(kind)
    if kind.kind in "iub":
        return rng.integers(0, 2 if kind.kind == "b" else 3, shape).astype(kind)
    return np.full(shape, "word", dtype=object)


# Schedules: step lists.


def check_schedule(rng: Rng, folder: Path) -> str:
    """Build and run a mutated list of steps, as a record holds it."""
    dag = ComputeDAG.from_outputs(WORKLOADS[one_of(rng, sorted(WORKLOADS))]())
    steps: Any = [step.to_json() for step in random_state(dag, rng).steps]
    for _ in range(int(rng.integers(1, 3))):
        steps = changed_json(steps, rng)
    read = tuple(step_from_json(step) for step in (steps if isinstance(steps, list) else [steps]))
    kernel = build_kernel(dag, read, Target.detect().with_cores(1), 1)
    feeds = random_feeds(dag.outputs, seed=1)
    outputs = LoadedKernel(kernel).run([feeds[tensor] for tensor in dag.inputs])
    compare(
        {tensor.name: output for tensor, output in zip(dag.outputs, outputs, strict=True)},
        {tensor.name: evaluate(tensor, feeds, widen=True).astype(np.float32) for tensor in dag.outputs},
    )
    return "right"


# Records.


@cache
def _task() -> Task:
    return Task.from_operator("matmul", (24, 20, 28), Target.detect().with_cores(1))


def _records(rng: Rng) -> list[dict[str, Any]]:
    """Records of some programs of one task."""
    task = _task()
    schedules = [random_state(task.dag, rng).steps for _ in range(3)]
    made = []
    for trial, steps in enumerate(schedules):
        cost = 1e-3 * (1 + trial)
        record = Record(
            workload_key=task.workload_key,
            target=str(task.target),
            threads=1,
            trial=trial,
            steps=tuple(step.to_json() for step in steps),
            task=task.name,
            result=MeasureResult((cost, cost, cost)),
        )
        made.append(record.to_json())
    return made


def check_records(rng: Rng, folder: Path) -> str:
    """Compile by mutated records, or continue a search that left them."""
    records: list[Any] = _records(rng)
    for _ in range(int(rng.integers(1, 4))):
        place = int(rng.integers(len(records)))
        records[place] = changed_json(records[place], rng)
    data = "".join(json.dumps(record) + "\n" for record in records).encode("utf-8", "surrogatepass")
    path = folder / "run" / "records.jsonl"
    path.parent.mkdir()
    path.write_bytes(damaged(data, rng) if rng.random() < 0.3 else data)
    if rng.random() < 0.4:
        words = ["--op", "matmul:24,20,28", "--threads", "1", "--trials", "5", "--batch", "2", "--search", "population=16"]
        return check_command([*words, "--runner", "simulated", "--cost-model", "random", "--out", str(path.parent), "--resume"])
    compiled = compile_task(_task(), str(path), workers=0)
    feeds = {port.name: _random(port.shape, port.dtype, rng) for port in compiled.inputs}
    [left, right] = feeds.values()
    [expected] = [left @ right] if left.shape[1] == right.shape[0] else [left @ right.T]
    compare(compiled.run(feeds), {compiled.outputs[0].name: expected})
    return "right"


def _compiled_here(*values: Any, math: str, workers: int | None) -> CompiledModel:
    """A task that is compiled without a process for it, which takes longer than the rest."""
    return compile_task(*values, math=math, workers=0)


def check_command(words: list[str]) -> str:
    """Run the command line; it must end well, or with one line and status 2."""
    said = io.StringIO()
    with (
        contextlib.redirect_stderr(said),
        contextlib.redirect_stdout(io.StringIO()),
        mock.patch.object(ansor_py.graph, "compile_task", _compiled_here),
    ):
        status = main(words)
    lines = [line for line in said.getvalue().splitlines() if not line.startswith("warning: ")]
    if status == 0 and not lines:
        return "right"
    if status != 2 or len(lines) != 1 or not lines[0].startswith("error: "):
        raise WrongError(f"status {status}:\n{said.getvalue()[:3000]}")
    check_line(lines[0])
    return "refused"


# Compiled models.


@cache
def _archives() -> list[tuple[bytes, dict[str, Array], dict[str, Array]]]:
    """Files of compiled models with inputs and results: layers with weights, and with a node that is not compiled."""
    layers = [helper.make_node("MatMul", ["x", "w"], ["a"]), helper.make_node("Relu", ["a"], ["y"])]
    partly = [helper.make_node("Mul", ["x", "w"], ["a"]), helper.make_node("Det", ["a"], ["y"])]
    made = []
    for nodes, width in ((layers, 5), (partly, 3)):
        feed = {"x": floats(3, 3)}
        compiled = compile(make_model(nodes, feed, ["y"], {"w": floats(3, width, seed=1)}), threads=1, workers=0)
        with tempfile.TemporaryDirectory() as folder:
            compiled.save(Path(folder) / "m.ansor")
            made.append(((Path(folder) / "m.ansor").read_bytes(), feed, dict(compiled.run(feed))))
    return made


def check_archive(rng: Rng, folder: Path) -> str:
    """Load and run a damaged file: bytes, members, or the manifest."""
    data, feed, expected = one_of(rng, _archives())
    path = folder / "m.ansor"
    path.write_bytes(damaged(data, rng) if rng.random() < 0.6 else _with_other_members(data, rng))
    compare(load(path).run(feed), expected)
    return "right"


def _with_other_members(data: bytes, rng: Rng) -> bytes:
    """A member is missing, has the content of another, or is damaged; or the manifest says something else."""
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        members = {name: file.read(name) for name in file.namelist()}
    name, other = one_of(rng, list(members)), one_of(rng, list(members))
    choice = rng.random()
    if choice < 0.2:
        del members[name]
    elif choice < 0.4:
        members[name], members[other] = members[other], members[name]
    elif choice < 0.6:
        members[name] = damaged(members[name], rng)
    else:
        manifest = changed_json(json.loads(members["manifest.json"]), rng)
        members["manifest.json"] = json.dumps(manifest).encode()
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED if rng.random() < 0.2 else zipfile.ZIP_STORED) as file:
        for key, content in members.items():
            file.writestr(key, content)
    return made.getvalue()


# Batch files.

_BATCH: dict[str, Any] = {
    "op": ["relu:2", "matmul:8,8,8"],
    "trials": 4,
    "time-budget": "20s",
    "target-latency": ["1ns"],
    "together": True,
    "threads": 1,
    "seed": 3,
    "policy": "evolution",
    "cost-model": "random",
    "scheduler": "gradient",
    "objective": "latency-sum",
    "reference-latency": ["1ms"],
    "batch": 2,
    "shape": {"n": 2},
    "fallback": True,
    "target": "host",
    "rules": ["default"],
    "resume": False,
    "profile": False,
    "search": {
        "population": 16,
        "iterations": 1,
        "eps_greedy": 0.1,
        "evolution": {"mutation_weights": {"other_choice": 0.5}},
        "scheduler": {"early_stopping": 4, "alpha": 0.3},
        "space": {"unroll_limits": [0, 64]},
        "model": {"trees": 5},
    },
}


def check_batch_file(rng: Rng, folder: Path) -> str:
    """A search by a mutated batch file; where it measures, and where it writes, the command line says."""
    content: Any = {key: value for key, value in _BATCH.items() if rng.random() < 0.5 or key == "op"}
    content.setdefault("search", _BATCH["search"])
    for _ in range(int(rng.integers(1, 3))):
        changed = changed_json(content, rng)
        content = changed if isinstance(changed, dict) else content
    text = "".join(f"{json.dumps(key)} = {_toml(value)}\n" for key, value in content.items())
    data = text.encode("utf-8", "replace")
    path = folder / "batch.toml"
    path.write_bytes(damaged(data, rng) if rng.random() < 0.15 else data)
    words = ["--config", str(path), "--runner", "simulated", "--out", str(folder / "out")]
    return check_command([*words, *(["--trials", "3"] if "trials" in content and rng.random() < 0.5 else [])])


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(str(key))} = {_toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, float):
        return str(value)
    return json.dumps(value)


FAMILIES: dict[str, Check] = {
    "models": check_model,
    "records": check_records,
    "schedules": check_schedule,
    "archives": check_archive,
    "batch files": check_batch_file,
}
