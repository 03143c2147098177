"""What users get wrong, and what they are told: the table that docs/errors.md shows, and how to provoke each message.

    python tests/bad_input.py          # writes docs/errors.md

A mistake's `say` is the whole message, with DIR for the folder of the test and "…" for what depends on the version or the
machine. `tests/test_bad_input.py` provokes every one of them.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from ansor_py.errors import AnsorWarning
from ansor_py.graph import CompiledModel, compile, load, partition_model
from ansor_py.measure.records import Record, RecordWriter
from ansor_py.measure.result import MeasureResult
from ansor_py.target import Target
from graph_interpreter import floats

PAGE = Path(__file__).parents[1] / "docs" / "errors.md"
# How a mistake ends: exit status 2 of the command line, an exception in Python, or (it still works) a warning of the command
# line or what Python code was told.
Kind = Literal["command", "python", "warning", "notice"]
# Gives the arguments of the command line, or runs Python code and gives what it was told.
Provoke = Callable[[Path], "list[str] | None"]


@dataclass(frozen=True)
class Mistake:
    """An input that is wrong (or looks so), how to provoke the answer to it, and the answer."""

    title: str
    kind: Kind
    provoke: Provoke
    say: str


MISTAKES: list[Mistake] = []


def mistake(title: str, say: str, kind: Kind = "command") -> Callable[[Provoke], Provoke]:
    """Register a function that writes what it needs into a folder and returns arguments or messages."""

    def register(provoke: Provoke) -> Provoke:
        MISTAKES.append(Mistake(title, kind, provoke, say))
        return provoke

    return register


def says(expected: str, message: str, folder: Path) -> bool:
    """Whether a message is the expected one."""
    pattern = re.escape(expected).replace("…", ".*").replace("DIR", re.escape(str(folder)))
    return re.fullmatch(pattern, " ".join(message.split())) is not None


def page() -> str:
    """The text of docs/errors.md."""
    heads: dict[Kind, str] = {
        "command": "## From the command line\n\nOne line on stderr that starts with `error: `, and exit status 2.",
        "python": "## From Python\n\nExceptions, all of them `ansor_py.errors.AnsorError`.",
        "warning": "## Warnings of the command line\n\nThe run goes on.",
        "notice": "## Not errors\n\nWhat works, and what is said or given.",
    }
    lines = [
        "# Errors",
        "",
        "Written by `python tests/bad_input.py` from the tests; DIR is any folder, … depends on the machine.",
    ]
    for kind, head in heads.items():
        lines += ["", head, "", "| input | message |", "|---|---|"]
        lines += [f"| {item.title} | {item.say} |".replace("|---", "\\|---") for item in MISTAKES if item.kind == kind]
    return "\n".join([*lines, ""])


def _value(name: str, *shape: int | str, kind: int = TensorProto.FLOAT) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def _model(nodes: list[NodeProto], inputs: list[ValueInfoProto], outputs: list[ValueInfoProto], **parts: Any) -> ModelProto:
    graph = helper.make_graph(nodes, "bad", inputs, outputs, **parts)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def good_model(*shape: int | str) -> ModelProto:
    """One Relu."""
    return _model([helper.make_node("Relu", ["x"], ["y"], name="relu")], [_value("x", *shape)], [_value("y", *shape)])


def _dense(rows: int = 300) -> ModelProto:
    weight = numpy_helper.from_array(floats(rows, 4), "w")
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="dense")
    return _model([node], [_value("x", 2, rows)], [_value("y", 2, 4)], initializer=[weight])


def _saved(folder: Path, model: ModelProto, name: str = "m.onnx") -> list[str]:
    onnx.save(model, folder / name)
    return [str(folder / name)]


def _written(folder: Path, data: bytes, name: str = "m.onnx") -> list[str]:
    (folder / name).write_bytes(data)
    return [str(folder / name)]


def _compiled(folder: Path) -> CompiledModel:
    return compile(good_model(2, 3), threads=1, workers=0)


# Models that cannot be read.


@mistake("a file that is not ONNX", "'DIR/m.onnx' is not an ONNX file")
def _text(folder: Path) -> list[str]:
    return _written(folder, b"hello world")


@mistake("an empty file", "'DIR/m.onnx' is not an ONNX file")
def _empty(folder: Path) -> list[str]:
    return _written(folder, b"")


@mistake(
    "a truncated ONNX file",
    "'DIR/m.onnx' is truncated or damaged: it starts like an ONNX model but cannot be decoded",
)
def _truncated(folder: Path) -> list[str]:
    data = _dense().SerializeToString()
    return _written(folder, data[: len(data) // 2])


@mistake("a file that does not exist", "model file 'DIR/none.onnx' does not exist")
def _absent(folder: Path) -> list[str]:
    return [str(folder / "none.onnx")]


@mistake("a folder", "'DIR' is a folder; give the ONNX file in it")
def _folder(folder: Path) -> list[str]:
    return [str(folder)]


@mistake(
    "external data: the file is missing (here of 2 GB)",
    "external data of 'DIR/m.onnx' cannot be loaded: … DIR/w.bin, but it … not …",
)
def _external_missing(folder: Path) -> list[str]:
    return _saved(folder, _external("w.bin", 1 << 29))


@mistake(
    "external data: a file outside of the model's folder",
    "external data of 'DIR/inner/m.onnx' cannot be loaded: …'../w.bin' points outside the directory.",
)
def _external_outside(folder: Path) -> list[str]:
    (folder / "inner").mkdir()
    (folder / "w.bin").write_bytes(bytes(64))
    return _saved(folder / "inner", _external("../w.bin", 16))


@mistake(
    "external data: the file is too short",
    "external data of 'DIR/m.onnx' cannot be loaded: External data length (64) exceeds available data (8 bytes …",
)
def _external_short(folder: Path) -> list[str]:
    (folder / "w.bin").write_bytes(bytes(8))
    return _saved(folder, _external("w.bin", 16))


def _external(location: str, elements: int) -> ModelProto:
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[elements])
    weight.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("length", str(4 * elements))):
        weight.external_data.add(key=key, value=value)
    node = helper.make_node("Mul", ["x", "w"], ["y"], name="mul")
    return _model([node], [_value("x", 1)], [_value("y", elements)], initializer=[weight])


# Models that make no sense, or that cannot be compiled.


@mistake("a cycle", "DIR/m.onnx: the graph has a cycle: one -> two -> one")
def _cycle(folder: Path) -> list[str]:
    nodes = [helper.make_node("Add", ["x", "b"], ["a"], name="one"), helper.make_node("Relu", ["a"], ["b"], name="two")]
    return _saved(folder, _model(nodes, [_value("x", 2)], [_value("b", 2)]))


@mistake("a dangling name", "DIR/m.onnx: node 'one' (operator Add) reads 'nowhere', which nothing produces")
def _dangling(folder: Path) -> list[str]:
    node = helper.make_node("Add", ["x", "nowhere"], ["a"], name="one")
    return _saved(folder, _model([node], [_value("x", 2)], [_value("a", 2)]))


@mistake("an output that nothing computes", "DIR/m.onnx: graph output 'z' is produced by no node")
def _no_output(folder: Path) -> list[str]:
    return _saved(folder, _model([helper.make_node("Relu", ["x"], ["y"])], [_value("x", 2)], [_value("z", 2)]))


@mistake(
    "shapes that contradict each other",
    "DIR/m.onnx: shapes of the model do not fit together: … Incompatible dimensions for matrix multiplication",
)
def _contradiction(folder: Path) -> list[str]:
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="dense")
    return _saved(folder, _model([node], [_value("x", 2, 3), _value("w", 4, 5)], [_value("y", 2, 5)]))


@mistake(
    "dynamic shapes without --shape",
    "DIR/m.onnx: the model has dynamic shapes: 'batch'; fix them with shapes={'NAME': extent} (--shape NAME=EXTENT)",
)
def _dynamic(folder: Path) -> list[str]:
    return _saved(folder, good_model("batch", 3))


@mistake(
    "--shape for a dimension that the model does not have",
    "DIR/m.onnx: shapes are given for seq, but the model has no such dynamic dimension or input",
)
def _unknown_dimension(folder: Path) -> list[str]:
    return [*_saved(folder, good_model("batch", 3)), "--shape", "batch=1", "--shape", "seq=4"]


@mistake(
    "an unsupported dtype",
    "DIR/m.onnx: input 'x' has dtype float16, which is not supported; supported are float32, float64, …",
)
def _float16(folder: Path) -> list[str]:
    kind = TensorProto.FLOAT16
    node = helper.make_node("Relu", ["x"], ["y"], name="relu")
    return _saved(folder, _model([node], [_value("x", 2, kind=kind)], [_value("y", 2, kind=kind)]))


@mistake(
    "an operator that cannot be compiled, with --no-fallback",
    "DIR/m.onnx: node 'determinant' (operator Det, opset 17) is not supported; supported are …",
)
def _no_fallback(folder: Path) -> list[str]:
    node = helper.make_node("Det", ["x"], ["y"], name="determinant")
    return [*_saved(folder, _model([node], [_value("x", 3, 3)], [_value("y")])), "--no-fallback"]


@mistake(
    "an old model whose operands do not fit together",
    "DIR/m.onnx: node 'sum' (operator Add, opset 6): shapes [2, 3] and [3] differ, and 'broadcast' is not set; correct the "
    "model, or convert it to a newer opset with onnx.version_converter",
)
def _old_broadcast(folder: Path) -> list[str]:
    node = helper.make_node("Add", ["x", "b"], ["y"], name="sum")
    model = _model([node], [_value("x", 2, 3), _value("b", 3)], [_value("y", 2, 3)])
    model.opset_import[0].version = 6
    return _saved(folder, model)


@mistake(
    "an operator that ONNX does not have",
    "DIR/m.onnx: node 'foo' (operator mine.Foo, opset 1) has neither a tensor expression nor a function body; and ONNX's "
    "reference evaluator cannot run it either",
)
def _custom_operator(folder: Path) -> list[str]:
    node = helper.make_node("Foo", ["x"], ["y"], name="foo", domain="mine")
    model = _model([node], [_value("x", 2)], [_value("y", 2)])
    model.opset_import.add(domain="mine", version=1)
    return _saved(folder, model)


@mistake(
    "operators of an unknown version",
    "DIR/m.onnx: node 'relu' (operator Relu): the model does not say which version of the standard operators it uses; add it "
    "to opset_import",
)
def _no_opset(folder: Path) -> list[str]:
    model = good_model(2, 3)
    del model.opset_import[:]
    return _saved(folder, model)


@mistake(
    "an attribute that the operator does not have",
    "DIR/m.onnx: node 'relu' (operator Relu, opset 17) has an attribute 'alpha', which the operator does not have in this "
    "version",
)
def _unknown_attribute(folder: Path) -> list[str]:
    model = good_model(2, 3)
    model.graph.node[0].attribute.append(helper.make_attribute("alpha", 0.5))
    return _saved(folder, model)


@mistake(
    "a value that is computed twice",
    "DIR/m.onnx: value 'y' is defined more than once",
)
def _computed_twice(folder: Path) -> list[str]:
    model = good_model(2, 3)
    model.graph.node.append(model.graph.node[0])
    return _saved(folder, model)


@mistake(
    "an attribute that no evaluator of an uncompiled operator honours",
    "DIR/m.onnx: node 'regress' (operator ai.onnx.ml.LinearRegressor, opset 3) has neither a tensor expression nor a function "
    "body; and node 'regress' (operator ai.onnx.ml.LinearRegressor, opset 3) cannot be evaluated: its evaluator does not "
    "honour attribute 'post_transform' other than NONE; export the model without it",
)
def _ignored_attribute(folder: Path) -> list[str]:
    attributes = {"coefficients": [1.0, 2.0], "post_transform": "LOGISTIC"}
    node = helper.make_node("LinearRegressor", ["x"], ["y"], name="regress", domain="ai.onnx.ml", **attributes)
    model = _model([node], [_value("x", 3, 2)], [_value("y", 3, 1)])
    model.opset_import.add(domain="ai.onnx.ml", version=3)
    return _saved(folder, model)


@mistake(
    "an opset of the future",
    "DIR/m.onnx: the model uses opset 999, and the installed onnx … knows up to …; install a newer onnx",
)
def _future_opset(folder: Path) -> list[str]:
    model = good_model(2, 3)
    model.opset_import[0].version = 999
    return _saved(folder, model)


@mistake(
    "a model that takes strings",
    "DIR/m.onnx: input 's' is not a numeric tensor, so the model cannot be benchmarked; compile it from Python by "
    "ansor_py.compile",
)
def _strings(folder: Path) -> list[str]:
    kind = TensorProto.STRING
    node = helper.make_node("StringNormalizer", ["s"], ["y"], name="upper", case_change_action="UPPER")
    return _saved(folder, _model([node], [_value("s", 2, kind=kind)], [_value("y", 2, kind=kind)]))


# Options.


@mistake("nothing to tune", "nothing to tune; name an ONNX model or give --op matmul:512,512,512 (--help lists the operators)")
def _nothing(folder: Path) -> list[str]:
    return []


@mistake("an output folder that cannot be written", "cannot write to 'DIR/file/run': Not a directory; choose another --out")
def _unwritable(folder: Path) -> list[str]:
    (folder / "file").write_text("")
    return [*_saved(folder, good_model(2, 3)), "--out", str(folder / "file" / "run")]


@mistake(
    "an output folder with the records of another run",
    "'DIR/run' holds the records of a run already; continue it by --resume or choose another --out",
)
def _taken(folder: Path) -> list[str]:
    (folder / "run").mkdir()
    (folder / "run" / "records.jsonl").write_text("{}\n")
    return [*_saved(folder, good_model(2, 3)), "--out", str(folder / "run")]


@mistake(
    "--resume of a run on another target",
    "no record in 'DIR/run' is of these tasks on target '…' with 1 threads; its first is for 'x86-64 cpu=skylake' with 1 "
    "threads; choose another --out",
)
def _foreign_run(folder: Path) -> list[str]:
    (folder / "run").mkdir()
    with RecordWriter(folder / "run" / "records.jsonl") as writer:
        writer.write([_record("x86-64 cpu=skylake")])
    return [*_saved(folder, good_model(2, 3)), "--out", str(folder / "run"), "--resume"]


@mistake("--op with an unknown operator", "unknown operator 'nonsense'; known are abs, add, …")
def _unknown_operator(folder: Path) -> list[str]:
    return ["--op", "nonsense:3"]


@mistake("--op with an extent that is no number", "operator 'matmul:4,b,4': 'b' is not a whole number")
def _no_extent(folder: Path) -> list[str]:
    return ["--op", "matmul:4,b,4"]


@mistake("--op with too few extents", "operator 'matmul' was given 2 extents; expected matmul:n,m,k…")
def _few_extents(folder: Path) -> list[str]:
    return ["--op", "matmul:4,4"]


@mistake("--op with an extent of zero", "operator 'matmul': extents must be at least 1, got 0, 4, 4")
def _zero_extent(folder: Path) -> list[str]:
    return ["--op", "matmul:0,4,4"]


@mistake(
    "--op for which there is no memory",
    "'matmul:1000000,1000000,1000000' needs 10.9 TiB of memory (inputs 7.28 TiB, outputs 3.64 TiB); there are …; make it "
    "smaller",
)
def _no_memory(folder: Path) -> list[str]:
    return ["--op", "matmul:1000000,1000000,1000000"]


@mistake(
    "--op with an extent beyond 64 bits",
    "operator 'matmul:99999999999999999999,4,4': 99999999999999999999 is too large; nothing has more than 2^60 elements",
)
def _too_large_extent(folder: Path) -> list[str]:
    return ["--op", "matmul:99999999999999999999,4,4"]


@mistake(
    "--op with more iterations than can be counted",
    "operator 'matmul:10000000,10000000,100000000': tensor 'C', float32[10000000, 10000000] with a "
    "reduction over k=100000000, takes 10000000000000000000000 iterations; 64-bit arithmetic has room for 2^60",
)
def _too_many_iterations(folder: Path) -> list[str]:
    return ["--op", "matmul:10000000,10000000,100000000"]


@mistake(
    "--shape for which there is no memory",
    "DIR/m.onnx needs 21.8 TiB of memory (inputs 10.9 TiB, outputs 10.9 TiB); there are …; make it smaller",
)
def _shape_without_memory(folder: Path) -> list[str]:
    return [*_saved(folder, good_model("batch", 3)), "--shape", "batch=1000000000000"]


@mistake("--shape with an extent beyond 64 bits", "--shape 'batch=9999999999999999999': an extent has at most 18 digits")
def _too_large_shape(folder: Path) -> list[str]:
    return [*_saved(folder, good_model("batch", 3)), "--shape", "batch=9999999999999999999"]


@mistake("a batch file with an unknown key", "'DIR/batch.toml': there is no option 'trails'; known are batch, …")
def _unknown_key(folder: Path) -> list[str]:
    (folder / "batch.toml").write_text("trails = 3\n")
    return ["--config", str(folder / "batch.toml")]


@mistake("a batch file that is not TOML", "'DIR/batch.toml' is not valid TOML: …")
def _not_toml(folder: Path) -> list[str]:
    (folder / "batch.toml").write_text("trials = \n")
    return ["--config", str(folder / "batch.toml")]


@mistake("--shape with nonsense", "--shape 'batch': write NAME=EXTENT for a dimension or NAME=1x3x224x224 for an input")
def _bad_shape(folder: Path) -> list[str]:
    return [*_saved(folder, good_model("batch", 3)), "--shape", "batch"]


@mistake("an unknown runner", "there is no runner 'magic'; known are …")
def _unknown_runner(folder: Path) -> list[str]:
    return ["--op", "relu:8", "--runner", "magic"]


@mistake(
    "--ray-address where nothing listens",
    "the Ray cluster at '127.0.0.1:1' cannot be reached: [Errno 111] Connection refused; --runner process measures without Ray",
)
def _no_ray(folder: Path) -> list[str]:
    return ["--op", "relu:8", "--runner", "ray", "--ray-address", "127.0.0.1:1"]


@mistake("--ray-address with another runner", "--ray-address needs --runner ray, not 'process'")
def _address_without_ray(folder: Path) -> list[str]:
    return ["--op", "relu:8", "--runner", "process", "--ray-address", "127.0.0.1:1"]


@mistake(
    "--fallback-runner that is the runner itself",
    "--fallback-runner process: it cannot go on where --runner process breaks down",
)
def _no_fallback_runner(folder: Path) -> list[str]:
    return ["--op", "relu:8", "--runner", "process", "--fallback-runner", "process"]


@mistake("no threads", "--threads is 0; a kernel needs at least one")
def _no_threads(folder: Path) -> list[str]:
    return ["--op", "relu:8", "--threads", "0"]


@mistake("an unknown target", "target 'abacus' must begin with 'host' or an architecture: …")
def _unknown_target(folder: Path) -> list[str]:
    return ["--op", "relu:8", "--target", "abacus"]


# Python.


@mistake("a run with an input that the model does not have", "the model has no input 'z'; it takes x: float32[2, 3]", "python")
def _feed_name(folder: Path) -> None:
    _compiled(folder).run({"x": floats(2, 3), "z": floats(1)})


@mistake("a run without an input", "input 'x' is missing; the model takes x: float32[2, 3]", "python")
def _feed_missing(folder: Path) -> None:
    _compiled(folder).run({})


@mistake("a run with another shape", "input 'x' has shape [3, 2], but the model takes [2, 3]", "python")
def _feed_shape(folder: Path) -> None:
    _compiled(folder).run({"x": floats(3, 2)})


@mistake(
    "a run with another dtype",
    "input 'x' has dtype float64, but the model takes float32; convert it with astype",
    "python",
)
def _feed_dtype(folder: Path) -> None:
    _compiled(folder).run({"x": floats(2, 3).astype(np.float64)})


def _record(target: str, threads: int = 1) -> Record:
    key = partition_model(good_model(2, 3)).tasks[0].workload_key
    return Record(workload_key=key, target=target, threads=threads, trial=5, steps=(), result=MeasureResult((1e-3,)))


@mistake(
    "records of another target",
    "no record is for target '…' with 1 threads; they are for 'x86-64 cpu=skylake' with 1 threads",
    "python",
)
def _other_target(folder: Path) -> None:
    compile(good_model(2, 3), [_record("x86-64 cpu=skylake")], threads=1, workers=0)


@mistake(
    "records of another number of threads",
    "no record is for target '…' with 1 threads; they are for '…' with 64 threads",
    "python",
)
def _other_threads(folder: Path) -> None:
    compile(good_model(2, 3), [_record(str(Target.detect()), 64)], threads=1, workers=0)


@mistake(
    "a truncated model.ansor",
    "'DIR/model.ansor' is truncated, damaged or not a compiled model (…); compile it again",
    "python",
)
def _truncated_archive(folder: Path) -> None:
    path = folder / "model.ansor"
    _compiled(folder).save(path)
    path.write_bytes(path.read_bytes()[:-100])
    load(path)


@mistake("a model.ansor that does not exist", "compiled model 'DIR/model.ansor' does not exist", "python")
def _absent_archive(folder: Path) -> None:
    load(folder / "model.ansor")


@mistake(
    "a model.ansor for another CPU",
    "DIR/model.ansor is compiled for … CPU 'next'; this CPU, '…', lacks a-feature-of-tomorrow; compile it here",
    "python",
)
def _other_cpu(folder: Path) -> None:
    compiled, host = _compiled(folder), Target.detect()
    newer = replace(host, cpu="next", features=f"{host.features},+a-feature-of-tomorrow")
    compiled.plan = replace(compiled.plan, target=newer.to_json())
    compiled.save(folder / "model.ansor")
    load(folder / "model.ansor")


@mistake(
    "a compiled model saved where nothing can be written",
    "the compiled model cannot be written to 'DIR/none/model.ansor': No such file or directory",
    "python",
)
def _unwritable_archive(folder: Path) -> None:
    _compiled(folder).save(folder / "none" / "model.ansor")


@mistake(
    "a node whose result has another shape than the model states",
    "node 'choice' (operator If, opset 17): its result 'a' is float32[2], but the model states float32[1, 3]",
    "python",
)
def _lying_shape(folder: Path) -> None:
    then, other = (
        helper.make_graph([helper.make_node("Identity", [name], ["b"])], "branch", [], [_value("b")]) for name in ("x", "z")
    )
    nodes = [
        helper.make_node("If", ["c"], ["a"], name="choice", then_branch=then, else_branch=other),
        helper.make_node("Relu", ["a"], ["y"], name="relu"),
    ]
    inputs = [_value("x", 2), _value("z", 1, 3), _value("c", kind=TensorProto.BOOL)]
    model = _model(nodes, inputs, [_value("y", 1, 3)])
    model.graph.value_info.append(_value("a", 1, 3))
    compile(model, threads=1, workers=0).run({"x": floats(2), "z": floats(1, 3), "c": np.array(True)})


# Not errors.


@mistake("a dimension of zero", "an output of shape [0, 3]", "notice")
def _zero_dimension(folder: Path) -> list[str]:
    result = compile(good_model(0, 3), threads=1, workers=0).run({"x": floats(0, 3)})["y"]
    return [f"an output of shape {list(result.shape)}"]


@mistake(
    "an output without a shape",
    "note: onnx.checker: Field 'shape' of 'type' is required but missing.",
    "notice",
)
def _no_shape(folder: Path) -> list[str]:
    model, told = good_model(2, 3), list[str]()
    model.graph.output[0].type.tensor_type.ClearField("shape")
    compile(model, threads=1, workers=0, progress=told.append)
    return told


@mistake(
    "a shape that is stated wrongly",
    "note: the model states wrong types, which are not used: 'y' is float32[2, 3], not float32[3, 2]",
    "notice",
)
def _wrong_shape(folder: Path) -> list[str]:
    model, told = good_model(2, 3), list[str]()
    model.graph.output[0].CopyFrom(_value("y", 3, 2))
    compile(model, threads=1, workers=0, progress=told.append)
    return told


@mistake(
    "a records file with a broken last line",
    "records file 'DIR/records.jsonl' line 2 (the last one, cut short): …; it is ignored",
    "notice",
)
def _broken_line(folder: Path) -> list[str]:
    path = folder / "records.jsonl"
    with RecordWriter(path) as writer:
        writer.write([_record(str(Target.detect()))])
    path.write_bytes(path.read_bytes() + b'{"schema": 2, "work')
    return _compiled_with(path, "trial 5")


def _compiled_with(records: Path | list[Record], origin: str) -> list[str]:
    """The warnings of compiling a model of one task, whose schedule has to come from there."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", AnsorWarning)
        compiled = compile(good_model(2, 3), records, threads=1, workers=0)
    assert list(compiled.plan.schedules.values()) == [origin]
    return [str(warning.message) for warning in told]


@mistake(
    "a record whose program cannot be built any more", "task '…': trial 5 cannot be read (unknown transform step …", "notice"
)
def _unbuildable(folder: Path) -> list[str]:
    return _compiled_with([msgspec.structs.replace(_record(str(Target.detect())), steps=(["no-such-step"],))], "default")


@mistake(
    "a record with a cost that no machine reaches",
    "the records: 1 records with costs that cannot be true are left out (trial 6: 1e-15 s, where the machine needs at least …",
    "notice",
)
def _incredible(folder: Path) -> list[str]:
    record = _record(str(Target.detect()))
    return _compiled_with([record, msgspec.structs.replace(record, trial=6, result=MeasureResult((1e-15,)))], "trial 5")


@mistake(
    "records of another model",
    "the records: no record is of one of the model's 1 tasks; its 1 records are of another; give records of this model, …",
    "python",
)
def _other_model(folder: Path) -> None:
    record = msgspec.structs.replace(_record(str(Target.detect())), workload_key="0123456789abcdef", task="another")
    compile(good_model(2, 3), [record], threads=1, workers=0)


@mistake(
    "a records file without records", "records file 'DIR/records.jsonl': no record is of …; it holds no records; …", "python"
)
def _no_records(folder: Path) -> None:
    (folder / "records.jsonl").write_text("")
    compile(good_model(2, 3), folder / "records.jsonl", threads=1, workers=0)


@mistake("more threads than cores", "warning: --threads is …, but this machine has … cores; threads will wait", "warning")
def _many_threads(folder: Path) -> list[str]:
    return [*_saved(folder, good_model(2, 3)), "--threads", str(Target.detect().cores + 1)]


@mistake("measuring with more threads than cores", "warning: --threads is …", "warning")
def _measuring_with_many_threads(folder: Path) -> list[str]:
    return ["--op", "relu:8", "--threads", str(Target.detect().cores + 1)]


if __name__ == "__main__":
    os.makedirs(PAGE.parent, exist_ok=True)
    PAGE.write_text(page())
