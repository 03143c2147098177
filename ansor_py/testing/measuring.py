"""What holds for every measurer and observer. See `ansor_py.testing`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import ClassVar

import numpy as np

from ansor_py.measure import MeasureInput, MeasureOptions, Measurer, create_measurer
from ansor_py.measure.interface import MEASURERS, find_measurer
from ansor_py.schedule.steps import Split
from ansor_py.schedule.task import Task
from ansor_py.search.loop.observers import OBSERVERS, create_observer
from ansor_py.search.loop.results import TuningResult
from ansor_py.search.loop.tuning import tune
from ansor_py.search.loop.tuning_options import TuningOptions
from ansor_py.search.options import SearchOptions
from ansor_py.search.sampling.sampler import sample
from ansor_py.search.sampling.space import Space
from ansor_py.sketch_rules.derivation import generate_sketches
from ansor_py.strategy_options import NO_OPTIONS, OptionSet
from ansor_py.target import Target
from ansor_py.testing.subjects import PRODUCT, SEARCH, check, registered_as, task_of

LONGEST_SECONDS = 120.0  # until a result comes


class MeasurerConformance:
    """Subclass it and name the runner, as the command line does.

    Attributes:
        name: under which it is registered, with what it takes behind a colon.
        options: that it is made with.
    """

    name: ClassVar[str]
    options: ClassVar[MeasureOptions] = MeasureOptions()

    def _task(self) -> Task:
        return Task.from_spec(PRODUCT, Target.detect().with_cores(1))

    def _open(self) -> Measurer:
        return create_measurer(self.name, target=self._task().target, threads=1, options=self.options)

    def _inputs(self, count: int) -> list[MeasureInput]:
        task = self._task()
        sketch = generate_sketches(task.dag, task.target)[0]
        rows = sample(Space(sketch, task.target, SEARCH), count, np.random.default_rng(0))
        return [MeasureInput(task.workload_key, task.dag, sketch.concretise(row), task.target, 1) for row in rows]

    def test_it_is_registered_and_says_what_it_does(self) -> None:
        """By name and docstring."""
        find_measurer(self.name)
        registered_as(MEASURERS, self.name.partition(":")[0])

    def test_every_program_has_one_result(self) -> None:
        """Ids are unique, `outstanding` counts down to 0, a second batch follows the first."""
        with self._open() as measurer:
            seen: set[int] = set()
            for count in (3, 1):
                ids = measurer.submit(self._inputs(count))
                check(len(set(ids)) == count, f"submit gave the ids {ids} for {count} programs")
                check(not seen & set(ids), f"submit gave ids again: {ids}")
                seen |= set(ids)
                open_ids = set(ids)
                while open_ids:
                    found = measurer.poll(LONGEST_SECONDS)
                    check(found, f"poll gave nothing for {LONGEST_SECONDS:g} s with {len(open_ids)} programs open")
                    for number, result in found:
                        check(number in open_ids, f"poll gave a result of program {number}, which has none to come")
                        open_ids.remove(number)
                        check(result.valid, f"a right program fails: {result.error}, {result.error_text:.200}")
                        check(0 < result.cost < 60, f"a program of a microsecond takes {result.cost} s")
                check(measurer.outstanding == 0, f"{measurer.outstanding} programs are outstanding when all have results")
            check(measurer.poll(0) == [], "poll gives a result again")

    def test_a_program_that_cannot_be_built_is_a_result(self) -> None:
        """And the next one runs."""
        [good] = self._inputs(1)
        bad = MeasureInput(good.workload_key, good.dag, (Split("nothing", "i", (4,)),), good.target, 1)
        with self._open() as measurer:
            failed, ran = measurer.measure([bad, good])
            check(not failed.valid and failed.error, "a program whose steps are illegal has no error")
            check(ran.valid, f"after a program that failed, a right one fails: {ran.error}, {ran.error_text:.200}")

    def test_it_can_be_closed_twice(self) -> None:
        """Also with programs that have no result."""
        measurer = self._open()
        measurer.submit(self._inputs(2))
        measurer.close()
        measurer.close()


class ObserverConformance:
    """Subclass it and name the observer.

    Attributes:
        name: under which it is registered.
        options: that it is made with.
    """

    name: ClassVar[str]
    options: ClassVar[OptionSet] = NO_OPTIONS

    def _search(self, seed: int, observed: bool) -> TuningResult:
        options = TuningOptions(cost_model="random", batch=6, search=SearchOptions(population=64, iterations=1))
        with tempfile.TemporaryDirectory() as folder:
            subscribers = [create_observer(self.name, Path(folder), self.options)] if observed else []
            return tune(task_of(PRODUCT), 25, seed, "simulated", options, subscribers=subscribers)

    def test_it_is_registered_and_says_what_it_does(self) -> None:
        """By name and docstring; its options have a default."""
        registered_as(OBSERVERS, self.name)

    def test_a_search_is_the_same_with_it(self) -> None:
        """It bears every event, and changes nothing."""
        with_it, without = self._search(4, True), self._search(4, False)
        check(with_it.records == without.records, "a search measures other programs when it is observed")
