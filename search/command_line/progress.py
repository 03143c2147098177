"""What a person sees while a search runs: a live table in a terminal, one line a round elsewhere.

with show_progress(Console()) as progress:
    tune_tasks(tasks, options, subscribers=[progress])
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ansor_py.search.loop.events import Event, Progress, Subscriber

REDRAW_SECONDS = 0.25
WORTH_SAYING = 0.1  # cores
MAXIMUM_ROWS = 30  # of the live table; the tasks with the largest share of the time are shown


@contextmanager
def show_progress(console: Console) -> Iterator[Subscriber]:
    """Shows the progress of a search inside the block: the live table if the console is a terminal, else plain lines."""
    if not console.is_terminal:
        yield partial(_print_round, console)
        return
    drawn = -math.inf

    def draw(event: Event) -> None:
        """Redraw, though not more often than a person can see."""
        nonlocal drawn
        if isinstance(event, Progress) and (event.round_done or time.monotonic() - drawn > REDRAW_SECONDS):
            drawn = time.monotonic()
            live.update(progress_table(event), refresh=True)

    with Live(console=console, auto_refresh=False) as live:
        yield draw


def _print_round(console: Console, event: Event) -> None:
    """Print a line when a round is done."""
    if not isinstance(event, Progress) or not event.round_done:
        return
    words = [f"round {event.round}", _totals(event)]
    if event.current is not None:
        task = event.tasks[event.current]
        words.insert(1, f"{task.task.name}: best {milliseconds(task.latency)}, {_rate(task.gflops)}, {task.trials} trials")
    console.print(Text("; ".join(words)), soft_wrap=True)


def progress_table(progress: Progress) -> RenderableType:
    """The task table with a line of totals below."""
    table = Table(box=None, pad_edge=False)
    table.add_column("task", no_wrap=True, overflow="ellipsis", max_width=60)
    for heading in ("weight", "trials", "best ms", "GFLOP/s", "default ms"):
        table.add_column(heading, justify="right", no_wrap=True)
    shares = [item.task.weight * (item.latency or 0.0) for item in progress.tasks]
    shown = sorted(sorted(range(len(shares)), key=lambda index: -shares[index])[:MAXIMUM_ROWS])
    for index in shown:
        item = progress.tasks[index]
        name = item.task.name + (f" ({item.ended})" if item.ended else "")
        cells = [str(item.task.weight), str(item.trials), _number(item.best.cost if item.best else None)]
        cells += [f"{item.gflops:.1f}" if item.gflops is not None else "-", _number(item.default_seconds)]
        table.add_row(Text(name), *cells, style="bold" if index == progress.current else "dim" if item.ended else "")
    if len(shown) < len(shares):
        table.add_row(f"... and {len(shares) - len(shown)} smaller tasks")
    return Group(table, Text(f"round {progress.round}, {progress.activity}; {_totals(progress)}"))


def milliseconds(seconds: float | None) -> str:
    """A latency for a person."""
    return "none" if seconds is None else f"{seconds * 1e3:.4g} ms"


def duration(seconds: float) -> str:
    """A time span for a person: `48 s`, `3 min 20 s`, `1 h 05 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def _totals(progress: Progress) -> str:
    words = [f"{progress.trials} trials" if progress.budget is None else f"{progress.trials}/{progress.budget} trials"]
    if progress.total is not None:
        words.append(f"total {milliseconds(progress.total)}")
    words.append(f"{duration(progress.elapsed)}")
    if progress.trials_per_second > 0:
        words.append(f"{progress.trials_per_second:.1f} trials/s")
    if progress.seconds_left is not None and progress.trials != progress.budget:
        words.append(f"{duration(progress.seconds_left)} left")
    if progress.machine.noise is not None:
        words.append(f"noise {progress.machine.noise:.1%}")
    if (taken := progress.machine.cores_taken) is not None and taken >= WORTH_SAYING:
        words.append(f"others take {taken:.1f} cores")
    if progress.errors:
        words.append("errors: " + ", ".join(f"{count} {kind}" for kind, count in progress.errors.items()))
    return ", ".join(words)


def _number(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1e3:.4f}"


def _rate(gflops: float | None) -> str:
    return "-" if gflops is None else f"{gflops:.1f} GFLOP/s"
