"""The simulated CPU: what it says of good and bad programs, its errors and its scatter; runs on its virtual clock."""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ansor_py import te
from ansor_py.errors import OptionError, ScheduleError
from ansor_py.lower.lower import lower
from ansor_py.measure import MeasureInput, MeasureOptions, RunSettings, create_measurer, read_records
from ansor_py.measure.build import naive_steps
from ansor_py.measure.cpu_caches import fit
from ansor_py.measure.cpu_instructions import tile_demand
from ansor_py.measure.cpu_loops import region_sites
from ansor_py.measure.cpu_simulation import simulate
from ansor_py.schedule.dag import ComputeDAG
from ansor_py.schedule.state import State
from ansor_py.schedule.steps import Fuse, Parallel, RegisterTile, Reorder, Split, Step, Vectorize
from ansor_py.search.__main__ import main
from ansor_py.search.loop.run_directory import read_curve
from ansor_py.search.sampling.default_schedule import default_steps
from ansor_py.target import NOMINAL_HERTZ, Target
from ansor_py.te.simplify import Simplifier
from targets import structure_targets

MACHINE = "cores=4 l1=32KiB l2=1MiB l3=16MiB"
on_four_targets = pytest.mark.parametrize("target", structure_targets(MACHINE))
# For what is the same on all of them.
TARGET = Target.parse(f"x86-64 cpu=haswell {MACHINE}")


def matmul(n: int, m: int, k: int) -> ComputeDAG:
    return ComputeDAG.from_outputs(te.matmul(n, m, k))


def quick(target: Target) -> list[str]:
    """Words of a command line for a small search."""
    return ["--target", str(target), "--threads", "2", "--search", "population=64", "--search", "iterations=1"]


REGISTER_TILE = RegisterTile("C", ("i.1", "j.1"), "float32 outer product")


def tiled(target: Target, rows: int, vectors: int, depth: int = 64, vectorized: bool = True) -> list[Step]:
    """A matrix product in tiles with `rows` times `vectors` accumulators, over panels of `depth`."""
    steps: list[Step] = [
        Split("C", "i", (rows,)),
        Split("C", "j", (vectors * target.lanes("float32"),)),
        Split("C", "k", (depth,)),
        Reorder("C", ("i.0", "j.0", "k.0", "k.1", "i.1", "j.1")),
        REGISTER_TILE,
    ]
    return [*steps, Vectorize("C", "j.1")] if vectorized else steps


DAG = matmul(256, 256, 256)


@on_four_targets
def test_register_tiles_beat_the_naive_nest(target: Target) -> None:
    tile, row, naive = (
        simulate(DAG, steps, target, 1) for steps in (tiled(target, 6, 2), tiled(target, 1, 1), naive_steps(DAG))
    )
    assert tile < row < naive


@on_four_targets
def test_the_default_schedule_comes_near_the_peak_and_not_above_it(target: Target) -> None:
    dag = matmul(512, 512, 512)
    peak = NOMINAL_HERTZ * target.core.vector_units * 2 * target.lanes("float32")
    share = dag.flops / simulate(dag, default_steps(dag, target, 1), target, 1) / peak
    assert 0.4 < share <= 1.0


@on_four_targets
def test_lanes_beat_scalars(target: Target) -> None:
    lanes, scalars = (simulate(DAG, tiled(target, 4, 1, vectorized=flag), target, 1) for flag in (True, False))
    assert 0.25 * target.lanes("float32") * lanes < scalars


@on_four_targets
def test_lanes_that_lie_apart_in_memory_are_gathered(target: Target) -> None:
    a = te.placeholder((48, 48), name="A")
    across = ComputeDAG.from_outputs(te.compute((48, 48), lambda i, j: a[j, i] * 2.0, name="B"))
    along = ComputeDAG.from_outputs(te.compute((48, 48), lambda i, j: a[i, j] * 2.0, name="B"))
    steps = [Split("B", "j", (target.lanes("float32"),)), Vectorize("B", "j.1")]
    assert simulate(across, steps, target, 1) > 1.5 * simulate(along, steps, target, 1)


@on_four_targets
def test_a_vector_lies_half_as_often_in_two_lines_of_twice_the_length(target: Target) -> None:
    x = te.placeholder((64, 1025), name="x")
    dag = ComputeDAG.from_outputs(te.compute((64, 1025), lambda i, j: x[i, j] * 2.0, name="y"))
    steps = [Split("y", "j", (target.lanes("float32"),)), Vectorize("y", "j.1")]

    def loads(line: int) -> float:
        machine = replace(target, cache_line_bytes=line)
        program = lower(State.initial(dag).replay(steps), machine)
        [[site]] = (region.sites for region in region_sites(program, 1))
        return tile_demand(site, Simplifier(program.ranges), machine).loads

    assert loads(64) - 1 == 2 * (loads(128) - 1) > 0


@on_four_targets
def test_more_accumulators_than_registers_are_spilled(target: Target) -> None:
    rows = (target.vector_registers - 3) // 2
    fits, spills = tiled(target, rows, 2), tiled(target, 2 * rows + 2, 2)
    dag = matmul(256, 4 * target.lanes("float32"), 64)  # whose operand fits the first cache: lines are not what takes the time
    assert simulate(dag, spills, target, 1) > 1.05 * simulate(dag, fits, target, 1)
    many = replace(target, vector_registers=128)
    assert simulate(dag, spills, many, 1) < 0.95 * simulate(dag, spills, target, 1)


@on_four_targets
def test_threads_share_the_work_of_large_loops_and_cost_more_than_they_bring_in_tiny_ones(target: Target) -> None:
    steps = [*tiled(target, 6, 2), Parallel("C", "i.0")]
    assert simulate(DAG, steps, target, 4) < 0.4 * simulate(DAG, steps, target, 1)
    tiny = matmul(12, 2 * target.lanes("float32"), 16)
    assert simulate(tiny, steps, target, 4) > simulate(tiny, steps[:-1], target, 1)


@on_four_targets
def test_iterations_that_do_not_divide_among_threads_leave_some_idle(target: Target) -> None:
    even, uneven = ([*tiled(target, rows, 1), Parallel("C", "i.0")] for rows in (8, 7))
    dag = matmul(32, 2048, 512)  # four iterations of 8 rows, five of 7
    assert simulate(dag, uneven, target, 4) > 1.4 * simulate(dag, even, target, 4)


@on_four_targets
def test_tiles_that_leave_the_cache_are_slower_and_a_larger_cache_helps(target: Target) -> None:
    a, b = te.placeholder((64, 16384), name="A"), te.placeholder((1, 16384), name="B")
    dag = ComputeDAG.from_outputs(te.compute((64, 16384), lambda i, j: a[i, j] * b[0, j], name="C"))
    lanes = target.lanes("float32")

    def columns(width: int) -> list[Step]:
        order = Reorder("C", ("j.0", "i", "j.1", "j.2"))
        return [Split("C", "j", (width // lanes, lanes)), order, Vectorize("C", "j.2")]

    small, large = (simulate(dag, columns(width), target, 1) for width in (1024, 16384))
    assert large > 1.02 * small
    assert simulate(dag, columns(16384), replace(target, l1=1 << 20), 1) < large


@on_four_targets
def test_panels_that_fit_the_first_cache_beat_streaming(target: Target) -> None:
    dag, far = matmul(512, 1024, 2048), replace(target, l2=64 << 10, l3=0)
    panels = [Split("C", "i", (2,)), Split("C", "j", (2 * target.lanes("float32"),)), Split("C", "k", (64,))]
    blocked = [*panels, Reorder("C", ("k.0", "j.0", "i.0", "k.1", "i.1", "j.1")), REGISTER_TILE, Vectorize("C", "j.1")]
    streaming = [*panels, Reorder("C", ("k.0", "i.0", "j.0", "k.1", "i.1", "j.1")), REGISTER_TILE, Vectorize("C", "j.1")]
    assert simulate(dag, blocked, far, 1) < 0.7 * simulate(dag, streaming, far, 1)


@on_four_targets
def test_every_iteration_is_counted_whatever_the_tile_lengths(target: Target) -> None:
    for rows, vectors, depth in ((7, 3, 50), (6, 1, 256), (13, 2, 3)):
        program = lower(State.initial(DAG).replay(tiled(target, rows, vectors, depth)), target)
        [region] = region_sites(program, 1)
        [site] = region.sites
        inner = math.prod(loop.trips for loop in (*site.reduction, *site.points))
        columns = vectors * target.lanes("float32")
        covered = math.ceil(256 / rows) * rows * math.ceil(256 / columns) * columns * 256
        assert site.executions * inner == pytest.approx(covered, rel=0.05)


def test_a_cache_fades_out_around_its_capacity() -> None:
    shares = [fit(size, 1000.0) for size in (0.0, 600.0, 1000.0, 2000.0)]
    assert shares[0] == shares[1] == 1.0
    assert 0.0 < shares[2] < 1.0
    assert shares[3] == 0.0


def program(steps: Sequence[Step], target: Target = TARGET, cut: float | None = None) -> MeasureInput:
    return MeasureInput(DAG.workload_key, DAG, tuple(steps), target, 2, cut)


@on_four_targets
def test_the_scatter_is_small_and_depends_on_seed_and_program_alone(target: Target) -> None:
    programs = [program(tiled(target, rows, 2), target) for rows in (1, 2, 4, 8)]

    def costs(order: list[int], seed: int = 0) -> list[tuple[float, ...]]:
        options = MeasureOptions(run=RunSettings(seed=seed))
        with create_measurer("simulated", target=target, threads=2, options=options) as measurer:
            results = measurer.measure([programs[place] for place in order])
        return [results[order.index(place)].costs for place in range(4)]

    known = costs([0, 1, 2, 3])
    assert costs([3, 1, 0, 2]) == known
    assert costs([0, 1, 2, 3], seed=1) != known
    for item, found in zip(programs, known, strict=True):
        assert len(set(found)) == len(found) > 1
        assert np.log(np.median(found) / simulate(DAG, item.steps, target, 2)) == pytest.approx(0.0, abs=0.15)


def test_what_cannot_be_built_is_the_same_error_as_in_a_real_build() -> None:
    impossible = program([Fuse("C", ("i", "nothing"))])
    with pytest.raises(ScheduleError):
        simulate(DAG, impossible.steps, TARGET, 2)
    found = []
    for kind in ("simulated", "inline"):
        with create_measurer(kind, target=TARGET, threads=2, options=MeasureOptions(check_outputs=False)) as measurer:
            [result] = measurer.measure([impossible])
        assert math.isinf(result.cost)
        found.append((result.error, result.error_text, result.error_stage))
    assert found[0] == found[1]


def test_slow_programs_are_cut() -> None:
    with create_measurer("simulated", target=TARGET, threads=2) as measurer:
        [result] = measurer.measure([program(naive_steps(DAG), cut=1e-6)])
    assert (result.error, result.costs) == ("cut", (1e-6,))


def test_time_is_virtual() -> None:
    with create_measurer("simulated", target=TARGET, threads=2) as measurer:
        clock = measurer.virtual_clock
        assert clock is not None
        assert clock() == 0.0
        measurer.submit([program(tiled(TARGET, 4, 2)), program([Fuse("C", ("i", "nothing"))])])
        [(_, first)] = measurer.poll()
        assert first.build is not None
        assert first.run is not None
        assert first.build.started == 0.0
        assert first.run.finished == clock() > 0
        [(_, second)] = measurer.poll(0)
        assert second.build is not None
        assert (second.run, second.build.finished) == (None, clock())
        assert measurer.outstanding == 0
        assert measurer.poll() == []


def test_the_simulator_knows_nothing_of_cost_models_and_searches() -> None:
    folder = Path(simulate.__code__.co_filename).parent
    files = [*folder.glob("cpu_*.py"), folder / "simulated.py", folder / "virtual.py"]
    assert len(files) >= 5
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any("cost_model" in name or "search" in name for name in names), path


@on_four_targets
def test_two_runs_leave_the_same_bytes_and_nothing_of_the_machine(target: Target, tmp_path: Path) -> None:
    for name, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        words = ["--op", "matmul:64,64,64", "--trials", "8", "--runner", "simulated", "--out", str(tmp_path / name)]
        assert main([*words, "--seed", seed, *quick(target)]) == 0
    for name in ("records.jsonl", "curve.csv", "rounds.csv"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert (tmp_path / "c" / "records.jsonl").read_bytes() != (tmp_path / "a" / "records.jsonl").read_bytes()
    records, _ = read_records(tmp_path / "a" / "records.jsonl")
    assert len(records) == 8
    assert {record.host for record in records} == {None}
    assert {record.target for record in records} == {str(target.with_cores(2))}
    times = [point.elapsed_s for point in read_curve(tmp_path / "a")]
    assert times == sorted(times)
    assert 0 < times[0] < times[-1] < 3
    assert (tmp_path / "a" / "model.ansor").exists()


@on_four_targets
def test_a_simulated_run_is_resumed_and_its_summary_holds_simulated_latencies(target: Target, tmp_path: Path) -> None:
    words = ["--op", "softmax:32,64", "--runner", "simulated", "--out", str(tmp_path / "run"), *quick(target)]
    assert main([*words, "--trials", "4"]) == 0
    assert main([*words, "--trials", "8", "--resume"]) == 0
    records, _ = read_records(tmp_path / "run" / "records.jsonl")
    assert [record.trial for record in records] == list(range(8))
    elapsed = [record.elapsed for record in records]
    assert elapsed == sorted(elapsed)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    [task] = summary["tasks"]
    assert summary["tuned_latency_ms"] == task["best_ms"] <= summary["untuned_latency_ms"]


def test_an_argument_that_a_runner_does_not_take_is_an_error() -> None:
    with pytest.raises(OptionError, match="takes nothing behind a colon"):
        create_measurer("simulated:5", target=TARGET, threads=1)
