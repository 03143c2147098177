"""The engines that the benchmarks compare, each in a process of its own: opened with its best setting, then timed on demand.

    python experiments/contenders.py ort model.onnx FOLDER 0,1 "host cpu=haswell"   # ansor: model.ansor; FOLDER has feed.npz

The process keeps to the given cores. Under a target with narrower vectors than the machine's, the environment holds libraries
to these (`CAPS`), and the process tells whether the engine's kernels heed it. A peer tries at start every setting that makes
sense on the cores (threads, and what its `*_settings` lists), times plain calls with each on the model itself and keeps the
fastest. It saves the model's first output in FOLDER, of a plain call as `ort-time.npy` and of one in place as `ort-place.npy`,
prints the setting and the engine's version as a line of JSON, and from then on answers each line of its standard input with
such a line: `time SECONDS` with the median milliseconds of plain calls from Python (NumPy arrays in, NumPy arrays out);
`place SECONDS` with those of calls whose inputs and outputs are in place; `native SECONDS` (ansor alone) with those that native
code measures; `peak SECONDS` with the GFLOP/s of a loop of nothing but the target's FMAs.
"""

from __future__ import annotations

import gc
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

import ansor_py
from ansor_py.codegen.peak import measure_peak
from ansor_py.graph import CompiledModel
from ansor_py.target import Target
from machine import is_cut_down
from torch_nodes import Function, function_of

OURS = "ansor"
WAYS = ("time", "place")  # the questions about calls of which there is a result: plain, in place
WARM_UP, FEWEST_CALLS, MOST_CALLS = 3, 3, 2000
LONG_CALL_MS = 1000.0  # a call of so long is timed once, without a warm-up
SETTING_TURNS, SETTING_SECONDS = 2, 0.05  # every setting of a peer is timed so often, so long at start; the best turn counts

# What holds libraries to vectors of so many bytes: the environment of every contender, for memory is copied by glibc for all.
# oneDNN has nothing below SSE4.1. OpenVINO wants a variable of its own beside oneDNN's (its release of 2026.4 heeds it). MKL
# heeds MKL_ENABLE_INSTRUCTIONS on Intel's CPUs; on others it has nothing wider than AVX2, and COMPATIBLE is SSE2 everywhere.
CAPS: Mapping[int, Mapping[str, str]] = {
    32: {
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "OV_CPU_MAX_ISA": "AVX2",
        "ATEN_CPU_CAPABILITY": "avx2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX512F,-AVX512VL",
    },
    16: {
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "OV_CPU_MAX_ISA": "SSE42",
        "ATEN_CPU_CAPABILITY": "default",
        "MKL_CBWR": "COMPATIBLE",
        "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX512F,-AVX512VL,-AVX2,-AVX,-AVX_Fast_Unaligned_Load",
    },
}
# Words in what an engine tells of its kernels by which they take wider vectors all the same. MLAS asks nothing but the CPU.
WIDER = {32: ("mlas", "avx512"), 16: ("mlas", "avx")}

Array = NDArray[Any]
Feed = Mapping[str, Array]
Call = Callable[[], Any]
Setting = Mapping[str, Any]


@dataclass(frozen=True)
class Opened:
    """A model ready to run, and what the engine tells of its kernels.

    `plain` is what a user writes: from the NumPy arrays of the feed to the first output as a new one. `in_place` has inputs and
    outputs where the engine wants them, and `result` reads the first output of its last call.
    """

    plain: Callable[[], Array]
    in_place: Call
    result: Callable[[], Array]
    kernels: Sequence[str] = ()

    def keeps_to(self, vector_bytes: int) -> bool:
        """Whether no kernel takes wider vectors than these, under `CAPS`."""
        return not any(word in kernel.lower() for word in WIDER[vector_bytes] for kernel in self.kernels)


@dataclass(frozen=True)
class Peer:
    """An engine: the module it needs, the settings to try on some cores, and how a model is opened with one of them."""

    module: str
    settings: Callable[[onnx.ModelProto, int], Iterator[Setting]]
    open: Callable[[Path, Feed, Setting], Opened]


def serve(name: str, path: Path, folder: Path, cores: Sequence[int], target: Target) -> None:
    """Open the model, save its results, then answer commands until the standard input ends."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no reply
    for thread in os.listdir("/proc/self/task"):  # libraries have started some while they were imported
        os.sched_setaffinity(int(thread), cores)
    with np.load(folder / "feed.npz") as stored:
        feed = {key: as_numpy_aligns(stored[key]) for key in stored.files}
    answers: dict[str, Callable[[float], float]] = {
        "time": lambda seconds: median_ms(opened.plain, seconds),
        "place": lambda seconds: median_ms(opened.in_place, seconds),
        "peak": lambda seconds: measure_peak(target, len(cores), seconds),
    }
    setting: Setting = {"threads": len(cores), "version": ansor_py.__version__}
    if name == OURS:
        model = ansor_py.load(path)
        opened = open_ansor(model, feed)
        answers["native"] = lambda seconds: native_ms(model, feed, calls_in(opened.in_place, seconds))
    else:
        chosen, opened = fastest(PEERS[name], path, feed, cores)
        setting = {**chosen, "version": sys.modules[PEERS[name].module].__version__.partition("-")[0]}
    if is_cut_down(target):
        setting = {**setting, "capped": opened.keeps_to(target.vector_bytes)}
    np.save(result_file(folder, name, "time"), opened.plain())
    opened.in_place()
    np.save(result_file(folder, name, "place"), opened.result())
    print(json.dumps(setting), file=replies, flush=True)
    for line in sys.stdin:
        command, seconds = line.split()
        print(json.dumps(answers[command](float(seconds))), file=replies, flush=True)


def as_numpy_aligns(array: Array) -> Array:
    """A copy that starts 16 bytes behind a cache line: where NumPy puts large arrays, and small ones in one process of four.

    Every engine gets its feed there, so that none is ahead by luck.
    """
    memory = np.empty(array.nbytes + 128, np.uint8)
    start = 16 - memory.ctypes.data % 64 + 64
    placed = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    placed[...] = array
    return placed


def result_file(folder: Path, name: str, way: str) -> Path:
    """Where a contender saves the result of its calls of one of the `WAYS`."""
    return folder / f"{name}-{way}.npy"


def median_ms(call: Call, seconds: float) -> float:
    """Median milliseconds of calls for about so long."""
    return statistics.median(timed_calls(call, calls_in(call, seconds)))


def native_ms(model: CompiledModel, feed: Feed, calls: int) -> float:
    """Median milliseconds inside native code."""
    return model.benchmark(calls, feed, warm_up_for(calls)).median


def calls_in(call: Call, seconds: float) -> int:
    """How many calls fit in so long, within limits; one where a call is long."""
    if max(timed_calls(call, 1)) > LONG_CALL_MS:
        return 1
    calls = int(1e3 * seconds / statistics.median(timed_calls(call, FEWEST_CALLS)))
    return min(max(calls, FEWEST_CALLS), MOST_CALLS)


def timed_calls(call: Call, calls: int) -> list[float]:
    """Milliseconds of single calls, after a warm-up if there are several."""
    clock, samples = time.perf_counter, []
    for _ in range(warm_up_for(calls)):
        call()
    for _ in range(calls):
        begin = clock()
        call()
        samples.append(1e3 * (clock() - begin))
    return samples


def warm_up_for(calls: int) -> int:
    """Calls that are made before so many timed ones."""
    return WARM_UP if calls > 1 else 0


def fastest(peer: Peer, path: Path, feed: Feed, cores: Sequence[int]) -> tuple[Setting, Opened]:
    """The model opened with the setting whose plain calls are the fastest, of those that keep all threads on the cores."""
    found: list[tuple[float, int, Setting]] = []
    for setting in SETTING_TURNS * list(peer.settings(onnx.load(path), len(cores))):
        opened = peer.open(path, feed, setting)
        milliseconds = median_ms(opened.plain, SETTING_SECONDS)
        if threads_keep_to(cores):
            found.append((milliseconds, len(found), setting))
        del opened
        gc.collect()  # the threads of this setting shall not be beside those of the next
    if not found:
        raise SystemExit(f"no setting keeps to the cores {', '.join(map(str, cores))}")
    _, _, setting = min(found)
    return setting, peer.open(path, feed, setting)


def threads_keep_to(cores: Sequence[int]) -> bool:
    """Whether no thread of this process may run on another core."""
    return all(os.sched_getaffinity(int(thread)) <= set(cores) for thread in os.listdir("/proc/self/task"))


def thread_counts(most: int) -> list[int]:
    """1, 2, 4, ... and `most`."""
    return sorted({*(1 << power for power in range(most.bit_length())), most})


# Ours.


def open_ansor(model: CompiledModel, feed: Feed) -> Opened:
    """A plain call is `run`; `bind` has inputs and outputs in place."""
    name = model.outputs[0].name
    call, outputs = model.bind(feed)
    return Opened(lambda: model.run(feed)[name], call, lambda: outputs[name])


# ONNX Runtime.


def onnxruntime_settings(model: onnx.ModelProto, threads: int) -> Iterator[Setting]:
    """Threads of a node; whether they spin while they wait; and nodes side by side, where there is more than one node."""
    for count in thread_counts(threads):
        for spin in (True, False) if count > 1 else (True,):
            for parallel in (False, True) if threads > 1 and len(model.graph.node) > 1 else (False,):
                yield {"threads": count, "spin": spin, "parallel_nodes": parallel}


def open_onnxruntime(path: Path, feed: Feed, setting: Setting) -> Opened:
    """All graph optimisations; in place, inputs and outputs are bound."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads, options.inter_op_num_threads = setting["threads"], 1
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(setting["spin"])))
    if setting["parallel_nodes"]:
        options.execution_mode = onnxruntime.ExecutionMode.ORT_PARALLEL
        options.inter_op_num_threads = 2
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    for name, array in feed.items():
        binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(array))
    results = []
    for output, value in zip(session.get_outputs(), session.run(None, dict(feed)), strict=True):
        results.append(onnxruntime.OrtValue.ortvalue_from_shape_and_type(value.shape, value.dtype.type))
        binding.bind_ortvalue_output(output.name, results[-1])
    return Opened(
        lambda: session.run(None, feed)[0], lambda: session.run_with_iobinding(binding), results[0].numpy, kernels=("mlas",)
    )


# OpenVINO.


def openvino_settings(model: onnx.ModelProto, threads: int) -> Iterator[Setting]:
    """Threads, and whether each is bound to a core. One stream: there is one request at a time."""
    for count, bound in product(thread_counts(threads), (True, False)):
        yield {"threads": count, "bound": bound}


def open_openvino(path: Path, feed: Feed, setting: Setting) -> Opened:
    """Held to float32; in place, the input tensors are set once."""
    import openvino

    core = openvino.Core()
    properties = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": setting["threads"],
        "ENABLE_CPU_PINNING": setting["bound"],
        "INFERENCE_PRECISION_HINT": "f32",
    }
    compiled = core.compile_model(core.read_model(path), "CPU", properties)
    kernels = [node.get_rt_info()["primitiveType"].astype(str) for node in compiled.get_runtime_model().get_ops()]
    request = compiled.create_infer_request()
    for name, array in feed.items():
        request.set_tensor(name, openvino.Tensor(array, shared_memory=False))
    return Opened(lambda: compiled(feed)[0], request.infer, lambda: request.get_output_tensor(0).data.copy(), kernels)


# PyTorch.


def torch_settings(model: onnx.ModelProto, threads: int) -> Iterator[Setting]:
    """Threads, oneDNN or PyTorch's own kernels, and for convolutions of images and volumes the channels last in memory."""
    ranks = {len(info.type.tensor_type.shape.dim) for info in model.graph.input}
    convolves = any(node.op_type in ("Conv", "ConvTranspose") for node in model.graph.node) and ranks <= {4, 5}
    for count, onednn, last in product(thread_counts(threads), (True, False), (False, True) if convolves else (False,)):
        yield {"threads": count, "onednn": onednn, "channels_last": last}


def open_torch(path: Path, feed: Feed, setting: Setting) -> Opened:
    """Eager, one function a node, without gradients; weights are in the wanted layout before any call, in place inputs too."""
    import torch

    torch.set_num_threads(setting["threads"])
    torch.set_grad_enabled(False)
    torch.backends.mkldnn.set_flags(setting["onednn"])
    layouts = {4: torch.channels_last, 5: torch.channels_last_3d} if setting["channels_last"] else {}

    def placed(array: Array) -> Any:
        return torch.from_numpy(array).contiguous(memory_format=layouts.get(array.ndim, torch.contiguous_format))

    model = onnx.load(path)
    graph, [opset] = model.graph, [item.version for item in model.opset_import if not item.domain]
    values: dict[str, Any] = {name: placed(array) for name, array in feed.items()}
    for item in graph.initializer:
        array = onnx.numpy_helper.to_array(item).copy()
        as_python = array.dtype == np.int64 or not array.ndim  # extents and axes are lists, and factors numbers
        values[item.name] = array.tolist() if as_python else placed(array)
    result, kept = graph.output[0].name, {*values, graph.output[0].name}
    plan: list[tuple[Function, list[str], str, list[str]]] = []
    for node in reversed(graph.node):
        last = [name for name in dict.fromkeys(node.input) if name not in kept]
        kept.update(last)
        plan.insert(0, (function_of(node, opset), list(node.input), node.output[0], last))

    def in_place() -> None:
        for function, inputs, output, last in plan:
            values[output] = function(*[values[name] for name in inputs])
            for name in last:
                del values[name]

    def plain() -> Array:
        for name, array in feed.items():
            values[name] = placed(array)
        in_place()
        output: Array = values[result].numpy()
        return output

    kernels = [torch.backends.cpu.get_cpu_capability().replace("NO AVX", "DEFAULT")]  # two names of the same
    return Opened(plain, in_place, lambda: values[result].numpy(), kernels)


PEERS: Mapping[str, Peer] = {
    "torch": Peer("torch", torch_settings, open_torch),
    "ort": Peer("onnxruntime", onnxruntime_settings, open_onnxruntime),
    "openvino": Peer("openvino", openvino_settings, open_openvino),
}

if __name__ == "__main__":
    who, model_file, exchange, core_list, target_text = sys.argv[1:]
    serve(who, Path(model_file), Path(exchange), [int(core) for core in core_list.split(",")], Target.parse(target_text))
