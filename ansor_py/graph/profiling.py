"""Where the time of a model goes: every kernel inside it beside what the machine could do.

    profile = compiled.profile(feed)
    print(profile)                                   # a table, the slowest first
    profile.kernels[0].milliseconds, profile.kernels[0].roofline_share

The roofline of a kernel is the longer of two times: its operations at the rate of a loop of nothing but fused multiply-adds,
and its bytes (every input and output once) at the rate of copying as many bytes again and again, so that what fits a cache is
compared with that cache. Both are measured on this machine, with the threads that the model uses. Only sums of products reach
the first rate; a share says where to look, not what is possible.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from ansor_py.codegen.peak import measure_copy_bandwidth, measure_peak
from ansor_py.graph.plan import Plan, Work
from ansor_py.target import Target

_WIDTH = 120
# Rates are measured for sizes that are powers of two, from what one core copies within its first cache.
_SMALLEST_COPY, _LARGEST_COPY = 16 << 10, 256 << 20
_PEAK_SECONDS, _COPY_SECONDS = 0.1, 0.05


@dataclass(frozen=True)
class Rates:
    """What a machine does with some threads: float32 operations a second, and bytes a second of copying so many bytes."""

    flops: float
    copy: Callable[[int], float]


@dataclass(frozen=True)
class KernelProfile:
    """One kernel, or one node that is not compiled, in all its calls.

    `milliseconds` is the sum of its calls in a run, `share` its part of all of them. The rates are 0 where nothing is known of
    the work, as of nodes that are not compiled. `roofline_share` is the roofline's time as a part of the kernel's own.
    """

    name: str
    schedule: str
    calls: int
    milliseconds: float
    share: float
    gflops: float = 0.0
    gbytes: float = 0.0
    roofline_share: float = 0.0


@dataclass(frozen=True)
class CallProfile:
    """One call, in order of execution: the name of its kernel or node, and milliseconds."""

    name: str
    milliseconds: float


@dataclass(frozen=True)
class Profile:
    """A model's kernels, the slowest first, and its calls in order."""

    model: str
    kernels: tuple[KernelProfile, ...]
    calls: tuple[CallProfile, ...] = field(repr=False)

    @property
    def milliseconds(self) -> float:
        """Of all calls together."""
        return sum(call.milliseconds for call in self.calls)

    def __str__(self) -> str:
        console = Console(width=_WIDTH, color_system=None)
        with console.capture() as capture:
            console.print(self.table())
        return capture.get()

    def table(self) -> Table:
        """The kernels as a table for a terminal."""
        title = f"{self.model}: {self.milliseconds:.4g} ms in {len(self.calls)} calls"
        table = Table(title=title, box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
        table.add_column("kernel", overflow="fold")
        table.add_column("schedule", overflow="fold", min_width=8)
        for head in ("calls", "ms", "share", "GFLOP/s", "GB/s", "roofline"):
            table.add_column(head, justify="right", no_wrap=True)
        for row in self.kernels:
            rates = (f"{row.gflops:.4g}", f"{row.gbytes:.4g}", f"{row.roofline_share:.0%}") if row.gbytes else ("", "", "")
            cells = (f"{row.calls}", f"{row.milliseconds:.4g}", f"{row.share:.0%}", *rates)
            table.add_row(row.name, row.schedule, *cells)
        return table


@functools.lru_cache(maxsize=8)
def rates_of(target: Target, threads: int) -> Rates:
    """This machine's rates as code for the target reaches them; measured once."""

    @functools.cache
    def copy(size: int) -> float:
        return 1e9 * measure_copy_bandwidth(target, threads, size, _COPY_SECONDS)

    return Rates(1e9 * measure_peak(target, threads, _PEAK_SECONDS), copy)


def profile_of(plan: Plan, seconds: NDArray[np.float64], rates: Rates) -> Profile:
    """The profile of a model from the seconds of its kernel calls, in order, and of its nodes between them."""
    nodes = plan.fallback.nodes if plan.fallback is not None else ()
    symbols = {_task_of(plan, call.kernel): call.kernel for call in plan.calls}
    taken = [1e3 * float(value) for value in seconds]
    calls = [CallProfile(_task_of(plan, call.kernel), time) for call, time in zip(plan.calls, taken, strict=False)]
    between = [CallProfile(node.name or node.op_type, time) for node, time in zip(nodes, taken[len(calls) :], strict=True)]
    total = sum(taken)
    rows = [
        _kernel(
            [call for call in calls if call.name == name], plan.schedules.get(symbol, ""), total, plan.work.get(symbol), rates
        )
        for name, symbol in symbols.items()
    ]
    for node, call in zip(nodes, between, strict=True):
        rows.append(_kernel([call], "library" if node.library else "not compiled", total, None, rates))
    ordered = list(calls)
    for node, call in reversed(list(zip(nodes, between, strict=True))):  # the last one first: the places of the others stay
        ordered.insert(node.after_calls, call)
    return Profile(plan.name, tuple(sorted(rows, key=lambda row: -row.milliseconds)), tuple(ordered))


def _task_of(plan: Plan, symbol: str) -> str:
    return plan.work[symbol].task if symbol in plan.work else symbol


def _kernel(calls: Sequence[CallProfile], schedule: str, total: float, work: Work | None, rates: Rates) -> KernelProfile:
    milliseconds = sum(call.milliseconds for call in calls)
    basis = (calls[0].name, schedule, len(calls), milliseconds, milliseconds / total if total else 0.0)
    if work is None or not milliseconds:
        return KernelProfile(*basis)
    seconds = 1e-3 * milliseconds / len(calls)
    size = min(max(1 << (work.bytes - 1).bit_length(), _SMALLEST_COPY), _LARGEST_COPY)
    fastest = max(work.flops / _peak(work.dtype, rates), work.bytes / rates.copy(size))
    return KernelProfile(*basis, work.flops / seconds / 1e9, work.bytes / seconds / 1e9, fastest / seconds)


def _peak(dtype: str, rates: Rates) -> float:
    """Operations a second in a dtype, as far as lanes decide it: half of them for float64."""
    return rates.flops * min(4 / np.dtype(dtype).itemsize, 1.0)
