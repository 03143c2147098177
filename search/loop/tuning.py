"""The tuning loop: it owns measuring, the policies propose and the task scheduler decides who goes on.

First the default schedule of every task is measured (candidate 0: what is tuned is never slower than what is not), then
rounds follow until a condition to stop holds (`stopping.py`): choose a task, let its policy propose programs, measure
them, write the records, train the cost model on them. At the end the best few programs of every task are measured again,
interleaved.

    result = tune(Task.from_operator("matmul", (512, 512, 512)), trials=256, seed=0)
    result.best.cost, result.curve, result.records

The same seed and the same measured costs give the same search. Ctrl-C stops measuring and returns what there is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import replace
from functools import partial

from ansor_py.codegen.machine_memory import require_memory
from ansor_py.errors import MeasureError, OptionError
from ansor_py.measure import Measurer, Record, create_measurer, find_measurer
from ansor_py.measure.reference import memory_to_measure
from ansor_py.schedule.task import Task
from ansor_py.search.loop.events import Subscriber
from ansor_py.search.loop.loop import Search
from ansor_py.search.loop.results import TuningResult
from ansor_py.search.loop.tuning_options import TuningOptions
from ansor_py.search.scheduler.networks import Network

# By runner that measures on this machine, the one that starts new processes soonest: for the final figures.
FRESH_PROCESSES = {"process": "process", "ray": "process"}


def tune(
    task: Task,
    trials: int = 256,
    seed: int = 0,
    runner: str = "process",
    options: TuningOptions | None = None,
    measurer: Measurer | None = None,
    subscribers: Sequence[Subscriber] = (),
) -> TuningResult:
    """Search for the fastest program of one task; `result.best` is its record. See `tune_tasks`."""
    options = replace(options or TuningOptions(), trials=trials, seed=seed)
    return tune_tasks([task], options, runner, measurer, subscribers)


def tune_tasks(
    tasks: Sequence[Task],
    options: TuningOptions | None = None,
    runner: str = "process",
    measurer: Measurer | None = None,
    subscribers: Sequence[Subscriber] = (),
    restored: Sequence[Record] = (),
    clock: Callable[[], float] | None = None,
    networks: Sequence[Network] = (),
    fallback_runner: str | None = None,
) -> TuningResult:
    """Search for the fastest programs of several tasks on one target.

    `measurer` is used if given (and left open), otherwise one of kind `runner` is made; with 0 trials nothing is measured.
    `subscribers` are told what happens (`events.py`), such as `RunDirectory.take`; `restored` are the records of an
    earlier search that is continued. `networks` says which tasks belong to which of several networks that are tuned together;
    without it all tasks are of one, with their weights. `clock` returns seconds; a virtual runner brings its own.
    KeyboardInterrupt ends the search early (`result.interrupted`). Raises OptionError for tasks of different targets, unknown
    names and tasks of which there are no records to replay, SizeError for a task that needs more memory than there is.
    A cost model, policy, mutation, task scheduler or objective that fails is a PlugInError, measuring that breaks down a
    MeasureError; both end the search as an interruption does, and their `result` is what was measured. With `fallback_runner`
    the search goes on with that one when measuring breaks down.
    """
    options = options or TuningOptions()
    if not tasks:
        raise OptionError("there are no tasks to tune")
    if len({str(task.target) for task in tasks}) > 1:
        raise OptionError("the tasks are for different targets; tune them one target at a time")
    tasks = merge_tasks(tasks)
    if measurer is None:
        check_memory(tasks, runner, options)

    def create(runner: str, check_outputs: bool = options.measure.check_outputs) -> Measurer:
        settings = replace(options.measure, check_outputs=check_outputs)
        return create_measurer(runner, target=tasks[0].target, threads=tasks[0].target.cores, options=settings)

    with ExitStack() as stack:
        if measurer is None and find_measurer(runner).virtual:
            measurer = stack.enter_context(create(runner))
        search = Search(tasks, options, subscribers, clock, networks, measurer)
        search.restore(restored)

        def open_measurer() -> AbstractContextManager[Measurer]:
            return create(runner) if measurer is None else nullcontext(measurer)

        fresh = FRESH_PROCESSES.get(runner) if measurer is None and options.measure.ray_address is None else None
        search.run(open_measurer, None if fresh is None else partial(create, fresh, check_outputs=False))
        if isinstance(search.failure, MeasureError) and fallback_runner is not None:
            search.recover(fallback_runner)
            search.run(partial(create, fallback_runner))
        search.store()
        result = search.result()
        if search.failure is not None:
            search.failure.result = result
            raise search.failure
        return result


def check_memory(tasks: Iterable[Task], runner: str, options: TuningOptions) -> None:
    """Raise SizeError for a task that cannot be measured on this machine; what a cluster's machines have is not known."""
    if find_measurer(runner).virtual or options.measure.ray_address is not None:
        return
    for task in tasks:
        require_memory(memory_to_measure(task.dag), f"measuring '{task.name}'")


def merge_tasks(tasks: Iterable[Task]) -> list[Task]:
    """Tasks with equal workload keys become one with the sum of their weights, in the order of first appearance."""
    merged: dict[str, Task] = {}
    for task in tasks:
        known = merged.get(task.workload_key)
        merged[task.workload_key] = task if known is None else replace(known, weight=known.weight + task.weight)
    return list(merged.values())
