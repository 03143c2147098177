"""The benchmark of networks: cells, page and document from a made-up row, and its options."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ansor_py.target import Target


@pytest.fixture(autouse=True)
def _siblings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scripts find each other as when they are run."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "experiments"))


def test_networks_are_reported_beside_other_engines() -> None:
    from bench_models import Row, cells, document, header, page
    from machine import cpu_line
    from turns import Rules

    rules, target = Rules(["ort", "openvino"], busy=1), Target.parse("host cores=2")
    times, place = {"ansor": 4.0, "ort": 8.0, "openvino": 6.0}, {"ansor": 2.0, "ort": 8.0, "openvino": 5.0}
    settings = {"ort": {"version": "1.2"}}
    row = Row(
        *("m", 9, 3, 4, 1.0, 2.0, 8.0, 4.0, 9.0, {}, 5, 1e-6, 2e-6, None, True),
        ms=times,
        place_ms=place,
        native_ms=1.5,
        settings=settings,
    )
    assert dict(zip(header(rules.peers), cells(row, rules.peers), strict=True))["speed-up"] == "2.00"
    assert "WRONG" in cells(replace(row, correct=False), rules.peers)[-2]
    assert cells(replace(row, ms={}, notes={"ort": "not installed"}), rules.peers)[6:11] == [
        *("failed", "2", "1.5", "not installed", "–")
    ]
    text = page([row], 200, target, rules)
    assert "| m | 9 | 3 | 4 | 1.0 | 2.0 | 4 | 2 | 1.5 | 2.00 | 1.50 | 1.50 | 2.50 | 8 | 4 | 2.00 | 2e-06 | – |" in text
    assert "| 2.00 | 1.50 | 1.50 | 2.50 | 2.00 |" in text
    assert f"\n{cpu_line(target)}, beside 1 busy process; " in text
    assert "the\n  fastest of ort and openvino;" in text
    written = json.loads(json.dumps(document([row], target, rules)))
    assert (written["busy"], written["threads"]) == (1, 2)
    assert [written["rows"][0][name] for name in ("ratio", "place_ratio", "plain_over_place")] == [1.5, 2.5, 2.0]
    assert written["geometric_means"]["in place: best / ours"] == pytest.approx(2.5)


def test_options_of_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    from bench_models import parse

    options = parse("squeezenet resnet50 --peers ort --busy 1 --threads 1".split())
    assert (options.models, options.peers, options.busy, options.target.cores) == (["squeezenet", "resnet50"], ["ort"], 1, 1)
    assert parse([]).peers == ["ort", "openvino"]
    with pytest.raises(SystemExit):
        parse(["--peers", "torch"])
    assert "invalid choice: 'torch'" in capsys.readouterr().err
