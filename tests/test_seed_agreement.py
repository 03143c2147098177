"""The study of how far apart searches with different seeds end, on a workload made small."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner


@pytest.fixture(autouse=True)
def _siblings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scripts find each other as when they are run."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "experiments"))


def test_winners_of_two_seeds_are_compared(tmp_path: Path) -> None:
    from seed_agreement import agreement, agreement_table, main

    words = "--names gmm_512,nrm --trials 6 --seeds 2 --scale 16 --policy random".split()
    words += ["--target", "x86-64 cpu=haswell cores=2", "--out", str(tmp_path)]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "agreement.json").read_text())
    for name in ("gmm_512", "nrm"):
        best = [
            json.loads((tmp_path / f"{name}-{seed}" / "summary.json").read_text())["tasks"][0]["best_ms"] for seed in (0, 1)
        ]
        assert len(found["winners_ms"][name]) == 2
        assert found["winners_ms"][name] == pytest.approx(best, rel=0.1)  # best_ms is of the re-timing
        assert found["ratios"][name] == max(found["winners_ms"][name]) / min(found["winners_ms"][name])
    assert agreement({"a": [1.0, 1.04], "b": [2.0, 1.0]}) == {"a": 1.04, "b": 2.0}
    assert "1 of 2 workloads lie within 5%" in agreement_table({"a": [1.0, 1.04], "b": [2.0, 1.0]})
    assert "of 2 workloads lie within 5%" in result.output
