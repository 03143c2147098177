"""A small neural cost model with a ranking loss, in NumPy (as TenSet's multi-layer perceptron, Zheng et al., NeurIPS 2021).

    python -m ansor_py.search --import experiments/ideas/ranking_network.py --cost-model ranking-network --op matmul:512,512,512

Two layers look at every statement, their sum over a program's statements is its score. Pairs of programs of one task are ranked
by a logistic loss; Adam takes some steps after every round, on from where it was.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ansor_py.cost_model import FeatureBatch, OptionSet, StrategyOptions, cost_model, option

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class NetworkOptions(StrategyOptions, name="network"):
    """Constants of the network and its training."""

    width: int = option(64, "units of the hidden layers", least=1)
    steps: int = option(60, "steps of Adam after every update", least=1)
    pairs: int = option(512, "pairs of programs in a step", least=1)
    rate: float = option(3e-3, "step size of Adam", above=0)


@cost_model("ranking-network", options=NetworkOptions)
class RankingNetwork:
    """Two rectified layers a statement, summed over the program; pairwise logistic loss."""

    def __init__(self, rng: np.random.Generator, options: OptionSet) -> None:
        self._rng = rng
        self._options = options.of(NetworkOptions)
        self._batches: list[FeatureBatch] = []
        self._costs = np.zeros(0)
        self._tasks = np.zeros(0, dtype=np.int64)
        self._weights: list[Floats] = []
        self._moments: list[tuple[Floats, Floats]] = []
        self._steps = 0
        self._centre, self._scale = np.zeros(1), np.ones(1)

    def predict(self, batch: FeatureBatch) -> NDArray[np.float32]:
        """Scores float32[programs]; all 0 before the first update."""
        if not self._weights:
            return np.zeros(len(batch), dtype=np.float32)
        outputs, _ = self._forward(self._standard(batch.rows))
        return np.add.reduceat(outputs, batch.offsets[:-1]).astype(np.float32) if len(batch) else np.zeros(0, np.float32)

    def update(self, batch: FeatureBatch, costs_seconds: Floats, task_ids: NDArray[np.int64]) -> None:
        """Train on from where it was, on all programs known."""
        if not len(batch):
            return
        self._batches.append(batch)
        self._costs = np.concatenate([self._costs, costs_seconds])
        self._tasks = np.concatenate([self._tasks, task_ids])
        known = FeatureBatch.concatenate(self._batches)
        if not self._weights:
            self._initialise(known.rows.astype(np.float64))
        first, second = self._ordered_pairs()
        for _ in range(self._options.steps if len(first) else 0):
            drawn = self._rng.integers(len(first), size=self._options.pairs)
            self._step(known, first[drawn], second[drawn])

    def _initialise(self, rows: Floats) -> None:
        self._centre, self._scale = rows.mean(axis=0), rows.std(axis=0) + 0.1
        widths = (rows.shape[1], self._options.width, self._options.width, 1)
        for before, after in itertools.pairwise(widths):
            self._weights += [self._rng.normal(0, np.sqrt(2 / before), (before, after)), np.zeros(after)]
        self._moments = [(np.zeros_like(weight), np.zeros_like(weight)) for weight in self._weights]

    def _standard(self, rows: NDArray[np.float32]) -> Floats:
        return np.clip((rows - self._centre) / self._scale, -5, 5)

    def _forward(self, inputs: Floats) -> tuple[Floats, list[Floats]]:
        """The outputs float64[statements], and what every layer was given."""
        given, values = [], inputs
        for layer in range(0, len(self._weights), 2):
            given.append(values)
            values = values @ self._weights[layer] + self._weights[layer + 1]
            values = np.maximum(values, 0) if layer < len(self._weights) - 2 else values
        return values[:, 0], given

    def _ordered_pairs(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Pairs of programs of one task, the faster one first; failures are slower than all."""
        found = []
        for task in np.unique(self._tasks):
            mine = np.flatnonzero(self._tasks == task)
            first, second = np.meshgrid(mine, mine, indexing="ij")
            faster = self._costs[first] < 0.98 * self._costs[second]
            found.append((first[faster], second[faster]))
        return np.concatenate([f for f, _ in found]), np.concatenate([s for _, s in found])

    def _step(self, known: FeatureBatch, first: NDArray[np.int64], second: NDArray[np.int64]) -> None:
        """One step of Adam on some pairs."""
        chosen, place = np.unique(np.concatenate([first, second]), return_inverse=True)
        batch = known.select(chosen)
        outputs, given = self._forward(self._standard(batch.rows))
        scores = np.add.reduceat(outputs, batch.offsets[:-1])
        better, worse = np.split(place, 2)
        pull = -1 / (1 + np.exp(np.clip(scores[better] - scores[worse], -30, 30))) / len(first)
        slope = np.bincount(better, pull, len(chosen)) - np.bincount(worse, pull, len(chosen))
        back = np.repeat(slope, batch.rows_per_program)[:, None]
        self._steps += 1
        for layer in range(len(self._weights) - 2, -1, -2):
            values = given[layer // 2]
            gradients = (values.T @ back, back.sum(axis=0))
            back = (back @ self._weights[layer].T) * (values > 0)
            for place_of, gradient in zip((layer, layer + 1), gradients, strict=True):
                mean, square = self._moments[place_of]
                mean += 0.1 * (gradient - mean)
                square += 0.001 * (gradient**2 - square)
                corrected = mean / (1 - 0.9**self._steps), square / (1 - 0.999**self._steps)
                self._weights[place_of] -= self._options.rate * corrected[0] / (np.sqrt(corrected[1]) + 1e-8)
