"""Fixtures that last for the whole test session, and the count of tests by target at its end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

import ansor_py.search.loop.observers
import ansor_py.search.policies
import ansor_py.search.scheduler.objectives
import ansor_py.search.scheduler.strategies  # noqa: F401  # so that all registries are there
from ansor_py.registry import all_registries
from ansor_py.search.policies.policy import SKETCH_SOURCES
from ansor_py.sketch_rules import PRESETS
from ansor_py.strategy_options import OPTION_CLASSES
from measure_faults import MeasurerCache

TARGET = "target"


@pytest.fixture(scope="session")
def measurers() -> Iterator[MeasurerCache]:
    """Measurers of all kinds, each made when first used: starting Ray takes seconds."""
    cache = MeasurerCache()
    yield cache
    cache.close()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Say in the test's report which targets it is for; reports also come from other processes."""
    item.user_properties += [(TARGET, name) for mark in item.iter_markers("runs_for") for name in mark.args]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    passed = [report for report in terminalreporter.stats.get("passed", []) if report.when == "call"]
    counts = Counter(str(value) for report in passed for key, value in report.user_properties if key == TARGET)
    if counts:
        shown = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
        terminalreporter.write_line(f"tests passed by target: {shown}")


@pytest.fixture
def registries_as_before() -> Iterator[None]:
    """What a test registers is gone after it."""
    tables: list[dict[str, Any]] = [*all_registries(), OPTION_CLASSES, PRESETS, SKETCH_SOURCES]
    before = [dict(table) for table in tables]
    yield
    for table, entries in zip(tables, before, strict=True):
        table.clear()
        table.update(entries)
