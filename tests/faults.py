"""Faults of the machine and of what a search works with, what each one costs, and what the user reads of it.

    python tests/faults.py          # writes docs/faults.md

The tests that make these faults happen take their expectations from here (`tests/test_faults.py` finds those that no test
uses), and the page is made of the same data. `say` is one whole line that the user reads, with DIR for the folder of the test
and "…" for what depends on the moment; it is empty where there is nothing to say.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bad_input import says
from campaign import MUTATED as MUTATIONS
from campaign import SEEDS
from function_faults import FAULTS as PLUG_INS
from measure_faults import PROGRAM_FAULTS

INTRODUCTION = (
    "What the tests do to searches and to compiled models, what is lost of what was measured, and what the user reads. "
    "Written by `python tests/faults.py` from the tests; DIR is any folder, … depends on the moment."
)
PAGE = Path(__file__).parents[1] / "docs" / "faults.md"
NOTHING, ROUND, UNDER_WAY = "nothing", "the round under way", "the programs under way"


@dataclass(frozen=True)
class Fault:
    """What is done, the line that is read, and what is lost by it."""

    title: str
    say: str = ""
    lost: str = NOTHING

    def is_read_in(self, text: str, folder: Path = Path("DIR")) -> bool:
        """Whether one of the lines of a text is what is to be read; whether there is none, where nothing is said."""
        lines = [line for line in text.splitlines() if line.strip()]
        return any(says(self.say, line, folder) for line in lines) if self.say else not lines


# Searches.

KEPT = "; what was measured is kept, continue by --resume"
CTRL_C = Fault("Ctrl-C", "… trials in …; interrupted")
TERMINATED = Fault("the search gets SIGTERM", "… trials in …; interrupted")
HUNG_UP = Fault("the terminal is closed (SIGHUP)")
KILLED = Fault("the search is killed by SIGKILL, and continued", lost=ROUND)
SECOND_SEARCH = Fault(
    "a second search with the same `--out`",
    "error: another process writes records to 'DIR/run/records.jsonl', a search with the same --out; wait for its end or "
    "choose another --out",
)
FULL_AT_ONCE = Fault(
    "the disk is full at the beginning",
    "error: cannot write to 'DIR/run': File too large; make room and continue with --resume",
)
FULL_LATER = Fault(
    "the disk is full after some rounds",
    "error: records cannot be written to 'DIR/run/records.jsonl': File too large; make room and continue with --resume",
    ROUND,
)
NO_WORKERS = Fault(
    "every worker that measures is killed", f"error: a measuring worker cannot be started (3 attempts): killed by SIGKILL{KEPT}"
)
FAILED_RESUMES = {
    "rule": Fault(
        "a resume with a rule that raises",
        "error: DIR/bad.py, line …: sketch rule 'bad' failed on stage '…': ValueError: no",
    ),
    "rules": Fault(
        "a resume with a rule file that does not load",
        "error: --import 'DIR/bad.py', line 1, cannot be loaded: ModuleNotFoundError: No module named 'nothing_of_this_name'",
    ),
    "records": Fault(
        "a resume of records that cannot be opened", "error: cannot read records from 'DIR/run/records.jsonl': Is a directory"
    ),
    "operator": Fault(
        "a resume with another operator",
        "error: no record in 'DIR/run' is of these tasks on target '…' with 1 threads; its first is for '…' with 1 threads; "
        "choose another --out",
    ),
    "transfer": Fault(
        "a resume with a cost model from a run that is not there",
        "error: --cost-model-from DIR/none: there is no such run; name a run directory with a records.jsonl, such a file, or a "
        "saved model",
    ),
}

# Ray.

WITHOUT_RAY = "; --runner process measures without Ray"
RAYLET_KILLED = Fault(
    "Ray's raylet is killed",
    f"error: the process that uses Ray is gone (…), which happens when its raylet or GCS ends{WITHOUT_RAY}{KEPT}",
    UNDER_WAY,
)
STRUCK = {
    ("raylet", "SIGSTOP"): Fault(
        "Ray's raylet is stopped", f"asking Ray's raylet takes longer than 5 s (it is stopped or gone){WITHOUT_RAY}", UNDER_WAY
    ),
    ("gcs_server", "SIGKILL"): Fault(
        "Ray's GCS is killed", f"asking Ray's GCS takes longer than 5 s (it is stopped or gone){WITHOUT_RAY}", UNDER_WAY
    ),
    ("driver", "SIGSTOP"): Fault(
        "the child process that drives Ray is stopped", f"waiting for Ray takes longer than 5 s{WITHOUT_RAY}", UNDER_WAY
    ),
}
GCS_STOPPED = Fault(
    "Ray's GCS is stopped, with `--fallback-runner process`",
    f"warning: asking Ray's GCS takes longer than 5 s (it is stopped or gone){WITHOUT_RAY}; the search goes on with --runner "
    "process",
)
KILLED_WITH_RAY = Fault("a search that uses Ray is killed by SIGKILL: its Ray ends, too", lost=ROUND)
NOTHING_LISTENS = Fault(
    "`--ray-address` where nothing listens",
    f"the Ray cluster at '…' cannot be reached: [Errno 111] Connection refused{WITHOUT_RAY}",
)
NOT_RAY = Fault(
    "`--ray-address` of a web server, or of something silent",
    f"connecting to a Ray cluster at '…' takes longer than 10 s (there is probably none){WITHOUT_RAY}",
)
FEW_CPUS = Fault(
    "`--ray-address` of a cluster without a node of `--threads` CPUs",
    "a program needs 3 CPUs of one node, and the largest node of the Ray cluster has 2; lower --threads…",
)
BUSY = Fault(
    "`--ray-address` of a cluster that others use",
    f"only 1 of the 2 CPUs of the Ray cluster are free, and timings must not share cores; end the other jobs{WITHOUT_RAY}",
)
RESUME_WITHOUT_RAY = Fault(
    "a resume that finds no Ray",
    f"error: the Ray cluster at '127.0.0.1' cannot be reached: …{WITHOUT_RAY}",
)
RAY_REPLACED = Fault(
    "a search that finds no Ray, with `--fallback-runner inline`",
    f"warning: the Ray cluster at '127.0.0.1:1' cannot be reached: …{WITHOUT_RAY}; the search goes on with --runner inline",
)

# Compiled models.

THREADS, RUNS = 4, 2500
SHARED = Fault(f"{THREADS} threads run one model, {THREADS * RUNS:,} times: all results are right")
FORKED = Fault("a process that has run a model forks, and 4 threads of the child run it 10,000 times: all results are right")
FORKED_MEANWHILE = Fault("a process forks while another of its threads runs a model, and the child runs it: it does not hang")
PICKLED = Fault("a model is pickled and goes to another process, or is copied: all results are right")
PICKLED_ELSEWHERE = Fault(
    "a pickled model goes to a machine with another CPU",
    "the pickled model 'test' is compiled for …; this …; compile it here",
)
COMPILER_CRASH = Fault(
    "the process that compiles a kernel crashes",
    "…killed by SIGABRT…",
    "this kernel's schedule; another is used",
)
MEMORY_LIMIT = Fault(
    "a model that needs more memory than `ulimit -v` leaves",
    "'relu:2147483648' needs 16 GiB of memory (inputs 8 GiB, outputs 8 GiB); there are 8 GiB; make it smaller",
)

SECTIONS: dict[str, tuple[str, Iterable[Fault]]] = {
    "Searches": (
        "Errors end with status 2, what stops a search with 128 and the signal's number; all files of the run are complete.",
        [CTRL_C, TERMINATED, HUNG_UP, KILLED, SECOND_SEARCH, FULL_AT_ONCE, FULL_LATER, NO_WORKERS, *FAILED_RESUMES.values()],
    ),
    "Ray": (
        "From the command line each line begins with `error: ` and ends with what was kept; in Python it is a `MeasureError`.",
        [
            *(RAYLET_KILLED, *STRUCK.values(), GCS_STOPPED, KILLED_WITH_RAY, NOTHING_LISTENS),
            *(NOT_RAY, FEW_CPUS, BUSY, RESUME_WITHOUT_RAY, RAY_REPLACED),
        ],
    ),
    "Compiled models": (
        "[errors.md](errors.md) has the files that cannot be read, and sizes that cannot be.",
        [SHARED, FORKED, FORKED_MEANWHILE, PICKLED, PICKLED_ELSEWHERE, COMPILER_CRASH, MEMORY_LIMIT],
    ),
}


def page() -> str:
    """The text of docs/faults.md."""
    lines = ["# Faults", "", INTRODUCTION]
    for heading, (text, faults) in SECTIONS.items():
        lines += _section(heading, text, "| what was done | what was lost | what is read |", map(_cells, faults))
    lines += _section(
        "Programs that are measured",
        "A program that goes wrong is a trial that failed: a record says so, and the search goes on.",
        "| the program | `error` of the record | `error_stage` |",
        ((fault.title, f"`{fault.error}`", f"`{fault.stage}`") for fault in PROGRAM_FAULTS.values()),
    )
    lines += _section(
        "Plug-ins",
        "Rules, cost models, policies, task schedulers, objectives, mutations and runners of a user's own that are wrong: one "
        f"line and status 2. Nothing is lost, and where the search had begun the line ends with `{KEPT.removeprefix('; ')}`. "
        "KeyboardInterrupt in a plug-in is Ctrl-C.",
        "| plug-in | what is wrong with it | what is read |",
        ((fault.kind, fault.title, f"error: {fault.say}") for fault in PLUG_INS),
    )
    lines += _section(
        "Mutated files",
        "Random changes, from seeds. Each is refused by one line, or its result is right: none ends in an exception from "
        "within, a signal, a hang or a wrong number. `python tests/campaign.py models 0 5000` runs more of them.",
        "| what is changed | how many |",
        ((title, str(SEEDS)) for title in MUTATIONS.values()),
    )
    return "\n".join([*lines, ""])


def _cells(fault: Fault) -> tuple[str, ...]:
    return fault.title, fault.lost, fault.say or "—"


def _section(heading: str, text: str, head: str, rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    yield from ("", f"## {heading}", "", text, "", head, f"|{'---|' * (head.count('|') - 1)}")
    yield from (f"| {' | '.join(cell.replace('|', '&#124;') for cell in row)} |" for row in rows)


if __name__ == "__main__":
    PAGE.write_text(page())
