"""The registry of faults: the page that is made of it is current, and every fault in it is one that a test makes happen."""

from __future__ import annotations

from pathlib import Path

import pytest

import faults
from faults import PAGE, SECTIONS, Fault

TESTS = "\n".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py") if path != Path(__file__))
ELSEWHERE = ("PROGRAM_FAULTS", "MUTATIONS")  # tables of other modules, whose tests go through them
NAMED = {name: value for name, value in vars(faults).items() if isinstance(value, (Fault, dict)) and name not in ("SECTIONS",)}


def test_the_page_is_current() -> None:
    assert PAGE.read_text() == faults.page(), "run: python tests/faults.py"


@pytest.mark.parametrize("name", [name for name in NAMED if name.isupper()])
def test_a_test_makes_it_happen(name: str) -> None:
    assert f"faults.{name}" in TESTS or name in ELSEWHERE


def test_every_fault_is_on_the_page() -> None:
    listed = {fault for _, items in SECTIONS.values() for fault in items}
    for value in NAMED.values():
        entries = value.values() if isinstance(value, dict) else [value]
        assert all(entry in listed for entry in entries if isinstance(entry, Fault))


def test_what_is_read() -> None:
    said = Fault("it", "error: … in 'DIR/a'")
    assert said.is_read_in("first\nerror: all in 'DIR/a'\n")
    assert not said.is_read_in("error: all in 'DIR/a' and more")
    assert Fault("silent").is_read_in("\n")
    assert not Fault("silent").is_read_in("a word\n")
