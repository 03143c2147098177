"""Seeded mutations of what a user hands in: models, records, schedules, compiled models, batch files.

    python tests/campaign.py models 0 500          # 500 seeds from 0 on; what goes wrong is printed

A mutated thing must be refused by one line of an `AnsorError`, or give a right result. `tests/test_campaign.py` runs some seeds
of every family in a process of its own, so that a signal or a hang is seen and named with its seed.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import resource
import signal
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from ansor_py.errors import AnsorError

SEEDS = 100  # of each family that the test runs
MUTATED = {
    "models": "ONNX models: dtypes, attributes, names, shapes, nodes, weights (infinite, NaN), operator versions, bytes",
    "records": "`records.jsonl`, from which a task is compiled or a search continued: fields, steps, lines, bytes",
    "schedules": "lists of transform steps: kinds, fields, order",
    "archives": "`model.ansor`: bytes, members, manifest",
    "batch files": "TOML files for `--config`: values, kinds of values, keys, bytes",
}
SECONDS = 30  # that one mutation may take
LONGEST_LINE = 2000
MEMORY = 3 << 30  # bytes that the process may have
# Refused, right, or of a meaning that nobody can check; anything else is an exception.
Outcome = str
Check = Callable[[np.random.Generator, Path], Outcome]


class WrongError(Exception):
    """A result that is wrong, or an error that is not one clear line."""


class HangError(Exception):
    """It took too long."""


def check_line(text: str) -> None:
    """Raise WrongError unless it is one line of some length."""
    if not text.strip() or "\n" in text.strip() or len(text) > LONGEST_LINE:
        raise WrongError(f"not one clear line: {text[:3000]!r}")


@contextlib.contextmanager
def within(seconds: int) -> Iterator[None]:
    """HangError after so many seconds; where that is not heard, the process ends by a signal some seconds later."""

    def stop(*_: object) -> None:
        raise HangError(f"no answer in {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    faulthandler.dump_traceback_later(seconds + 10, exit=True)
    try:
        yield
    finally:
        signal.alarm(0)
        faulthandler.cancel_dump_traceback_later()
        signal.signal(signal.SIGALRM, before)


def outcome_of(check: Check, family: str, seed: int) -> Outcome:
    """What a seed came to; a fault is a text of several lines."""
    rng = np.random.default_rng([seed, *family.encode()])
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with within(SECONDS):
                return check(rng, Path(folder))
        except AnsorError as error:
            try:
                check_line(str(error))
            except WrongError:
                return traceback.format_exc()
            return "refused"
        except BaseException:
            return traceback.format_exc()


def families() -> dict[str, Check]:
    """What is mutated, and how an answer is checked."""
    import mutations

    return mutations.FAMILIES


def run(family: str, first: int, count: int) -> int:
    """Run seeds and print `seed N` before each, then its outcome; the number of faults."""
    check = families()[family]
    faulthandler.enable()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))  # what needs more is refused at once
    counts: Counter[str] = Counter()
    for seed in range(first, first + count):
        print(f"seed {seed}", flush=True)
        outcome = outcome_of(check, family, seed)
        fault = "\n" in outcome
        counts["fault" if fault else outcome] += 1
        print(f"FAULT {family} {seed}: {outcome}" if fault else outcome, flush=True)
    print(f"{family}: {dict(counts)}", flush=True)
    return counts["fault"]


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(min(run(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])), 100))
