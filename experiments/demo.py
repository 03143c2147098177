"""The demonstration: tune SqueezeNet through Ray in a few minutes, and check that the tuned model computes the right thing.

    python experiments/demo.py --trials 400

The model is `light_squeezenet.onnx` of the installed onnx wheel. Its large weights all hold one constant, so that a wrong
result could pass; they are replaced by seeded random ones. The tuned model is compared with ONNX's own evaluator: at its
output, at the tensor before the softmax, and after every kernel. The output that comes with the original weights serves as
a smoke check. `experiments/bench_phases.py` makes the table of where the seconds went.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click
import onnx

from ansor_py.errors import AnsorError
from ansor_py.search.command_line.progress import milliseconds
from ansor_py.search.command_line.settings import free_folder
from ansor_py.target import Target
from light_models import Check, Checker, check_shipped, light_model, search, summarised
from machine import cpu_line, target_option


def demonstrate(name: str, out: Path, trials: int, seed: int, runner: str, target: Target) -> int:
    """Tune, report, check; returns the exit status."""
    light = light_model(name)
    out.mkdir(parents=True, exist_ok=True)
    path, run = out / f"{name}.onnx", free_folder(out, "run")
    onnx.save(light.model, path)
    print(cpu_line(target))
    status = search(path, {"--trials": trials, "--seed": seed, "--runner": runner, "--out": run, "--target": target})
    if not (run / "model.ansor").exists():
        return status or 1
    summary = json.loads((run / "summary.json").read_text())
    print(f"untuned latency {milliseconds(summary['untuned_latency_ms'] / 1e3)}")
    print(f"tuned latency   {milliseconds(summary['tuned_latency_ms'] / 1e3)}")
    print("seconds by phase:", ", ".join(f"{phase} {seconds:.1f}" for phase, seconds in summary["phases"].items()))
    print(f"trials a second {summary['trials_per_second']}, programs scored a second {summary['programs_scored_per_second']}")
    print(f"search curve: {run / 'curve.csv'}  (plot: python experiments/plot_curve.py {run})")
    print(f"tuned model:  {run / 'model.ansor'}")
    checks = check_run(light.path, Checker(light.model), run, target)
    for check in checks:
        print(check)
    return status if all(check.passed for check in checks) else 1


def check_run(original: Path, checker: Checker, run: Path, target: Target) -> list[Check]:
    """What is compared: the saved model, the tensor before the softmax, every kernel's result, the shipped output."""
    records = run / "records.jsonl"
    inside = checker.check_tasks(records, target)
    last = [check for check in inside if check.name == checker.inner]
    return [
        *checker.check_saved(run / "model.ansor"),
        *[summarised("tensor before the softmax", last) for _ in last],
        summarised("results of all kernels", inside),
        *check_shipped(original, records, target),
    ]


@click.command()
@click.option("--model", default="squeezenet", show_default=True, help="Which light model of the onnx wheel.")
@click.option("--trials", type=click.IntRange(min=0), default=400, show_default=True)
@target_option()
@click.option("--threads", type=click.IntRange(min=1), help="Threads of a kernel. [default: the target's cores]")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--runner", default="ray", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/demo"), show_default=True)
def main(model: str, trials: int, target: Target, threads: int | None, seed: int, runner: str, out: Path) -> None:
    """Tune a model, print its latency before and after, and check its output."""
    try:
        status = demonstrate(model, out, trials, seed, runner, target.with_cores(threads or target.cores))
    except AnsorError as error:
        print(f"error: {error}", file=sys.stderr)
        status = 2
    sys.exit(status)


if __name__ == "__main__":
    main()
