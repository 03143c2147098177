"""Workers in Ray: builders are stateless tasks of one CPU, runners are actors that are pinned to their cores.

There are as many builds in flight as CPUs, and one runner a node. Ray's CPU numbers are only bookkeeping, and asking for more
than there are waits for ever, so a runner reserves its cores only where builds have others to use. Calls of Ray may also hang
or end the process when a part of Ray is gone; `ray_driver.py`, which alone uses this module, is a process of its own.

    ray = import_ray()
    connect(ray, None)                                 # starts a local Ray, which ends with `ray.shutdown()`
    pool = RayPool(ray, find_nodes(ray, threads=2, local=True), threads=2, options)
"""

from __future__ import annotations

import functools
import logging
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ansor_py.errors import MeasureError
from ansor_py.measure.build import TEXT_LIMIT, BuildJob, BuildReply, perform_build
from ansor_py.measure.child import warm_up
from ansor_py.measure.cores import WORKER_ENVIRONMENT, CorePlan, available_cores, needs_alternation, pin, plan_cores
from ansor_py.measure.workers import Died, Job, JobServer, Message, Ready, Reply, Worker

if TYPE_CHECKING:
    from ansor_py.measure.interface import MeasureOptions
    from ansor_py.measure.run import PrepareJob, RunJob, RunSettings
    from ansor_py.schedule.dag import ComputeDAG

OBJECT_STORE_BYTES = 256 << 20  # DAGs and object code are small
# Ray tells with some delay that a job has ended and its CPUs are free again.
FREE_SECONDS, FREE_STEP_SECONDS = 5.0, 0.1


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
        os.environ.update(WORKER_ENVIRONMENT)
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


# --- what runs in the driver


class Shared:
    """What all workers have in common: the functions of build tasks, which Ray stores once, and the DAGs that were sent."""

    def __init__(self, ray: Any) -> None:
        self.build = ray.remote(num_cpus=1, max_retries=0)(build_task)
        self.ready = ray.remote(num_cpus=1, max_retries=0)(ready_task)
        self.dags: dict[str, Any] = {}


class RayWorker:
    """A place for one job at a time: a lane of build tasks. At most one call of Ray is in flight."""

    def __init__(self, ray: Any, shared: Shared) -> None:
        self._ray = ray
        self._shared = shared
        self.pending: Any = None

    def start(self) -> None:
        self.pending = self._shared.ready.remote()

    def send(self, job: Job, dag: ComputeDAG) -> None:
        dags = self._shared.dags
        if job.workload_key not in dags:
            dags[job.workload_key] = self._ray.put(dag)  # once a task
        self.pending = self._shared.build.remote(job, dags[job.workload_key])

    def receive(self) -> Message | None:
        if self.pending is None or not self._ray.wait([self.pending], timeout=0)[0]:
            return None
        reference, self.pending = self.pending, None
        try:
            message: Message = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            return Died(reason(error))
        return message

    def kill(self) -> None:
        if self.pending is not None:
            self._ray.cancel(self.pending, force=True)
            self.pending = None


class RayRunner(RayWorker):
    """A runner actor on one node; replaced by a new actor when it has died."""

    def __init__(self, ray: Any, shared: Shared, node: Node, threads: int, settings: RunSettings) -> None:
        super().__init__(ray, shared)
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
class Node:
    """A machine of the Ray cluster."""

    id: str
    cpus: int
    alternating: bool


class RayPool:
    """Build lanes for the CPUs of all nodes and one runner a node."""

    def __init__(self, ray: Any, nodes: Sequence[Node], threads: int, options: MeasureOptions) -> None:
        self._ray = ray
        self.alternating = any(node.alternating for node in nodes)
        cpus = sum(node.cpus - (0 if node.alternating else threads) for node in nodes)
        shared = Shared(ray)
        self._builders = [RayWorker(ray, shared) for _ in range(min(options.builders or cpus, cpus))]
        self._runners = [RayRunner(ray, shared, node, threads, options.run) for node in nodes]
        self.builders: Sequence[Worker] = self._builders
        self.runners: Sequence[Worker] = self._runners

    def wait(self, workers: Sequence[Worker], timeout: float) -> None:
        pending = [w.pending for w in workers if isinstance(w, RayWorker) and w.pending is not None]
        if len(pending) == len(workers):
            self._ray.wait(pending, num_returns=1, timeout=timeout)

    def close(self) -> None:
        for worker in (*self._builders, *self._runners):
            worker.kill()


def import_ray() -> Any:
    """Ray, without notices. Raises MeasureError where it is not installed."""
    try:
        import ray
        import ray.util.scheduling_strategies
    except ImportError as error:
        raise MeasureError(f"Ray cannot be imported ({error}); install it") from error
    logging.getLogger("ray").setLevel(logging.ERROR)
    return ray


def connect(ray: Any, address: str | None) -> None:
    """Start a local Ray, or connect to a cluster. Raises MeasureError when Ray says why it cannot; it may also hang."""
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": False}
    try:
        if address is not None:
            ray.init(address=address, **quiet)
            return
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
        raise MeasureError(f"{what}: {reason(error)}") from error


def find_nodes(ray: Any, threads: int, local: bool) -> list[Node]:
    """The nodes that have at least `threads` CPUs; raises MeasureError if there are none or some of their CPUs are in use.

    A local Ray is this machine, which has to do however many threads are wanted.
    """
    sizes = {node["NodeID"]: int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]}
    needed = 1 if local else threads
    nodes = [Node(name, cpus, needs_alternation(cpus, threads)) for name, cpus in sizes.items() if cpus >= needed]
    if not nodes:
        raise MeasureError(
            f"a program needs {threads} CPUs of one node, and the largest node of the Ray cluster has "
            f"{max(sizes.values(), default=0)}; lower --threads"
        )
    wanted = sum(node.cpus for node in nodes)
    free = wanted if local else _free_cpus(ray, wanted)
    if free < wanted:
        raise MeasureError(
            f"only {free:g} of the {wanted} CPUs of the Ray cluster are free, and timings must not share cores; "
            "end the other jobs"
        )
    return nodes


def _free_cpus(ray: Any, wanted: int) -> float:
    """How many CPUs of the cluster nobody uses, once that are as many as wanted or some seconds have passed."""
    deadline = time.monotonic() + FREE_SECONDS
    while (free := float(ray.available_resources().get("CPU", 0.0))) < wanted and time.monotonic() < deadline:
        time.sleep(FREE_STEP_SECONDS)
    return free


def reason(error: Exception) -> str:
    """What Ray says about a worker that is gone, as one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines)}"[:TEXT_LIMIT]
