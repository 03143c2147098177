"""The main function of a worker process of `ansor_py.measure.process`.

It keeps imports to what a worker needs, and is started as `python -c "from ansor_py.measure.child import main; main(fd)"`, so
that neither the user's script nor the command line is imported again.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
from multiprocessing.connection import Connection
from typing import Any

from ansor_py.measure.cores import pin
from ansor_py.measure.workers import JobServer, Ready


def main(descriptor: int) -> None:
    """Serve jobs from a socket until it closes."""
    connection: Connection[Any, Any] = Connection(descriptor)
    threading.Thread(target=end_with_parent, daemon=True).start()
    role, cores, settings, imports = connection.recv()
    pin(cores)
    for module in imports:
        importlib.import_module(module)
    server = JobServer(role, settings)
    warm_up()
    connection.send(Ready())
    dags: dict[str, Any] = {}
    while True:
        try:
            job, dag = connection.recv()
        except EOFError:
            return
        if dag is not None:
            dags[job.workload_key] = dag
        connection.send(server.perform(job, dags.get(job.workload_key)))


def warm_up() -> None:
    """Import what the first job would otherwise import within its time limit."""
    importlib.import_module("ansor_py.codegen.kernel")


def end_with_parent() -> None:
    """Standard input ends when the parent does; then nobody wants the results of this process and of those that it started."""
    while os.read(sys.stdin.fileno(), 4096):
        continue
    if os.getpgrp() == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(1)
