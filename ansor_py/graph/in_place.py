"""Tuned means tuned in place: of each task's best few programs the network takes those that are fast inside it.

A kernel that is timed alone finds its caches warm and its threads awake; between other kernels, with the model's own memory
plan and threads, another program may be faster. So the programs are timed where they will run. Variant 0 of the model has all
default schedules, variant k the k-th program of every task: a few models, however many tasks. They run in turns, every call is
timed in native code, and each task takes the program whose calls were fastest, though what alone was best is kept unless
another one is clearly faster. Where one kernel could take the place of several (`Partition.choices`) there are variants with
the one and with the several, and the lesser sum wins. At last whole networks run in turns: what is chosen is never slower than
what is untuned.

    result = tune_tasks(extract_tasks(parts, target), options)
    choice = choose_in_place(build_variants(parts, result.contenders, target, threads))
    choice.model.save("model.ansor")
    choice.untuned_seconds, choice.seconds, choice.tasks[key].seconds
"""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from msgspec import structs
from numpy.typing import NDArray

from ansor_py.codegen.machine_memory import require_memory
from ansor_py.graph.compilation import link_partition
from ansor_py.graph.compiled import CompiledModel, random_feed
from ansor_py.graph.partition import Partition, TaskUnit
from ansor_py.graph.partition_choice import MEASURED_MARGIN, choices_by_roofline, distinct_choices, extremes, weighed, wide_keys
from ansor_py.graph.plan import FusionChoice, kernels_of
from ansor_py.graph.schedule_choice import DEFAULT_SCHEDULE, BuiltSchedules, build_schedules
from ansor_py.measure.result import LEAST_SECONDS, InPlace, TaskInPlace

if TYPE_CHECKING:
    from ansor_py.codegen.kernel import CompiledKernel
    from ansor_py.measure.records import Record
    from ansor_py.target import Target

# Variants take turns of so many seconds; no turn begins when the limit is over.
TURNS, TURN_SECONDS, LIMIT_SECONDS = 8, 0.05, 10.0
MOST_REPEATS = 20  # runs of a turn
# Another program is taken when it is faster by this much in so large a share of the turns.
MARGIN, CLEAR_SHARE = 0.02, 0.75
# Whole networks are timed for this long each in so many turns, and no turn begins when the limit is over.
NETWORK_SECONDS, NETWORK_TURNS, NETWORK_LIMIT_SECONDS = 1.0, 5, 8.0


@dataclass(frozen=True, eq=False)
class Program:
    """A program that a task may take; `record` is None for a default schedule that has no valid one."""

    record: Record | None
    kernel: CompiledKernel
    origin: str


@dataclass(frozen=True, eq=False)
class Variants:
    """A network in several variants, the untuned one first.

    `programs` are those of each task by workload key, the default schedule first; `preferred` is the place of the one that
    was best alone, `numbers` which of its programs each of the models has of a task with many. `untuned` are the choices of
    the untuned network.
    """

    parts: Partition
    target: Target
    threads: int
    programs: Mapping[str, tuple[Program, ...]]
    preferred: Mapping[str, int]
    models: tuple[CompiledModel, ...]
    numbers: tuple[int, ...]
    untuned: Mapping[str, FusionChoice] = field(default_factory=dict)

    def link(self, places: Mapping[str, int], choices: Mapping[str, FusionChoice]) -> CompiledModel:
        """The network with the program of this place for each task, decided by these choices."""
        chosen = {key: self.programs[key][place] for key, place in places.items()}
        kernels = {key: program.kernel for key, program in chosen.items()}
        origins = {key: program.origin for key, program in chosen.items()}
        return link_partition(self.parts, (kernels, origins), self.target, self.threads, choices)


@dataclass(frozen=True, eq=False)
class InPlaceChoice:
    """What a network chose in place: the model, latencies in seconds, and by workload key what became of each task and the
    records of all programs that were tried, which say so (`MeasureResult.in_place`)."""

    model: CompiledModel
    untuned_seconds: float
    seconds: float
    tasks: Mapping[str, TaskInPlace]
    records: Mapping[str, tuple[Record, ...]]
    choices: tuple[FusionChoice, ...] = ()


def build_variants(
    parts: Partition,
    contenders: Mapping[str, Sequence[Record]],
    target: Target,
    threads: int,
    untuned: BuiltSchedules | None = None,
    workers: int | None = None,
) -> Variants:
    """Compile the contenders of every task, each once; `contenders` are by workload key, the best first.

    `untuned` are the kernels of the default schedules of all alternatives, if they are there already. Raises SizeError when all
    variants together need more memory than there is.
    """
    untuned = untuned or build_schedules(parts.all_tasks, {}, target, threads, workers, optional=distinct_choices(parts))
    parts = parts.without(choice.key for choice in parts.choices if choice.key not in untuned[0])
    choices = choices_by_roofline(parts, untuned[0], distinct_choices(parts))
    programs = _programs(parts, contenders, target, threads, untuned, workers)
    preferred = {key: 1 if len(found) > 1 and contenders[key][0] is found[1].record else 0 for key, found in programs.items()}
    variants = Variants(parts, target, threads, programs, preferred, (), (), choices)
    models, numbers = list[CompiledModel](), list[int]()
    for number in range(max(map(len, programs.values()), default=1)):
        for decision in untuned_decisions(choices) if number == 0 else extremes(choices):
            places = {key: _place_in_variant(number, len(found)) for key, found in programs.items()}
            models.append(variants.link(places, decision))
            numbers.append(number)
            needed = {f"variant {place}": sum(model.plan.memory.values()) for place, model in enumerate(models)}
            require_memory(needed, f"choosing programs inside model '{parts.graph.name}'")
    return Variants(parts, target, threads, programs, preferred, tuple(models), tuple(numbers), choices)


def link_untuned(parts: Partition, untuned: BuiltSchedules, target: Target, threads: int) -> list[CompiledModel]:
    """The network with default schedules, as the roofline decides it, and besides as many as have all kernels together."""
    parts = parts.without(choice.key for choice in parts.choices if choice.key not in untuned[0])
    choices = choices_by_roofline(parts, untuned[0], distinct_choices(parts))
    return [link_partition(parts, untuned, target, threads, decision) for decision in untuned_decisions(choices)]


def untuned_decisions(choices: Mapping[str, FusionChoice]) -> list[Mapping[str, FusionChoice]]:
    """The choices as they are, and besides them those extremes that are not the same: together they have all kernels."""
    return [choices, *(other for other in extremes(choices) if wide_keys(other) != wide_keys(choices))]


def _programs(
    parts: Partition,
    contenders: Mapping[str, Sequence[Record]],
    target: Target,
    threads: int,
    untuned: BuiltSchedules,
    workers: int | None,
) -> dict[str, tuple[Program, ...]]:
    """The programs of each task by workload key, the default schedule first."""
    others = {
        unit.workload_key: [record for record in contenders.get(unit.workload_key, ()) if not record.is_default]
        for unit in parts.all_tasks
    }
    programs = {unit.workload_key: [_default_program(unit, contenders, untuned)] for unit in parts.all_tasks}
    for number in range(max(map(len, others.values()), default=0)):
        units = [unit for unit in parts.all_tasks if len(others[unit.workload_key]) > number]
        known = {unit.workload_key: [others[unit.workload_key][number]] for unit in units}
        kernels, origins = build_schedules(units, known, target, threads, workers)
        for key, origin in origins.items():
            if origin != DEFAULT_SCHEDULE:  # which stands in for a program that cannot be built any more
                programs[key].append(Program(known[key][0], kernels[key], origin))
    return {key: tuple(found) for key, found in programs.items()}


def choose_in_place(variants: Variants) -> InPlaceChoice:
    """Time the variants in turns, choose each task's program and between alternatives, and see that the network is faster than
    it was untuned.

    If it is not, tasks whose default schedules were faster get these; if that does not help, all do.
    """
    seconds = program_seconds(variants, time_variants(variants.models))
    chosen = {key: choose(times, variants.preferred[key]) for key, times in seconds.items()}
    medians = {key: np.median(times, axis=0) for key, times in seconds.items()}
    careful = {key: 0 if medians[key][0] <= medians[key][place] else place for key, place in chosen.items()}
    untuned = dict.fromkeys(seconds, 0)
    decided = _measured_choices(variants.parts, untuned, medians)
    networks = [(untuned, {key: replace(item, wide=variants.untuned[key].wide) for key, item in decided.items()})]
    for places in (chosen, careful):
        choices = _measured_choices(variants.parts, places, medians)
        if (places, wide_keys(choices)) not in [(other, wide_keys(taken)) for other, taken in networks]:
            networks.append((places, choices))
    models = [variants.models[0], *(variants.link(*network) for network in networks[1:])]
    latencies = time_in_turns(models)
    number = next((number for number in range(1, len(models)) if latencies[number] <= latencies[0]), 0)
    places, choices = networks[number]
    if choices and number == 0:  # with what is known of them now
        models[0] = variants.link(places, choices)
    tasks = {key: _task_in_place(variants.programs[key], medians[key], place) for key, place in places.items()}
    records = {key: _timed(variants.programs[key], medians[key], place) for key, place in places.items()}
    return InPlaceChoice(models[number], latencies[0], latencies[number], tasks, records, tuple(choices.values()))


def _measured_choices(
    parts: Partition, places: Mapping[str, int], medians: Mapping[str, NDArray[np.float64]]
) -> dict[str, FusionChoice]:
    """What the times of the programs at these places say of each choice."""
    seconds = {key: float(medians[key][place]) for key, place in places.items()}
    choices = distinct_choices(parts).items()
    return {key: weighed(parts, choice, seconds.get, "in place", MEASURED_MARGIN) for key, choice in choices}


def choose(seconds: NDArray[np.float64], preferred: int) -> int:
    """Which of some programs to take, from their times: float64[turns, programs].

    The preferred one, unless others are clearly faster, by MARGIN in CLEAR_SHARE of the turns: then the fastest of these.
    Times of one turn are compared with each other only, so that a slow minute of the machine decides nothing.
    """
    ratios = seconds / seconds[:, [preferred]]
    clearly = np.quantile(ratios, CLEAR_SHARE, axis=0, method="higher") < 1 - MARGIN
    return int(np.argmin(np.where(clearly, np.median(ratios, axis=0), np.inf))) if clearly.any() else preferred


def time_variants(models: Sequence[CompiledModel]) -> list[NDArray[np.float64]]:
    """For each turn the median seconds of a run in each kernel: float64[models, kernels], in the order of `kernels_of_all`, NaN
    for a kernel that a model does not have.

    The models are variants of one network.
    """
    begun = time.monotonic()
    kernels = kernels_of_all(models)
    columns = {kernel: number for number, kernel in enumerate(kernels)}
    is_call_of = []
    for model in models:
        table = np.zeros((len(model.plan.calls), len(kernels)), np.float64)
        for number, call in enumerate(model.plan.calls):
            table[number, columns[call.kernel]] = 1.0
        is_call_of.append(table)
    absent = np.array([~table.any(axis=0) for table in is_call_of]).reshape(len(models), len(kernels))
    feed = random_feed(models[0].plan)
    run = max(float(models[0].time_calls(feed, 1).sum()), LEAST_SECONDS)
    repeats = int(min(max(TURN_SECONDS / run, 1), MOST_REPEATS))
    turns: list[NDArray[np.float64]] = []
    while len(turns) < TURNS and (not turns or time.monotonic() - begun < LIMIT_SECONDS):
        calls = [model.time_calls(feed, repeats)[:, : len(model.plan.calls)] for model in models]
        medians = [np.median(times @ table, axis=0) for times, table in zip(calls, is_call_of, strict=True)]
        turns.append(np.where(absent, np.nan, np.array(medians).reshape(absent.shape)))
    return turns


def kernels_of_all(models: Sequence[CompiledModel]) -> list[str]:
    """The symbols of the kernels that some of the models call, each once."""
    return list(dict.fromkeys(symbol for model in models for symbol in kernels_of(model.plan)))


def default_seconds(models: Sequence[CompiledModel], untuned: BuiltSchedules) -> dict[str, float]:
    """By workload key the seconds per call of each kernel inside untuned models, variants of one network."""
    calls = _calls(models)
    seconds = np.median(np.array(time_variants(models)), axis=0) / np.where(calls > 0, calls, np.nan)
    means = {symbol: float(np.nanmean(seconds[:, number])) for number, symbol in enumerate(kernels_of_all(models))}
    return {key: max(means[k.symbol], LEAST_SECONDS) for key, k in untuned[0].items() if k.symbol in means}


def _calls(models: Sequence[CompiledModel]) -> NDArray[np.float64]:
    """How often each model calls each kernel: float64[models, kernels], in the order of `kernels_of_all`."""
    counts = [Counter(call.kernel for call in model.plan.calls) for model in models]
    kernels = kernels_of_all(models)
    return np.array([[count[kernel] for kernel in kernels] for count in counts], np.float64).reshape(len(models), len(kernels))


def program_seconds(variants: Variants, turns: Sequence[NDArray[np.float64]]) -> dict[str, NDArray[np.float64]]:
    """By workload key the seconds per call of each program in each turn, float64[turns, programs], from `time_variants`.

    A program that several variants have gets their mean.
    """
    table, calls = np.array(turns), _calls(variants.models)
    column = {kernel: number for number, kernel in enumerate(kernels_of_all(variants.models))}
    found = {}
    for key, programs in variants.programs.items():
        place_in = np.array([_place_in_variant(number, len(programs)) for number in variants.numbers])
        own = column[programs[0].kernel.symbol]
        times = np.maximum(table[:, :, own] / np.where(calls[:, own] > 0, calls[:, own], np.nan), LEAST_SECONDS)
        there = calls[:, own] > 0
        found[key] = np.stack([times[:, there & (place_in == place)].mean(axis=1) for place in range(len(programs))], axis=1)
    return found


def time_in_turns(models: Sequence[CompiledModel]) -> list[float]:
    """Median latency of each model in seconds; they take turns, so that a slow moment meets all of them."""
    begun = time.monotonic()
    fastest = min(model.benchmark(repeats=1).median for model in models) / 1e3
    repeats = int(min(max(NETWORK_SECONDS / NETWORK_TURNS / max(fastest, 1e-9), 1), MOST_REPEATS))
    samples: list[list[float]] = [[] for _ in models]
    while len(samples[0]) < repeats * NETWORK_TURNS:
        for model, taken in zip(models, samples, strict=True):
            taken.extend(model.benchmark(repeats=repeats).samples)
        if time.monotonic() - begun > NETWORK_LIMIT_SECONDS:
            break
    return [statistics.median(taken) / 1e3 for taken in samples]


def _place_in_variant(number: int, programs: int) -> int:
    """Which of a task's programs a variant has: those of a task with few of them come again."""
    return 0 if number == 0 or programs == 1 else 1 + (number - 1) % (programs - 1)


def _task_in_place(programs: Sequence[Program], seconds: NDArray[np.float64], chosen: int) -> TaskInPlace:
    record = programs[chosen].record
    return TaskInPlace(None if record is None else record.trial, float(seconds[chosen]), float(seconds[0]))


def _timed(programs: Sequence[Program], seconds: NDArray[np.float64], chosen: int) -> tuple[Record, ...]:
    """The records of the programs with their times."""
    times = [InPlace(float(value), place == chosen) for place, value in enumerate(seconds)]
    pairs = [(program.record, time) for program, time in zip(programs, times, strict=True) if program.record is not None]
    return tuple(structs.replace(record, result=structs.replace(record.result, in_place=time)) for record, time in pairs)


def _default_program(unit: TaskUnit, contenders: Mapping[str, Sequence[Record]], untuned: BuiltSchedules) -> Program:
    key = unit.workload_key
    record = next((record for record in contenders.get(key, ()) if record.is_default), None)
    return Program(record, untuned[0][key], untuned[1][key])
