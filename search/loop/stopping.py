"""When a search ends: trials, wall-clock time, target latency.

All of them are looked at between rounds, so that a round is always finished, its records written, and the best programs
measured again. A round that would not end within the time budget, as far as the last one tells, is not begun.

    conditions = StopConditions(trials=400, seconds=parse_seconds("10m"), targets=np.array([parse_seconds("3.5ms")]))
    conditions.reason(trials=400, elapsed=61.0, still_needed=5.0, networks=np.array([4e-3]))     # "400 trials"
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ansor_py.errors import OptionError

Floats = NDArray[np.float64]

UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
ALL_ENDED = "no task has anything left to try"


@dataclass(frozen=True)
class StopConditions:
    """`trials` and `seconds` are None when they do not limit the search; `targets` (seconds, one a network) empty."""

    trials: int | None
    seconds: float | None
    targets: Floats

    def reason(self, trials: int, elapsed: float, still_needed: float, networks: Floats) -> str:
        """Why the search should stop now, in words; empty when it should go on.

        `trials` were measured, `elapsed` seconds have passed, the next round and what follows the last one are expected to
        take `still_needed` seconds, and `networks` are the best latencies known, infinite or NaN for unknown ones.
        """
        if self.trials is not None and trials >= self.trials:
            return f"{self.trials} trials"
        if len(self.targets) and bool((networks <= self.targets).all()):
            return f"target latency of {', '.join(f'{target * 1e3:.4g}' for target in np.unique(self.targets))} ms reached"
        if self.seconds is not None and elapsed + still_needed >= self.seconds:
            return "time budget"
        return ""


def parse_seconds(text: str, what: str = "a time") -> float:
    """Seconds of `90s`, `10m`, `1.5h`, `3.5ms` or `800us`. Raises OptionError for anything else and for nothing at all."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([a-z]+)\s*", text)
    if match is None or match[2] not in UNITS or float(match[1]) <= 0:
        units = ", ".join(UNITS)
        raise OptionError(f"{what} is '{text}'; write a number more than 0 with a unit ({units}), such as 10m or 3.5ms")
    return float(match[1]) * UNITS[match[2]]
