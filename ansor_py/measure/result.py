"""What became of one measured program: its seconds, or a typed error.

The same object goes from the worker that ran the program to measurer, search and record, with more known on its way:

    built = MeasureResult(build=Span(10.0, 10.1))
    ran = MeasureResult(costs=(1e-3, 1.1e-3), run=Span(10.2, 10.3))
    result = msgspec.structs.replace(ran, build=built.build)
    result.valid, result.cost
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from msgspec import Meta, Struct

# No call of a kernel takes less; a smaller cost was not measured.
LEAST_SECONDS = 1e-9

ErrorKind = Literal["none", "build", "build-timeout", "run", "run-timeout", "wrong-result", "out-of-bounds", "crash", "cut"]
ERROR_KINDS: tuple[ErrorKind, ...] = get_args(ErrorKind)


class Span(Struct, frozen=True, forbid_unknown_fields=True):
    """When something was done, in seconds since the epoch with fractions, and the seconds of its parts by name."""

    started: float
    finished: float
    phases: dict[str, float] = {}

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.finished - self.started


class InPlace(Struct, frozen=True, forbid_unknown_fields=True):
    """Seconds per call inside the network that was tuned, other kernels before it, and whether the network took the program.

    None for a program that looked as fast as those that were tried, but not when it was measured again.
    """

    seconds: Annotated[float, Meta(ge=LEAST_SECONDS)] | None
    chosen: bool


@dataclass(frozen=True)
class TaskInPlace:
    """A task inside the network: the trial whose program it took (None: the default schedule, where that is none) and its
    seconds per call, and those of the default schedule."""

    trial: int | None
    seconds: float
    default_seconds: float


class EarlyEnd(Struct, frozen=True, forbid_unknown_fields=True):
    """Why a program was timed no longer: it takes more than `bound` seconds, with this `confidence`, and its task's best takes
    `best`."""

    bound: float
    best: float
    confidence: float


class MeasureResult(Struct, frozen=True, forbid_unknown_fields=True):
    """`costs` are seconds per call, one a repeat; for `cut` a lower bound.

    `error_stage` says where an error happened: `concretise`, `build`, `load`, `warm-up`, `time`, `check` or `reference` (the
    naive program of the task that outputs are compared with). `build` and `run` are None if they never began, `in_place` for
    a program that was not timed inside a network. `output_error` is the largest error of a program with an algorithm that is
    not exact, as a share of the output's largest magnitude; None for others.

    With an `early_end` the costs are those of a program that was clearly slower than another one, fewer and less exact. So many
    of the costs are `disturbed`: another process had a core meanwhile, each time that they were repeated. With `same_code` they
    are those of an earlier program of other steps and the same machine code, and this one did not run.
    """

    costs: tuple[Annotated[float, Meta(ge=LEAST_SECONDS)], ...] = ()
    error: ErrorKind = "none"
    error_text: str = ""
    error_stage: str = ""
    output_checked: bool = False
    build: Span | None = None
    run: Span | None = None
    in_place: InPlace | None = None
    output_error: float | None = None
    early_end: EarlyEnd | None = None
    disturbed: int = 0
    same_code: bool = False

    @property
    def valid(self) -> bool:
        """Whether the program ran to the end and passed its checks."""
        return self.error == "none" and bool(self.costs)

    @property
    def cost(self) -> float:
        """Median seconds per call; infinite for a failed program."""
        return statistics.median(self.costs) if self.valid else math.inf
