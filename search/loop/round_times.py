"""Where the seconds of each round went, and what a trial costs beside what the design allows it.

A round's phases add up to its wall-clock time; so do the rounds' to that of the search. The first row holds what comes before
the first trial (deriving sketches, starting workers) and the default schedules, the last one the final re-timing.

    rounds = RoundTimer(timer)
    row = rounds.close(round=1, task="matmul", trials=8, scored=2048)
    trial_budget(records, rows)["run"]       # {"budget": 60.0, "spent": 41.3, "unit": "ms a trial"}
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ansor_py.measure.records import Record
from ansor_py.measure.result import Span
from ansor_py.search.loop.phases import PHASES, PhaseTimer

RETIMING = "re-timing"  # in the column `task` of the row of the final re-timing
DEFAULTS = "default schedules"  # and of the row that comes before the rounds

# What a trial may cost on two cores (design page, "Measuring"): build is one builder's time, and there are two of them.
BUDGET = {"build": 60.0, "run": 60.0, "everything else": 30.0}  # milliseconds a trial
TRAINING_BUDGET = 0.4  # seconds a round


@dataclass(frozen=True)
class RoundTimes:
    """One round: its number and task, the trials measured, the programs scored, and its seconds by phase."""

    round: int
    task: str
    trials: int
    scored: int
    phases: Mapping[str, float]

    @property
    def seconds(self) -> float:
        """Wall-clock time of the round."""
        return sum(self.phases.values())

    @property
    def measuring_seconds(self) -> float:
        """Time in which programs were built and run, or waited for."""
        return sum(self.phases[name] for name in ("build", "run", "other"))


class RoundTimer:
    """Cuts the seconds of a phase timer into rounds."""

    def __init__(self, timer: PhaseTimer) -> None:
        self._timer = timer
        self._phases: dict[str, float] = {}
        self._scored = 0

    def close(self, round: int, task: str, trials: int, scored: int) -> RoundTimes:
        """The round that ends now; `scored` counts the programs scored since the search began."""
        phases = self._timer.summary()
        spent = {name: max(phases.get(name, 0.0) - self._phases.get(name, 0.0), 0.0) for name in PHASES}
        row = RoundTimes(round, task, trials, scored - self._scored, spent)
        self._phases, self._scored = phases, scored
        return row


def trial_budget(records: Sequence[Record], rounds: Sequence[RoundTimes]) -> dict[str, dict[str, float | str | None]]:
    """What a trial and a round may cost and what they did cost; None where no host took part (virtual measurers).

    `build` and `run` are means over the trials of their own time stamps; `everything else` is the wall-clock time of the
    rounds in which no program was built or run. Sketches and re-timing, which do not grow with the trials, are left out.
    """
    tuned = [row for row in rounds if row.task not in (DEFAULTS, RETIMING)]
    trials = sum(row.trials for row in tuned)
    other = sum(row.seconds - row.phases.get("build", 0.0) - row.phases.get("run", 0.0) for row in tuned)
    spent = {
        "build": _mean_milliseconds(record.result.build for record in records),
        "run": _mean_milliseconds(record.result.run for record in records),
        "everything else": round(other / trials * 1e3, 3) if trials else None,
    }
    report: dict[str, dict[str, float | str | None]] = {
        name: {"budget": budget, "spent": spent[name], "unit": "ms a trial"} for name, budget in BUDGET.items()
    }
    training = sum(row.phases.get("train", 0.0) for row in tuned)
    report["train"] = {
        "budget": TRAINING_BUDGET,
        "spent": round(training / len(tuned), 4) if tuned else None,
        "unit": "s a round",
    }
    return report


def _mean_milliseconds(spans: Iterable[Span | None]) -> float | None:
    """Mean length of the spans that are known."""
    lengths = [span.seconds for span in spans if span is not None]
    return round(sum(lengths) / len(lengths) * 1e3, 3) if lengths else None
