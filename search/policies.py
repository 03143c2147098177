"""The built-in policies: evolution with a cost model, and random search.

policy = EvolutionPolicy(sketches, target, score, rng, options)
for candidate in policy.propose(64): ...
policy.observe(records)
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ansor_py.schedule.sketch import Genes, Sketch
from ansor_py.search.candidates import Candidate, Keys, Observation, row_keys
from ansor_py.search.evolution import NO_PARENT, Breed, breed, evolve, join
from ansor_py.search.options import SearchOptions
from ansor_py.search.policy import ScoreFunction, policy
from ansor_py.search.sampling import sample
from ansor_py.search.space import Space
from ansor_py.search.validity import Mask, accepts
from ansor_py.target import Target

# Random programs drawn for every one that is wanted, as some were measured before.
RANDOM_SPARE = 3


class _Sampler:
    """What both policies share: the spaces, what was proposed or measured, random programs."""

    def __init__(
        self,
        sketches: Sequence[Sketch],
        target: Target,
        score: ScoreFunction,
        rng: np.random.Generator,
        options: SearchOptions,
    ) -> None:
        self.sketches = tuple(sketches)
        self.options = options
        self.score = score
        self.rng = rng
        self.spaces = [Space(sketch, target, options) for sketch in self.sketches]
        for space in self.spaces:
            space.warm_up()
        self._seen: set[int] = set()

    @property
    def seen(self) -> Keys:
        """Keys of all programs that were proposed or observed, ascending."""
        return np.array(sorted(self._seen), dtype=np.uint64)

    def observe(self, observations: Sequence[Observation]) -> None:
        """Note what was measured; a program is never proposed again, whatever came of it."""
        for item in observations:
            if item.sketch_id is not None and item.sketch_id < len(self.sketches):
                self._mark(Candidate(item.sketch_id, np.asarray(item.genes, dtype=np.int32)))

    def choose_structures(self, wanted: Sequence[tuple[int, int]] = ()) -> list[Mask]:
        """A mask over structure keys for each space: all legal structures, or `max_structures` of them if there are more.

        Of these at most half are the `wanted` ones (pairs of sketch and key, best first); the rest is random.
        """
        masks = [space.legal_structures for space in self.spaces]
        pairs = [(number, int(key)) for number, mask in enumerate(masks) for key in np.flatnonzero(mask)]
        if len(pairs) <= self.options.max_structures:
            return masks
        order = [pairs[int(index)] for index in self.rng.permutation(len(pairs))]
        legal = set(pairs)
        first = list(dict.fromkeys(pair for pair in wanted if pair in legal))[: self.options.max_structures // 2]
        chosen = list(dict.fromkeys([*first, *order]))[: self.options.max_structures]
        restricted = [np.zeros_like(mask) for mask in masks]
        for number, key in chosen:
            restricted[number][key] = True
        return restricted

    def random_generation(self, count: int, structures: Sequence[Mask]) -> list[Breed]:
        """About `count` valid random programs, an equal share of each sketch that has a structure to choose."""
        share = math.ceil(count / max(1, sum(bool(mask.any()) for mask in structures)))
        return [
            breed(sample(space, share if mask.any() else 0, self.rng, mask))
            for space, mask in zip(self.spaces, structures, strict=True)
        ]

    def pick_random(self, generation: Sequence[Breed], count: int) -> list[Candidate]:
        """At most `count` programs of a generation that were not proposed yet, in random order; they count as proposed."""
        pool = [(number, row) for number, rows in enumerate(generation) for row in range(len(rows))]
        chosen: list[Candidate] = []
        for index in self.rng.permutation(len(pool)):
            if len(chosen) == count:
                break
            number, row = pool[int(index)]
            candidate = Candidate(number, generation[number].genes[row])
            if self._mark(candidate):
                chosen.append(candidate)
        return chosen

    def _mark(self, candidate: Candidate) -> bool:
        """Count a program as proposed; False if it was already."""
        key = int(row_keys(candidate.sketch, candidate.genes[None, :])[0])
        fresh = key not in self._seen
        self._seen.add(key)
        return fresh


@policy("random")
class RandomPolicy(_Sampler):
    """Uniformly random valid programs: the search without fine-tuning (paper, section 7.4)."""

    def propose(self, count: int) -> list[Candidate]:
        """At most `count` programs that were not proposed before."""
        return self.pick_random(self.random_generation(RANDOM_SPARE * count, self.choose_structures()), count)


@policy("evolution")
class EvolutionPolicy(_Sampler):
    """Evolution under the cost model's scores, with a share of random programs in every batch (paper, section 5)."""

    def __init__(
        self,
        sketches: Sequence[Sketch],
        target: Target,
        score: ScoreFunction,
        rng: np.random.Generator,
        options: SearchOptions,
    ) -> None:
        super().__init__(sketches, target, score, rng, options)
        self._measured: list[tuple[float, int, int, Genes]] = []  # cost, trial, sketch, genes

    def observe(self, observations: Sequence[Observation]) -> None:
        """Note what was measured; the best programs take part in later generations."""
        super().observe(observations)
        for item in observations:
            if item.sketch_id is not None and item.sketch_id < len(self.sketches) and math.isfinite(item.cost):
                genes = np.asarray(item.genes, dtype=np.int32)
                if len(genes) == len(self.sketches[item.sketch_id].holes):
                    self._measured.append((item.cost, item.trial, item.sketch_id, genes))
        self._measured.sort(key=lambda entry: entry[:2])

    def propose(self, count: int) -> list[Candidate]:
        """At most `count` programs that were not proposed before: the best of an evolution and `eps_greedy` random ones."""
        structures = self.choose_structures(self._best_structures())
        sampled = self.random_generation(self.options.population, structures)
        generation = [
            join([rows, seeds]) if len(seeds) else rows
            for rows, seeds in zip(sampled, self._best_measured(structures), strict=True)
        ]
        best = evolve(self.spaces, generation, self.score, self.rng, self.options, self.seen, structures)
        random_share = math.ceil(self.options.eps_greedy * count)
        chosen = [candidate for candidate in best[: count - random_share] if self._mark(candidate)]
        rest = best[len(chosen) :]
        chosen += self.pick_random(sampled, count - len(chosen)) if len(chosen) < count - random_share else []
        chosen += self.pick_random(sampled, min(random_share, count - len(chosen)))
        chosen += [candidate for candidate in rest if len(chosen) < count and self._mark(candidate)][: count - len(chosen)]
        return chosen

    def _best_structures(self) -> list[tuple[int, int]]:
        """The structures of the measured programs, best first."""
        return [(sketch, int(self.spaces[sketch].structure_keys(genes[None, :])[0])) for _, _, sketch, genes in self._measured]

    def _best_measured(self, structures: Sequence[Mask]) -> list[Breed]:
        """The best measured programs by sketch, as parents that name their trials."""
        kept = self._measured[: int(self.options.measured_share * self.options.population)]
        breeds = []
        for number, space in enumerate(self.spaces):
            mine = [(trial, genes) for _, trial, sketch, genes in kept if sketch == number]
            if not mine:
                breeds.append(breed(np.zeros((0, len(space.sketch.holes)), dtype=np.int32)))
                continue
            genes = np.stack([genes for _, genes in mine])
            origins = np.array([trial for trial, _ in mine], dtype=np.int64)
            inside = np.all((genes >= 0) & (genes < space.sketch.sizes), axis=1)
            good = np.flatnonzero(inside)
            good = good[accepts(space, genes[good], structures[number])]
            breeds.append(Breed(genes[good], origins[good], np.full(len(good), "copy", dtype="U32")))
        return breeds


__all__ = ["NO_PARENT", "EvolutionPolicy", "RandomPolicy"]
