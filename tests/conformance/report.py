"""The complete conformance run: counts on the screen, docs/conformance.md, and exit status 1 if anything is not as expected.

python tests/conformance/report.py            # make conformance
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx
from expected import expected_failures, problems
from suite import KINDS, SUITES, Case, Outcome, counts_for_the_bar, load_cases, run_case

from ansor_py.graph.fallback_limits import reviews

PAGE = Path(__file__).parents[2] / "docs" / "conformance.md"
COUNTS = "## Counts"
_SHOWN_REASONS = 60

MEANINGS = {
    "compiled": "native kernels compute it; passes while ONNX's reference evaluator is made to raise",
    "known": "every input has to be known at compile time, so the result is known before anything runs",
    "evaluated": "compiled, but the evaluator folded a constant of it at compile time",
    "fallback": "passes, with nodes run by the evaluator",
    "failed": "expected failures, each with its reason below",
}


@dataclass(frozen=True)
class Result:
    """A case and what became of it."""

    case: Case
    outcome: Outcome


def run_all() -> list[Result]:
    """Every case, with a word on the progress."""
    results: list[Result] = []
    cases, started = load_cases(), time.monotonic()
    for case in cases:
        results.append(Result(case, run_case(case)))
        if len(results) % 200 == 0:
            print(f"{len(results)} of {len(cases)} cases in {time.monotonic() - started:.0f} s", flush=True)
    return results


def page(results: list[Result], expected: Mapping[str, str]) -> str:
    """The text of docs/conformance.md."""
    lines = [
        "# Conformance",
        "",
        "ONNX's backend tests (`onnx.backend.test`) against `ansor_py.graph.backend.AnsorBackend`, with default schedules.",
        f"Written by `make conformance` with onnx {onnx.__version__}; do not edit.",
        "",
        COUNTS,
        "",
        *_counts(results),
        "",
        *_bar(results),
        "",
        "## Run by fallback, by operator",
        "",
        *_table(("operators run by the evaluator", "cases"), _fallback_operators(results)),
        "",
        _ignored(results),
        "",
        "## Failed, by reason",
        "",
        *_table(("reason", "cases"), Counter(expected.get(r.case.name, "unexpected") for r in results if _failed(r))),
        "",
        *limits_section(),
        "",
    ]
    return "\n".join(lines)


def limits_section() -> list[str]:
    """Every operator of the standard: what evaluates it where it is not compiled, and what is refused."""
    rows = [
        "## What the evaluator honours, by operator",
        "",
        "Nodes without a compiled form, constants, and nodes inside of graphs and functions are evaluated: by ONNX's reference",
        "evaluator (`onnx`), or by `ansor_py.graph.evaluators` (`ansor_py`) where that does not follow the standard.",
        "Every version of every operator was compared with the standard's text, attribute by attribute and input by input.",
        "What neither honours is refused: an error names the node, what it is about, and the remedy. The table is",
        "`ansor_py/graph/fallback_limits.py`.",
        "",
        "| operator | versions | evaluated by | refused | what ONNX's class does |",
        "|---|---|---|---|---|",
    ]
    for row in reviews():
        refused = "; ".join(row.refused) or "honoured"
        rows.append(f"| {row.operator} | {', '.join(map(str, row.versions))} | {row.evaluator} | {refused} | {row.replaced} |")
    return rows


def _ignored(results: list[Result]) -> str:
    count = sum(result.outcome.ignored for result in results)
    return f"Cases that pass by an evaluator known to ignore an attribute, an input or a version: {count}."


def _failed(result: Result) -> bool:
    return result.outcome.kind == "failed"


def _counts(results: list[Result]) -> list[str]:
    lines = [f"| how | all | {' | '.join(SUITES)} | |", f"|---|---:|{'---:|' * len(SUITES)}---|"]
    for kind in KINDS:
        by_suite = Counter(result.case.suite for result in results if result.outcome.kind == kind)
        lines.append(
            f"| {kind} | {by_suite.total()} | {' | '.join(str(by_suite[suite]) for suite in SUITES)} | {MEANINGS[kind]} |"
        )
    totals = Counter(result.case.suite for result in results)
    return [*lines, f"| all | {len(results)} | {' | '.join(str(totals[suite]) for suite in SUITES)} | |"]


def _bar(results: list[Result]) -> list[str]:
    kinds = Counter(result.outcome.kind for result in results if counts_for_the_bar(result.case.name))
    share = 100 * kinds["compiled"] / max(kinds.total(), 1)
    rest = ", ".join(f"{kind} {kinds[kind]}" for kind in KINDS[1:])
    return [
        f"Of the {kinds.total()} node cases of float, integer and bool tensors (of the compiled dtypes) without control flow,",
        f"strings, sequences or optional values, {kinds['compiled']} ({share:.1f} %) are compiled; {rest}.",
    ]


def _fallback_operators(results: list[Result]) -> Counter[str]:
    return Counter(", ".join(r.outcome.nodes) for r in results if r.outcome.kind == "fallback")


def _table(head: tuple[str, str], counts: Counter[str]) -> list[str]:
    listed = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    shown, rest = listed[:_SHOWN_REASONS], listed[_SHOWN_REASONS:]
    lines = [f"| {head[0]} | {head[1]} |", "|---|---:|", *(f"| {name} | {count} |" for name, count in shown)]
    if rest:
        lines.append(f"| {len(rest)} others | {sum(count for _, count in rest)} |")
    return lines


def main() -> int:
    """Run everything, print the counts, write the page."""
    results = run_all()
    expected = expected_failures()
    text = page(results, expected)
    PAGE.write_text(text)
    print(text)
    wrong = problems({result.case.name: result.outcome for result in results}, expected)
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
