"""What a device needs for being in a fleet: memory, processor time, and time until it is there.

One federation on the loopback, through its proxy and TLS, with two devices that do the same tasks
in the same run: one runs our daemon, the other a stock SuperNode of Flower with our ClientApp.
Memory is that of a process and all that descend from it, in two figures: `pss` is what the kernel
attributes to them, which other programs on this machine make smaller; `alone` counts every page
that they have in memory once, whoever else may share it. On a device that runs nothing else the
first is the second.

    python benchmarks/device_memory.py                 all of it, and the record; needs root
    python benchmarks/device_memory.py --no-torch      without the ClientApp that trains with torch
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
import typer
from process_family import TOOLS, Device, Memory, memory_of, processor_seconds, watching
from rich.console import Console
from rich.table import Table
from service_load import COORDINATOR, federation

from edgetrain.bench.record import write_record
from edgetrain.command import run_command
from edgetrain.config import FleetConfig
from edgetrain.coordinator.service.place import FOLDER_VARIABLE
from edgetrain.coordinator.service.service import free_port
from edgetrain.coordinator.simulation.devices import build_devices
from edgetrain.data import load
from edgetrain.errors import ServiceError

RESULTS = Path(__file__).parent / "results" / "device_memory.json"
TORCH_APP = Path(__file__).with_name("torch_client.py")
START_SECONDS, RUN_SECONDS = 60.0, 500.0
STARTS = 5
SETTLE_SECONDS = 20.0
"""After the start, and after a task, until a device is taken for idle."""

FLEETS = {
    "watch MLP": """
[data]
path = "watch"
partition = "iid"
[model]
name = "mlp"
hidden = [512, 256]
first = "int8"
last = "int8"
[training]
rounds = 2
batch = 32
[[device]]
name = "watch-mlp"
count = 2
memory = "24MiB"
""",
    "BinaryNet, batch 100": """
[data]
path = "images"
partition = "iid"
[model]
name = "binarynet"
[training]
rounds = 1
batch = 100
[[device]]
name = "binarynet"
count = 2
memory = "72MiB"
""",
}
IMAGES = 400


def idle_share(device: Device, seconds: float) -> float:
    """Return the share of one processor that a device takes while it has nothing to do."""
    before = processor_seconds(device.family)
    time.sleep(seconds)
    return (processor_seconds(device.family) - before) / seconds


def wait_until(what: str, done: Callable[[], bool], seconds: float, every: float = 0.2) -> None:
    """Wait for something. Raises ServiceError when it does not come."""
    end = time.monotonic() + seconds
    while not done():
        if time.monotonic() > end:
            raise ServiceError(f"{what} did not come within {seconds:g} s: see above")
        time.sleep(every)


class Operator:
    """The federation's own commands."""

    def __init__(self, folder: Path, state: Path) -> None:
        self.folder = folder
        self.environment = {**os.environ, FOLDER_VARIABLE: str(state)}

    def call(self, *arguments: str | Path) -> dict[str, Any]:
        """Return what a command says. Raises ServiceError."""
        done = subprocess.run(
            [COORDINATOR, *arguments, "--json"],
            env=self.environment, cwd=self.folder, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise ServiceError(f"{arguments}: {done.stderr.strip()}")
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def is_over(self) -> bool:
        """Say whether the run is over."""
        run = self.call("status")["run"]
        if run["status"] == "failed":
            raise ServiceError("the run failed")
        return bool(run["status"] == "completed")


def deal(text: str, folder: Path) -> tuple[Path, list[Path]]:
    """Write a workload's configuration and the data of its two devices; return their paths."""
    config = folder / "fleet.toml"
    config.write_text(text)
    fleet = FleetConfig.from_toml(config)
    devices = build_devices(fleet, load(fleet.dealt.path), folder)
    return config, [device.dataset for device in devices if device.dataset is not None]


def write_images(folder: Path) -> None:
    """Write images of noise, of CIFAR's shape."""
    draw = np.random.default_rng(0)
    folder.mkdir()
    np.save(folder / "x.npy", draw.integers(-128, 128, (IMAGES, 32, 32, 3)).astype(np.int8))
    np.save(folder / "y.npy", (np.arange(IMAGES) % 10).astype(np.uint8))


def join(folder: Path, name: str, data: Path, memory: str) -> Path:
    """Let a device of ours join; return the folder of its state."""
    state = folder / f"{name}.state"
    command = [
        TOOLS / "edgetrain-client",
        "join",
        f"{name}.toml",
        "--data",
        data,
        "--memory",
        memory,
    ]
    subprocess.run(
        [*command, "--ledger", folder / f"{name}.ledger", "--state", state],
        cwd=folder,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return state


def ours(folder: Path, name: str, data: Path, memory: str) -> Device:
    """Return a device that runs our daemon."""
    state = join(folder, name, data, memory)
    return Device("edgetrain-client", [TOOLS / "edgetrain-client", "run", "--state", state], folder)


def stock(folder: Path, name: str, data: Path, memory: str, address: str) -> Device:
    """Return a device that runs Flower's own node, with our ClientApp."""
    config = f'device="{name}" memory="{memory}" dataset="{data}"'
    command: list[str | Path] = [
        TOOLS / "flower-supernode",
        *("--superlink", address),
        *("--root-certificates", folder / f"{name}.crt"),
        *("--auth-supernode-private-key", folder / f"{name}.key"),
        *("--host", "127.0.0.1", "--port", str(free_port())),
        *("--node-config", config),
    ]
    return Device("flower-supernode", command, folder)


def seconds_to_first_heartbeat(device: Device, state: Path) -> float:
    """Return the seconds from its start until a device has been heard, and has asked for work."""
    status = state / "status.json"
    status.unlink(missing_ok=True)
    begun = time.monotonic()
    device.start()
    wait_until(
        "the first heartbeat",
        lambda: status.exists() and b'"idle"' in status.read_bytes(),
        START_SECONDS,
        every=0.002,
    )
    return time.monotonic() - begun


def measure(text: str, idle_seconds: float) -> dict[str, Any]:
    """Run one workload on a federation of its own; return what both devices needed."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        if "images" in text:
            write_images(folder / "images")
        config, data = deal(text, folder)
        memory = tomllib.loads(text)["device"][0]["memory"]
        names = [path.stem for path in data]
        with federation(folder / "federation", free_port()):
            operator = Operator(folder, folder / "federation")
            operator.call("enroll", names[0])
            address = operator.call("enroll", names[1], "--supernode")["address"]
            lean = ours(folder, names[0], data[0], memory)
            heavy = stock(folder, names[1], data[1], memory, address)
            found: dict[str, Any] = {}
            if idle_seconds:
                found["first heartbeat, s"] = first_heartbeats(lean, folder / f"{names[0]}.state")
            with lean.running(), heavy.running():
                found |= compare([lean, heavy], operator, config, idle_seconds)
            tasks = {one["name"]: one.get("tasks") for one in operator.call("devices")["devices"]}
            return found | {"tasks done": tasks}


def compare(
    devices: list[Device], operator: Operator, config: Path, idle_seconds: float
) -> dict[str, Any]:
    """Return what devices need before, in and after a run."""
    time.sleep(SETTLE_SECONDS)
    found: dict[str, dict[str, Any]] = {}
    for device in devices:
        found[device.name] = {"idle": asdict(memory_of(device.family))}
        if idle_seconds:
            found[device.name]["idle processor share"] = idle_share(device, idle_seconds)
    with watching(devices):
        operator.call("start", config)
        wait_until("the end of the run", operator.is_over, RUN_SECONDS)
    time.sleep(SETTLE_SECONDS)
    for device in devices:
        found[device.name]["peak"] = asdict(device.peak)
        found[device.name]["idle afterwards"] = asdict(memory_of(device.family))
    return found


def first_heartbeats(device: Device, state: Path) -> list[float]:
    """Return how long it took, start by start; the first one activates the node."""
    times = []
    for _ in range(STARTS):
        with contextlib.closing(device):
            times.append(seconds_to_first_heartbeat(device, state))
    return times


def torch_peak(supernode: Memory, folder: Path) -> Memory:
    """Return the memory of a stock node whose ClientApp trains BinaryNet with torch."""
    app = Device("torch", [sys.executable, TORCH_APP], folder)
    with watching([app]):
        app.start()
        assert app.process is not None
        app.process.wait(RUN_SECONDS)
    if app.process.returncode:
        raise ServiceError((folder / "torch.log").read_text())
    return Memory(app.peak.pss + supernode.pss, app.peak.alone + supernode.alone)


def main(
    idle_seconds: Annotated[float, typer.Option(help="How long to watch idle devices.")] = 60.0,
    torch: Annotated[bool, typer.Option(help="Measure a ClientApp with torch, too.")] = True,
    write: Annotated[bool, typer.Option(help="Write the results.")] = True,
) -> None:
    """Measure what a device needs for being in a fleet."""
    found: dict[str, Any] = {}
    for number, (name, text) in enumerate(FLEETS.items()):
        found[name] = measure(text, idle_seconds if number == 0 else 0)
    if torch:
        with tempfile.TemporaryDirectory() as folder:
            idle = Memory(**found["watch MLP"]["flower-supernode"]["idle"])
            found["torch"] = asdict(torch_peak(idle, Path(folder)))
    show(found)
    if write:
        write_record(RESULTS, "python benchmarks/device_memory.py", found)


def show(found: dict[str, Any]) -> None:
    """Print the figures."""
    table = Table("workload", "device", "idle", "peak", "afterwards", title="MB alone (PSS)")
    for name in FLEETS:
        for device in ("edgetrain-client", "flower-supernode"):
            figures = [
                f"{one['alone']:.1f} ({one['pss']:.1f})"
                for one in (found[name][device][key] for key in ("idle", "peak", "idle afterwards"))
            ]
            table.add_row(name, device, *figures)
    if "torch" in found:
        peak = found["torch"]
        table.add_row("BinaryNet", "with torch", "", f"{peak['alone']:.1f} ({peak['pss']:.1f})", "")
    console = Console()
    console.print(table)
    first = found["watch MLP"]
    console.print(f"first heartbeat: {median(first['first heartbeat, s']):.2f} s")
    for device in ("edgetrain-client", "flower-supernode"):
        console.print(f"idle {device}: {first[device]['idle processor share']:.3%} of a processor")


if __name__ == "__main__":
    app = typer.Typer(add_completion=False)
    app.command()(main)
    run_command(app)
