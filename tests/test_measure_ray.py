"""The Ray backend beyond the conformance suite: whose Ray it is, what is left when it closes, and what is no Ray."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

import faults
from ansor_py.errors import MeasureError
from ansor_py.measure import MeasureOptions, create_measurer
from ansor_py.measure.ray_backend import RayMeasurer
from measure_faults import MeasurerCache
from process_tree import descendants, wait_until_gone
from test_measure_backends import OPTIONS, TARGET, errors, programs

CPUS = 2


@pytest.fixture(scope="module")
def cluster() -> Iterator[MeasureOptions]:
    """Options for a Ray of somebody else with two CPUs, which this process can talk to as well."""
    import ray

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # its workers import this folder's builders
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        ray.init(address="local", num_cpus=CPUS, num_gpus=0, include_dashboard=False, log_to_driver=False)
    try:
        yield replace(OPTIONS, ray_address=ray.get_runtime_context().gcs_address)
    finally:
        ray.shutdown()


def job_with_a_cpu() -> Any:
    """Another job that holds one CPU of the cluster, once Ray, which tells with some delay, says that it does."""
    import ray

    class Other:
        def ready(self) -> bool:
            return True

    deadline = time.monotonic() + 60
    make: Any = ray.remote(num_cpus=1)(Other)
    other = make.remote()
    assert ray.get(other.ready.remote(), timeout=60)
    while ray.available_resources().get("CPU", 0.0) > CPUS - 1:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return other


def test_cluster_is_used_and_left_alone(cluster: MeasureOptions) -> None:
    import ray

    nodes = ray.nodes()
    with create_measurer("ray", target=TARGET, threads=1, options=replace(cluster, builders=1)) as measurer:
        assert errors(measurer.measure(programs("good", "wrong"))) == [("none", ""), ("wrong-result", "check")]
    assert ray.nodes() == nodes


def test_cpus_that_become_free_late_are_waited_for(cluster: MeasureOptions) -> None:
    import ray

    end = threading.Timer(4, ray.kill, [job_with_a_cpu()])  # importing Ray takes the measurer a part of that
    end.start()
    with create_measurer("ray", target=TARGET, threads=1, options=cluster) as measurer:
        assert errors(measurer.measure(programs("good"))) == [("none", "")]
    end.join()


def test_busy_cluster_is_an_error(cluster: MeasureOptions) -> None:
    import ray

    other = job_with_a_cpu()
    try:
        with pytest.raises(MeasureError) as caught:
            create_measurer("ray", target=TARGET, threads=1, options=cluster)
        assert faults.BUSY.is_read_in(str(caught.value)), caught.value
    finally:
        ray.kill(other)


def test_more_threads_than_a_node_has_cpus_is_an_error(cluster: MeasureOptions) -> None:
    """Only a Ray of our own may have fewer cores than threads."""
    with pytest.raises(MeasureError) as caught:
        create_measurer("ray", target=TARGET, threads=3, options=cluster)
    assert faults.FEW_CPUS.is_read_in(str(caught.value)), caught.value


def test_close_ends_the_ray_that_it_started(measurers: MeasurerCache) -> None:
    measurer = measurers.get("ray", OPTIONS)
    assert isinstance(measurer, RayMeasurer)
    measurer.submit(programs("hang"))
    measurer.poll(timeout=2)
    driver = measurer.pid
    assert driver is not None
    started = descendants(driver)
    assert {"gcs_server", "raylet"} <= set(started.values())
    measurers.close("ray")
    wait_until_gone([driver, *started])


def test_addresses_where_no_ray_answers_are_errors() -> None:
    """Nothing listens; a web server answers; something listens and stays silent."""
    with (
        ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as web,
        closing(socket.create_server(("127.0.0.1", 0))) as silent,
        closing(socket.create_server(("127.0.0.1", 0))) as closed,
        ThreadPoolExecutor() as pool,
    ):
        threading.Thread(target=web.serve_forever, daemon=True).start()
        ports = {"web": web.server_port, "silent": silent.getsockname()[1], "closed": closed.getsockname()[1]}
        closed.close()
        said = {name: pool.submit(_error_at, f"127.0.0.1:{port}") for name, port in ports.items()}
        for name, port in ports.items():
            with pytest.raises(MeasureError, match=rf"Ray cluster at '127\.0\.0\.1:{port}'") as caught:
                said[name].result(timeout=120)
            fault = faults.NOTHING_LISTENS if name == "closed" else faults.NOT_RAY
            assert fault.is_read_in(str(caught.value)), caught.value
        web.shutdown()


def _error_at(address: str) -> None:
    create_measurer("ray", target=TARGET, threads=1, options=replace(OPTIONS, ray_address=address)).close()


@pytest.mark.parametrize("address", ["nonsense", "127.0.0.1"])
def test_text_that_is_no_address_is_an_error(address: str) -> None:
    with pytest.raises(MeasureError, match=f"'{address}' cannot be reached: .*[Ii]nvalid address"):
        _error_at(address)
