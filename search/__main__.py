"""The command line: models and operators in, a run directory for each out.

    python -m ansor_py.search squeezenet.onnx --trials 400 --threads 2 --out runs/squeezenet
    python -m ansor_py.search --op matmul:512,512,512 --trials 128 --threads 1

What the user got wrong is one line on stderr and exit status 2. So is measuring that breaks down, such as Ray that is killed;
what was measured is kept, and the run directory is completed with it. Ctrl-C does the same and gives exit status 130, `kill`
(143) and a terminal that is closed (129) likewise.
"""

from __future__ import annotations

import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from ansor_py import __version__
from ansor_py.errors import AnsorError, OptionError
from ansor_py.search.command_line.runs import Run
from ansor_py.search.command_line.settings import (
    BatchKey,
    folder_names,
    free_folder,
    parse_search_options,
    parse_shapes,
    read_batch_file,
)
from ansor_py.search.command_line.workloads import ModelWorkload, OperatorWorkload, Settings, Workload, say_error

USAGE_ERROR, INTERRUPTED = 2, 130
SIGNALLED = 128  # and the signal's number, as a shell has it


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
        ctx.default_map = read_batch_file(path, _batch_keys(ctx.command.params))
    return path


def _batch_keys(parameters: Sequence[click.Parameter]) -> dict[str, BatchKey]:
    """What a batch file may say of each."""
    named = {parameter.opts[0].lstrip("-"): parameter for parameter in parameters}
    return {name: _batch_key(p) for name, p in named.items() if name not in ("config", "help-strategy", "version")}


def _batch_key(parameter: click.Parameter) -> BatchKey:
    kind = bool if getattr(parameter, "is_flag", False) else int if parameter.type is click.INT else str
    return BatchKey(str(parameter.name), kind, parameter.nargs == -1 or bool(getattr(parameter, "multiple", False)))


def _load(ctx: click.Context, parameter: click.Parameter, places: Sequence[str]) -> Sequence[str]:
    """Load plug-ins, before anything is looked up by its name."""
    from ansor_py.search.user_code import load_plug_ins

    load_plug_ins(places)
    return places


def _show_strategy(ctx: click.Context, parameter: click.Parameter, name: str | None) -> None:
    """Show what a strategy is and end. (Models, policies and all else are loaded, or they would not be known.)"""
    if name is None:
        return
    import ansor_py.search.loop.tuning
    import ansor_py.search.policies  # noqa: F401
    from ansor_py.search.command_line.strategy_help import strategy_help

    Console(highlight=False).print(strategy_help(name))
    ctx.exit()


@click.command(cls=SearchCommand, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.argument("models", nargs=-1, metavar="[MODEL.onnx]...")
@click.option("--op", multiple=True, metavar="SPEC", help="Tune a single operator, such as matmul:512,512,512 (see below).")
@click.option(
    "--config", metavar="FILE.toml", is_eager=True, callback=_use_batch_file, help="Read options from a file; keys as here."
)
@click.option(
    "--import",
    "imports",
    multiple=True,
    metavar="FILE.py|MODULE",
    is_eager=True,
    callback=_load,
    help="Load plug-ins: policies, models, rules, objectives, ... of your own (docs/plugins.md).",
)
@click.option(
    "--help-strategy",
    metavar="NAME",
    callback=_show_strategy,
    expose_value=False,
    help="Show what a policy, cost model, rule, ... of that name does, and its options.",
)
@click.option(
    "--trials", type=int, help="Measured candidates a run; 0: default schedules. [default: 256, or what the time allows]"
)
@click.option("--time-budget", metavar="TIME", help="Wall-clock time of a run, such as 90s, 10m or 1.5h.")
@click.option(
    "--target-latency", multiple=True, metavar="TIME", help="Stop at this latency, such as 3.5ms; one for each network."
)
@click.option("--together", is_flag=True, help="Tune all models and operators as one run with one search.")
@click.option("--threads", type=int, metavar="T", help="Threads of a kernel. [default: one for each core]")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of every random choice.")
@click.option("--out", metavar="DIR", help="Run directory; several runs get folders in it. [default: runs/NAME]")
@click.option(
    "--runner", default="ray", show_default=True, help="How to measure: ray, process, inline, simulated or replay:RECORDS."
)
@click.option("--ray-address", metavar="ADDRESS", help="Measure on this Ray cluster instead of a local Ray.")
@click.option("--fallback-runner", metavar="RUNNER", help="How to measure when that breaks down. [default: end with an error]")
@click.option("--resume", is_flag=True, help="Continue the run in --out; --trials counts what it has measured already.")
@click.option("--policy", default="evolution", show_default=True, help="Who proposes candidates.")
@click.option("--cost-model", default="lightgbm-roofline", show_default=True, help="What ranks them before they are measured.")
@click.option(
    "--cost-model-from", metavar="RUN|FILE", help="A run, or its records.jsonl, from which it learns first; or a saved model."
)
@click.option("--database", metavar="DIR", help="A store of best programs: start from those in it, and add what is found.")
@click.option("--scheduler", default="gradient", show_default=True, help="Which task is next: gradient, round-robin, random.")
@click.option(
    "--objective",
    default="latency-sum",
    show_default=True,
    help="What it minimises: latency-sum, latency-targets, geomean-speedup or early-stopping.",
)
@click.option("--reference-latency", multiple=True, metavar="TIME", help="What speed-ups compare with. [default: untuned]")
@click.option("--batch", type=int, metavar="N", help="Candidates a round. [default: from trials and tasks]")
@click.option("--shape", multiple=True, metavar="NAME=EXTENT", help="Fix a dynamic dimension, or an input: NAME=1x3x224x224.")
@click.option("--fallback/--no-fallback", default=True, help="Let onnx.reference run what cannot be compiled, or refuse it.")
@click.option(
    "--fusion",
    default="wide",
    show_default=True,
    metavar="wide|narrow",
    help="wide: one kernel for several where rows stay together, if it is faster; narrow: never.",
)
@click.option("--target", metavar="TEXT", help="Target such as 'host' or 'x86-64 cpu=skylake'. [default: host]")
@click.option("--rules", multiple=True, metavar="PRESET|RULE", help="Sketch rules: a preset, or rules to try before it.")
@click.option("--math", metavar="exact|fast", help="fast admits algorithms with larger rounding errors. [default: exact]")
@click.option(
    "--search",
    multiple=True,
    metavar="NAME=VALUE",
    help="A constant of the search, such as population=1024, or of a strategy, such as model.trees=50.",
)
@click.option("--observer", multiple=True, metavar="NAME", help="A plug-in that is told what happens.")
@click.option("--profile", is_flag=True, help="At the end, show how long every kernel takes inside the model.")
@click.version_option(__version__, prog_name="ansor-py")
def command(
    models: tuple[str, ...], op: tuple[str, ...], out: str | None, config: str | None, together: bool, **options: Any
) -> int:
    """Search for fast programs of ONNX models or operators on this machine.

    Each MODEL and each --op is a run of its own with --trials candidates, and leaves config.json, tasks.jsonl, records.jsonl,
    curve.csv, rounds.csv, accuracy.csv, summary.json, cost_model.npz and the compiled model.ansor in its run directory. A run
    ends at --trials, --time-budget or --target-latency, whatever comes first.
    """
    if not models and not op:
        raise OptionError("nothing to tune; name an ONNX model or give --op matmul:512,512,512 (--help lists the operators)")
    if options["resume"] and out is None:
        raise OptionError("--resume needs --out, the run directory to continue")
    settings = make_settings(**options)
    workloads: list[Workload] = [*map(ModelWorkload, models), *map(OperatorWorkload, op)]
    names = folder_names([workload.short_name for workload in workloads])
    console = Console(highlight=False)
    if together or len(workloads) == 1:
        path = free_folder(Path("runs"), "+".join(names)) if out is None else Path(out)
        runs = [Run(" + ".join(workload.name for workload in workloads), workloads, path, settings, console)]
    else:
        places = [free_folder(Path("runs"), name) if out is None else Path(out) / name for name in names]
        runs = [Run(s.name, [s], place, settings, console) for s, place in zip(workloads, places, strict=True)]
    for run in runs:
        outcome = run.execute()
        if outcome != "done":
            return INTERRUPTED if outcome == "interrupted" else USAGE_ERROR
    return 0


def make_settings(
    trials: int | None,
    time_budget: str | None,
    target_latency: Sequence[str],
    threads: int | None,
    seed: int,
    runner: str,
    ray_address: str | None,
    fallback_runner: str | None,
    resume: bool,
    policy: str,
    cost_model: str,
    cost_model_from: str | None,
    database: str | None,
    scheduler: str,
    objective: str,
    reference_latency: Sequence[str],
    batch: int | None,
    shape: Sequence[str],
    fallback: bool,
    fusion: str,
    target: str | None,
    rules: Sequence[str],
    math: str | None,
    search: Sequence[str],
    observer: Sequence[str],
    profile: bool,
    imports: Sequence[str] = (),
) -> Settings:
    """Options as given on the command line, checked as far as this is possible before anything is loaded."""
    given = dict(locals())
    from ansor_py.graph.model_tasks import check_fusion
    from ansor_py.measure import MeasureOptions, find_measurer
    from ansor_py.measure.database import Database
    from ansor_py.measure.ray_backend import check_address
    from ansor_py.search.command_line.rule_names import chosen_rules
    from ansor_py.search.loop.observers import OBSERVERS
    from ansor_py.search.loop.stopping import parse_seconds
    from ansor_py.search.loop.transfer import check_source
    from ansor_py.search.loop.tuning_options import DEFAULT_TRIALS, TuningOptions
    from ansor_py.search.scheduler.objectives import find_objective
    from ansor_py.target import Target

    check_fusion(fusion)
    virtual = find_measurer(runner).virtual
    if fallback_runner is not None and (virtual or find_measurer(fallback_runner).virtual or fallback_runner == runner):
        raise OptionError(f"--fallback-runner {fallback_runner}: it cannot go on where --runner {runner} breaks down")
    if profile and virtual:
        raise OptionError(f"--profile runs the model, and --runner {runner} runs nothing; leave one of them out")
    if ray_address is not None and runner != "ray":
        raise OptionError(f"--ray-address needs --runner ray, not '{runner}'")
    if ray_address is not None and fallback_runner is None:
        check_address(ray_address)
    if threads is not None and threads < 1:
        raise OptionError(f"--threads is {threads}; a kernel needs at least one")
    machine = Target.parse(target) if target is not None else Target.detect()
    if not virtual and threads is not None and threads > (available := Target.detect().cores):
        click.echo(f"warning: --threads is {threads}, but this machine has {available} cores; threads will wait", err=True)
    machine = machine if threads is None else machine.with_cores(threads)
    constants = parse_search_options(search)
    if math is not None:
        constants = replace(constants, space=replace(constants.space, math=math))
    tuning = TuningOptions(
        trials=DEFAULT_TRIALS if trials is None and time_budget is None else trials,
        time_budget=None if time_budget is None else parse_seconds(time_budget, "--time-budget"),
        target_latencies=tuple(parse_seconds(text, "--target-latency") for text in target_latency),
        reference_latencies=tuple(parse_seconds(text, "--reference-latency") for text in reference_latency),
        seed=seed,
        batch=batch,
        policy=policy,
        cost_model=cost_model,
        cost_model_from=cost_model_from,
        database=database,
        strategy=scheduler,
        objective=find_objective(objective),
        search=replace(constants, rules=chosen_rules(rules, str(constants.rules))) if rules else constants,
        measure=MeasureOptions(ray_address=ray_address),
    )
    tuning.check_names()
    for name in observer:
        OBSERVERS.find(name)
    if database is not None and virtual:
        raise OptionError(f"--database keeps what was measured, and --runner {runner} runs nothing; leave one of them out")
    if database is not None:
        Database(database, create=True)
    if cost_model_from is not None:
        check_source(cost_model_from, machine, cost_model)
    config = {**given, "trials": tuning.trials, "threads": machine.cores, "target": str(machine), "engine": __version__}
    shapes = parse_shapes(shape)
    return Settings(
        machine, runner, fallback_runner, tuning, shapes, fallback, fusion, resume, profile, tuple(observer), config
    )


@contextmanager
def _stopped_by_signals(seen: list[int]) -> Iterator[None]:
    """SIGTERM and SIGHUP are KeyboardInterrupts; `seen` gets their numbers. The second one ends the process as usual."""

    def stop(number: int, frame: object) -> None:
        seen.append(number)
        signal.signal(number, signal.SIG_DFL)
        if number == signal.SIGHUP:  # nobody reads what follows, and writing to a terminal that is gone is an error
            null = os.open(os.devnull, os.O_WRONLY)
            for descriptor in (1, 2):
                os.dup2(null, descriptor)
        raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    for number, handler in before.items():
        if handler != signal.SIG_IGN:  # `nohup`
            signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    seen: list[int] = []
    with _stopped_by_signals(seen), warnings.catch_warnings():
        status = _main(arguments)
    return SIGNALLED + seen[0] if status == INTERRUPTED and seen else status


def _print_warning(message: Warning | str, *_: object, **__: object) -> None:
    print(f"warning: {' '.join(str(message).split())}", file=sys.stderr)


def _main(arguments: Sequence[str] | None) -> int:
    run: Callable[..., Any] = command.main
    warnings.showwarning = _print_warning
    try:
        return int(run(args=arguments, prog_name="python -m ansor_py.search", standalone_mode=False) or 0)
    except click.exceptions.Abort:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except click.ClickException as error:
        say_error(error.format_message())
        return USAGE_ERROR
    except AnsorError as error:
        say_error(str(error))
        return USAGE_ERROR


if __name__ == "__main__":
    sys.exit(main())
