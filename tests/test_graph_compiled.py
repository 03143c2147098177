"""Compiled models: results, one native call a run, feeds, timing, records, and the file that `load` opens."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from onnx import ModelProto, helper

import faults
from ansor_py.codegen.memory import aligned_array
from ansor_py.errors import AnsorWarning, FeedError, ModelError, RecordError, TargetError
from ansor_py.graph import CompiledModel, compile, load, partition_model
from ansor_py.graph.kernel_builds import BuildRequest, KernelBuilder
from ansor_py.graph.model_archive import check_cpu
from ansor_py.graph.random_weights import find_light_models, randomise_constant_weights
from ansor_py.graph.reference import reference_outputs
from ansor_py.measure.records import Record, RecordWriter
from ansor_py.measure.result import MeasureResult
from ansor_py.target import Target
from graph_faults import crash_for_bad
from graph_interpreter import Array, floats, make_model, reference


def residual_model() -> tuple[ModelProto, dict[str, Array]]:
    """Two equal convolution layers, a residual addition, a view in the middle and one at the end, and a dense layer."""
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b"], ["c1"], name="conv1", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"], name="relu1"),
        helper.make_node("Conv", ["r1", "w2", "b"], ["c2"], name="conv2", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c2"], ["r2"], name="relu2"),
        helper.make_node("Add", ["r2", "x"], ["s"], name="add"),
        helper.make_node("MaxPool", ["s"], ["p"], name="pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["p"], ["f"], name="flatten"),
        helper.make_node("Gemm", ["f", "d", "e"], ["g"], name="dense", transB=1),
        helper.make_node("Unsqueeze", ["g", "axis"], ["y"], name="unsqueeze"),
    ]
    constants = {
        "w1": floats(8, 8, 3, 3, seed=1) / 8,
        "w2": floats(8, 8, 3, 3, seed=2) / 8,
        "b": floats(8, seed=3),
        "d": floats(10, 8 * 9, seed=4),
        "e": floats(10, seed=5),
        "axis": np.array([1]),
    }
    data = {"x": floats(1, 8, 6, 6)}
    return make_model(nodes, data, ["y", "s"], constants), data


@pytest.fixture(scope="module")
def residual() -> tuple[CompiledModel, dict[str, Array], dict[str, Array]]:
    """The compiled model, its inputs, and what ONNX's evaluator gives for them."""
    model, data = residual_model()
    return compile(model, threads=2, workers=0), data, reference(model, data)


def check(got: dict[str, Any], expected: dict[str, Array]) -> None:
    assert set(got) == set(expected)
    for name, array in expected.items():
        np.testing.assert_allclose(got[name], array, rtol=1e-4, atol=1e-4, strict=True)


def test_run_equals_reference(residual: tuple[CompiledModel, dict[str, Array], dict[str, Array]]) -> None:
    compiled, data, expected = residual
    check(compiled.run(data), expected)
    other = {"x": np.asfortranarray(data["x"] * 2)}
    assert not np.allclose(compiled.run(other)["y"], expected["y"])
    check(compiled.run(data), expected)


def test_a_run_is_one_native_call(residual: tuple[CompiledModel, dict[str, Array], dict[str, Array]]) -> None:
    model, data = residual_model()
    compiled = compile(model, workers=0)
    (native,), calls = compiled._functions, []
    compiled.__dict__["_functions"] = [lambda *arguments: calls.append(arguments) or native(*arguments)]
    check(compiled.run(data), residual[2])
    assert len(calls) == 1
    assert len(compiled.plan.calls) == 4


def test_inputs_constants_and_equal_values_may_be_outputs() -> None:
    nodes = [
        helper.make_node("Identity", ["x"], ["same"]),
        helper.make_node("Reshape", ["x", "shape"], ["view"]),
        helper.make_node("Add", ["k", "k"], ["known"]),
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Identity", ["a"], ["b"]),
        helper.make_node("Flatten", ["a"], ["c"]),
    ]
    data = {"x": floats(2, 3, 2)}
    constants = {"shape": np.array([6, 2]), "k": floats(3, seed=1)}
    model = make_model(nodes, data, ["same", "view", "known", "a", "b", "c"], constants)
    check(compile(model, threads=1, workers=0).run(data), reference(model, data))


def test_scalars_and_full_reductions() -> None:
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], keepdims=0),
        helper.make_node("Sub", ["x", "mean"], ["d"]),
        helper.make_node("Mul", ["d", "s"], ["y"]),
    ]
    data = {"x": floats(3, 4), "s": np.array(2.5, np.float32)}
    model = make_model(nodes, data, ["y", "mean"])
    check(compile(model, threads=1, workers=0).run(data), reference(model, data))


def test_values_without_elements() -> None:
    nodes = [helper.make_node("Relu", ["x"], ["a"]), helper.make_node("Concat", ["a", "z"], ["y"], axis=0)]
    data = {"x": floats(0, 3), "z": floats(2, 3)}
    model = make_model(nodes, data, ["a", "y"])
    check(compile(model, threads=1, workers=0).run(data), {"a": data["x"], "y": data["z"]})


def test_light_squeezenet_with_random_weights() -> None:
    model = randomise_constant_weights(onnx.load(find_light_models()["squeezenet"]), seed=0)
    data = {"data_0": floats(1, 3, 224, 224)}
    compiled = compile(model, threads=2)
    expected = reference_outputs(model, data)["softmaxout_1"]
    assert expected.max() > 0.01
    np.testing.assert_allclose(compiled.run(data)["softmaxout_1"], expected, rtol=1e-3, atol=1e-6)
    assert compiled.plan.arena_bytes <= 1.3 * compiled.plan.live_bytes


@pytest.mark.parametrize(
    ("feed", "message"),
    [
        ({}, "input 'x' is missing; the model takes x: float32"),
        ({"x": floats(1, 8, 6, 6), "z": floats(1)}, "the model has no input 'z'"),
        ({"x": floats(1, 8, 6, 5)}, r"input 'x' has shape \[1, 8, 6, 5\], but the model takes \[1, 8, 6, 6\]"),
        ({"x": floats(1, 8, 6, 6).astype(np.float64)}, "input 'x' has dtype float64, but the model takes float32"),
    ],
)
def test_wrong_feeds(
    residual: tuple[CompiledModel, dict[str, Array], dict[str, Array]], feed: dict[str, Array], message: str
) -> None:
    with pytest.raises(FeedError, match=message):
        residual[0].run(feed)


def test_benchmark_gives_one_sample_a_run(residual: tuple[CompiledModel, dict[str, Array], dict[str, Array]]) -> None:
    stats = residual[0].benchmark(repeats=7)
    assert len(stats.samples) == 7
    assert 0 < stats.min <= stats.median <= max(stats.samples)


def test_a_bound_call_reads_its_inputs_in_place(residual: tuple[CompiledModel, dict[str, Array], dict[str, Array]]) -> None:
    compiled, data, expected = residual
    held = aligned_array(data["x"].shape, "float32")
    held[...] = data["x"]
    call, outputs = compiled.bind({"x": held})
    call()
    check(outputs, expected)
    held *= 2
    call()
    check(outputs, compiled.run({"x": held}))
    with pytest.raises(FeedError, match="input 'x' is missing"):
        compiled.bind({})


def test_saved_model_runs_in_a_new_process_without_the_compiler_s_front(
    residual: tuple[CompiledModel, dict[str, Array], dict[str, Array]], tmp_path: Path
) -> None:
    compiled, data, expected = residual
    compiled.save(tmp_path / "m.ansor")
    np.savez(tmp_path / "in.npz", **data)
    program = (
        "import sys, numpy, ansor_py; from pathlib import Path; folder = Path(sys.argv[1]);"
        "outputs = ansor_py.load(folder / 'm.ansor').run(dict(numpy.load(folder / 'in.npz')));"
        "numpy.savez(folder / 'out.npz', **outputs);"
        "print(sorted({'onnx', 'ray', 'lightgbm', 'networkx', 'ansor_py.measure'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
    outputs = dict(np.load(tmp_path / "out.npz"))
    for name, array in compiled.run(data).items():
        np.testing.assert_array_equal(outputs[name], array)
    check(outputs, expected)


def test_weights_of_a_loaded_model_are_mapped_and_aligned(
    residual: tuple[CompiledModel, dict[str, Array], dict[str, Array]], tmp_path: Path
) -> None:
    residual[0].save(tmp_path / "m.ansor")
    weights = load(tmp_path / "m.ansor")._weights
    assert not weights.flags.owndata
    assert not weights.flags.writeable
    assert weights.ctypes.data % 64 == 0
    with zipfile.ZipFile(tmp_path / "m.ansor") as file:
        assert file.testzip() is None
        assert {info.compress_type for info in file.infolist()} == {zipfile.ZIP_STORED}
        plan = json.loads(file.read("plan.json"))
    assert plan["target"]["cpu"] == residual[0].target.cpu


def test_truncated_or_changed_file_is_refused(
    residual: tuple[CompiledModel, dict[str, Array], dict[str, Array]], tmp_path: Path
) -> None:
    path = tmp_path / "m.ansor"
    residual[0].save(path)
    data = path.read_bytes()
    for length in (0, 100, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(ModelError, match="truncated, damaged or not a compiled model"):
            load(path)
    weights = np.asarray(residual[0]._weights).tobytes()
    for wanted, what in ((weights[:64], "its weights"), (b"\x7fELF", "its member code/")):
        changed = bytearray(data)
        changed[data.index(wanted) + 2] ^= 0x10
        path.write_bytes(changed)
        with pytest.raises(ModelError, match=f"damaged: the hash of {what}|truncated, damaged"):
            load(path)
    with pytest.raises(ModelError, match="does not exist"):
        load(tmp_path / "none.ansor")


def test_unwritable_folder(residual: tuple[CompiledModel, dict[str, Array], dict[str, Array]], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be written"):
        residual[0].save(tmp_path / "none" / "m.ansor")


def test_code_for_another_cpu_is_refused() -> None:
    host = Target.detect()
    with pytest.raises(TargetError, match="lacks a-feature-of-tomorrow; compile it here"):
        check_cpu(replace(host, cpu="next", features=f"{host.features},+a-feature-of-tomorrow"), "m.ansor")
    with pytest.raises(TargetError, match="is compiled for"):
        check_cpu(Target.parse("aarch64" if host.architecture == "x86-64" else "x86-64"), "m.ansor")
    check_cpu(host, "m.ansor")


def record(key: str, target: str, steps: tuple[Any, ...] = (), threads: int = 1, trial: int = 5) -> Record:
    return Record(workload_key=key, target=target, threads=threads, trial=trial, steps=steps, result=MeasureResult((1e-3,)))


def test_best_records_give_the_schedules() -> None:
    model, data = residual_model()
    target = Target.detect()
    units = partition_model(model).tasks
    records = [
        record(units[0].workload_key, str(target)),
        record(units[1].workload_key, str(target), (["SP", "nonsense"],), trial=6),
    ]
    with pytest.warns(AnsorWarning) as told:
        compiled = compile(model, records, threads=1, target=target, workers=0)
    origins = list(compiled.plan.schedules.values())
    assert origins.count("trial 5") == 1
    assert origins.count("default") == len(units) - 1
    words = [str(warning.message) for warning in told]
    assert any(f"2 of {len(units)} tasks have records; the others get their default schedules" in text for text in words)
    assert any("trial 6 cannot be read" in text and "its default schedule is used" in text for text in words)
    check(compiled.run(data), reference(model, data))


UNREADABLE, UNBUILDABLE = (["SP", "nonsense"],), (["split", "nowhere", "i", [4]],)


def test_the_next_best_record_is_taken_where_the_best_cannot_be_built() -> None:
    model, data = residual_model()
    target = Target.detect()
    [key, *_] = [unit.workload_key for unit in partition_model(model).tasks]
    records = [
        msgspec.structs.replace(record(key, str(target), steps, trial=trial), result=MeasureResult((cost,)))
        for trial, (cost, steps) in enumerate([(1e-4, UNREADABLE), (4e-4, ()), (2e-4, UNBUILDABLE), (3e-4, UNREADABLE)])
    ]
    with pytest.warns(AnsorWarning) as told:
        compiled = compile(model, records, threads=1, workers=0)
    assert compiled.plan.schedules[f"kernel_{key}"] == "trial 1"
    words = [str(warning.message) for warning in told]
    assert [text for text in words if "trial 2 cannot be compiled" in text and "trial 1 is used" in text]
    check(compiled.run(data), reference(model, data))


@pytest.mark.parametrize("cost", [2e-9, 1e-8])
def test_a_cost_that_no_machine_reaches_does_not_win(cost: float) -> None:
    model, data = residual_model()
    target = Target.detect()
    [key, *_] = [unit.workload_key for unit in partition_model(model).tasks]
    records = [
        record(key, str(target)),
        msgspec.structs.replace(record(key, str(target), trial=6), result=MeasureResult((cost,))),
    ]
    with pytest.warns(AnsorWarning, match="1 records with costs that cannot be true are left out .trial 6: "):
        compiled = compile(model, records, threads=1, workers=0)
    assert compiled.plan.schedules[f"kernel_{key}"] == "trial 5"
    check(compiled.run(data), reference(model, data))


def test_records_of_no_task_of_the_model_are_refused(tmp_path: Path) -> None:
    model, data = residual_model()
    stranger = msgspec.structs.replace(record("0123456789abcdef", str(Target.detect())), task="another")
    key = partition_model(model).tasks[0].workload_key
    failed = msgspec.structs.replace(stranger, workload_key=key, result=MeasureResult(error="run"), task="mine")
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "junk.jsonl").write_text("junk\n[1, 2]\n")
    for records, words in (
        ([stranger], "its 1 records are of another; give records of this model"),
        ([failed], "no record is of one of the model's 4 tasks; its 1 records are of mine"),
        ([], "the records: no record is of one of the model's 4 tasks; it holds no records"),
        (tmp_path / "empty.jsonl", r"empty.jsonl': no record is of one of the model's 4 tasks; it holds no records"),
    ):
        with pytest.raises(RecordError, match=words):
            compile(model, records, threads=1, workers=0)
    with pytest.warns(AnsorWarning, match="line 1: not valid JSON"), pytest.raises(RecordError, match="it holds no records"):
        compile(model, tmp_path / "junk.jsonl", threads=1, workers=0)
    compiled = compile(model, [stranger], threads=1, workers=0, allow_untuned=True)
    assert set(compiled.plan.schedules.values()) == {"default"}
    check(compiled.run(data), reference(model, data))


def test_records_of_another_target_or_number_of_threads_are_refused() -> None:
    model, _ = residual_model()
    key, target = partition_model(model).tasks[0].workload_key, Target.detect()
    with pytest.raises(RecordError, match="with 1 threads; they are for"):
        compile(model, [record(key, str(target), threads=64)], threads=1, workers=0)
    with pytest.raises(RecordError, match="no record is for target"):
        compile(model, [record(key, str(Target.parse("x86-64 cpu=nehalem")))], threads=1, workers=0)


def test_broken_last_line_of_a_records_file_is_told(tmp_path: Path) -> None:
    model, data = residual_model()
    target = Target.detect()
    path = tmp_path / "records.jsonl"
    with RecordWriter(path) as writer:
        writer.write([record(partition_model(model).tasks[0].workload_key, str(target))])
    path.write_bytes(path.read_bytes() + b'{"schema": 1, "work')
    with pytest.warns(AnsorWarning, match=r"records.jsonl' line 2 \(the last one, cut short\)"):
        compiled = compile(model, path, threads=1, workers=0)
    assert list(compiled.plan.schedules.values()).count("trial 5") == 1
    check(compiled.run(data), reference(model, data))


def test_kernel_that_ends_its_worker_fails_alone() -> None:
    target = Target.detect()
    dag = partition_model(residual_model()[0]).tasks[0].dag
    requests = [BuildRequest(symbol, dag, ()) for symbol in ("good1", "bad", "good2")]
    with KernelBuilder(target, 1, workers=1, build=crash_for_bad) as builder:
        first, second, third = builder.build(requests)
    assert isinstance(second, str)
    assert faults.COMPILER_CRASH.is_read_in(second), second
    assert [kernel.symbol for kernel in (first, third) if not isinstance(kernel, str)] == ["good1", "good2"]


def test_threads_must_be_positive() -> None:
    with pytest.raises(TargetError, match="threads must be at least 1"):
        compile(residual_model()[0], threads=0, workers=0)
