"""The networks of the studies: they build, are valid, compile without fallback, and mean the same for every batch size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, helper

from ansor_py.errors import ModelError
from ansor_py.graph import compile, partition_model
from ansor_py.graph.reference import reference_outputs
from graph_interpreter import Array, floats, make_model, reference

BUILT = ["mobilenet_v2", "resnet3d_18", "dcgan", "bert_base", "vit_b_block", "gpt2_block"]


@pytest.fixture(autouse=True)
def _siblings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scripts find each other as when they are run."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "experiments"))


def output_shape(model: ModelProto) -> tuple[int, ...]:
    return tuple(dimension.dim_value for dimension in model.graph.output[0].type.tensor_type.shape.dim)


@pytest.mark.parametrize(
    ("name", "batch", "shape"),
    [
        ("mobilenet_v2", 1, (1, 1000)),
        ("mobilenet_v2", 16, (16, 1000)),
        ("resnet3d_18", 16, (16, 400)),
        ("dcgan", 16, (16, 3, 64, 64)),
        ("bert_base", 2, (2, 128, 768)),
        ("vit_b_block", 2, (2, 197, 768)),
        ("gpt2_block", 2, (2, 128, 768)),
    ],
)
def test_built_networks_are_valid_and_have_no_fallback(name: str, batch: int, shape: tuple[int, ...]) -> None:
    from networks import network

    item = network(name, batch)
    onnx.checker.check_model(item.model, full_check=True)
    assert output_shape(item.model) == shape
    graph = item.model.graph
    assert {info.name: info.type.tensor_type.shape.dim[0].dim_value for info in graph.input} == dict.fromkeys(item.feed, batch)
    parts = partition_model(item.model, fallback=False)
    assert len(parts.subgraphs) >= 5
    assert "BatchNormalization" not in {node.op_type for node in parts.graph.nodes}  # all of them are folded


def test_all_that_need_no_download_have_names() -> None:
    from networks import network, network_names

    assert network_names()[: len(BUILT)] == BUILT
    assert {"squeezenet", "resnet50", "vgg19"} <= set(network_names())
    with pytest.raises(ModelError, match=r"there is no network 'lenet'; known are mobilenet_v2, .*squeezenet.*magika"):
        network("lenet")


def test_a_generator_equals_the_reference() -> None:
    from networks import OUTPUT, network

    item = network("dcgan", 2)
    expected = reference(item.model, item.feed)[OUTPUT]
    assert 0.3 < float(expected.std()) < 0.9  # of a tanh that neither vanishes nor saturates
    assert float(np.abs(expected[0] - expected[1]).max()) > 0.1
    found = compile(item.model, threads=1, workers=0, fallback=False).run(item.feed)[OUTPUT]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_networks_are_the_same_ones_every_time_and_for_every_batch() -> None:
    from networks import network

    first, again, other = network("dcgan"), network("dcgan"), network("dcgan", 3)
    assert first.model == again.model
    assert list(first.model.graph.initializer) == list(other.model.graph.initializer)
    for name, array in first.feed.items():
        np.testing.assert_array_equal(array, again.feed[name])


def test_the_sentences_of_a_transformer_end_earlier_than_its_tokens() -> None:
    from networks import sentences

    mask = sentences(np.random.default_rng(0), (16, 128))
    lengths = mask.sum(axis=1)
    assert set(np.unique(mask)) == {0, 1}
    assert (np.diff(mask, axis=1) <= 0).all()
    assert 64 <= lengths.min() < lengths.max() <= 128


@pytest.mark.parametrize("name", ["shufflenet", "squeezenet"])
def test_a_light_model_of_another_batch_does_to_every_sample_what_it_did_to_one(name: str) -> None:
    """ShuffleNet's reshapes hold the batch size in constants."""
    from light_models import before_softmax, outputs_by_sample
    from networks import network

    single, item = network(name), network(name, 2)
    onnx.checker.check_model(item.model, full_check=True)
    assert output_shape(item.model)[0] == 2
    inner = before_softmax(item.model)
    assert inner is not None
    expected = outputs_by_sample(single.model, item.feed, [inner])[inner]
    found = reference_outputs(item.model, dict[str, Any](item.feed), [inner])[inner]
    scale = float(np.abs(expected).max())
    assert float(np.abs(expected[0] - expected[1]).max()) > 1e-3 * scale
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5 * scale, strict=True)


def reshaping(shape: list[int]) -> ModelProto:
    """One sample of twelve numbers, reshaped, plus a weight that is reshaped to one row."""
    nodes = [
        helper.make_node("Reshape", ["x", "shape"], ["r"]),
        helper.make_node("Reshape", ["w", "row"], ["v"]),
        helper.make_node("Add", ["r", "v"], ["y"]),
    ]
    constants = {"shape": np.array(shape), "row": np.array([1, 4]), "w": floats(4)}
    return make_model(nodes, {"x": (1, 12)}, ["y"], constants)


def test_constants_that_reshape_data_get_the_batch_and_those_of_weights_do_not() -> None:
    from networks import BatchError, normal, with_batch
    from real_models import Feed

    feeds = {"x": Feed((5, 12), normal)}
    changed = with_batch("m", reshaping([1, 3, 4]), feeds, 5)
    assert output_shape(changed) == (5, 3, 4)
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor).tolist() for tensor in changed.graph.initializer}
    assert (constants["shape"], constants["row"]) == ([5, 3, 4], [1, 4])
    with pytest.raises(BatchError, match=r"'m' has no form of batch 5: output 'y' would be of shape \[15, 4\]"):
        with_batch("m", reshaping([-1, 4]), feeds, 5)
    nodes = [helper.make_node("Add", ["x", "w"], ["y"])]
    model = make_model(nodes, {"x": (1, 12)}, ["y"], {"w": floats(4, 12)})  # four for one sample, and for five nothing
    with pytest.raises(BatchError, match=r"'m' has no form of batch 5: .*Incompatible dimensions"):
        with_batch("m", model, feeds, 5)


def test_branches_have_no_form_of_fixed_shapes() -> None:
    from networks import BatchError, with_batch

    result = helper.make_tensor_value_info("b", onnx.TensorProto.FLOAT, [1])
    branch = helper.make_graph([helper.make_node("Relu", ["x"], ["b"])], "branch", [], [result])
    node = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
    model = make_model([node], {"x": (1,), "c": np.array(True)}, ["y"])
    with pytest.raises(BatchError, match="'m' has no form of fixed shapes: it has branches or loops"):
        with_batch("m", model, {}, 1)


def test_trained_models_get_fixed_shapes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import networks
    from real_models import Feed, RealModel, uniform

    model = make_model([helper.make_node("MatMul", ["x", "w"], ["y"])], {"x": ("N", 3)}, ["y"], {"w": floats(3, 2)})
    feeds = {"x": Feed((1, 3), uniform(-1, 1))}
    tiny = RealModel("tiny", "tiny-models", "1.0", "*.onnx", feeds)
    odd = RealModel("odd", "tiny-models", "1.0", "*.onnx", {"x": Feed((3, 3), uniform(-1, 1))})
    monkeypatch.setattr(networks, "MODELS", (tiny, odd))
    monkeypatch.setattr(networks, "wheel_of", lambda real, cache: tmp_path)
    monkeypatch.setattr(networks, "read_model", lambda real, wheel: model.SerializeToString())
    item = networks.network("tiny", 4)
    assert output_shape(item.model) == (4, 2)
    assert item.feed["x"].shape == (4, 3)
    assert output_shape(networks.network("odd").model) == (3, 2)
    with pytest.raises(networks.BatchError, match="'odd' has no form of batch 2: not every input begins with the samples"):
        networks.network("odd", 2)


@pytest.mark.parametrize("batch", [1, 3])
def test_a_checker_evaluates_a_batch_sample_by_sample(batch: int) -> None:
    """A result whose samples are not along the first axis is left out; a wrong one is seen."""
    from ansor_py.target import Target
    from light_models import Checker

    def model(samples: int) -> ModelProto:
        nodes = [
            helper.make_node("MatMul", ["x", "w"], ["m"]),
            helper.make_node("Transpose", ["m"], ["t"], perm=[1, 0]),
            helper.make_node("Softmax", ["t"], ["s"], axis=0),
            helper.make_node("MatMul", ["v", "s"], ["u"]),
            helper.make_node("Transpose", ["u"], ["y"], perm=[1, 0]),
        ]
        return make_model(nodes, {"x": (samples, 6)}, ["y"], {"w": floats(6, 5), "v": floats(2, 5)})

    feed: dict[str, Array] = {"x": floats(batch, 6)}
    checker = Checker(model(batch), feed, model(1) if batch > 1 else None)
    checks = checker.check_tasks(None, Target.detect(cores=1))
    names = {check.name for check in checks}
    assert ("u" in names) == (batch == 1)
    assert "y" in checker.expected
    assert all(check.passed for check in checks)
    np.testing.assert_allclose(checker.expected["y"], reference(model(batch), feed)["y"], rtol=1e-5, atol=1e-6)
