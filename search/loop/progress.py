"""What a person sees while a search runs: a live table in a terminal, one line a round elsewhere.

with create_progress(Console()) as progress:
    tune_tasks(tasks, options, observer=progress.show)
"""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ansor_py.search.loop.results import TaskResult, weighted_seconds

REDRAW_SECONDS = 0.25
MAXIMUM_ROWS = 30  # of the live table; the tasks with the largest share of the time are shown


@dataclass(frozen=True)
class Progress:
    """The state of a search: after a round, or (`round_done` false) while its trials come in.

    `activity` says what is going on; `trials` counts measured candidates, restored ones included, up to `budget`, if there is
    one; `trials_per_second` is that of this session; `seconds_left` is known once trials are measured.
    """

    round: int
    round_done: bool
    activity: str
    tasks: tuple[TaskResult, ...]
    current: int | None
    trials: int
    budget: int | None
    elapsed: float
    trials_per_second: float
    errors: Mapping[str, int]
    time_left: float | None = None  # of the time budget

    @property
    def seconds_left(self) -> float | None:
        """Time that the remaining trials will take at the present rate, or what is left of the time budget if that is less."""
        limits = [] if self.time_left is None else [max(self.time_left, 0.0)]
        if self.budget is not None and self.trials_per_second > 0:
            limits.append((self.budget - self.trials) / self.trials_per_second)
        return min(limits, default=None)


class ProgressDisplay(ABC):
    """Shows the progress of a search. A context manager."""

    @abstractmethod
    def show(self, progress: Progress) -> None:
        """The search has come this far."""

    @abstractmethod
    def note(self, text: str) -> None:
        """Something worth a line of its own."""

    @abstractmethod
    def close(self) -> None:
        """Leave the last state on the screen."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def create_progress(console: Console) -> ProgressDisplay:
    """The live table if the console is a terminal, else plain lines."""
    return LiveProgress(console) if console.is_terminal else PlainProgress(console)


class PlainProgress(ProgressDisplay):
    """One line a round."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def show(self, progress: Progress) -> None:
        """Print a line when a round is done."""
        if not progress.round_done:
            return
        task = progress.tasks[progress.current] if progress.current is not None else None
        words = [f"round {progress.round}", _totals(progress)]
        if task is not None:
            words.insert(1, f"{task.task.name}: best {milliseconds(task.latency)}, {_rate(task.gflops)}, {task.trials} trials")
        self.note("; ".join(words))

    def note(self, text: str) -> None:
        """Print the text."""
        self._console.print(Text(text), soft_wrap=True)

    def close(self) -> None:
        """Nothing to end: what was printed stays."""


class LiveProgress(ProgressDisplay):
    """The task table, redrawn in place."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, auto_refresh=False)
        self._live.start()
        self._drawn = -math.inf

    def show(self, progress: Progress) -> None:
        """Redraw, though not more often than a person can see."""
        now = time.monotonic()
        if progress.round_done or now - self._drawn > REDRAW_SECONDS:
            self._drawn = now
            self._live.update(progress_table(progress), refresh=True)

    def note(self, text: str) -> None:
        """Print the text above the table."""
        self._live.console.print(Text(text))

    def close(self) -> None:
        """Stop redrawing."""
        self._live.stop()


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
    total = weighted_seconds(progress.tasks)
    if total is not None:
        words.append(f"total {milliseconds(total)}")
    words.append(f"{duration(progress.elapsed)}")
    if progress.trials_per_second > 0:
        words.append(f"{progress.trials_per_second:.1f} trials/s")
    if progress.seconds_left is not None and progress.trials != progress.budget:
        words.append(f"{duration(progress.seconds_left)} left")
    if progress.errors:
        words.append("errors: " + ", ".join(f"{count} {kind}" for kind, count in progress.errors.items()))
    return ", ".join(words)


def _number(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1e3:.4f}"


def _rate(gflops: float | None) -> str:
    return "-" if gflops is None else f"{gflops:.1f} GFLOP/s"
