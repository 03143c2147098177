"""The comparison of the policies: best-so-far curves, bands, trials to a goal and means of made-up searches; a small study."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from ansor_py.target import Target

INF = float("inf")


@pytest.fixture(autouse=True)
def _siblings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scripts find each other as when they are run."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "experiments"))


def one(*values: float) -> Any:
    """The band of a single search."""
    from bench_search import band

    return band([np.array(values, dtype=np.float64)])


def test_the_best_so_far_never_rises_and_lasts_after_an_early_end() -> None:
    from bench_search import best_so_far

    assert best_so_far([None, 4.0, 5.0, None, 3.0], 7).tolist() == [INF, 4, 4, 4, 3, 3, 3]
    assert best_so_far([4.0, 2.0, 1.0], 2).tolist() == [4, 2]
    assert best_so_far([], 2).tolist() == [INF, INF]


def test_a_band_has_median_and_quartiles_also_where_a_search_has_found_nothing() -> None:
    from bench_search import band

    found = band([np.array([INF, value]) for value in (5.0, 1.0, 4.0, 2.0)] + [np.array([9.0, 3.0])])
    assert found.median.tolist() == [INF, 3]
    assert found.lower.tolist() == [INF, 2]
    assert found.upper.tolist() == [INF, 4]
    assert found.searches == 5


def test_evolution_is_compared_with_the_end_of_random_search_and_with_all_ends() -> None:
    from bench_search import compare, comparison_table

    bands = {
        "a": {"evolution": one(9, 4, 2, 2, 2, 2), "random": one(9, 8, 7, 6, 5, 4), "template": one(8, 8, 8, 8, 8, 8)},
        "b": {"evolution": one(9, 9, 9, 8, 8, 8), "random": one(9, 8, 8, 8, 8, 8)},
        "c": {"evolution": one(9, 9, 9, 9, 9, 9), "random": one(9, 9, 9, 9, 9, 4.5)},
    }
    report = compare(bands)
    found = report["workloads"]
    assert [found[name]["trials_to_baseline"] for name in "abc"] == [2, 4, None]
    assert [found[name]["within_goal"] for name in "abc"] == [True, False, False]
    assert report["geometric_mean"] == pytest.approx({"evolution": 1, "random": 1, "template": 4})  # of 2, 1, 1/2; of 4 alone
    lines = comparison_table(report, ("evolution", "random", "template"), 6).splitlines()
    assert lines[2] == "| a | 2 | 2 | yes | 2 | 4 |"
    assert lines[4] == "| c | 9 | never | no | 0.5 | – |"
    assert compare({"a": {"beam": one(3, 2)}})["geometric_mean"] == {"beam": None}
    again = compare(bands, {name: {"evolution": 2.0, "random": 3.0} for name in "abc"})
    assert again["geometric_mean"] == pytest.approx({"evolution": 1, "random": 1.5, "template": None})
    assert again["workloads"]["a"]["trials_to_baseline"] == 2
    assert comparison_table(again, ("evolution", "random"), 6).splitlines()[4] == "| c | 2 | never | no | 1.5 |"


def test_a_small_study_is_made_once_and_shows_what_has_no_template_as_a_gap(tmp_path: Path) -> None:
    from bench_search import main
    from machine import cpu_line

    words = "--names gmm_512,nrm --policies random,template --trials 4 --seeds 1 --scale 8 --no-scoring".split()
    words += ["--target", "x86-64 cpu=haswell cores=2", "--out", str(tmp_path)]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    assert sorted(path.parent.name for path in tmp_path.glob("*/*/summary.json")) == ["random-0", "random-0", "template-0"]
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    with (tmp_path / "curves.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["trial"] for row in rows] == ["1", "2", "3", "4"] * 3  # without the default schedule
    study = json.loads((tmp_path / "study.json").read_text())
    line = cpu_line(Target.parse("x86-64 cpu=haswell cores=2"))
    assert study["machine"] == line
    assert f"{line}\n" in result.output
    assert set(study["rates"]["nrm"]) == {"random"}
    assert study["rates"]["gmm_512"]["template"]["trials"] > 0
    again = CliRunner().invoke(main, words)
    assert again.exit_code == 0
    assert "seed 0" in result.output
    assert "seed 0" not in again.output
    assert "retimed_ms" not in study["comparison"]["workloads"]["gmm_512"]  # nothing has run
    beside = CliRunner().invoke(main, [*words, "--policies", "random", "--busy", "1"])
    assert beside.exit_code == 0, beside.output
    assert f"{line}, beside 1 busy process\n" in beside.output
    assert (tmp_path / "nrm" / "random-busy1-0" / "summary.json").exists()  # a search of its own, not the idle one again
    other = CliRunner().invoke(main, [*words, "--trials", "5"])
    assert other.exit_code == 2
    assert "choose another --out" in other.output


def test_final_programs_that_run_are_measured_again(tmp_path: Path) -> None:
    from bench_search import main

    words = "--names gmm_512 --policies random,template --trials 3 --seeds 1 --scale 16 --no-scoring --runner inline".split()
    result = CliRunner().invoke(main, [*words, "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    [found] = json.loads((tmp_path / "study.json").read_text())["comparison"]["workloads"].values()
    assert set(found["retimed_ms"]) == {"random", "template"}
    assert all(0 < value < 1000 for value in found["retimed_ms"].values())
    best = [json.loads(line) for line in (tmp_path / "gmm_512/random-0/records.jsonl").read_text().splitlines()]
    assert found["retimed_ms"]["random"] not in [1e3 * cost for record in best for cost in record["result"]["costs"]]
