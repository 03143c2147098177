"""A policy as the search uses it: what it proposes is checked, what it raises is one error that names it.

policy = checked_policy("mine", sketches, target, score, rng, options)
policy.propose(16)      # PlugInError: policy 'mine': propose gave 17 candidates, where at most 16 were asked for
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from ansor_py.errors import PlugInError, plug_in
from ansor_py.schedule.sketch import Sketch
from ansor_py.search.evolution.scores import ScoreFunction
from ansor_py.search.options import SearchOptions
from ansor_py.search.policies.policy import Policy, RoundState, create_policy, inform
from ansor_py.search.sampling.candidates import Candidate, Candidates, Observation
from ansor_py.target import Target


class CheckedPolicy:
    """A policy between the search and one that is registered as `name`. Raises PlugInError."""

    def __init__(self, name: str, policy: Policy) -> None:
        self.name = name
        self.policy = policy
        self._known: set[tuple[int, ...]] = set()  # programs that were measured
        self._given: set[tuple[int, ...]] = set()  # programs that the policy proposed
        with plug_in(f"policy '{name}': its sketches"):
            self._sketches = tuple(policy.sketches)
            if not all(isinstance(sketch, Sketch) for sketch in self._sketches):
                raise PlugInError(f"policy '{name}': 'sketches' holds {self._sketches!s:.60}; it must hold sketches")
        for method in ("propose", "observe"):
            if not callable(getattr(policy, method, None)):
                raise PlugInError(f"policy '{name}': {type(policy).__name__} has no method '{method}'")

    @property
    def sketches(self) -> Sequence[Sketch]:
        """The sketches that candidates refer to by number."""
        return self._sketches

    def begin_round(self, state: RoundState) -> None:
        """Tell it how the search stands, if it wants to know."""
        with plug_in(f"policy '{self.name}': begin_round"):
            inform(self.policy, state)

    def propose(self, count: int) -> Candidates:
        """At most `count` programs of the sketches, without those that were measured and not for the policy's sake.

        The default schedule is such a one, and what an earlier search measured. Where nothing else is left of what the policy
        gives, it is asked again.
        """
        while checked := self._proposed(count):
            new = [candidate for candidate in checked if (candidate.sketch, *candidate.genes.tolist()) not in self._known]
            if new:
                return new
        return []

    def _proposed(self, count: int) -> Candidates:
        with plug_in(f"policy '{self.name}': propose"):
            given = list(itertools.islice(self.policy.propose(count), count + 1))
            if len(given) > count:
                raise self._error(f"gave {count + 1} candidates or more, where at most {count} were asked for")
            checked = [self._checked(candidate) for candidate in given]
        seen: set[tuple[int, ...]] = set()
        for sketch, genes, *_ in checked:
            key = (sketch, *genes.tolist())
            if key in seen or (key in self._given and key in self._known):
                when = "twice" if key in seen else "that is measured already"
                raise self._error(f"gave a program {when}, genes {genes.tolist()!s:.60} of sketch {sketch}")
            seen.add(key)
        self._given |= seen
        return checked

    def observe(self, observations: Sequence[Observation]) -> None:
        """Tell it of measured programs."""
        with plug_in(f"policy '{self.name}': observe"):
            self.policy.observe(observations)
        self._known.update((o.sketch_id, *o.genes) for o in observations if o.sketch_id is not None)

    def _checked(self, given: Any) -> Candidate:
        """One candidate with its numbers as they must be."""
        try:
            sketch, genes, predicted, parent, origin = given
            number, row = operator.index(sketch), np.asarray(genes)
            parent = None if parent is None else operator.index(parent)
            predicted = None if predicted is None else float(predicted)
        except (TypeError, ValueError):
            raise self._error(f"gave {given!r:.80}; a candidate is (sketch, genes, predicted, parent, operator)") from None
        if not 0 <= number < len(self._sketches):
            raise self._error(f"gave a candidate of sketch {number}; there are {len(self._sketches)}")
        sizes = self._sketches[number].sizes
        if row.shape != sizes.shape or not (np.issubdtype(row.dtype, np.integer) or not row.size):
            raise self._error(
                f"gave genes {row.dtype}{list(row.shape)} for sketch {number}; it has {len(sizes)} holes, int32[{len(sizes)}]"
            )
        if wrong := np.flatnonzero((row < 0) | (row >= sizes)).tolist():
            hole = self._sketches[number].holes[wrong[0]]
            raise self._error(f"gave gene {row[wrong[0]]} for hole '{hole.name}', which has {len(hole.choices)} choices")
        if predicted is not None and not math.isfinite(predicted):
            raise self._error(f"gave {predicted} as a predicted score; it must be a finite number or None")
        return Candidate(number, row.astype(np.int32), predicted, parent, str(origin))

    def _error(self, fault: str) -> PlugInError:
        return PlugInError(f"policy '{self.name}': propose {fault}")


def checked_policy(
    name: str,
    sketches: Sequence[Sketch],
    target: Target,
    score: ScoreFunction,
    rng: np.random.Generator,
    options: SearchOptions,
) -> CheckedPolicy:
    """The policy of that name with checks. Raises OptionError for an unknown name, PlugInError for one that cannot be made."""
    with plug_in(f"policy '{name}': its construction"):
        policy = create_policy(name, sketches, target, score, rng, options)
    return CheckedPolicy(name, policy)
