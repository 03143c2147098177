"""Programs handed on between similar tasks: valid in the other task, most like the original, once, and only what was a gain."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from ansor_py.schedule.dag import ComputeDAG
from ansor_py.schedule.hole_kinds import TileHole
from ansor_py.schedule.sketch import Sketch
from ansor_py.search.loop.inheriting_policy import OPERATOR, Finding, InheritingPolicy, adapted_genes, relate
from ansor_py.search.options import SearchOptions
from ansor_py.search.policies.policy import create_policy, sketches_for
from ansor_py.search.sampling.candidates import Candidate
from ansor_py.search.sampling.sampler import sample
from ansor_py.search.sampling.space import Space
from ansor_py.search.sampling.validity import accepts
from ansor_py.target import Target
from ansor_py.te.ops.registry import from_spec
from targets import structure_targets

OPTIONS = SearchOptions(population=64, iterations=2)
LARGE, SMALL = "conv2d:1,32,28,28,64,3,pad=1,bias=1,relu=1", "conv2d:1,48,14,14,96,3,pad=1,bias=1,relu=1"
on_four_targets = pytest.mark.parametrize("target", structure_targets("cores=2"))
TARGET = Target.parse("x86-64 cpu=haswell cores=2")


@dataclass(frozen=True)
class Measured:
    """A measured program."""

    sketch_id: int | None
    genes: tuple[int, ...]
    cost: float
    trial: int


def sketches_of(spec: str, target: Target) -> list[Sketch]:
    return sketches_for("evolution", ComputeDAG.from_outputs(from_spec(spec)), target, OPTIONS)


def inheriting(spec: str, target: Target = TARGET) -> InheritingPolicy:
    """A policy of random programs for a task."""
    sketches = sketches_of(spec, target)
    policy = create_policy("random", sketches, target, lambda populations: [], np.random.default_rng(1), OPTIONS)
    return InheritingPolicy(policy, lambda sketch: Space(sketch, target, OPTIONS), np.random.default_rng(2))


def random_rows(sketch: Sketch, target: Target, count: int) -> np.ndarray:
    return sample(Space(sketch, target, OPTIONS), count, np.random.default_rng(3))


def observed(policy: InheritingPolicy, costs: Sequence[float]) -> list[Measured]:
    """Random programs of the first sketch, measured."""
    rows = random_rows(policy.sketches[0], TARGET, len(costs))
    measured = enumerate(zip(rows, costs, strict=True))
    programs = [Measured(0, tuple(map(int, row)), cost, trial) for trial, (row, cost) in measured]
    policy.observe(programs)
    return programs


def inherited(candidates: Sequence[Candidate]) -> list[Candidate]:
    return [candidate for candidate in candidates if candidate.operator == OPERATOR]


@on_four_targets
def test_an_adapted_program_is_valid_and_takes_equal_choices_where_there_are(target: Target) -> None:
    large, small = sketches_of(LARGE, target), sketches_of(SMALL, target)
    pairs = [(old, new) for old in large for new in small if old.name == new.name]
    assert pairs
    kept = tried = valid = 0
    for old, new in pairs:
        space = Space(new, target, OPTIONS)
        for row in random_rows(old, target, 20):
            genes = adapted_genes(Finding.of_genes(old, row.tolist(), 0, 1.0), new)
            assert genes is not None
            assert ((genes >= 0) & (genes < new.sizes)).all()
            for gene, mine, other, adapted in zip(row, old.holes, new.holes, genes, strict=True):
                if mine.choices[gene] in other.choices:
                    assert other.choices[adapted] == mine.choices[gene]
                    kept += 1
            tried += 1
            valid += bool(accepts(space, genes[None, :])[0])
    assert kept > 0
    assert valid > tried / 4, f"{valid} of {tried} adapted programs are valid"


def test_lengths_are_adapted_by_their_ratio() -> None:
    dag = ComputeDAG.from_outputs(from_spec("matmul:96,80,64"))
    old = Sketch("one", dag, (), (TileHole("tile", "C", ((1, 32), (12, 2))),))
    new = Sketch("one", dag, (), (TileHole("tile", "C", ((1, 1), (16, 2), (1, 28), (7, 7))),))
    assert adapted_genes(Finding.of_genes(old, [0], 0, 1.0), new) == [2]
    assert adapted_genes(Finding.of_genes(old, [1], 0, 1.0), new) == [1]
    assert adapted_genes(Finding.of_genes(old, [0], 0, 1.0), Sketch("another", dag, (), new.holes)) is None


def test_a_gain_is_handed_on_once() -> None:
    giver, taker = inheriting(LARGE), inheriting(SMALL)
    relate([giver, taker])
    programs = observed(giver, [2e-3, 1.5e-3, 1e-3, math.inf])
    [first] = inherited(taker.propose(8))
    assert first.parent == programs[2].trial
    assert accepts(Space(taker.sketches[first.sketch], TARGET, OPTIONS), first.genes[None, :])[0]
    assert not inherited(taker.propose(8))
    assert not inherited(giver.propose(8)), "the giver was told its own program"
    giver.observe([Measured(0, programs[1].genes, 0.9e-3, 9)])  # another one, and better
    assert [candidate.parent for candidate in inherited(taker.propose(8))] == [9]


def test_what_gains_nothing_is_not_handed_on() -> None:
    giver, taker = inheriting(LARGE), inheriting(SMALL)
    relate([giver, taker])
    observed(giver, [1e-3, 0.99e-3, 1.2e-3])
    assert not inherited(taker.propose(8))


def test_a_batch_has_its_size_and_at_most_a_quarter_of_it_is_inherited() -> None:
    givers, taker = [inheriting(LARGE) for _ in range(5)], inheriting(SMALL)
    relate([*givers, taker])
    for number, giver in enumerate(givers):
        rows = random_rows(giver.sketches[0], TARGET, 2 * number + 2)
        measured = [Measured(0, tuple(map(int, row)), 1e-3, 100 * number + n) for n, row in enumerate(rows)]
        measured[-1] = Measured(0, measured[-1].genes, (0.5 + number / 10) * 1e-3, measured[-1].trial)
        giver.observe(measured)
    batch = taker.propose(8)
    assert len(batch) == 8
    assert len(inherited(batch)) == 2
    assert [candidate.parent for candidate in inherited(batch)] == [1, 103], "the greatest gains come first"
    assert len({(candidate.sketch, tuple(candidate.genes)) for candidate in batch}) == 8


def test_a_task_of_another_expression_is_told_nothing() -> None:
    giver, taker = inheriting(LARGE), inheriting("matmul:96,80,64")
    relate([giver, taker])
    observed(giver, [2e-3, 1e-3])
    assert not inherited(taker.propose(8))
