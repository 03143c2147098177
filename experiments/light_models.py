"""The light models of the onnx wheel with random weights: making, tuning and checking them.

    light = light_model("squeezenet")
    onnx.save(light.model, "squeezenet.onnx")
    search("squeezenet.onnx", {"--trials": 200, "--out": "runs/x"})
    for check in Checker(light.model).check_tasks("runs/x/records.jsonl", Target.detect()):
        print(check)

All large weights of these models hold one constant, so that a wrong result could pass; here they are replaced by seeded
random ones. Every check is against ONNX's own evaluator. A sibling module of the scripts in this folder.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, numpy_helper, shape_inference

import ansor_py
from ansor_py.errors import ModelError
from ansor_py.graph import compile_partition, partition_model
from ansor_py.graph.compilation import Records
from ansor_py.graph.random_weights import find_light_models, randomise_constant_weights
from ansor_py.graph.reference import reference_outputs
from ansor_py.target import Target

TOLERANCE = 1e-3  # of the largest magnitude in the tensor
WEIGHT_SEED, INPUT_SEED = 0, 1

Array = NDArray[np.generic]


@dataclass(frozen=True)
class LightModel:
    """A light model with random weights, and the file of the one that the wheel has."""

    name: str
    path: Path
    model: ModelProto


def light_model(name: str) -> LightModel:
    """The light model of this short name with random weights. Raises ModelError when the wheel has none."""
    found = find_light_models()
    if name not in found:
        raise ModelError(f"the installed onnx wheel has no light model '{name}'; it has {', '.join(found) or 'none'}")
    return LightModel(name, found[name], with_constant_weights(randomise_constant_weights(onnx.load(found[name]), WEIGHT_SEED)))


def with_constant_weights(model: ModelProto) -> ModelProto:
    """The model with weights that are no inputs: one of before IR version 4 lists them, and engines must then not fold them."""
    changed = ModelProto()
    changed.CopyFrom(model)
    changed.ir_version = max(model.ir_version, 4)
    weights = {tensor.name for tensor in model.graph.initializer}
    del changed.graph.input[:]
    changed.graph.input.extend([info for info in model.graph.input if info.name not in weights])
    return changed


@dataclass(frozen=True)
class Check:
    """How far a tensor lies from the reference; `variation` is the standard deviation of the reference itself."""

    name: str
    difference: float
    magnitude: float
    variation: float

    @property
    def relative(self) -> float:
        """The largest difference in units of the largest magnitude."""
        return self.difference / self.magnitude if self.magnitude else self.difference

    @property
    def passed(self) -> bool:
        """Whether every element is within the tolerance."""
        return bool(np.isfinite(self.difference)) and self.difference <= TOLERANCE * self.magnitude

    def __str__(self) -> str:
        word = "correct" if self.passed else "WRONG"
        return (
            f"{word}: {self.name}, largest difference {self.difference:.2e} "
            f"where values reach {self.magnitude:.2e} (standard deviation {self.variation:.2e})"
        )


def compare(name: str, output: Array, expected: Array) -> Check:
    """The check of one tensor."""
    exact, found = np.asarray(expected, dtype=np.float64), np.asarray(output, dtype=np.float64)
    if exact.shape != found.shape:
        return Check(f"{name} has shape {found.shape}, not {exact.shape}", float("nan"), 0.0, 0.0)
    if exact.size == 0:
        return Check(name, 0.0, 0.0, 0.0)
    return Check(name, float(np.max(np.abs(exact - found))), float(np.max(np.abs(exact))), float(np.std(exact)))


def worst(checks: Sequence[Check]) -> Check:
    """The check that failed, or came closest to failing."""
    return max(checks, key=lambda check: (not check.passed, check.relative))


def summarised(what: str, checks: Sequence[Check]) -> Check:
    """Many checks as one: the worst of them under another name."""
    return replace(worst(checks), name=f"{what} ({len(checks)} tensors; the worst is '{worst(checks).name}')")


class Checker:
    """Compares a model with ONNX's evaluator (which runs once): outputs, the tensor before the softmax, kernels' results.

    `feed` is by default random values for the one input. With `single`, the same network for a batch of one, the evaluator runs
    that on one sample after the other; what has another shape in the batch is then not compared, outputs excepted.
    """

    def __init__(self, model: ModelProto, feed: Mapping[str, Array] | None = None, single: ModelProto | None = None) -> None:
        self.feed = dict(feed) if feed is not None else random_feed(model)
        self.inner = before_softmax(model)
        parts = self._parts = partition_model(model if self.inner is None else with_output(model, self.inner))
        known = {output for node in model.graph.node for output in node.output}
        self.outputs = [info.name for info in model.graph.output]
        self.results = [subgraph.output for subgraph in parts.subgraphs if subgraph.output in known]
        names = list(dict.fromkeys([*parts.graph.outputs, *self.results]))
        if single is None:
            self.expected = reference_outputs(model, self.feed, names)
        else:
            self.expected = outputs_by_sample(single, self.feed, names)
            shapes = {name: parts.graph.values[name].shape for name in self.results}
            self.results = [name for name in self.results if self.expected[name].shape == shapes[name]]

    def check_tasks(self, records: Records | None, target: Target, math: str = "exact") -> list[Check]:
        """What every kernel call computes, and the tensor before the softmax, under the best schedules of the records: those of
        the narrow partition, and of the wide one if it has others."""
        checks = []
        for wide in (False, True) if self._parts.choices else (False,):
            parts = self._parts.closed(choice.key for choice in self._parts.choices if wide)
            computed = {subgraph.output for subgraph in parts.subgraphs}
            results = [value for value in self.results if value in computed]
            parts = replace(parts, graph=replace(parts.graph, outputs={**parts.graph.outputs, **{v: v for v in results}}))
            found = compile_partition(parts, records, target.cores, target, math=math).run(self.feed)
            names = dict.fromkeys([*results, *([self.inner] if self.inner is not None else [])])
            checks += [compare(name, found[name], self.expected[name]) for name in names]
        return checks

    def check_saved(self, path: Path) -> list[Check]:
        """The outputs of a saved model."""
        found = ansor_py.load(path).run(self.feed)
        return [compare(f"output '{name}' of {path.name}", found[name], self.expected[name]) for name in self.outputs]


def check_shipped(path: Path, records: Records | None, target: Target, math: str = "exact") -> list[Check]:
    """Smoke check: a model of the wheel with its original weights against the output that comes with it, if one does."""
    shipped = path.with_name(f"{path.stem}_output_0.pb")
    if not shipped.exists():
        return []
    name, shape = input_of(onnx.load(path))
    count = int(np.prod(shape))
    ramp = (np.arange(count).reshape(shape) / count).astype(np.float32)  # what the wheel's own tests feed
    compiled = ansor_py.compile(path, records=records, threads=target.cores, target=target, math=math)
    outputs = compiled.run({name: ramp})
    expected = numpy_helper.to_array(onnx.load_tensor(str(shipped)))
    return [compare("shipped output with the original weights", next(iter(outputs.values())), expected)]


def random_feed(model: ModelProto) -> dict[str, Array]:
    """Normal values for the one input, always the same ones."""
    name, shape = input_of(model)
    return {name: np.random.default_rng(INPUT_SEED).standard_normal(shape, dtype=np.float32)}


def outputs_by_sample(single: ModelProto, feed: Mapping[str, Array], names: Sequence[str]) -> dict[str, Array]:
    """Values of a network for a batch of one, evaluated for every sample of a feed and joined along the first axis."""
    samples = len(next(iter(feed.values())))
    found = [
        reference_outputs(single, {name: array[index : index + 1] for name, array in feed.items()}, names)
        for index in range(samples)
    ]
    return {name: np.concatenate([np.atleast_1d(values[name]) for values in found]) for name in names}


def before_softmax(model: ModelProto) -> str | None:
    """The tensor that a softmax turns into an output of the model, the last of them; None where no output is a softmax's."""
    outputs = {info.name for info in model.graph.output}
    inputs = [node.input[0] for node in model.graph.node if node.op_type == "Softmax" and node.output[0] in outputs]
    return inputs[-1] if inputs else None


def with_output(model: ModelProto, name: str) -> ModelProto:
    """The model with one more output."""
    more = shape_inference.infer_shapes(model)
    more.graph.output.extend([info for info in more.graph.value_info if info.name == name])
    return more


def input_of(model: ModelProto) -> tuple[str, tuple[int, ...]]:
    """Name and shape of the one input that is not a weight."""
    weights = {tensor.name for tensor in model.graph.initializer}
    [info] = [info for info in model.graph.input if info.name not in weights]
    return info.name, tuple(dimension.dim_value or 1 for dimension in info.type.tensor_type.shape.dim)


def search(model: Path, options: Mapping[str, Any]) -> int:
    """Run the command line on a model, as a user would; options that are None are left out. Returns its exit status."""
    words = [str(word) for name, value in options.items() if value is not None for word in (name, value)]
    print("$ python -m ansor_py.search", model, *words, flush=True)
    return subprocess.run([sys.executable, "-m", "ansor_py.search", str(model), *words], check=False).returncode
