"""The task scheduler: acceptance values of the reference page (section 14), warm-up, dead tasks, alternatives; phase times."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ansor_py import te
from ansor_py.errors import OptionError
from ansor_py.measure.result import Span
from ansor_py.schedule.dag import ComputeDAG
from ansor_py.search.loop.phases import PhaseTimer, covered_seconds
from ansor_py.search.scheduler.strategies import (
    STRATEGIES,
    SchedulerOptions,
    TaskProgress,
    Value,
    choose_task,
    similarity_group,
    task_gradients,
)
from ansor_py.strategy_options import OptionSet

LEVEL = (4e-3, 2e-3, 2e-3, 2e-3, 2e-3)
FALLING = (4e-3, 4e-3, 4e-3, 3e-3, 2e-3)


def progress(history: tuple[float, ...] = LEVEL, flops: int = 10**9, **more: object) -> TaskProgress:
    return TaskProgress(flops, history, **more)  # type: ignore[arg-type]


def weighted(*weights: float) -> Value:
    return lambda latencies: float(latencies @ np.array(weights, dtype=np.float64))


def total(latencies: NDArray[np.float64]) -> float:
    return float(latencies.sum())


def choose(tasks: list[TaskProgress], strategy: str = "gradient", seed: int = 0, value: Value = total) -> int | None:
    return choose_task(strategy, tasks, value, np.random.default_rng(seed))


def test_the_heavier_of_equal_tasks_is_chosen() -> None:
    assert choose([progress()] * 3, value=weighted(1, 3, 2)) == 1


def test_a_recently_improving_task_outranks_a_stagnating_one() -> None:
    assert choose([progress(history=LEVEL), progress(history=FALLING)]) == 1
    gradients = task_gradients([progress(history=LEVEL), progress(history=FALLING)], total)
    # alpha * (2 - 4) / 3 ms + (1 - alpha) * (-2 ms / 4 rounds); the level one: its fall lies outside the window of 3 rounds
    assert gradients[1] == pytest.approx(0.2 * -2e-3 / 3 + 0.8 * -0.5e-3)
    assert gradients[0] == pytest.approx(0.8 * -0.5e-3)


def test_warm_up_gives_each_task_one_round_in_order() -> None:
    assert choose([progress(), progress(history=(1e-3,)), progress(history=(1e-3,))], value=weighted(1, 1, 9)) == 1
    assert choose([progress(history=()), progress(history=(1e-3,))]) == 0


def test_dead_tasks_get_nothing() -> None:
    tasks = [progress(dead=True), progress(history=(1e-3,), dead=True), progress()]
    for strategy in STRATEGIES:
        assert choose(tasks, strategy, value=weighted(100, 1, 1)) == 2
    assert choose([progress(dead=True)]) is None
    assert choose([]) is None


def test_a_task_without_a_valid_program_is_tried_again_and_does_not_spoil_the_gradients_when_dead() -> None:
    failing = (math.inf, math.inf)
    assert choose([progress(), progress(history=failing)], value=weighted(50, 1)) == 1
    tasks = [progress(), progress(), progress(history=failing, dead=True)]
    assert choose(tasks, value=weighted(1, 2, 1)) == 1
    assert np.isfinite(task_gradients(tasks, weighted(1, 2, 1))).all()


def test_a_task_whose_own_programs_stay_behind_its_default_schedule_promises_nothing() -> None:
    """Candidate 0 may be as good as the space allows; the optimism is about what the search finds."""
    level = (1e-3,) * 6
    tasks = [progress(history=level, found=found) for found in (1e-3, 1.1e-3, 1.3e-3, math.inf)]
    # a fall by 1/5 of what was found: to 0.8, 0.88, 1.04 ms
    assert task_gradients(tasks, total) == pytest.approx([0.8 * -0.2e-3, 0.8 * -0.12e-3, 0.0, 0.0])
    early = [progress(history=level[:4], found=found) for found in (1e-3, 9e-3, math.inf)]
    assert task_gradients(early, total) == pytest.approx([0.8 * -1e-3 / 3] * 3)  # three rounds tell nothing yet
    similar = [progress(history=level, found=9e-3, group="g"), progress(history=(1e-4,) * 6, group="g")]
    assert task_gradients(similar, total)[0] == pytest.approx(0.8 * (2e-4 - 1e-3))


def test_some_rounds_go_to_any_task() -> None:
    tasks, value = [progress()] * 3, weighted(1, 9, 1)
    options = OptionSet((SchedulerOptions(epsilon=0.3),))
    rng = np.random.default_rng(0)
    chosen = [choose_task("gradient", tasks, value, rng, options) for _ in range(400)]
    assert 400 * 0.2 * 0.6 < sum(choice != 1 for choice in chosen) < 400 * 0.2 * 1.4
    never = OptionSet((SchedulerOptions(epsilon=0.0),))
    assert {choose_task("gradient", tasks, value, rng, never) for _ in range(100)} == {1}


@pytest.mark.parametrize("power", [0.5, 0.7, 1.0])
def test_the_gradient_reaches_what_round_robin_ends_at_with_fewer_rounds(power: float) -> None:
    """Three made-up tasks of very different cost whose excess over a limit falls with a power of the rounds."""
    limits = (5e-3, 5e-4, 5e-5)

    def tune(strategy: str, rounds: int) -> list[float]:
        rng = np.random.default_rng(0)
        histories = [[2 * limit] for limit in limits]
        totals = []
        for _ in range(rounds):
            chosen = choose_task(strategy, [progress(history=tuple(history)) for history in histories], total, rng)
            assert chosen is not None
            histories[chosen].append(limits[chosen] * (1 + len(histories[chosen]) ** -power))
            totals.append(sum(history[-1] for history in histories))
        return totals

    base = tune("round-robin", 45)
    needed = next(number for number, now in enumerate(tune("gradient", 45), start=1) if now <= base[-1])
    assert needed <= 0.7 * 45


def test_equal_tasks_are_chosen_at_random_but_reproducibly() -> None:
    tasks = [progress(), progress(), progress()]
    chosen = [choose(tasks, seed=seed) for seed in range(40)]
    assert set(chosen) == {0, 1, 2}
    assert chosen == [choose(tasks, seed=seed) for seed in range(40)]


def test_round_robin_takes_the_task_with_the_fewest_rounds() -> None:
    assert choose([progress(history=LEVEL), progress(history=LEVEL[:3]), progress(history=LEVEL[:3])], "round-robin") == 1


def test_a_similar_task_with_high_throughput_promises_more() -> None:
    slow, fast = progress(group="g", history=(8e-3,) * 9), progress(group="g", history=(1e-3,) * 9)
    alone = task_gradients([progress(history=(8e-3,) * 9), progress(history=(1e-3,) * 9)], total)
    together = task_gradients([slow, fast], total)
    assert together[0] == pytest.approx(0.8 * (2e-3 - 8e-3))  # half of the best throughput
    assert together[0] < alone[0]
    assert together[1] == pytest.approx(alone[1])


def test_similar_tasks_that_only_move_data_have_no_throughput() -> None:
    tasks = [progress(group="g", flops=0), progress(group="g", flops=0)]
    assert task_gradients(tasks, weighted(1, 2))[1] == pytest.approx(2 * 0.8 * -0.5e-3)


def test_a_task_that_cannot_keep_up_with_its_group_leaves_it() -> None:
    slow, fast = progress(group="g", history=(8e-3,) * 12), progress(group="g", history=(1e-3,) * 3)
    assert task_gradients([slow, fast], total)[0] == pytest.approx(0.8 * -8e-3 / 11)


def test_an_objective_may_be_any_function() -> None:
    def only_the_second(latencies: NDArray[np.float64]) -> float:
        return float(latencies[1] ** 2)

    tasks = [progress(), progress()]
    assert choose_task("gradient", tasks, only_the_second, np.random.default_rng(0)) == 1
    assert task_gradients(tasks, only_the_second)[0] == 0


@given(
    st.lists(
        st.tuples(st.integers(1, 9), st.lists(st.floats(1e-6, 10), min_size=2, max_size=8), st.booleans()),
        min_size=1,
        max_size=6,
    )
)
def test_gradients_never_rise_and_a_living_task_is_chosen(drawn: list[tuple[int, list[float], bool]]) -> None:
    tasks = [progress(history=tuple(np.minimum.accumulate(history).tolist()), dead=dead) for _, history, dead in drawn]
    value = weighted(*(weight for weight, _, _ in drawn))
    assert (task_gradients(tasks, value) <= 0).all()
    chosen = choose(tasks, value=value)
    assert chosen is None if all(task.dead for task in tasks) else chosen is not None and not tasks[chosen].dead


def test_nonsense_is_refused_by_name() -> None:
    with pytest.raises(OptionError, match=r"no task scheduler 'magic'; known are gradient, random, round-robin"):
        choose_task("magic", [progress()], total, np.random.default_rng(0))
    for options, words in (
        ({"alpha": 2}, "alpha"),
        ({"beta": 0}, "beta"),
        ({"epsilon": -0.1}, "epsilon"),
        ({"backward_window": 0}, "window"),
        ({"early_stopping": -1}, "scheduler.early_stopping' must be 0 or more, not -1"),
    ):
        with pytest.raises(OptionError, match=words):
            SchedulerOptions(**options)  # type: ignore[arg-type]


def matrix_product(n: int) -> ComputeDAG:
    a, b = te.placeholder((n, n), name="A"), te.placeholder((n, n), name="B")
    k = te.reduce_axis(n, "k")
    product = te.compute((n, n), lambda i, j: te.reduce_sum(a[i, k] * b[k, j], k), name="C")
    return ComputeDAG.from_outputs(product)


def test_similarity_is_structure_and_magnitude() -> None:
    assert similarity_group(matrix_product(128)) == similarity_group(matrix_product(130))
    assert similarity_group(matrix_product(128)) != similarity_group(matrix_product(512))


def test_phases_add_up_to_the_elapsed_time() -> None:
    now = [0.0]
    timer = PhaseTimer(lambda: now[0])
    now[0] += 1
    with timer.phase("evolve"):
        now[0] += 2
        with timer.phase("predict"):
            now[0] += 4
        now[0] += 8
    with timer.phase("measure"):
        now[0] += 16
    timer.divide("measure", {"build": 5.0, "run": 7.0})
    timer.divide("measure", {"build": 100.0})
    phases = timer.summary()
    assert (phases["evolve"], phases["predict"], phases["build"], phases["run"]) == (10, 4, 5, 7)
    assert phases["other"] == 1 + 4
    assert sum(phases.values()) == timer.elapsed() == 31


def test_overlapping_intervals_count_once() -> None:
    assert covered_seconds([Span(0.0, 2.0), Span(1.0, 3.0), Span(5.0, 6.0), Span(5.5, 5.6)]) == 4.0
