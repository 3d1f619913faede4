"""How many devices a federation carries on this machine: questions for work a second, and how slow.

Devices that have nothing to do ask for work over kept HTTPS connections, each question signed, as
the device's own client does; once through the proxy, and once past it, straight to SuperLink, to
see what the proxy costs. Pollers, proxy and SuperLink share this machine's processors. How many
devices that is at an interval of polling is arithmetic: questions a second times the interval.

    python benchmarks/service_load.py --seconds 10
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import quantiles
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from edgetrain.bench.record import write_record
from edgetrain.client.enrolment import Enrolment
from edgetrain.client.fleet.identity import ServerClock
from edgetrain.client.fleet.transport import Transport, trust
from edgetrain.client.fleet_api import FleetApi
from edgetrain.command import run_command
from edgetrain.coordinator.service.authority import Authority
from edgetrain.coordinator.service.enrolment import fresh_enrolment, public_key
from edgetrain.coordinator.service.place import FOLDER_VARIABLE, Place, read_json
from edgetrain.coordinator.service.service import control_of, free_port
from edgetrain.errors import ServiceError
from edgetrain.signing import PrivateKey

RESULTS = Path(__file__).parent / "results" / "service_load.json"
COORDINATOR = Path(sys.executable).parent / "edgetrain-coordinator"
HEARTBEAT_SECONDS = 1800
INTERVALS = (15, 60)
STOP_SECONDS = 60


@dataclass(frozen=True)
class Load:
    """What so many pollers at once have seen."""

    through: str
    pollers: int
    pulls_per_second: float
    p50_ms: float
    p95_ms: float
    devices: dict[str, int]


@contextmanager
def federation(folder: Path, port: int) -> Iterator[Place]:
    """Run a federation in a folder; yield its place once devices may come."""
    place = Place(folder)
    environment = {**os.environ, FOLDER_VARIABLE: str(folder)}
    command = [COORDINATOR, "up", "--listen", "127.0.0.1", "--port", str(port)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        if not process.stdout.readline():
            raise ServiceError("the federation did not start: see above")
        try:
            yield place
        finally:
            process.terminate()
            process.wait(STOP_SECONDS)


def enrol(place: Place, count: int) -> list[Enrolment]:
    """Enrol devices and return what their files would hold."""
    ca = Authority(place.authority).certificate.read_text()
    address = place.known_settings().address
    enrolled = [fresh_enrolment(f"device-{number}", address, ca) for number in range(count)]
    with control_of(place) as control:
        for one in enrolled:
            control.register(one.name, public_key(one))
    return enrolled


def poll(nodes: list[FleetApi], seconds: float) -> list[float]:
    """Let every node ask for work, again and again; return how long each answer took."""
    taken: list[list[float]] = [[] for _ in nodes]
    end = time.monotonic() + seconds

    def ask(node: FleetApi, times: list[float]) -> None:
        while (begun := time.monotonic()) < end:
            assert node.pull_message() is None
            times.append(time.monotonic() - begun)

    threads = [threading.Thread(target=ask, args=pair) for pair in zip(nodes, taken, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [one for times in taken for one in times]


def load_of(through: str, nodes: list[FleetApi], seconds: float) -> Load:
    """Return what these nodes see."""
    times = poll(nodes, seconds)
    cuts = quantiles(times, n=100)
    rate = len(times) / seconds
    return Load(
        through,
        len(nodes),
        round(rate, 1),
        round(1e3 * cuts[49], 1),
        round(1e3 * cuts[94], 1),
        {f"every {interval} s": int(rate * interval) for interval in INTERVALS},
    )


def main(
    seconds: Annotated[float, typer.Option(help="How long each measurement takes.")] = 10.0,
    pollers: Annotated[str, typer.Option(help="Pollers at once, one measurement each.")] = "1,4,16",
    write: Annotated[bool, typer.Option(help="Write the results.")] = True,
) -> None:
    """Measure how many devices a federation carries."""
    counts = [int(count) for count in pollers.split(",")]
    found = []
    with (
        tempfile.TemporaryDirectory() as folder,
        federation(Path(folder) / "federation", free_port()) as place,
    ):
        enrolled = enrol(place, max(counts))
        context = trust(enrolled[0].ca)
        nodes: list[FleetApi] = []
        for one in enrolled:
            key = PrivateKey(one.key.encode())
            node = FleetApi(Transport(one.address, context, key, ServerClock()))
            node.activate(HEARTBEAT_SECONDS)
            nodes.append(node)
        direct = f"127.0.0.1:{read_json(place.state)['control_port']}"
        past = [
            FleetApi(Transport(direct, context, node.transport.key, ServerClock()), node.node_id)
            for node in nodes
        ]
        for count in counts:
            found.append(load_of("the proxy", nodes[:count], seconds))
            found.append(load_of("nothing", past[:count], seconds))
    table = Table("through", "pollers", "a second", "p50", "p95", *found[0].devices, box=None)
    for load in found:
        cells = (load.pulls_per_second, f"{load.p50_ms} ms", f"{load.p95_ms} ms")
        table.add_row(
            load.through, str(load.pollers), *map(str, cells), *map(str, load.devices.values())
        )
    Console().print(table)
    if write:
        command = f"python benchmarks/service_load.py --seconds {seconds:g} --pollers {pollers}"
        write_record(
            RESULTS, command, {"seconds": seconds, "loads": [asdict(load) for load in found]}
        )


if __name__ == "__main__":
    app = typer.Typer(add_completion=False)
    app.command()(main)
    run_command(app)
