"""The operator suite: tune each workload, then time its best program beside PyTorch, ONNX Runtime and OpenVINO.

    python experiments/bench_ops.py --names c2d_56 gmm_512 --trials 256 --threads 1 2 --peers torch ort --json ops.json
    python experiments/bench_ops.py --target "host cpu=haswell" --markdown avx2.md

Every contender runs in a process of its own (`contenders.py`), on the same cores and with its best setting, and is stopped
(SIGSTOP) while another one is timed. They take turns: one round each, the FMA peak among them, several rounds; a figure is the
median of the rounds' medians, and counts only if the result agrees with ONNX's own evaluator. Times are of calls from Python
with inputs and outputs in place, ours too; what native code measures of ours is given beside. The peak of a thread count is the
fastest FMA loop or kernel of the whole run. With a target that is less than the machine, the peers are held to its vectors too;
what cannot be is marked and counts in no mean. The JSON file is written after every workload, `--markdown` and `--chart` at the
end, also when interrupted. The peers are the `bench` extra. Exit status 1: a workload failed, or a result was wrong.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import select
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from rich.console import Console

import contenders
from ansor_py.errors import AnsorError, MeasureError
from ansor_py.graph import compile_partition, extract_tasks, partition_model
from ansor_py.graph.reference import reference_outputs
from ansor_py.measure.cores import available_cores, plan_cores
from ansor_py.search.tuning import tune_tasks
from ansor_py.search.tuning_options import TuningOptions
from ansor_py.target import Target
from contenders import CAPS, OURS, PEERS
from light_models import compare
from machine import add_target_option, cpu_line, is_cut_down
from markdown_page import number
from operator_report import NOT_INSTALLED, Row, by_threads, document, draw, page, summaries, terminal_table
from workloads import OUTPUT, WORKLOADS, Workload, workload

REPLY_SECONDS = 180.0
INTERRUPTED = 130  # exit status, as a shell has it
_LIBRARY_SETTINGS = tuple("OPENBLAS_ OMP_ GOMP_ KMP_ MKL_ ONEDNN_ DNNL_ ATEN_ OV_CPU_".split())  # a peer chooses for itself

Array = NDArray[Any]
Commands = Mapping[str, Sequence[str]]


class Contender:
    """A child process that is stopped except while it answers. Raises MeasureError when the process ends or stays silent."""

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self.name = name
        self._log = log
        with log.open("w") as stream:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stream, bufsize=0, env=environment
            )
        try:
            self.setting: dict[str, Any] = self._reply()
        except BaseException:
            self.close()
            raise

    def ask(self, question: str) -> float:
        """The answer to a question."""
        assert self._process.stdin is not None
        self._process.send_signal(signal.SIGCONT)
        with suppress(BrokenPipeError):  # it has ended; the reply says why
            self._process.stdin.write(f"{question}\n".encode())
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


def environment_of(target: Target) -> dict[str, str]:
    """A contender's environment: nothing that binds or counts its threads.

    Where the target's vectors are narrower than the machine's, it holds libraries to them.
    """
    plain = {key: value for key, value in os.environ.items() if not key.startswith(_LIBRARY_SETTINGS)}
    caps = CAPS[target.vector_bytes] if is_cut_down(target) else {}
    return {**plain, **caps}


@contextmanager
def started(
    commands: Commands, cores: Sequence[int], target: Target, folder: Path, row: Row, expected: Array
) -> Iterator[list[Contender]]:
    """Processes of the contenders whose results are right; the notes tell of the others."""
    with ExitStack() as stack:
        found = []
        for name, command in commands.items():
            try:
                contender = Contender(name, command, environment_of(target), folder / f"{name}.log")
            except MeasureError as error:
                row.notes[name] = str(error)
                continue
            stack.callback(contender.close)
            row.settings[name] = contender.setting
            check = compare(name, np.load(folder / f"{name}.npy"), expected)
            if check.passed:
                row.differences[name] = check.relative
                found.append(contender)
            else:
                row.notes[name] = str(check)
        yield found


def take_turns(found: Sequence[Contender], row: Row, rounds: int, seconds: float) -> None:
    """Time the contenders in turns, `seconds` each; fills in times, the FMA rate, and notes on those that fail."""
    samples: dict[str, list[float]] = {}
    native: list[float] = []
    for _ in range(rounds):
        for contender in [contender for contender in found if contender.name not in row.notes]:
            try:
                samples.setdefault(contender.name, []).append(contender.ask(f"time {seconds}"))
                if contender.name == OURS:
                    native.append(contender.ask(f"native {seconds}"))
                    row.fma_gflops = max(row.fma_gflops, contender.ask(f"peak {seconds}"))
            except MeasureError as error:
                row.notes[contender.name] = str(error)
    row.ms = {name: statistics.median(taken) for name, taken in samples.items() if name not in row.notes}
    row.native_ms = statistics.median(native) if OURS in row.ms else None


def measure(item: Workload, threads: int, options: argparse.Namespace) -> Row:
    """Tune one workload, compile it and time it among its peers. Raises AnsorError where tuning or compiling fails."""
    row = Row(item.name, threads, item.flops, item.bytes, item.has_vendor_kernel)
    target = options.target.with_cores(threads)
    model, feed = item.model(), item.feed()
    parts = item.partition() if options.form == "te" else partition_model(model, fallback=False)
    tuning = TuningOptions(trials=options.trials, seed=options.seed)
    result = tune_tasks(extract_tasks(parts, target), tuning, "process")
    if result.interrupted:
        raise KeyboardInterrupt
    row.trials, row.failed_trials, row.search_seconds = len(result.records), result.errors, round(result.search_seconds, 2)
    row.kernels = len(parts.subgraphs)
    if all(task.default_seconds is not None for task in result.tasks):
        row.default_ms = 1e3 * sum(task.task.weight * (task.default_seconds or 0.0) for task in result.tasks)
    compiled = compile_partition(parts, result.best_records.values() or None, threads, target)
    row.notes |= {peer: NOT_INSTALLED for peer in options.peers if importlib.util.find_spec(PEERS[peer].module) is None}
    expected = reference_outputs(model, dict[str, Any](feed))[OUTPUT]
    cores = plan_cores(threads).run
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        compiled.save(folder / "model.ansor")
        onnx.save(model, folder / "model.onnx")
        np.savez(folder / "feed.npz", allow_pickle=False, **feed)
        place = [str(folder), ",".join(map(str, cores)), str(target)]
        present = [OURS, *(peer for peer in options.peers if peer not in row.notes)]
        commands = {who: [sys.executable, contenders.__file__, who, *place] for who in present}
        with started(commands, cores, target, folder, row, expected) as found:
            take_turns(found, row, options.rounds, options.seconds)
    return row


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(description="Tune the operator suite and time it beside other engines, interleaved.")
    parser.add_argument("--names", nargs="+", choices=WORKLOADS, default=list(WORKLOADS), metavar="NAME", help="workloads")
    parser.add_argument("--trials", type=int, default=256, help="of each workload; 0: default schedules")
    add_target_option(parser)
    parser.add_argument("--threads", type=int, nargs="+", metavar="T", help="thread counts [default: the target's cores]")
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=list(PEERS), metavar="PEER", help=", ".join(PEERS))
    parser.add_argument("--form", choices=("te", "onnx"), default="te", help="what is tuned: one expression, or the model")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=7, help="turns of each contender")
    parser.add_argument("--seconds", type=float, default=0.1, help="length of a turn")
    parser.add_argument("--json", type=Path, help="write the rows here")
    parser.add_argument("--markdown", type=Path, help="write the table as a page here")
    parser.add_argument("--chart", type=Path, help="write a bar chart here (PNG)")
    parser.add_argument("--note", default="", help="a remark on the measurement, for the page")
    options, cores = parser.parse_args(arguments), len(available_cores())
    options.threads = options.threads or [options.target.cores]
    if not all(1 <= threads <= cores for threads in options.threads):
        parser.error(f"--threads: this process may use {cores} cores; give counts from 1 to {cores}")
    if options.chart is not None and importlib.util.find_spec("matplotlib") is None:
        parser.error("--chart needs matplotlib; install it with: pip install matplotlib")
    return options


def report(rows: Sequence[Row], options: argparse.Namespace, console: Console) -> None:
    """Print the table and what is said of all rows; write the page and the chart."""
    print(cpu_line(options.target, options.threads))
    console.print(terminal_table(rows, options.peers))
    for group in by_threads(rows):
        console.print("; ".join(f"{name} {value}" for name, value in summaries(group, options.peers)))
    if options.markdown is not None:
        options.markdown.write_text(page(rows, options.peers, options.target, options.note), encoding="utf-8")
    if options.chart is not None:
        draw(rows, options.target, options.chart)


def main() -> int:
    """Tune and time; returns the exit status."""
    options, console = parse(sys.argv[1:]), Console(width=160, highlight=False)
    rows: list[Row] = []
    status = 0
    try:
        for threads in options.threads:
            for item in map(workload, options.names):
                try:
                    row = measure(item, threads, options)
                except AnsorError as error:
                    notes = {OURS: str(error)}
                    row = Row(item.name, threads, item.flops, item.bytes, item.has_vendor_kernel, notes=notes)
                rows.append(row)
                for contender, note in row.notes.items():
                    if note != NOT_INSTALLED:
                        print(f"{row.name}, {threads} threads: {contender}: {note}", file=sys.stderr)
                times = ", ".join(f"{who} {number(ms)} ms" for who, ms in row.ms.items())
                console.print(f"{row.name}, {threads} threads: {times}")
                if options.json is not None:
                    text = json.dumps(document(rows, options.peers, options.target), indent=2, allow_nan=False)
                    options.json.write_text(f"{text}\n", encoding="utf-8")
    except KeyboardInterrupt:
        status = INTERRUPTED
    if rows:
        report(rows, options, console)
    return status or int(not all(OURS in row.ms for row in rows))


if __name__ == "__main__":
    sys.exit(main())
