"""Measuring through Ray: on this machine with a local Ray that the measurer starts and stops, or on a cluster.

Builders are stateless tasks of one CPU; there are as many in flight as CPUs. Each node has one runner, an actor that is pinned
to its cores. Ray's CPU numbers are only bookkeeping, and asking for more than there are waits for ever, so a runner
reserves its cores only where builds have others to use. Ray is imported when a measurer is made, not before.

    with create_measurer("ray", target=Target.detect(), threads=2) as measurer: ...
    options = MeasureOptions(ray_address="10.0.0.1:6379")     # a cluster whose nodes are like this machine
"""

from __future__ import annotations

import functools
import logging
import os
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ansor_py.errors import MeasureError
from ansor_py.measure.batches import BatchMeasurer
from ansor_py.measure.build import TEXT_LIMIT, BuildJob, BuildReply, perform_build
from ansor_py.measure.child import warm_up
from ansor_py.measure.cores import CorePlan, available_cores, needs_alternation, openmp_environment, pin, plan_cores
from ansor_py.measure.interface import MeasureOptions, Measurer, register_measurer
from ansor_py.measure.workers import Died, Job, JobServer, Message, Ready, Reply, Worker

if TYPE_CHECKING:
    from ansor_py.measure.run import PrepareJob, RunJob, RunSettings
    from ansor_py.schedule.dag import ComputeDAG
    from ansor_py.target import Target

OBJECT_STORE_BYTES = 256 << 20  # DAGs and object code are small
REACH_SECONDS = 10.0
# Ray tells with some delay that a job has ended and its CPUs are free again.
FREE_SECONDS, FREE_STEP_SECONDS = 5.0, 0.1


@register_measurer("ray")
def ray_measurer(target: Target, threads: int, options: MeasureOptions) -> Measurer:
    """A measurer over Ray. Raises MeasureError when no Ray can be started or reached, or when it has no free CPU."""
    if options.ray_address is None:
        plan_cores(threads)
    return BatchMeasurer(RayPool(threads, options), options)


# --- what runs in Ray's workers


def build_task(job: BuildJob, dag: ComputeDAG) -> BuildReply:
    """A stateless task: compile one program on the cores of this node that build."""
    pin(_node_plan(job.threads).build)
    return perform_build(job, dag)


def ready_task() -> Ready:
    """Shows that Ray has a worker for builds, with everything imported."""
    warm_up()
    return Ready()


class RunnerActor:
    """Owns cores of a node and runs programs there, one after another."""

    def __init__(self, threads: int, settings: RunSettings) -> None:
        plan = _node_plan(threads)
        os.environ.update(openmp_environment(plan.run))  # before libgomp is loaded; Ray has set OMP_NUM_THREADS
        pin(plan.run)
        warm_up()
        self._server = JobServer("runner", settings)

    def ready(self) -> Ready:
        """Answers when the actor has been made."""
        return Ready()

    def perform(self, job: PrepareJob | RunJob) -> Reply:
        """Do one job."""
        return self._server.perform(job, None)


@functools.cache
def _node_plan(threads: int) -> CorePlan:
    return plan_cores(threads, _initial_cores())


@functools.cache
def _initial_cores() -> tuple[int, ...]:
    """The cores of this worker process before it was pinned for the first time."""
    return available_cores()


# --- what runs in the search


class RayWorker:
    """A place for one job at a time: a lane of build tasks. At most one call of Ray is in flight."""

    def __init__(self, ray: Any, dags: dict[str, Any]) -> None:
        self._ray = ray
        self._dags = dags
        self._build = ray.remote(num_cpus=1, max_retries=0)(build_task)
        self._ready = ray.remote(num_cpus=1, max_retries=0)(ready_task)
        self.pending: Any = None

    def start(self) -> None:
        self.pending = self._ready.remote()

    def send(self, job: Job, dag: ComputeDAG) -> None:
        if job.workload_key not in self._dags:
            self._dags[job.workload_key] = self._ray.put(dag)  # once a task, shared by all builders
        self.pending = self._build.remote(job, self._dags[job.workload_key])

    def receive(self) -> Message | None:
        if self.pending is None or not self._ray.wait([self.pending], timeout=0)[0]:
            return None
        reference, self.pending = self.pending, None
        try:
            message: Message = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            return Died(_reason(error))
        return message

    def kill(self) -> None:
        if self.pending is not None:
            self._ray.cancel(self.pending, force=True)
            self.pending = None


class RayRunner(RayWorker):
    """A runner actor on one node; replaced by a new actor when it has died."""

    def __init__(self, ray: Any, dags: dict[str, Any], node: _Node, threads: int, settings: RunSettings) -> None:
        super().__init__(ray, dags)
        strategy = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node.id, soft=False)
        cpus = 0 if node.alternating else threads
        self._make = ray.remote(num_cpus=cpus, max_restarts=0, scheduling_strategy=strategy)(RunnerActor)
        self._arguments = (threads, settings)
        self._actor: Any = None

    def start(self) -> None:
        self.kill()
        self._actor = self._make.remote(*self._arguments)
        self.pending = self._actor.ready.remote()

    def send(self, job: Job, dag: ComputeDAG) -> None:
        self.pending = self._actor.perform.remote(job)

    def kill(self) -> None:
        if self._actor is not None:
            self._ray.kill(self._actor)
        self._actor = self.pending = None


@dataclass(frozen=True)
class _Node:
    """A machine of the Ray cluster."""

    id: str
    cpus: int
    alternating: bool


class RayPool:
    """Build lanes for the CPUs of all nodes and one runner a node."""

    def __init__(self, threads: int, options: MeasureOptions) -> None:
        self._ray, self._owned = _connect(options.ray_address)
        try:
            nodes = self._nodes(threads)
            self.alternating = any(node.alternating for node in nodes)
            cpus = sum(node.cpus - (0 if node.alternating else threads) for node in nodes)
            dags: dict[str, Any] = {}
            self._builders = [RayWorker(self._ray, dags) for _ in range(min(options.builders or cpus, cpus))]
            self._runners = [RayRunner(self._ray, dags, node, threads, options.run) for node in nodes]
        except BaseException:
            self._disconnect()
            raise
        self.builders: Sequence[Worker] = self._builders
        self.runners: Sequence[Worker] = self._runners

    def wait(self, workers: Sequence[Worker], timeout: float) -> None:
        pending = [w.pending for w in workers if isinstance(w, RayWorker) and w.pending is not None]
        if len(pending) == len(workers):
            self._ray.wait(pending, num_returns=1, timeout=timeout)

    def close(self) -> None:
        if self._ray.is_initialized():
            for worker in (*self._builders, *self._runners):
                worker.kill()
        self._disconnect()

    def _disconnect(self) -> None:
        if self._owned:
            self._owned = False
            self._ray.shutdown()

    def _nodes(self, threads: int) -> list[_Node]:
        """The nodes that have at least `threads` CPUs; raises MeasureError if there are none or none is free.

        A Ray of our own is this machine, which has to do however many threads are wanted.
        """
        found = []
        for node in self._ray.nodes():
            cpus = int(node["Resources"].get("CPU", 0)) if node["Alive"] else 0
            if cpus >= threads or (self._owned and cpus):
                found.append(_Node(node["NodeID"], cpus, needs_alternation(cpus, threads)))
        if not found:
            raise MeasureError(f"no node of the Ray cluster has the {threads} CPUs that a program needs; lower --threads")
        wanted = sum(node.cpus for node in found)
        free = self._free_cpus(wanted) if not self._owned else wanted
        if free < wanted:
            raise MeasureError(
                f"only {free:g} of the {wanted} CPUs of the Ray cluster are free, and timings must not share cores; "
                "end the other jobs, or measure without Ray (--runner process)"
            )
        return found

    def _free_cpus(self, wanted: int) -> float:
        """How many CPUs of the cluster nobody uses, once that are as many as wanted or some seconds have passed."""
        deadline = time.monotonic() + FREE_SECONDS
        while (free := float(self._ray.available_resources().get("CPU", 0.0))) < wanted and time.monotonic() < deadline:
            time.sleep(FREE_STEP_SECONDS)
        return free


def _connect(address: str | None) -> tuple[Any, bool]:
    """Ray, and whether this measurer has to disconnect from it (and so end it, if it is local)."""
    try:
        import ray
        import ray.util.scheduling_strategies
    except ImportError as error:
        raise MeasureError(f"Ray cannot be imported ({error}); install it, or measure with --runner process") from error
    if ray.is_initialized():
        return ray, False
    logging.getLogger("ray").setLevel(logging.ERROR)  # no notices between the lines of a progress display
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": False}
    try:
        if address is not None:
            _knock(address)
            ray.init(address=address, **quiet)
        else:
            with _local_environment():
                ray.init(
                    address="local",
                    num_cpus=len(available_cores()),
                    num_gpus=0,
                    include_dashboard=False,
                    object_store_memory=OBJECT_STORE_BYTES,
                    **quiet,
                )
    except (ray.exceptions.RayError, RuntimeError, ValueError, OSError) as error:
        what = "a local Ray cannot be started" if address is None else f"the Ray cluster at '{address}' cannot be reached"
        raise MeasureError(f"{what}: {str(error).strip()[:TEXT_LIMIT]}; or measure with --runner process") from error
    return ray, True


def _knock(address: str) -> None:
    """Raise OSError at once when nobody listens at `host:port`; Ray itself would try for minutes."""
    host, separator, port = address.removeprefix("ray://").rpartition(":")
    if separator and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACH_SECONDS).close()


@contextmanager
def _local_environment() -> Iterator[None]:
    """Environment of the processes of a local Ray: the modules that this process sees, and nothing sent home."""
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    changes = {"PYTHONPATH": path, "RAY_USAGE_STATS_ENABLED": "0"}
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _reason(error: Exception) -> str:
    """What Ray says about a worker that is gone, as one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines)}"[:TEXT_LIMIT]
