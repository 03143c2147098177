"""Operators that memory bounds: GB/s of the tuned program and of the default schedule, and their share of a native loop's.

    python experiments/bench_memory.py --trials 64 --threads 1 2 --target "host cpu=haswell" --json memory.json

The yardstick of an operator is a plain loop that reads and writes as many bytes, in streams of equal length, as many more
to read as its inputs are larger than its output (`ansor_py.codegen.peak.stream_ir`). Loop and kernels are timed in turns
in one process a thread count, on warm buffers of the same kind: what fits a cache is compared with a loop whose bytes fit
it. The tuned result is checked against the default schedule's. Bytes are those of inputs, constants and output, each once.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from ansor_py import te
from ansor_py.codegen.kernel import LoadedKernel, build_kernel
from ansor_py.codegen.llvm import compile_module
from ansor_py.codegen.memory import aligned_array, buffer_table
from ansor_py.codegen.peak import stream_ir
from ansor_py.codegen.thread_pool import load_kernels
from ansor_py.codegen.timing import measure_kernel
from ansor_py.errors import AnsorError
from ansor_py.measure.cores import pin, plan_cores
from ansor_py.schedule.dag import ComputeDAG
from ansor_py.schedule.merge_axes import merge_axes
from ansor_py.schedule.steps import Step, step_from_json
from ansor_py.schedule.task import Task
from ansor_py.search.loop.tuning import tune
from ansor_py.search.sampling.default_schedule import default_steps
from ansor_py.target import Target
from ansor_py.te.tensor import Tensor
from machine import add_target_option, cpu_line, origin
from markdown_page import number

MOST_STREAMS = 8
TOLERANCE = 1e-4  # of the largest element

Array = NDArray[np.generic]


def _x(*shape: int, name: str = "x", constant: bool = False) -> Tensor:
    return te.placeholder(shape, name=name, constant=constant)


def _chain(*shape: int) -> Tensor:
    """relu(x * scale + shift) + residual, with a scale and a shift for each channel."""
    channels = (shape[1], 1, 1)
    scaled = te.multiply(_x(*shape), _x(*channels, name="scale", constant=True))
    shifted = te.add(scaled, _x(*channels, name="shift", constant=True))
    return te.add(te.relu(shifted), _x(*shape, name="residual"))


def _pair(shape: Sequence[int], other: Sequence[int]) -> Tensor:
    return te.add(_x(*shape), _x(*other, name="other"))


def _concat(axis: int, *shapes: Sequence[int]) -> Tensor:
    return te.concat([_x(*shape, name=f"x{number}") for number, shape in enumerate(shapes)], axis)


OPERATORS: Mapping[str, Callable[[], Tensor]] = {
    "relu 64k": lambda: te.relu(_x(1, 64, 32, 32)),
    "relu 8M": lambda: te.relu(_x(8, 64, 128, 128)),
    "add 1M": lambda: _pair((1024, 1024), (1024, 1024)),
    "add row": lambda: _pair((2048, 1024), (1024,)),
    "add column": lambda: _pair((2048, 1024), (2048, 1)),
    "chain 64k": lambda: _chain(1, 64, 32, 32),
    "chain 3M": lambda: _chain(1, 256, 112, 112),
    "transpose 256": lambda: te.transpose(_x(256, 256)),
    "transpose 2048": lambda: te.transpose(_x(2048, 2048)),
    "transpose prime": lambda: te.transpose(_x(1021, 1019)),
    "nchw to nhwc": lambda: te.transpose(_x(1, 256, 56, 56), (0, 2, 3, 1)),
    "nhwc to nchw": lambda: te.transpose(_x(1, 56, 56, 256), (0, 3, 1, 2)),
    "heads": lambda: te.transpose(_x(1, 512, 12, 64), (0, 2, 1, 3)),
    "heads transposed": lambda: te.transpose(_x(1, 512, 12, 64), (0, 2, 3, 1)),
    "concat channels": lambda: _concat(1, (1, 128, 56, 56), (1, 64, 56, 56)),
    "concat last": lambda: _concat(1, (2048, 300), (2048, 100)),
    "pad": lambda: te.pad(_x(1, 64, 56, 56), (0, 0, 1, 1), (0, 0, 1, 1)),
    "sum all": lambda: te.reduce_sum(_x(2048, 1024)),
    "nrm": lambda: te.reduce_norm(_x(1, 256, 256), 2, (1, 2)),
    "sum rows": lambda: te.reduce_sum(_x(1024, 1024), 1),
    "sum columns": lambda: te.reduce_sum(_x(1024, 1024), 0),
    "max columns": lambda: te.reduce_max(_x(4096, 64), 0),
    "argmax": lambda: te.argmax(_x(512, 1024), 1),
    "global pool": lambda: te.global_average_pool(_x(1, 512, 28, 28)),
    "global pool 7": lambda: te.global_average_pool(_x(1, 2048, 7, 7)),
    "gemv": lambda: te.matmul(_x(1, 4096), _x(4096, 1000, name="w")),
    "gemv constant": lambda: te.matmul(_x(1, 4096), _x(4096, 1000, name="w", constant=True)),
    "gemv transposed": lambda: te.dense(_x(1, 4096), _x(1000, 4096, name="w")),
    "softmax": lambda: te.softmax(_x(512, 1024)),
    "layernorm": lambda: te.layer_norm(_x(512, 768), _x(768, name="scale"), _x(768, name="bias")),
}


@dataclass(frozen=True)
class Row:
    """One operator on some threads: what it moves, and seconds of the native loop, the tuned and the default program."""

    name: str
    threads: int
    bytes: int
    native_seconds: float
    tuned_seconds: float
    default_seconds: float

    def gbytes(self, seconds: float) -> float:
        """Throughput in 1e9 bytes a second."""
        return self.bytes / seconds / 1e9

    @property
    def share(self) -> float:
        """Speed of the tuned program in units of the native loop's."""
        return self.native_seconds / self.tuned_seconds


class Timed:
    """Something with the kernel ABI and its buffers."""

    def __init__(self, address: int, arrays: Sequence[Array], workspace_bytes: int, threads: int) -> None:
        self._arrays, self._workspace = arrays, aligned_array((max(1, workspace_bytes),), "uint8")
        self._address, self._table, self._threads = address, buffer_table(arrays), threads

    def seconds(self) -> float:
        """Median seconds of a call over some blocks of calls."""
        table, workspace = self._table.ctypes.data, self._workspace.ctypes.data
        return statistics.median(measure_kernel(self._address, table, workspace, self._threads).seconds)


class Program(Timed):
    """A schedule of an operator on random inputs. All programs of an operator get the same inputs."""

    def __init__(self, dag: ComputeDAG, steps: Sequence[Step], target: Target, threads: int) -> None:
        compiled = build_kernel(dag, steps, target, threads)
        self._kernel = LoadedKernel(compiled)
        rng = np.random.default_rng(0)
        arrays: list[Array] = []
        for spec in compiled.buffers:
            arrays.append(aligned_array(spec.shape, spec.dtype))
            arrays[-1][...] = 0 if spec.role == "output" else rng.standard_normal(spec.shape)
        self.outputs = [array for array, spec in zip(arrays, compiled.buffers, strict=True) if spec.role == "output"]
        super().__init__(self._kernel.address, [*arrays, *self._kernel.prepack(arrays)], compiled.workspace_bytes, threads)


def native_loop(read: int, written: int, target: Target, threads: int) -> Timed:
    """The plain loop over as many bytes, in streams of equal length."""
    reads, writes = max(1, round(read / max(written, 1))), max(1, round(written / max(read, 1)))
    if reads > MOST_STREAMS:
        reads, writes = 1, 0
    code = load_kernels([compile_module(stream_ir(target, reads, writes), target).code], ["kernel"])
    step = 4 * target.vector_bytes * threads
    length = math.ceil((read + written) / (reads + writes) / step) * step
    arrays: list[Array] = [aligned_array((length,), "uint8") for _ in range(reads + writes)]
    for array in arrays:
        array[...] = 0
    if not writes:
        arrays.append(aligned_array((64 * threads,), "uint8"))
    arrays.append(np.array([length // threads // target.vector_bytes], np.int64))
    timed = Timed(code.address("kernel"), arrays, 0, threads)
    timed.code = code  # type: ignore[attr-defined]  # the code lives as long as what is timed
    return timed


def measure(name: str, target: Target, trials: int, rounds: int) -> Row:
    """Tune one operator and time it beside its yardstick. Raises AnsorError where that fails or a result is wrong."""
    threads = target.cores
    dag = merge_axes(ComputeDAG.from_outputs(OPERATORS[name]()))
    steps = default_steps(dag, target, threads)
    default = tuned = Program(dag, steps, target, threads)
    if trials:
        best = tune(Task(name, dag, target), trials=trials, seed=0).best
        tuned = Program(dag, [step_from_json(item) for item in best.steps], target, threads)
    written = sum(tensor.bytes for tensor in dag.outputs)
    read = sum(tensor.bytes for tensor in dag.inputs)
    native = native_loop(read, written, target, threads)
    contenders = (native, tuned, default)
    samples = [[contender.seconds() for contender in contenders] for _ in range(rounds)]
    for expected, result in zip(default.outputs, tuned.outputs, strict=True):
        worst = float(np.max(np.abs(expected.astype(np.float64) - result)))
        if not worst <= TOLERANCE * float(np.max(np.abs(expected.astype(np.float64)))):
            raise AnsorError(f"{name}: the tuned program's result differs from the default schedule's by {worst:.3g}")
    return Row(name, threads, read + written, *(statistics.median(column) for column in zip(*samples, strict=True)))


def serve(options: argparse.Namespace) -> int:
    """Measure all operators on one thread count, a line of JSON each."""
    (threads,) = options.threads
    pin(plan_cores(threads).run)
    for name in options.names:
        try:
            row = asdict(measure(name, options.target.with_cores(threads), options.trials, options.rounds))
        except AnsorError as error:
            row = {"name": name, "threads": threads, "error": str(error)}
        print(json.dumps(row), flush=True)
    return 0


def table(rows: Sequence[Row]) -> Table:
    """The rows for the terminal."""
    result = Table()
    result.add_column("operator", no_wrap=True)
    for column in ("threads", "MB", "native GB/s", "ms", "GB/s", "of native", "default ms", "of native"):
        result.add_column(column, justify="right")
    for row in rows:
        cells = [str(row.threads), number(row.bytes / 1e6), number(row.gbytes(row.native_seconds))]
        cells += [number(1e3 * row.tuned_seconds), number(row.gbytes(row.tuned_seconds)), f"{100 * row.share:.0f} %"]
        cells += [number(1e3 * row.default_seconds), f"{100 * row.native_seconds / row.default_seconds:.0f} %"]
        result.add_row(row.name, *cells)
    return result


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(description="Operators that memory bounds, beside plain loops over the same bytes.")
    parser.add_argument("--names", nargs="+", choices=OPERATORS, default=list(OPERATORS), metavar="NAME", help="operators")
    parser.add_argument("--trials", type=int, default=64, help="of each operator; 0: default schedules")
    add_target_option(parser)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], metavar="T")
    parser.add_argument("--rounds", type=int, default=5, help="turns of loop and kernels")
    parser.add_argument("--json", type=Path, help="write the rows here")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main() -> int:
    """Measure in one process a thread count; exit status 1 if an operator failed."""
    options, console = parse(sys.argv[1:]), Console(width=140, highlight=False)
    if options.serve:
        return serve(options)
    rows: list[Row] = []
    failed = False
    for threads in options.threads:
        words = [sys.executable, __file__, "--serve", "--threads", str(threads), "--trials", str(options.trials)]
        words += ["--target", str(options.target), "--rounds", str(options.rounds), "--names", *options.names]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            for line in child.stdout:
                found = json.loads(line)
                if "error" in found:
                    print(f"{found['name']}, {threads} threads: {found['error']}", file=sys.stderr)
                    failed = True
                else:
                    rows.append(Row(**found))
        failed |= child.returncode != 0
    print(cpu_line(options.target, options.threads))
    console.print(table(rows))
    if options.json is not None:
        shown = [{**asdict(row), "gbytes_per_second": row.gbytes(row.tuned_seconds), "share": row.share} for row in rows]
        document = {**origin(options.target, options.threads), "rows": shown}
        options.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
