"""A deterministic part of ONNX's backend tests; `make conformance` runs all of them and writes docs/conformance.md."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from expected import MOST_EXPECTED, expected_failures, problems
from onnx import helper
from onnx.reference import ReferenceEvaluator
from report import COUNTS, PAGE, limits_section
from suite import Case, Outcome, attempt, load_cases, run_case, watched_evaluator

# Of so many shards, the tests run one.
SHARDS = 2


@pytest.fixture(scope="module")
def shard() -> dict[str, tuple[Case, Outcome]]:
    """The cases of the first shard and what became of them."""
    return {case.name: (case, run_case(case)) for case in load_cases() if case.shard(SHARDS) == 0}


@pytest.mark.timeout(900)
def test_a_shard_of_the_suites_is_as_expected(shard: dict[str, tuple[Case, Outcome]]) -> None:
    wrong = problems({name: outcome for name, (_, outcome) in shard.items()}, expected_failures())
    assert not wrong, "\n".join(wrong)
    assert len(shard) > 900


def test_compiled_cases_never_call_the_reference_evaluator(shard: dict[str, tuple[Case, Outcome]]) -> None:
    """Counted while they run, without the harness's own rule for what counts as compiled."""
    calls: list[object] = []
    with pytest.MonkeyPatch.context() as patch:
        run = ReferenceEvaluator.run

        def counted(*arguments: Any, **options: Any) -> Any:
            calls.append(arguments)
            return run(*arguments, **options)

        patch.setattr(ReferenceEvaluator, "run", counted)
        compiled = [case for case, outcome in shard.values() if outcome.kind == "compiled"]
        for case in compiled[::8]:
            attempt(case, fallback=True)
            assert not calls, case.name
        fallback = next(case for case, outcome in shard.values() if outcome.kind == "fallback")
        attempt(fallback, fallback=True)
        assert calls  # the count does count
    assert len(compiled) > 500


def test_no_case_passes_by_a_class_that_ignores_something(shard: dict[str, tuple[Case, Outcome]]) -> None:
    """By what ran, not by what was refused; that the watch sees such classes is shown with one that nothing stops."""
    assert not [name for name, (_, outcome) in shard.items() if outcome.ignored]
    evaluator = ReferenceEvaluator(helper.make_node("GlobalMaxPool", ["x"], ["y"]))
    with watched_evaluator() as ignoring:
        evaluator.run(None, {"x": np.zeros((1, 1, 2, 2), np.float32)})
    assert ignoring == ["GlobalMaxPool"]


def test_the_list_of_expected_failures_only_shrinks() -> None:
    expected = expected_failures()
    assert len(expected) == MOST_EXPECTED, "lower MOST_EXPECTED when a case passes; nothing may be added"
    unknown = set(expected) - {case.name for case in load_cases()}
    assert not unknown


def test_the_page_is_of_this_list() -> None:
    """The complete run writes the page; whether it is of the present code is for `make conformance` to say."""
    page = Path(PAGE).read_text()
    match = re.search(r"^\| failed \| (\d+) \|", page, re.MULTILINE)
    assert match is not None
    assert int(match[1]) == len(expected_failures())
    assert COUNTS in page
    assert "\n".join(limits_section()) in page
