"""The compiled model: machine code, plan and weights; one native call a run.

    compiled = load("m.ansor")                        # or ansor_py.compile("m.onnx")
    outputs = compiled.run({"input": array})          # name -> array
    compiled.benchmark(repeats=50).median             # milliseconds, timed in native code

A model may be used by several threads at once, which take turns, in a process forked from the one that made it, and be sent to
another process by `pickle`.

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
from ansor_py.codegen.memory import aligned_array, buffer_table, data_address
from ansor_py.codegen.thread_pool import allowed_threads, load_kernels
from ansor_py.codegen.timing import AbortFlag, time_kernel
from ansor_py.errors import AnsorError, FeedError
from ansor_py.graph.fallback_run import FallbackRunner
from ansor_py.graph.model_archive import Archive, check_cpu, read_archive, write_archive
from ansor_py.graph.plan import Fallback, FallbackNode, FusionChoice, Location, Plan, Port
from ansor_py.graph.profiling import Profile, profile_of, rates_of
from ansor_py.graph.run_arrays import RunArrays
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
        self._arrays = RunArrays(plan)
        self._table = (ctypes.c_void_p * max(len(plan.inputs) + len(plan.outputs), 1))()
        self._table_address = ctypes.addressof(self._table)
        self._regions = tuple(array.ctypes.data for array in (self._arena, self._weights, self._workspace))
        self._output_names = tuple(port.name for port in plan.outputs)
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

    @property
    def algorithms(self) -> dict[str, tuple[str, ...]]:
        """By the name of the task the algorithms that its kernel uses in place of what its operators say; see `math`."""
        return {self.plan.work[symbol].task: names for symbol, names in self.plan.algorithms.items()}

    @property
    def choices(self) -> tuple[FusionChoice, ...]:
        """Where one kernel could do the work of several, and which of them do it."""
        return self.plan.choices

    @cached_property
    def target(self) -> Target:
        """The CPU that the code is for."""
        return Target.from_json(self.plan.target)

    def run(self, feed: Mapping[str, Any], out: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The outputs for the given inputs. Raises FeedError for a wrong name, shape or dtype.

        Contiguous arrays, and what other libraries offer through DLPack, are read where they lie. An output is a new array,
        whose memory is used again once nobody holds the array or a view of it, or the one that `out` names for it.

        Inputs and outputs that are not numeric tensors (strings, sequences) are as ONNX's reference evaluator takes and gives
        them; a model has such only with fallback nodes.
        """
        held: dict[str, Any] = {}
        with self._turn():
            inputs = self._arrays.inputs(feed)
            outputs = self._arrays.outputs() if out is None else self._arrays.outputs_into(out, inputs)
            ports = [*inputs, *outputs]
            for index, array in enumerate(ports):
                self._table[index] = data_address(array)
            if self.plan.fallback is None:
                self._call(self._functions[0], self._table_address)
            else:
                held = self._run_segments(self._table_address, ports, feed)
        result = dict(zip(self._output_names, outputs, strict=True))
        return result | held if held else result

    def benchmark(self, repeats: int = 50, feed: Mapping[str, Any] | None = None, warm_up: int = 3) -> BenchmarkStats:
        """Latencies of `repeats` runs, each timed inside native code. Without a `feed` the inputs are seeded random values.

        A model with fallback or library nodes is timed around `run`, the Python between native calls included.
        """
        feed = random_feed(self.plan) if feed is None else feed
        if self.plan.fallback is not None:
            return self._benchmark_runs(repeats, feed, warm_up)
        with self._turn():
            table = buffer_table([self._arena, self._weights, *self._arrays.inputs(feed), *self._arrays.outputs()])
            threads = allowed_threads(self.plan.threads)
            rest = (table.ctypes.data, self._workspace.ctypes.data, threads, self._abort.pointer)
            arguments = (self._loaded.address(KERNEL_SYMBOL), *rest)
            time_kernel(*arguments, number=max(warm_up, 1))
            return BenchmarkStats(tuple(1e3 * time_kernel(*arguments, number=1).seconds for _ in range(max(repeats, 1))))

    def bind(self, feed: Mapping[str, Any]) -> tuple[Callable[[], None], dict[str, NDArray[np.generic]]]:
        """A call that runs the model on these inputs, and its numeric outputs, which every call overwrites.

        The call checks, copies and allocates nothing. It sees what is written into the feed's arrays later, where they are
        contiguous; others are copied here. Raises FeedError for a wrong name, shape or dtype.
        """
        with self._turn():
            ports = [*self._arrays.inputs(feed, keep=True), *self._arrays.outputs()]
        outputs = dict(zip(self._output_names, ports[len(self.inputs) :], strict=True))
        table = buffer_table(ports)
        address = table.ctypes.data

        def call(_alive: Any = (table, ports)) -> None:  # mere addresses do not keep memory
            with self._turn():
                if self.plan.fallback is None:
                    self._call(self._functions[0], address)
                else:
                    self._run_segments(address, ports, feed)

        return call, outputs

    def _benchmark_runs(self, repeats: int, feed: Mapping[str, Any], warm_up: int) -> BenchmarkStats:
        samples = []
        for _ in range(max(warm_up, 1) + max(repeats, 1)):
            begin = time.perf_counter()
            self.run(feed)
            samples.append(1e3 * (time.perf_counter() - begin))
        return BenchmarkStats(tuple(samples[max(warm_up, 1) :]))

    def profile(self, feed: Mapping[str, Any] | None = None, repeats: int = 20) -> Profile:
        """How long every kernel takes inside the model, beside what the machine could do; `print` shows it as a table.

        Medians over `repeats` runs, timed in native code, after one that warms up. Without a `feed` the inputs are seeded
        random values. Takes about a second more to measure the machine's rates. Raises FeedError like `run`.
        """
        seconds = np.median(self.time_calls(feed, repeats), axis=0)
        return profile_of(self.plan, seconds, rates_of(self.target, allowed_threads(self.plan.threads)))

    def time_calls(self, feed: Mapping[str, Any] | None = None, repeats: int = 20) -> NDArray[np.float64]:
        """Seconds of every kernel call in the order of the plan, then of every node between them: float64[repeats, calls].

        Timed like a `profile`, which is the medians of them.
        """
        feed = random_feed(self.plan) if feed is None else feed
        stamps = np.zeros((len(self.plan.calls), 2), np.int64)
        between = np.zeros((len(self._nodes_between), 2), np.int64)
        samples = []
        with self._turn():
            inputs = self._arrays.inputs(feed)
            ports = [*inputs, *self._arrays.outputs()]
            table = buffer_table(ports)
            for _ in range(1 + max(repeats, 1)):
                self._run_segments(table.ctypes.data, ports, feed, (stamps, between))
                samples.append(np.diff(np.concatenate([stamps, between]))[:, 0])
        return 1e-9 * np.array(samples[1:], np.float64)

    def _call(self, function: Any, table: int, stamps: int = 0) -> None:
        """Call a native function of the run; `table` is where the addresses of the inputs and outputs stand."""
        status = function(table, *self._regions, allowed_threads(self.plan.threads), self._abort.pointer, stamps)
        if status != 0:
            raise AnsorError(f"the run of model '{self.plan.name}' was aborted (status {status})")

    def _run_segments(
        self,
        table: int,
        ports: Sequence[NDArray[np.generic]],
        feed: Mapping[str, Any],
        clocks: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None,
    ) -> dict[str, Any]:
        """Native segments and the nodes between them in turn; returns the dynamic outputs.

        `clocks` get the beginning and end (nanoseconds) of every kernel call and of every node between segments.
        """
        fallback = self.plan.fallback or Fallback(())
        stamps = 0 if clocks is None else clocks[0].ctypes.data

        def memory(location: Location, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
            if location.region in ("input", "output"):
                return ports[location.at + (len(self.inputs) if location.region == "output" else 0)].reshape(shape)
            region = self._arena if location.region == "arena" else self._weights
            size = math.prod(shape) * np.dtype(dtype).itemsize
            return region[location.at : location.at + size].view(dtype).reshape(shape)

        held = {name: feed[name] for name in fallback.dynamic_inputs}
        for index, function in enumerate(self._functions):
            self._call(function, table, stamps)
            if index < len(fallback.nodes):
                begin = time.monotonic_ns()
                self._between.run(index, memory, held)
                if clocks is not None:
                    clocks[1][index] = begin, time.monotonic_ns()
        return {public: held[name] for public, name in fallback.dynamic_outputs.items()}

    def _turn(self) -> threading.RLock:
        """This process's lock on the arena: a child that was forked while another thread ran must not wait for that one."""
        process = os.getpid()
        return self._locks.get(process) or self._locks.setdefault(process, threading.RLock())

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
        kind = ctypes.CFUNCTYPE(word, pointer, pointer, pointer, pointer, word, pointer, pointer)
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
