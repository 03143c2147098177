"""What holds for every policy. See `ansor_py.testing`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ansor_py.schedule.sketch import Population
from ansor_py.search.loop.tuning import tune
from ansor_py.search.loop.tuning_options import TuningOptions
from ansor_py.search.options import SearchOptions
from ansor_py.search.policies.checked_policy import CheckedPolicy, checked_policy
from ansor_py.search.policies.policy import POLICIES, RoundState, sketches_for
from ansor_py.search.sampling.candidates import Candidate
from ansor_py.search.sampling.space import Space
from ansor_py.search.sampling.validity import accepts
from ansor_py.testing.subjects import PRODUCT, ROWS, SEARCH, SMALL, TARGETS, check, registered_as, task_of

BATCH = 12
MOST_ROUNDS = 60  # in which a space of few programs has to come to its end


@dataclass(frozen=True)
class Measured:
    """What a policy is told of a program."""

    sketch_id: int | None
    genes: tuple[int, ...]
    cost: float
    trial: int


def likes_low_genes(populations: Sequence[Population]) -> list[NDArray[np.float32]]:
    """Scores of a cost model that is sure of itself; all are negative."""
    return [np.asarray(-1.0 - p.genes.sum(axis=1), dtype=np.float32) for p in populations]


class PolicyConformance:
    """Subclass it and name the policy.

    Attributes:
        name: under which it is registered.
        options: of the searches here; small ones, so that the suite takes seconds.
        specs: operators that it can search.
        small: an operator with few programs, all of which the policy finds; "" if it makes no such promise.
    """

    name: ClassVar[str]
    options: ClassVar[SearchOptions] = SEARCH
    specs: ClassVar[tuple[str, ...]] = (PRODUCT, ROWS)
    small: ClassVar[str] = SMALL

    def _policy(self, spec: str, target: str = TARGETS[1], seed: int = 0, scores: object = None) -> CheckedPolicy:
        task = task_of(spec, target)
        sketches = sketches_for(self.name, task.dag, task.target, self.options)
        score = likes_low_genes if scores is None else scores
        rng = np.random.default_rng(seed)
        return checked_policy(self.name, sketches, task.target, score, rng, self.options)  # type: ignore[arg-type]

    def _rounds(self, policy: CheckedPolicy, count: int, first: int = 0) -> list[list[Candidate]]:
        """Rounds of proposing and measuring; every third program fails."""
        batches = []
        for number in range(first, first + count):
            policy.begin_round(RoundState(number, number * BATCH, 1000 - number * BATCH, None, 1.0, 1.0))
            batch = list(policy.propose(BATCH))
            batches.append(batch)
            if not batch:
                break
            policy.observe(told_of(batch, number * BATCH))
        return batches

    def test_it_is_registered_and_says_what_it_does(self) -> None:
        """By name and docstring; its options have a default."""
        registered_as(POLICIES, self.name)

    def test_its_programs_are_valid_and_new_on_every_target(self) -> None:
        """At most as many as asked for, each once."""
        for spec in self.specs:
            for target in TARGETS:
                policy = self._policy(spec, target)
                machine = task_of(spec, target).target
                spaces = [Space(sketch, machine, self.options) for sketch in policy.sketches]
                found = [candidate for batch in self._rounds(policy, 2) for candidate in batch]
                check(found, f"it proposes nothing for {spec} on {target}")
                keys = {(c.sketch, *c.genes.tolist()) for c in found}
                check(len(keys) == len(found), f"it proposes a program of {spec} twice")
                for c in found:
                    valid = accepts(spaces[c.sketch], c.genes[None, :])[0]
                    check(valid, f"it proposes an invalid program of {spec} on {target}: sketch {c.sketch}, {c.genes.tolist()}")

    def test_the_seed_decides(self) -> None:
        """Two policies of one seed propose the same."""
        first, second = ([_keys(b) for b in self._rounds(self._policy(self.specs[0], seed=3), 3)] for _ in range(2))
        check(first == second, "two policies of the same seed propose different programs")

    def test_it_goes_on_where_another_one_stopped(self) -> None:
        """What an earlier search measured is observed first, and not proposed again."""
        spec = self.specs[0]
        before = self._rounds(self._policy(spec, seed=1), 2)
        known = {key for batch in before for key in _keys(batch)}
        policy = self._policy(spec, seed=2)
        for number, batch in enumerate(before):
            policy.observe(told_of(batch, number * BATCH))
        after = [key for batch in self._rounds(policy, 2, first=2) for key in _keys(batch)]
        check(after, "it proposes nothing after an earlier search")
        check(not known & set(after), "it proposes what an earlier search has measured")

    def test_it_bears_what_it_did_not_propose_and_failures(self) -> None:
        """Programs of no sketch, of others, and a round in which every program fails."""
        policy = self._policy(self.specs[0])
        policy.observe([])
        policy.observe([Measured(None, (), 1.0, 0)])
        first = list(policy.propose(BATCH))
        policy.observe([Measured(c.sketch, tuple(map(int, c.genes)), math.inf, n) for n, c in enumerate(first)])
        check(policy.propose(BATCH), "it proposes nothing after a round in which every program failed")

    def test_any_finite_scores_will_do(self) -> None:
        """All equal, huge, tiny and negative ones; only their order may count."""
        for scores in (0.0, -3e38, 3e38, 1e-38):
            policy = self._policy(
                self.specs[0], scores=lambda ps, value=scores: [np.full(len(p), value, dtype=np.float32) for p in ps]
            )
            check(policy.propose(BATCH), f"it proposes nothing when every score is {scores}")

    def test_batches_of_one_and_none(self) -> None:
        """As small as they may be."""
        policy = self._policy(self.specs[0])
        check(len(policy.propose(1)) == 1, "asked for one program, it does not propose one")

    def test_a_space_of_few_programs_comes_to_its_end(self) -> None:
        """Each program once, then none."""
        if not self.small:
            return
        policy = self._policy(self.small)
        found: set[tuple[int, ...]] = set()
        for number in range(MOST_ROUNDS):
            batch = list(policy.propose(BATCH))
            if not batch:
                check(found, f"it proposes nothing for {self.small}")
                return
            check(not found & set(_keys(batch)), f"it proposes a program of {self.small} again")
            found.update(_keys(batch))
            policy.observe(told_of(batch, number * BATCH))
        raise AssertionError(f"it proposes programs of {self.small} for ever, {len(found)} so far")

    def test_a_search_uses_it(self) -> None:
        """On the simulated CPU, twice: the records are the same."""
        options = TuningOptions(policy=self.name, cost_model="random", batch=6, search=self.options)
        first, second = (tune(task_of(self.specs[0]), 25, 5, "simulated", options).records for _ in range(2))
        check(len(first) > 1, "a search with it measures nothing but the default schedule")
        same = [(r.sketch_id, r.genes) for r in first] == [(r.sketch_id, r.genes) for r in second]
        check(same, "two searches of one seed measure different programs")


def told_of(batch: Sequence[Candidate], first: int) -> list[Measured]:
    """Measured programs whose cost rises with their genes; every third one has failed."""
    return [
        Measured(c.sketch, tuple(map(int, c.genes)), math.inf if place % 3 == 2 else 1.0 + float(c.genes.sum()), first + place)
        for place, c in enumerate(batch)
    ]


def _keys(batch: Sequence[Candidate]) -> list[tuple[int, ...]]:
    return [(candidate.sketch, *candidate.genes.tolist()) for candidate in batch]
