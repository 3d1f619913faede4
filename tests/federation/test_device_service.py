"""The device's daemon in a real federation: beside a stock SuperNode, and killed at any moment."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import psutil
import pytest
from federation import (
    STOP_SECONDS,
    TOOLS,
    Federation,
    assert_as_simulated,
    kept_checkpoint,
    supernode,
    write_fleet,
)

from edgetrain.coordinator.simulation.devices import SimulatedDevice

KILLS = 6
"""In the short form; `make fault-test` kills as often as there are rounds."""
FAULT_ROUNDS = int(os.environ.get("FAULT_ROUNDS", "0"))
FAULT_SEED = int(os.environ.get("FAULT_SEED", "0"))
POLL_SECONDS = 0.2
LONGEST_LIFE = 4.0
"""Seconds until a daemon is killed: a round takes two or three."""


class Client:
    """A device's own commands, and its daemon."""

    def __init__(self, federation: Federation, device: SimulatedDevice) -> None:
        self.folder = federation.folder
        self.name = device.name
        self.state = self.folder / f"{device.name}.state"
        self.process: subprocess.Popen[bytes] | None = None
        federation.call("enroll", device.name)
        enrolment = self.folder / f"{device.name}.toml"
        with enrolment.open("a") as file:
            file.write(f"poll_seconds = {POLL_SECONDS}\n")
        self.call(
            *("join", str(enrolment), "--data", str(device.node_config()["dataset"])),
            *("--memory", "256MiB", "--class", device.settings.name),
            *("--ledger", str(self.folder / f"{device.name}.ledger")),
        )

    def call(self, command: str, *arguments: str) -> dict[str, object]:
        """Return what a command says; fail where it ends with an error."""
        done = subprocess.run(
            [TOOLS / "edgetrain-client", command, "--state", self.state, "--json", *arguments],
            cwd=self.folder, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert isinstance(found, dict)
        return found

    def start(self) -> None:
        """Start the daemon."""
        with (self.folder / f"{self.name}.log").open("ab") as log:
            self.process = subprocess.Popen(
                [TOOLS / "edgetrain-client", "run", "--state", self.state],
                cwd=self.folder, stdout=log, stderr=log,
            )  # fmt: skip

    def kill(self) -> None:
        """End the daemon at once; what it started notices by itself."""
        assert self.process is not None
        assert self.process.poll() is None, "it has ended by itself"
        self.process.kill()
        self.process.wait(STOP_SECONDS)

    def stop(self) -> None:
        """End the daemon as an init system does."""
        assert self.process is not None
        family = [psutil.Process(self.process.pid), *psutil.Process(self.process.pid).children()]
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(STOP_SECONDS) == 0
        _, alive = psutil.wait_procs(family, timeout=STOP_SECONDS)
        assert not alive


@contextmanager
def daemon(federation: Federation, device: SimulatedDevice) -> Iterator[Client]:
    """Let a device join, and run its daemon."""
    client = Client(federation, device)
    client.start()
    try:
        yield client
    finally:
        client.stop()


@pytest.mark.slow
def test_a_daemon_and_a_stock_supernode_end_where_a_simulation_ends(
    federation: Federation,
) -> None:
    fleet, (ours, stock) = write_fleet(federation.folder)
    federation.up()
    federation.call("enroll", stock.name, "--supernode")
    with supernode(federation, stock), daemon(federation, ours) as client:
        federation.call("start", "fleet.toml")
        federation.wait_for("the end", lambda found: found["run"]["status"] == "completed")
        assert client.call("status")["doing"] == "idle"
        listed = federation.call("devices")["devices"]
    assert_as_simulated(federation, fleet)
    for record in kept_checkpoint(federation, fleet).history.rounds:
        assert (record.reported, dict(record.losses)) == (2, {})
    assert {one["name"]: one["tasks"] for one in listed} == {
        ours.name: fleet.training.rounds,
        stock.name: fleet.training.rounds,
    }


@pytest.mark.slow
def test_daemons_that_are_killed_at_any_moment_are_counted_once_a_round(
    federation: Federation,
) -> None:
    draw = random.Random(FAULT_SEED)
    rounds = FAULT_ROUNDS or 4
    fleet, devices = write_fleet(federation.folder, rounds)
    federation.up()
    kills = 0
    with ExitStack() as stack:
        clients = [stack.enter_context(daemon(federation, device)) for device in devices]
        federation.call("start", "fleet.toml")
        ended = threading.Event()
        while not ended.wait(draw.uniform(0, LONGEST_LIFE)):
            client = draw.choice(clients)
            client.kill()
            client.start()
            kills += 1
            if kills % len(clients) == 0:
                status = federation.call("status")
                if status["run"]["status"] == "completed" or kills >= max(KILLS, rounds):
                    ended.set()
        federation.wait_for("the end", lambda found: found["run"]["status"] == "completed")
    assert kills >= 2
    for record in kept_checkpoint(federation, fleet).history.rounds:
        assert (record.reported, dict(record.losses)) == (len(devices), {})
    assert_as_simulated(federation, fleet)
