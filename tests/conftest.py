"""Fixtures that last for the whole test session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from measure_faults import MeasurerCache


@pytest.fixture(scope="session")
def measurers() -> Iterator[MeasurerCache]:
    """Measurers of all kinds, each made when first used: starting Ray takes seconds."""
    cache = MeasurerCache()
    yield cache
    cache.close()
