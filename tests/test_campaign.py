"""A hundred mutations each of models, records, schedules, compiled models, batch files: an error of ours, or a right result."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import AttributeProto, ModelProto, helper

from ansor_py.errors import AnsorError, ModelError
from ansor_py.graph import compile
from ansor_py.search.__main__ import main
from campaign import MUTATED, SEEDS, HangError, WrongError, check_line, outcome_of
from graph_interpreter import floats, make_model
from mutations import FAMILIES
from operator_runs import operator_model

# Seconds after which a family is taken to hang; every mutation has a limit of its own, which is said with its seed.
LONGEST = 280


@pytest.mark.parametrize("family", FAMILIES)
def test_mutations_are_refused_in_one_line_or_give_right_results(family: str) -> None:
    """In a process of its own: a signal ends that one, and the last seed that it printed is the one to look at."""
    words = [sys.executable, str(Path(__file__).with_name("campaign.py")), family, "0", str(SEEDS)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=LONGEST, env={**os.environ, "OMP_NUM_THREADS": "1"})
    seeds = re.findall(r"^seed (\d+)$", done.stdout, re.MULTILINE)
    last = f"the last seed of '{family}' is {seeds[-1] if seeds else None}"
    faults = re.findall(r"^FAULT .*?(?=^seed |\Z)", done.stdout, re.MULTILINE | re.DOTALL)
    assert not faults, "\n".join(faults)
    assert done.returncode == 0, f"{last}; exit status {done.returncode}\n{done.stderr[-4000:]}"
    assert len(seeds) == SEEDS, last
    counts = Counter(re.findall(r"^(refused|right|unjudged)$", done.stdout, re.MULTILINE))
    assert counts.total() == SEEDS
    assert counts["refused"], counts  # they are mutations
    assert counts["right"] or family == "archives", counts  # which every byte of is hashed


def test_the_page_lists_every_family() -> None:
    assert list(MUTATED) == list(FAMILIES)


def raising(error: BaseException) -> Callable[..., str]:
    def check(*_: object) -> str:
        raise error

    return check


def test_the_campaign_finds_what_it_looks_for() -> None:
    for error in (ValueError("deep inside"), WrongError("1 and 2"), HangError("no answer"), SystemExit(0), MemoryError()):
        assert type(error).__name__ in outcome_of(raising(error), "models", 0)
    assert outcome_of(raising(AnsorError("one line")), "models", 0) == "refused"
    assert "\n" in outcome_of(raising(AnsorError("")), "models", 0)
    with pytest.raises(WrongError):
        check_line("two\nlines")


# What campaigns of thousands of seeds have found, by its kind.


def one_node(op_type: str, *inputs: np.ndarray | None, opset: int = 17, **attributes: object) -> ModelProto:
    return operator_model(op_type, inputs, opset, **attributes)


IMAGE = floats(1, 4, 7, 8)
BYTES = np.arange(64, dtype=np.uint8).reshape(8, 8)
PLACES = np.zeros((5, 1), np.int64)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (one_node("ReduceMax", floats(2, 3), keepdims=2), "its attribute 'keepdims' is 2; it must be 0 or 1"),
        (one_node("Mod", floats(2, 3), floats(3), fmod=-9), "its attribute 'fmod' is -9; it must be 0 or 1"),
        (one_node("LpNormalization", floats(2, 3), p=3), "'p' is 3; it must be 1 or 2"),
        (one_node("Div", floats(2) > 0, floats(2) > 0), "its input 'x0' is bool, which the operator does not take; cast it"),
        (one_node("Clip", floats(3, 4), floats(4)), "'min' has the shape [4]; it must be a scalar"),
        (one_node("Cast", floats(2), to=0), "operator Cast, opset 17"),
        (
            one_node("MaxPool", IMAGE, kernel_shape=[3, 3], auto_pad="SAME_UPPER", dilations=[1, 1, 1]),
            "Attribute dilations has incorrect size",
        ),
        (
            one_node("AveragePool", IMAGE, kernel_shape=[3, 3], auto_pad="SAME_UPPER", strides=[0, 1]),
            "Attribute strides must only contain positive values",
        ),
        (one_node("SpaceToDepth", IMAGE, blocksize=2**31 - 1), "operator SpaceToDepth, opset 17"),
        # Without these checks ONNX's inference ends the process by a signal.
        (one_node("GatherND", IMAGE, PLACES, batch_dims=-2), "'batch_dims' is -2; it must lie between 0 and 63"),
        (one_node("LayerNormalization", IMAGE, floats(8), axis=2**31), "'axis' is 2147483648; it must lie between -64 and 63"),
        (one_node("Transpose", IMAGE, perm=[0, 1, 2, 2**40]), "'perm' is 1099511627776; it must lie between -64 and 63"),
        # Without these a kernel reads elements that do not exist.
        (one_node("GatherND", IMAGE, PLACES, batch_dims=1), "batch dimensions need equal extents"),
        (one_node("GatherND", IMAGE, PLACES, batch_dims=2), "'batch_dims' is 2; it must lie between 0 and 1"),
        (
            one_node("GatherElements", floats(3, 2), np.zeros((3, 5), np.int64)),
            "more indices than data along another axis than 0",
        ),
        (one_node("DequantizeLinear", BYTES, floats(2, 8), None, opset=21, axis=0, block_size=2), "must have the shape [4, 8]"),
        # These were computed as if the axis was another.
        (one_node("RMSNormalization", floats(2, 3), floats(3), opset=23, axis=5), "axis 5 does not exist in 2 dimensions"),
        (one_node("ReverseSequence", floats(3, 3), np.array([1, 2, 3]), time_axis=1), "are both 1; they must differ"),
    ],
)
def test_attributes_and_dtypes_beyond_the_standard(model: ModelProto, words: str) -> None:
    with pytest.raises(AnsorError) as caught:
        compile(model, threads=1, workers=0)
    assert words in str(caught.value)
    check_line(str(caught.value))


def test_an_attribute_that_is_given_twice() -> None:
    model = one_node("Softmax", floats(2, 3), axis=0)
    model.graph.node[0].attribute.add(name="axis", i=1, type=model.graph.node[0].attribute[0].type)
    with pytest.raises(ModelError, match=r"node 'node' \(operator Softmax, opset 17\) has its attribute 'axis' twice"):
        compile(model, threads=1, workers=0)


def test_a_value_to_pad_with_is_one_number() -> None:
    node = helper.make_node("Pad", ["x", "widths", "value"], ["y"], name="node")
    model = make_model([node], {"x": floats(3), "value": floats(2)}, ["y"], {"widths": np.array([1, 1])})
    with pytest.raises(AnsorError, match=r"its value has the shape \[2\]; it must be a scalar"):
        compile(model, threads=1, workers=0)


def test_reductions_over_an_empty_list_of_axes_are_scalars() -> None:
    node = helper.make_node("ReduceMax", ["x"], ["y"], keepdims=0)
    node.attribute.append(AttributeProto(name="axes", type=AttributeProto.INTS))
    x = floats(3, 4)
    got = compile(make_model([node], {"x": x}, ["y"]), threads=1, workers=0).run({"x": x})["y"]
    np.testing.assert_array_equal(got, x.max(), strict=True)


def test_optional_inputs_that_are_left_out_at_the_end_of_old_nodes() -> None:
    x, y = floats(2, 3), np.abs(floats(2, 3, seed=1))
    model = make_model([helper.make_node("Add", ["x", "y"], ["z"])], {"x": x, "y": y}, ["z"], opset=5)
    model.graph.node[0].input.append("")
    np.testing.assert_allclose(compile(model, threads=1, workers=0).run({"x": x, "y": y})["z"], x + y)


@pytest.mark.parametrize("to", [b"\xff\xfe", b"nothing"])
def test_dtypes_by_name_that_are_none(to: bytes) -> None:
    model = one_node("Cast", floats(2), opset=5, to="FLOAT")
    model.graph.node[0].attribute[0].s = to
    with pytest.raises(ModelError, match="there is no dtype"):
        compile(model, threads=1, workers=0)


@pytest.mark.parametrize("scale", [np.inf, np.nan, -1.0])
def test_scales_that_are_no_scales(scale: float) -> None:
    node = helper.make_node("Resize", ["x", "", "scales"], ["y"], name="node")
    model = make_model([node], {"x": IMAGE}, ["y"], {"scales": np.array([1, 1, scale, 2], np.float32)})
    with pytest.raises(AnsorError, match="node"):
        compile(model, threads=1, workers=0)


def test_known_inputs_for_which_an_operator_has_no_meaning() -> None:
    constants = {"c": floats(3), "axes": np.array([5])}
    nodes = [helper.make_node("Unsqueeze", ["c", "axes"], ["u"], name="node"), helper.make_node("Add", ["x", "u"], ["y"])]
    with pytest.raises(ModelError, match=r"node 'node' \(operator Unsqueeze, opset 17\)"):
        compile(make_model(nodes, {"x": floats(3)}, ["y"], constants), threads=1, workers=0)


@pytest.mark.parametrize("version", [0, -1, 2**31, 2**62])
def test_versions_that_no_operator_has(version: int) -> None:
    model = one_node("Relu", floats(2))
    model.opset_import.add(domain="ai.onnx.ml", version=version)
    with pytest.raises(ModelError, match=f"imports the operator set 'ai.onnx.ml' in version {version}; versions begin with 1"):
        compile(model, threads=1, workers=0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('trials = "many"', "option 'trials' must be a whole number, not 'many'"),
        ("trials = [1, 2]", "option 'trials' must be a whole number, not [1, 2]"),
        ("trials = 1.5", "option 'trials' must be a whole number, not 1.5"),
        ("trials = true", "option 'trials' must be a whole number, not True"),
        ("policy = ['random']", "option 'policy' must be a text, not ['random']"),
        ("together = 'yes'", "option 'together' must be true or false, not 'yes'"),
        ("op = [1, ['a']]", "option 'op' must be a text, not ['a']"),
        ("out = 1979-05-27", "option 'out' must be a text, not datetime.date(1979, 5, 27)"),
        ("[search]\npopulation = 'x'", "search option 'population' must be a whole number, not 'x'"),
    ],
)
def test_batch_file_options_of_the_wrong_kind(
    text: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "batch.toml").write_text(text)
    assert main(["--op", "relu:8", "--runner", "simulated", "--config", str(tmp_path / "batch.toml")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert words in said
