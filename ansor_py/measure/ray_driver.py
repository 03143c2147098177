"""The main function of the child process in which everything that has to do with Ray happens.

Ray ends a process that has lost it (raylet killed), or lets its calls hang, some for a minute (GCS killed), some for ever
(either stopped), and prints pages. So the process that owns the search never imports it. It sends this one programs and is
sent results, and in between, every second, what this process is doing and how long that may take at most (`Doing`): silence
beyond that means that Ray is gone. Every other second the raylet and the GCS are asked something that they answer in
milliseconds.
"""

from __future__ import annotations

import importlib
import threading
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Protocol

from ansor_py.errors import MeasureError
from ansor_py.measure.batches import BatchMeasurer
from ansor_py.measure.child import end_with_parent
from ansor_py.measure.interface import MeasureInput, MeasureOptions
from ansor_py.measure.ray_pool import FREE_SECONDS, RayPool, connect, find_nodes, import_ray
from ansor_py.measure.result import MeasureResult

# Everything is to end within ten seconds of a fault.
SILENCE_SECONDS = 5.0
REACH_SECONDS = 10.0  # for connecting to a cluster, and for handing it all workers
WAIT_SECONDS, BUSY_WAIT_SECONDS = 1.0, 0.2  # for messages while nothing is measured, for results otherwise
TELL_SECONDS, PROBE_SECONDS = 1.0, 2.0


@dataclass(frozen=True)
class Begin:
    """The first message to the driver: import these modules, start or find Ray, make a measurer."""

    threads: int
    options: MeasureOptions
    imports: tuple[str, ...]


@dataclass(frozen=True)
class Measure:
    """Programs to measure, and the numbers that their results are to have."""

    numbers: tuple[int, ...]
    programs: tuple[MeasureInput, ...]


@dataclass(frozen=True)
class Close:
    """Disconnect from Ray, end a local one, and end."""


WAITING = "waiting for Ray"  # what the driver says that it does when it does nothing else


@dataclass(frozen=True)
class Doing:
    """What the driver does since `at` (on the monotonic clock, which all processes share), for how long at most.

    It says something new in time; `hint` is what it means if it does not.
    """

    what: str
    seconds: float
    at: float
    hint: str = ""


@dataclass(frozen=True)
class Connected:
    """The driver has a Ray with CPUs and takes programs."""


@dataclass(frozen=True)
class Results:
    """Measured programs."""

    results: tuple[tuple[int, MeasureResult], ...]


@dataclass(frozen=True)
class Failed:
    """The driver cannot go on."""

    text: str


class Tell(Protocol):
    """Says what the driver does next."""

    def __call__(self, what: str, seconds: float, hint: str = "") -> None:
        """See `Doing`."""


def main(descriptor: int) -> None:
    """Serve a measurer over Ray from a socket until the socket closes or says so."""
    connection: Connection[Any, Any] = Connection(descriptor)
    threading.Thread(target=end_with_parent, daemon=True).start()

    def tell(what: str, seconds: float, hint: str = "") -> None:
        connection.send(Doing(what, seconds, time.monotonic(), hint))

    begin: Begin = connection.recv()
    try:
        for module in begin.imports:
            importlib.import_module(module)
        ray, measurer = _start(begin, tell)
        connection.send(Connected())
        _serve(connection, ray, measurer, tell)
    except MeasureError as error:
        connection.send(Failed(str(error)))
        return  # and Ray is ended by force
    measurer.close()
    ray.shutdown()


def _start(begin: Begin, tell: Tell) -> tuple[Any, BatchMeasurer]:
    options, address = begin.options, begin.options.ray_address
    tell("importing Ray", options.start_timeout)
    ray = import_ray()
    if address is None:
        tell("starting a local Ray", options.start_timeout)
    else:
        tell(f"connecting to a Ray cluster at '{address}'", REACH_SECONDS, "there is probably none")
    connect(ray, address)
    tell("asking Ray for its CPUs", SILENCE_SECONDS + FREE_SECONDS)
    nodes = find_nodes(ray, begin.threads, local=address is None)
    tell("starting workers of Ray", REACH_SECONDS)
    return ray, BatchMeasurer(RayPool(ray, nodes, begin.threads, options), options)


def _serve(connection: Connection[Any, Any], ray: Any, measurer: BatchMeasurer, tell: Tell) -> None:
    """Measure what is sent and send what was measured."""
    numbers: dict[int, int] = {}
    told = probed = 0.0
    while True:
        now = time.monotonic()
        if now - probed >= PROBE_SECONDS:
            probed = now
            _probe(ray, tell)
            told = 0.0
        if now - told >= TELL_SECONDS:
            told = now
            tell(WAITING, SILENCE_SECONDS)
        if connection.poll(0 if measurer.outstanding else WAIT_SECONDS):
            message = connection.recv()
            if isinstance(message, Close):
                return
            numbers.update(zip(measurer.submit(message.programs), message.numbers, strict=True))
        if results := measurer.poll(BUSY_WAIT_SECONDS):
            connection.send(Results(tuple((numbers.pop(number), result) for number, result in results)))


def _probe(ray: Any, tell: Tell) -> None:
    """Ask the processes without which Ray measures nothing. What goes wrong is an exception, the end, or silence."""
    tell("asking Ray's raylet", SILENCE_SECONDS, "it is stopped or gone")
    ray.put(b"")
    tell("asking Ray's GCS", SILENCE_SECONDS, "it is stopped or gone")
    ray.nodes()
