"""Draft, then verify (Pruner, Qiao et al., ASPLOS 2025): a cheap analytical model explores, the learned one looks at few.

    python -m ansor_py.search --import experiments/ideas/draft_then_verify.py --policy draft-then-verify --op matmul:512,512,512

Evolution runs under the roofline's estimate of every program, which needs no features beyond its own. Of its best programs, the
drafts, the cost model of the search chooses those that are measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ansor_py import Target
from ansor_py.cost_model import estimated_cycles
from ansor_py.search import (
    Candidate,
    Population,
    ProgramSampler,
    ScoreFunction,
    SearchOptions,
    Sketch,
    StrategyOptions,
    evolve,
    option,
    policy,
)


@dataclass(frozen=True)
class DraftOptions(StrategyOptions, name="draft"):
    """Constants of drafting."""

    drafts: int = option(512, "programs that the cost model looks at", least=1)


@policy("draft-then-verify", options=DraftOptions)
class DraftThenVerify(ProgramSampler):
    """Evolution under the roofline gives drafts, of which the cost model chooses the measured ones."""

    def __init__(
        self,
        sketches: Sequence[Sketch],
        target: Target,
        score: ScoreFunction,
        rng: np.random.Generator,
        options: SearchOptions,
    ) -> None:
        super().__init__(sketches, target, score, rng, options)
        self._target = target

    def propose(self, count: int) -> list[Candidate]:
        """The best drafts by the cost model, and a share of random programs."""
        options = replace(self.options, best_kept=self.options.of(DraftOptions).drafts)
        structures = self.choose_structures()
        sampled = self.random_generation(options.population, structures)
        drafts = evolve(self.spaces, sampled, self._draft, self.rng, options, self.seen, structures)
        rows = [
            np.array([draft.genes for draft in drafts if draft.sketch == number], dtype=np.int32).reshape(-1, len(sketch.holes))
            for number, sketch in enumerate(self.sketches)
        ]
        return self.batch_of(self.best_unseen(rows, self.score_rows(rows), count, "draft"), count, sampled)

    def _draft(self, populations: Sequence[Population]) -> list[NDArray[np.float32]]:
        return [(-estimated_cycles(population, self._target)).astype(np.float32) for population in populations]
