"""Sizes that cannot be: for 64-bit arithmetic, for this machine's memory, for an expression. One error that names them."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

import faults
from ansor_py import te
from ansor_py.codegen import machine_memory
from ansor_py.codegen.machine_memory import human_bytes, require_memory
from ansor_py.codegen.memory import aligned_array
from ansor_py.errors import AnsorError, ModelError, SizeError
from ansor_py.graph import compile, load, partition_model
from ansor_py.graph.memory import Buffer, largest_live_set
from ansor_py.graph.task_model import compile_task
from ansor_py.schedule.task import Task
from ansor_py.search import TuningOptions, tune
from ansor_py.te.ops.registry import from_spec, operators

ABSURD = (0, -1, 1000, 10**9, 2**31, 2**40, 2**59, 2**60, 2**63, 10**30, -(2**40), -(2**60))


class SlowError(Exception):
    """It took too long."""


@contextmanager
def within(seconds: int) -> Iterator[None]:
    """An error instead of a hang."""

    def stop(*_: object) -> None:
        raise SlowError

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def value(name: str, *shape: int | str) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def model(nodes: list[NodeProto], shape: tuple[int | str, ...], *constants: TensorProto) -> ModelProto:
    ports = [[value("x", *shape)], [value("y", *(f"r{axis}" for axis in range(len(shape))))]]
    graph = helper.make_graph(nodes, "sizes", *ports, list(constants))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def relu(*shape: int | str) -> ModelProto:
    return model([helper.make_node("Relu", ["x"], ["y"])], shape)


@pytest.mark.parametrize("name", operators())
def test_absurd_numbers_of_an_operator_are_a_task_or_an_error(name: str) -> None:
    """Every extent and every option in turn; whatever it means, it is decided at once."""
    operator = operators()[name]
    words = operator.example.partition(":")[2].split(",")
    words += [f"{option}={value}" for option, value in operator.options.items() if f"{option}=" not in operator.example]
    refused = 0
    for position, word in enumerate(words):
        option, equals, _ = word.rpartition("=")
        for value in ABSURD:
            spec = f"{name}:{','.join([*words[:position], f'{option}{equals}{value}', *words[position + 1 :]])}"
            with within(10):
                try:
                    assert Task.from_spec(spec).flops >= 0
                except AnsorError:
                    refused += 1
    assert refused >= 4 * len(operator.extents)


def test_tensors_beyond_64_bits_are_refused() -> None:
    with pytest.raises(SizeError, match=r"tensor 'a', float32\[4611686018427387904\], has 18446744073709551616 bytes; 64-bit"):
        te.placeholder((2**62,), name="a")
    k = te.reduce_axis(2**40, "k")
    x = te.placeholder((2**20, 2**20), name="x")
    with pytest.raises(SizeError, match=r"reduction over k=1099511627776, takes 1208925819614629174706176 iterations"):
        te.compute((2**20, 2**20), lambda i, j: te.reduce_sum(x[i, j] * 2.0, k), name="y")
    with pytest.raises(SizeError, match="tensor 'deep' has 65 dimensions; there can be 64"):
        te.placeholder((1,) * 65, name="deep")


def test_what_is_needed_and_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_memory, "machine_memory", lambda: 3 << 29)
    require_memory({"inputs": 1 << 30, "outputs": 1 << 29}, "it")
    with pytest.raises(
        SizeError, match=r"it needs 1.5 GiB of memory \(inputs 1 GiB, outputs 512 MiB, workspace 1 bytes\); there are"
    ):
        require_memory({"inputs": 1 << 30, "outputs": 1 << 29, "weights": 0, "workspace": 1}, "it")
    assert human_bytes(999) == "999 bytes"
    assert human_bytes(8 * 10**12) == "7.28 TiB"


def test_the_largest_live_set_is_counted_without_overflow() -> None:
    assert largest_live_set([Buffer(str(n), 2**60, first=0, last=n) for n in range(16)]) == 2**64


def test_every_way_to_the_machine_asks_for_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Compiling a model or a task, loading a file, searching; nothing is asked of a runner that runs nothing."""
    path = tmp_path / "model.ansor"
    compile(relu(64, 1024), threads=1, workers=0).save(path)
    task = Task.from_operator("relu", (64, 1024))
    monkeypatch.setattr(machine_memory, "machine_memory", lambda: 300_000)
    with pytest.raises(SizeError, match=r"model 'sizes' needs 512 KiB of memory \(inputs 256 KiB, outputs 256 KiB\)"):
        compile(relu(64, 1024), threads=1, workers=0)
    with pytest.raises(SizeError, match="'relu:64,1024' needs 512 KiB"):
        compile_task(task, workers=0)
    with pytest.raises(SizeError, match="model 'sizes' needs 512 KiB"):
        load(path)
    with pytest.raises(SizeError, match="measuring 'relu:64,1024' needs 768 KiB"):
        tune(task, trials=1, runner="inline")
    options = TuningOptions(cost_model="random", policy="random")
    assert tune(task, trials=1, runner="simulated", options=options).records


def test_weights_count_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A constant of stride 0 has no bytes until it is packed."""
    shape = numpy_helper.from_array(np.array([64, 1024], np.int64), "shape")
    nodes = [helper.make_node("ConstantOfShape", ["shape"], ["c"]), helper.make_node("Add", ["x", "c"], ["y"])]
    monkeypatch.setattr(machine_memory, "machine_memory", lambda: 600_000)
    with pytest.raises(SizeError, match=r"inputs 256 KiB, outputs 256 KiB, weights 256 KiB"):
        compile(model(nodes, (64, 1024), shape), threads=1, workers=0)


def test_an_array_without_memory_is_an_error() -> None:
    with pytest.raises(SizeError, match=r"there is no memory for an array of 4 EiB, uint8\[4611686018427387904\]"):
        aligned_array((2**62,), "uint8")


def test_a_limit_of_the_process_counts() -> None:
    """`ulimit -v`: an error before the allocation that would fail."""
    limit = 8 << 30
    code = (
        "from ansor_py.graph.task_model import compile_task; from ansor_py.schedule.task import Task\n"
        "from ansor_py.errors import SizeError\n"
        "try: compile_task(Task.from_operator('relu', (2**31,)), workers=0)\n"
        "except SizeError as error: print(error)\n"
    )

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, preexec_fn=limited, timeout=120)
    assert faults.MEMORY_LIMIT.is_read_in(done.stdout), (done.stdout, done.stderr)


@pytest.mark.parametrize(
    ("extent", "kind", "words"),
    [
        (2**61, SizeError, "must lie between 0 and 2^60"),
        (-1, SizeError, "must lie between 0 and 2^60"),
        (2**59, SizeError, r"value 'x', float32\[576460752303423488, 3\]"),
        (2**50, SizeError, "model 'sizes' needs 24 PiB"),
        (2.5, ModelError, "shapes: 'n' is 2.5; give a whole number, or one for each dimension"),
        ("4", ModelError, "shapes: 'n' is '4'"),
    ],
)
def test_absurd_shapes_of_a_model(extent: int, kind: type[AnsorError], words: str) -> None:
    with pytest.raises(kind) as caught:
        compile(relu("n", 3), threads=1, workers=0, shapes={"n": extent})
    assert words.replace("\\", "") in str(caught.value)


def test_a_dimension_of_minus_one_is_a_dynamic_one() -> None:
    with pytest.raises(ModelError, match="the model has dynamic shapes: dimension 0 of input 'x'"):
        partition_model(relu(-1, 3))
    assert partition_model(relu(-1, 3), {"x": np.array([2, 3]).tolist()}).graph.values["x"].shape == (2, 3)


def test_a_node_whose_result_is_too_large_names_itself() -> None:
    """Not even the reference evaluator is left to try it."""
    shape = numpy_helper.from_array(np.array([2**40, 2**40], np.int64), "shape")
    node = helper.make_node("Expand", ["x", "shape"], ["y"], name="grow")
    with pytest.raises(AnsorError, match="grow"):
        partition_model(model([node], (1, 1), shape))


@pytest.mark.parametrize("operator", ["Concat", "Sum", "Max", "Mean"])
def test_operators_of_hundreds_of_operands(operator: str) -> None:
    """The expression of many operands is no deep tree."""
    attributes = {"axis": 0} if operator == "Concat" else {}
    many = model([helper.make_node(operator, ["x"] * 400, ["y"], **attributes)], (2, 3))
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    expected = {"Concat": np.tile(x, (400, 1)), "Sum": 400 * x}.get(operator, x)
    np.testing.assert_allclose(compile(many, threads=1, workers=0).run({"x": x})["y"], expected, rtol=1e-5)


def test_concat_finds_every_part() -> None:
    """Parts of different extents, empty ones among them."""
    extents = [3, 0, 1, 5, 0, 0, 2, 4, 0]
    names = [f"x{number}" for number in range(len(extents))]
    inputs = [value(n, e) for n, e in zip(names, extents, strict=True)]
    node = helper.make_node("Concat", names, ["y"], axis=0)
    graph = helper.make_graph([node], "parts", inputs, [value("y", "r")])
    compiled = compile(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), threads=1, workers=0
    )
    feed = {name: np.random.default_rng(0).random(extent, np.float32) for name, extent in zip(names, extents, strict=True)}
    np.testing.assert_array_equal(compiled.run(feed)["y"], np.concatenate(list(feed.values())))


def test_a_spec_of_thousands_of_digits_is_one_short_line() -> None:
    with pytest.raises(AnsorError) as caught:
        from_spec(f"relu:{'9' * 5000}")
    assert len(str(caught.value)) < 200
