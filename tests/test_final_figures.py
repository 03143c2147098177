"""The figures at the end of a search: fresh processes, their interval, the machine's noise and what others take of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ansor_py import te
from ansor_py.schedule.task import Task
from ansor_py.search.loop.confirmation import Confirmation, confidence_interval, processes_for
from ansor_py.search.loop.machine_watch import MachineWatch, ProcessorAccounts, spread
from ansor_py.search.loop.run_directory import summarise
from ansor_py.search.loop.tuning import tune
from ansor_py.search.loop.tuning_options import TuningOptions
from ansor_py.target import Target


def test_the_interval_is_students_of_the_logarithms() -> None:
    low, high = confidence_interval([1.0, 1.1, 1.2, 1.05])
    # by hand: logarithms with mean 0.08161 and standard deviation 0.07761; 3.18245 of the latter over the root of 4
    assert (low, high) == pytest.approx((0.95898, 1.22764), rel=1e-4)
    assert confidence_interval([2.0, 2.0, 2.0]) == pytest.approx((2.0, 2.0))


def test_a_slow_process_is_slow_for_both_and_leaves_the_speedup_alone() -> None:
    sure = Confirmation(best=(1.0, 2.0, 1.5, 1.0), default=(1.2, 2.4, 1.8, 1.2))
    assert sure.speedup == pytest.approx(1.2)
    assert sure.speedup_interval == pytest.approx((1.2, 1.2))
    assert sure.interval[0] < 1.0 < sure.seconds < 2.0 < sure.interval[1]
    assert Confirmation(best=(1.0, 1.0)).speedup is None


def test_short_searches_and_networks_are_not_timed_again() -> None:
    assert [processes_for(trials, 2) for trials in (64, 96, 128, 1000)] == [0, 3, 4, 4]
    assert processes_for(1000, 50) == processes_for(1000, 0) == 0


def test_winners_are_timed_in_fresh_processes() -> None:
    task = Task.from_compute(te.matmul(64, 64, 64), Target.detect().with_cores(1))
    result = tune(task, 97, options=TuningOptions(batch=48, policy="random"))
    [item] = result.tasks
    assert item.confirmed is not None
    assert len(item.confirmed.best) == len(item.confirmed.default) == 3
    assert item.best is not None
    assert item.best.result.costs == item.confirmed.best
    assert item.latency == item.confirmed.seconds
    measured = {record.trial: record.cost for record in result.records}
    assert item.best.cost != measured[item.best.trial]  # the record of the trial stays as it was
    [summary] = summarise(result, "matmul", "target", 1, None, None)["tasks"]
    assert summary["best_interval_ms"][0] <= summary["best_ms"] <= summary["best_interval_ms"][1]
    assert summary["speedup_interval"][0] <= summary["speedup"] <= summary["speedup_interval"][1]
    assert result.machine.noise is not None
    assert result.machine.noise_before is not None


class Accounts:
    """Processor seconds of two cores, of which others take a share."""

    def __init__(self, taken: float) -> None:
        self.taken, self.now = taken, 0.0

    def all_seconds(self) -> float:
        return 100.0 + (1.5 + self.taken) * self.now

    def own_seconds(self) -> float:
        return 7.0 + 1.5 * self.now


def test_a_core_that_others_take_is_warned_of_once() -> None:
    accounts = Accounts(taken=0.1)
    watch = MachineWatch(accounts, lambda: accounts.now)
    watch.begin()
    accounts.now = 1.0
    assert not watch.round_ended()
    assert watch.state.cores_taken is None  # too short to tell
    accounts.now = 10.0
    assert not watch.round_ended()
    assert watch.state.cores_taken == pytest.approx(0.1)
    accounts.taken, accounts.now = 0.6, 20.0  # 11 core seconds of these 10
    assert watch.round_ended()
    assert watch.state.most_cores_taken == pytest.approx(1.1)
    assert watch.state.cores_taken == pytest.approx(0.6)
    accounts.now = 30.0
    assert not watch.round_ended()
    assert MachineWatch(None).state.cores_taken is None


def test_noise_is_the_distance_of_the_quartiles() -> None:
    assert spread([1.0, 1.0, 1.0]) is None
    assert spread([1.0, 1.1, 1.0, 1.2, 0.9]) == pytest.approx(0.1)


def test_accounts_are_read_from_proc(tmp_path: Path) -> None:
    core, me, tick = min(os.sched_getaffinity(0)), os.getpid(), os.sysconf("SC_CLK_TCK")
    (tmp_path / "stat").write_text(
        f"cpu  1 1 1 1 1 1 1 1\ncpu{core} 100 20 30 4000 50 6 7 8 99 99\ncpu9999 5 5 5 5 5 5 5 5\nctxt 1\n"
    )

    def process(number: int, parent: int, ticks: tuple[int, int, int, int]) -> None:
        (tmp_path / str(number)).mkdir()
        fields = ["S", parent, *[0] * 9, *ticks, *[0] * 5]  # from the third on
        (tmp_path / str(number) / "stat").write_text(f"{number} (a name) with) spaces) {' '.join(map(str, fields))}\n")

    process(me, 1, (10, 1, 2, 3))
    process(me + 1, me, (100, 0, 0, 0))
    process(me + 2, me + 1, (0, 1000, 0, 0))
    process(me + 3, 1, (5000, 0, 0, 0))
    accounts = ProcessorAccounts(tmp_path)
    assert accounts.all_seconds() == pytest.approx((100 + 20 + 30 + 6 + 7 + 8) / tick)
    assert accounts.own_seconds() == pytest.approx((16 + 100 + 1000) / tick)
    assert ProcessorAccounts(tmp_path / "none").all_seconds() is None


def test_the_accounts_of_this_machine_know_what_this_process_spends() -> None:
    accounts = ProcessorAccounts()
    own, everything = accounts.own_seconds(), accounts.all_seconds()
    end = os.times().user + 0.3
    while os.times().user < end:
        pass
    assert 0.25 < accounts.own_seconds() - own < 5.0
    assert everything is not None
    assert (accounts.all_seconds() or 0.0) - everything > 0.2
