"""What a parallel region costs: the package's own runtime beside OpenMP's `libgomp` and one thread, idle and beside others.

    python experiments/bench_regions.py --threads 2
    python experiments/bench_regions.py --threads 2 --busy 1 --json regions.json

A region has 64 iterations of multiplications that wait for each other, which take a wanted time on one thread; without them
what is left is the region's own cost. Each runtime is timed in a process of its own, in turns, region by region in native
code. The mean beside the median shows what a thread that is waited for costs.
"""

from __future__ import annotations

import ctypes
import json
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from ansor_py.codegen.llvm import compile_module
from ansor_py.codegen.memory import buffer_table
from ansor_py.codegen.thread_pool import load_kernels
from ansor_py.codegen.timing import time_kernel
from ansor_py.target import Target
from machine import cpu_line, origin, short_text, target_option
from neighbours import busy_processes

ITERATIONS = 64
RUNTIMES = ("ours", "openmp", "one thread")
MICROSECONDS = (0.0, 2.0, 20.0, 200.0)  # of work, on one thread
_IR = """
declare void @ansor_parallel(ptr, ptr, i64, i32)
{openmp_declarations}
define internal void @body(ptr %buffers, i64 %low, i64 %high, i64 %participant) {{
entry:
  %counts = load ptr, ptr %buffers
  %count = load i64, ptr %counts
  br label %loop
loop:
  %i = phi i64 [ %low, %entry ], [ %next, %done ]
  br label %again
again:
  %k = phi i64 [ 0, %loop ], [ %k.next, %again ]
  %value = phi i64 [ %i, %loop ], [ %value.next, %again ]
  %value.next = mul i64 %value, 6364136223846793005
  call void asm sideeffect "", "r"(i64 %value.next)
  %k.next = add i64 %k, 1
  %more = icmp ult i64 %k.next, %count
  br i1 %more, label %again, label %done
done:
  %next = add i64 %i, 1
  %another = icmp ult i64 %next, %high
  br i1 %another, label %loop, label %left
left:
  ret void
}}
define i32 @kernel(ptr %buffers, ptr %workspace, i32 %threads, ptr %abort) {{
  {region}
  ret i32 0
}}
"""
_OURS = f"call void @ansor_parallel(ptr @body, ptr %buffers, i64 {ITERATIONS}, i32 %threads)"
_OPENMP = "call void @GOMP_parallel(ptr @share, ptr %buffers, i32 %threads, i32 0)"
_OPENMP_DECLARATIONS = f"""
declare void @GOMP_parallel(ptr, ptr, i32, i32)
declare i32 @omp_get_thread_num()
declare i32 @omp_get_num_threads()
define internal void @share(ptr %buffers) {{
  %number = call i32 @omp_get_thread_num()
  %thread = zext i32 %number to i64
  %threads.short = call i32 @omp_get_num_threads()
  %threads = zext i32 %threads.short to i64
  %low.far = mul i64 %thread, {ITERATIONS}
  %low = udiv i64 %low.far, %threads
  %following = add i64 %thread, 1
  %high.far = mul i64 %following, {ITERATIONS}
  %high = udiv i64 %high.far, %threads
  call void @body(ptr %buffers, i64 %low, i64 %high, i64 %thread)
  ret void
}}
"""


@dataclass(frozen=True)
class Row:
    """Microseconds of a region of one runtime: of work on one thread, and what was measured."""

    runtime: str
    work: float
    median: float
    mean: float
    worst_of_hundred: float


def time_regions(runtime: str, target: Target, threads: int, seconds: float) -> None:
    """Time the regions of one runtime, and print the rows as JSON."""
    if runtime == "openmp":
        ctypes.CDLL("libgomp.so.1", mode=ctypes.RTLD_GLOBAL)
    openmp = runtime == "openmp"
    text = _IR.format(openmp_declarations=_OPENMP_DECLARATIONS if openmp else "", region=_OPENMP if openmp else _OURS)
    loaded = load_kernels([compile_module(text, target).code], ["kernel"])
    count = np.ones(1, np.int64)
    table = buffer_table([count])
    used = 1 if runtime == "one thread" else threads

    def once(of_threads: int) -> float:
        return 1e6 * time_kernel(loaded.address("kernel"), table.ctypes.data, 0, of_threads).seconds

    count[0] = 10_000
    step = min(once(1) for _ in range(20)) / 10_000  # microseconds of one multiplication in every iteration
    for work in MICROSECONDS:
        count[0] = max(round(work / step), 1)
        begin, samples = time.monotonic(), list[float]()
        while time.monotonic() - begin < seconds:
            samples.append(once(used))
        worst = float(np.percentile(samples, 99))
        print(json.dumps(asdict(Row(runtime, work, statistics.median(samples), statistics.fmean(samples), worst))))


def measure(target: Target, threads: int, seconds: float, rounds: int, busy: int) -> list[Row]:
    """The rows of all runtimes, medians over the rounds."""
    found: dict[tuple[str, float], list[Row]] = {}
    with busy_processes(busy):
        for _ in range(rounds):
            for runtime in RUNTIMES:
                words = [sys.executable, __file__, "--target", short_text(target), "--threads", str(threads)]
                command = [*words, "--seconds", str(seconds), "--serve", runtime]
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
                if done.returncode:
                    print(f"{runtime}: not measured (exit status {done.returncode})", file=sys.stderr)
                for line in done.stdout.splitlines():
                    row = Row(**json.loads(line))
                    found.setdefault((row.runtime, row.work), []).append(row)
    return [
        Row(
            runtime,
            work,
            statistics.median(row.median for row in rows),
            statistics.median(row.mean for row in rows),
            statistics.median(row.worst_of_hundred for row in rows),
        )
        for (runtime, work), rows in found.items()
    ]


def table(rows: list[Row]) -> Table:
    """The rows for the terminal."""
    result = Table()
    for column in ("work (us)", "runtime", "median (us)", "mean (us)", "99 % under (us)"):
        result.add_column(column, justify="left" if column == "runtime" else "right")
    for row in sorted(rows, key=lambda row: row.work):
        result.add_row(f"{row.work:g}", row.runtime, f"{row.median:.2f}", f"{row.mean:.2f}", f"{row.worst_of_hundred:.1f}")
    return result


@click.command()
@target_option()
@click.option("--threads", type=click.IntRange(min=2), help="Threads of a region.  [default: the target's cores, at least 2]")
@click.option("--seconds", type=float, default=0.3, show_default=True, help="Time spent on one figure in a round.")
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--busy", type=click.IntRange(min=0), default=0, show_default=True, help="Processes that only spin beside it.")
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Also write the rows here.")
@click.option("--serve", type=click.Choice(RUNTIMES), hidden=True)
def main(
    target: Target, threads: int | None, seconds: float, rounds: int, busy: int, json_file: Path | None, serve: str | None
) -> None:
    """Time parallel regions of the package's own runtime, of OpenMP's, and of one thread."""
    used = threads or max(target.cores, 2)
    if serve is not None:
        time_regions(serve, target, used, seconds)
        return
    rows = measure(target, used, seconds, rounds, busy)
    print(cpu_line(target, [used], busy))
    Console().print(table(rows))
    if json_file is not None:
        document = {**origin(target, [used], busy), "busy": busy, "rows": [asdict(row) for row in rows]}
        json_file.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
