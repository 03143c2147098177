"""Cost models and policies of a user's that are wrong, what is said of each, and how to register them.

A fault writes what it needs into a folder, registers its plug-in as 'mine', and names it by options of the command line. `say`
is the whole message, with DIR for the folder and "…" for what depends on the search. `function_faults.py` adds the other kinds
of plug-ins; `tests/test_plug_ins.py` lets every fault break a search, and docs/faults.md lists them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ansor_py.cost_model.interface import cost_model
from ansor_py.errors import ScheduleError
from ansor_py.search.policies.policy import policy
from ansor_py.search.sampling.candidates import Candidate
from search_fakes import CountingPolicy, EvenModel

# What names the plug-in: the command line's words for it, which hold for `TuningOptions` too.
Options = dict[str, str]
Install = Callable[[Path], Options]
Kind = Literal["cost model", "policy", "task scheduler", "objective", "mutation", "sketch rule", "runner"]


@dataclass(frozen=True)
class PlugInFault:
    """A plug-in that is wrong, and the answer to it. `begun` says whether there are trials before it shows."""

    title: str
    kind: Kind
    install: Install
    say: str
    begun: bool = True


FAULTS: list[PlugInFault] = []


class UserExit(BaseException):
    """What no `except Exception` catches."""


class SilentError(Exception):
    """An error that cannot even be printed."""

    def __str__(self) -> str:
        raise RuntimeError


def raises(error: BaseException) -> Callable[..., Any]:
    """A function or method that fails."""

    def failing(*_: object, **__: object) -> None:
        raise error

    return failing


def later(first: Callable[..., Any], then: Callable[..., Any], calls: int = 1) -> Callable[..., Any]:
    """A function that goes wrong after some calls."""
    count = 0

    def function(*values: Any) -> Any:
        nonlocal count
        count += 1
        return (first if count <= calls else then)(*values)

    return function


def endless(*_: object) -> Iterator[Any]:
    """It gives the same for ever."""
    while True:
        yield (0, 0)


# Cost models.


def model_with(**methods: Any) -> Install:
    """Install a cost model with other methods; None takes one away."""

    def install(folder: Path) -> Options:
        made = type("Mine", (EvenModel,), methods)
        for name in [name for name, method in methods.items() if method is None]:
            setattr(made, name, property(raises(AttributeError(name))))
        cost_model("mine")(made)
        return {"--cost-model": "mine"}

    return install


def model_fault(title: str, say: str, begun: bool = True, **methods: Any) -> None:
    """Register what a cost model does wrong."""
    FAULTS.append(PlugInFault(title, "cost model", model_with(**methods), f"cost model 'mine': {say}", begun))


_WANTED = "it must give … finite numbers, float32[programs]"


def predict_fault(title: str, gave: str, predict: Callable[[int], Any]) -> None:
    """Register a `predict` that gives something else for so many programs."""
    model_fault(title, f"predict gave {gave}; {_WANTED}", predict=lambda self, batch: predict(len(batch)))


predict_fault("scores of one program too many", "float64[…] for … programs", lambda n: np.zeros(n + 1))
predict_fault("scores of no program", "float64[0] for … programs", lambda n: [])
predict_fault("scores with a second dimension", "float64[…, 1] for … programs", lambda n: np.zeros((n, 1)))
predict_fault("no scores: None", "None for … programs", lambda n: None)
predict_fault("one score for all programs", "0.5 for … programs", lambda n: 0.5)
predict_fault("scores that are words", "<U4[…] for … programs", lambda n: ["good"] * n)
predict_fault("scores that are complex", "complex128[…] for … programs", lambda n: np.zeros(n, complex))
predict_fault("scores that are None", "object[…] for … programs", lambda n: [None] * n)
predict_fault("scores from a generator", "<generator object … for … programs", lambda n: (0.0 for _ in range(n)))
predict_fault("a score that is NaN", "nan for 1 of … programs", lambda n: [float("nan"), *[0.0] * (n - 1)])
predict_fault("scores that are +inf", "inf for … of … programs", lambda n: np.full(n, np.inf))
predict_fault("scores that are -inf", "-inf for … of … programs", lambda n: np.full(n, -np.inf))
predict_fault("scores beyond float32", "1e+300 for … of … programs", lambda n: np.full(n, 1e300))
model_fault(
    "scores in lists of unequal lengths", "predict failed…: ValueError: …", predict=lambda self, batch: [[0.0], [0.0, 1.0]]
)
model_fault("predict raises", "predict failed…: ValueError: no idea", predict=raises(ValueError("no idea")))
model_fault(
    "predict raises an error of several lines",
    "predict failed…: ValueError: first second",
    predict=raises(ValueError("first\n\nsecond\n")),
)
model_fault("predict raises what cannot be printed", "predict failed…: SilentError", predict=raises(SilentError()))
model_fault("predict raises a BaseException", "predict failed…: UserExit: enough", predict=raises(UserExit("enough")))
model_fault("predict calls sys.exit(0)", "predict failed…: SystemExit: 0", predict=lambda self, batch: sys.exit(0))
model_fault(
    "predict raises an error of ansor-py",
    "predict failed…: no such stage",
    predict=raises(ScheduleError("no such stage")),
)
model_fault("predict recurses for ever", "predict failed…: RecursionError: …", predict=lambda self, batch: self.predict(batch))
model_fault("predict takes no batch", "predict failed…: TypeError: …", predict=lambda self: np.zeros(1))
model_fault("there is no predict", "Mine has no method 'predict'", begun=False, predict=None)
model_fault(
    "it needs what there is not",
    "Mine needs ('steps',); 'needs' must be a tuple of features, programs",
    begun=False,
    needs=("steps",),
)
model_fault(
    "it reads programs that it does not ask for",
    "predict failed…: the batch tells no programs; a cost model that reads them says needs = ('features', 'programs')",
    predict=lambda self, batch: [len(program.steps) for program in batch.known_programs],
)
model_fault("update is no function", "Mine has no method 'update'", begun=False, update=3)
model_fault("update raises", "update failed…: KeyError: 'x'", update=raises(KeyError("x")))
model_fault("update calls sys.exit()", "update failed…: SystemExit", update=lambda *_: sys.exit())
model_fault(
    "it cannot be made", "its construction failed…: ValueError: no idea", begun=False, __init__=raises(ValueError("no idea"))
)
model_fault(
    "statements' scores of one statement too many",
    "predict_statements gave float64[…] for … statements; it must give … finite numbers, float32[statements]",
    predict_statements=lambda self, batch: np.zeros(len(batch.rows) + 1),
)
model_fault("save raises", "save failed…: ValueError: no idea", save=raises(ValueError("no idea")))
model_fault(
    "save writes where it cannot",
    "save failed…: FileNotFoundError: …",
    save=lambda self, path: Path(path, "none", "model").write_text(""),
)
model_fault(
    "save makes a folder", "save made a folder; it must write the file that it is given", save=lambda self, path: path.mkdir()
)


# Policies.


def policy_with(**methods: Any) -> Install:
    """Install a policy with other methods."""

    def install(folder: Path) -> Options:
        policy("mine")(type("Mine", (CountingPolicy,), methods))
        return {"--policy": "mine"}

    return install


def policy_fault(title: str, say: str, begun: bool = True, **methods: Any) -> None:
    """Register what a policy does wrong."""
    FAULTS.append(PlugInFault(title, "policy", policy_with(**methods), f"policy 'mine': {say}", begun))


def proposal_fault(title: str, say: str, change: Callable[[Any, list[Any]], Any]) -> None:
    """Register what is wrong with proposals; `change` gets the policy and a right one."""
    policy_fault(
        title,
        f"propose {say}",
        propose=lambda self, count: change(self, list(CountingPolicy.propose(self, count))),
    )


def with_genes(change: Callable[[Any], Any]) -> Callable[[Any, list[Any]], Any]:
    """Change the genes of the first candidate."""
    return lambda self, given: [given[0]._replace(genes=change(given[0].genes)), *given[1:]]


_CANDIDATE = "a candidate is (sketch, genes, predicted, parent, operator)"
proposal_fault(
    "it proposes too many",
    "gave 5 candidates or more, where at most 4 were asked for",
    lambda self, given: [*given, *CountingPolicy.propose(self, 1)],
)
proposal_fault(
    "its proposals never end",
    "gave 5 candidates or more, where at most 4 were asked for",
    endless,
)
proposal_fault("it proposes None", "failed…: TypeError: 'NoneType' object is not iterable", lambda self, given: None)
proposal_fault("it proposes words", f"gave 'words'; {_CANDIDATE}", lambda self, given: ["words"])
proposal_fault("it proposes bare genes", f"gave array(…); {_CANDIDATE}", lambda self, given: [given[0].genes[:3]])
proposal_fault(
    "it proposes one program twice",
    "gave a program twice, genes [… of sketch …",
    lambda self, given: [given[0], given[0]],
)
policy_fault(
    "it proposes what is measured",
    "propose gave a program that is measured already, genes [… of sketch …",
    propose=lambda self, count: (
        [Candidate(o.sketch_id, np.array(o.genes)) for o in self.observed[:1]] or CountingPolicy.propose(self, 1)
    ),
)
proposal_fault(
    "it proposes a sketch that is not there",
    "gave a candidate of sketch 99; there are …",
    lambda self, given: [given[0]._replace(sketch=99)],
)
proposal_fault("its sketch is no number", f"gave …; {_CANDIDATE}", lambda self, given: [given[0]._replace(sketch=0.5)])
proposal_fault("too few genes", "gave genes int32[…] for sketch …; it has … holes, int32[…]", with_genes(lambda g: g[1:]))
proposal_fault("genes that are fractions", "gave genes float64[…] for sketch …; …", with_genes(lambda g: g + 0.5))
proposal_fault("no genes: None", "gave genes object[] for sketch …; …", with_genes(lambda g: None))
proposal_fault(
    "a gene out of range", "gave gene 1000000 for hole '…', which has … choices", with_genes(lambda g: np.full_like(g, 10**6))
)
proposal_fault("a negative gene", "gave gene -1 for hole '…', which has … choices", with_genes(lambda g: np.full_like(g, -1)))
proposal_fault(
    "a predicted score that is NaN",
    "gave nan as a predicted score; it must be a finite number or None",
    lambda self, given: [given[0]._replace(predicted=float("nan"))],
)
policy_fault("propose raises", "propose failed…: ValueError: no idea", propose=raises(ValueError("no idea")))
policy_fault("propose calls sys.exit(1)", "propose failed…: SystemExit: 1", propose=lambda self, count: sys.exit(1))
policy_fault("observe raises", "observe failed…: IndexError: no idea", observe=raises(IndexError("no idea")))
policy_fault("there is no propose", "Mine has no method 'propose'", begun=False, propose=None)
policy_fault(
    "it cannot be made", "its construction failed…: ValueError: no idea", begun=False, __init__=raises(ValueError("no idea"))
)
policy_fault(
    "it holds no sketches",
    "'sketches' holds (1, 2); it must hold sketches",
    begun=False,
    __init__=lambda self, *_: setattr(self, "sketches", (1, 2)),
)


def _spaceless(source: Callable[..., Any]) -> Install:
    def install(folder: Path) -> Options:
        policy("mine", sketches=source)(CountingPolicy)
        return {"--policy": "mine"}

    return install


FAULTS += [
    PlugInFault(
        "its search space is empty",
        "policy",
        _spaceless(lambda *_: []),
        "policy 'mine': its search space is []; it must be one sketch of the task or more",
        begun=False,
    ),
    PlugInFault(
        "its search space raises",
        "policy",
        _spaceless(raises(ValueError("no idea"))),
        "policy 'mine': its search space failed…: ValueError: no idea",
        begun=False,
    ),
]
