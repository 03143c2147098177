"""Algorithms as part of the search space: where they apply, what they compute, and how exact that is."""

from __future__ import annotations

import importlib
import pickle
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import ansor_py
from ansor_py import Task, te
from ansor_py.codegen.kernel import LoadedKernel, build_kernel
from ansor_py.cost_model.operation_counts import OperationCounts, count_operations
from ansor_py.errors import OptionError, RecordError
from ansor_py.graph import compile_task
from ansor_py.measure.reference import INEXACT_TOLERANCE, difference, largest_error
from ansor_py.schedule.access import row_of_table
from ansor_py.schedule.algorithms import ALGORITHMS, MATH
from ansor_py.schedule.dag import ComputeDAG
from ansor_py.schedule.merge_axes import merge_axes
from ansor_py.schedule.state import State
from ansor_py.schedule.steps import UseAlgorithm
from ansor_py.search import TuningOptions, tune
from ansor_py.search.options import SearchOptions
from ansor_py.search.sampling.default_schedule import cycles_of_larger_weights, default_schedule
from ansor_py.search.sampling.sampler import sample
from ansor_py.search.sampling.space import Space
from ansor_py.sketch_rules import generate_sketches
from ansor_py.sketch_rules.space_options import SpaceOptions
from ansor_py.target import Target
from ansor_py.te.expr import Axis, equal
from ansor_py.te.ops.registry import from_spec
from ansor_py.te.tensor import Tensor
from targets import executed_targets, structure_targets
from te_interpreter import evaluate

FAST = SpaceOptions(math="fast")
WINOGRAD = ("winograd_4x4", "winograd_2x2")
BOUND = 1e-4  # of the tensor's largest magnitude
Array = NDArray[np.float32]


@dataclass(frozen=True)
class Case:
    """A convolution by windows of 3 x 3, 1 x 3 or 3 x 1."""

    kernel: tuple[int, int]
    batch: int
    channels: int
    height: int
    width: int
    filters: int
    padding: int | tuple[int, int, int, int]
    relu: bool

    def tensor(self) -> Tensor:
        data = te.placeholder((self.batch, self.channels, self.height, self.width), name="data")
        weight = te.placeholder((self.filters, self.channels, *self.kernel), name="weight", constant=True)
        result = te.conv2d(data, weight, padding=self.padding)
        return te.relu(result) if self.relu else result

    def dag(self) -> ComputeDAG:
        return merge_axes(ComputeDAG.from_outputs(self.tensor()))

    @property
    def algorithms(self) -> set[str]:
        if self.channels == 1:  # there is nothing to sum up for each product of a tile
            return set()
        return set(WINOGRAD) if self.kernel == (3, 3) else {"winograd_4"}


def random_case(rng: np.random.Generator) -> Case:
    kernel = ((3, 3), (3, 3), (1, 3), (3, 1))[int(rng.integers(4))]
    one = rng.integers(0, 3, 4)
    padding = (0, 1, (int(one[0]), int(one[1]), int(one[2]), int(one[3])))[int(rng.integers(3))]
    low, high = (1, 1, 3, 3, 1), (3, 41, 20, 20, 41)
    batch, channels, height, width, filters = (int(rng.integers(a, b)) for a, b in zip(low, high, strict=True))
    return Case(kernel, batch, channels, height, width, filters, padding, bool(rng.integers(2)))


def feeds(dag: ComputeDAG, rng: np.random.Generator, kind: str) -> dict[str, Array]:
    """Normal values; or positive ones and weights that cancel each other: what is left is a hundredth of what is added up."""
    found = {tensor.name: rng.standard_normal(tensor.shape).astype(np.float32) for tensor in dag.inputs}
    if kind == "cancelling":
        found["data"] = (np.abs(found["data"]) + 10.0).astype(np.float32)
        found["weight"] -= found["weight"].mean(axis=(1, 2, 3), keepdims=True)
    return found


@pytest.mark.parametrize("target", executed_targets("cores=2"))
@pytest.mark.parametrize("seed", range(12))
def test_winograd_computes_the_convolution_within_its_bound(seed: int, target: Target) -> None:
    rng = np.random.default_rng(seed)
    case = random_case(rng)
    dag = case.dag()
    given = [feeds(dag, rng, kind) for kind in ("normal", "cancelling")]
    wanted = [evaluate(dag.outputs[0], item, widen=True) for item in given]
    sketches = [sketch for sketch in generate_sketches(dag, target, options=FAST) if "winograd" in sketch.name]
    assert {sketch.name.partition("(")[0] for sketch in sketches} == case.algorithms
    for sketch in sketches:
        for row in sample(Space(sketch, target, SearchOptions()), 1, rng):
            kernel = LoadedKernel(build_kernel(dag, sketch.concretise(row), target, threads=2))
            for feed, expected in zip(given, wanted, strict=True):
                (output,) = kernel.run([feed[tensor.name] for tensor in dag.inputs])
                worst = np.abs(output - expected).max() / np.abs(expected).max()
                assert worst <= BOUND, f"{sketch.name}, genes {row.tolist()}: {worst}"


@pytest.mark.parametrize("target", structure_targets("cores=2"))
@pytest.mark.parametrize("seed", range(3))
def test_what_an_algorithm_makes_is_scheduled_on_every_target(seed: int, target: Target) -> None:
    rng = np.random.default_rng(seed)
    dag = random_case(rng).dag()
    for sketch in generate_sketches(dag, target, options=FAST):
        for row in sample(Space(sketch, target, SearchOptions()), 1, rng):
            state = State.initial(dag).replay(sketch.concretise(row))
            assert ("winograd" in sketch.name) == any(".channels_last" in stage.name for stage in state.stages)
            if "winograd" in sketch.name:
                assert [name for name in state.prepacked if ".weight" in name]


def convolution(**words: int) -> Tensor:
    data, weight = te.placeholder((1, 8, 12, 12), name="data"), te.placeholder((8, 8, 3, 3), name="weight", constant=True)
    return te.conv2d(data, weight, **words)


def grouped() -> Tensor:
    data, weight = te.placeholder((1, 8, 12, 12), name="data"), te.placeholder((8, 4, 3, 3), name="weight", constant=True)
    return te.conv2d(data, weight, groups=2)


def with_kernel(height: int, width: int, constant: bool = True) -> Tensor:
    data = te.placeholder((1, 8, 12, 12), name="data")
    return te.conv2d(data, te.placeholder((8, 8, height, width), name="weight", constant=constant))


@pytest.mark.parametrize(
    "output",
    [
        convolution(stride=2),
        convolution(dilation=2),
        grouped(),
        with_kernel(5, 5),
        with_kernel(1, 3),
        with_kernel(3, 3, constant=False),
        te.matmul(te.placeholder((9, 9), name="a"), te.placeholder((9, 9), name="b", constant=True)),
    ],
    ids=["stride", "dilation", "groups", "5x5", "1x3", "variable weights", "matmul"],
)
def test_winograd_leaves_other_products_alone(output: Tensor) -> None:
    assert [ALGORITHMS[name].built(output) for name in WINOGRAD] == [None, None]


@pytest.mark.parametrize("target", structure_targets())
def test_an_exact_search_space_has_no_such_sketches(target: Target) -> None:
    dag = ComputeDAG.from_outputs(convolution(padding=1))
    exact = generate_sketches(dag, target)
    assert not [sketch.name for sketch in exact if "winograd" in sketch.name]
    fast = generate_sketches(dag, target, options=FAST)
    assert [sketch.name for sketch in fast if "winograd" not in sketch.name] == [sketch.name for sketch in exact]


def test_padding_is_computed_once_and_what_nothing_reads_is_gone() -> None:
    state = State.initial(ComputeDAG.from_outputs(convolution(padding=1))).apply(UseAlgorithm("conv2d", "winograd_4x4"))
    assert [stage.name for stage in state.stages] == [
        "conv2d_pad",
        *(f"conv2d.{name}" for name in "channels_last data_1 data_2 weight products result_1 result_2".split()),
        "conv2d",
    ]


def test_another_word_for_math_is_refused() -> None:
    with pytest.raises(OptionError, match="math is one of exact, fast, not 'wild'"):
        SpaceOptions(math="wild")


def padded_relu() -> Task:
    """A convolution large enough for default schedules to take an algorithm."""
    return Task.from_spec("conv2d:1,64,28,28,64,3,pad=1,relu=1", Target.detect().with_cores(1))


def test_default_schedules_take_an_algorithm_where_math_is_fast() -> None:
    task = padded_relu()
    exact, fast = (compile_task(task, threads=1, math=math, workers=0) for math in MATH)
    assert exact.algorithms == {}
    assert [set(names) & set(WINOGRAD) for names in fast.algorithms.values()] != [set()]
    feed = {port.name: np.random.default_rng(0).standard_normal(port.shape, dtype=np.float32) for port in exact.inputs}
    [expected], [output] = exact.run(feed).values(), fast.run(feed).values()
    assert 0 < np.abs(output - expected).max() <= BOUND * np.abs(expected).max()


def test_a_compiled_model_remembers_its_algorithms(tmp_path: Path) -> None:
    fast = compile_task(padded_relu(), threads=1, math="fast", workers=0)
    fast.save(tmp_path / "model.ansor")
    assert fast.algorithms
    assert ansor_py.load(tmp_path / "model.ansor").algorithms == fast.algorithms


@pytest.mark.parametrize("target", structure_targets("cores=2"))
def test_larger_weights_come_from_memory(target: Target) -> None:
    """A deep layer of few pixels has fewer multiplications by Winograd's algorithm, and waits for four times the weights."""
    few, many = (ComputeDAG.from_outputs(from_spec(f"conv2d:1,512,{n},{n},512,3,pad=1")) for n in (7, 28))
    assert "winograd_4x4" not in default_schedule(few, target, 2, "fast").sketch.name
    chosen = default_schedule(many, target, 2, "fast").sketch
    assert "winograd" in chosen.name
    assert cycles_of_larger_weights(chosen, target) > 0
    assert cycles_of_larger_weights(default_schedule(many, target, 2, "exact").sketch, target) == 0


def test_records_of_a_fast_search_need_fast_math_again() -> None:
    task = padded_relu()
    result = tune(task, trials=8, runner="inline", options=TuningOptions(search=SearchOptions(space=FAST)))
    used = [item for item in result.records if any(step[0] == "use_algorithm" for step in item.steps)]
    assert used
    assert all(item.result.output_error is not None and item.result.output_error < BOUND for item in used)
    with pytest.raises(RecordError, match="only math='fast' admits; compile with math='fast', or tune the model anew"):
        compile_task(task, used, threads=1, workers=0)
    assert compile_task(task, used, threads=1, math="fast", workers=0).algorithms


def test_an_output_beyond_the_bound_of_inexact_algorithms_is_wrong() -> None:
    expected = np.array([0.0, 1.0, -10.0], np.float32)
    near, far = expected + np.float32(0.9e-3), expected + np.float32(1.1e-3)
    assert difference(near, expected, INEXACT_TOLERANCE) is not None
    assert difference(near, expected, INEXACT_TOLERANCE, of_largest=True) is None
    assert difference(far, expected, INEXACT_TOLERANCE, of_largest=True) is not None
    assert largest_error(far, expected) == pytest.approx(1.1e-4, rel=1e-3)


def test_another_process_finds_the_algorithms_of_a_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ("from ansor_py.schedule.algorithms import algorithm", "algorithm('from_a_module')(lambda tensor: None)")
    (tmp_path / "own_algorithms.py").write_text("\n".join((*lines, "")))
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("own_algorithms")
    step = pickle.dumps(UseAlgorithm("C", "from_a_module"))
    del sys.modules["own_algorithms"], ALGORITHMS["from_a_module"]
    assert pickle.loads(step) == UseAlgorithm("C", "from_a_module")
    assert ALGORITHMS.pop("from_a_module").build.__module__ == "own_algorithms"


def test_of_a_table_one_row_counts() -> None:
    """In each unrolled iteration one formula is left: the counts are those of the mean row, the code that of each."""
    x = te.placeholder((8,), name="x")
    rows = [x[0] + x[1], x[0] * 2.0 + x[1] * 3.0 + x[2]]
    table = te.select(equal(Axis("i", 2), 0), *rows)
    assert count_operations(table) == OperationCounts(float_mad=1, float_addsub=1, float_mul=1)
    assert [row_of_table(table, "i", row) for row in (0, 1)] == rows
    assert row_of_table(table, "j", 0) == table
