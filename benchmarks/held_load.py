"""Thousands of idle devices on one federation: what they cost it, and how soon work reaches some.

Devices are held at the door, as daemons are (docs/decisions/065-held-polls.md). A ServerApp of
this benchmark's own, a real one that SuperExec starts, sends messages to some of them by the very
code that sends tasks. Devices, door and SuperLink share this machine's processors.

    python benchmarks/held_load.py --devices 5000 --seconds 60
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import quantiles
from typing import Annotated, Any

import psutil
import typer
from process_family import MEGABYTE
from rich.console import Console
from rich.table import Table
from service_load import enrol, federation

from edgetrain.bench.record import write_record
from edgetrain.client.enrolment import Enrolment
from edgetrain.command import run_command
from edgetrain.coordinator.service.place import Place, read_json
from edgetrain.coordinator.service.service import control_of, free_port

RESULTS = Path(__file__).parent / "results" / "held_load.json"
DEVICES = Path(__file__).with_name("idle_devices.py")
SENDER = Path(__file__).with_name("sender_app")
PROGRAMS = ("proxy", "superlink")
START_SECONDS = 120.0
DELIVERY_SECONDS = 60.0
LOOK_SECONDS = 0.1


@dataclass(frozen=True)
class Delivery:
    """Messages to so many devices.

    `sending_seconds` is what Flower took to store all of them, at most PUSH_AT_ONCE at a time; p50
    and p95 are of the seconds from then, for the lot that a device's was in, until it was there,
    and `last_seconds` is from the beginning until the last was.
    """

    devices: int
    arrived: int
    sending_seconds: float
    p50_seconds: float
    p95_seconds: float
    last_seconds: float


@dataclass(frozen=True)
class Idle:
    """What idle devices cost: shares of one processor, questions a second, milliseconds, MB."""

    devices: int
    seconds: float
    pulls_per_second: float
    heartbeats_per_second: float
    failed: int
    p50_ms: float
    p95_ms: float
    processor: Mapping[str, float]
    memory: Mapping[str, float]
    proxy_kilobytes_per_device: float


class Story:
    """What devices tell, line by line."""

    def __init__(self, lines: Any) -> None:
        self.events: list[dict[str, Any]] = []
        self.held: set[int] = set()
        threading.Thread(target=self._read, args=[lines], daemon=True).start()

    def _read(self, lines: Any) -> None:
        for line in lines:
            event = json.loads(line)
            if event.get("held"):
                self.held.add(event["node"])
            self.events.append(event)

    def of(self, kind: str, begin: float, end: float) -> list[dict[str, Any]]:
        """Return the events of a kind in some time."""
        events = list(self.events)
        return [one for one in events if one["event"] == kind and begin <= one["at"] < end]


def programs(place: Place) -> dict[str, psutil.Process]:
    """Return the processes of the service."""
    found = read_json(place.state)["programs"]
    return {name: psutil.Process(found[name]["pid"]) for name in PROGRAMS}


def memory(place: Place) -> dict[str, float]:
    """Return the resident memory of the service's processes in MB."""
    return {name: one.memory_info().rss / MEGABYTE for name, one in programs(place).items()}


def processor(place: Place) -> dict[str, float]:
    """Return the processor seconds that the service's processes have used."""
    return {name: sum(one.cpu_times()[:2]) for name, one in programs(place).items()}


@contextmanager
def idle_devices(folder: Path, enrolled: Sequence[Enrolment]) -> Iterator[Story]:
    """Run devices in a process of their own."""
    path = folder / "devices.json"
    devices = [{"address": one.address, "key": one.key} for one in enrolled]
    path.write_text(json.dumps({"ca": enrolled[0].ca, "devices": devices}))
    command = [sys.executable, str(DEVICES), str(path)]
    command += [str(Enrolment.hold_seconds), str(Enrolment.heartbeat_seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Story(process.stdout)
        finally:
            process.kill()


def wait_for(done: Callable[[], bool], seconds: float) -> float:
    """Wait until something is so, or the time is over; return how many seconds it took."""
    begun = time.monotonic()
    while not done() and time.monotonic() < begun + seconds:
        time.sleep(LOOK_SECONDS)
    return time.monotonic() - begun


def start_sender(place: Place, folder: Path) -> None:
    """Start a ServerApp that sends messages to whom it is told to."""
    with control_of(place) as control:
        control.start({"folder": str(folder), "waker": str(place.waker)}, SENDER)
    wait_for((folder / "ready").exists, START_SECONDS)


def deliver(folder: Path, nodes: list[int], story: Story) -> Delivery:
    """Send a message to each of these devices; return how soon they had it."""
    begun = time.monotonic()
    draft = folder / "draft"
    draft.write_text(json.dumps(nodes))
    draft.rename(folder / f"{len(nodes)}.order")
    told = folder / f"{len(nodes)}.sent"

    def arrivals() -> dict[int, float]:
        return {one["node"]: one["at"] for one in story.of("message", begun, time.monotonic())}

    wait_for(lambda: told.exists() and len(arrivals()) == len(nodes), DELIVERY_SECONDS)
    order = json.loads(told.read_text())
    sent = {int(node): at for node, at in order["sent"].items()}
    found = arrivals()
    # Who asks by itself may have a message before the others of its lot are sent.
    waits = sorted(max(0.0, at - sent[node]) for node, at in found.items())
    cuts = quantiles(waits, n=100, method="inclusive")
    return Delivery(
        devices=len(nodes),
        arrived=len(found),
        sending_seconds=round(max(sent.values()) - order["begun"], 2),
        p50_seconds=round(cuts[49], 2),
        p95_seconds=round(cuts[94], 2),
        last_seconds=round(max(found.values()) - order["begun"], 2),
    )


def idle_load(place: Place, story: Story, empty: Mapping[str, float], seconds: float) -> Idle:
    """Return what the devices cost in some seconds in which nothing else happens."""
    begin, before = time.monotonic(), processor(place)
    time.sleep(seconds)
    end, after = time.monotonic(), processor(place)
    asked = story.of("asked", begin, end)
    cuts = quantiles([1e3 * one["took"] for one in asked], n=100)
    now = memory(place)
    kilobytes = 1e3 * (now["proxy"] - empty["proxy"]) / len(story.held)
    return Idle(
        devices=len(story.held),
        seconds=round(end - begin, 1),
        pulls_per_second=round(len(asked) / (end - begin), 1),
        heartbeats_per_second=round(len(story.of("beat", begin, end)) / (end - begin), 1),
        failed=len(story.of("failed", begin, end)),
        p50_ms=round(cuts[49], 1),
        p95_ms=round(cuts[94], 1),
        processor={name: round((after[name] - before[name]) / (end - begin), 3) for name in after},
        memory={name: round(value, 1) for name, value in now.items()},
        proxy_kilobytes_per_device=round(kilobytes, 1),
    )


@dataclass(frozen=True)
class Course:
    """What a measurement asks for."""

    devices: int
    arriving_seconds: float
    seconds: float
    work: Sequence[int]


def measure(place: Place, folder: Path, course: Course) -> dict[str, Any]:
    """Let devices come, watch them, send work to some; return what was seen."""
    begun = time.monotonic()
    enrolled = enrol(place, course.devices)
    enrolling = time.monotonic() - begun
    start_sender(place, folder)
    empty = memory(place)
    with idle_devices(folder, enrolled) as story:
        arriving = wait_for(
            lambda: len(story.held) == course.devices, seconds=course.arriving_seconds
        )
        failed = len(story.of("failed", 0, time.monotonic()))
        idle = idle_load(place, story, empty, course.seconds)
        nodes = sorted(story.held)
        deliveries = [
            deliver(folder, nodes[:: len(nodes) // count][:count], story) for count in course.work
        ]
    (folder / "end").touch()
    return {
        "enrolled": course.devices,
        "enrolling_seconds": round(enrolling, 1),
        "arriving_seconds": round(arriving, 1),
        "failed_arriving": failed,
        "proxy_empty_mb": round(empty["proxy"], 1),
        **asdict(idle),
        "deliveries": [asdict(one) for one in deliveries],
    }


def main(
    devices: Annotated[int, typer.Option(help="How many devices.")] = 5000,
    seconds: Annotated[float, typer.Option(help="How long they are watched.")] = 60.0,
    arriving: Annotated[float, typer.Option(help="Seconds that they have to come.")] = 600.0,
    work: Annotated[str, typer.Option(help="To how many at once work is sent.")] = "3,200",
    write: Annotated[bool, typer.Option(help="Write the results.")] = True,
) -> None:
    """Measure what idle devices cost a federation, and how soon work reaches them."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    course = Course(devices, arriving, seconds, [int(count) for count in work.split(",")])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with federation(folder / "federation", free_port()) as place:
            result = {
                "hold_seconds": Enrolment.hold_seconds,
                "heartbeat_seconds": Enrolment.heartbeat_seconds,
                **measure(place, folder, course),
                "load_average": round(os.getloadavg()[0], 1),
            }
    table = Table("what", "seen", box=None)
    for key, value in result.items():
        table.add_row(key, str(value))
    Console().print(table)
    if write:
        command = f"python benchmarks/held_load.py --devices {devices} --seconds {seconds:g}"
        write_record(RESULTS, command, result)


if __name__ == "__main__":
    app = typer.Typer(add_completion=False)
    app.command()(main)
    run_command(app)
