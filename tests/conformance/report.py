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
from suite import KINDS, SUITES, Case, Kind, Outcome, counts_for_the_bar, load_cases, run_case

from ansor_py.graph.fallback_limits import reviews

PAGE = Path(__file__).parents[2] / "docs" / "conformance.md"
COUNTS = "## Counts"
_SHOWN_REASONS = 60

MEANINGS = {
    "compiled": "native kernels compute it; passes while ONNX's reference evaluator is made to raise",
    "library": "passes without the evaluator; library kernels, NumPy code of ours between native segments, do a part of it",
    "known": "every input has to be known at compile time, so the result is known before anything runs",
    "evaluated": "compiled, but the evaluator folded a constant of it at compile time",
    "fallback": "passes, with nodes run by the evaluator",
    "failed": "expected failures, each with its reason below",
}


RULES = """\
## Where the standard leaves a choice

The same at compile time and at run time: what is known when a model is compiled is computed by the compiled operators' own
definitions with NumPy, never by an evaluator.

* Not a number: wherever an extreme is looked for, NaN wins, and the first one of several (`Max`, `Min`, `ReduceMax`,
  `ReduceMin`, `ArgMax`, `ArgMin`, `MaxPool` with its indices, `GlobalMaxPool`, `Hardmax`); with `select_last_index` the last
  one. `TopK` takes NaN for larger than everything: first with `largest=1`, last with `largest=0`; of equal elements, and of
  several NaN, the first comes first, also with `sorted=0`. `Clip` and `Relu` let NaN pass, and a limit that is NaN gives NaN. A
  row of `Softmax` or `LogSoftmax` with NaN in it is NaN.
* Integers: arithmetic wraps around, nothing goes through floats. `Pow` of integers is exact up to the 63rd power, modulo the
  dtype; a negative power is 0 but for 1 and -1. `Div` rounds towards zero; a quotient by 0 is unspecified and no fault.
* `Cast` of floats to integers cuts off what is behind the point, saturates beyond the dtype, and makes 0 of NaN; of integers to
  integers it keeps the low bits.
* `Range` has ceil((limit - start) / delta) elements, of the numbers that the dtype holds with the quotient in float64:
  0, 0.3, 0.1 give 4 in float32 and 3 in float64.
* Old versions of an operator mean what their text says, or are refused with one error that names operator, version and
  remedy, with fallback too: `broadcast` and `axis` before opset 7, equal shapes of `Sum`, `Max`, `Min` and `Mean` before
  opset 8, one slope a channel of `PRelu` before opset 7, limits of float32 of `Clip` from opset 6 to 10, rows of all axes
  from `axis` on of the softmax family before opset 13. `Dropout` and `BatchNormalization` before opset 7 without `is_test`
  are in training mode and refused.""".splitlines()


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
        *RULES,
        "",
        "## Computed by library kernels, by operator",
        "",
        "Selecting and sorting take more than their standard algorithm's time as loops over all elements; code of this package",
        "does it with NumPy between native segments. `--no-fallback` accepts these nodes; they are neither compiled nor left",
        "to the evaluator.",
        "",
        *_table(("operators computed by library kernels", "cases"), _operators_of(results, "library")),
        "",
        "## Run by fallback, by operator",
        "",
        *_table(("operators run by the evaluator", "cases"), _operators_of(results, "fallback")),
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


def _operators_of(results: list[Result], kind: Kind) -> Counter[str]:
    return Counter(", ".join(r.outcome.nodes) for r in results if r.outcome.kind == kind)


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
