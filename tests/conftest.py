"""Fixtures that last for the whole test session, and the count of tests by target at its end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from measure_faults import MeasurerCache

TARGETS_OF = pytest.StashKey[Counter[str]]()


@pytest.fixture(scope="session")
def measurers() -> Iterator[MeasurerCache]:
    """Measurers of all kinds, each made when first used: starting Ray takes seconds."""
    cache = MeasurerCache()
    yield cache
    cache.close()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[TARGETS_OF] = Counter()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    outcome = yield
    if outcome.excinfo is None:  # neither failed nor skipped
        item.config.stash[TARGETS_OF].update(name for mark in item.iter_markers("runs_for") for name in mark.args)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if counts := config.stash[TARGETS_OF]:
        shown = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
        terminalreporter.write_line(f"tests passed by target: {shown}")
