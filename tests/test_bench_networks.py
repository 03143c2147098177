"""The benchmark of networks: cells, page, document and chart from made-up rows, its options, and a run that goes on."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ansor_py.target import Target


@pytest.fixture(autouse=True)
def _siblings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scripts find each other as when they are run."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "experiments"))


def made_up_row() -> Any:
    from network_report import Row

    times, place = {"ansor": 4.0, "ort": 8.0, "openvino": 6.0}, {"ansor": 2.0, "ort": 8.0, "openvino": 5.0}
    return Row(
        *("m", 1, 9, 3, 4, 1.0, 2.0, 8.0, 4.0, 9.0, 200, {}, 5, 1e-6, 2e-6, None, True),
        ms=times,
        place_ms=place,
        native_ms=1.5,
        settings={"ort": {"version": "1.2"}},
    )


def test_networks_are_reported_beside_other_engines() -> None:
    from machine import cpu_line
    from network_report import cells, document, header, page, rows_of
    from turns import Rules

    rules, target = Rules(["ort", "openvino"], busy=1), Target.parse("host cores=2")
    row = made_up_row()
    assert dict(zip(header(rules.peers), cells(row, rules.peers), strict=True))["speed-up"] == "2.00"
    assert "WRONG" in cells(replace(row, correct=False), rules.peers)[-2]
    assert cells(replace(row, ms={}, notes={"ort": "not installed"}), rules.peers)[7:12] == [
        *("failed", "2", "1.5", "not installed", "–")
    ]
    rows = [row, replace(row, batch=16, ms={"ansor": 4.0, "ort": 2.0})]
    text = page(rows, 200, 15.0, target, rules)
    assert (
        "| m | 1 | 9 | 3 | 4 | 1.0 | 2.0 | 4 | 2 | 1.5 | 2.00 | 1.50 | 1.50 | 2.50 | 8 | 4 | 2.00 | 200 | 2e-06 | – |" in text
    )
    assert "| 1 | 2.00 | 1.50 | 1.50 | 2.50 | 2.00 | 2.00 |" in text
    assert "| 16 | 0.50 | – | 0.50 | 2.50 | 2.00 | 2.00 |" in text
    assert f"\n{cpu_line(target)}, beside 1 busy process; " in text
    assert "the\n  fastest of ort and openvino;" in text
    assert "after a search of 200 trials, or 15 minutes if these are over earlier, a network" in text
    assert "after a search of 200 trials a network" in page(rows, 200, None, target, rules)
    assert "(none was run)" in page([], 200, None, target, rules)
    written = json.loads(json.dumps(document(rows, target, rules, {"trials": 200})))
    assert (written["busy"], written["threads"], written["settings"]) == (1, 2, {"trials": 200})
    assert [written["rows"][0][name] for name in ("ratio", "place_ratio", "plain_over_place")] == [1.5, 2.5, 2.0]
    assert written["geometric_means"]["1"]["in place: best / ours"] == pytest.approx(2.5)
    assert rows_of(written) == rows


def test_chart_is_drawn_into_a_file(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from network_report import draw
    from turns import Rules

    rows = [made_up_row(), replace(made_up_row(), batch=16), replace(made_up_row(), network="n", ms={})]
    for some in (rows, []):
        draw(some, Target.parse("host cores=2"), Rules(["ort", "openvino"]), tmp_path / "networks.png")
        assert (tmp_path / "networks.png").read_bytes().startswith(b"\x89PNG")
        (tmp_path / "networks.png").unlink()


def test_options_of_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    from bench_networks import parse

    options = parse("squeezenet dcgan --batch 1 16 --peers ort --busy 1 --threads 1 --minutes 2.5".split())
    assert (options.networks, options.batch, options.minutes) == (["squeezenet", "dcgan"], [1, 16], 2.5)
    assert (options.peers, options.busy, options.target.cores) == (["ort"], 1, 1)
    assert parse([]).peers == ["torch", "ort", "openvino"]
    assert {"mobilenet_v2", "resnet50"} <= set(parse([]).networks)
    assert "magika" not in parse([]).networks
    assert parse(["magika"]).networks == ["magika"]
    for words, said in (
        (["--peers", "tvm"], "invalid choice: 'tvm'"),
        (["--batch", "0"], "'0' is too few; give 1 or more"),
        (["lenet"], "there is no network 'lenet'; known are mobilenet_v2"),
    ):
        with pytest.raises(SystemExit):
            parse(words)
        assert said in capsys.readouterr().err


def test_a_run_goes_on_where_one_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import bench_networks

    def run(*words: str) -> int:
        monkeypatch.setattr(sys, "argv", ["bench_networks.py", *words])
        return bench_networks.main()

    results, page, out = tmp_path / "networks.json", tmp_path / "networks.md", tmp_path / "out"
    page.write_text("# Old\n\n## Another section\n\nText.\n")
    words = "dcgan --trials 0 --threads 1 --rounds 1 --seconds 0.001 --peers".split()
    files = ["--json", str(results), "--markdown", str(page), "--out", str(out)]
    assert run(*words, *files) == 0
    [row] = json.loads(results.read_text())["rows"]
    assert (row["network"], row["batch"], row["correct"], row["tuned_ms"]) == ("dcgan", 1, True, None)
    assert row["tensors"] >= 5
    assert row["ms"]["ansor"] > 0
    assert "| dcgan | 1 | 14 |" in page.read_text()
    assert page.read_text().endswith("\n## Another section\n\nText.\n")
    assert not list(out.glob("*.onnx"))

    asked: list[tuple[str, int]] = []

    def measured(item: Any, options: Any) -> Any:
        asked.append((item.name, item.batch))
        return replace(made_up_row(), network=item.name, batch=item.batch)

    monkeypatch.setattr(bench_networks, "measure", measured)
    assert run(*words, "--batch", "1", "2", *files) == 0
    assert asked == [("dcgan", 2)]
    assert [(row["network"], row["batch"]) for row in json.loads(results.read_text())["rows"]] == [("dcgan", 1), ("dcgan", 2)]
    assert "dcgan, batch 1: measured before" in capsys.readouterr().err
    assert run(*words, "--busy", "1", *files) == 2
    assert "was measured with busy 0; name another file or ask for the same" in capsys.readouterr().err
    results.write_text("[]")
    assert run(*words, *files) == 2
    assert "is not a file of this study" in capsys.readouterr().err
    assert asked == [("dcgan", 2)]


def test_what_fails_or_has_no_such_batch_does_not_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import bench_networks
    from ansor_py.errors import ModelError
    from networks import BatchError, Network

    def made(name: str, batch: int) -> Network:
        if batch == 2:
            raise BatchError(f"'{name}' has no form of batch 2")
        return Network(name, batch, None, {})  # type: ignore[arg-type]

    def measured(item: Any, options: Any) -> Any:
        if item.name == "dcgan":
            raise ModelError("no luck")
        return replace(made_up_row(), network=item.name)

    monkeypatch.setattr(bench_networks, "network", made)
    monkeypatch.setattr(bench_networks, "measure", measured)
    base = ["bench_networks.py", "--batch", "2", "1", "--out", str(tmp_path), "--json", str(tmp_path / "rows.json")]
    monkeypatch.setattr(sys, "argv", [*base, "squeezenet"])
    assert bench_networks.main() == 0
    assert "left out: 'squeezenet' has no form of batch 2" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", [*base, "dcgan", "resnet50"])
    assert bench_networks.main() == 1
    assert "error: dcgan, batch 1: no luck" in capsys.readouterr().err
    assert [row["network"] for row in json.loads((tmp_path / "rows.json").read_text())["rows"]] == ["squeezenet", "resnet50"]
