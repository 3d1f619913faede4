"""What a federation does, as Prometheus reads it: all figures are those of `status`.

They are looked up when somebody asks, in the files that the service keeps anyway.
"""

from __future__ import annotations

from collections.abc import Iterator
from http.server import HTTPServer
from typing import Any

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from edgetrain.coordinator.service.place import Place
from edgetrain.coordinator.service.status import status_fields
from edgetrain.errors import ConfigError

__all__ = ["FederationCollector", "serve_metrics"]

LOCAL = "127.0.0.1"


class FederationCollector(Collector):
    """Reads a federation's folder whenever it is scraped."""

    def __init__(self, place: Place) -> None:
        self.place = place

    def describe(self) -> Iterator[Metric]:
        """Name nothing beforehand: registering must not read the folder."""
        yield from ()

    def collect(self) -> Iterator[Metric]:
        """Yield every figure that is known; one that is not is left out."""
        found = status_fields(self.place)
        yield from program_metrics(found["programs"])
        yield from run_metrics(found["run"])


def serve_metrics(place: Place, port: int) -> HTTPServer:
    """Serve /metrics on the loopback; return the server, which a thread of its own runs.

    Raises ConfigError where the port is taken.
    """
    registry = CollectorRegistry()
    registry.register(FederationCollector(place))
    try:
        server, _ = start_http_server(port, LOCAL, registry)
    except OSError as error:
        raise ConfigError(
            f"cannot serve metrics on {LOCAL}:{port}: {error.strerror}: choose another --metrics"
        ) from None
    return server


def program_metrics(programs: dict[str, dict[str, Any]]) -> Iterator[Metric]:
    """Yield what the service's processes do."""
    running = GaugeMetricFamily(
        "edgetrain_program_running", "Whether a process of the service runs.", labels=["program"]
    )
    restarts = CounterMetricFamily(
        "edgetrain_program_restarts", "How often it was started again.", labels=["program"]
    )
    for name, program in programs.items():
        running.add_metric([name], program["running"])
        restarts.add_metric([name], program["restarts"])
    yield from (running, restarts)


def run_metrics(run: dict[str, Any]) -> Iterator[Metric]:
    """Yield how far the run has come."""
    for name, what, value in (
        ("rounds_done", "Rounds that the run has done.", run["version"]),
        ("rounds_wanted", "Rounds that it is to do.", run["rounds"]),
        ("accuracy", "Accuracy on the devices that evaluate, 0 to 1.", run["accuracy"]),
        ("training_loss", "Mean loss of an example while devices train.", run["training_loss"]),
    ):
        if value is not None:
            yield GaugeMetricFamily(f"edgetrain_{name}", what, value)
    status = GaugeMetricFamily("edgetrain_run", "What the run does.", labels=["run", "status"])
    if run["run"]:
        status.add_metric([run["run"], run["status"]], 1)
    yield status
    for name, what in (
        ("attempts", "How often the run was begun."),
        ("reports", "Reports that were counted."),
        ("examples", "Examples that they have used."),
        ("uplink_bytes", "Bytes of reports."),
        ("downlink_bytes", "Bytes of tasks."),
    ):
        yield CounterMetricFamily(f"edgetrain_{name}", what, run[name])
    lost = CounterMetricFamily(
        "edgetrain_lost", "Tasks that did not count, by what became of them.", labels=["status"]
    )
    for reason, times in run["lost"].items():
        lost.add_metric([reason], times)
    yield lost
    refused = CounterMetricFamily(
        "edgetrain_refused", "Reports that were refused, by the rule.", labels=["rule"]
    )
    for rule, times in run["refused"].items():
        refused.add_metric([rule], times)
    yield refused
    devices = GaugeMetricFamily(
        "edgetrain_devices", "Devices, by how their last task ended.", labels=["class", "status"]
    )
    for one in run["last_tasks"]:
        devices.add_metric([one["class"], one["status"]], one["devices"])
    yield devices
