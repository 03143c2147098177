"""What the conformance suites try strategies on: small tasks on four targets, their sketches, random programs, costs.

[population, *_] = programs("matmul:48,40,32", TARGETS[0], 20)
simulated_seconds(population, TARGETS[0])
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ansor_py.cost_model.features import extract_features
from ansor_py.cost_model.interface import FeatureBatch
from ansor_py.measure import MeasureInput, create_measurer
from ansor_py.registry import Registered, Registry, all_registered
from ansor_py.schedule.sketch import Population, Sketch
from ansor_py.schedule.task import Task
from ansor_py.search.options import SearchOptions
from ansor_py.search.sampling.sampler import sample
from ansor_py.search.sampling.space import Space
from ansor_py.sketch_rules.derivation import generate_sketches
from ansor_py.target import Target
from ansor_py.te.tensor import Tensor

Workload = str | Callable[[], Tensor]
# A product, a convolution with its padding and bias, row-wise stages, and a space of few programs.
PRODUCT, CONVOLUTION, ROWS, SMALL = "matmul:48,40,32", "conv2d:1,8,14,14,16,3,pad=1,bias=1,relu=1", "softmax:24,160", "relu:8"
SPECS = (PRODUCT, CONVOLUTION, ROWS)
# Vectors of 16, 32 and 64 bytes; 16 and 32 registers.
TARGETS = (
    "x86-64 cores=2",
    "x86-64 cpu=haswell cores=2",
    "x86-64 cpu=skylake-avx512 cores=2",
    "aarch64 cpu=cortex-a76 cores=2",
)
TARGET = TARGETS[1]
SEARCH = SearchOptions(population=64, iterations=1)  # small, so that a suite takes seconds


def check(holds: object, words: str) -> None:
    """Raise AssertionError with a sentence unless something holds."""
    if not holds:
        raise AssertionError(words)


def registered_as(registry: Registry[Any], name: str) -> Registered:
    """What is registered under a name. Raises OptionError if nothing is, AssertionError if it does not say what it does."""
    registry.find(name)
    found = next(item for item in all_registered() if item.kind == registry.kind and item.name == name)
    check(found.text.strip(), f"{found.kind} '{name}' has no docstring; --help-strategy would have nothing to show")
    if found.options is not None:
        default = found.options()  # raises OptionError where a default is out of its range
        check(default == found.options() and hash(default) is not None, "its options cannot be compared with each other")
    return found


@functools.cache
def task_of(spec: Workload, target: str = TARGET) -> Task:
    """A task by its spec, or by a function that makes its output, for a target by its text."""
    machine = Target.parse(target)
    return Task.from_spec(spec, machine) if isinstance(spec, str) else Task.from_compute(spec(), machine)


@functools.cache
def sketches_of(spec: Workload, target: str = TARGET, rules: str | tuple[str, ...] = "default") -> tuple[Sketch, ...]:
    """The sketches that rules derive."""
    task = task_of(spec, target)
    return tuple(generate_sketches(task.dag, task.target, rules))


@functools.cache
def programs(spec: str, target: str = TARGET, count: int = 16, seed: int = 0) -> tuple[Population, ...]:
    """Random valid programs, at most `count` of every sketch."""
    rng = np.random.default_rng(seed)
    found = []
    for sketch in sketches_of(spec, target):
        genes = np.unique(sample(Space(sketch, Target.parse(target), SEARCH), count, rng), axis=0)
        if len(genes):
            found.append(Population(sketch, genes))
    return tuple(found)


def features_of(populations: Sequence[Population], target: str = TARGET) -> FeatureBatch:
    """The features of some programs, in one batch."""
    return FeatureBatch.concatenate([extract_features(p, Target.parse(target)) for p in populations])


def simulated_seconds(population: Population, target: str = TARGET) -> NDArray[np.float64]:
    """What the programs take on the simulated CPU, float64[programs]; infinite for one that cannot be lowered."""
    machine = Target.parse(target)
    dag = population.sketch.dag
    inputs = [
        MeasureInput(dag.workload_key, dag, population.sketch.concretise(row), machine, machine.cores)
        for row in population.genes
    ]
    with create_measurer("simulated", target=machine, threads=machine.cores) as measurer:
        return np.array([result.cost if result.valid else np.inf for result in measurer.measure(inputs)])
