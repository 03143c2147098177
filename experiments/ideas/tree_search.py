"""Monte-Carlo tree search over the decisions of a program (as in ProTuner, Haj-Ali et al., arXiv 2005.13685).

    python -m ansor_py.search --import experiments/ideas/tree_search.py --policy tree-search --op matmul:512,512,512

A node is a prefix of decisions: the sketch, then a gene for every hole in order. A walk goes down by upper confidence bounds
until it meets a node that was not visited, and decides the rest at random. The cost model's score of the program, as its rank
among all of the round, is what every node on the way learns. Walks of a batch share one call of the model.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ansor_py.search import Candidate, ProgramSampler, StrategyOptions, accepts, option, policy, repair, sample

Node = tuple[int, ...]  # the sketch, then genes


@dataclass(frozen=True)
class TreeOptions(StrategyOptions, name="tree"):
    """Constants of the tree search."""

    walks: int = option(1024, "programs that are scored in a round", least=1)
    batch: int = option(64, "walks between two calls of the cost model", least=1)
    exploration: float = option(0.5, "weight of the confidence bound", least=0)


@policy("tree-search", options=TreeOptions)
class TreeSearch(ProgramSampler):
    """Upper confidence bounds over decisions, random completions, the cost model's ranks as rewards."""

    def propose(self, count: int) -> list[Candidate]:
        """The best programs that the walks met, and a share of random ones."""
        own = self.options.of(TreeOptions)
        visits: defaultdict[Node, int] = defaultdict(int)
        rewards: defaultdict[Node, float] = defaultdict(float)
        met: list[Candidate] = []
        for _ in range(math.ceil(own.walks / own.batch)):
            walks = [self._descend(visits, rewards) for _ in range(own.batch)]
            ends = self._completed(walks)
            if not ends:
                break
            met += ends
            scores = np.array([end.predicted for end in met])
            for end in ends:
                reward = float(np.mean(scores <= end.predicted))
                for length in range(1, 2 + len(end.genes)):
                    rewards[(end.sketch, *end.genes.tolist())[:length]] += reward
        best = sorted(met, key=lambda end: -(end.predicted or 0.0))
        return self.batch_of(best, count)

    def _descend(self, visits: dict[Node, int], rewards: dict[Node, float]) -> Node:
        """From the root to the first node that no walk has visited; visits count at once, so that walks of a batch spread."""
        node: Node = ()
        while True:
            sizes = self.sketches[node[0]].sizes if node else None
            if sizes is not None and len(node) == 1 + len(sizes):
                return node
            choices = len(self.sketches) if sizes is None else int(sizes[len(node) - 1])
            children = [(*node, choice) for choice in range(choices)]
            fresh = [child for child in children if not visits[child]]
            node = fresh[int(self.rng.integers(len(fresh)))] if fresh else max(children, key=self._bound(visits, rewards))
            visits[node] += 1
            if fresh:
                return node

    def _bound(self, visits: dict[Node, int], rewards: dict[Node, float]) -> Callable[[Node], float]:
        weight = self.options.of(TreeOptions).exploration

        def bound(node: Node) -> float:
            parent = max(visits.get(node[:-1], 1), 2)
            return rewards[node] / visits[node] + weight * math.sqrt(math.log(parent) / visits[node])

        return bound

    def _completed(self, walks: list[Node]) -> list[Candidate]:
        """Valid programs that begin with the decisions of the walks, as far as these allow any, with their scores."""
        rows = []
        for number, space in enumerate(self.spaces):
            mine = [walk[1:] for walk in walks if walk[0] == number]
            genes = sample(space, len(mine), self.rng)
            for row, prefix in zip(genes, mine, strict=False):
                row[: len(prefix)] = prefix
            genes = repair(space, genes, self.rng) if len(genes) else genes
            rows.append(genes[accepts(space, genes)] if len(genes) else genes)
        found = self.score_rows(rows)
        return [
            Candidate(number, row, float(score), operator="tree")
            for number, (genes, scores) in enumerate(zip(rows, found, strict=True))
            for row, score in zip(genes, scores, strict=True)
        ]
