"""PyTorch's functions for ONNX nodes: a model of all kinds equals the reference; what there is none for is refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import NodeProto, TensorProto, helper

from ansor_py.graph.reference import reference_outputs
from graph_interpreter import Array, floats, make_model

Node = tuple[str, list[Any], dict[str, Any]]
WINDOW = {"kernel_shape": [3, 3], "strides": [2, 2]}

IMAGE: list[Node] = [
    ("Conv", [floats(6, 4, 3, 3)], {"kernel_shape": [3, 3], "pads": [0, 0, 1, 1]}),
    ("BatchNormalization", [floats(6), floats(6), floats(6), np.abs(floats(6)) + 1], {"epsilon": 0.1}),
    ("Clip", [np.float32(-1), np.float32(1.5)], {}),
    ("LRN", [], {"size": 3, "alpha": 0.3, "beta": 0.6, "bias": 1.5}),
    ("MaxPool", [], {**WINDOW, "pads": [0, 0, 1, 1]}),
    ("AveragePool", [], {**WINDOW, "pads": [1, 1, 1, 1]}),
    ("ConvTranspose", [floats(6, 5, 2, 2)], {"kernel_shape": [2, 2], "strides": [2, 2], "pads": [0, 0, 0, 0]}),
    ("Reshape", [np.array([0, 0, -1, 1])], {}),
    ("GlobalAveragePool", [], {}),
    ("Flatten", [], {}),
    ("Gemm", [floats(5, 3)], {"alpha": 0.5}),
    ("Gemm", [floats(7, 3), floats(7)], {"transB": 1}),
    ("Softmax", [], {}),
]
TEXT: list[Node] = [
    ("Unsqueeze", [np.array([2])], {}),
    ("Cast", [], {"to": TensorProto.FLOAT}),
    ("Div", [np.float32(3)], {}),
    ("Add", [floats(1, 4, 6)], {}),
    ("Sum", [floats(6)], {}),
    ("Erf", [], {}),
    ("Sub", [floats(6)], {}),
    ("LayerNormalization", [floats(6), floats(6)], {"axis": -1, "epsilon": 0.1}),
    ("Tanh", [], {}),
    ("Dropout", [], {}),
    ("Transpose", [], {"perm": [0, 2, 1]}),
]


@pytest.fixture(autouse=True)
def _siblings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scripts find each other as when they are run."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "experiments"))


def chain(nodes: Sequence[Node], feed: dict[str, Array]) -> onnx.ModelProto:
    """Nodes that each take the result of the one before, and constants."""
    made: list[NodeProto] = []
    constants: dict[str, Array] = {}
    last = next(iter(feed))
    for index, (op_type, more, attributes) in enumerate(nodes):
        names = [f"k{index}.{place}" for place in range(len(more))]
        constants.update((name, np.asarray(array)) for name, array in zip(names, more, strict=True))
        made.append(helper.make_node(op_type, [last, *names], [f"v{index}"], name=f"node{index}", **attributes))
        last = f"v{index}"
    return make_model(made, feed, [last], constants)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(("nodes", "data"), [(IMAGE, floats(2, 4, 11, 10)), (TEXT, np.arange(8).reshape(2, 4))])
def test_functions_compute_what_the_standard_says(nodes: list[Node], data: Array, last: bool, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from contenders import open_torch

    feed = {"x": data}
    model = chain(nodes, feed)
    [expected] = reference_outputs(model, dict[str, Any](feed)).values()
    onnx.save(model, tmp_path / "m.onnx")
    grad, threads = torch.is_grad_enabled(), torch.get_num_threads()
    try:
        opened = open_torch(tmp_path / "m.onnx", feed, {"threads": 1, "onednn": False, "channels_last": last})
        for _ in range(2):  # what was read for the last time is gone after the first call, and nothing else
            np.testing.assert_allclose(opened.plain(), expected, rtol=1e-4, atol=1e-5)
        opened.in_place()
        np.testing.assert_allclose(opened.result(), expected, rtol=1e-4, atol=1e-5)
    finally:
        torch.set_grad_enabled(grad)
        torch.set_num_threads(threads)
        torch.backends.mkldnn.set_flags(True)


def test_what_pytorch_has_not_is_refused_in_one_line() -> None:
    pytest.importorskip("torch")
    from torch_nodes import function_of

    with pytest.raises(SystemExit, match="node 'n': no function of PyTorch is known here for operator Hardmax"):
        function_of(helper.make_node("Hardmax", ["x"], ["y"], name="n"), 17)
    with pytest.raises(SystemExit, match="PyTorch has no auto_pad"):
        function_of(helper.make_node("Conv", ["x", "w"], ["y"], name="n", auto_pad="SAME_UPPER"), 17)
    with pytest.raises(SystemExit, match="no average without the pads where these differ"):
        function_of(helper.make_node("AveragePool", ["x"], ["y"], name="n", kernel_shape=[2], pads=[0, 1]), 17)
