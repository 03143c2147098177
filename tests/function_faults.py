"""Task schedulers, objectives, mutations, sketch rules and runners of a user's that are wrong, as in `plug_in_faults.py`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ansor_py.measure.interface import measurer
from ansor_py.measure.result import MeasureResult
from ansor_py.measure.simulated import SimulatedMeasurer
from ansor_py.search.evolution.mutation import mutation
from ansor_py.search.scheduler.objectives import objective
from ansor_py.search.scheduler.strategies import task_scheduler
from plug_in_faults import FAULTS, Kind, Options, PlugInFault, later, raises

__all__ = ["FAULTS"]

# Task schedulers, objectives and mutations: functions.


def _function(kind: Kind, option: str, register: Callable[[str], Any]) -> Callable[..., None]:
    """What registers the faults of one kind of function."""

    def fault(title: str, say: str, function: Callable[..., Any], begun: bool = True) -> None:
        def install(folder: Path) -> Options:
            function.__name__ = "mine"
            register("mine")(function)
            return {option: "mine" if kind != "mutation" else "evolution.mutation_weights.mine=9"}

        FAULTS.append(PlugInFault(title, kind, install, f"{kind} 'mine'{say}", begun))

    return fault


scheduler_fault = _function("task scheduler", "--scheduler", task_scheduler)
_CHOICE = "it must choose a task that goes on: …"


def ended_task(tasks: Sequence[Any], *_: object) -> int:
    """The first task that gets nothing, as soon as there is one."""
    return next((number for number, task in enumerate(tasks) if task.dead), len(tasks) - 1)


scheduler_fault("it chooses a task that has ended", f" chose 1; {_CHOICE}", ended_task)
scheduler_fault("it chooses no task", f" chose None; {_CHOICE}", lambda *_: None)
scheduler_fault("it chooses a task that is not there", f" chose 2; {_CHOICE}", lambda tasks, *_: len(tasks))
scheduler_fault("it counts from the end", f" chose -1; {_CHOICE}", lambda *_: -1)
scheduler_fault("it chooses a fraction", f" chose 0.0; {_CHOICE}", lambda *_: 0.0)
scheduler_fault("it chooses True", f" chose True; {_CHOICE}", lambda *_: True)
scheduler_fault("it raises", " failed…: ZeroDivisionError: division by zero", lambda *_: 1 / 0)
scheduler_fault("it calls sys.exit(0)", " failed…: SystemExit: 0", lambda *_: sys.exit(0))
scheduler_fault(
    "it asks for the value of one latency",
    " asks for the value of [1.0]; it must give 2 finite seconds",
    lambda tasks, value, *_: value([1.0]),
)

objective_fault = _function("objective", "--objective", objective)
objective_fault("it is None", " gave None; it must give one finite number", lambda *_: None, begun=False)
objective_fault("it is a word", " gave '3'; it must give one finite number", lambda *_: "3", begun=False)
objective_fault(
    "it is a value for each task",
    " gave array([1., 1.]); it must give one finite number",
    lambda latencies, networks: latencies.copy(),
    begun=False,
)
objective_fault("it is NaN", " gave nan for latencies of …; it must be finite", lambda *_: float("nan"), begun=False)
objective_fault(
    "it is infinite after a while",
    " gave inf for latencies of …; it must be finite",
    lambda latencies, networks: 1.0 if (latencies == 1).all() else float("inf"),
)
objective_fault("it raises", " failed…: KeyError: 'x'", raises(KeyError("x")), begun=False)
objective_fault(
    "it raises after a while",
    " failed…: ValueError: no idea",
    lambda latencies, networks: 1.0 if (latencies == 1).all() else raises(ValueError("no idea"))(),
)
objective_fault("it calls sys.exit(0)", " failed…: SystemExit: 0", lambda *_: sys.exit(0), begun=False)
objective_fault(
    "it changes the latencies",
    " failed…: ValueError: assignment destination is read-only",
    lambda latencies, networks: latencies.__setitem__(0, 0),
    begun=False,
)
objective_fault(
    "it changes the networks",
    " failed…: ValueError: assignment destination is read-only",
    lambda latencies, networks: networks.weights.__setitem__(0, 0),
    begun=False,
)

mutation_fault = _function("mutation", "--search", mutation)
mutation_fault(
    "it loses a row",
    " gave int32[…] for rows […]; it must give as many rows of whole numbers, or None",
    lambda space, genes, rng: genes[1:],
)
mutation_fault("its genes are fractions", " gave float64[…] for rows […]; …", lambda space, genes, rng: genes + 0.5)
mutation_fault("its genes are words", " gave <U…[…] for rows […]; …", lambda space, genes, rng: genes.astype(str))
mutation_fault(
    "a gene out of range",
    " gave gene 1000000 for hole '…', which has … choices",
    lambda space, genes, rng: np.full_like(genes, 10**6),
)
mutation_fault("a negative gene", " gave gene -1 for hole '…', which has … choices", lambda space, genes, rng: genes * 0 - 1)
mutation_fault("it raises", " failed…: ValueError: no idea", raises(ValueError("no idea")))
mutation_fault("it calls sys.exit(0)", " failed…: SystemExit: 0", lambda *_: sys.exit(0))


# Plug-ins in files.

_RULE = """
from ansor_py.sketch_rules import Rule, rule

@rule({name!r})
class Mine(Rule):
    def condition(self, sketch, number):
        return {verdict}

    def apply(self, sketch, number):
        return {derived}
"""


def file_fault(title: str, say: str, text: str, option: str = "--rules") -> None:
    """Register a file that cannot be used."""

    def install(folder: Path) -> Options:
        (folder / "mine.py").write_text(text)
        return {"--import": str(folder / "mine.py"), option: "mine"}

    FAULTS.append(PlugInFault(title, "sketch rule" if option == "--rules" else "objective", install, say, begun=False))


def rule_fault(title: str, say: str, verdict: str = "'apply'", derived: str = "[(sketch, number - 1)]") -> None:
    """Register a rule that goes wrong on the last stage."""
    said = f"DIR/mine.py…: sketch rule 'mine' failed on stage '…': {say}"
    file_fault(title, said, _RULE.format(name="mine", verdict=verdict, derived=derived))


rule_fault("condition raises", "ZeroDivisionError: division by zero", verdict="1 / 0")
rule_fault("condition calls sys.exit(0)", "SystemExit: 0", verdict="__import__('sys').exit(0)")
rule_fault(
    "condition gives no verdict",
    "condition gave True; it must give one of skip, apply, apply_and_stop",
    verdict="True",
)
rule_fault("apply raises", "AttributeError: 'PartialSketch' object has no attribute 'nothing'", derived="sketch.nothing")
rule_fault("apply gives None", "TypeError: 'NoneType' object is not iterable", derived="None")
_STAGES = "as the stage to go on with; there are stages 0 to …, and -1 says that the sketch is complete"
rule_fault("apply goes on with stage -99", f"apply gave -99 {_STAGES}", derived="[(sketch, -99)]")
rule_fault("apply goes on with stage 99", f"apply gave 99 {_STAGES}", derived="[(sketch, 99)]")
rule_fault(
    "apply gives a bare sketch",
    "apply gave …; it must give pairs of a PartialSketch and the number of the stage to go on with",
    derived="[sketch]",
)
rule_fault("apply never ends", "apply gave 10000 sketches or more", derived="((sketch, -1) for _ in iter(int, 1))")
file_fault(
    "a rule without a name",
    "--import 'DIR/mine.py', line 4, cannot be loaded: sketch rule 5: write @rule(\"name\") above a class that extends Rule",
    _RULE.format(name=5, verdict="'apply'", derived="[]"),
)
file_fault(
    "a rule without apply",
    "sketch rule 'mine': its construction failed…: TypeError: Can't instantiate abstract class Mine …",
    "from ansor_py.sketch_rules import Rule, rule\n@rule('mine')\nclass Mine(Rule):\n    pass\n",
)
file_fault("a file that raises", "--import 'DIR/mine.py', line 2, cannot be loaded: ValueError: oh", "\nraise ValueError('oh')")
file_fault(
    "a file that calls sys.exit(0)",
    "--import 'DIR/mine.py', line 1, cannot be loaded: SystemExit: 0",
    "__import__('sys').exit(0)",
)
file_fault("a file that is not Python", "--import 'DIR/mine.py', line 1, cannot be loaded: SyntaxError: …", "if:\n")
file_fault(
    "an objective that its file does not have",
    "there is no objective 'mine'; known are early-stopping, geomean-speedup, latency-sum, latency-targets",
    "def mine(latencies, networks):\n    return 1.0\n",
    "--objective",
)
file_fault(
    "an objective in a file that raises a BaseException",
    "--import 'DIR/mine.py', line 1, cannot be loaded: GeneratorExit",
    "raise GeneratorExit",
    "--objective",
)


# Runners.


def runner_fault(title: str, say: str, begun: bool = True, **methods: Any) -> None:
    """Register what a runner does wrong."""

    def install(folder: Path) -> Options:
        made = type("Mine", (SimulatedMeasurer,), methods)
        measurer("mine", virtual=True)(lambda target, threads, options: made(0))
        return {"--runner": "mine"}

    FAULTS.append(PlugInFault(title, "runner", install, f"the runner: {say}", begun))


_poll, _submit = SimulatedMeasurer.poll, SimulatedMeasurer.submit
runner_fault("poll raises", "poll failed…: ValueError: no idea", poll=later(_poll, raises(ValueError("no idea")), 4))
runner_fault("poll calls sys.exit(0)", "poll failed…: SystemExit: 0", poll=later(_poll, raises(SystemExit(0)), 4))
runner_fault("poll gives words", "poll gave 'd', which is no result of …", poll=later(_poll, lambda *_: "done", 4))
runner_fault(
    "poll gives nothing, ever",
    "poll gave nothing, although … programs have no result yet",
    poll=later(_poll, lambda *_: [], 4),
    outstanding=property(lambda self: 0),
)
runner_fault(
    "submit forgets a program",
    "submit gave [… for … programs; it must give one for each",
    submit=later(_submit, lambda self, batch: _submit(self, batch)[1:]),
)
runner_fault(
    "a cost that is NaN",
    "poll gave costs (nan,); they must be seconds of at least 1e-09",
    poll=later(
        _poll,
        lambda *values: [(number, MeasureResult((float("nan"),))) for number, _ in _poll(*values)],
        4,
    ),
)
