"""Everything in the table of docs/errors.md, provoked: one clear message, exit status 2, nothing left behind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import network_blocks as blocks
from ansor_py.errors import AnsorError
from ansor_py.graph import partition_model
from ansor_py.search.__main__ import main
from bad_input import MISTAKES, PAGE, Mistake, page, says
from test_fallback import branches

COMMAND = ("--trials", "0", "--runner", "inline", "--threads", "1")


def of_kind(*kinds: str) -> list[Mistake]:
    return [item for item in MISTAKES if item.kind in kinds]


def arguments(item: Mistake, folder: Path) -> list[str]:
    """The mistake's words last: a repeated option takes the last value."""
    given = item.provoke(folder) or []
    return [*COMMAND, "--out", str(folder / "out"), *given]


@pytest.mark.parametrize("item", of_kind("command"), ids=lambda item: item.title)
def test_one_line_and_exit_status_two(item: Mistake, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments(item, tmp_path)) == 2
    said = capsys.readouterr()
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1
    assert says(item.say, said.err.removeprefix("error: "), tmp_path), said.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("item", of_kind("python"), ids=lambda item: item.title)
def test_one_clear_exception(item: Mistake, tmp_path: Path) -> None:
    with pytest.raises(AnsorError) as caught:
        item.provoke(tmp_path)
    assert says(item.say, str(caught.value), tmp_path), str(caught.value)


@pytest.mark.parametrize("item", of_kind("warning"), ids=lambda item: item.title)
def test_a_warning_on_what_works(item: Mistake, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments(item, tmp_path)) == 0
    said = capsys.readouterr().err
    assert says(item.say, said, tmp_path), said


@pytest.mark.parametrize("item", of_kind("notice"), ids=lambda item: item.title)
def test_a_word_on_what_works(item: Mistake, tmp_path: Path) -> None:
    told = item.provoke(tmp_path)
    assert told is not None
    assert any(says(item.say, message, tmp_path) for message in told), told


def test_the_page_is_current() -> None:
    assert PAGE.read_text() == page(), "run: python tests/bad_input.py"


def test_a_run_of_several_stops_at_the_first_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"nonsense")
    assert main([str(tmp_path / "bad.onnx"), "--op", "relu:8", *COMMAND, "--out", str(tmp_path / "out")]) == 2
    assert "bad.onnx' is not an ONNX file" in capsys.readouterr().err


@pytest.mark.parametrize("seed", range(4))
def test_damaged_models_are_errors_of_ours_or_models(seed: int) -> None:
    """Cut and flipped bytes: whatever ONNX makes of them, nothing but an AnsorError comes out."""
    rng = np.random.default_rng(seed)
    content = (
        blocks.lstm_cell(4, 4),
        blocks.inverted_residual(4, 6, 2),
        branches(),
        blocks.unet_block(4, 8),
    )[seed][0]
    data = content.SerializeToString()
    refused = 0
    for _ in range(60):
        damaged = bytearray(data)
        if rng.random() < 0.3:
            damaged = damaged[: rng.integers(len(data))]
        else:
            for place in rng.integers(min(len(data), 1500), size=2):  # structure comes first, weights last
                damaged[place] ^= 1 << int(rng.integers(8))
        try:
            partition_model(bytes(damaged))
        except AnsorError:
            refused += 1
    assert refused > 20
