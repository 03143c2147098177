"""The CPU that a study measures on, and the one that its code is made for: the option `--target`, and the line that names both.

    @target_option()                       # click; `add_target_option(parser)` for argparse
    target = executable_target("host cpu=haswell")
    cpu_line(target)     # "AMD EPYC (znver4, 2 cores), target 'host cpu=haswell', 256-bit vectors, 2 threads"
    cpu_line(target, busy=1)  # the same and ", beside 1 busy process", where neighbours were made on purpose
    origin(target)       # the same and how the study was called, for a JSON file

A target is `host` or the host cut down, so that a machine with AVX-512 can show AVX2 (`host cpu=haswell`) and SSE2
(`host cpu=x86-64`). Bad text, and a target that this CPU cannot execute where the study executes, is an error with exit
status 2. A sibling module of the scripts in this folder.
"""

from __future__ import annotations

import argparse
import datetime
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import click

from ansor_py.errors import TargetError
from ansor_py.schedule.algorithms import MATH
from ansor_py.target import Target
from markdown_page import command_line
from neighbours import beside

_HELP = "What code is made for: 'host', or the host cut down, such as 'host cpu=haswell' (AVX2) or 'host cpu=x86-64' (SSE2)."

Command = TypeVar("Command", bound=Callable[..., Any])


def executable_target(text: str) -> Target:
    """The target of this text. Raises TargetError for nonsense, and for a target that this machine cannot execute."""
    target = Target.parse(text)
    check_executable(target)
    return target


def check_executable(target: Target) -> None:
    """TargetError where this machine cannot execute code that is made for the target."""
    if misfit := target.misfit():
        raise TargetError(f"target '{target.architecture} cpu={target.cpu}': {misfit}; name this host or less of it: 'host'")


def target_option(executes: bool = True) -> Callable[[Command], Command]:
    """The option `--target` of a click command, whose value is a Target. With `executes` this machine has to be able to."""

    def convert(context: click.Context, parameter: click.Parameter, text: str) -> Target:
        try:
            return executable_target(text) if executes else Target.parse(text)
        except TargetError as error:
            raise click.BadParameter(str(error), context, parameter) from error

    return click.option("--target", default="host", show_default=True, metavar="TEXT", callback=convert, help=_HELP)


def add_target_option(parser: argparse.ArgumentParser) -> None:
    """The option `--target` of a parser, whose value is a Target that this machine can execute."""

    def convert(text: str) -> Target:
        try:
            return executable_target(text)
        except TargetError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    parser.add_argument("--target", type=convert, default="host", metavar="TEXT", help=_HELP)


def add_math_option(parser: argparse.ArgumentParser) -> None:
    """The option `--math` of a parser: which algorithms are admitted."""
    parser.add_argument("--math", choices=MATH, default="exact", help="fast admits algorithms with larger rounding errors")


def cpu_line(target: Target, threads: Sequence[int] = (), busy: int = 0) -> str:
    """The CPU as the system and as LLVM call it, its cores, the target, bits of a vector, threads (default: the target's).

    And the busy processes that figures were taken beside, if there were any.
    """
    counts = list(threads) or [target.cores]
    host = Target.detect()
    return (
        f"{cpu_name()} ({host.cpu}, {usable_cores()} cores), target '{short_text(target)}', "
        f"{8 * target.vector_bytes}-bit vectors, {' and '.join(map(str, counts))} thread{'s' * (counts != [1])}{beside(busy)}"
    )


def short_text(target: Target) -> str:
    """A text for a target that says how it differs from this machine, or from its architecture's plain CPU, but for threads."""
    for text in ("host", target.architecture):
        base = Target.parse(text)
        wanted = target.with_cores(base.cores)
        with suppress(TargetError):  # this text's CPU has no such vectors
            for name in ("cpu", "features", "vector_bytes", "vector_registers", "l1", "l2", "l3", "cache_line_bytes"):
                value = getattr(wanted, name)
                if value != getattr(base, name) and value != "" and base.architecture == wanted.architecture:
                    text += f" {name}={value}"
                    base = Target.parse(text)
        if base == wanted:
            return text
    return str(target)


def origin(target: Target, threads: Sequence[int] = (), busy: int = 0) -> dict[str, str]:
    """Where figures come from: the line of `cpu_line`, the target's full text, the day, the command."""
    return {
        "machine": cpu_line(target, threads, busy),
        "target": str(target),
        "date": str(datetime.date.today()),
        "command": command_line(),
    }


def is_cut_down(target: Target) -> bool:
    """Whether the target's vectors are narrower than this machine's."""
    return target.vector_bytes < Target.detect().vector_bytes


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_name() -> str:
    """The CPU's name as the operating system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else "unknown CPU"
