"""Kernels for CPUs that this machine is not, executed under emulation and compared with NumPy.

Each program is compiled by the same path as on the host, for another target; `tests/foreign_cpus.py` links and runs it. Where
the packages for that are missing the tests are skipped, unless ANSOR_PY_REQUIRE_EMULATION is set: then that is a failure.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from _pytest.mark.structures import ParameterSet
from numpy.typing import NDArray

from ansor_py import te
from ansor_py.codegen.kernel import CompiledKernel, build_kernel
from ansor_py.codegen.parallel_runtime import PARALLEL
from ansor_py.schedule.dag import ComputeDAG
from ansor_py.schedule.state import Root, State
from ansor_py.schedule.steps import (
    CacheOperand,
    CacheRead,
    ComputeAt,
    Fuse,
    Parallel,
    Reorder,
    Rfactor,
    Split,
    Step,
    TransformLayout,
    Vectorize,
)
from ansor_py.search.options import SearchOptions
from ansor_py.search.sampling.default_schedule import default_steps
from ansor_py.search.sampling.sampler import sample
from ansor_py.search.sampling.space import Space
from ansor_py.sketch_rules import generate_sketches
from ansor_py.target import Target
from ansor_py.te.tensor import Tensor
from foreign_cpus import (
    AARCH64,
    FOREIGN_CPUS,
    QEMU_VERSION,
    ForeignCpu,
    ForeignRunError,
    Toolchain,
    missing_packages,
    run_foreign,
)
from measure_faults import build_word, doubling_dag
from random_schedules import random_state
from targets import structure_targets
from te_interpreter import evaluate, random_feeds

THREADS = 2
REQUIRED = "ANSOR_PY_REQUIRE_EMULATION"
TOLERANCES = {"float32": (2e-4, 2e-5), "float64": (1e-11, 1e-12)}  # relative, absolute; integers are exact

Steps = tuple[Step, ...]
Scheduled = Callable[[Target], tuple[ComputeDAG, Steps]]


def emulated(*names: str) -> list[ParameterSet]:
    """Parameters for a test that executes kernels on emulated CPUs."""
    return [pytest.param(FOREIGN_CPUS[name], id=name, marks=pytest.mark.runs_for(f"{name} emulated")) for name in names]


def require(cpu: ForeignCpu) -> None:
    """Skip the test where packages are missing, or fail it where that must not be."""
    if missing := missing_packages(cpu):
        version = ".".join(str(number) for number in QEMU_VERSION)
        reason = f"emulating '{cpu.name}' needs Debian's packages {', '.join(missing)} (QEMU {version} or newer)"
        (pytest.fail if os.environ.get(REQUIRED) else pytest.skip)(reason)


def target_of(cpu: ForeignCpu) -> Target:
    return Target.parse(f"{cpu.target} cores={THREADS}")


def check(cpu: ForeignCpu, compiled: CompiledKernel, dag: ComputeDAG, feeds: Mapping[Tensor, NDArray[Any]]) -> None:
    """Run a kernel on the emulated CPU and compare its outputs with NumPy's."""
    outputs = run_foreign(cpu, compiled, [feeds[tensor] for tensor in dag.inputs])
    for tensor, output in zip(dag.outputs, outputs, strict=True):
        rtol, atol = TOLERANCES.get(tensor.dtype, (0, 0))
        assert output.dtype == np.dtype(tensor.dtype)
        widen = tensor.dtype == "float32"  # what is rounded to an integer has to be rounded from the same number
        np.testing.assert_allclose(output, evaluate(tensor, feeds, widen=widen), rtol=rtol, atol=atol)


# Programs with their default schedule.


def product(n: int, m: int, k: int, dtype: str = "float32") -> Tensor:
    return te.matmul(te.placeholder((n, k), dtype, name="A"), te.placeholder((k, m), dtype, name="B"))


def transposed_product() -> Tensor:
    a, b = te.placeholder((26, 19), name="A"), te.placeholder((37, 26), name="B")
    return te.matmul(te.transpose(a, (1, 0)), te.transpose(b, (1, 0)))


def chain(dtype: str) -> Tensor:
    x = te.placeholder((7, 33), dtype, name="x")
    powers = te.power(te.exp(te.sin(x)), te.tanh(x))
    rest = te.add(te.erf(x), te.log(te.sigmoid(x)))
    return te.add(te.add(powers, rest), te.round(te.multiply(te.sqrt(te.abs(te.cos(x))), 3.0)))


def quantised_product() -> Tensor:
    """uint8 times int8, summed as int32, and the result in uint8 again."""
    x, w = te.placeholder((9, 40), "uint8", name="x"), te.placeholder((40, 21), "int8", name="w", constant=True)
    x_zero, y_zero = te.placeholder((1,), "uint8", name="x_zero"), te.placeholder((1,), "uint8", name="y_zero")
    summed = te.matmul(te.centred(x, x_zero), te.centred(w, None))
    scaled = te.multiply(te.cast(summed, "float32"), 0.37)
    return te.quantize(scaled, te.placeholder((1,), name="scale"), y_zero)


def attention() -> Tensor:
    query, key = te.placeholder((1, 2, 13, 8), name="query"), te.placeholder((1, 2, 8, 17), name="key")
    return te.softmax(te.multiply(te.matmul(query, key), 0.25))


DEFAULTS: dict[str, Callable[[], Tensor]] = {
    "matmul relu": lambda: te.relu(product(48, 104, 32)),
    "matmul with tails": lambda: product(19, 37, 23),
    "matmul int32": lambda: product(11, 21, 13, "int32"),
    "matmul float64": lambda: product(11, 21, 13, "float64"),
    "matmul transposed": transposed_product,
    "matmul uint8": quantised_product,
    "attention": attention,
    "dense constant": lambda: te.from_spec("dense:17,40,33,bias=1"),
    "conv2d": lambda: te.from_spec("conv2d:1,5,9,11,12,3,pad=1,bias=1,relu=1"),
    "conv2d stride": lambda: te.from_spec("conv2d:1,4,13,13,6,5,stride=2,pad=2"),
    "depthwise": lambda: te.from_spec("depthwise_conv2d:1,6,11,11,3,pad=1"),
    "conv2d_transpose": lambda: te.from_spec("conv2d_transpose:1,4,5,6,6,3,stride=2,pad=1,output_pad=1"),
    "softmax": lambda: te.from_spec("softmax:6,37"),
    "layer_norm": lambda: te.from_spec("layer_norm:9,40"),
    "transpose": lambda: te.from_spec("transpose:17,33"),
    "max_pool": lambda: te.from_spec("max_pool2d:1,4,9,14,3,stride=2,pad=1"),
    "argmax": lambda: te.from_spec("argmax:9,45,axis=1"),
    "sum": lambda: te.from_spec("reduce_sum:700"),
    "functions float32": lambda: chain("float32"),
    "functions float64": lambda: chain("float64"),
}


# Programs with steps of their own.


def packed_constant(target: Target) -> tuple[ComputeDAG, Steps]:
    """A constant packed into panels before the first run: a prepacked buffer, with a tail."""
    panel = 2 * target.lanes("float32")
    x, w = te.placeholder((19, 23), name="x"), te.placeholder((23, 37), name="w", constant=True)
    k = te.reduce_axis(23, "k")
    steps = (
        CacheRead("w", ("C",)),
        TransformLayout("w.cache", (("i1", panel),), ("i1.outer", "i0", "i1.inner")),
        *tiled(panel),
    )
    return ComputeDAG.from_outputs(te.compute((19, 37), lambda i, j: te.reduce_sum(x[i, k] * w[k, j], k), name="C")), steps


def packed_operands(target: Target) -> tuple[ComputeDAG, Steps]:
    """Both operands of a product with a strided read packed in every run, one of them inside the loops."""
    panel = 2 * target.lanes("float32")
    x, w = te.placeholder((40, 23), name="x"), te.placeholder((23, 37), name="w")
    k = te.reduce_axis(23, "k")
    steps = (
        CacheOperand("x", "C"),
        CacheOperand("w", "C"),
        TransformLayout("w.cache", (("j", panel),), ("j.outer", "k", "j.inner")),
        *tiled(panel),
        ComputeAt("x.cache", "C", "i.0"),
    )
    return ComputeDAG.from_outputs(te.compute((19, 37), lambda i, j: te.reduce_sum(x[2 * i, k] * w[k, j], k), name="C")), steps


def tiled(panel: int) -> Steps:
    """Steps for `C[i, j] += ...[k]`: tiles of 4 rows and a panel, in registers over 8 of the reduction; rows in parallel."""
    return (
        Split("C", "i", (4,)),
        Split("C", "j", (panel,)),
        Split("C", "k", (8,)),
        Reorder("C", ("i.0", "j.0", "k.0", "k.1", "i.1", "j.1")),
        Vectorize("C", "j.1"),
        Parallel("C", "i.0"),
    )


def lanes_not_contiguous(target: Target) -> tuple[ComputeDAG, Steps]:
    """The lanes of a register tile run along the rows of the result: it is transposed in registers."""
    data, weight = te.placeholder((8, 11), name="data"), te.placeholder((8, 21), name="weight")
    k = te.reduce_axis(8, "k")
    steps = (
        Split("C", "c", (target.lanes("float32"),)),
        Split("C", "x", (4,)),
        Split("C", "k", (3,)),
        Reorder("C", ("c.0", "x.0", "k.0", "k.1", "x.1", "c.1")),
        Vectorize("C", "c.1"),
    )
    return ComputeDAG.from_outputs(
        te.compute((21, 11), lambda c, x: te.reduce_sum(data[k, x] * weight[k, c], k), name="C")
    ), steps


def largest_across_lanes(target: Target) -> tuple[ComputeDAG, Steps]:
    """A reduction in lanes with a tail, and partial results (rfactor) joined at the end."""
    x, k = te.placeholder((5, 77), name="x"), te.reduce_axis(77, "k")
    steps = (
        Split("C", "k", (4 * target.lanes("float32"),)),
        Rfactor("C", "k.0", -1),
        Vectorize("C.rf", "k.1"),
    )
    return ComputeDAG.from_outputs(te.compute((5,), lambda i: te.reduce_max(x[i, k], k), name="C")), steps


SCHEDULED: dict[str, Scheduled] = {
    "packed constant": packed_constant,
    "packed operands": packed_operands,
    "lanes not contiguous": lanes_not_contiguous,
    "largest across lanes": largest_across_lanes,
}


def in_parallel(dag: ComputeDAG, steps: Sequence[Step]) -> tuple[Step, ...]:
    """The steps, with the outer loops of every nest in parallel; programs so small are serial by default."""
    state = State.initial(dag).replay(steps)
    for stage in state.stages:
        if not isinstance(stage.location, Root):
            continue
        loops: list[str] = []
        for iterator in stage.plain_outer_iterators:
            loops.append(iterator.name)
            if state.attached_to(stage.name, iterator.name):
                break
        if len(loops) > 1:
            state = state.apply(Fuse(stage.name, tuple(loops)))
        if loops:
            state = state.apply(Parallel(stage.name, "".join(f"{name}@" for name in loops) if len(loops) > 1 else loops[0]))
    return state.steps


def built(name: str, target: Target) -> tuple[ComputeDAG, CompiledKernel]:
    """A program of the two lists, compiled."""
    if name in SCHEDULED:
        dag, steps = SCHEDULED[name](target)
    else:
        dag = ComputeDAG.from_outputs(DEFAULTS[name]())
        steps = in_parallel(dag, default_steps(dag, target, THREADS))
    return dag, build_kernel(dag, steps, target, THREADS)


@pytest.mark.parametrize("name", [*DEFAULTS, *SCHEDULED])
@pytest.mark.parametrize("cpu", emulated("neon", "sse2", "avx2", "rvv"))
def test_programs_compute_what_numpy_computes(cpu: ForeignCpu, name: str) -> None:
    require(cpu)
    if cpu.name == "rvv" and name == "matmul uint8":
        pytest.skip("QEMU before 8.1 ends at RISC-V's vector conversions with rounding towards zero (its issue 1441)")
    dag, compiled = built(name, target_of(cpu))
    check(cpu, compiled, dag, random_feeds(dag.outputs, seed=1))


@pytest.mark.parametrize("name", ["conv2d", "packed constant", "functions float32", "softmax", "matmul uint8"])
@pytest.mark.parametrize("cpu", emulated("aarch64-generic"))
def test_an_aarch64_without_a_name_needs_only_the_first_version_of_the_architecture(cpu: ForeignCpu, name: str) -> None:
    require(cpu)
    dag, compiled = built(name, target_of(cpu))
    check(cpu, compiled, dag, random_feeds(dag.outputs, seed=1))


RANDOM = (
    "matmul:17,29,13",
    "dense:9,40,37",
    "conv2d:1,5,8,8,12,3,pad=1,bias=1,relu=1",
    "depthwise_conv2d:1,6,9,9,3,pad=1",
    "conv2d_transpose:1,4,5,6,6,3,stride=2,pad=1,output_pad=1",
    "softmax:3,96",
)


@pytest.mark.parametrize("spec", RANDOM)
@pytest.mark.parametrize("cpu", emulated("neon", "sse2", "avx2", "rvv"))
def test_random_programs_of_sketches_compute_what_numpy_computes(cpu: ForeignCpu, spec: str) -> None:
    require(cpu)
    target, rng = target_of(cpu), np.random.default_rng(7)
    dag = ComputeDAG.from_outputs(te.from_spec(spec))
    sketches = generate_sketches(dag, target)
    assert sketches
    for sketch in sketches:
        [row] = sample(Space(sketch, target, SearchOptions()), 1, rng)
        compiled = build_kernel(dag, sketch.concretise(row), target, THREADS)
        check(cpu, compiled, dag, random_feeds(dag.outputs, seed=1))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("cpu", emulated("neon"))
def test_random_schedules_compute_what_numpy_computes(cpu: ForeignCpu, seed: int) -> None:
    require(cpu)
    dag = ComputeDAG.from_outputs(te.relu(product(19, 37, 23)) if seed % 2 else te.from_spec("softmax:6,37"))
    state = random_state(dag, np.random.default_rng(seed))
    check(cpu, build_kernel(dag, state.steps, target_of(cpu), THREADS), dag, random_feeds(dag.outputs, seed=1))


@pytest.mark.parametrize("target", structure_targets(f"cores={THREADS}"))
def test_the_programs_have_what_they_are_there_for(target: Target) -> None:
    """Prepacked buffers, workspace, parallel loops and calls of libm are executed only if the programs have them."""
    names = ("packed constant", "packed operands", "matmul relu", "functions float64")
    constant, operands, parallel, functions = (built(name, target)[1] for name in names)
    assert constant.prepack_symbol
    assert [spec.name for spec in constant.prepacked] == ["w.cache"]
    assert operands.workspace_bytes
    for compiled in (constant, operands, parallel):
        assert PARALLEL.encode() in compiled.object_code
    for function in (b"erf", b"sin", b"cos", b"pow"):
        assert function in functions.object_code


@pytest.mark.parametrize("cpu", emulated("neon", "sse2", "avx2", "rvv"))
def test_nan_is_the_maximum_of_what_holds_one(cpu: ForeignCpu) -> None:
    require(cpu)
    dag, compiled = built("largest across lanes", target_of(cpu))
    x = np.linspace(-3, 3, 5 * 77, dtype=np.float32).reshape(5, 77)
    x[1, 0] = x[2, 40] = x[3, 76] = np.nan
    check(cpu, compiled, dag, {dag.inputs[0]: x})


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("cpu", emulated("neon", "aarch64-generic", "sse2", "avx2"))  # RISC-V has no mode that flushes
def test_subnormal_numbers_are_zero(cpu: ForeignCpu, dtype: str) -> None:
    """As inputs (their products would be normal) and as results, in every thread; the driver checks that it ends there."""
    require(cpu)
    x = te.placeholder((2, 8), dtype, name="x")
    dag = ComputeDAG.from_outputs([te.multiply(x, 2.0**30, name="larger"), te.multiply(x, 0.5, name="half")])
    steps = (Parallel("larger", "i0"), Parallel("half", "i0"), Vectorize("larger", "i1"))
    compiled = build_kernel(dag, steps, target_of(cpu), THREADS)
    tiny = np.finfo(dtype).tiny
    larger, half = run_foreign(cpu, compiled, [np.full((2, 8), tiny / 4, dtype)])
    np.testing.assert_array_equal(larger, 0)
    larger, half = run_foreign(cpu, compiled, [np.full((2, 8), -tiny, dtype)])
    np.testing.assert_array_equal(larger, -tiny * 2.0**30)
    np.testing.assert_array_equal(half, 0)


# What the harness is for: that each kind of fault is seen.


def test_an_instruction_that_the_cpu_lacks_is_an_error() -> None:
    cpu = FOREIGN_CPUS["sse2"]
    require(cpu)
    dag, compiled = built("matmul relu", target_of(FOREIGN_CPUS["avx2"]))
    with pytest.raises(ForeignRunError, match=r"^sse2: the kernel for '.*cpu=haswell.*' on '.*': Illegal instruction$"):
        check(cpu, compiled, dag, random_feeds(dag.outputs, seed=1))


FAULTS = {
    "overrun": "out of bounds: byte 400 of buffer 1 was written, which has 400 bytes",
    "underrun": "out of bounds: byte -4 of buffer 1 was written",
    "workspace": "out of bounds: byte -4 of workspace",
    "corrupts-input": "the input 'A' was written",
    "crash": "Segmentation fault",
    "status": "the kernel returned 3",
    "missing-symbol": "linking: .*(\n.*)*nobody_has_this",
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("cpu", emulated("neon", "sse2"))
def test_a_faulty_kernel_is_an_error(cpu: ForeignCpu, fault: str) -> None:
    require(cpu)
    dag = doubling_dag()
    compiled = build_word(dag, (fault,), target_of(cpu), THREADS)
    with pytest.raises(ForeignRunError, match=FAULTS[fault]):
        check(cpu, compiled, dag, random_feeds(dag.outputs))


@pytest.mark.parametrize("word", ["wrong", "incomplete"])
@pytest.mark.parametrize("cpu", emulated("neon", "sse2"))
def test_a_wrong_result_is_an_error(cpu: ForeignCpu, word: str) -> None:
    require(cpu)
    dag = doubling_dag()
    feeds = random_feeds(dag.outputs)
    check(cpu, build_word(dag, ("good",), target_of(cpu), THREADS), dag, feeds)
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        check(cpu, build_word(dag, (word,), target_of(cpu), THREADS), dag, feeds)


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = Toolchain("m68k", "m68k-nobody-has", ("gcc-m68k-linux-gnu", "libc6-dev-m68k-cross"))
    cpu = ForeignCpu("m68k", "m68k", absent, ("qemu-nobody-has",))
    assert missing_packages(cpu) == ("qemu-user", "gcc-m68k-linux-gnu", "libc6-dev-m68k-cross")
    monkeypatch.delenv(REQUIRED, raising=False)
    words = "needs Debian's packages qemu-user, gcc-m68k-linux-gnu, libc6-dev-m68k-cross"
    with pytest.raises(pytest.skip.Exception, match=words):
        require(cpu)
    monkeypatch.setenv(REQUIRED, "1")
    with pytest.raises(pytest.fail.Exception, match=words):
        require(cpu)
    native = dataclasses.replace(AARCH64, machine=os.uname().machine)
    assert native.packages == ("gcc", "libc6-dev")
