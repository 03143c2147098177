"""ONNX import: the light models, shape arithmetic, dynamic dimensions, and one clear error for each kind of bad input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from ansor_py.errors import ModelError
from ansor_py.graph import import_model, partition_model
from ansor_py.graph.random_weights import find_light_models, randomise_constant_weights
from graph_interpreter import floats, interpret, make_model, reference

# Model -> kernel calls and distinct tasks after all passes and fusion, narrow, then wherever one kernel can be had for several.
# SqueezeNet's are the last convolution with the mean behind it, ShuffleNet's the depthwise convolutions with the transposition
# (between two views) before them.
LIGHT_MODELS = {
    "alexnet": (14, 14, 14, 14),
    "densenet121": (187, 133, 187, 133),
    "inception_v1": (75, 64, 75, 64),
    "inception_v2": (84, 50, 84, 50),
    "resnet50": (57, 28, 57, 28),
    "shufflenet": (75, 31, 59, 27),
    "squeezenet": (31, 23, 30, 22),
    "vgg19": (25, 18, 25, 18),
    "zfnet512": (14, 13, 14, 13),
}


@pytest.mark.parametrize("name", LIGHT_MODELS)
def test_light_model_is_cut_into_kernels_and_tasks(name: str) -> None:
    parts = partition_model(find_light_models()[name])
    wide = parts.decided(choice.key for choice in parts.choices)
    assert (len(parts.subgraphs), len(parts.tasks), len(wide.subgraphs), len(wide.tasks)) == LIGHT_MODELS[name]
    assert sum(task.weight for task in parts.tasks) == len(parts.subgraphs)
    assert len({task.name for task in parts.tasks}) == len(parts.tasks)
    left = {node.op_type for node in parts.graph.nodes}
    assert not left & {"BatchNormalization", "Dropout", "Identity", "ConstantOfShape", "Unsqueeze", "Shape", "Constant"}


def test_model_may_be_a_path_bytes_or_a_proto() -> None:
    path = find_light_models()["squeezenet"]
    texts = {str(import_model(given)) for given in (path, str(path), path.read_bytes(), onnx.load(path))}
    assert len(texts) == 1


def test_constants_of_light_models_cost_no_memory() -> None:
    graph = import_model(find_light_models()["vgg19"])
    assert sum(value.bytes for value in graph.values.values() if value.constant is not None) > 500e6
    large = [value.constant for value in graph.values.values() if value.constant is not None and value.bytes > 1e6]
    assert all(array.strides == (0,) * array.ndim for array in large)


def test_random_weights_replace_all_constant_ones() -> None:
    model = onnx.load(find_light_models()["densenet121"])
    changed = randomise_constant_weights(model, seed=3)
    onnx.checker.check_model(changed)
    assert randomise_constant_weights(model, seed=3) == changed
    assert "ConstantOfShape" not in {node.op_type for node in changed.graph.node}
    arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in changed.graph.initializer}
    variances = [arrays[node.input[4]] for node in changed.graph.node if node.op_type == "BatchNormalization"]
    assert variances
    assert all((variance > 0).all() for variance in variances)
    weights = [arrays[node.input[1]] for node in changed.graph.node if node.op_type == "Conv"]
    for weight in weights:
        assert weight.std() == pytest.approx(np.sqrt(2 / np.prod(weight.shape[1:])), rel=0.1)


def test_shape_arithmetic_is_folded() -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "zero"], ["batch"]),
        helper.make_node("Unsqueeze", ["batch", "axes"], ["batch1"]),
        helper.make_node("Concat", ["batch1", "rest"], ["target"], axis=0),
        helper.make_node("Reshape", ["x", "target"], ["y"]),
    ]
    constants = {"zero": np.int64(0), "axes": np.array([0]), "rest": np.array([-1])}
    model = make_model(nodes, {"x": (2, 3, 4)}, ["y"], constants)
    graph = import_model(model)
    assert [node.op_type for node in graph.nodes] == ["Reshape"]
    assert graph.values["y"].shape == (2, 12)


def test_function_bodies_are_expanded() -> None:
    body = helper.make_function(
        "mine",
        "Twice",
        ["a"],
        ["b"],
        [helper.make_node("Add", ["a", "a"], ["s"]), helper.make_node("Relu", ["s"], ["b"])],
        [helper.make_opsetid("", 17)],
    )
    nodes = [
        helper.make_node("Twice", ["x"], ["t"], name="one", domain="mine"),
        helper.make_node("Twice", ["t"], ["y"], name="two", domain="mine"),
    ]
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [3]) for name in ("x", "y")]
    model = helper.make_model(
        helper.make_graph(nodes, "g", info[:1], info[1:]),
        functions=[body],
        opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("mine", 1)],
        ir_version=8,
    )
    graph = import_model(model)
    assert [node.op_type for node in graph.nodes] == ["Add", "Relu", "Add", "Relu"]
    x = floats(3)
    np.testing.assert_allclose(interpret(partition_model(model), {"x": x})["y"], np.maximum(4 * np.maximum(x, 0), 0))


def test_nodes_may_stand_in_any_order() -> None:
    nodes = [helper.make_node("Relu", ["a"], ["y"]), helper.make_node("Neg", ["x"], ["a"])]
    assert [node.op_type for node in import_model(make_model(nodes, {"x": (3,)}, ["y"])).nodes] == ["Neg", "Relu"]


def test_dynamic_dimensions_are_fixed_by_name_or_by_input() -> None:
    relu = [helper.make_node("Relu", ["x"], ["y"])]
    model = make_model(relu, {"x": ("N", 3)}, ["y"])
    assert import_model(model, {"N": 2}).values["y"].shape == (2, 3)
    assert import_model(model, {"x": (5, 3)}).values["y"].shape == (5, 3)
    with pytest.raises(ModelError, match=r"dynamic shapes: 'N'; fix them with .*--shape NAME=EXTENT"):
        import_model(model)
    with pytest.raises(ModelError, match="shapes are given for M"):
        import_model(model, {"N": 2, "M": 3})
    with pytest.raises(ModelError, match="has 3 in dimension 1, but 4 is given"):
        import_model(model, {"x": (2, 4)})


def test_several_inputs_and_outputs_keep_their_names() -> None:
    nodes = [
        helper.make_node("Add", ["a", "b"], ["s"]),
        helper.make_node("Identity", ["s"], ["t"]),
        helper.make_node("Identity", ["a"], ["u"]),
    ]
    data = {"a": floats(2, 3), "b": floats(3, seed=1)}
    model = make_model(nodes, data, ["s", "t", "u"])
    got, expected = interpret(partition_model(model), data), reference(model, data)
    assert set(got) == {"s", "t", "u"}
    for name, array in expected.items():
        np.testing.assert_array_equal(got[name], array)


def squeezenet_bytes() -> bytes:
    return find_light_models()["squeezenet"].read_bytes()


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not exist"):
        import_model(tmp_path / "none.onnx")
    with pytest.raises(ModelError, match="is a folder"):
        import_model(tmp_path)


@pytest.mark.parametrize("content", [b"", b"hello, world", b"\x89PNG\r\n\x1a\n" * 20, b"{}"])
def test_file_that_is_not_onnx(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"m\.onnx' is not an ONNX file"):
        import_model(path)


@pytest.mark.parametrize("part", [0.001, 0.3, 0.99])
def test_truncated_file(part: float) -> None:
    data = squeezenet_bytes()
    with pytest.raises(ModelError, match="truncated or damaged"):
        import_model(data[: int(len(data) * part)])


def test_dangling_name() -> None:
    model = make_model([helper.make_node("Add", ["x", "nowhere"], ["y"], name="plus")], {"x": (3,)}, ["y"])
    with pytest.raises(ModelError, match=r"node 'plus' \(operator Add\) reads 'nowhere', which nothing produces"):
        import_model(model)


def test_cycle() -> None:
    nodes = [helper.make_node("Add", ["x", "b"], ["a"], name="one"), helper.make_node("Relu", ["a"], ["b"], name="two")]
    with pytest.raises(ModelError, match="cycle: one -> two -> one"):
        import_model(make_model(nodes, {"x": (3,)}, ["b"]))


def test_unsupported_operator_names_node_operator_and_opset() -> None:
    model = make_model([helper.make_node("Det", ["x"], ["y"], name="det")], {"x": (3, 3)}, ["y"])
    with pytest.raises(ModelError, match=r"node 'det' \(operator Det, opset 17\) is not supported; supported are Abs, Acos"):
        import_model(model)


def test_control_flow_names_the_node() -> None:
    branch = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["o"])], "b", [], [helper.make_tensor_value_info("o", TensorProto.FLOAT, [3])]
    )
    nodes = [helper.make_node("If", ["c"], ["y"], name="choice", then_branch=branch, else_branch=branch)]
    with pytest.raises(ModelError, match=r"node 'choice' \(operator If, opset 17\) has a graph as attribute"):
        import_model(make_model(nodes, {"x": (3,), "c": np.array(True)}, ["y"]))


@pytest.mark.parametrize("location", ["../weights.bin", "missing.bin"])
def test_external_data_that_is_missing_or_outside(tmp_path: Path, location: str) -> None:
    model = make_model([helper.make_node("MatMul", ["x", "w"], ["y"])], {"x": (2, 30)}, ["y"], {"w": floats(30, 30)})
    (tmp_path / "inner").mkdir()
    path = tmp_path / "inner" / "m.onnx"
    onnx.save_model(model, path, save_as_external_data=True, location="weights.bin", size_threshold=10)
    assert import_model(path).values["y"].shape == (2, 30)
    (path.parent / "weights.bin").rename(tmp_path / "weights.bin")
    moved = onnx.load(path, load_external_data=False)
    moved.graph.initializer[0].external_data[0].value = location
    path.write_bytes(moved.SerializeToString())
    with pytest.raises(ModelError, match=r"external data of '.*m\.onnx' cannot be loaded"):
        import_model(path)


def test_unsupported_dtype() -> None:
    x = np.zeros((2,), np.float16)
    with pytest.raises(ModelError, match="input 'x' has dtype float16, which is not supported; supported are float32"):
        import_model(make_model([helper.make_node("Relu", ["x"], ["y"])], {"x": x}, ["y"]))


def test_shapes_that_do_not_fit() -> None:
    model = make_model([helper.make_node("MatMul", ["a", "b"], ["y"], name="mm")], {"a": (2, 3), "b": (4, 5)}, ["y"])
    with pytest.raises(ModelError, match="shapes of the model do not fit together"):
        import_model(model)


def test_shape_that_is_known_only_while_running() -> None:
    nodes = [helper.make_node("Reshape", ["x", "s"], ["y"], name="r")]
    with pytest.raises(
        ModelError, match=r"node 'r' \(operator Reshape.*its input 's' \(shape\) is computed while the model runs"
    ):
        import_model(make_model(nodes, {"x": (2, 3), "s": np.array([3, 2])}, ["y"]))
