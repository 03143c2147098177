"""A supervised child process: a fresh interpreter, and a socket to it for pickled messages.

Never a fork: LightGBM's threads hang after one. A socket that breaks means that the child died, and its standard error says
why. The child is the leader of a process group, which ends as a whole: with `kill`, and when this process disappears, because
then the child's standard input ends (`ansor_py.measure.child.end_with_parent`). Neither a child that stopped in the middle of
a message nor one that does not read can hold up this process for longer than STUCK_SECONDS.

    child = ChildProcess("from ansor_py.measure.child import main; main({descriptor})", child_environment({}))
    child.start()
    child.send(("builder", (0, 1), RunSettings(), ()))
    child.receive()                 # None until there is a message; Died("killed by SIGKILL") when there will be none
"""

from __future__ import annotations

import os
import pickle
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO, Any

from ansor_py.errors import MeasureError
from ansor_py.measure.build import TEXT_LIMIT
from ansor_py.measure.workers import Died

STUCK_SECONDS = 6.0  # for which a message may not get on
_END_SECONDS = 5.0  # for which a child may live when its socket is closed
_TAIL_BYTES = 4096


class ChildProcess:
    """One child at a time that runs `program`, in which `{descriptor}` stands for its end of the socket.

    `meanings` explains signals, where it is known what a child that dies of one has done.
    """

    def __init__(self, program: str, environment: Mapping[str, str], meanings: Mapping[int, str] | None = None) -> None:
        self._program = program
        self._environment = environment
        self._meanings = meanings or {}
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection[Any, Any] | None = None
        self._stderr: IO[bytes] | None = None
        self._stopped = "it was stopped"

    @property
    def pid(self) -> int | None:
        """The process id of the present child."""
        return self._process.pid if self._process else None

    @property
    def is_stopped(self) -> bool:
        """Whether somebody has stopped the child, by SIGSTOP or a debugger, so that it can say nothing."""
        try:
            return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] in ("T", "t")
        except OSError:
            return False

    @property
    def waitable(self) -> Connection[Any, Any] | None:
        """What becomes readable when there is a message or the child dies."""
        return self._connection

    def start(self) -> None:
        """Start a child, in place of the present one if there is one. Raises MeasureError when the system refuses."""
        self.kill()
        try:
            self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  (closed by `kill`)
            self._connection, theirs = Pipe()
            with theirs:
                _limit_waiting(self._connection)
                self._process = subprocess.Popen(
                    [sys.executable, "-c", self._program.format(descriptor=theirs.fileno())],
                    stdin=subprocess.PIPE,  # its end tells the child that this process is gone
                    stdout=subprocess.DEVNULL,
                    stderr=self._stderr,
                    pass_fds=(theirs.fileno(),),
                    env=self._environment,
                    process_group=0,  # Ctrl-C in the terminal is for the search, not for its workers
                )
        except OSError as error:
            self.kill()
            raise MeasureError(f"a child process cannot be started: {error.strerror or error}") from error

    def send(self, message: object) -> None:
        """Give the child a message. If it died, `receive` will tell."""
        if self._connection is None:
            return
        try:
            self._connection.send(message)
        except (BrokenPipeError, ConnectionResetError):
            return
        except BlockingIOError:
            self.kill()  # half a message was sent
            self._stopped = f"it took no message for {STUCK_SECONDS:g} s"

    def receive(self) -> object | None:
        """The next message, None if there is none yet, or Died; never waits for one to begin."""
        if self._connection is None:
            return Died(self._stopped)
        try:
            if not self._connection.poll():
                return None
            message: object = self._connection.recv()
            return message
        except BlockingIOError:
            self.kill()
            return Died(f"it stopped in the middle of a message, for {STUCK_SECONDS:g} s")
        except (EOFError, OSError, pickle.UnpicklingError):
            return Died(self._last_words())
        except BaseException:
            self.kill()  # interrupted within a message: the rest of it must not be read as another one
            raise

    def kill(self) -> None:
        """End the child and its process group at once; calling it again does nothing."""
        if self._process is not None:
            if self._process.returncode is None:  # not waited for yet, so that the number is still its own
                _end_group(self._process.pid)
            self._process.wait()
            if self._process.stdin is not None:
                self._process.stdin.close()
        for resource in (self._connection, self._stderr):
            if resource is not None:
                resource.close()
        self._process = self._connection = self._stderr = None
        self._stopped = "it was stopped"

    def _last_words(self) -> str:
        """How the child ended: the signal or the exit status, and the end of what it printed. Nothing of it is left."""
        assert self._process is not None
        assert self._stderr is not None
        deadline = time.monotonic() + _END_SECONDS
        waiting = os.WEXITED | os.WNOHANG | os.WNOWAIT
        while os.waitid(os.P_PID, self._process.pid, waiting) is None and time.monotonic() < deadline:
            time.sleep(0.005)
        _end_group(self._process.pid)
        status = self._process.wait()
        printed = _tail(self._stderr)
        text = f"killed by {_signal_name(-status)}" if status < 0 else f"ended with status {status}"
        text += f" ({self._meanings[-status]})" if -status in self._meanings else ""
        return (f"{text}: {printed}" if printed else text)[:TEXT_LIMIT]


def _end_group(group: int) -> None:
    """Kill a process group; one that has ended already is no error."""
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def child_environment(changes: Mapping[str, str]) -> dict[str, str]:
    """The environment of this process for a child, with the modules that this process sees, and `changes`."""
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    return {**os.environ, "PYTHONPATH": path, **changes}


def _limit_waiting(connection: Connection[Any, Any]) -> None:
    """Sending and receiving that does not get on for too long is a BlockingIOError, not a wait for ever."""
    limit = struct.pack("ll", int(STUCK_SECONDS), 0)
    with socket.socket(fileno=os.dup(connection.fileno())) as view:
        for option in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):
            view.setsockopt(socket.SOL_SOCKET, option, limit)


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
