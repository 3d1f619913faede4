"""A real SuperLink and stock SuperNodes end at the same model as the simulation, bit for bit."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest

from edgetrain.config import FleetConfig
from edgetrain.coordinator.checkpoint import Checkpoint, CheckpointFolder
from edgetrain.coordinator.global_model import GlobalModel
from edgetrain.coordinator.history import History
from edgetrain.coordinator.simulation.devices import SimulatedDevice, build_devices
from edgetrain.coordinator.simulation.simulate import simulate
from edgetrain.data import load

APP = Path(__file__).parents[2] / "coordinator" / "flower_app"
RUN_SECONDS = 300
START_SECONDS = 90
STOP_SECONDS = 10

FLEET = """
[data]
path = "examples"
test_groups = [9]

[model]
hidden = [24]

[training]
rounds = 2
batch = 16
seed = 5

[[device]]
name = "node"
count = 2
memory = "256MiB"
"""


def write_fleet(folder: Path, training: str = "") -> FleetConfig:
    """Write a fleet of two devices and their data; a third person's are held out.

    `training` holds more lines of that table.
    """
    draw = np.random.default_rng(1)
    data = folder / "examples"
    data.mkdir()
    labels = np.arange(150) % 3
    samples = draw.integers(-40, 40, (150, 20)) + 25 * labels[:, None]
    np.save(data / "x.npy", samples.clip(-127, 127).astype(np.int8))
    np.save(data / "y.npy", labels.astype(np.uint8))
    np.save(data / "group.npy", np.repeat([4, 7, 9], [60, 50, 40]))
    text = FLEET.replace("rounds = 2", f"{training}\nrounds = 4" if training else "rounds = 2")
    (folder / "fleet.toml").write_text(text)
    return FleetConfig.from_toml(folder / "fleet.toml")


def free_port() -> int:
    """Return a port of the loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_port(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until somebody listens; fail with the log when the process ends first."""
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        assert process.poll() is None, log.read_text()
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    pytest.fail(f"nobody listened on port {port} in time: {log.read_text()}")


@contextmanager
def running(
    command: list[str], environment: dict[str, str], log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command in the background; end it and all that it started on leaving."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=environment, stdout=output, stderr=subprocess.STDOUT, cwd=log.parent
        )
    try:
        yield process
    finally:
        family = descendants(process.pid)
        process.send_signal(signal.SIGTERM)
        _, alive = psutil.wait_procs(family, timeout=STOP_SECONDS)
        for one in alive:
            one.kill()
        psutil.wait_procs(alive, timeout=STOP_SECONDS)
        process.wait(STOP_SECONDS)


def descendants(pid: int) -> list[psutil.Process]:
    """Return a process and all that descend from it; none if it has gone."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def node_config(device: SimulatedDevice) -> str:
    """Return a device as the words of --node-config; it lives by the real clock."""
    words = {**device.node_config(), "clock": "real"}
    return " ".join(
        f'{key}="{value}"' if isinstance(value, str) else f"{key}={value}"
        for key, value in words.items()
    )


def run_with_flower(folder: Path, devices: list[SimulatedDevice]) -> Checkpoint:
    """Run the fleet on a SuperLink with a SuperNode a device; return its last version."""
    tool = Path(sys.executable).parent
    port, home = free_port(), folder / "flower"
    home.mkdir()
    (home / "config.toml").write_text(
        '[superlink]\ndefault = "edge"\n'
        f'[superlink.edge]\naddress = "127.0.0.1:{port}"\ninsecure = true\n'
    )
    environment = {
        **os.environ,
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "PATH": f"{tool}{os.pathsep}{os.environ['PATH']}",
    }
    superlink = [
        str(tool / "flower-superlink"),
        *("--insecure", "--host", "127.0.0.1", "--port", str(port)),
        "--disable-runtime-dependency-installation",
    ]
    with ExitStack() as stack:
        log = folder / "superlink.log"
        link = stack.enter_context(running(superlink, environment, log))
        wait_for_port(port, link, log)
        for device in devices:
            command = [
                str(tool / "flower-supernode"),
                *("--insecure", "--superlink", f"127.0.0.1:{port}"),
                *("--host", "127.0.0.1", "--port", str(free_port())),
                *("--node-config", node_config(device)),
            ]
            stack.enter_context(running(command, environment, folder / f"{device.name}.log"))
        settings = {
            "fleet": folder / "fleet.toml",
            "checkpoints": folder / "real",
            "result": folder / "result.json",
        }
        words = " ".join(f'{key}="{value}"' for key, value in settings.items())
        command = [str(tool / "flwr"), "run", str(APP), "edge", "--stream", "--run-config", words]
        done = subprocess.run(
            command,
            env=environment,
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=RUN_SECONDS,
            check=False,
        )
    logs = "\n".join(path.read_text()[-3000:] for path in sorted(folder.glob("*.log")))
    assert (folder / "result.json").exists(), f"{done.stdout}\n{done.stderr}\n{logs}"
    kept = CheckpointFolder(folder / "real").newest(
        FleetConfig.from_toml(folder / "fleet.toml").to_table()
    )
    assert kept is not None
    return kept


@pytest.mark.slow
def test_a_real_fleet_ends_where_the_simulation_ends(tmp_path: Path) -> None:
    fleet = write_fleet(tmp_path)
    splits = load(fleet.data.path, test_groups=fleet.data.test_groups)
    devices = [one for one in build_devices(fleet, splits, tmp_path) if one.role == "train"]
    assert len(devices) == 2

    simulate(fleet, checkpoints=tmp_path / "simulated")
    simulated = CheckpointFolder(tmp_path / "simulated").newest(fleet.to_table())
    real = run_with_flower(tmp_path, devices)

    assert simulated is not None
    assert real.model.version == simulated.model.version == fleet.training.rounds
    assert real.model.to_tensors() == simulated.model.to_tensors()
    fresh = GlobalModel.fresh(real.model.model, real.model.mode, fleet.training.seed)
    assert real.model.to_tensors() != fresh.to_tensors()
    history = History.from_json((tmp_path / "result.json").read_text())
    assert history == real.history
    for ours, theirs in zip(simulated.history.rounds, real.history.rounds, strict=True):
        assert (theirs.reported, theirs.examples) == (2, 110)
        assert ours.training_loss == theirs.training_loss


@pytest.mark.slow
def test_buffered_rounds_run_on_a_real_superlink(tmp_path: Path) -> None:
    fleet = write_fleet(tmp_path, 'aggregation = "buffered"\nbuffer = 1')
    splits = load(fleet.data.path, test_groups=fleet.data.test_groups)
    devices = [one for one in build_devices(fleet, splits, tmp_path) if one.role == "train"]
    real = run_with_flower(tmp_path, devices)
    assert real.model.version == 4
    assert [record.reported for record in real.history.rounds] == [1] * 4
    assert sum(record.stale for record in real.history.rounds) > 0
    assert {device.answered for device in real.history.devices.values()} <= {1, 2, 3}
