"""Blocks of well-known networks, compiled with default schedules: results equal ONNX's reference evaluator's."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from onnx import ModelProto

import network_blocks
from ansor_py.graph import CompiledModel, compile
from ansor_py.graph.reference import reference_outputs
from graph_interpreter import Array

Built = tuple[ModelProto, dict[str, Array]]

COMPILED: dict[str, Callable[[], Built]] = {
    "transformer layer": network_blocks.transformer_layer,
    "transformer layer of functions": network_blocks.transformer_layer_of_functions,
    "inverted residual": network_blocks.inverted_residual,
    "3-D residual block": network_blocks.residual_block_3d,
    "generator block": network_blocks.generator_block,
    "U-Net block": network_blocks.unet_block,
    "U-Net block, transposed": lambda: network_blocks.unet_block(transposed=True),
    "LSTM cell": network_blocks.lstm_cell,
}


def check(compiled: CompiledModel, model: ModelProto, data: dict[str, Array]) -> None:
    got = compiled.run(data)
    expected: dict[str, Array] = dict(reference_outputs(model, data))
    assert set(got) == set(expected)
    for name, array in expected.items():
        scale = float(np.abs(array).max())
        assert scale > 0.01
        np.testing.assert_allclose(got[name], array, rtol=1e-3, atol=1e-5 * scale, strict=True)


@pytest.mark.parametrize("name", COMPILED)
@pytest.mark.parametrize("threads", [1, 2])
def test_compiled_completely(name: str, threads: int) -> None:
    model, data = COMPILED[name]()
    compiled = compile(model, threads=threads, workers=0, fallback=False)
    check(compiled, model, data)
    check(compiled, model, {key: array * np.float32(-0.5) for key, array in data.items()})


def test_the_lstm_operator_between_compiled_layers() -> None:
    """By fallback as long as it has no tensor expression of its own."""
    model, data = network_blocks.lstm_operator()
    compiled = compile(model, threads=1, workers=0)
    check(compiled, model, data)
    assert {node.op_type for node in compiled.fallback_nodes} <= {"LSTM"}
    assert compiled.plan.calls
