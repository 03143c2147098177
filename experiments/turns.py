"""Engines timed in turns, operators and networks alike: our compiled model, and peers that run the same ONNX file.

    rules = Rules(peers=["ort", "openvino"], busy=1)
    timed = Timed()                     # or a subclass: a row of a report
    contest(timed, Path("model.ansor"), Path("model.onnx"), feed, expected, target, rules)
    timed.ms                            # {"ansor": 1.2, "ort": 1.5, "openvino": 1.9}

Every contender runs in a process of its own (`contenders.py`), on the same cores and with its best setting, and is stopped
(SIGSTOP) while another one is timed. They take turns: one round each, several rounds; a figure is the median of the rounds'
medians, and counts only if the result agrees with ONNX's own evaluator. A turn is plain calls first, as a user writes them,
then calls in place, then ours inside native code. Busy processes (`neighbours.py`) are there during the turns, not while
settings are chosen. A sibling module of the scripts in this folder.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import select
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import contenders
from ansor_py.errors import MeasureError
from ansor_py.measure.cores import plan_cores
from ansor_py.target import Target
from contenders import CAPS, OURS, PEERS, WAYS, result_file
from light_models import compare, worst
from machine import is_cut_down
from neighbours import busy_processes

NOT_INSTALLED, NOT_CAPPED = "not installed", "not capped"
REPLY_SECONDS = 1800.0  # a peer opens a large network with every setting before its first reply
CAPPED = """* The target's vectors are narrower than the CPU's. The engines are held to them by {variables}.
* *{not_capped}*: kernels take wider vectors all the same (those of MLAS, which is ONNX Runtime's and runs products with a
  constant in OpenVINO, ask nothing but the CPU). Such a figure counts neither in *best / ours* nor in a mean nor as the peak.
"""
# What a peer chooses for itself, and a limit of ours.
_LIBRARY_SETTINGS = tuple("ANSOR_PY_ OPENBLAS_ OMP_ GOMP_ KMP_ MKL_ ONEDNN_ DNNL_ ATEN_ OV_CPU_".split())

Array = NDArray[Any]
Commands = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Rules:
    """How contenders are timed: the peers, the turns of each and their length, and how many processes spin beside them."""

    peers: Sequence[str] = tuple(PEERS)
    rounds: int = 7
    seconds: float = 0.1
    busy: int = 0


@dataclass(kw_only=True)
class Timed:
    """What the turns gave. Times by contender are milliseconds; `notes` say why a contender has none.

    `ms` is of plain calls, `place_ms` of calls with inputs and outputs in place, `native_ms` of ours inside native code;
    `settings` what each contender found best, its version, and under a target with narrower vectors than the CPU's whether it
    was `capped` to them; `differences` the largest one from the reference in units of its largest magnitude; `fma_gflops` the
    rate of a loop of nothing but FMAs after the turns, without neighbours.
    """

    ms: dict[str, float] = field(default_factory=dict)
    place_ms: dict[str, float] = field(default_factory=dict)
    native_ms: float | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    differences: dict[str, float] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    fma_gflops: float = 0.0

    def capped(self, contender: str) -> bool:
        """Whether it took no wider vectors than the target's."""
        return bool(self.settings.get(contender, {}).get("capped", True))

    def ratio(self, peers: Sequence[str], any_vectors: bool = False, in_place: bool = False) -> float | None:
        """Time of the fastest of these peers in units of ours; over 1: ours is faster. Without those that are not capped."""
        ms = self.place_ms if in_place else self.ms
        times = [ms[peer] for peer in peers if peer in ms and (any_vectors or self.capped(peer))]
        return min(times) / ms[OURS] if times and OURS in ms else None

    @property
    def plain_over_place(self) -> float | None:
        """What a plain call of ours costs in units of one in place."""
        return self.ms[OURS] / self.place_ms[OURS] if OURS in self.ms and OURS in self.place_ms else None


def all_capped(rows: Sequence[Timed], peers: Sequence[str]) -> list[str]:
    """Those of the peers that were held to the target's vectors in all rows."""
    return [peer for peer in peers if all(row.capped(peer) for row in rows)]


def geometric_mean(ratios: Sequence[float | None]) -> float | None:
    """The mean of the ratios that there are; None without any."""
    found = [ratio for ratio in ratios if ratio is not None]
    return statistics.geometric_mean(found) if found else None


def ratio_text(ratio: float | None) -> str:
    """A ratio in a table."""
    return "–" if ratio is None else f"{ratio:.2f}"


def peer_text(timed: Timed, peer: str) -> str:
    """A peer's ratio in a table, or why there is none."""
    ratio, note = timed.ratio([peer], any_vectors=True), timed.notes.get(peer)
    if ratio is not None:
        return ratio_text(ratio) if timed.capped(peer) else f"{ratio_text(ratio)} ({NOT_CAPPED})"
    return NOT_INSTALLED if note == NOT_INSTALLED else "failed" if note else "–"


def capped_text(target: Target) -> str:
    """A page's remark on the vectors of a cut-down target; nothing for others."""
    variables = ", ".join(f"`{name}={value}`" for name, value in CAPS.get(target.vector_bytes, {}).items())
    return CAPPED.format(variables=variables, not_capped=NOT_CAPPED) if is_cut_down(target) else ""


def engines_text(rows: Sequence[Timed], peers: Sequence[str]) -> str:
    """The peers that took part, with their versions."""
    versions = {who: setting["version"] for row in rows for who, setting in row.settings.items() if who in peers}
    return ", ".join(f"{who} {version}" for who, version in versions.items()) or "none was run"


def contest(
    timed: Timed, ours: Path, theirs: Path, feed: Mapping[str, Array], expected: Array, target: Target, rules: Rules
) -> None:
    """Time our saved model and the peers' ONNX file in turns, all on this feed; `expected` is the first output."""
    timed.notes |= {peer: NOT_INSTALLED for peer in rules.peers if importlib.util.find_spec(PEERS[peer].module) is None}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.savez(folder / "feed.npz", allow_pickle=False, **feed)
        place = [name, ",".join(map(str, plan_cores(target.cores).run)), str(target)]
        models = {OURS: ours} | {peer: theirs for peer in rules.peers if peer not in timed.notes}
        commands = {who: [sys.executable, contenders.__file__, who, str(path), *place] for who, path in models.items()}
        with started(commands, target, folder, timed, expected) as found:
            take_turns(found, timed, rules)


class Contender:
    """A child process that is stopped except while it answers. Raises MeasureError when the process ends or stays silent."""

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self.name = name
        self._log = log
        with log.open("w") as stream:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stream, bufsize=0, env=environment
            )
        try:
            self.setting: dict[str, Any] = self._reply()
        except BaseException:
            self.close()
            raise

    def ask(self, question: str) -> float:
        """The answer to a question."""
        assert self._process.stdin is not None
        self._process.send_signal(signal.SIGCONT)
        with suppress(BrokenPipeError):  # it has ended; the reply says why
            self._process.stdin.write(f"{question}\n".encode())
        return float(self._reply())

    def close(self) -> None:
        """End the process."""
        self._process.kill()  # works on a stopped process too
        self._process.communicate()

    def _reply(self) -> Any:
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], REPLY_SECONDS)
        line = self._process.stdout.readline() if ready else b""
        if not line:
            said = self._log.read_text(errors="replace").strip().splitlines()
            raise MeasureError(f"{self.name}: {said[-1] if said else 'no answer'}")
        self._process.send_signal(signal.SIGSTOP)
        return json.loads(line)


def environment_of(target: Target) -> dict[str, str]:
    """A contender's environment: nothing that binds or counts its threads.

    Where the target's vectors are narrower than the machine's, it holds libraries to them.
    """
    plain = {key: value for key, value in os.environ.items() if not key.startswith(_LIBRARY_SETTINGS)}
    caps = CAPS[target.vector_bytes] if is_cut_down(target) else {}
    return {**plain, **caps}


@contextmanager
def started(commands: Commands, target: Target, folder: Path, timed: Timed, expected: Array) -> Iterator[list[Contender]]:
    """Processes of the contenders whose results, plain and in place, are right; the notes tell of the others."""
    with ExitStack() as stack:
        found = []
        for name, command in commands.items():
            try:
                contender = Contender(name, command, environment_of(target), folder / f"{name}.log")
            except MeasureError as error:
                timed.notes[name] = str(error)
                continue
            stack.callback(contender.close)
            timed.settings[name] = contender.setting
            check = worst([compare(name, np.load(result_file(folder, name, way)), expected) for way in WAYS])
            if check.passed:
                timed.differences[name] = check.relative
                found.append(contender)
            else:
                timed.notes[name] = str(check)
        yield found


def take_turns(found: Sequence[Contender], timed: Timed, rules: Rules) -> None:
    """Time the contenders in turns; fills in times, the FMA rate, and notes on those that fail."""
    samples: dict[str, dict[str, list[float]]] = {"time": {}, "place": {}, "native": {}}

    def ask(contender: Contender, way: str) -> None:
        samples[way].setdefault(contender.name, []).append(contender.ask(f"{way} {rules.seconds}"))

    with busy_processes(rules.busy):
        for _ in range(rules.rounds):
            for contender in [contender for contender in found if contender.name not in timed.notes]:
                try:
                    for way in (*WAYS, "native") if contender.name == OURS else WAYS:
                        ask(contender, way)
                except MeasureError as error:
                    timed.notes[contender.name] = str(error)
    medians = {
        way: {name: statistics.median(taken) for name, taken in by_name.items() if name not in timed.notes}
        for way, by_name in samples.items()
    }
    timed.ms, timed.place_ms, timed.native_ms = medians["time"], medians["place"], medians["native"].get(OURS)
    for contender in found:
        if contender.name in timed.ms and contender.name == OURS:
            with suppress(MeasureError):  # the times stand without it
                timed.fma_gflops = max(contender.ask(f"peak {rules.seconds}") for _ in range(rules.rounds))


def add_turn_options(parser: argparse.ArgumentParser, peers: Sequence[str]) -> None:
    """The options that `rules_of` reads, for a study that can be compared with these peers."""
    default = Rules()
    parser.add_argument("--peers", nargs="*", choices=peers, default=list(peers), metavar="PEER", help=", ".join(peers))
    parser.add_argument("--rounds", type=count, default=default.rounds, help="turns of each contender")
    parser.add_argument("--seconds", type=float, default=default.seconds, help="length of a turn")
    parser.add_argument("--busy", type=count, default=default.busy, metavar="N", help="processes that spin during the turns")


def rules_of(options: argparse.Namespace) -> Rules:
    """The rules that the command line asks for."""
    return Rules(options.peers, options.rounds, options.seconds, options.busy)


def count(text: str) -> int:
    """A number of things from the command line."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"'{text}' is no count; give 0 or more")
    return int(text)
