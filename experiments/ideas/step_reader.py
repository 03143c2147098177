"""A cost model that reads transform steps and no features, after TLP (Zhai et al., ASPLOS 2023), in NumPy: a plug-in.

    python -m ansor_py.search --op matmul:512,512,512 --import experiments/ideas/step_reader.py --cost-model step-reader
    python experiments/train_cost_model.py data --import experiments/ideas/step_reader.py --model step-reader --out trained

Every part of every step is a token: the kind of the step, the place of the part in it, and its value. A program is the sum
of the embeddings of its tokens; a hidden layer makes a score of it. All are learned by a ranking loss on pairs of one task.
Nothing here is an expert's feature, so more data is needed than by trees: train it off-line, on a data set of many runs.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, vstack

from ansor_py import errors
from ansor_py.cost_model import (
    FeatureBatch,
    OptionSet,
    StrategyOptions,
    cost_model,
    option,
    pairwise_ranking,
    throughput_labels,
)

TOKENS = 4096  # different ones, by their hash
MOMENTUM, SQUARES, TINY = 0.9, 0.999, 1e-8  # of Adam (Kingma and Ba, ICLR 2015)


@dataclass(frozen=True)
class StepReaderOptions(StrategyOptions, name="step_reader"):
    """Constants of the model that reads steps."""

    width: int = option(32, "numbers of an embedding, and of the hidden layer", least=1)
    epochs: int = option(80, "passes over all known programs when the model learns", least=1)
    learning_rate: float = option(0.02, "of Adam", above=0)
    growth: float = option(0.1, "the model learns again when the programs have grown by this share", least=0)


def tokens_of(steps: Sequence[Sequence[Any]]) -> Iterator[int]:
    """The tokens of a program, each a number below `TOKENS`."""

    def parts(value: Any, place: str) -> Iterator[str]:
        if isinstance(value, (list, tuple)):
            for number, item in enumerate(value):
                yield from parts(item, f"{place}.{number}")
        else:
            yield f"{place}={value}"

    for step in steps:
        for text in parts(step[1:], str(step[0])):
            yield zlib.crc32(text.encode()) % TOKENS


def counts_of(batch: FeatureBatch) -> csr_matrix:
    """How often each token occurs in each program, [programs, TOKENS], of length 1 each."""
    tokens = [np.fromiter(tokens_of(program.steps_json), dtype=np.int64) for program in batch.known_programs]
    lengths = np.array([len(item) for item in tokens], dtype=np.int64)
    weights = np.repeat(1 / np.sqrt(np.maximum(lengths, 1)), lengths)
    columns = np.concatenate([np.empty(0, dtype=np.int64), *tokens])  # a batch may be empty
    return csr_matrix((weights, columns, np.append(0, np.cumsum(lengths))), shape=(len(tokens), TOKENS))


@cost_model("step-reader", options=StepReaderOptions)
class StepReader:
    """Sums of the embeddings of the parts of steps, one hidden layer; pairwise logistic loss."""

    needs = ("programs",)

    def __init__(self, rng: np.random.Generator, options: OptionSet) -> None:
        self._options = options.of(StepReaderOptions)
        self._rng = rng
        width = self._options.width
        self._weights: dict[str, NDArray[np.float64]] = {
            "embedding": rng.normal(0, 0.1, (TOKENS, width)),
            "hidden": rng.normal(0, width**-0.5, (width, width)),
            "output": rng.normal(0, width**-0.5, width),
        }
        self._counts, self._costs, self._tasks = csr_matrix((0, TOKENS)), np.zeros(0), np.zeros(0, dtype=np.int64)
        self._trained_on = 0

    def predict(self, batch: FeatureBatch) -> NDArray[np.float32]:
        """Scores float32[programs]; those of different tasks cannot be compared."""
        return self._forward(counts_of(batch))[2].astype(np.float32)

    def update(self, batch: FeatureBatch, costs_seconds: NDArray[np.float64], task_ids: NDArray[np.int64]) -> None:
        """Add programs and, if enough is new, go on learning from all."""
        self._counts = csr_matrix(vstack([self._counts, counts_of(batch)]))
        self._costs, self._tasks = np.append(self._costs, costs_seconds), np.append(self._tasks, task_ids)
        if len(self._costs) > self._trained_on * (1 + self._options.growth):
            self._train()

    def _forward(self, counts: csr_matrix) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Embeddings, hidden layer and scores."""
        embedded = np.asarray(counts @ self._weights["embedding"])
        hidden = np.maximum(embedded @ self._weights["hidden"], 0)
        return embedded, hidden, hidden @ self._weights["output"]

    def _train(self) -> None:
        counts, labels = self._counts, throughput_labels(self._costs, self._tasks)
        objective = pairwise_ranking(labels, self._tasks, int(self._rng.integers(2**31)))
        moments = {name: (np.zeros_like(value), np.zeros_like(value)) for name, value in self._weights.items()}
        for epoch in range(1, self._options.epochs + 1):
            embedded, hidden, scores = self._forward(counts)
            by_score = objective(scores)[0] / len(scores)
            by_hidden = np.outer(by_score, self._weights["output"]) * (hidden > 0)
            gradients = {
                "embedding": np.asarray(counts.T @ (by_hidden @ self._weights["hidden"].T)),
                "hidden": embedded.T @ by_hidden,
                "output": hidden.T @ by_score,
            }
            for name, gradient in gradients.items():
                first, second = moments[name]
                first += (1 - MOMENTUM) * (gradient - first)
                second += (1 - SQUARES) * (gradient**2 - second)
                step = first / (1 - MOMENTUM**epoch) / (np.sqrt(second / (1 - SQUARES**epoch)) + TINY)
                self._weights[name] = self._weights[name] - self._options.learning_rate * step
        self._trained_on = len(self._costs)

    def save(self, path: Path) -> None:
        """Write weights and data."""
        state = json.dumps({"rng": self._rng.bit_generator.state, "trained_on": self._trained_on})
        parts = {"data": self._counts.data, "indices": self._counts.indices, "indptr": self._counts.indptr}
        with path.open("wb") as file:
            np.savez(file, allow_pickle=False, state=state, costs=self._costs, tasks=self._tasks, **parts, **self._weights)

    def load(self, path: Path) -> None:
        """Take over what was saved; `update` goes on from there. Raises OptionError for another file, or another width."""
        try:
            with np.load(path) as file:
                found = {name: file[name] for name in file.files}
            state = json.loads(str(found["state"]))
            if any(found[name].shape != value.shape for name, value in self._weights.items()):
                raise ValueError(f"its width is {len(found['output'])}; say --search step_reader.width={len(found['output'])}")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise errors.OptionError(f"'{path}' cannot be loaded by model step-reader: {error}") from error
        self._weights = {name: found[name] for name in self._weights}
        self._costs, self._tasks, self._trained_on = found["costs"], found["tasks"], state["trained_on"]
        self._counts = csr_matrix((found["data"], found["indices"], found["indptr"]), shape=(len(self._costs), TOKENS))
        self._rng.bit_generator.state = state["rng"]
