"""Print what this machine can do: float32 FMA peak and copy bandwidth, on one and on N threads.

    python experiments/bench_peak.py --threads 2 --target "host cpu=haswell" --json peak.json

The table's last column is the gain over one thread. Every figure is the fastest of several timed blocks.
"""

from __future__ import annotations

import json
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from ansor_py.codegen.peak import measure_copy_bandwidth, measure_peak
from ansor_py.errors import AnsorError
from ansor_py.target import Target
from machine import cpu_line, origin, target_option


def measure(target: Target, thread_counts: list[int], seconds: float) -> list[dict[str, float]]:
    """One row a thread count: threads, GFLOP/s, GB/s copied."""
    return [
        {
            "threads": threads,
            "fma_gflops": measure_peak(target, threads, seconds),
            "copy_gbytes_per_second": measure_copy_bandwidth(target, threads, seconds=seconds),
        }
        for threads in thread_counts
    ]


def table(rows: list[dict[str, float]]) -> Table:
    """The rows as a table for the terminal."""
    result = Table()
    for column in ("threads", "FMA GFLOP/s", "copy GB/s", "FMA gain"):
        result.add_column(column, justify="right")
    for row in rows:
        gain = row["fma_gflops"] / rows[0]["fma_gflops"]
        result.add_row(
            f"{row['threads']:.0f}", f"{row['fma_gflops']:.1f}", f"{row['copy_gbytes_per_second']:.1f}", f"{gain:.2f}x"
        )
    return result


@click.command()
@target_option()
@click.option("--threads", type=click.IntRange(min=1), help="The larger thread count.  [default: the target's cores]")
@click.option("--seconds", type=float, default=0.3, show_default=True, help="Time spent on one figure.")
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Also write the rows here.")
def main(target: Target, threads: int | None, seconds: float, json_file: Path | None) -> None:
    """Measure the float32 FMA peak and the copy bandwidth of this machine."""
    counts = sorted({1, threads or target.cores})
    try:
        rows = measure(target, counts, seconds)
    except AnsorError as error:
        raise click.UsageError(str(error)) from error
    print(cpu_line(target, counts))
    Console().print(table(rows))
    if json_file is not None:
        json_file.write_text(json.dumps({**origin(target, counts), "rows": rows}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
