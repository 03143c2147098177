"""What the built-in policies share: the spaces of the sketches, which programs were proposed or measured, random programs.

class MyPolicy(ProgramSampler):
    def propose(self, count: int) -> list[Candidate]:
        return self.pick_random(self.random_generation(3 * count, self.choose_structures()), count)
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ansor_py.schedule.hole import Mask
from ansor_py.schedule.sketch import Genes, Population, Sketch
from ansor_py.search.evolution.generations import Individuals
from ansor_py.search.evolution.scores import ScoreFunction
from ansor_py.search.options import SearchOptions
from ansor_py.search.sampling.candidates import Candidate, Keys, Observation, row_keys
from ansor_py.search.sampling.sampler import sample
from ansor_py.search.sampling.space import Space
from ansor_py.target import Target

# Random programs drawn for every one that is wanted, as some were measured before.
RANDOM_SPARE = 3

Scores = NDArray[np.float64]


class ProgramSampler:
    """Spaces, memory and random programs; a policy adds `propose`."""

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
        self.measured: list[tuple[float, int, int, Genes]] = []  # cost, trial, sketch and genes of what ran, best first
        self._seen: set[int] = set()

    @property
    def seen(self) -> Keys:
        """Keys of all programs that were proposed or observed, ascending."""
        return np.array(sorted(self._seen), dtype=np.uint64)

    def observe(self, observations: Sequence[Observation]) -> None:
        """Note what was measured; a program is never proposed again, whatever came of it."""
        for item in observations:
            if item.sketch_id is None or not 0 <= item.sketch_id < len(self.sketches):
                continue
            genes = np.asarray(item.genes, dtype=np.int32)
            self.mark(Candidate(item.sketch_id, genes))
            if math.isfinite(item.cost) and len(genes) == len(self.sketches[item.sketch_id].holes):
                self.measured.append((item.cost, item.trial, item.sketch_id, genes))
        self.measured.sort(key=lambda entry: entry[:2])

    def choose_structures(self, wanted: Sequence[tuple[int, int]] = (), most: int | None = None) -> list[Mask]:
        """A mask over structure keys for each space: all legal structures, or `most` of them (by default `max_structures`).

        Of these at most half are the `wanted` ones (pairs of sketch and key, best first); the rest is random.
        """
        masks = [space.legal_structures for space in self.spaces]
        pairs = [(number, int(key)) for number, mask in enumerate(masks) for key in np.flatnonzero(mask)]
        most = self.options.max_structures if most is None else most
        if len(pairs) <= most:
            return masks
        order = [pairs[int(index)] for index in self.rng.permutation(len(pairs))]
        legal = set(pairs)
        first = list(dict.fromkeys(pair for pair in wanted if pair in legal))[: most // 2]
        chosen = list(dict.fromkeys([*first, *order]))[:most]
        restricted = [np.zeros_like(mask) for mask in masks]
        for number, key in chosen:
            restricted[number][key] = True
        return restricted

    def random_generation(self, count: int, structures: Sequence[Mask]) -> list[Individuals]:
        """About `count` valid random programs, an equal share of each sketch that has a structure to choose."""
        share = math.ceil(count / max(1, sum(bool(mask.any()) for mask in structures)))
        return [
            Individuals.made(sample(space, share if mask.any() else 0, self.rng, mask))
            for space, mask in zip(self.spaces, structures, strict=True)
        ]

    def pick_random(self, generation: Sequence[Individuals], count: int) -> list[Candidate]:
        """At most `count` programs of a generation that were not proposed yet, in random order; they count as proposed."""
        fresh = [self._unseen(number, rows.genes) for number, rows in enumerate(generation)]
        pool = [(number, row) for number, places in enumerate(fresh) for row in places.tolist()]
        chosen = [pool[int(index)] for index in self.rng.permutation(len(pool))[:count]]
        return self._fresh([Candidate(number, generation[number].genes[row]) for number, row in chosen], count)

    def draw_random(self, count: int) -> list[Candidate]:
        """At most `count` random programs that were not proposed yet; they count as proposed.

        Where most of the space was proposed already, more and more programs are drawn, a bounded number of times.
        """
        chosen: list[Candidate] = []
        drawn = RANDOM_SPARE * count
        for _ in range(self.options.attempts + 1 if count else 0):
            chosen += self.pick_random(self.random_generation(drawn, self.choose_structures()), count - len(chosen))
            if len(chosen) == count:
                break
            drawn *= RANDOM_SPARE
        return chosen

    def batch_of(self, best: Sequence[Candidate], count: int, generation: Sequence[Individuals] = ()) -> list[Candidate]:
        """At most `count` programs: of the best (in order) all but a share of `eps_greedy`, the rest random.

        The random ones are taken from `generation` as far as it has new ones. Where one sort runs out the other fills in. All
        that are returned count as proposed.
        """
        wanted = count - math.ceil(self.options.eps_greedy * count)
        chosen = self._fresh(best[:wanted], wanted)
        chosen += self.pick_random(generation, count - len(chosen))
        chosen += self.draw_random(count - len(chosen))
        return chosen + self._fresh(best[wanted:], count - len(chosen))

    def _fresh(self, candidates: Sequence[Candidate], count: int) -> list[Candidate]:
        """The first `count` candidates that were not proposed yet; they count as proposed."""
        return list(itertools.islice((candidate for candidate in candidates if self.mark(candidate)), count))

    def score_rows(self, rows: Sequence[Genes]) -> list[Scores]:
        """Scores of the rows of every sketch, all in one call; what is no number is the worst."""
        populations = [Population(sketch, genes) for sketch, genes in zip(self.sketches, rows, strict=True)]
        return [np.nan_to_num(values.astype(np.float64), nan=-np.inf) for values in self.score(populations)]

    def best_unseen(self, rows: Sequence[Genes], scores: Sequence[Scores], count: int, operator: str) -> list[Candidate]:
        """The `count` best rows of all sketches that were neither proposed nor measured, each once, best first."""
        fresh = [self._unseen(number, genes) for number, genes in enumerate(rows)]
        fresh = [places[np.isfinite(values[places])] for values, places in zip(scores, fresh, strict=True)]
        found = [values[places] for values, places in zip(scores, fresh, strict=True)]
        return [
            Candidate(number, rows[number][fresh[number][place]], float(found[number][place]), operator=operator)
            for number, place in self.best_places(found, count)
        ]

    def _unseen(self, number: int, genes: Genes) -> NDArray[np.int64]:
        """The rows of a sketch that were neither proposed nor measured, each program once."""
        keys, first = np.unique(row_keys(number, genes), return_index=True)
        return np.asarray(first[~np.isin(keys, self.seen)])

    def best_places(self, scores: Sequence[Scores], count: int) -> list[tuple[int, int]]:
        """Sketch and row of the `count` highest scores, highest first; chance orders equal ones."""
        owners = np.concatenate([np.full(len(values), number) for number, values in enumerate(scores)])
        places = np.concatenate([np.arange(len(values)) for values in scores])
        order = self.rng.permutation(len(owners))
        best = order[np.argsort(-np.concatenate(scores)[order], kind="stable")][:count]
        return list(zip(owners[best].tolist(), places[best].tolist(), strict=True))

    def mark(self, candidate: Candidate) -> bool:
        """Count a program as proposed; False if it was already."""
        key = int(row_keys(candidate.sketch, candidate.genes[None, :])[0])
        fresh = key not in self._seen
        self._seen.add(key)
        return fresh
