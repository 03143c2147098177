"""Models with defects that real files have: what can be understood is compiled, with a note; the rest is one clear error."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from ansor_py.errors import ModelError
from ansor_py.graph import compile, import_model, load
from ansor_py.graph.backend import AnsorBackend
from ansor_py.search.__main__ import main
from graph_interpreter import Array, floats, make_model

Change = Callable[[ModelProto], object]
X, W = floats(2, 3), floats(3, 4, seed=1)
Y = np.maximum(X @ W, 0)


def dense() -> ModelProto:
    """A model without a defect: y = relu(x @ w), with everything stated as it is."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["a"], name="dot"), helper.make_node("Relu", ["a"], ["y"], name="relu")]
    model = make_model(nodes, {"x": X}, ["y"], {"w": W})
    model.graph.value_info.append(value("a", 2, 4))
    return model


def value(name: str, *shape: int | str, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def output(model: ModelProto) -> onnx.ValueInfoProto:
    return model.graph.output[0]


def imports(model: ModelProto, *entries: tuple[str, int]) -> None:
    del model.opset_import[:]
    model.opset_import.extend(helper.make_opsetid(*entry) for entry in entries)


def reverse(model: ModelProto) -> None:
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in reversed(model.graph.node)]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def rename_nodes(model: ModelProto, name: str, domain: str = "") -> None:
    for node in model.graph.node:
        node.name, node.domain = name, domain


SHAPE, TYPE = "Field 'shape' of 'type' is required", "Field 'type' of 'value_info' is required"
WRONG = "wrong types, which are not used: 'y' is float32[2, 4], not "
# A defect, the model with it, and what is noted.
UNDERSTOOD: dict[str, tuple[Change, str]] = {
    "output without a shape": (lambda m: output(m).type.tensor_type.ClearField("shape"), SHAPE),
    "output without a type": (lambda m: output(m).ClearField("type"), TYPE),
    "output without a dtype": (lambda m: output(m).type.tensor_type.ClearField("elem_type"), "Field 'elem_type' of 'type'"),
    "output of another dtype": (lambda m: output(m).CopyFrom(value("y", 2, 4, kind=TensorProto.INT64)), f"{WRONG}int64[2, 4]"),
    "output of a dtype that is not compiled": (
        lambda m: output(m).CopyFrom(value("y", 2, 4, kind=TensorProto.FLOAT16)),
        f"{WRONG}float16[2, 4]",
    ),
    "output of another rank": (lambda m: output(m).CopyFrom(value("y", 2, 4, 1)), f"{WRONG}float32[2, 4, 1]"),
    "output stated as a scalar": (lambda m: output(m).CopyFrom(value("y")), f"{WRONG}float32[]"),
    "output of other extents": (lambda m: output(m).CopyFrom(value("y", 2, 5)), f"{WRONG}float32[2, 5]"),
    "output of transposed extents": (lambda m: output(m).CopyFrom(value("y", 4, 2)), f"{WRONG}float32[4, 2]"),
    "output stated as empty": (lambda m: output(m).CopyFrom(value("y", 0, 4)), f"{WRONG}float32[0, 4]"),
    "output stated as a sequence": (
        lambda m: output(m).CopyFrom(helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, [2, 4])),
        f"{WRONG}sequence",
    ),
    "output of named extents": (lambda m: output(m).CopyFrom(value("y", "N", "M")), ""),
    "output of extent -1": (lambda m: output(m).CopyFrom(value("y", -1, 4)), ""),
    "inner value of other extents": (
        lambda m: m.graph.value_info[0].CopyFrom(value("a", 7, 7)),
        "'a' is float32[2, 4], not float32[7, 7]",
    ),
    "inner value of another dtype": (
        lambda m: m.graph.value_info[0].CopyFrom(value("a", 2, 4, kind=TensorProto.BOOL)),
        "not bool[2, 4]",
    ),
    "inner value stated twice": (lambda m: m.graph.value_info.append(value("a", 3, 3)), "not float32[3, 3]"),
    "inner value without a type": (lambda m: m.graph.value_info.append(onnx.ValueInfoProto(name="a")), ""),
    "statement of a value that nobody has": (lambda m: m.graph.value_info.append(value("nobody", 3)), ""),
    "output that is an inner value": (lambda m: m.graph.output.append(onnx.ValueInfoProto(name="a")), TYPE),
    "output that is an input": (lambda m: m.graph.output.append(value("x", 2, 3)), ""),
    "output that is an initialiser": (lambda m: m.graph.output.append(onnx.ValueInfoProto(name="w")), TYPE),
    "output listed twice": (lambda m: m.graph.output.append(output(m)), ""),
    "initialiser that is an input": (lambda m: m.graph.input.append(value("w", 3, 4)), ""),
    "initialiser that is an input of another shape": (lambda m: m.graph.input.append(value("w", 9)), ""),
    "initialiser that is no input in an old format": (lambda m: setattr(m, "ir_version", 3), "w in initializer but not in"),
    "initialiser given twice": (lambda m: m.graph.initializer.append(m.graph.initializer[0]), "name is not unique"),
    "initialiser without use or name": (lambda m: m.graph.initializer.append(TensorProto(data_type=1, dims=[0])), "'name'"),
    "unused initialiser": (lambda m: m.graph.initializer.append(numpy_helper.from_array(floats(3), "u")), ""),
    "unused initialiser of a dtype that is not compiled": (
        lambda m: m.graph.initializer.append(numpy_helper.from_array(floats(3).astype(np.float16), "u")),
        "",
    ),
    "unused node": (lambda m: m.graph.node.append(helper.make_node("NonZero", ["x"], ["u"])), ""),
    "unused node of an operator that nobody has": (
        lambda m: (
            m.graph.node.append(helper.make_node("Foo", ["x"], ["u"], domain="mine")),
            imports(m, ("", 17), ("mine", 1)),
        ),
        "",
    ),
    "no format version": (lambda m: m.ClearField("ir_version"), "does not have an ir_version"),
    "format version of the future": (lambda m: setattr(m, "ir_version", 99), "ir_version 99 is higher"),
    "graph without a name": (lambda m: setattr(m.graph, "name", ""), "Field 'name' of 'graph'"),
    "no producer": (lambda m: m.ClearField("producer_name"), ""),
    "metadata given twice": (
        lambda m: [m.metadata_props.add(key="k", value=text) for text in "ab"],
        "duplicate keys in metadata_props",
    ),
    "nodes in another order": (reverse, ""),
    "nodes without names": (lambda m: rename_nodes(m, ""), ""),
    "nodes of one name": (lambda m: rename_nodes(m, "same"), ""),
    "nodes of the standard's other name": (lambda m: rename_nodes(m, "", "ai.onnx"), "No opset import for domain 'ai.onnx'"),
    "the standard imported under its other name": (lambda m: imports(m, ("ai.onnx", 17)), ""),
    "the standard imported under both names": (lambda m: imports(m, ("ai.onnx", 17), ("", 17)), ""),
    "unused operator sets": (lambda m: imports(m, ("com.microsoft", 1), ("ai.onnx.ml", 99), ("", 17), ("mine", 7)), ""),
    "empty optional inputs": (lambda m: m.graph.node[1].input.append(""), "has input size 2 not in range"),
    "deprecated operator": (
        lambda m: (
            m.graph.node.append(helper.make_node("Scatter", ["x", "i", "x"], ["s"])),
            m.graph.initializer.append(numpy_helper.from_array(np.zeros((2, 3), np.int64), "i")),
        ),
        "Op registered for Scatter is deprecated",
    ),
}


@pytest.mark.parametrize("defect", UNDERSTOOD)
@pytest.mark.parametrize("given", ["proto", "bytes"])
def test_what_can_be_understood_is_compiled(defect: str, given: str) -> None:
    model = dense()
    change, note = UNDERSTOOD[defect]
    change(model)
    compiled = compile(model if given == "proto" else model.SerializeToString(), threads=1, workers=0, fallback=False)
    np.testing.assert_allclose(compiled.run({"x": X})["y"], Y, rtol=1e-5, strict=True)
    assert {port.name: port.shape for port in compiled.outputs}["y"] == (2, 4)
    assert bool(compiled.notes) == bool(note)
    assert note in " ".join(compiled.notes)


NOT_UNDERSTOOD: dict[str, tuple[Change, str]] = {
    "value computed twice": (
        lambda m: m.graph.node.append(helper.make_node("Relu", ["x"], ["y"])),
        "value 'y' is defined more than once",
    ),
    "input listed twice": (lambda m: m.graph.input.append(value("x", 2, 3)), "value 'x' is defined more than once"),
    "two initialisers of one name": (
        lambda m: m.graph.initializer.append(numpy_helper.from_array(floats(3, 4), "w")),
        "value 'w' is defined more than once",
    ),
    "no operator sets": (lambda m: imports(m), r"node 'dot' \(operator MatMul\).*which version of the standard operators"),
    "operator sets without the standard's": (lambda m: imports(m, ("mine", 7)), "which version of the standard operators"),
    "two versions of the standard": (lambda m: imports(m, ("", 17), ("ai.onnx", 11)), "in the versions 17 and 11"),
    "attribute that the operator does not have": (
        lambda m: m.graph.node[1].attribute.append(helper.make_attribute("alpha", 0.5)),
        r"node 'relu' \(operator Relu, opset 17\) has an attribute 'alpha'",
    ),
    "attribute of another type": (
        lambda m: m.graph.node[1].CopyFrom(helper.make_node("LeakyRelu", ["a"], ["y"], "leaky", alpha=1)),
        "'alpha' is of type int, not float",
    ),
    "attribute that is missing": (
        lambda m: m.graph.node[1].CopyFrom(helper.make_node("Concat", ["a", "a"], ["y"], "join")),
        "node 'join' .* lacks the attribute 'axis'",
    ),
    "too few inputs": (lambda m: m.graph.node[0].input.pop(), "node 'dot' .* has 1 inputs, but the operator has 2"),
    "missing input": (lambda m: m.graph.node[0].input.__setitem__(0, ""), "its input 0 .* is missing"),
    "input without a dtype": (
        lambda m: m.graph.input[0].type.tensor_type.ClearField("elem_type"),
        "input 'x' has dtype undefined",
    ),
    "initialiser without its bytes": (lambda m: setattr(m.graph.initializer[0], "raw_data", b"123"), "'w' cannot be read"),
    "initialiser in a file of a model without one": (
        lambda m: setattr(m.graph.initializer[0], "data_location", TensorProto.EXTERNAL),
        "'w' keeps its data in a file beside the model; give the model by its path",
    ),
    "shapes that do not fit": (
        lambda m: m.graph.node[1].CopyFrom(helper.make_node("MatMul", ["a", "a"], ["y"], "square")),
        r"do not fit together: node 'square' \(operator MatMul, opset 17\): .*Incompatible dimensions",
    ),
    "shapes that do not fit an operator without an expression": (
        lambda m: m.graph.node[1].CopyFrom(helper.make_node("Det", ["a"], ["y"], "determinant")),
        r"do not fit together: node 'determinant'",
    ),
}


@pytest.mark.parametrize("defect", NOT_UNDERSTOOD)
def test_what_cannot_be_understood_is_one_error(defect: str) -> None:
    model = dense()
    change, message = NOT_UNDERSTOOD[defect]
    change(model)
    with pytest.raises(ModelError, match=message):
        compile(model, threads=1, workers=0)


def test_an_input_without_a_shape_takes_the_given_one() -> None:
    model = dense()
    model.graph.input[0].type.tensor_type.ClearField("shape")
    with pytest.raises(ModelError, match=r"input 'x' \(give all its extents under its name\)"):
        compile(model, threads=1, workers=0)
    np.testing.assert_allclose(compile(model, threads=1, workers=0, shapes={"x": (2, 3)}).run({"x": X})["y"], Y, rtol=1e-5)


def test_extents_of_minus_one_are_dynamic() -> None:
    model = dense()
    model.graph.input[0].CopyFrom(value("x", -1, 3))
    with pytest.raises(ModelError, match="dynamic shapes: dimension 0 of input 'x'"):
        import_model(model)
    assert import_model(model, {"x": (5, 3)}).values["y"].shape == (5, 4)


def test_nodes_may_stand_before_what_their_subgraphs_read() -> None:
    then = helper.make_graph(
        [helper.make_node("Neg", ["t"], ["b"]), helper.make_node("Exp", ["a"], ["t"])],
        "then",
        [],
        [onnx.ValueInfoProto(name="b")],
    )
    other = helper.make_graph([helper.make_node("Neg", ["a"], ["b"])], "else", [], [onnx.ValueInfoProto(name="b")])
    nodes = [
        helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=other),
        helper.make_node("Relu", ["x"], ["a"]),
    ]
    model = make_model(nodes, {"x": (3,), "c": np.array(True)}, ["y"])
    x = floats(3)
    for known in (False, True):
        if known:
            del model.graph.input[1]
            model.graph.initializer.append(numpy_helper.from_array(np.array(True), "c"))
        feed: dict[str, Array] = {"x": x} if known else {"x": x, "c": np.array(True)}
        compiled = compile(model, threads=1, workers=0)
        assert bool(compiled.fallback_nodes) != known
        np.testing.assert_allclose(compiled.run(feed)["y"], -np.exp(np.maximum(x, 0)), rtol=1e-6)


def test_notes_are_kept_and_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, told = dense(), list[str]()
    output(model).CopyFrom(value("y", 9))
    model.graph.value_info.append(value("a", 9))
    compiled = compile(model, threads=1, workers=0, progress=told.append)
    note = "the model states wrong types, which are not used: "
    note += "'a' is float32[2, 4], not float32[9], 'y' is float32[2, 4], not float32[9]"
    assert compiled.notes == (note,)
    assert f"note: {note}" in told
    compiled.save(tmp_path / "m.ansor")
    assert load(tmp_path / "m.ansor").notes == (note,)
    onnx.save(model, tmp_path / "m.onnx")
    words = [str(tmp_path / "m.onnx"), "--trials", "0", "--threads", "1", "--runner", "inline", "--out", str(tmp_path / "run")]
    assert main(words) == 0
    assert f"m.onnx: note: {note}" in capsys.readouterr().out


def test_a_note_lists_few_of_many() -> None:
    nodes = [helper.make_node("Relu", ["x" if i == 0 else f"v{i - 1}"], [f"v{i}"]) for i in range(9)]
    model = make_model(nodes, {"x": (3,)}, ["v8"])
    model.graph.value_info.extend(value(f"v{i}", 5) for i in range(8))
    [note] = import_model(model).notes
    assert note.endswith("'v2' is float32[3], not float32[5], and 5 more")


def test_the_backend_takes_what_onnx_refuses() -> None:
    model = dense()
    output(model).ClearField("type")
    np.testing.assert_allclose(AnsorBackend.run_model(model, [X])[0], Y, rtol=1e-5)
