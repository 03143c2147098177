"""The command line: models and operators in, a run directory for each out.

    python -m ansor_py.search squeezenet.onnx --trials 400 --threads 2 --out runs/squeezenet
    python -m ansor_py.search --op matmul:512,512,512 --trials 128 --threads 1

What the user got wrong is one line on stderr and exit status 2. Ctrl-C stops measuring, keeps what was measured, still
writes the complete run directory, and gives exit status 130.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.text import Text

from ansor_py import __version__
from ansor_py.errors import AnsorError, ModelError, OptionError
from ansor_py.search.settings import folder_names, free_folder, parse_search_options, parse_shapes, read_batch_file

if TYPE_CHECKING:
    from ansor_py.graph import CompiledModel
    from ansor_py.graph.partition import Partition
    from ansor_py.schedule.task import Task
    from ansor_py.search.phases import PhaseTimer
    from ansor_py.search.results import TuningResult
    from ansor_py.search.run_directory import RunDirectory
    from ansor_py.search.tuning_options import TuningOptions
    from ansor_py.target import Target

USAGE_ERROR, INTERRUPTED = 2, 130
BENCHMARK_SECONDS = 1.0  # for each of the untuned and the tuned model, within the limits below
BENCHMARK_LIMIT_SECONDS = 8.0  # after which no further turn begins
BENCHMARK_TURNS, FEWEST_REPEATS, MOST_REPEATS = 5, 1, 20  # repeats a turn


@dataclass(frozen=True)
class Settings:
    """What the options of a run mean. `config` is what `config.json` says of them."""

    target: Target
    runner: str
    tuning: TuningOptions
    shapes: Mapping[str, int | Sequence[int]]
    fallback: bool
    resume: bool
    config: Mapping[str, Any]


class SearchCommand(click.Command):
    """The command with the list of operators below its help."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the operators with their syntax."""
        from ansor_py.te.ops.registry import operators

        with formatter.section("Operators for --op (extents, then options)"):
            for item in operators().values():
                formatter.write_text(item.signature)
                with formatter.indentation():
                    formatter.write_text(item.help)


def _use_batch_file(ctx: click.Context, parameter: click.Parameter, path: str | None) -> str | None:
    if path is not None:
        known = [p.name for p in ctx.command.params if p.name and p.name not in ("config", "help", "version")]
        ctx.default_map = read_batch_file(path, known)
    return path


@click.command(cls=SearchCommand, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.argument("models", nargs=-1, metavar="[MODEL.onnx]...")
@click.option("--op", multiple=True, metavar="SPEC", help="Tune a single operator, such as matmul:512,512,512 (see below).")
@click.option(
    "--config", metavar="FILE.toml", is_eager=True, callback=_use_batch_file, help="Read options from a file; keys as here."
)
@click.option("--trials", type=int, default=256, show_default=True, help="Measured candidates a run; 0: default schedules.")
@click.option("--threads", type=int, metavar="T", help="Threads of a kernel. [default: one for each core]")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of every random choice.")
@click.option("--out", metavar="DIR", help="Run directory; several runs get folders in it. [default: runs/NAME]")
@click.option("--runner", default="ray", show_default=True, help="How to measure: ray, process or inline.")
@click.option("--ray-address", metavar="ADDRESS", help="Measure on this Ray cluster instead of a local Ray.")
@click.option("--resume", is_flag=True, help="Continue the run in --out; --trials counts what it has measured already.")
@click.option("--policy", default="evolution", show_default=True, help="Who proposes candidates.")
@click.option("--cost-model", default="lightgbm", show_default=True, help="What ranks them before they are measured.")
@click.option("--scheduler", default="gradient", show_default=True, help="Which task is next: gradient or round-robin.")
@click.option("--objective", default="latency-sum", show_default=True, help="What the task scheduler minimises.")
@click.option("--batch", type=int, metavar="N", help="Candidates a round. [default: from trials and tasks]")
@click.option("--shape", multiple=True, metavar="NAME=EXTENT", help="Fix a dynamic dimension, or an input: NAME=1x3x224x224.")
@click.option("--fallback/--no-fallback", default=True, help="Let onnx.reference run what cannot be compiled, or refuse it.")
@click.option("--target", metavar="TEXT", help="Target such as 'host' or 'x86-64 cpu=skylake'. [default: host]")
@click.option("--rules", multiple=True, metavar="PRESET|FILE.py", help="Sketch rules: a preset, or a file of your own.")
@click.option("--search", multiple=True, metavar="NAME=VALUE", help="A constant of the search, such as population=1024.")
@click.version_option(__version__, prog_name="ansor-py")
def command(models: tuple[str, ...], op: tuple[str, ...], out: str | None, config: str | None, **options: Any) -> int:
    """Search for fast programs of ONNX models or operators on this machine.

    Each MODEL and each --op is a run of its own with --trials candidates, and leaves config.json, records.jsonl, curve.csv,
    summary.json and the compiled model.ansor in its run directory.
    """
    if not models and not op:
        raise OptionError("nothing to tune; name an ONNX model or give --op matmul:512,512,512 (--help lists the operators)")
    if options["resume"] and out is None:
        raise OptionError("--resume needs --out, the run directory to continue")
    settings = make_settings(**options)
    names = folder_names([Path(model).stem for model in models] + list(op))
    console = Console(highlight=False)
    for index, name in enumerate(names):
        path = free_folder(Path("runs"), name) if out is None else Path(out) / name if len(names) > 1 else Path(out)
        if index < len(models):
            interrupted = run_model(models[index], path, settings, console)
        else:
            interrupted = run_operator(op[index - len(models)], path, settings, console)
        if interrupted:
            return INTERRUPTED
    return 0


def make_settings(
    trials: int,
    threads: int | None,
    seed: int,
    runner: str,
    ray_address: str | None,
    resume: bool,
    policy: str,
    cost_model: str,
    scheduler: str,
    objective: str,
    batch: int | None,
    shape: Sequence[str],
    fallback: bool,
    target: str | None,
    rules: Sequence[str],
    search: Sequence[str],
) -> Settings:
    """Options as given on the command line, checked as far as this is possible before anything is loaded."""
    given = dict(locals())
    from ansor_py.measure import MEASURERS, MeasureOptions
    from ansor_py.search.tuning_options import TuningOptions
    from ansor_py.search.user_rules import chosen_rules
    from ansor_py.target import Target

    if runner not in MEASURERS:
        raise OptionError(f"there is no runner '{runner}'; known are {', '.join(sorted(MEASURERS))}")
    if ray_address is not None and runner != "ray":
        raise OptionError(f"--ray-address needs --runner ray, not '{runner}'")
    if threads is not None and threads < 1:
        raise OptionError(f"--threads is {threads}; a kernel needs at least one")
    machine = Target.parse(target) if target is not None else Target.detect()
    if threads is not None and threads > (available := Target.detect().cores):
        click.echo(f"warning: --threads is {threads}, but this machine has {available} cores; threads will wait", err=True)
    machine = machine if threads is None else machine.with_cores(threads)
    constants = parse_search_options(search)
    tuning = TuningOptions(
        trials=trials,
        seed=seed,
        batch=batch,
        policy=policy,
        cost_model=cost_model,
        strategy=scheduler,
        objective=objective,
        search=replace(constants, rules=chosen_rules(rules, str(constants.rules))) if rules else constants,
        measure=MeasureOptions(ray_address=ray_address),
    )
    tuning.check_names()
    config = {**given, "threads": machine.cores, "target": str(machine), "engine": __version__}
    return Settings(machine, runner, tuning, parse_shapes(shape), fallback, resume, config)


def run_model(model: str, path: Path, settings: Settings, console: Console) -> bool:
    """Tune a model and write its run directory. Returns whether the user interrupted it."""
    from ansor_py.graph import compile_partition, extract_tasks, partition_model
    from ansor_py.search.phases import PhaseTimer

    timer = PhaseTimer()
    with timer.phase("import"):
        try:
            parts = partition_model(model, settings.shapes, fallback=settings.fallback)
        except ModelError as error:  # of several models, which one
            raise (error if model in str(error) else ModelError(f"{model}: {error}")) from error
        tasks = extract_tasks(parts, settings.target)
    if parts.graph.dynamic_inputs:
        raise ModelError(
            f"{model}: input '{parts.graph.dynamic_inputs[0]}' is not a numeric tensor, so the model cannot be benchmarked; "
            "compile it from Python by ansor_py.compile"
        )
    with open_run(path, settings, model, tasks, console) as run:
        with timer.phase("compile"):
            untuned = compile_partition(parts, None, settings.target.cores, settings.target)
        list_fallback(model, untuned, console)
        with timer.phase("benchmark"):
            first = benchmark([untuned])[0]
        say(console, f"{model}: {len(tasks)} tasks; untuned {first:.4g} ms on {settings.target.summary()}")
        result = search_tasks(tasks, settings, run, console)
        write_summary(run, settings, model, result, timer, first / 1e3, None, parts)  # in case that what follows fails
        compiled, latencies = [untuned], [first / 1e3]
        if result.best_records:
            with timer.phase("compile"):
                compiled.append(compile_tuned(parts, result, settings))
            with timer.phase("benchmark"):
                latencies = [milliseconds / 1e3 for milliseconds in benchmark(compiled)]
        if len(latencies) > 1 and latencies[1] > latencies[0]:
            say(console, f"{model}: the best programs together are not faster than the default schedules, which are kept")
            compiled, latencies = compiled[:1], latencies[:1]
        compiled[-1].save(run.model_path)
        write_summary(run, settings, model, result, timer, latencies[0], latencies[-1], parts)
        say_result(console, model, run, result, latencies[0], latencies[-1])
    return result.interrupted


def run_operator(spec: str, path: Path, settings: Settings, console: Console) -> bool:
    """Tune one operator and write its run directory; the model holds one kernel. Returns whether the user interrupted it."""
    from ansor_py.graph import compile_task
    from ansor_py.schedule.task import Task
    from ansor_py.search.phases import PhaseTimer

    timer = PhaseTimer()
    with timer.phase("import"):
        task = Task.from_spec(spec, settings.target)
    with open_run(path, settings, spec, [task], console) as run:
        result = search_tasks([task], settings, run, console)
        untuned, tuned = result.tasks[0].default_seconds, result.tasks[0].latency
        if not result.records and untuned is None:
            with timer.phase("benchmark"):
                untuned = tuned = default_seconds(task, settings)
        write_summary(run, settings, spec, result, timer, untuned, tuned)  # in case that what follows fails
        with timer.phase("compile"):
            workers = 0 if settings.runner == "inline" else None
            compiled = compile_task(task, result.best_records.values() or None, settings.target.cores, workers=workers)
        compiled.save(run.model_path)
        write_summary(run, settings, spec, result, timer, untuned, tuned)
        say_result(console, spec, run, result, untuned, tuned)
    return result.interrupted


def open_run(path: Path, settings: Settings, name: str, tasks: Sequence[Task], console: Console) -> RunDirectory:
    """The run directory, with a word on what is continued and what could not be read."""
    from ansor_py.search.run_directory import RunDirectory, config_of_tasks

    unfit = foreign_records(path, settings, tasks) if settings.resume else 0
    config = {"model": name, **settings.config, "tasks": config_of_tasks(tasks)}
    run = RunDirectory.create(path, config, settings.resume)
    for line in run.lost:
        say(console, f"{path / 'records.jsonl'}, {line}; it is ignored")
    if unfit:
        say(console, f"{path}: {unfit} records of another target, number of threads or task are ignored")
    if settings.resume:
        trials = len(run.restored) - unfit
        say(console, f"{path}: continuing after {trials} trials" if trials else f"{path}: nothing to continue")
    return run


def foreign_records(path: Path, settings: Settings, tasks: Sequence[Task]) -> int:
    """How many records of a run to be continued are not of this machine, threads and tasks. OptionError if all of them."""
    from ansor_py.measure.records import read_records
    from ansor_py.search.run_directory import RECORDS

    if not (path / RECORDS).exists():
        return 0
    records, _ = read_records(path / RECORDS)
    keys, machine = {task.workload_key for task in tasks}, (str(settings.target), settings.target.cores)
    unfit = [record for record in records if (record.target, record.threads) != machine or record.workload_key not in keys]
    if unfit and len(unfit) == len(records):
        raise OptionError(
            f"no record in '{path}' is of these tasks on target '{settings.target}' with {settings.target.cores} threads; "
            f"its first is for '{records[0].target}' with {records[0].threads} threads; choose another --out"
        )
    return len(unfit)


def search_tasks(tasks: Sequence[Task], settings: Settings, run: RunDirectory, console: Console) -> TuningResult:
    """The search with its progress on the screen; an empty result when there is nothing to measure and nothing was."""
    from ansor_py.search.progress import create_progress
    from ansor_py.search.results import TaskResult, TuningResult
    from ansor_py.search.tuning import tune_tasks

    if not tasks or (settings.tuning.trials == 0 and not run.restored):
        return TuningResult(tuple(TaskResult(task, None, None, 0) for task in tasks), (), (), 0.0, {})
    with create_progress(console) as progress:
        return tune_tasks(tasks, settings.tuning, settings.runner, observer=progress.show, sink=run, restored=run.restored)


def list_fallback(name: str, model: CompiledModel, console: Console) -> None:
    """Say which nodes of a model are not compiled."""
    nodes = model.fallback_nodes
    if nodes:
        say(console, f"{name}: {len(nodes)} nodes are not compiled; ONNX's reference evaluator, which is slow, runs them:")
    for node in nodes:
        say(console, f"  {node}")


def compile_tuned(parts: Partition, result: TuningResult, settings: Settings) -> CompiledModel:
    """The model with the best program of each task."""
    from ansor_py.graph import compile_partition

    return compile_partition(parts, result.best_records.values(), settings.target.cores, settings.target)


def benchmark(models: Sequence[CompiledModel]) -> list[float]:
    """Median latency of each model in milliseconds; they take turns, so that a slow moment meets all of them."""
    started = time.monotonic()
    fastest = min(model.benchmark(repeats=1).median for model in models) / 1e3
    repeats = int(min(max(BENCHMARK_SECONDS / BENCHMARK_TURNS / max(fastest, 1e-9), FEWEST_REPEATS), MOST_REPEATS))
    samples: list[list[float]] = [[] for _ in models]
    while len(samples[0]) < repeats * BENCHMARK_TURNS:
        for model, taken in zip(models, samples, strict=True):
            taken.extend(model.benchmark(repeats=repeats).samples)
        if time.monotonic() - started > BENCHMARK_LIMIT_SECONDS:
            break
    return [statistics.median(taken) for taken in samples]


def default_seconds(task: Task, settings: Settings) -> float | None:
    """Latency of the default schedule alone, measured in a child process (no Ray is started); None if it fails."""
    from ansor_py.codegen.default_schedule import default_steps
    from ansor_py.measure import MeasureInput, create_measurer

    threads = settings.target.cores
    steps = tuple(default_steps(task.dag, task.target, threads))
    kind = "inline" if settings.runner == "inline" else "process"
    with create_measurer(kind, target=task.target, threads=threads) as measurer:
        result = measurer.measure([MeasureInput(task.workload_key, task.dag, steps, task.target, threads)])[0]
    return result.cost if result.valid else None


def write_summary(
    run: RunDirectory,
    settings: Settings,
    name: str,
    result: TuningResult,
    timer: PhaseTimer,
    untuned: float | None,
    tuned: float | None,
    parts: Partition | None = None,
) -> None:
    """Write `summary.json`, with the phases before and after the search. Latencies are seconds; an operator has no `parts`."""
    from ansor_py.search.run_directory import summarise

    outside = {phase: seconds for phase, seconds in timer.summary().items() if phase in ("import", "compile", "benchmark")}
    result = replace(result, phases={**outside, **result.phases})
    summary = summarise(result, name, str(settings.target), settings.target.cores, untuned, tuned)
    if parts is not None:
        summary["fallback_nodes"] = [
            {"name": node.name, "operator": node.op_type, "opset": node.opset, "reason": node.reason}
            for node in parts.graph.opaque
        ]
    run.write_summary(summary)


def say_result(
    console: Console, name: str, run: RunDirectory, result: TuningResult, untuned: float | None, tuned: float | None
) -> None:
    """What came out, in two lines."""
    from ansor_py.search.progress import duration, milliseconds

    for note in result.notes:
        say(console, note)
    words = f"{name}: untuned {milliseconds(untuned)}, tuned {milliseconds(tuned)}"
    if untuned and tuned:
        words += f" ({untuned / tuned:.2f} times as fast)"
    if result.records:
        words += f"; {len(result.records)} trials in {duration(result.search_seconds)}"
        words += ", interrupted" if result.interrupted else ""
    say(console, f"{words}\nrun directory: {run.path}")


def say(console: Console, text: str) -> None:
    """One message, as it is, never broken into lines."""
    console.print(Text(text), soft_wrap=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    run: Callable[..., Any] = command.main
    try:
        return int(run(args=arguments, prog_name="python -m ansor_py.search", standalone_mode=False) or 0)
    except click.exceptions.Abort:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except click.ClickException as error:
        print(f"error: {' '.join(error.format_message().split())}", file=sys.stderr)
        return USAGE_ERROR
    except AnsorError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return USAGE_ERROR


if __name__ == "__main__":
    sys.exit(main())
