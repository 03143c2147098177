"""Random programs of every sketch, compiled and run on every target: the result is NumPy's, with both presets of rules."""

from __future__ import annotations

import numpy as np
import pytest

from ansor_py.codegen.kernel import LoadedKernel, build_kernel
from ansor_py.schedule.dag import ComputeDAG
from ansor_py.search.options import SearchOptions
from ansor_py.search.sampling.sampler import sample
from ansor_py.search.sampling.space import Space
from ansor_py.sketch_rules import generate_sketches
from ansor_py.target import Target
from ansor_py.te.ops.elementwise import relu
from ansor_py.te.ops.layout import transpose
from ansor_py.te.ops.matrix import matmul
from ansor_py.te.ops.reduction import softmax
from ansor_py.te.ops.registry import from_spec
from ansor_py.te.tensor import placeholder
from targets import executed_targets
from te_interpreter import evaluate

THREADS = 2
WORKLOADS = (
    "matmul:37,53,29",
    "matmul:40,150,70",
    "dense:33,80,130",
    "dense:1,100,64",
    "conv2d:1,5,14,14,12,3,pad=1,bias=1,relu=1",
    "conv2d:1,4,13,13,6,5,stride=2,pad=2",
    "depthwise_conv2d:1,6,15,15,3,pad=1",
    "depthwise_conv2d:1,3,7,34,3,pad=2,dilation=2,relu=1",
    "conv3d:1,3,4,6,9,6,3,pad=1",
    "conv2d_transpose:1,4,5,6,6,3,stride=2,pad=1,output_pad=1",
    "capsule_conv2d:1,6,6,4,6,3,stride=2,pad=1",
    "batch_matmul:2,11,19,17",
    "softmax:6,96",
    "softmax:1,500",
    "softmax:2,3,5,40",
    "layer_norm:9,40",
    "group_norm:1,8,5,5,groups=4",
    "argmax:9,45,axis=1",
    "max_pool2d:1,4,14,14,3,stride=2,pad=1",
    "global_average_pool:1,20,7,7",
    "reduce_sum:700",
    "gelu:3,50",
    "transpose:17,33",
    "attention:2,3,21,10,mask=1",
    "attention:1,2,70,16",
)


@pytest.mark.parametrize("target", executed_targets(f"cores={THREADS}"))
@pytest.mark.parametrize("rules", ["default", "ansor"])
@pytest.mark.parametrize("spec", WORKLOADS)
def test_random_programs_compute_what_numpy_computes(spec: str, rules: str, target: Target) -> None:
    dag = ComputeDAG.from_outputs(from_spec(spec))
    rng = np.random.default_rng(7)
    feeds = {tensor.name: rng.standard_normal(tensor.shape).astype(tensor.dtype) for tensor in dag.inputs}
    expected = evaluate(dag.outputs[0], feeds, widen=True)
    for sketch in generate_sketches(dag, target, rules):
        for row in sample(Space(sketch, target, SearchOptions()), 1, rng):
            kernel = LoadedKernel(build_kernel(dag, sketch.concretise(row), target, THREADS))
            (result,) = kernel.run([feeds[tensor.name] for tensor in dag.inputs])
            np.testing.assert_allclose(
                np.asarray(result, dtype=np.float64),
                expected,
                rtol=2e-4,
                atol=2e-4,
                err_msg=f"{sketch.name}, genes {row.tolist()}",
            )


@pytest.mark.parametrize("target", executed_targets(f"cores={THREADS}"))
@pytest.mark.parametrize("last", ["scores", "mixed", "transposed", "relu"])
def test_products_in_blocks_of_rows_compute_what_numpy_computes(last: str, target: Target) -> None:
    query, key, value = (
        placeholder(shape, name="qkv"[n]) for n, shape in enumerate([(2, 40, 3, 16), (2, 3, 16, 48), (2, 3, 48, 20)])
    )
    scores = matmul(transpose(query, (0, 2, 1, 3)), key, name="scores")
    output = relu(scores) if last == "relu" else softmax(scores)
    if last != "scores":
        output = matmul(output, value, name="mixed")
    if last == "transposed":
        output = transpose(output, (0, 2, 1, 3))
    dag = ComputeDAG.from_outputs(output)
    rng = np.random.default_rng(7)
    feeds = {tensor.name: rng.standard_normal(tensor.shape).astype(tensor.dtype) for tensor in dag.inputs}
    blocked = [sketch for sketch in generate_sketches(dag, target) if "rows(" in sketch.name]
    assert blocked
    for sketch in blocked:
        for row in sample(Space(sketch, target, SearchOptions()), 4, rng):
            kernel = LoadedKernel(build_kernel(dag, sketch.concretise(row), target, THREADS))
            (result,) = kernel.run([feeds[tensor.name] for tensor in dag.inputs])
            np.testing.assert_allclose(result, evaluate(dag.outputs[0], feeds, widen=True), rtol=2e-4, atol=2e-5)
