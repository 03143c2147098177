"""The operator suite: tune each workload, then time its best program beside PyTorch, ONNX Runtime and OpenVINO.

    python experiments/bench_ops.py --names c2d_56 gmm_512 --trials 256 --threads 1 2 --peers torch ort --json ops.json
    python experiments/bench_ops.py --target "host cpu=haswell" --markdown avx2.md

All contenders take turns (`turns.py`), and a result that disagrees with ONNX's own evaluator has no time. Times are of plain
calls, NumPy arrays in and NumPy arrays out; those with inputs and outputs in place, and of ours inside native code, are given
beside. With `--busy N`, N processes spin during the turns (not while tuning). The peak of a thread count is the fastest FMA
loop or kernel of the whole run. With a target that is less than the machine, the peers are held to its vectors too; what cannot
be is marked and counts in no mean. The JSON file is written after every workload, `--markdown` and `--chart` at the end, also
when interrupted. The peers are the `bench` extra. Exit status 1: a workload failed, or a result was wrong.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
from rich.console import Console

from ansor_py.errors import AnsorError
from ansor_py.graph import compile_partition, extract_tasks, network_of, partition_model
from ansor_py.graph.reference import reference_outputs
from ansor_py.measure.cores import available_cores
from ansor_py.search.loop.tuning import tune_tasks
from ansor_py.search.loop.tuning_options import TuningOptions
from ansor_py.search.options import SearchOptions
from ansor_py.search.scheduler.networks import total_seconds
from ansor_py.sketch_rules.space_options import SpaceOptions
from contenders import OURS, PEERS
from machine import add_math_option, add_target_option, cpu_line
from markdown_page import number
from operator_report import Row, by_threads, document, draw, page, summaries, terminal_table
from turns import NOT_INSTALLED, add_turn_options, contest, rules_of
from workloads import OUTPUT, SUITE, WORKLOADS, Workload, workload

INTERRUPTED = 130  # exit status, as a shell has it


def measure(item: Workload, threads: int, options: argparse.Namespace) -> Row:
    """Tune one workload, compile it and time it among its peers. Raises AnsorError where tuning or compiling fails."""
    row = Row(item.name, threads, item.flops, item.bytes, item.has_vendor_kernel)
    target = options.target.with_cores(threads)
    model, feed = item.model(), item.feed()
    parts = item.partition() if options.form == "te" else partition_model(model, fallback=False)
    space = SpaceOptions(math=options.math)
    tuning = TuningOptions(trials=options.trials, seed=options.seed, search=SearchOptions(space=space))
    result = tune_tasks(extract_tasks(parts, target), tuning, "process", networks=[network_of(parts)])
    if result.interrupted:
        raise KeyboardInterrupt
    row.trials, row.failed_trials, row.search_seconds = len(result.records), result.errors, round(result.search_seconds, 2)
    assert result.networks is not None
    untuned = total_seconds(result.networks, [task.default_seconds for task in result.tasks])
    row.default_ms = None if untuned is None else 1e3 * untuned
    compiled = compile_partition(parts, result.best_records.values() or None, threads, target, math=options.math)
    row.kernels = len(compiled.plan.calls)
    expected = reference_outputs(model, dict[str, Any](feed))[OUTPUT]
    with tempfile.TemporaryDirectory() as name:
        ours, theirs = Path(name) / "model.ansor", Path(name) / "model.onnx"
        compiled.save(ours)
        onnx.save(model, theirs)
        contest(row, ours, theirs, feed, expected, target, rules_of(options))
    return row


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(description="Tune the operator suite and time it beside other engines, interleaved.")
    parser.add_argument("--names", nargs="+", choices=WORKLOADS, default=list(SUITE), metavar="NAME", help="workloads")
    parser.add_argument("--trials", type=int, default=256, help="of each workload; 0: default schedules")
    add_target_option(parser)
    add_math_option(parser)
    parser.add_argument("--threads", type=int, nargs="+", metavar="T", help="thread counts [default: the target's cores]")
    add_turn_options(parser, tuple(PEERS))
    parser.add_argument("--form", choices=("te", "onnx"), default="te", help="what is tuned: one expression, or the model")
    parser.add_argument("--seed", type=int, default=0)
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
    print(cpu_line(options.target, options.threads, options.busy))
    console.print(terminal_table(rows, options.peers))
    for group in by_threads(rows):
        console.print("; ".join(f"{name} {value}" for name, value in summaries(group, options.peers)))
    if options.markdown is not None:
        options.markdown.write_text(page(rows, options.peers, options.target, options.busy, options.note), encoding="utf-8")
    if options.chart is not None:
        draw(rows, options.target, options.chart, options.busy)


def main() -> int:
    """Tune and time; returns the exit status."""
    options, console = parse(sys.argv[1:]), Console(width=180, highlight=False)
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
                    text = json.dumps(document(rows, options.peers, options.target, options.busy), indent=2, allow_nan=False)
                    options.json.write_text(f"{text}\n", encoding="utf-8")
    except KeyboardInterrupt:
        status = INTERRUPTED
    if rows:
        report(rows, options, console)
    return status or int(not all(OURS in row.ms for row in rows))


if __name__ == "__main__":
    sys.exit(main())
