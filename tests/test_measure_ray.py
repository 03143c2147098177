"""The Ray backend beyond the conformance suite: whose Ray it is, and what is left when it closes."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ansor_py.errors import MeasureError
from ansor_py.measure import create_measurer
from measure_faults import MeasurerCache
from test_measure_backends import OPTIONS, TARGET, errors, programs


def ray_processes() -> list[int]:
    """Descendants of this process that belong to a Ray."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if fields[0] != "Z" and b"ray" in command:
                parents[int(entry.name)] = int(fields[1])
    found = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return sorted(found - {os.getpid()})


def test_a_ray_that_runs_already_is_used_and_left_alone(measurers: MeasurerCache) -> None:
    import ray

    first = measurers.get("ray", OPTIONS)
    first.measure(programs("good"))
    with create_measurer("ray", target=TARGET, threads=1, options=replace(OPTIONS, builders=1)) as second:
        assert errors(second.measure(programs("good", "wrong"))) == [("none", ""), ("wrong-result", "check")]
    assert ray.is_initialized()
    assert errors(first.measure(programs("good"))) == [("none", "")]


def job_with_a_cpu() -> Any:
    """Another job that holds one CPU of the cluster, once Ray, which tells with some delay, says that it does."""
    import ray

    class Other:
        def ready(self) -> bool:
            return True

    total, deadline = ray.cluster_resources()["CPU"], time.monotonic() + 60
    make: Any = ray.remote(num_cpus=1)(Other)
    other = make.remote()
    assert ray.get(other.ready.remote(), timeout=60)
    while ray.available_resources().get("CPU", 0.0) > total - 1:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return other


def test_cpus_that_become_free_late_are_waited_for(measurers: MeasurerCache) -> None:
    import ray

    measurers.get("ray", OPTIONS).measure(programs("good"))
    other = job_with_a_cpu()
    end = threading.Timer(0.5, ray.kill, [other])
    end.start()
    with create_measurer("ray", target=TARGET, threads=1, options=OPTIONS) as measurer:
        assert errors(measurer.measure(programs("good"))) == [("none", "")]
    end.join()


def test_busy_cluster_is_an_error(measurers: MeasurerCache) -> None:
    import ray

    measurers.get("ray", OPTIONS).measure(programs("good"))
    other = job_with_a_cpu()
    try:
        with pytest.raises(MeasureError, match="--runner process"):
            create_measurer("ray", target=TARGET, threads=1, options=OPTIONS)
    finally:
        ray.kill(other)


def test_more_threads_than_a_cluster_has_is_an_error(measurers: MeasurerCache) -> None:
    """A cluster that runs already is asked for whole nodes; only a Ray of our own may have fewer cores than threads."""
    measurers.get("ray", OPTIONS)
    with pytest.raises(MeasureError, match="--threads"):
        create_measurer("ray", target=TARGET, threads=10_000)


def test_close_ends_the_ray_that_it_started(measurers: MeasurerCache) -> None:
    import ray

    measurer = measurers.get("ray", OPTIONS)
    measurer.submit(programs("hang"))
    measurer.poll(timeout=2)
    assert ray_processes()
    measurers.close("ray")
    assert not ray.is_initialized()
    assert ray_processes() == []


def test_cluster_that_cannot_be_reached() -> None:
    options = replace(OPTIONS, ray_address="127.0.0.1:1")
    with pytest.raises(MeasureError, match=r"127\.0\.0\.1:1"):
        create_measurer("ray", target=TARGET, threads=1, options=options)
