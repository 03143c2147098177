"""An observer: a file that says which round found how much, and by which operator.

python -m ansor_py.search --op matmul:512,512,512 --import experiments/ideas/plateau_log.py --observer plateau-log --out runs/x
cat runs/x/plateau.csv
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from ansor_py.search import Event, OptionSet, StrategyOptions, TrialsMeasured, observer, option


@dataclass(frozen=True)
class PlateauOptions(StrategyOptions, name="plateau"):
    """Constants of the log."""

    least_gain: float = option(0.01, "share of the latency below which a find is none", least=0, most=1)


@observer("plateau-log", options=PlateauOptions)
class PlateauLog:
    """Writes trial, task, gain and operator of everything that was clearly better than what was known."""

    def __init__(self, options: OptionSet, folder: Path) -> None:
        self._least = options.of(PlateauOptions).least_gain
        self._file = folder / "plateau.csv"
        self._best: dict[str, float] = {}

    def __call__(self, event: Event) -> None:
        """Look at trials."""
        if not isinstance(event, TrialsMeasured):
            return
        with self._file.open("a", newline="") as file:
            writer = csv.writer(file)
            for record in event.records:
                best = self._best.get(record.workload_key)
                if record.valid and (best is None or record.cost < best):
                    gain = 0.0 if best is None else 1 - record.cost / best
                    self._best[record.workload_key] = record.cost
                    if gain >= self._least:
                        writer.writerow([record.trial, record.task, f"{gain:.4f}", record.origin.operator])
