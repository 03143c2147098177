"""The demonstration: tune SqueezeNet through Ray in a few minutes, and check that the tuned model computes the right thing.

    python experiments/demo.py --trials 400

The model is `light_squeezenet.onnx` of the installed onnx wheel. Its large weights all hold one constant, so that a wrong
result could pass; they are replaced by seeded random ones. The tuned model is compared with ONNX's own evaluator, at its
output and at the tensor before the softmax (each task's kernel was compared with a naive one while it was measured). The
output that comes with the original weights serves as a smoke check.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, numpy_helper, shape_inference

import ansor_py
from ansor_py.errors import AnsorError, ModelError
from ansor_py.graph.random_weights import find_light_models, randomise_constant_weights
from ansor_py.graph.reference import reference_outputs
from ansor_py.search.progress import milliseconds
from ansor_py.search.settings import free_folder

TOLERANCE = 1e-3  # of the largest magnitude in the tensor
WEIGHT_SEED, INPUT_SEED = 0, 1

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Check:
    """How far a tensor of the tuned model lies from the reference; `variation` is the spread of the reference itself."""

    name: str
    difference: float
    magnitude: float
    variation: float

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


def before_softmax(model: ModelProto) -> str | None:
    """The tensor that the model's last softmax normalises, or None without a softmax."""
    inputs = [node.input[0] for node in model.graph.node if node.op_type == "Softmax"]
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


def compare(name: str, output: NDArray[np.generic], expected: NDArray[np.generic]) -> Check:
    """The check of one tensor."""
    exact, found = np.asarray(expected, dtype=np.float64), np.asarray(output, dtype=np.float64)
    if exact.shape != found.shape:
        return Check(f"{name} has shape {found.shape}, not {exact.shape}", float("nan"), 0.0, 0.0)
    difference = float(np.max(np.abs(exact - found)))
    return Check(name, difference, float(np.max(np.abs(exact))), float(np.std(exact)))


def check_tuned(model: ModelProto, run: Path, threads: int) -> list[Check]:
    """Compare the saved model's output, and the tensor before the softmax under the same schedules, with ONNX's evaluator."""
    name, shape = input_of(model)
    feed = {name: np.random.default_rng(INPUT_SEED).standard_normal(shape, dtype=np.float32)}
    inner = before_softmax(model)
    observed = model if inner is None else with_output(model, inner)
    expected = reference_outputs(observed, feed)
    saved = ansor_py.load(run / "model.ansor").run(feed)
    checks = [compare(f"output '{key}' of model.ansor", value, expected[key]) for key, value in saved.items()]
    if inner is not None:
        outputs = ansor_py.compile(observed, records=run / "records.jsonl", threads=threads).run(feed)
        checks.append(compare(f"tensor '{inner}' before the softmax", outputs[inner], expected[inner]))
    return checks


def check_shipped(path: Path, run: Path, threads: int) -> list[Check]:
    """Smoke check: the model with its original weights and the output that comes with it."""
    shipped = path.with_name(f"{path.stem}_output_0.pb")
    if not shipped.exists():
        return []
    name, shape = input_of(onnx.load(path))
    count = int(np.prod(shape))
    ramp = (np.arange(count).reshape(shape) / count).astype(np.float32)  # what the wheel's own tests feed
    outputs = ansor_py.compile(path, records=run / "records.jsonl", threads=threads).run({name: ramp})
    expected = numpy_helper.to_array(onnx.load_tensor(str(shipped)))
    return [compare("shipped output with the original weights", next(iter(outputs.values())), expected)]


def tune(model: Path, run: Path, trials: int, seed: int, runner: str, threads: int | None) -> int:
    """Run the command line, as a user would; returns its exit status."""
    options = {"--trials": trials, "--seed": seed, "--runner": runner, "--out": run}
    if threads is not None:
        options["--threads"] = threads
    words = [str(word) for pair in options.items() for word in pair]
    print("$ python -m ansor_py.search", model, *words, flush=True)
    return subprocess.run([sys.executable, "-m", "ansor_py.search", str(model), *words], check=False).returncode


def demonstrate(name: str, out: Path, trials: int, seed: int, runner: str, threads: int | None) -> int:
    """Tune, report, check; returns the exit status."""
    found = find_light_models()
    if name not in found:
        raise ModelError(f"the installed onnx wheel has no light model '{name}'; it has {', '.join(found) or 'none'}")
    out.mkdir(parents=True, exist_ok=True)
    model = randomise_constant_weights(onnx.load(found[name]), WEIGHT_SEED)
    path, run = out / f"{name}.onnx", free_folder(out, "run")
    onnx.save(model, path)
    status = tune(path, run, trials, seed, runner, threads)
    if not (run / "summary.json").exists():
        return status or 1
    summary = json.loads((run / "summary.json").read_text())
    checks = check_tuned(model, run, summary["threads"]) + check_shipped(found[name], run, summary["threads"])
    print(f"untuned latency {milliseconds(summary['untuned_latency_ms'] / 1e3)}")
    print(f"tuned latency   {milliseconds(summary['tuned_latency_ms'] / 1e3)}")
    print("seconds by phase:", ", ".join(f"{phase} {seconds:.1f}" for phase, seconds in summary["phases"].items()))
    print(f"trials a second {summary['trials_per_second']}, programs scored a second {summary['programs_scored_per_second']}")
    print(f"search curve: {run / 'curve.csv'}  (plot: python experiments/plot_curve.py {run})")
    print(f"tuned model:  {run / 'model.ansor'}")
    for check in checks:
        print(check)
    return status if all(check.passed for check in checks) else 1


@click.command()
@click.option("--model", default="squeezenet", show_default=True, help="Which light model of the onnx wheel.")
@click.option("--trials", type=click.IntRange(min=0), default=400, show_default=True)
@click.option("--threads", type=click.IntRange(min=1), help="Threads of a kernel. [default: one for each core]")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--runner", default="ray", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/demo"), show_default=True)
def main(model: str, trials: int, threads: int | None, seed: int, runner: str, out: Path) -> None:
    """Tune a model, print its latency before and after, and check its output."""
    try:
        status = demonstrate(model, out, trials, seed, runner, threads)
    except AnsorError as error:
        print(f"error: {error}", file=sys.stderr)
        status = 2
    sys.exit(status)


if __name__ == "__main__":
    main()
