"""The expected failures: a list of cases by reason, in `expected_failures.toml`, that may only shrink.

[[failure]]
reason = "dtype float16 is not compiled"
cases = ["test_add_float16_cpu"]
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path

from suite import Outcome

EXPECTED = Path(__file__).with_name("expected_failures.toml")
# The length of the list; lower it when cases are taken out. Nothing may be added.
MOST_EXPECTED = 311


def expected_failures(path: Path = EXPECTED) -> dict[str, str]:
    """The reason of each expected failure by case name. ValueError for a case that is listed twice, or without a reason."""
    found: dict[str, str] = {}
    for entry in tomllib.loads(path.read_text()).get("failure", []):
        for name in entry["cases"]:
            if name in found or not entry["reason"].strip():
                raise ValueError(f"{path.name}: case {name} is listed twice or has no reason")
            found[name] = entry["reason"]
    return found


def problems(outcomes: Mapping[str, Outcome], expected: Mapping[str, str]) -> list[str]:
    """What is not as expected, one line each: failures that are not listed, and listed cases that pass."""
    found = []
    for name, outcome in outcomes.items():
        if outcome.kind == "failed" and name not in expected:
            found.append(f"{name} fails: {outcome.reason}")
        elif outcome.kind != "failed" and name in expected:
            found.append(f"{name} passes ({outcome.kind}): take it out of {EXPECTED.name}")
    return found
