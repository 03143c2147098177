"""Measuring in supervised child processes of this one, without Ray.

Each worker is a fresh interpreter (never a fork: OpenMP hangs after one) that imports only the layers below measuring, and is
started with its cores and OpenMP variables already set. It talks through a socket; a broken socket means that it died, and
its standard error says why. A worker whose parent disappears ends itself, because its standard input ends.

    with create_measurer("process", target=Target.detect(), threads=2) as measurer: ...
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing import Pipe
from multiprocessing import connection as connections
from multiprocessing.connection import Connection
from typing import IO, TYPE_CHECKING, Any

from ansor_py.errors import OptionError
from ansor_py.measure.batches import BatchMeasurer
from ansor_py.measure.build import TEXT_LIMIT
from ansor_py.measure.cores import CorePlan, openmp_environment, plan_cores
from ansor_py.measure.interface import MeasureOptions, Measurer, register_measurer
from ansor_py.measure.workers import Died, Job, Message, Role, Worker

if TYPE_CHECKING:
    from ansor_py.measure.run import RunSettings
    from ansor_py.schedule.dag import ComputeDAG
    from ansor_py.target import Target

_PROGRAM = "from ansor_py.measure.child import main; main({descriptor})"
_TAIL_BYTES = 4096


class ProcessWorker:
    """One child process with a socket to it. `greeting` is the pickled start message, `cores` those it may use."""

    def __init__(self, role: Role, cores: Sequence[int], settings: RunSettings, imports: Sequence[str]) -> None:
        self._role = role
        self._cores = tuple(cores)
        self._greeting = (role, self._cores, settings, tuple(imports))
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection[Any, Any] | None = None
        self._stderr: IO[bytes] | None = None
        self._known_dags: set[str] = set()

    @property
    def pid(self) -> int | None:
        """The process id of the present child."""
        return self._process.pid if self._process else None

    @property
    def waitable(self) -> Connection[Any, Any] | None:
        """What becomes readable when there is a message or the child dies."""
        return self._connection

    def start(self) -> None:
        self.kill()
        self._known_dags.clear()
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  (closed by `kill`)
        self._connection, theirs = Pipe()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM.format(descriptor=theirs.fileno())],
                stdin=subprocess.PIPE,  # its end tells the child that this process is gone
                stdout=subprocess.DEVNULL,
                stderr=self._stderr,
                pass_fds=(theirs.fileno(),),
                env=self._environment(),
                process_group=0,  # Ctrl-C in the terminal is for the search, not for its workers
            )
        self._put(self._greeting)

    def send(self, job: Job, dag: ComputeDAG) -> None:
        unknown = job.workload_key not in self._known_dags
        self._known_dags.add(job.workload_key)
        self._put((job, dag if unknown and self._role == "builder" else None))

    def receive(self) -> Message | None:
        if self._connection is None:
            return Died("it was stopped")
        try:
            if not self._connection.poll():
                return None
            message: Message = self._connection.recv()
            return message
        except (EOFError, OSError, pickle.UnpicklingError):
            return Died(self._last_words())
        except BaseException:
            self.kill()  # interrupted within a message: the rest of it must not be read as another one
            raise

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            if self._process.stdin is not None:
                self._process.stdin.close()
        for resource in (self._connection, self._stderr):
            if resource is not None:
                resource.close()
        self._process = self._connection = self._stderr = None

    def _put(self, message: object) -> None:
        assert self._connection is not None
        try:
            self._connection.send(message)
        except (BrokenPipeError, ConnectionResetError):
            return  # it died while idle: receiving will tell

    def _environment(self) -> dict[str, str]:
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        return {**os.environ, **openmp_environment(self._cores), "PYTHONPATH": path}

    def _last_words(self) -> str:
        """How the child ended: the signal or the exit status, and the end of what it printed."""
        assert self._process is not None
        assert self._stderr is not None
        try:
            status = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait()
        printed = _tail(self._stderr)
        text = f"killed by {_signal_name(-status)}" if status < 0 else f"ended with status {status}"
        if -status in (signal.SIGSEGV, signal.SIGBUS):
            text += " (an access outside of all buffers; each lies between guard pages)" if self._role == "runner" else ""
        return (f"{text}: {printed}" if printed else text)[:TEXT_LIMIT]


class ProcessPool:
    """Builders on the cores of the plan and one runner that owns its cores."""

    def __init__(self, plan: CorePlan, builders: int, settings: RunSettings, imports: Sequence[str]) -> None:
        self.alternating = plan.alternating
        self._builders = [ProcessWorker("builder", plan.build, settings, imports) for _ in range(builders)]
        self._runners = [ProcessWorker("runner", plan.run, settings, ())]
        self.builders: Sequence[Worker] = self._builders
        self.runners: Sequence[Worker] = self._runners

    @property
    def pids(self) -> list[int]:
        """Process ids of the present children."""
        return [worker.pid for worker in (*self._builders, *self._runners) if worker.pid is not None]

    def wait(self, workers: Sequence[Worker], timeout: float) -> None:
        wanted = {id(worker) for worker in workers}
        candidates = [worker for worker in (*self._builders, *self._runners) if id(worker) in wanted]
        waitables = [worker.waitable for worker in candidates if worker.waitable is not None]
        if len(waitables) == len(candidates):
            connections.wait(waitables, timeout)

    def close(self) -> None:
        for worker in (*self._builders, *self._runners):
            worker.kill()


@register_measurer("process")
def process_measurer(target: Target, threads: int, options: MeasureOptions) -> Measurer:
    """A measurer with child processes. Raises OptionError when a builder function cannot be imported by a child."""
    plan = plan_cores(threads)
    imports = [_module_of(builder) for builder in (options.builder, options.reference_builder)]
    pool = ProcessPool(plan, options.builders or len(plan.build), options.run, imports)
    return BatchMeasurer(pool, options)


def _module_of(builder: Callable[..., object]) -> str:
    """The module that a child has to import for a builder: a function, a `partial` of one, or an object with `__call__`."""
    function = builder.func if isinstance(builder, partial) else builder
    definition = function if hasattr(function, "__qualname__") else type(function)
    module, name = definition.__module__, definition.__qualname__
    if module == "__main__" or "<" in name:
        raise OptionError(
            f"builder '{name}' cannot be found by a worker process; define it at the top of a module that can be imported"
        )
    return module


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _tail(file: IO[bytes]) -> str:
    """The last lines that a child printed, without a traceback's frames."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(size - _TAIL_BYTES, 0))
    lines = [line for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    said = [line.strip() for line in lines if not line.startswith(" ")]
    return " | ".join(said[-3:])
