"""Searching among programs that were measured before: any policy, with its candidates replaced by the nearest in a pool.

A policy proposes what it likes; what is measured is the program of the pool that is most like it and was not measured yet. So
a study of policies by `--runner replay` needs nothing from them, and in a large pool they differ as they do on a machine.

    policy = PooledPolicy(create_policy("evolution", ...), score, measurer.known_programs(task.workload_key))
    policy.propose(64)          # programs of the pool only
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ansor_py.errors import OptionError
from ansor_py.measure.records import Record
from ansor_py.schedule.sketch import Population, Sketch
from ansor_py.search.evolution.scores import ScoreFunction
from ansor_py.search.loop.recorded_programs import trainable
from ansor_py.search.policies.policy import Policy, RoundState, inform
from ansor_py.search.sampling.candidates import Candidate, Candidates, Observation


class PooledPolicy:
    """A policy that is restricted to the programs of `pool` that its sketches contain. Raises OptionError if there are none."""

    def __init__(self, policy: Policy, score: ScoreFunction, pool: Sequence[Record]) -> None:
        self._policy = policy
        self._score = score
        members = [record for record in pool if trainable(record, policy.sketches)]
        if not members:
            raise OptionError(
                f"none of the {len(pool)} records of task '{pool[0].task if pool else ''}' is of a program that this policy "
                "and these rules know; replay with the policy and the rules of the search that left them"
            )
        self._sketch = np.array([record.sketch_id for record in members], dtype=np.int64)
        self._genes = [np.array(record.genes, dtype=np.int32) for record in members]
        self._left = np.ones(len(members), dtype=np.bool_)
        self._places = {(record.sketch_id, record.genes): place for place, record in enumerate(members)}

    @property
    def sketches(self) -> Sequence[Sketch]:
        """Those of the policy."""
        return self._policy.sketches

    def begin_round(self, state: RoundState) -> None:
        """Tell the policy."""
        inform(self._policy, state)

    def propose(self, count: int) -> Candidates:
        """At most `count` programs of the pool: the nearest to what the policy proposes, in its order."""
        wanted = min(count, int(self._left.sum()))
        if not wanted:
            return []
        chosen = [self._taken(self._nearest(wish), wish) for wish in self._policy.propose(wanted)]
        for place in np.flatnonzero(self._left)[: wanted - len(chosen)]:  # the policy has nothing left to wish for
            chosen.append(self._taken(int(place), None))
        return chosen

    def observe(self, observations: Sequence[Observation]) -> None:
        """Measured programs leave the pool; the policy is told of them."""
        for item in observations:
            place = self._places.get((item.sketch_id, tuple(item.genes)))
            if place is not None:
                self._left[place] = False
        self._policy.observe(observations)

    def _nearest(self, wish: Candidate) -> int:
        """The program that is left with the fewest other genes, and those least other; of the same sketch if there is one."""
        left = np.flatnonzero(self._left)
        same = left[self._sketch[left] == wish.sketch]
        if not len(same):
            return int(left[0])
        sizes = self.sketches[wish.sketch].sizes
        return int(same[np.argmin(_distances(np.stack([self._genes[place] for place in same]), wish.genes, sizes))])

    def _taken(self, place: int, wish: Candidate | None) -> Candidate:
        self._left[place] = False
        sketch, genes = int(self._sketch[place]), self._genes[place]
        if wish is None or wish.predicted is None:
            return Candidate(sketch, genes, None, wish.parent if wish else None, wish.operator if wish else "random")
        [scores] = self._score([Population(self.sketches[sketch], genes[None, :])])
        return Candidate(sketch, genes, float(scores[0]), wish.parent, wish.operator)


def _distances(rows: NDArray[np.int32], genes: NDArray[np.int32], sizes: NDArray[np.int64]) -> NDArray[np.float64]:
    """How far rows are from one: a gene that is another counts one, and up to one more for how far apart the choices stand."""
    apart = np.abs(rows.astype(np.int64) - genes)
    return np.asarray((apart > 0).sum(axis=1) + (apart / sizes).sum(axis=1))
