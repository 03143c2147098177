"""Networks beside other engines: seconds to compile, latency untuned and tuned, and a check of the results.

    python experiments/bench_networks.py --batch 1 16 --trials 1000 --json networks.json --markdown docs/networks.md
    python experiments/bench_networks.py dcgan resnet50 --minutes 15 --peers ort --busy 1 --target "host cpu=haswell"

The networks are those of `networks.py`; all that need no download, unless some are named. Each is compiled by the command line
with `--trials 0`, then tuned by it until the trials or the minutes are over, and what it has saved takes turns with PyTorch,
ONNX Runtime and OpenVINO (`turns.py`): plain calls first, calls in place and ours inside native code beside them, and N busy
processes during the turns with `--busy N`. Before and after tuning, the outputs, the tensor before the softmax and every
kernel's result are compared with ONNX's own evaluator, and the peers' results are too; while tuning, every measured program's
result is compared with that of a naive kernel. The JSON file is written after every network, and a run that finds one goes on
where it ended. The peers are in the `bench` extra. Exit status 1: something was wrong.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import onnx
from rich.console import Console

from ansor_py.errors import AnsorError, ModelError, OptionError
from ansor_py.graph import load
from ansor_py.graph.model_tasks import FUSIONS
from ansor_py.graph.plan import kernels_of
from ansor_py.search.command_line.settings import free_folder
from contenders import OURS, PEERS
from light_models import Check, Checker, check_shipped, search, worst
from machine import add_math_option, add_target_option, cpu_line
from markdown_page import split_sections, text_of
from network_report import Row, document, draw, means, page, rows_of, terminal_table
from networks import BatchError, Network, network, network_names
from real_models import MODELS
from turns import NOT_INSTALLED, add_turn_options, contest, count, ratio_text, rules_of

INTERRUPTED = 130  # exit status, as a shell has it


def measure(item: Network, options: argparse.Namespace) -> Row:
    """Compile, tune, check and time one network; the tuned run stays. Raises ModelError where the command line fails."""
    out, target, title = options.out, options.target, f"{item.name}-{item.batch}"
    path = out / f"{title}.onnx"
    onnx.save(item.model, path)
    checker = Checker(item.model, item.feed, network(item.name).model if item.batch > 1 else None)
    words = {"--target": target, "--seed": options.seed, "--math": options.math, "--fusion": options.fusion}
    began = time.monotonic()
    plain = _run(path, free_folder(out, f"{title}-untuned"), {**words, "--trials": 0})
    command_seconds = time.monotonic() - began
    before = [*checker.check_saved(plain.model), *checker.check_tasks(None, target, options.math)]
    shipped = check_shipped(item.original, None, target, options.math) if item.original is not None else []
    tuned, after = None, list[Check]()
    if options.trials:
        budget = None if options.minutes is None else f"{options.minutes}m"
        more = {"--trials": options.trials, "--time-budget": budget, "--runner": options.runner}
        tuned = _run(path, free_folder(out, f"{title}-tuned"), {**words, **more})
        records = tuned.path / "records.jsonl" if tuned.summary["trials"] else None  # the time may be over before any
        after = [*checker.check_saved(tuned.model), *checker.check_tasks(records, target, options.math)]
    plan = load(plain.model).plan
    row = Row(
        network=item.name,
        batch=item.batch,
        nodes=len(item.model.graph.node),
        tasks=len(kernels_of(plan)),
        calls=len(plan.calls),
        compile_seconds=round(sum(plain.summary["phases"][name] for name in ("import", "compile")), 2),
        command_seconds=round(command_seconds, 2),
        untuned_ms=(tuned or plain).summary["untuned_latency_ms"],
        tuned_ms=tuned.summary["tuned_latency_ms"] if tuned else None,
        search_seconds=tuned.summary["search_seconds"] if tuned else None,
        trials=tuned.summary["trials"] if tuned else 0,
        failed_trials=tuned.summary["errors"] if tuned else {},
        tensors=len(before),
        difference_untuned=worst(before).relative,
        difference_tuned=worst(after).relative if after else None,
        shipped=all(check.passed for check in shipped) if shipped else None,
        correct=all(check.passed for check in (*before, *after, *shipped)),
    )
    expected = checker.expected[checker.outputs[0]]
    contest(row, (tuned or plain).model, path, checker.feed, expected, target, rules_of(options))
    path.unlink()
    plain.model.unlink()
    return row


@dataclass(frozen=True)
class _Run:
    path: Path
    summary: dict[str, Any]

    @property
    def model(self) -> Path:
        return self.path / "model.ansor"


def _run(model: Path, folder: Path, options: dict[str, Any]) -> _Run:
    status = search(model, {**options, "--out": folder})
    if status:
        raise ModelError(f"the command line ended with status {status} for '{model}'")
    return _Run(folder, json.loads((folder / "summary.json").read_text()))


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options of the command line."""
    known = [*network_names(), *(model.name for model in MODELS)]
    parser = argparse.ArgumentParser(description="Compile, tune, check and time networks beside other engines.")
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help=f"{', '.join(known)} [default: what needs no download]")
    parser.add_argument("--batch", type=_extent, nargs="+", default=[1], metavar="N", help="batch sizes")
    parser.add_argument("--trials", type=count, default=200, help="of each network; 0: untuned only")
    parser.add_argument("--minutes", type=float, metavar="M", help="end a search after so long [default: when trials are over]")
    add_target_option(parser)
    add_math_option(parser)
    parser.add_argument("--fusion", choices=FUSIONS, default="wide", help="narrow: no kernel takes the place of several")
    parser.add_argument("--threads", type=_extent, help="threads of a kernel [default: the target's cores]")
    add_turn_options(parser, tuple(PEERS))
    parser.add_argument("--seed", type=count, default=0)
    parser.add_argument("--runner", default="process", help="what measures the trials")
    parser.add_argument("--out", type=Path, default=Path("runs/networks"), help="models and runs")
    parser.add_argument("--json", type=Path, help="write the rows here; those that are there are not measured again")
    parser.add_argument("--markdown", type=Path, help="write the table as a page here")
    parser.add_argument("--chart", type=Path, help="write a bar chart here (PNG)")
    parser.add_argument("--note", default="", help="a remark on the measurement, for the page")
    options = parser.parse_args(arguments)
    for name in options.networks:
        if name not in known:
            parser.error(f"there is no network '{name}'; known are {', '.join(known)}")
    if options.chart is not None and importlib.util.find_spec("matplotlib") is None:
        parser.error("--chart needs matplotlib; install it with: pip install matplotlib")
    options.networks = options.networks or network_names()
    options.target = options.target.with_cores(options.threads or options.target.cores)
    return options


def _extent(text: str) -> int:
    """A number of at least one from the command line."""
    if not count(text):
        raise argparse.ArgumentTypeError("'0' is too few; give 1 or more")
    return int(text)


def settings_of(options: argparse.Namespace) -> dict[str, Any]:
    """What a row depends on, beside the network and its batch size."""
    names = ("trials", "minutes", "seed", "runner", "peers", "rounds", "seconds", "busy", "math", "fusion")
    return {"target": str(options.target), **{name: getattr(options, name) for name in names}}


def measured_before(options: argparse.Namespace) -> list[Row]:
    """The rows of the JSON file, if there is one. Raises OptionError where it was measured with other settings."""
    if options.json is None or not options.json.exists():
        return []
    asked = settings_of(options)
    try:
        found = json.loads(options.json.read_text())
        settings = {"math": "exact", "fusion": "narrow", **found["settings"]}  # what there was before them
    except (ValueError, TypeError, KeyError) as error:
        raise OptionError(f"'{options.json}' is not a file of this study; name another file") from error
    if other := [f"{name} {settings.get(name)}" for name in asked if settings.get(name) != asked[name]]:
        raise OptionError(f"'{options.json}' was measured with {', '.join(other)}; name another file or ask for the same")
    return rows_of(found)


def write(rows: Sequence[Row], options: argparse.Namespace) -> None:
    """Write the files that are asked for."""
    target, rules = options.target, rules_of(options)
    if options.json is not None:
        options.json.write_text(json.dumps(document(rows, target, rules, settings_of(options)), indent=2) + "\n")
    if options.markdown is not None:
        _, *others = split_sections(text_of(options.markdown))  # sections by other scripts
        text = page(rows, options.trials, options.minutes, target, rules, options.note)
        options.markdown.write_text("\n".join([text, *others]), encoding="utf-8")
    if options.chart is not None:
        draw(rows, target, rules, options.chart)


def main() -> int:
    """Compile, tune, check and time; returns the exit status."""
    options = parse(sys.argv[1:])
    target, rules = options.target, rules_of(options)
    try:
        rows = measured_before(options)
    except OptionError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    failed: list[str] = []
    options.out.mkdir(parents=True, exist_ok=True)
    status = 0
    try:
        for name, batch in product(options.networks, options.batch):
            if any((row.network, row.batch) == (name, batch) for row in rows):
                print(f"{name}, batch {batch}: measured before", file=sys.stderr)
                continue
            try:
                row = measure(network(name, batch), options)
            except BatchError as error:
                print(f"left out: {error}", file=sys.stderr)
                continue
            except AnsorError as error:
                failed.append(name)
                print(f"error: {name}, batch {batch}: {error}", file=sys.stderr)
                continue
            rows.append(row)
            for contender, note in row.notes.items():
                if note != NOT_INSTALLED:
                    print(f"{name}, batch {batch}: {contender}: {note}", file=sys.stderr)
            write(rows, options)
    except KeyboardInterrupt:
        status = INTERRUPTED
    write(rows, options)
    print(cpu_line(target, busy=rules.busy))
    console = Console(width=200, highlight=False)
    console.print(terminal_table(rows, rules.peers))
    for size, averages in means(rows, rules.peers).items():
        console.print(f"batch {size}:", "; ".join(f"{name} {ratio_text(mean)}" for name, mean in averages.items()))
    return status or int(bool(failed) or not all(row.correct and OURS in row.ms for row in rows))


if __name__ == "__main__":
    sys.exit(main())
