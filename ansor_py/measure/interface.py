"""What the search sees of measuring: a `Measurer` takes batches of programs and returns seconds or typed errors.

A kind of measurer is a function registered by `@measurer("kind")` that returns a `Measurer`; adding one is a
file with that function and an import in `ansor_py.measure`.

    with create_measurer("process", target=target, threads=2) as measurer:
        ids = measurer.submit([MeasureInput(dag.workload_key, dag, steps, target, threads=2)])
        for number, result in measurer.poll(timeout=1.0):
            print(number, result.error, result.cost)
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import TYPE_CHECKING

from ansor_py.errors import AnsorError, OptionError, plug_in
from ansor_py.measure.build import Builder, build_program, build_reference
from ansor_py.measure.records import Record
from ansor_py.measure.result import MeasureResult
from ansor_py.measure.run import RunSettings
from ansor_py.registry import Registry

if TYPE_CHECKING:
    from ansor_py.schedule.dag import ComputeDAG
    from ansor_py.schedule.steps import Step
    from ansor_py.target import Target


@dataclass(frozen=True)
class MeasureInput:
    """One program: the concrete steps on a DAG. All inputs with one workload key must share the same DAG.

    A program of which one call takes longer than `cut_seconds` (usually three times the best) is cut short. One that is clearly
    slower than `best_seconds` is timed no longer than it takes to know that; None: every program has all its samples.
    """

    workload_key: str
    dag: ComputeDAG
    steps: tuple[Step, ...]
    target: Target
    threads: int
    cut_seconds: float | None = None
    best_seconds: float | None = None


@dataclass(frozen=True)
class MeasureOptions:
    """Settings of a measurer. Times are seconds.

    `builder` and `reference_builder` are picklable functions of (dag, steps, target, threads) that run in a worker and return
    a `CompiledKernel`; replace them to try another code generator. `argument` is what stands behind a colon in a runner's name,
    such as the records to replay; `extra` is for kinds of measurers defined elsewhere.
    """

    build_timeout: float = 15.0
    run_timeout: float = 10.0
    reference_timeout: float = 120.0  # building or running the naive program of a task
    start_timeout: float = 60.0
    builders: int | None = None  # None: one a core that the runner does not own
    check_outputs: bool = True
    run: RunSettings = field(default_factory=RunSettings)
    ray_address: str | None = None  # None: a local Ray, started and stopped by the measurer
    builder: Builder = build_program
    reference_builder: Builder = build_reference
    argument: str = ""
    extra: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("build_timeout", "run_timeout", "reference_timeout", "start_timeout"):
            if not getattr(self, name) > 0:
                raise OptionError(f"measuring: {name} is {getattr(self, name)}; it must be a positive number of seconds")
        if self.builders is not None and self.builders < 1:
            raise OptionError(f"measuring: builders is {self.builders}; give at least 1, or none for one a core")


class Measurer(AbstractContextManager["Measurer"]):
    """Measures programs. `submit` returns at once; work proceeds while `poll` waits. A context manager that closes itself.

    After an exception, KeyboardInterrupt included, `poll(0)` still returns what was finished before it.
    """

    @property
    def virtual_clock(self) -> Callable[[], float] | None:
        """The clock by which a measurer that runs nothing lets time pass; None where time is real."""
        return None

    def known_programs(self, workload_key: str) -> Sequence[Record] | None:
        """The programs of a task that can be measured at all; None where all can."""
        return None

    @abstractmethod
    def submit(self, batch: Sequence[MeasureInput]) -> list[int]:
        """Queue programs; returns their ids, unique within this measurer, in the order of the batch."""

    @abstractmethod
    def poll(self, timeout: float | None = None) -> list[tuple[int, MeasureResult]]:
        """Ids and results that were not returned before, in the order in which they were finished.

        Waits until there is at least one, until nothing is outstanding, or for `timeout` seconds (None: no limit).
        Raises MeasureError when workers cannot be started.
        """

    @property
    @abstractmethod
    def outstanding(self) -> int:
        """Number of programs submitted whose results were not returned yet."""

    @abstractmethod
    def close(self) -> None:
        """Stop all workers; results not returned are lost. Calling it again does nothing."""

    def measure(self, batch: Sequence[MeasureInput]) -> list[MeasureResult]:
        """Submit a batch, wait for all of it, and return the results in its order (no other batch may be outstanding)."""
        ids = self.submit(batch)
        results: dict[int, MeasureResult] = {}
        while len(results) < len(ids):
            results.update(self.poll())
        return [results[number] for number in ids]

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


MeasurerFactory = Callable[["Target", int, MeasureOptions], Measurer]


@dataclass(frozen=True)
class MeasurerKind:
    """How measurers of a kind are made. A `virtual` one runs nothing; `argument` names what its runner takes behind a colon."""

    factory: MeasurerFactory
    virtual: bool = False
    argument: str = ""


MEASURERS: Registry[MeasurerKind] = Registry("runner")


def measurer(kind: str, virtual: bool = False, argument: str = "") -> Callable[[MeasurerFactory], MeasurerFactory]:
    """Make a function of (target, threads, options) known as a kind of measurer. Raises OptionError for a taken name."""

    def register(factory: MeasurerFactory) -> MeasurerFactory:
        MEASURERS.add(kind, MeasurerKind(factory, virtual, argument), definition=factory)
        return factory

    return register


def find_measurer(runner: str) -> MeasurerKind:
    """The kind of a runner such as `process` or `replay:RECORDS`. Raises OptionError for an unknown or incomplete one."""
    kind, _, argument = runner.partition(":")
    found = MEASURERS.find(kind)
    if found.argument and not argument:
        raise OptionError(f"runner '{kind}' needs {found.argument}; write {kind}:{found.argument}")
    if argument and not found.argument:
        raise OptionError(f"runner '{kind}' takes nothing behind a colon, but '{runner}' was given")
    return found


def create_measurer(runner: str, *, target: Target, threads: int, options: MeasureOptions | None = None) -> Measurer:
    """A measurer of a registered kind for programs of `target` that use `threads` threads.

    Raises OptionError for an unknown kind, or when the machine has fewer cores than `threads`, PlugInError for one that fails.
    """
    found = find_measurer(runner)
    if threads < 1:
        raise OptionError(f"threads is {threads}; a kernel needs at least one")
    options = replace(options or MeasureOptions(), argument=runner.partition(":")[2])
    with plug_in(f"runner '{runner}': its construction", AnsorError):
        return found.factory(target, threads, options)
