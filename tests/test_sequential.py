"""How long a program is timed: two looks if it is clearly slower than the best, all samples if it may be the best."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from ansor_py.codegen.timing import Block
from ansor_py.measure.run import RunSettings
from ansor_py.measure.sequential import LOOKS, REPEATS, Noises, SequentialTimer, Timed

SETTINGS = RunSettings()


class Machine:
    """A kernel of known seconds a call. `factors` multiply the times of blocks; those at the places `disturbed` lose a core."""

    def __init__(self, seconds: float, factors: Sequence[float] = (), disturbed: Sequence[int] = ()) -> None:
        self.seconds, self.factors, self.disturbed = seconds, factors, disturbed
        self.calls: list[int] = []
        self.waited = 0.0

    def block(self, number: int) -> Block:
        place = len(self.calls)
        self.calls.append(number)
        self.waited += 0.01 * (place in self.disturbed)
        factor = self.factors[place] if place < len(self.factors) else 1.0
        return Block(number * self.seconds * factor, 0, number)

    def time(self, best: float | None, noises: Noises | None = None) -> Timed:
        timer = SequentialTimer(SETTINGS, noises or Noises(), self.block, lambda: self.waited)
        return timer.time(2 * self.seconds, best)  # the first call is a cold one


def learned(distance: float) -> Noises:
    noises = Noises()
    for _ in range(20):
        noises.looks.learn(1.0 + distance, 1.0)
        noises.samples.learn(1.0 + distance / 4, 1.0)
    return noises


def test_a_clearly_slower_program_is_looked_at_and_no_more() -> None:
    machine = Machine(2e-4)
    timed = machine.time(best=1e-4)
    assert len(machine.calls) == len(timed.costs) == LOOKS
    assert timed.costs == pytest.approx((2e-4, 2e-4))
    assert timed.early_end is not None
    assert timed.early_end.best == 1e-4 < timed.early_end.bound < 2e-4
    assert sum(machine.calls) * machine.seconds < SETTINGS.min_block_seconds


@pytest.mark.parametrize("best", [None, 1e-4, 1.01e-4, 2e-4])
def test_what_may_be_the_best_has_all_samples(best: float | None) -> None:
    machine = Machine(1e-4)
    timed = machine.time(best)
    assert timed.early_end is None
    assert len(timed.costs) == SETTINGS.max_repeats
    assert all(number * machine.seconds >= SETTINGS.min_block_seconds for number in machine.calls[LOOKS:])


@pytest.mark.parametrize(("distance", "blocks"), [(0.0, LOOKS), (0.1, LOOKS + 1), (0.5, LOOKS + SETTINGS.max_repeats)])
def test_a_noisy_machine_needs_more_time(distance: float, blocks: int) -> None:
    machine = Machine(1.15e-4)
    timed = machine.time(best=1e-4, noises=learned(distance))
    assert len(machine.calls) == blocks
    assert (timed.early_end is None) is (blocks == LOOKS + SETTINGS.max_repeats)


def test_noise_is_learned_from_programs_with_all_samples() -> None:
    noises = Noises()
    unknown = noises.samples.deviation
    for _ in range(10):
        Machine(1e-4, factors=(1.05, 1.04, 1.02, 0.98, 1.0, 1.0, 1.03)).time(best=None, noises=noises)
    assert noises.samples.deviation < noises.looks.deviation < unknown


def test_one_slow_look_ends_nothing() -> None:
    timed = Machine(1e-4, factors=(3.0, 1.0)).time(best=1e-4)
    assert timed.early_end is None


def test_a_program_that_looked_fast_ends_after_a_sample() -> None:
    """No noise is that large: the least of all times counts, and that is the look's."""
    machine = Machine(1e-2)
    timed = machine.time(best=5e-3)
    assert len(timed.costs) == 1  # a call that fills a block is one
    assert timed.early_end is not None


def test_disturbed_blocks_are_repeated_twice_then_kept_and_counted() -> None:
    once = Machine(1e-4, disturbed=(3,)).time(best=None)
    assert (len(once.costs), once.disturbed) == (SETTINGS.max_repeats, 0)
    machine = Machine(1e-4, disturbed=range(LOOKS, 100))
    always = machine.time(best=None)
    assert (len(always.costs), always.disturbed) == (SETTINGS.max_repeats, SETTINGS.max_repeats)
    assert len(machine.calls) == LOOKS + SETTINGS.max_repeats + REPEATS


def test_blocks_that_turn_out_short_are_no_samples() -> None:
    machine = Machine(1e-4, factors=(10.0, 10.0))
    timed = machine.time(best=None)
    assert timed.costs == pytest.approx([1e-4] * SETTINGS.max_repeats)
    assert machine.calls[LOOKS] < machine.calls[LOOKS + 1] == machine.calls[-1]


@pytest.mark.parametrize("place", [0, 1, 2, 4])
def test_a_status_ends_timing(place: int) -> None:
    machine = Machine(1e-4)
    whole: Callable[[int], Block] = machine.block

    def block(number: int) -> Block:
        found = whole(number)
        return Block(found.seconds, 1, number - 1) if len(machine.calls) > place else found

    timed = SequentialTimer(SETTINGS, Noises(), block, lambda: 0.0).time(1e-4, None)
    assert timed.stopped is not None
    assert (timed.stopped.status, len(machine.calls), timed.costs) == (1, place + 1, ())
