"""How far default schedules are from the best that searches found: each beside the best record of its task, timed in turns.

    python experiments/bench_defaults.py --target "host cpu=haswell" --json runs/defaults.json

`best_records.jsonl` beside this file holds one record for each of the 22 workloads and of ResNet-50's tasks, on AVX-512 and
on AVX2, with two threads. Both programs of a task are loaded into this process and take turns; what counts is the quickest
block of each. The last column but one says whom to blame for a slow default: the roofline's cycles of the default over those of
the record. Below 1 the roofline likes the wrong one; above 1 nobody showed it the better one.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import geometric_mean

import click
import numpy as np

from ansor_py.codegen.kernel import LoadedKernel, build_kernel
from ansor_py.codegen.memory import aligned_array, buffer_table
from ansor_py.codegen.thread_pool import allowed_threads
from ansor_py.codegen.timing import time_kernel
from ansor_py.cost_model.roofline_model import estimated_cycles
from ansor_py.errors import AnsorError
from ansor_py.graph import extract_tasks
from ansor_py.measure.records import Record, read_records
from ansor_py.measure.reference import fill_input
from ansor_py.schedule.sketch import Population, Sketch
from ansor_py.schedule.steps import Step
from ansor_py.schedule.task import Task
from ansor_py.search.sampling.default_schedule import default_schedule
from ansor_py.target import Target
from light_models import light_model
from machine import cpu_line, origin, target_option
from markdown_page import markdown_table
from workloads import SUITE, workload

RECORDS = Path(__file__).with_name("best_records.jsonl")
NETWORK = "resnet50"
BLOCK_SECONDS = 3e-3


@dataclass(frozen=True)
class Row:
    """One task: microseconds of default and record, and the roofline's opinion of the two."""

    name: str
    default_us: float
    best_us: float
    roofline_ratio: float
    sketch: str

    @property
    def ratio(self) -> float:
        """How many times slower the default is."""
        return self.default_us / self.best_us


class Program:
    """A kernel in this process with buffers of its own."""

    def __init__(self, task: Task, steps: Sequence[Step], threads: int) -> None:
        self._kernel = LoadedKernel(build_kernel(task.dag, steps, task.target, threads))
        compiled = self._kernel.compiled
        self._arrays = [aligned_array(spec.shape, spec.dtype) for spec in compiled.buffers]
        for place, (spec, array) in enumerate(zip(compiled.buffers, self._arrays, strict=True)):
            if spec.role != "output":
                fill_input(array, 0, place)
        self._arrays += self._kernel.prepack(self._arrays)
        self._workspace = aligned_array((max(1, compiled.workspace_bytes),), "uint8")
        self._table = buffer_table(self._arrays)
        self._threads = allowed_threads(threads)
        self._number = max(1, math.ceil(BLOCK_SECONDS / min(self.seconds() for _ in range(3))))

    def seconds(self, number: int = 1) -> float:
        """Seconds of one of so many calls."""
        table, workspace = self._table.ctypes.data, self._workspace.ctypes.data
        return time_kernel(self._kernel.address, table, workspace, self._threads, number=number).seconds / number

    def block(self) -> float:
        """Seconds a call, over a block that is long enough for the clock."""
        return self.seconds(self._number)


def named_tasks(target: Target) -> dict[str, Task]:
    """The 22 workloads, and the tasks of ResNet-50, by names of this study."""
    tasks = {name: extract_tasks(workload(name).partition(), target)[0] for name in SUITE}
    network = extract_tasks(light_model(NETWORK).model, target)
    return tasks | {f"{NETWORK}.{number} {task.name}": task for number, task in enumerate(network)}


def compare(name: str, task: Task, record: Record, turns: int) -> Row:
    """Both programs of a task in turns."""
    default = default_schedule(task.dag, task.target, record.threads)
    cycles = [_cycles(task, steps) for steps in (default.steps, record.concrete_steps(task.dag))]
    programs = [Program(task, steps, record.threads) for steps in (default.steps, record.concrete_steps(task.dag))]
    times = np.array([[program.block() for program in programs] for _ in range(turns)]).min(axis=0) * 1e6
    return Row(name, float(times[0]), float(times[1]), cycles[0] / cycles[1], default.sketch.name)


def _cycles(task: Task, steps: Sequence[Step]) -> float:
    sketch = Sketch("recorded", task.dag, tuple(steps), ())
    return float(estimated_cycles(Population(sketch, np.zeros((1, 0), dtype=np.int32)), task.target)[0])


def rows_of(target: Target, records: Sequence[Record], names: str, turns: int) -> Iterator[Row]:
    """A row for each record of a CPU with the target's vectors whose task's name contains one of the given words."""
    width = target.vector_bytes
    known = {r.workload_key: r for r in records if r.threads == target.cores and Target.parse(r.target).vector_bytes == width}
    for name, task in named_tasks(target).items():
        record = known.get(task.workload_key)
        if record is not None and any(word in name for word in names.split(",")):
            yield compare(name, task, record, turns)


@click.command()
@click.option("--records", type=click.Path(path_type=Path, exists=True), default=RECORDS, help="The best records.")
@click.option("--names", default="", help="Only tasks whose names contain one of these words, separated by commas.")
@target_option()
@click.option("--threads", default=2, show_default=True, type=click.IntRange(min=1), help="Threads of a kernel.")
@click.option("--turns", default=15, show_default=True, type=click.IntRange(min=1), help="Blocks of each program.")
@click.option("--json", "path", type=click.Path(path_type=Path), help="Write the rows here.")
def main(records: Path, names: str, target: Target, threads: int, turns: int, path: Path | None) -> None:
    """Time default schedules beside the best records."""
    target, rows = target.with_cores(threads), list[Row]()
    try:
        for row in rows_of(target, read_records(records)[0], names, turns):
            rows.append(row)
            print(f"{row.name}: {row.ratio:.2f}", file=sys.stderr)
    except AnsorError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    cells = [
        [row.name, f"{row.default_us:.1f}", f"{row.best_us:.1f}", f"{row.ratio:.2f}", f"{row.roofline_ratio:.2f}", row.sketch]
        for row in rows
    ]
    heads = ["task", "default, us", "best, us", "default/best", "by the roofline", "sketch of the default"]
    print(cpu_line(target), markdown_table(heads, cells), sep="\n\n", end="")
    if rows:
        ratios = [row.ratio for row in rows]
        print(f"\ndefault/best: geometric mean {geometric_mean(ratios):.3f}, most {max(ratios):.2f}, {len(rows)} tasks")
    if path is not None:
        path.write_text(
            json.dumps({"origin": origin(target), "rows": [asdict(row) | {"ratio": row.ratio} for row in rows]}, indent=2)
        )


if __name__ == "__main__":
    main()
