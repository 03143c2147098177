"""The cost model as a policy sees it: populations in, scores out. It counts what it scores and where the time goes.

score = Scorer(model, task, number=0, timer=PhaseTimer())
scores = score([Population(sketch, genes)])           # [float32[programs]], higher is better
score.train(sketches, records)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ansor_py.cost_model.features import batch_of
from ansor_py.cost_model.interface import CostModel, FeatureBatch, StatementModel, needs_of
from ansor_py.measure.records import Record
from ansor_py.schedule.sketch import Population, Sketch
from ansor_py.schedule.task import Task
from ansor_py.search.evolution.scores import StatementScores
from ansor_py.search.loop.phases import PhaseTimer
from ansor_py.search.loop.recorded_programs import batches_of_records, training_cost


class Scorer:
    """Scores programs of one task; all scorers of a search share the cost model and the timer.

    `number` is the task's in the model's `update`.
    """

    def __init__(self, model: CostModel, task: Task, number: int, timer: PhaseTimer) -> None:
        self._model = model
        self._needs = needs_of(model)
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
        knows_statements = isinstance(self._model, StatementModel) and "features" in self._needs
        for population in populations:
            with self._timer.phase("features"):
                batch = batch_of(population, self._task, self._needs)
            with self._timer.phase("predict"):
                scores.append(self._model.predict(batch))
                if knows_statements:
                    assert isinstance(self._model, StatementModel)
                    statements.append(StatementScores(self._model.predict_statements(batch), batch.offsets))
            self.scored += len(population)
        return scores, statements if len(statements) == len(scores) else None

    def train(self, sketches: Sequence[Sketch], records: Sequence[Record]) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """Let the model learn from measured programs; returns the scores it gave them before, and their seconds (inf: failed).

        Programs that no sketch contains, such as a default schedule of other rules, are learned from their steps.
        """
        batches, costs = [], []
        with self._timer.phase("features"):
            for part, chosen in batches_of_records(records, sketches, self._task, self._needs):
                batches.append(part)
                costs += [training_cost(record) for record in chosen]
        if not batches:
            return np.empty(0, dtype=np.float32), np.empty(0)
        batch = FeatureBatch.concatenate(batches)
        with self._timer.phase("predict"):
            scores, seconds = self._model.predict(batch), np.array(costs)
        with self._timer.phase("train"):
            self._model.update(batch, seconds, np.full(len(costs), self._number, dtype=np.int64))
        return scores, seconds
