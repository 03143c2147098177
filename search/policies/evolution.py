"""Policy `evolution`: programs of all sketches evolve under the cost model (paper, section 5); the default.

policy = EvolutionPolicy(sketches, target, score, rng, options)
for candidate in policy.propose(64): ...
policy.observe(records)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ansor_py.schedule.hole import Mask
from ansor_py.search.evolution.evolution_options import EvolutionOptions, round_options
from ansor_py.search.evolution.generations import Individuals, evolve
from ansor_py.search.policies.policy import policy
from ansor_py.search.policies.sampler import ProgramSampler
from ansor_py.search.sampling.candidates import Candidate
from ansor_py.search.sampling.validity import accepts


@policy("evolution", options=EvolutionOptions)
class EvolutionPolicy(ProgramSampler):
    """Evolution under the cost model's scores, with a share of random programs in every batch (paper, section 5)."""

    def propose(self, count: int) -> list[Candidate]:
        """At most `count` programs that were not proposed before: the best of an evolution and `eps_greedy` random ones."""
        options = round_options(self.options, count)
        structures = self.choose_structures(self._best_structures(), options.max_structures)
        sampled = self.random_generation(options.population, structures)
        seeds = self._best_measured(structures, int(options.of(EvolutionOptions).measured_share * options.population))
        generation = [
            Individuals.concatenate([rows, own]) if len(own) else rows for rows, own in zip(sampled, seeds, strict=True)
        ]
        best = evolve(self.spaces, generation, self.score, self.rng, options, self.seen, structures)
        return self.batch_of(best, count, sampled)

    def _best_structures(self) -> list[tuple[int, int]]:
        """The structures of the measured programs, best first."""
        return [(sketch, int(self.sketches[sketch].structure_keys(genes[None, :])[0])) for _, _, sketch, genes in self.measured]

    def _best_measured(self, structures: Sequence[Mask], count: int) -> list[Individuals]:
        """The `count` best measured programs by sketch, as parents that name their trials."""
        kept = self.measured[:count]
        found = []
        for number, space in enumerate(self.spaces):
            mine = [(trial, genes) for _, trial, sketch, genes in kept if sketch == number]
            if not mine:
                found.append(Individuals.made(np.zeros((0, len(space.sketch.holes)), dtype=np.int32)))
                continue
            genes = np.stack([genes for _, genes in mine])
            origins = np.array([trial for trial, _ in mine], dtype=np.int64)
            inside = np.all((genes >= 0) & (genes < space.sketch.sizes), axis=1)
            good = np.flatnonzero(inside)
            good = good[accepts(space, genes[good], structures[number])]
            found.append(Individuals.made(genes[good], "copy", origins[good]))
        return found
