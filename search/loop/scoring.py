"""The cost model as a policy sees it: populations in, scores out. It counts what it scores and where the time goes.

score = Scorer(model, task, number=0, timer=PhaseTimer())
scores = score([Population(sketch, genes)])           # [float32[programs]], higher is better
score.train(sketches, records)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ansor_py.cost_model.features import extract_features
from ansor_py.cost_model.interface import CostModel, FeatureBatch, StatementModel
from ansor_py.measure.records import Record
from ansor_py.schedule.sketch import Population, Sketch
from ansor_py.schedule.task import Task
from ansor_py.search.evolution.scores import StatementScores
from ansor_py.search.loop.phases import PhaseTimer


class Scorer:
    """Scores programs of one task; all scorers of a search share the cost model and the timer."""

    def __init__(self, model: CostModel, task: Task, number: int, timer: PhaseTimer) -> None:
        self._model = model
        self._task = task
        self._number = number
        self._timer = timer
        self.scored = 0

    def __call__(self, populations: Sequence[Population]) -> list[NDArray[np.float32]]:
        """Scores of the programs of several populations."""
        return self.with_statements(populations)[0]

    def with_statements(
        self, populations: Sequence[Population]
    ) -> tuple[list[NDArray[np.float32]], list[StatementScores] | None]:
        """The same, and the scores of the statements if the cost model knows those."""
        scores, statements = [], []
        for population in populations:
            with self._timer.phase("features"):
                batch = extract_features(population, self._task.target)
            with self._timer.phase("predict"):
                scores.append(self._model.predict(batch))
                if isinstance(self._model, StatementModel):
                    statements.append(StatementScores(self._model.predict_statements(batch), batch.offsets))
            self.scored += len(population)
        return scores, statements if len(statements) == len(scores) else None

    def train(self, sketches: Sequence[Sketch], records: Sequence[Record]) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """Let the model learn from measured programs; returns the scores it gave them before, and their seconds (inf: failed).

        Programs that no sketch contains (the default schedule) are left out.
        """
        usable = [record for record in records if trainable(record, sketches)]
        batches, costs = [], []
        with self._timer.phase("features"):
            for number in sorted({record.sketch_id for record in usable if record.sketch_id is not None}):
                chosen = [record for record in usable if record.sketch_id == number]
                genes = np.array([record.genes for record in chosen], dtype=np.int32).reshape(len(chosen), -1)
                batches.append(extract_features(Population(sketches[number], genes), self._task.target))
                costs += [training_cost(record) for record in chosen]
        if not batches:
            return np.empty(0, dtype=np.float32), np.empty(0)
        batch = FeatureBatch.concatenate(batches)
        with self._timer.phase("predict"):
            scores, seconds = self._model.predict(batch), np.array(costs)
        with self._timer.phase("train"):
            self._model.update(batch, seconds, np.full(len(costs), self._number, dtype=np.int64))
        return scores, seconds


def trainable(record: Record, sketches: Sequence[Sketch]) -> bool:
    """Whether the record is of a program that these sketches still contain, so that its features can be extracted."""
    number = record.sketch_id
    if number is None or not 0 <= number < len(sketches):
        return False
    return contains(sketches[number], record.genes, record.steps)


def contains(sketch: Sketch, genes: Sequence[int], steps: Sequence[Any]) -> bool:
    """Whether the genes give these steps (as JSON) in a sketch.

    Genes are indices into tables of choices that another version or another set of rules fills otherwise.
    """
    sizes = sketch.sizes.tolist()
    if len(genes) != len(sizes) or not all(0 <= gene < size for gene, size in zip(genes, sizes, strict=True)):
        return False
    return tuple(step.to_json() for step in sketch.concretise(genes)) == tuple(steps)


def training_cost(record: Record) -> float:
    """Seconds that the model learns: the median, for a program that was cut the lower bound, infinite for a failed one."""
    if record.result.error == "cut" and record.result.costs:
        return max(record.result.costs)
    return record.cost if record.valid else math.inf
