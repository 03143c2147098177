"""The operator suite: tune each workload, then time its best program beside PyTorch, ONNX Runtime and OpenVINO.

    python experiments/bench_ops.py --names c2d_56 gmm_512 --trials 256 --threads 1 2 --peers torch ort --json ops.json

Every contender runs in a process of its own, on the same cores, and is stopped (SIGSTOP) while another one is timed. They
take turns: one round each, the FMA peak among them, several rounds; a figure is the median of the rounds' medians, and counts
only if the result agrees with ONNX's own evaluator. Times are of calls with inputs and outputs in place; those of the peers
include a call from Python, some 2 us. The peak of a thread count is the fastest FMA loop or kernel of the whole run.
The peers are the `bench` extra. Exit status 1: a workload failed, or a result of ours was wrong.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import json
import os
import select
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

import ansor_py
from ansor_py.codegen.peak import measure_peak
from ansor_py.errors import AnsorError, MeasureError
from ansor_py.graph import compile_partition, extract_tasks, partition_model
from ansor_py.graph.reference import reference_outputs
from ansor_py.measure.cores import openmp_environment, pin, plan_cores
from ansor_py.search.tuning import tune_tasks
from ansor_py.search.tuning_options import TuningOptions
from ansor_py.target import Target
from light_models import compare
from markdown_page import command_line, machine, number
from workloads import OUTPUT, WORKLOADS, Workload, workload

OURS = "ansor"
PEERS = {"torch": "torch", "ort": "onnxruntime", "openvino": "openvino"}  # the module that has to be installed
JUDGED = ("torch", "ort")  # the peers to beat: the faster one counts
WARM_UP, FEWEST_CALLS, MOST_CALLS = 3, 3, 2000
REPLY_SECONDS = 180.0
_LIBRARY_SETTINGS = ("OPENBLAS_", "OMP_", "GOMP_", "KMP_", "MKL_")  # a peer chooses for itself

Array = NDArray[Any]
Call = Callable[[], Any]


@dataclass
class Row:
    """One workload on some threads. Times by contender are milliseconds; `notes` say why a contender has none."""

    name: str
    threads: int
    flops: int
    bytes: int
    trials: int = 0
    failed_trials: dict[str, int] = field(default_factory=dict)
    search_seconds: float = 0.0
    kernels: int = 0
    default_ms: float | None = None
    ms: dict[str, float] = field(default_factory=dict)
    differences: dict[str, float] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    fma_gflops: float = 0.0

    def gflops(self, contender: str = OURS) -> float | None:
        """Throughput in 1e9 operations a second."""
        return self.flops / self.ms[contender] / 1e6 if contender in self.ms else None

    def ratio(self, peers: Sequence[str]) -> float | None:
        """Time of the fastest of these peers in units of ours; over 1: ours is faster."""
        times = [self.ms[peer] for peer in peers if peer in self.ms]
        return min(times) / self.ms[OURS] if times and OURS in self.ms else None


# A contender: the child's side.


def serve(contender: str, folder: Path, threads: int) -> None:
    """Load the model, write its result, then answer `time SECONDS` (ms of calls) and `peak SECONDS` (GFLOP/s) with JSON."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no reply
    pin(plan_cores(threads).run)
    with np.load(folder / "feed.npz") as stored:
        feed = {name: stored[name] for name in stored.files}
    if contender == OURS:
        model = ansor_py.load(folder / "model.ansor")
        result = model.run(feed)[OUTPUT]

        def timed(calls: int) -> list[float]:
            return list(model.benchmark(calls, feed, WARM_UP).samples)
    else:
        call, output = OPENERS[contender](folder / "model.onnx", feed, threads)
        call()
        result = output()

        def timed(calls: int) -> list[float]:
            return _timed_calls(call, calls)

    np.save(folder / f"{contender}.npy", np.asarray(result))
    print(json.dumps("ready"), file=replies, flush=True)
    for line in sys.stdin:
        command, seconds = line.split()
        if command == "peak":
            answer: Any = measure_peak(Target.detect(), threads, float(seconds))
        else:
            calls = int(1e3 * float(seconds) / statistics.median(timed(FEWEST_CALLS)))
            answer = statistics.median(timed(min(max(calls, FEWEST_CALLS), MOST_CALLS)))
        print(json.dumps(answer), file=replies, flush=True)


def _timed_calls(call: Call, calls: int) -> list[float]:
    clock, samples = time.perf_counter, []
    for _ in range(WARM_UP):
        call()
    for _ in range(calls):
        begin = clock()
        call()
        samples.append(1e3 * (clock() - begin))
    return samples


def open_onnxruntime(path: Path, feed: Mapping[str, Array], threads: int) -> tuple[Call, Call]:
    """A call of ONNX Runtime, and what reads its result."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    for name, array in feed.items():
        binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(array))
    result = onnxruntime.OrtValue.ortvalue_from_shape_and_type(session.get_outputs()[0].shape, np.float32)
    binding.bind_ortvalue_output(OUTPUT, result)
    return lambda: session.run_with_iobinding(binding), result.numpy


def open_openvino(path: Path, feed: Mapping[str, Array], threads: int) -> tuple[Call, Call]:
    """A call of OpenVINO held to float32, and what reads its result."""
    import openvino

    core = openvino.Core()
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    request = core.compile_model(core.read_model(path), "CPU", settings).create_infer_request()
    for name, array in feed.items():
        request.set_tensor(name, openvino.Tensor(array, shared_memory=False))
    return request.infer, lambda: request.get_output_tensor(0).data.copy()


def open_torch(path: Path, feed: Mapping[str, Array], threads: int) -> tuple[Call, Call]:
    """A call of PyTorch, eager, one function a node; and what reads its result."""
    import torch

    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    graph, functional = onnx.load(path).graph, torch.nn.functional
    values: dict[str, Any] = {name: torch.from_numpy(array) for name, array in feed.items()}
    for tensor in graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        values[tensor.name] = array.tolist() if array.dtype == np.int64 else torch.from_numpy(array.copy())

    def sliced(x: Any, begins: list[int], ends: list[int], axes: list[int], steps: list[int]) -> Any:
        cuts = {axis: slice(*cut) for axis, *cut in zip(axes, begins, ends, steps, strict=True)}
        return x[tuple(cuts.get(axis, slice(None)) for axis in range(x.dim()))]

    def padded(x: Any, pads: list[int]) -> Any:
        pairs = list(zip(pads[: x.dim()], pads[x.dim() :], strict=True))
        return functional.pad(x, [width for pair in reversed(pairs) for width in pair])

    def convolved(a: dict[str, Any]) -> Callable[..., Any]:
        rank = len(a["kernel_shape"])
        function = {1: torch.conv1d, 2: torch.conv2d, 3: torch.conv3d}[rank]
        spans = {"stride": a["strides"], "padding": a["pads"][:rank], "dilation": a["dilations"], "groups": a["group"]}
        return lambda x, weight, bias=None: function(x, weight, bias, **spans)

    functions: dict[str, Callable[[dict[str, Any]], Callable[..., Any]]] = {
        "MatMul": lambda a: torch.matmul,
        "Mul": lambda a: torch.mul,
        "Relu": lambda a: torch.relu,
        "Softmax": lambda a: lambda x: torch.softmax(x, a["axis"]),
        "ReduceL2": lambda a: lambda x: torch.linalg.vector_norm(x, dim=a["axes"]),
        "LayerNormalization": lambda a: lambda x, scale, bias: functional.layer_norm(x, scale.shape, scale, bias),
        "BatchNormalization": lambda a: lambda x, scale, bias, *moments: functional.batch_norm(x, *moments, scale, bias),
        "Transpose": lambda a: lambda x: x.permute(a["perm"]),
        "Reshape": lambda a: lambda x, shape: x.reshape(shape),
        "Concat": lambda a: lambda *parts: torch.cat(parts, a["axis"]),
        "Slice": lambda a: sliced,
        "Pad": lambda a: padded,
        "Conv": convolved,
        "ConvTranspose": lambda a: lambda x, w: functional.conv_transpose2d(x, w, None, a["strides"], a["pads"][:2]),
    }
    plan = []
    for node in graph.node:
        attributes = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
        plan.append((functions[node.op_type](attributes), list(node.input), node.output[0]))

    def call() -> None:
        for function, inputs, output in plan:
            values[output] = function(*[values[name] for name in inputs])

    return call, lambda: values[OUTPUT].numpy()


OPENERS: Mapping[str, Callable[[Path, Mapping[str, Array], int], tuple[Call, Call]]] = {
    "torch": open_torch,
    "ort": open_onnxruntime,
    "openvino": open_openvino,
}


# The contest: the parent's side.


class Contender:
    """A child process that is stopped except while it answers."""

    def __init__(self, name: str, folder: Path, threads: int) -> None:
        environment = {k: v for k, v in os.environ.items() if not k.startswith(_LIBRARY_SETTINGS)}
        if name == OURS:
            environment |= openmp_environment(plan_cores(threads).run)
        words = [sys.executable, __file__, "--serve", name, str(folder), str(threads)]
        self.name = name
        self._log = folder / f"{name}.log"
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, bufsize=0, env=environment
            )
        try:
            self._reply()
        except BaseException:
            self.close()
            raise

    def ask(self, command: str) -> float:
        """The answer to a command. Raises MeasureError when the process ended or is silent."""
        assert self._process.stdin is not None
        self._process.send_signal(signal.SIGCONT)
        self._process.stdin.write(f"{command}\n".encode())
        return float(self._reply())

    def close(self) -> None:
        """End the process."""
        self._process.kill()  # works on a stopped process too
        self._process.communicate()

    def _reply(self) -> Any:
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], REPLY_SECONDS)
        line = self._process.stdout.readline() if ready else b""
        if not line:
            said = self._log.read_text(errors="replace").strip().splitlines()
            raise MeasureError(f"{self.name}: {said[-1] if said else 'no answer'}")
        self._process.send_signal(signal.SIGSTOP)
        return json.loads(line)


@contextmanager
def contenders(names: Sequence[str], folder: Path, row: Row, expected: Array) -> Iterator[list[Contender]]:
    """Processes of the contenders whose results are right; the notes tell of the others."""
    with ExitStack() as stack:
        found = []
        for name in names:
            try:
                contender = Contender(name, folder, row.threads)
            except MeasureError as error:
                row.notes[name] = str(error)
                continue
            stack.callback(contender.close)
            check = compare(name, np.load(folder / f"{name}.npy"), expected)
            row.differences[name] = check.relative
            if check.passed:
                found.append(contender)
            else:
                row.notes[name] = str(check)
        yield found


def contest(item: Workload, row: Row, peers: Sequence[str], folder: Path, rounds: int, seconds: float) -> None:
    """Time the contenders in turns; fills in times, differences and notes."""
    model = item.model()
    feed: dict[str, Any] = item.feed()
    onnx.save(model, folder / "model.onnx")
    np.savez(folder / "feed.npz", **feed)
    row.notes |= {peer: "not installed" for peer in peers if importlib.util.find_spec(PEERS[peer]) is None}
    present = [peer for peer in peers if peer not in row.notes]
    expected = reference_outputs(model, feed)[OUTPUT]
    with contenders([OURS, *present], folder, row, expected) as found:
        samples: dict[str, list[float]] = {}
        for _ in range(rounds):
            for contender in found:
                try:
                    samples.setdefault(contender.name, []).append(contender.ask(f"time {seconds}"))
                    if contender.name == OURS:
                        row.fma_gflops = max(row.fma_gflops, contender.ask(f"peak {seconds}"))
                except (MeasureError, OSError) as error:
                    row.notes[contender.name] = str(error)
            found = [contender for contender in found if contender.name not in row.notes]
        row.ms = {name: statistics.median(taken) for name, taken in samples.items() if name not in row.notes}


def measure(item: Workload, threads: int, options: argparse.Namespace) -> Row:
    """Tune one workload, compile it and time it among its peers. Raises AnsorError where tuning or compiling fails."""
    row = Row(item.name, threads, item.flops, item.bytes)
    target = Target.detect().with_cores(threads)
    parts = item.partition() if options.form == "te" else partition_model(item.model(), fallback=False)
    tuning = TuningOptions(trials=options.trials, seed=options.seed)
    result = tune_tasks(extract_tasks(parts, target), tuning, "process")
    if result.interrupted:
        raise KeyboardInterrupt
    row.trials, row.failed_trials, row.search_seconds = len(result.records), result.errors, round(result.search_seconds, 2)
    row.kernels = len(parts.subgraphs)
    if all(task.default_seconds is not None for task in result.tasks):
        row.default_ms = 1e3 * sum(task.task.weight * (task.default_seconds or 0.0) for task in result.tasks)
    compiled = compile_partition(parts, result.best_records.values() or None, threads, target)
    with tempfile.TemporaryDirectory() as name:
        compiled.save(Path(name) / "model.ansor")
        contest(item, row, options.peers, Path(name), options.rounds, options.seconds)
    return row


# The report.


def peaks(rows: Sequence[Row]) -> dict[int, float]:
    """GFLOP/s by threads: the fastest FMA loop of the run, or the fastest kernel of anybody if that was faster."""
    found: dict[int, float] = {}
    for row in rows:
        seen = [row.fma_gflops, *(row.gflops(name) or 0.0 for name in row.ms)]
        found[row.threads] = max(found.get(row.threads, 0.0), *seen)
    return found


def geometric_means(rows: Sequence[Row], peers: Sequence[str]) -> dict[str, float]:
    """Time of a peer in units of ours over the rows where both have one, by peer, and for the best of `JUDGED`."""
    groups = {"best of " + " and ".join(JUDGED): [peer for peer in JUDGED if peer in peers], **{peer: [peer] for peer in peers}}
    ratios = {name: [ratio for row in rows if (ratio := row.ratio(group)) is not None] for name, group in groups.items()}
    return {name: statistics.geometric_mean(found) for name, found in ratios.items() if found}


def terminal_table(rows: Sequence[Row], peers: Sequence[str]) -> Table:
    """The rows for the terminal."""
    table, peak = Table(), peaks(rows)
    table.add_column("workload", no_wrap=True)
    for column in [
        "threads",
        "ms",
        "GFLOP/s",
        "of peak",
        *(f"{peer} / ours" for peer in peers),
        "search s",
        "trials",
        "errors",
    ]:
        table.add_column(column, justify="right")
    for row in rows:
        speed = row.gflops()
        table.add_row(
            row.name,
            str(row.threads),
            number(row.ms.get(OURS)),
            number(speed),
            "–" if speed is None or not peak[row.threads] else f"{100 * speed / peak[row.threads]:.0f} %",
            *(_peer_cell(row, peer) for peer in peers),
            f"{row.search_seconds:.0f}",
            str(row.trials),
            str(sum(row.failed_trials.values())),
        )
    return table


def _peer_cell(row: Row, peer: str) -> str:
    ratio = row.ratio([peer])
    if ratio is not None:
        return f"{ratio:.2f}"
    note = row.notes.get(peer, "")
    return note if note == "not installed" else "failed" if note else "–"


def document(rows: Sequence[Row], peers: Sequence[str]) -> dict[str, Any]:
    """Everything that was measured, and where, for the JSON file."""
    counts = sorted({row.threads for row in rows})
    return {
        "machine": machine(),
        "target": str(Target.detect()),
        "date": str(datetime.date.today()),
        "command": command_line(),
        "peak_gflops": peaks(rows),
        "geometric_means": {n: geometric_means([row for row in rows if row.threads == n], peers) for n in counts},
        "rows": [{**asdict(row), "gflops": row.gflops(), "ratio": row.ratio(JUDGED)} for row in rows],
    }


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(description="Tune the operator suite and time it beside other engines, interleaved.")
    parser.add_argument("--names", nargs="+", choices=WORKLOADS, default=list(WORKLOADS), metavar="NAME", help="workloads")
    parser.add_argument("--trials", type=int, default=256, help="of each workload; 0: default schedules")
    parser.add_argument("--threads", type=int, nargs="+", default=[Target.detect().cores], metavar="T")
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=list(PEERS), metavar="PEER", help=", ".join(PEERS))
    parser.add_argument("--form", choices=("te", "onnx"), default="te", help="what is tuned: one expression, or the model")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=7, help="turns of each contender")
    parser.add_argument("--seconds", type=float, default=0.1, help="length of a turn")
    parser.add_argument("--json", type=Path, help="write the rows here")
    return parser.parse_args(arguments)


def main() -> int:
    """Tune and time; returns the exit status."""
    options, console = parse(sys.argv[1:]), Console(width=140, highlight=False)
    rows: list[Row] = []
    for threads in options.threads:
        for name in options.names:
            item = workload(name)
            try:
                row = measure(item, threads, options)
            except AnsorError as error:
                row = Row(name, threads, item.flops, item.bytes, notes={OURS: str(error)})
            rows.append(row)
            for contender, note in row.notes.items():
                if note != "not installed":
                    print(f"{name}, {threads} threads: {contender}: {note}", file=sys.stderr)
            console.print(f"{name}, {threads} threads: " + ", ".join(f"{who} {number(ms)} ms" for who, ms in row.ms.items()))
            if options.json is not None:
                options.json.write_text(json.dumps(document(rows, options.peers), indent=2) + "\n", encoding="utf-8")
    console.print(terminal_table(rows, options.peers))
    for threads in options.threads:
        means = geometric_means([row for row in rows if row.threads == threads], options.peers)
        shown = "".join(f"; {name} / ours {mean:.2f}" for name, mean in means.items())
        console.print(f"{threads} threads: FMA peak {number(peaks(rows)[threads])} GFLOP/s{shown}")
    return 0 if all(OURS in row.ms for row in rows) else 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
    else:
        sys.exit(main())
