"""Objectives: f1 to f4 of the paper, the user's own from files and modules, networks that share tasks, what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ansor_py import te
from ansor_py.errors import OptionError
from ansor_py.schedule.task import Task
from ansor_py.search.loop.tuning import tune_tasks
from ansor_py.search.loop.tuning_options import TuningOptions
from ansor_py.search.scheduler.networks import Network, Networks, describe_networks
from ansor_py.search.scheduler.objectives import STAGNATION_ROUNDS, check_objective, evaluate, find_objective
from ansor_py.search.scheduler.strategies import TaskProgress, task_gradients
from ansor_py.search.user_code import load_plug_ins
from ansor_py.target import Target
from search_fakes import FakeMeasurer

TARGET = Target.parse("x86-64 cpu=haswell cores=2")
TASKS = [Task.from_compute(te.matmul(n, n, n), TARGET, name=f"matmul{n}") for n in (16, 32, 48)]
A, B, C = (task.workload_key for task in TASKS)
LATENCIES = np.array([1e-3, 2e-3, 4e-3])


def two_networks(targets: tuple[float, ...] = (), references: tuple[float, ...] = ()) -> Networks:
    """One runs the first two tasks, the other the last two: 5 ms and 10 ms."""
    return describe_networks(TASKS, [Network("x", {A: 1, B: 2}), Network("y", {B: 1, C: 2})], targets, references)


def gradients(objective: str, networks: Networks, history: tuple[float, ...] = ()) -> NDArray[np.float64]:
    """Of three tasks that have had four level rounds."""
    progress = [TaskProgress(10**9, history or (latency,) * 5) for latency in LATENCIES.tolist()]
    networks = replace(networks, histories=tuple(task.history for task in progress))
    return task_gradients(progress, lambda latencies: evaluate(find_objective(objective), latencies, networks))


def test_f1_is_the_sum_over_all_networks() -> None:
    networks = two_networks()
    np.testing.assert_allclose(networks.seconds(LATENCIES), [5e-3, 10e-3])
    assert evaluate(find_objective("latency-sum"), LATENCIES, networks) == pytest.approx(15e-3)
    assert gradients("latency-sum", networks) == pytest.approx(-0.8 * np.array([1, 3, 2]) * LATENCIES / 4)


def test_f2_gains_nothing_from_a_network_that_has_reached_its_target() -> None:
    networks = two_networks(targets=(6e-3,))
    assert evaluate(find_objective("latency-targets"), LATENCIES, networks) == pytest.approx(16e-3)
    assert gradients("latency-targets", networks) == pytest.approx(-0.8 * np.array([0, 1, 2]) * LATENCIES / 4)
    assert not gradients("latency-targets", two_networks(targets=(6e-3, 20e-3))).any()
    with pytest.raises(OptionError, match="'latency-targets' needs the latency that every network is to reach"):
        check_objective("latency-targets", two_networks())


def test_f3_is_minus_the_geometric_mean_of_the_speedups_and_its_references_do_not_change_the_choice() -> None:
    networks = two_networks(references=(10e-3, 80e-3))
    assert evaluate(find_objective("geomean-speedup"), LATENCIES, networks) == pytest.approx(-4.0)
    found = gradients("geomean-speedup", networks)
    # d/dg of -(8 / product of seconds)^(1/2): the speed-up's share of a task in its networks' latencies
    shares = np.array([1 / 5, 2 * 2 / 5 + 1 * 2 / 10, 2 * 4 / 10])
    assert found == pytest.approx(-0.8 * 4 / 2 * shares / 4, rel=2e-3)
    others = gradients("geomean-speedup", two_networks(references=(1.0,)))
    assert others / others[0] == pytest.approx(found / found[0])


def test_f3_compares_with_the_default_schedules_where_no_reference_is_given() -> None:
    networks = two_networks().compared_with([2e-3, 4e-3, 8e-3])
    assert networks.references.tolist() == pytest.approx([10e-3, 20e-3])
    assert evaluate(find_objective("geomean-speedup"), LATENCIES, networks) == pytest.approx(-2.0)
    assert two_networks().compared_with([None, 1e-3, 1e-3]).references.tolist() == pytest.approx([1.0, 3e-3])
    assert two_networks(references=(7.0,)).compared_with([1e-3] * 3).references.tolist() == [7.0, 7.0]


def test_f4_expects_nothing_of_a_task_that_stagnates() -> None:
    level, falling = (2e-3,) * (STAGNATION_ROUNDS + 1), (3e-3, *(2e-3,) * STAGNATION_ROUNDS)
    networks = replace(two_networks(), histories=(level, falling, falling[:-2]))
    latencies = np.full(3, 2e-3)
    objective = find_objective("early-stopping")
    assert evaluate(objective, latencies, networks) == pytest.approx(12e-3)
    assert evaluate(objective, latencies / 2, networks) == pytest.approx(2e-3 + 3e-3 + 2e-3)
    progress = [TaskProgress(10**9, history) for history in networks.histories]
    found = task_gradients(progress, lambda latencies: evaluate(objective, latencies, networks))
    assert found[0] == 0
    assert (found[1:] < 0).all()


def test_without_networks_all_tasks_are_of_one_with_their_weights() -> None:
    networks = describe_networks([replace(TASKS[0], weight=3), TASKS[1]], [])
    assert networks.weights.tolist() == [[3, 1]]
    assert networks.known_seconds([1e-3, None]).tolist() == [np.inf]
    assert two_networks().known_seconds([1e-3, 2e-3, None]).tolist() == pytest.approx([5e-3, np.inf])


@pytest.mark.usefixtures("registries_as_before")
def test_an_objective_of_ones_own_comes_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "my_objectives.py"
    file.write_text(
        "from ansor_py.search import objective\n"
        "@objective('worst')\ndef worst(latencies, networks):\n    return networks.seconds(latencies).max()\n"
    )
    load_plug_ins([str(file)])
    assert evaluate(find_objective("worst"), LATENCIES, two_networks()) == pytest.approx(10e-3)
    (tmp_path / "broken.py").write_text("import nothing_like_it\n")
    for text, words in (
        (str(tmp_path / "none.py"), "there is no such file"),
        (str(tmp_path / "broken.py"), "cannot be loaded: ModuleNotFoundError"),
        ("no.such.module", "cannot be loaded"),
    ):
        with pytest.raises(OptionError, match=words):
            load_plug_ins([text])
    with pytest.raises(
        OptionError, match="no objective 'fame'; known are early-stopping, geomean-speedup, latency-sum, latency-targets, worst"
    ):
        find_objective("fame")


def test_objectives_that_fail_or_give_no_number_are_named() -> None:
    def failing(latencies: NDArray[np.float64], networks: Networks) -> float:
        raise ValueError("no idea")

    def undefined(latencies: NDArray[np.float64], networks: Networks) -> float:
        return float("nan")

    with pytest.raises(OptionError, match=r"objective 'failing' failed in .*test_objectives.py, line \d+: ValueError: no idea"):
        check_objective(failing, two_networks())
    with pytest.raises(OptionError, match=r"objective 'undefined' gave nan for latencies of \[1.0, 1.0, 1.0\] s"):
        check_objective(undefined, two_networks())


def test_networks_that_make_no_sense_are_refused() -> None:
    with pytest.raises(OptionError, match="network 'z' has tasks that are not tuned: unknown"):
        describe_networks(TASKS, [Network("z", {"unknown": 1})])
    with pytest.raises(OptionError, match="3 target latencies are given for 2 networks"):
        two_networks(targets=(1.0, 2.0, 3.0))
    with pytest.raises(OptionError, match="reference latency must be more than 0 s"):
        two_networks(references=(0.0,))


def test_networks_tuned_together_get_trials_as_the_objective_says() -> None:
    """The task of the first network is worth nothing to a function that looks at the second alone."""

    def second_only(latencies: NDArray[np.float64], networks: Networks) -> float:
        return float(networks.seconds(latencies)[1])

    networks = [Network("first", {A: 100}), Network("second", {B: 1, C: 1})]
    options = TuningOptions(policy="counting", cost_model="even", batch=4, trials=63, objective=second_only)
    result = tune_tasks(TASKS, options, measurer=FakeMeasurer(), networks=networks)
    assert result.tasks[0].trials == 1 + 4  # its default schedule and the warm-up
    assert min(item.trials for item in result.tasks[1:]) > 10
