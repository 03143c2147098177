"""Measuring through Ray: on this machine with a local Ray that the measurer starts and stops, or on a cluster.

Ray itself runs in a child process (`ray_driver.py`). Whatever happens to Ray, this process, which owns what was measured,
goes on within seconds with a MeasureError.

    with create_measurer("ray", target=Target.detect(), threads=2) as measurer: ...
    options = MeasureOptions(ray_address="10.0.0.1:6379")     # a cluster whose nodes are like this machine
"""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing import connection as connections
from typing import TYPE_CHECKING

from ansor_py.errors import MeasureError
from ansor_py.measure.build import module_of
from ansor_py.measure.child_process import ChildProcess, child_environment
from ansor_py.measure.interface import MeasureInput, MeasureOptions, Measurer, measurer
from ansor_py.measure.ray_driver import REACH_SECONDS, WAITING, Begin, Close, Connected, Doing, Failed, Measure, Results
from ansor_py.measure.result import MeasureResult
from ansor_py.measure.workers import Died

if TYPE_CHECKING:
    from ansor_py.target import Target

CLOSE_SECONDS = 5.0  # for Ray to end in good order
LISTEN_SECONDS = 0.5  # for a driver that was stopped together with this process to say something again
_PROGRAM = "from ansor_py.measure.ray_driver import main; main({descriptor})"
_REMEDY = "--runner process measures without Ray"


@measurer("ray")
def ray_measurer(target: Target, threads: int, options: MeasureOptions) -> Measurer:
    """A measurer over Ray. Raises MeasureError when no Ray can be started or reached, or when it has no free CPU."""
    if options.ray_address is not None:
        check_address(options.ray_address)
    return RayMeasurer(threads, options)


class RayMeasurer(Measurer):
    """Hands programs to the driver and takes results from it, and notices when it dies or falls silent."""

    def __init__(self, threads: int, options: MeasureOptions) -> None:
        self._child = ChildProcess(_PROGRAM, child_environment({"RAY_USAGE_STATS_ENABLED": "0"}))
        self._doing = Doing("starting a Python process", options.start_timeout, time.monotonic())
        self._connected = False
        self._finished: list[tuple[int, MeasureResult]] = []
        self._next_id = 0
        self._outstanding = 0
        self._failure = ""
        self._closed = False
        imports = tuple(module_of(builder) for builder in (options.builder, options.reference_builder))
        try:
            self._child.start()
            self._child.send(Begin(threads, replace(options, extra={}), imports))
            while not self._connected:
                self._listen(math.inf)
                self._raise_failure()
        except BaseException:
            self._child.kill()
            raise

    @property
    def pid(self) -> int | None:
        """The process id of the driver."""
        return self._child.pid

    @property
    def outstanding(self) -> int:
        return self._outstanding

    def submit(self, batch: Sequence[MeasureInput]) -> list[int]:
        if self._closed:
            raise MeasureError("programs were submitted to a measurer that is closed")
        ids = list(range(self._next_id, self._next_id + len(batch)))
        self._next_id += len(ids)
        self._outstanding += len(ids)
        self._child.send(Measure(tuple(ids), tuple(batch)))
        return ids

    def poll(self, timeout: float | None = None) -> list[tuple[int, MeasureResult]]:
        limit = math.inf if timeout is None else time.monotonic() + timeout
        while not self._closed:
            self._take_all()
            if self._finished or not self._outstanding:
                break
            self._raise_failure()
            if time.monotonic() >= limit:
                break
            self._listen(limit)
        results, self._finished = self._finished, []
        self._outstanding -= len(results)
        return results

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            self._child.send(Close())
            deadline = time.monotonic() + CLOSE_SECONDS
            while not self._failure and time.monotonic() < deadline:
                self._wait(deadline)
                self._take_all()
        finally:
            self._child.kill()

    def _listen(self, limit: float) -> None:
        """Wait for a message until `limit`, or until the driver has been silent for too long, which is a failure."""
        self._wait(min(self._overdue, limit))
        self._take_all()
        if time.monotonic() >= self._overdue:
            self._wait(time.monotonic() + LISTEN_SECONDS)
            self._take_all()
        if time.monotonic() >= self._overdue and not self._failure:
            doing = self._doing
            if self._child.is_stopped:  # whatever it was doing then, those whom it asked are not to blame
                doing = Doing(WAITING, doing.seconds, doing.at)
            hint = f" ({doing.hint})" if doing.hint else ""
            self._fail(f"{doing.what} takes longer than {doing.seconds:g} s{hint}")

    @property
    def _overdue(self) -> float:
        return self._doing.at + self._doing.seconds

    def _wait(self, deadline: float) -> None:
        if self._child.waitable is not None:
            connections.wait([self._child.waitable], max(deadline - time.monotonic(), 0.0))

    def _take_all(self) -> None:
        """Take the messages that are there."""
        while not self._failure and (message := self._child.receive()) is not None:
            match message:
                case Doing():
                    self._doing = message
                case Connected():
                    self._connected = True
                case Results(results):
                    self._finished += results
                case Failed(text):
                    self._fail(text)
                case Died(text):
                    self._fail(f"the process that uses Ray is gone ({text}), which happens when its raylet or GCS ends")

    def _fail(self, text: str) -> None:
        self._failure = text
        self._child.kill()

    def _raise_failure(self) -> None:
        if self._failure:
            self._closed = True
            raise MeasureError(f"{self._failure}; {_REMEDY}")


def check_address(address: str) -> None:
    """Raise MeasureError when nobody listens at `host:port`, for which Ray itself would try for minutes."""
    host, separator, port = address.removeprefix("ray://").rpartition(":")
    if not (separator and port.isdecimal()):
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACH_SECONDS).close()
    except (OSError, ValueError, OverflowError) as error:  # the last two for names and numbers that cannot be
        raise MeasureError(f"the Ray cluster at '{address}' cannot be reached: {error}; {_REMEDY}") from error
