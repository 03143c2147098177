"""The compiled model: machine code, plan and weights; one native call a run.

    compiled = load("m.ansor")                        # or ansor_py.compile("m.onnx")
    outputs = compiled.run({"input": array})          # name -> array
    compiled.benchmark(repeats=50).median             # milliseconds, timed in native code

A model may be used by several threads at once, which take turns, in a process forked from the one that made it (there on one
thread), and be sent to another process by `pickle`.

Loading needs neither ONNX nor anything of tuning; the weights stay mapped from the file. A model with nodes that are not
compiled is a native call for each run of kernels between them: library nodes are computed by NumPy, fallback nodes by ONNX.
"""

from __future__ import annotations

import ctypes
import math
import os
import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ansor_py.codegen.jit import LoadedObject
from ansor_py.codegen.machine_memory import require_memory
from ansor_py.codegen.memory import aligned_array, buffer_table
from ansor_py.codegen.thread_pool import load_kernels
from ansor_py.codegen.timing import AbortFlag, time_kernel
from ansor_py.errors import AnsorError, FeedError
from ansor_py.graph.fallback_run import FallbackRunner
from ansor_py.graph.model_archive import Archive, check_cpu, read_archive, write_archive
from ansor_py.graph.plan import FallbackNode, Location, Plan, Port
from ansor_py.graph.run_function import KERNEL_SYMBOL, entry_points
from ansor_py.target import Target


@dataclass(frozen=True)
class BenchmarkStats:
    """Latencies of single runs in milliseconds, in the order in which they were measured."""

    samples: tuple[float, ...]

    @property
    def median(self) -> float:
        """Median in milliseconds."""
        return statistics.median(self.samples)

    @property
    def min(self) -> float:
        """Least in milliseconds."""
        return min(self.samples)


class CompiledModel:
    """A model that is ready to run in this process. Threads that run it at once take turns, as they share the arena.

    Raises SizeError for one that needs more memory than there is.
    """

    def __init__(
        self, plan: Plan, objects: Mapping[str, bytes], weights: NDArray[np.uint8], fallback_models: Sequence[bytes] = ()
    ) -> None:
        require_memory(plan.memory, f"model '{plan.name}'")
        self.plan = plan
        self._objects = dict(objects)
        self._weights = weights
        self._fallback_models = tuple(fallback_models)
        self._arena = aligned_array((plan.arena_bytes,), np.uint8)
        self._workspace = aligned_array((plan.workspace_bytes,), np.uint8)
        self._abort = AbortFlag()
        self._locks: dict[int, threading.RLock] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        weights = np.array(self._weights)  # not a mapped file
        return _restored, (self.plan, self._objects, weights, self._fallback_models)

    @property
    def inputs(self) -> tuple[Port, ...]:
        """What `run` has to be fed with."""
        return self.plan.inputs

    @property
    def outputs(self) -> tuple[Port, ...]:
        """What `run` returns."""
        return self.plan.outputs

    @property
    def fallback_nodes(self) -> tuple[FallbackNode, ...]:
        """The nodes that are not compiled but run by ONNX's reference evaluator, in order of execution."""
        return tuple(node for node in self._nodes_between if not node.library)

    @property
    def library_nodes(self) -> tuple[FallbackNode, ...]:
        """The nodes that library kernels compute, by NumPy between native calls, in order of execution."""
        return tuple(node for node in self._nodes_between if node.library)

    @property
    def _nodes_between(self) -> tuple[FallbackNode, ...]:
        return self.plan.fallback.nodes if self.plan.fallback is not None else ()

    @property
    def notes(self) -> tuple[str, ...]:
        """Remarks on the model file that had no consequences: what ONNX's checker complains of, wrong types that it states."""
        return self.plan.notes

    @cached_property
    def target(self) -> Target:
        """The CPU that the code is for."""
        return Target.from_json(self.plan.target)

    def run(self, feed: Mapping[str, Any]) -> dict[str, Any]:
        """The outputs for the given inputs, as new arrays. Raises FeedError for a wrong name, shape or dtype.

        Inputs and outputs that are not numeric tensors (strings, sequences) are as ONNX's reference evaluator takes and gives
        them; a model has such only with fallback nodes.
        """
        ports = [*_checked_feed(self.plan, feed), *(aligned_array(port.shape, port.dtype) for port in self.outputs)]
        if self.plan.fallback is None:
            self._native_call(self._functions[0], ports)()
            held = {}
        else:
            held = self._run_segments(ports, feed)
        return {port.name: array for port, array in zip(self.outputs, ports[len(self.inputs) :], strict=True)} | held

    def benchmark(self, repeats: int = 50, feed: Mapping[str, Any] | None = None, warm_up: int = 3) -> BenchmarkStats:
        """Latencies of `repeats` runs, each timed inside native code. Without a `feed` the inputs are seeded random values.

        A model with fallback or library nodes is timed around `run`, the Python between native calls included.
        """
        feed = random_feed(self.plan) if feed is None else feed
        given = _checked_feed(self.plan, feed)
        if self.plan.fallback is not None:
            return self._benchmark_runs(repeats, feed, warm_up)
        outputs = [aligned_array(port.shape, port.dtype) for port in self.outputs]
        table = buffer_table([self._arena, self._weights, *given, *outputs])
        rest = (table.ctypes.data, self._workspace.ctypes.data, self.plan.threads, self._abort.pointer)
        with self._turn():
            arguments = (self._loaded.address(KERNEL_SYMBOL), *rest)
            time_kernel(*arguments, number=max(warm_up, 1))
            return BenchmarkStats(tuple(1e3 * time_kernel(*arguments, number=1).seconds for _ in range(max(repeats, 1))))

    def bind(self, feed: Mapping[str, Any]) -> tuple[Callable[[], None], dict[str, NDArray[np.generic]]]:
        """A call that runs the model on these inputs, and its numeric outputs, which every call overwrites.

        The call checks, copies and allocates nothing. It sees what is written into the feed's arrays later, where they are
        contiguous and 64-byte aligned; others are copied here. Raises FeedError for a wrong name, shape or dtype.
        """
        ports = [*_checked_feed(self.plan, feed), *(aligned_array(port.shape, port.dtype) for port in self.outputs)]
        outputs = {port.name: array for port, array in zip(self.outputs, ports[len(self.inputs) :], strict=True)}
        if self.plan.fallback is None:
            return self._native_call(self._functions[0], ports), outputs

        def call() -> None:
            self._run_segments(ports, feed)

        return call, outputs

    def _benchmark_runs(self, repeats: int, feed: Mapping[str, Any], warm_up: int) -> BenchmarkStats:
        samples = []
        for _ in range(max(warm_up, 1) + max(repeats, 1)):
            begin = time.perf_counter()
            self.run(feed)
            samples.append(1e3 * (time.perf_counter() - begin))
        return BenchmarkStats(tuple(samples[max(warm_up, 1) :]))

    def _native_call(self, function: Any, ports: Sequence[NDArray[np.generic]]) -> Callable[[], None]:
        """A native call with its arguments. `ports` are the inputs, then the outputs."""
        table = buffer_table(ports)
        regions = (self._arena, self._weights, self._workspace)
        addresses = tuple(array.ctypes.data for array in (table, *regions))

        def call(_alive: Any = (table, ports, regions)) -> None:  # mere addresses do not keep memory
            with self._turn():
                status = function(*addresses, self.plan.threads, self._abort.pointer)
            if status != 0:
                raise AnsorError(f"the run of model '{self.plan.name}' was aborted (status {status})")

        return call

    def _run_segments(self, ports: Sequence[NDArray[np.generic]], feed: Mapping[str, Any]) -> dict[str, Any]:
        """Native segments and the nodes between them in turn; returns the dynamic outputs."""
        fallback = self.plan.fallback
        assert fallback is not None

        def memory(location: Location, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
            if location.region in ("input", "output"):
                return ports[location.at + (len(self.inputs) if location.region == "output" else 0)].reshape(shape)
            region = self._arena if location.region == "arena" else self._weights
            size = math.prod(shape) * np.dtype(dtype).itemsize
            return region[location.at : location.at + size].view(dtype).reshape(shape)

        held = {name: feed[name] for name in fallback.dynamic_inputs}
        with self._turn():
            for index, function in enumerate(self._functions):
                self._native_call(function, ports)()
                if index < len(fallback.nodes):
                    self._between.run(index, memory, held)
        return {public: held[name] for public, name in fallback.dynamic_outputs.items()}

    def _turn(self) -> threading.RLock:
        """This process's lock on the arena: a child that was forked while another thread ran must not wait for that one."""
        return self._locks.setdefault(os.getpid(), threading.RLock())

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model as one file for `load`. Raises ModelError where it cannot be written."""
        write_archive(path, Archive(self.plan, self._objects, self._weights, self._fallback_models))

    def __repr__(self) -> str:
        calls, kernels = len(self.plan.calls), len(self._objects) - 1
        return f"<CompiledModel {self.plan.name}: {calls} calls of {kernels} kernels, {self.target.summary()}>"

    @cached_property
    def _loaded(self) -> LoadedObject:
        timed = [KERNEL_SYMBOL] if self.plan.fallback is None else []
        return load_kernels(list(self._objects.values()), [*entry_points(self.plan), *timed])

    @cached_property
    def _functions(self) -> list[Any]:
        """The native functions of a run, in order; one for a model that is compiled completely."""
        pointer, word = ctypes.c_void_p, ctypes.c_int32
        kind = ctypes.CFUNCTYPE(word, pointer, pointer, pointer, pointer, word, pointer)
        with self._turn():  # two threads must not load the code twice: one copy would be released again
            return [kind(self._loaded.address(symbol)) for symbol in entry_points(self.plan)]

    @cached_property
    def _between(self) -> FallbackRunner:
        return FallbackRunner(self._nodes_between, self._fallback_models)


def load(path: str | os.PathLike[str]) -> CompiledModel:
    """A model saved by `CompiledModel.save`, ready to run without tuning or compiling.

    Raises ModelError for a file that is damaged or not a compiled model, TargetError where this CPU lacks what the code
    needs.
    """
    archive = read_archive(path)
    return CompiledModel(archive.plan, archive.objects, archive.weights, archive.fallback_models)


def _restored(
    plan: Plan, objects: Mapping[str, bytes], weights: NDArray[np.uint8], fallback_models: Sequence[bytes]
) -> CompiledModel:
    """A model that was pickled. Raises TargetError where this CPU lacks what the code needs."""
    check_cpu(Target.from_json(plan.target), f"the pickled model '{plan.name}'")
    aligned = aligned_array(weights.shape, np.uint8)
    aligned[...] = weights
    return CompiledModel(plan, objects, aligned, fallback_models)


def random_feed(plan: Plan, seed: int = 0) -> dict[str, NDArray[np.generic]]:
    """Inputs for timing: standard normal floats; zeros for integers, which may be indices. FeedError for other inputs."""
    if plan.fallback is not None and plan.fallback.dynamic_inputs:
        raise FeedError(f"input '{plan.fallback.dynamic_inputs[0]}' is not a numeric tensor; give the values to feed")
    rng = np.random.default_rng(seed)
    feed: dict[str, NDArray[np.generic]] = {}
    for port in plan.inputs:
        is_float = np.issubdtype(np.dtype(port.dtype), np.floating)
        values = rng.standard_normal(port.shape) if is_float else np.zeros(port.shape)
        feed[port.name] = values.astype(port.dtype)
    return feed


def _checked_feed(plan: Plan, feed: Mapping[str, Any]) -> list[NDArray[np.generic]]:
    """The inputs in the plan's order, contiguous and aligned. Raises FeedError."""
    expected = ", ".join(f"{port.name}: {port.dtype}{list(port.shape)}" for port in plan.inputs) or "nothing"
    dynamic = plan.fallback.dynamic_inputs if plan.fallback is not None else ()
    expected += "".join(f", {name}: not a numeric tensor" for name in dynamic)
    for name in feed:
        if name not in {*(port.name for port in plan.inputs), *dynamic}:
            raise FeedError(f"the model has no input '{name}'; it takes {expected}")
    for name in dynamic:
        if name not in feed:
            raise FeedError(f"input '{name}' is missing; the model takes {expected}")
    arrays = []
    for port in plan.inputs:
        if port.name not in feed:
            raise FeedError(f"input '{port.name}' is missing; the model takes {expected}")
        array = np.asarray(feed[port.name])
        if array.shape != port.shape:
            raise FeedError(f"input '{port.name}' has shape {list(array.shape)}, but the model takes {list(port.shape)}")
        if array.dtype != np.dtype(port.dtype):
            raise FeedError(
                f"input '{port.name}' has dtype {array.dtype}, but the model takes {port.dtype}; convert it with astype"
            )
        arrays.append(_aligned(array))
    return arrays


def _aligned(array: NDArray[np.generic]) -> NDArray[np.generic]:
    """The array itself if kernels can read it in place, else a contiguous 64-byte aligned copy."""
    if array.flags.c_contiguous and array.dtype.isnative and array.ctypes.data % 64 == 0:
        return array
    copy = aligned_array(array.shape, array.dtype.newbyteorder("="))
    copy[...] = array
    return copy
