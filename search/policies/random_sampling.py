"""Policy `random`: sampling without fine-tuning (paper, section 7.4, "no fine-tuning").

policy = RandomPolicy(sketches, target, score, rng, options)
policy.propose(64)
"""

from __future__ import annotations

from ansor_py.search.policies.policy import policy
from ansor_py.search.policies.sampler import ProgramSampler
from ansor_py.search.sampling.candidates import Candidate


@policy("random")
class RandomPolicy(ProgramSampler):
    """Uniformly random valid programs; scores nothing and learns nothing."""

    def propose(self, count: int) -> list[Candidate]:
        """At most `count` programs that were not proposed before."""
        return self.draw_random(count)
