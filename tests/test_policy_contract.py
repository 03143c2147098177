"""What holds for every policy: proposals are valid and new, seeds decide, spaces end, and search finds better than chance."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from ansor_py.lower.bounds import infer_bounds
from ansor_py.schedule.dag import ComputeDAG
from ansor_py.schedule.sketch import Population, Sketch
from ansor_py.schedule.state import State
from ansor_py.search.evolution.scores import ScoreFunction
from ansor_py.search.options import SearchOptions
from ansor_py.search.policies.annealing import AnnealingOptions
from ansor_py.search.policies.beam import BeamOptions, BeamPolicy, undecided
from ansor_py.search.policies.checked_policy import CheckedPolicy
from ansor_py.search.policies.genetic import GeneticOptions
from ansor_py.search.policies.grid import combinations
from ansor_py.search.policies.limited import LimitedOptions
from ansor_py.search.policies.policy import POLICIES, Policy, create_policy, sketches_for
from ansor_py.search.policies.template import SEARCHES, TemplateOptions
from ansor_py.search.sampling.candidates import Candidate, Observation
from ansor_py.search.sampling.space import Space
from ansor_py.search.sampling.validity import accepts
from ansor_py.sketch_rules.space_options import SpaceOptions
from ansor_py.target import Target
from ansor_py.te.ops.registry import from_spec
from targets import structure_targets

on_four_targets = pytest.mark.parametrize("target", structure_targets("cores=2"))
# For what is the same on all of them.
TARGET = Target.parse("x86-64 cpu=haswell cores=2")
WORKLOADS = ("matmul:96,80,64", "conv2d:1,8,14,14,16,3,pad=1,bias=1,relu=1", "softmax:24,160")
# Every policy, and policy `template` with every search.
KINDS = ("evolution", "random", "beam", "limited", *(f"template {search}" for search in SEARCHES))
BATCH = 24


def options_of(kind: str) -> SearchOptions:
    search = kind.partition(" ")[2] or "annealing"
    return SearchOptions(population=256, iterations=3).with_own(
        TemplateOptions(search=search), AnnealingOptions(steps=12), GeneticOptions(population=BATCH)
    )


@functools.cache
def sketches_of(spec: str, kind: str, target: Target) -> list[Sketch]:
    return sketches_for(kind.split()[0], ComputeDAG.from_outputs(from_spec(spec)), target, options_of(kind))


def speed(population: Population) -> NDArray[np.float64]:
    """How fast programs are pretended to be: the nearer to a hidden point in the middle of every choice, the faster."""
    place = population.genes / np.maximum(population.sketch.sizes - 1, 1)
    wanted = np.linspace(0.3, 0.8, len(population.sketch.holes))
    return np.asarray(np.exp(-4 * np.square(place - wanted).mean(axis=1) * math.sqrt(len(wanted))))


def informed(populations: Sequence[Population]) -> list[NDArray[np.float32]]:
    """A cost model that is right up to some noise, which depends on the program alone."""
    return [(speed(p) + 0.02 * np.sin(p.genes.sum(axis=1) * 12.9898)).astype(np.float32) for p in populations]


@dataclass(frozen=True)
class Measured:
    sketch_id: int | None
    genes: tuple[int, ...]
    cost: float
    trial: int


def tuned(
    spec: str,
    kind: str,
    target: Target,
    rounds: int,
    seed: int = 0,
    batch_size: int = BATCH,
    score: ScoreFunction = informed,
) -> tuple[Policy, list[list[Candidate]]]:
    """A search against the pretended speeds: its policy, and what it proposed in every round, up to the first empty one."""
    options = options_of(kind)
    policy = create_policy(
        kind.split()[0], sketches_of(spec, kind, target), target, score, np.random.default_rng(seed), options
    )
    batches: list[list[Candidate]] = []
    for number in range(rounds):
        batch = list(policy.propose(batch_size))
        batches.append(batch)
        if not batch:
            break
        costs = [1 / float(speed(Population(policy.sketches[c.sketch], c.genes[None, :]))[0]) for c in batch]
        policy.observe(
            [
                Measured(c.sketch, tuple(c.genes), cost, number * batch_size + place)
                for place, (c, cost) in enumerate(zip(batch, costs, strict=True))
            ]
        )
    return policy, batches


def test_every_registered_policy_is_covered() -> None:
    assert {kind.split()[0] for kind in KINDS} == {"evolution", "random", "beam", "limited", "template"} <= set(POLICIES)


@on_four_targets
@pytest.mark.parametrize("spec", WORKLOADS)
@pytest.mark.parametrize("kind", KINDS)
def test_proposals_are_distinct_valid_and_concrete(kind: str, spec: str, target: Target) -> None:
    policy, batches = tuned(spec, kind, target, rounds=2)
    proposed = [candidate for batch in batches for candidate in batch]
    assert all(len(batch) == BATCH for batch in batches)
    assert len({(c.sketch, *map(int, c.genes)) for c in proposed}) == len(proposed)
    spaces = [Space(sketch, target, options_of(kind)) for sketch in policy.sketches]
    for candidate in proposed:
        assert candidate.genes.dtype == np.int32
        assert accepts(spaces[candidate.sketch], candidate.genes[None, :]).all()
    for candidate in proposed[::7]:
        sketch = policy.sketches[candidate.sketch]
        assert infer_bounds(State.initial(sketch.dag).replay(sketch.concretise(candidate.genes)))


@on_four_targets
@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_decides_everything(kind: str, target: Target) -> None:
    def history(seed: int) -> list[tuple[object, ...]]:
        _, batches = tuned(WORKLOADS[0], kind, target, 2, seed)
        return [(c.sketch, *map(int, c.genes), c.operator, c.parent, c.predicted) for batch in batches for c in batch]

    assert history(3) == history(3)
    if kind != "template grid":  # in which nothing is random
        assert history(3) != history(4)


def by_rank(function: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> ScoreFunction:
    """`informed` through a strictly increasing function; coarse, so that float32 tells the results apart where it should."""

    def score(populations: Sequence[Population]) -> list[NDArray[np.float32]]:
        coarse = [np.round(values.astype(np.float64) + 1, 3) for values in informed(populations)]
        return [function(values).astype(np.float32) for values in coarse]

    return score


@pytest.mark.parametrize(
    "function", [lambda s: s - 7, np.log, np.exp, lambda s: 1e30 * s], ids=["negative", "log", "exp", "huge"]
)
@pytest.mark.parametrize("spec", WORKLOADS)
@pytest.mark.parametrize("kind", KINDS)
def test_only_the_order_of_scores_counts(
    kind: str, spec: str, function: Callable[[NDArray[np.float64]], NDArray[np.float64]]
) -> None:
    def history(score: ScoreFunction) -> list[tuple[object, ...]]:
        _, batches = tuned(spec, kind, TARGET, rounds=2, score=score)
        return [(c.sketch, *map(int, c.genes), c.operator, c.parent) for batch in batches for c in batch]

    assert history(by_rank(function)) == history(by_rank(lambda scores: scores))


@on_four_targets
@pytest.mark.parametrize("kind", KINDS)
def test_a_small_space_is_used_up_and_then_nothing_is_proposed(kind: str, target: Target) -> None:
    """Policies that draw may miss a few programs of a space; a grid misses none, and nobody proposes for ever."""
    policy, batches = tuned(f"softmax:2,{target.lanes('float32') // 2}", kind, target, rounds=40, batch_size=100)
    proposed = {(c.sketch, *map(int, c.genes)) for batch in batches for c in batch}
    assert sum(map(len, batches)) == len(proposed)
    assert not batches[-1]
    everything = set()
    for number, sketch in enumerate(policy.sketches):
        genes = combinations(sketch, 0, math.prod(map(int, sketch.sizes)))
        valid = genes[accepts(Space(sketch, target, options_of(kind)), genes)]
        everything |= {(number, *row) for row in valid.tolist()}
    assert proposed <= everything
    assert len(proposed) >= 0.9 * len(everything)
    if kind == "template grid":
        assert proposed == everything


@on_four_targets
@pytest.mark.parametrize("spec", ["matmul:96,80,64", "softmax:24,160"])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("random", "template random", "template grid")])
def test_a_search_finds_better_programs_than_chance_in_its_space(kind: str, spec: str, target: Target) -> None:
    def best(kind: str, seed: int) -> float:
        policy, batches = tuned(spec, kind, target, 6, seed)
        proposed = [candidate for batch in batches for candidate in batch]
        return max(float(speed(Population(policy.sketches[c.sketch], c.genes[None, :]))[0]) for c in proposed)

    def best_of_chance(seed: int) -> float:
        sketches = sketches_of(spec, kind, target)
        policy = create_policy("random", sketches, target, informed, np.random.default_rng(seed), options_of(kind))
        return max(float(speed(Population(sketches[c.sketch], c.genes[None, :]))[0]) for c in policy.propose(6 * BATCH))

    seeds = range(5)
    assert np.median([best(kind, seed) for seed in seeds]) > np.median([best_of_chance(seed) for seed in seeds])


@on_four_targets
def test_a_beam_scores_no_more_than_an_evolution_and_keeps_its_width(target: Target) -> None:
    scored: list[int] = []

    def score(populations: Sequence[Population]) -> list[NDArray[np.float32]]:
        scored.append(sum(map(len, populations)))
        return informed(populations)

    options = SearchOptions(population=512, iterations=3).with_own(BeamOptions(width=8))
    sketches = sketches_of(WORKLOADS[1], "beam", target)
    policy = create_policy("beam", sketches, target, score, np.random.default_rng(0), options)
    assert len(policy.propose(8)) == 8
    assert len(scored) == max(len(sketch.holes) for sketch in sketches)
    assert sum(scored) <= 1.05 * options.population * (options.iterations + 1)
    widest = max(int(sketch.sizes[-1]) for sketch in sketches)
    assert scored[-1] <= 8 * widest


@on_four_targets
def test_a_beam_never_sees_what_is_behind_a_bad_prefix(target: Target) -> None:
    """Programs that are only good once the last hole is decided are pruned: the weakness for which the paper avoids beams."""

    def misleading(populations: Sequence[Population]) -> list[NDArray[np.float32]]:
        found = []
        for population in populations:
            first, last = population.genes[:, 0], population.genes[:, -1]
            found.append(np.where((first % 5 == 0) & (last == 3), 9.0, 1.0 - (first % 5 == 0)).astype(np.float32))
        return found

    options = SearchOptions(population=512, iterations=3).with_own(BeamOptions(width=4))
    sketches = sketches_of(WORKLOADS[0], "beam", target)
    policy = BeamPolicy(sketches, target, misleading, np.random.default_rng(0), options)
    best = [candidate for candidate in policy.propose(4) if candidate.operator == "beam"]
    assert best
    assert all(candidate.predicted == 1.0 for candidate in best)


@on_four_targets
def test_an_undecided_program_is_parallel_and_otherwise_untransformed(target: Target) -> None:
    for sketch in sketches_of(WORKLOADS[1], "beam", target):
        for hole, gene in zip(sketch.holes, undecided(sketch), strict=True):
            choice = hole.choices[gene]
            match hole.kind:
                case "tile":
                    assert set(choice) == {1}
                case "location":
                    assert choice is None
                case "unroll":
                    assert choice == 0
                case "parallel":
                    assert choice == max(hole.choices)


@on_four_targets
@pytest.mark.parametrize("name", sorted({kind.split()[0] for kind in KINDS}))
def test_the_constants_of_the_rules_reach_the_space_of_every_policy(name: str, target: Target) -> None:
    options = SearchOptions(space=SpaceOptions(unroll_limits=(8,), round_sizes=(1, 5))).with_own(LimitedOptions(unroll=8))
    sketches = sketches_for(name, ComputeDAG.from_outputs(from_spec("matmul:128,128,128")), target, options)
    assert {hole.choices for sketch in sketches for hole in sketch.holes if hole.kind == "unroll"} == {(8,)}
    tiles = [hole.choices for sketch in sketches for hole in sketch.holes if hole.name == "tile C.i"]
    assert tiles
    assert all(any(5 in choice for choice in choices) for choices in tiles)


@on_four_targets
@pytest.mark.parametrize("spec", [*WORKLOADS, "layer_norm:32,96"])
def test_the_limited_space_has_no_fusion_and_one_unroll_limit(spec: str, target: Target) -> None:
    sketches = sketches_of(spec, "limited", target)
    for sketch in sketches:
        for hole in sketch.holes:
            assert hole.kind not in ("rfactor", "location")
            assert hole.kind != "unroll" or hole.choices == (LimitedOptions().unroll,)
            assert hole.kind != "tile" or all(choice[1:] in ((), (1,)) for choice in hole.choices)
    policy = create_policy("limited", sketches, target, informed, np.random.default_rng(0), options_of("limited"))
    for candidate in policy.propose(BATCH):
        kinds = {type(step).__name__ for step in sketches[candidate.sketch].concretise(candidate.genes)}
        assert not kinds & {"ComputeAt", "CacheWrite", "Rfactor", "FollowSplit"}


class InOrder:
    """Proposes the rows of a sketch in order, whatever is measured."""

    def __init__(self, sketch: Sketch) -> None:
        self.sketches = [sketch]
        self._rows = itertools.product(*(range(size) for size in sketch.sizes))

    def propose(self, count: int) -> list[Candidate]:
        return [Candidate(0, np.array(row, dtype=np.int32)) for row in itertools.islice(self._rows, count)]

    def observe(self, observations: Sequence[Observation]) -> None:
        """Learns nothing."""


def test_what_was_measured_not_for_its_sake_is_left_out_of_what_a_policy_proposes() -> None:
    """A policy need not know of the default schedule, which is a row of genes as well."""
    sketch = sketches_of("matmul:16,16,16", "evolution", TARGET)[0]
    policy, known = CheckedPolicy("mine", InOrder(sketch)), 1500  # as many as an earlier search may have measured
    rows = [row.genes.tolist() for row in InOrder(sketch).propose(known + 3)]
    policy.observe([Measured(0, tuple(row), 1.0, 0) for row in rows[:known]])
    assert [row.genes.tolist() for row in policy.propose(1)] == rows[known : known + 1]  # asked until something was new
    assert [row.genes.tolist() for row in policy.propose(2)] == rows[known + 1 :]


def test_combinations_are_all_rows_in_order() -> None:
    sketch = sketches_of("softmax:2,8", "template", TARGET)[0]
    total = math.prod(map(int, sketch.sizes))
    rows = combinations(sketch, 0, total)
    assert len(np.unique(rows, axis=0)) == total
    assert (rows < sketch.sizes).all()
    first = int(np.flatnonzero(sketch.sizes > 1)[0])
    assert rows[1][first] == 1
    assert np.array_equal(combinations(sketch, 5, 11), rows[5:11])


@on_four_targets
def test_children_of_the_genetic_search_name_a_parent_and_need_no_scores(target: Target) -> None:
    def nothing(populations: Sequence[Population]) -> list[NDArray[np.float32]]:
        raise AssertionError("nothing is to be scored")

    sketches = sketches_of(WORKLOADS[0], "template genetic", target)
    options = options_of("template genetic")
    policy = create_policy("template", sketches, target, nothing, np.random.default_rng(0), options)
    batch = policy.propose(BATCH)
    assert {candidate.operator for candidate in batch} == {"random"}
    policy.observe([Measured(c.sketch, tuple(c.genes), 1.0 + n, 100 + n) for n, c in enumerate(batch)])
    parents = {candidate.parent for candidate in policy.propose(BATCH) if candidate.operator == "genetic"}
    assert parents
    assert parents <= set(range(100, 100 + BATCH))
