"""What fusion over rows and other algorithms bring: each network with them and without, in turns in one process.

    python experiments/ablation.py resnet50 bert_base --json ablation.json
    python experiments/ablation.py mobilenet_v2 --trials 400 --out runs/ablation

A variant is a kind of fusion and of math; the plain one, `narrow exact`, is what the others are compared with, latency and
results alike. Without trials all have their default schedules, else each is tuned by the command line with the same budget.
Latencies are medians inside native code, where the variants take turns (`time_in_turns`). Exit status 1: results differ.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from ansor_py.errors import AnsorError, ModelError
from ansor_py.graph import CompiledModel, compile, load
from ansor_py.graph.in_place import time_in_turns
from ansor_py.graph.model_tasks import FUSIONS
from ansor_py.graph.plan import kernels_of
from ansor_py.measure.reference import INEXACT_TOLERANCE
from ansor_py.schedule.algorithms import MATH
from ansor_py.search.command_line.settings import free_folder
from ansor_py.target import Target
from light_models import search
from machine import cpu_line, target_option
from networks import Network, network, network_names
from turns import geometric_mean, ratio_text

PLAIN = ("narrow", "exact")
VARIANTS = (PLAIN, *(variant for variant in product(FUSIONS, MATH) if variant != PLAIN))
SIX = ("resnet50", "mobilenet_v2", "squeezenet", "vgg19", "dcgan", "bert_base")


@dataclass(frozen=True)
class Row:
    """One variant of one network: its latency in milliseconds, distinct kernels and calls of a run, the wide kernels and
    algorithms among them, and the largest difference from the plain variant in units of the largest magnitude."""

    network: str
    fusion: str
    math: str
    ms: float
    kernels: int
    calls: int
    wide: int
    algorithms: tuple[str, ...]
    difference: float


@click.command(help=__doc__, context_settings={"max_content_width": 120})
@click.argument("names", nargs=-1, metavar="[NETWORK]...", type=click.Choice(network_names()))
@click.option("--trials", default=0, show_default=True, type=click.IntRange(0), help="Of each variant; 0: default schedules.")
@click.option("--threads", type=click.IntRange(1), help="Threads of a kernel. [default: the target's cores]")
@target_option()
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0))
@click.option("--out", default="runs/ablation", show_default=True, type=click.Path(path_type=Path), help="Models and runs.")
@click.option("--json", "path", type=click.Path(path_type=Path), help="Write the rows here.")
def main(
    names: tuple[str, ...], trials: int, threads: int | None, target: Target, seed: int, out: Path, path: Path | None
) -> None:
    """Compile or tune the variants of each network (default: the six of docs/networks.md), time and compare them."""
    machine = target.with_cores(threads or target.cores)
    rows: list[Row] = []
    try:
        for name in names or SIX:
            rows += rows_of(network(name), machine, {"--trials": trials, "--seed": seed}, out)
            if path is not None:
                path.write_text(
                    json.dumps({"target": str(machine), "trials": trials, "rows": list(map(asdict, rows))}, indent=2)
                )
    except AnsorError as error:
        raise click.ClickException(str(error)) from error
    print(cpu_line(machine))
    Console(width=140, highlight=False).print(table(rows))
    sys.exit(any(row.difference > INEXACT_TOLERANCE for row in rows))


def rows_of(item: Network, target: Target, options: Mapping[str, Any], out: Path) -> list[Row]:
    """The variants of one network. Raises ModelError where the command line fails."""
    models = [variant_of(item, target, fusion, math, options, out) for fusion, math in VARIANTS]
    results = [model.run(item.feed) for model in models]
    seconds = time_in_turns(models)
    return [
        Row(
            network=item.name,
            fusion=fusion,
            math=math,
            ms=1e3 * taken,
            kernels=len(kernels_of(model.plan)),
            calls=len(model.plan.calls),
            wide=sum(choice.wide for choice in model.choices),
            algorithms=tuple(sorted({name for names in model.algorithms.values() for name in names})),
            difference=difference(result, results[0]),
        )
        for (fusion, math), model, result, taken in zip(VARIANTS, models, results, seconds, strict=True)
    ]


def variant_of(item: Network, target: Target, fusion: str, math: str, options: Mapping[str, Any], out: Path) -> CompiledModel:
    """The network with default schedules, or tuned by the command line if the options give trials."""
    if not options["--trials"]:
        return compile(item.model, target=target, threads=target.cores, math=math, fusion=fusion)
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{item.name}.onnx"
    onnx.save(item.model, path)
    folder = free_folder(out, f"{item.name}-{fusion}-{math}")
    words = {**options, "--target": target, "--math": math, "--fusion": fusion, "--out": folder}
    if status := search(path, words):
        raise ModelError(f"the command line ended with status {status} for '{path}'")
    return load(folder / "model.ansor")


def difference(results: Mapping[str, NDArray[Any]], expected: Mapping[str, NDArray[Any]]) -> float:
    """The largest difference of an output, in units of its largest magnitude."""
    return max(
        float(np.max(np.abs(results[name] - array), initial=0.0) / max(np.max(np.abs(array), initial=0.0), 1e-30))
        for name, array in expected.items()
    )


def table(rows: list[Row]) -> Table:
    """A line a variant, and the geometric mean of the gains of each below."""
    shown = Table("network", "fusion", "math", "ms", "gain", "kernels", "calls", "wide", "difference", "algorithms")
    plain = {row.network: row.ms for row in rows if (row.fusion, row.math) == PLAIN}
    for row in rows:
        gain, found = ratio_text(plain[row.network] / row.ms), ", ".join(row.algorithms)
        counts = (str(row.kernels), str(row.calls), str(row.wide))
        shown.add_row(row.network, row.fusion, row.math, f"{row.ms:.3f}", gain, *counts, f"{row.difference:.1e}", found)
    for fusion, math in VARIANTS:
        gains = [plain[row.network] / row.ms for row in rows if (row.fusion, row.math) == (fusion, math)]
        shown.add_row("mean", fusion, math, "", ratio_text(geometric_mean(gains)), "", "", "", "", "")
    return shown


if __name__ == "__main__":
    main()
