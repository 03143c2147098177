"""What holds for every cost model. See `ansor_py.testing`."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ansor_py.cost_model.checked_model import CheckedModel, checked_model
from ansor_py.cost_model.features import batch_of
from ansor_py.cost_model.interface import COST_MODELS, NEEDS, FeatureBatch, Need, StatementModel, create_cost_model
from ansor_py.cost_model.metrics import pairwise_rank_accuracy
from ansor_py.errors import OptionError
from ansor_py.search.loop.tuning import tune
from ansor_py.search.loop.tuning_options import TuningOptions
from ansor_py.strategy_options import NO_OPTIONS, OptionSet
from ansor_py.testing.subjects import (
    PRODUCT,
    SEARCH,
    SPECS,
    check,
    programs,
    registered_as,
    simulated_seconds,
    task_of,
)

Learned = tuple[FeatureBatch, NDArray[np.float64], NDArray[np.int64]]


@functools.cache
def measured_programs(needs: tuple[Need, ...] = NEEDS[:1]) -> Learned:
    """Programs of several tasks with what a model needs, simulated seconds (one in twelve has failed), and task numbers."""
    populations = [(number, p) for number, spec in enumerate(SPECS) for p in programs(spec, count=24)]
    seconds = np.concatenate([simulated_seconds(p) for _, p in populations])
    seconds[::12] = np.inf
    batch = FeatureBatch.concatenate([batch_of(p, task_of(SPECS[number]), needs) for number, p in populations])
    return batch, seconds, np.concatenate([np.full(len(p), n) for n, p in populations])


class CostModelConformance:
    """Subclass it and name the cost model.

    Attributes:
        name: under which it is registered.
        options: that it is made with.
        is_random: its scores are drawn, so that a program's score is another at every call.
        learns: after learning it ranks the programs that it has learned better than chance.
    """

    name: ClassVar[str]
    options: ClassVar[OptionSet] = NO_OPTIONS
    is_random: ClassVar[bool] = False
    learns: ClassVar[bool] = False

    def _model(self, seed: int = 0) -> CheckedModel:
        """With the checks of a search: what it gives must be one finite number a program."""
        return checked_model(self.name, create_cost_model(self.name, seed, self.options))

    def _measured(self) -> Learned:
        """Programs to learn from, with what the model needs of them."""
        return measured_programs(self._model().needs)

    def _trained(self, seed: int = 0) -> CheckedModel:
        model = self._model(seed)
        batch, seconds, tasks = self._measured()
        for part in np.array_split(np.arange(len(batch)), 3):
            model.update(batch.select(part), seconds[part], tasks[part])
        return model

    def test_it_is_registered_and_says_what_it_does(self) -> None:
        """By name and docstring; its options have a default."""
        registered_as(COST_MODELS, self.name)

    def test_every_program_gets_a_finite_score_before_and_after_learning(self) -> None:
        """Of any number of programs."""
        batch, _, _ = self._measured()
        for model in (self._model(), self._trained()):
            for count in (len(batch), 2, 1):
                model.predict(batch.select(range(count)))

    def test_no_programs_have_no_scores(self) -> None:
        """An empty batch, as of a sketch without valid programs."""
        batch, _, _ = self._measured()
        nothing = batch.select(range(0))
        for model in (self._model(), self._trained()):
            model.predict(nothing)

    def test_the_seed_decides(self) -> None:
        """The same seed and the same updates give the same scores."""
        batch, _, _ = self._measured()
        first, second = self._trained(5).predict(batch), self._trained(5).predict(batch)
        check(np.array_equal(first, second), "two models of the same seed that learned the same give different scores")

    def test_a_score_is_that_of_the_program(self) -> None:
        """Not of the batch that it is in."""
        if self.is_random:
            return
        batch, _, _ = self._measured()
        model = self._trained()
        whole = model.predict(batch)
        some = np.arange(0, len(batch), 7)
        apart = model.predict(batch.select(some))
        check(np.allclose(whole[some], apart, rtol=1e-4, atol=1e-6), "a program's score depends on the batch that it is in")

    def test_what_it_is_given_stays_as_it_is(self) -> None:
        """Features, costs and task numbers belong to the search."""
        batch, seconds, tasks = self._measured()
        given: list[NDArray[Any]] = [batch.rows, batch.offsets, seconds, tasks]
        copies = [array.copy() for array in given]
        model = create_cost_model(self.name, 0, self.options)
        model.update(batch, seconds, tasks)
        model.predict(batch)
        for array, copy in zip(given, copies, strict=True):
            check(np.array_equal(array, copy), "it changes the arrays that it is given")

    def test_hard_data_is_borne(self) -> None:
        """Only failures, all costs equal, a single program, tiny and huge costs, no program."""
        batch, _, tasks = self._measured()
        count = len(batch)
        for seconds in (np.full(count, np.inf), np.full(count, 1e-3), np.geomspace(1e-9, 1e3, count)):
            model = self._model()
            model.update(batch, seconds, tasks)
            model.predict(batch)
        model = self._model()
        model.update(batch.select([0]), np.array([1e-3]), np.array([0]))
        model.update(batch.select(range(0)), np.zeros(0), np.zeros(0, dtype=np.int64))
        model.predict(batch)

    def test_it_learns_if_it_says_so(self) -> None:
        """Better than chance on what it has learned, within each task."""
        if not self.learns:
            return
        batch, seconds, tasks = self._measured()
        scores = self._trained().predict(batch)
        accuracies = []
        for number in np.unique(tasks):
            mine = (tasks == number) & np.isfinite(seconds)
            accuracies.append(pairwise_rank_accuracy(scores[mine], 1 / seconds[mine]))
        accuracy = float(np.mean(accuracies))
        check(accuracy > 0.6, f"of the pairs of programs that it has learned it ranks {accuracy:.0%} rightly; it must be 60 %")

    def test_scores_of_statements_are_finite(self) -> None:
        """If it scores them."""
        model = self._trained()
        if isinstance(model, StatementModel):
            model.predict_statements(self._measured()[0])

    def test_what_is_saved_can_be_loaded(self) -> None:
        """The loaded model scores and goes on learning as the saved one does; a file of another kind is an OptionError."""
        model = self._trained(1)
        if not hasattr(model.model, "save"):
            return
        batch, seconds, tasks = self._measured()
        with tempfile.TemporaryDirectory() as folder:
            path, other = Path(folder) / "model", Path(folder) / "other"
            model.save(path)
            loaded = self._model(2)
            loaded.load(path)
            for _ in range(2):
                check(np.array_equal(model.predict(batch), loaded.predict(batch)), "the loaded model gives other scores")
                for one in (model, loaded):
                    one.update(batch, seconds, tasks)
            other.write_bytes(b"nothing of the kind")
            try:
                create_cost_model(self.name, 0, self.options).load(other)
            except OptionError:
                return
        raise AssertionError("it loads a file that it has not written; it must raise an OptionError")

    def test_a_search_uses_it(self) -> None:
        """On the simulated CPU, twice: the records are the same."""
        options = TuningOptions(cost_model=self.name, batch=6, search=SEARCH.with_own(*self.options.own))
        first, second = (tune(task_of(PRODUCT), 25, 5, "simulated", options).records for _ in range(2))
        same = [(r.genes, r.origin.predicted) for r in first] == [(r.genes, r.origin.predicted) for r in second]
        check(same, "two searches of one seed measure different programs, or predict other scores")
