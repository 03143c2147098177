"""Templates: which operators they recognise, that their programs are right, and that only their knobs are open."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ansor_py import te
from ansor_py.codegen.kernel import LoadedKernel, build_kernel
from ansor_py.errors import NoSpaceError, OptionError
from ansor_py.schedule.dag import ComputeDAG
from ansor_py.schedule.merge_axes import merge_axes
from ansor_py.schedule.sketch import Population, Sketch
from ansor_py.schedule.task import Task
from ansor_py.search.__main__ import main
from ansor_py.search.loop.tuning import tune_tasks
from ansor_py.search.loop.tuning_options import TuningOptions
from ansor_py.search.options import SearchOptions
from ansor_py.search.policies.annealing import AnnealingOptions, AnnealingSearch
from ansor_py.search.policies.policy import sketches_for
from ansor_py.search.policies.templates import TEMPLATES, template_sketches
from ansor_py.search.sampling.sampler import sample
from ansor_py.search.sampling.space import Space
from ansor_py.sketch_rules import generate_sketches
from ansor_py.target import Target
from ansor_py.te.ops.registry import from_spec
from search_fakes import FakeMeasurer
from targets import executed_targets, structure_targets
from te_interpreter import evaluate

THREADS = 2
on_four_targets = pytest.mark.parametrize("target", structure_targets(f"cores={THREADS}"))
on_executed_targets = pytest.mark.parametrize("target", executed_targets(f"cores={THREADS}"))
# For what is the same on all of them.
TARGET = Target.parse(f"x86-64 cpu=haswell cores={THREADS}")

KIND_OF = {
    "matmul:40,150,70": "matmul",
    "batch_matmul:2,11,19,17": "matmul",
    "dense:33,80,130,bias=1": "matmul",
    "dense:1,100,64": "matmul",
    "conv1d:1,6,40,10,3,stride=2,pad=1": "convolution",
    "conv2d:1,5,14,14,12,3,pad=1,bias=1,relu=1": "convolution",
    "conv2d:1,1,14,14,12,3,pad=1": "convolution",
    "conv2d:1,8,12,12,16,3,pad=2,dilation=2": "convolution",
    "conv2d:1,8,12,12,16,3,pad=1,groups=2": "convolution",
    "conv2d:1,4,13,13,6,5,stride=2,pad=2": "convolution",
    "conv3d:1,3,4,6,9,6,3,pad=1": "convolution",
    "capsule_conv2d:1,6,6,4,6,3,stride=2,pad=1": "convolution",
    "depthwise_conv2d:1,6,15,15,3,pad=1": "depthwise_convolution",
    "depthwise_conv2d:1,8,40,40,3,stride=2,pad=1": "depthwise_convolution",
    "softmax:6,96": "softmax",
    "softmax:1,500": "softmax",
    "softmax:2,3,5,40": "softmax",
    "softmax:7,40,axis=0": "softmax",
}
WITHOUT = ("layer_norm:9,40", "max_pool2d:1,4,14,14,3,stride=2,pad=1", "reduce_sum:700", "gelu:3,50", "argmax:9,45,axis=1")


def dag_of(spec: str) -> ComputeDAG:
    return ComputeDAG.from_outputs(from_spec(spec))


def check_programs(dag: ComputeDAG, sketches: list[Sketch], target: Target) -> None:
    """Random programs of every sketch, compiled and run, compute what NumPy computes."""
    rng = np.random.default_rng(7)
    feeds = {tensor.name: rng.standard_normal(tensor.shape).astype(tensor.dtype) for tensor in dag.inputs}
    expected = evaluate(dag.outputs[0], feeds, widen=True)
    for sketch in sketches:
        rows = sample(Space(sketch, target, SearchOptions()), 2, rng)
        assert len(rows)
        for row in rows:
            kernel = LoadedKernel(build_kernel(dag, sketch.concretise(row), target, THREADS))
            (result,) = kernel.run([feeds[tensor.name] for tensor in dag.inputs])
            message = f"{sketch.name}, genes {row.tolist()}"
            np.testing.assert_allclose(np.asarray(result, np.float64), expected, rtol=2e-4, atol=2e-4, err_msg=message)


@on_executed_targets
@pytest.mark.parametrize(("spec", "kind"), KIND_OF.items())
def test_programs_of_templates_compute_what_numpy_computes(spec: str, kind: str, target: Target) -> None:
    dag = dag_of(spec)
    sketches = template_sketches(dag, target)
    assert all(f"template({kind})" in sketch.name for sketch in sketches)
    check_programs(dag, sketches, target)


@on_executed_targets
@pytest.mark.parametrize("spec", ["matmul:37,53,29", "conv2d:1,4,10,10,6,3,pad=1", "softmax:10,96"])
def test_programs_of_the_limited_space_compute_what_numpy_computes(spec: str, target: Target) -> None:
    check_programs(dag_of(spec), sketches_for("limited", dag_of(spec), target, SearchOptions()), target)


@on_four_targets
def test_kinds_are_told_from_the_structure_alone(target: Target) -> None:
    """A 1x1 convolution whose image axes were merged is a product of matrices, whatever its tensors are called."""
    dag = dag_of("conv2d:1,8,14,14,16,1")
    assert "template(convolution)" in template_sketches(dag, target)[0].name
    assert "template(matmul)" in template_sketches(merge_axes(dag), target)[0].name
    x, w = te.placeholder((4, 30), name="softmax"), te.placeholder((30, 20), name="softmax_exp")
    product = ComputeDAG.from_outputs(te.tanh(te.matmul(x, w)))
    assert "template(matmul)" in template_sketches(product, target)[0].name


def test_every_kind_has_an_example() -> None:
    assert set(KIND_OF.values()) == set(TEMPLATES)


@on_executed_targets
def test_a_logarithm_of_softmax_fits_too_and_an_unrelated_sum_does_not(target: Target) -> None:
    dag = ComputeDAG.from_outputs(te.log_softmax(te.placeholder((8, 40), name="x")))
    assert "template(softmax)" in template_sketches(dag, target)[0].name
    check_programs(dag, template_sketches(dag, target), target)


@pytest.mark.parametrize("spec", WITHOUT)
def test_an_operator_without_template_is_refused_with_the_kinds(spec: str) -> None:
    with pytest.raises(OptionError) as caught:
        template_sketches(dag_of(spec), TARGET)
    assert "convolution, depthwise_convolution, matmul, softmax" in str(caught.value)
    assert dag_of(spec).computed[0].name in str(caught.value)


@on_four_targets
def test_only_the_knobs_of_a_template_are_open(target: Target) -> None:
    for spec in KIND_OF:
        for sketch in template_sketches(dag_of(spec), target):
            open_ = {hole.kind for hole in sketch.holes if len(hole.choices) > 1}
            assert open_ <= {"tile", "register_tile", "vectorize", "unroll"}
            assert not len(sketch.structural)


@on_four_targets
@pytest.mark.parametrize("spec", ["matmul:96,80,64", "conv2d:1,8,14,14,16,3,pad=1,bias=1,relu=1", "dense:64,256,128"])
def test_register_tiles_and_packing_are_those_of_the_sketch_rules(spec: str, target: Target) -> None:
    def building_blocks(sketches: list[Sketch]) -> set[tuple[object, ...]]:
        tiles = {hole.choices for sketch in sketches for hole in sketch.holes if hole.kind == "register_tile"}
        packed = {word for sketch in sketches for word in sketch.name.split(")") if word.strip().startswith("pack(")}
        return {*tiles, *((word.strip(),) for word in packed)}

    dag = dag_of(spec)
    assert building_blocks(template_sketches(dag, target)) == building_blocks(generate_sketches(dag, target))


@on_four_targets
def test_epilogues_run_inside_the_tiles_and_pads_before_them(target: Target) -> None:
    [sketch, *_] = template_sketches(dag_of("conv2d:1,8,14,14,16,3,pad=1,bias=1,relu=1"), target)
    state = sketch.structure([0] * len(sketch.holes))
    assert [stage.name for stage in state.attached_to("relu")] == ["conv2d"]
    assert not state.attached_to("conv2d")
    [sketch] = template_sketches(dag_of("depthwise_conv2d:1,8,40,40,3,pad=1"), target)
    assert [stage.name for stage in sketch.structure([0] * len(sketch.holes)).attached_to("conv2d")] == ["conv2d_pad"]


def test_the_command_line_refuses_an_operator_without_template(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "run")
    assert main(["--op", "layer_norm:16,64", "--policy", "template", "--out", out, "--runner", "inline", "--trials", "4"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "convolution, depthwise_convolution, matmul, softmax" in error


def test_the_command_line_takes_a_search_of_templates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "run")
    words = ["--op", "matmul:32,32,32", "--policy", "template", "--out", out, "--runner", "inline", "--threads", "1"]
    assert main([*words, "--trials", "6", "--search", "template.search=grid", "--cost-model", "random"]) == 0
    assert '"operator":"grid"' in Path(out, "records.jsonl").read_text()
    capsys.readouterr()
    assert main([*words, "--trials", "6", "--search", "template.search=luck"]) == 2
    assert "annealing, genetic, grid, random" in capsys.readouterr().err


def test_of_a_network_the_tasks_without_template_keep_their_default_schedule() -> None:
    product, norm = (Task.from_spec(spec, TARGET) for spec in ("matmul:32,32,32", "layer_norm:16,64"))
    options = TuningOptions(
        trials=12, batch=5, policy="template", search=SearchOptions(population=32).with_own(AnnealingOptions(steps=4))
    )
    result = tune_tasks([norm, product], options, measurer=FakeMeasurer())
    of_norm, of_product = result.tasks
    assert (of_norm.trials, of_product.trials) == (1, 11)
    assert of_norm.latency == of_norm.default_seconds
    assert "there are templates for convolution" in of_norm.ended
    [note] = result.notes
    assert note.startswith(f"{norm.name}: no more trials, no template fits")
    with pytest.raises(NoSpaceError, match="no template fits"):
        tune_tasks([norm, Task.from_spec("layer_norm:8,8", TARGET)], options, measurer=FakeMeasurer())


def proposals(target: Target, scale: float) -> list[tuple[int, ...]]:
    """What annealing proposes under scores that depend on the genes and are multiplied by `scale`."""
    dag = dag_of("matmul:40,150,70")
    sketches = template_sketches(dag, target)

    def score(populations: Sequence[Population]) -> list[NDArray[np.float32]]:
        return [
            (scale * (p.genes / p.sketch.sizes).mean(axis=1) * np.where(p.genes[:, 0] % 2 == 0, 1.0, 0.5)).astype(np.float32)
            for p in populations
        ]

    search = AnnealingSearch(sketches, target, score, np.random.default_rng(0), SearchOptions(population=64, iterations=2))
    return [(candidate.sketch, *candidate.genes.tolist()) for candidate in search.propose(16)]


@on_four_targets
def test_annealing_does_not_depend_on_the_unit_of_scores(target: Target) -> None:
    assert proposals(target, 1024.0) == proposals(target, 1.0)
