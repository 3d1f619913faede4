"""Our own daemon as a device of a real federation, with the commands that its owner has."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
from federation import STOP_SECONDS, TOOLS, Federation

from edgetrain.coordinator.simulation.devices import SimulatedDevice

POLL_SECONDS, HEARTBEAT_SECONDS = 0.2, 300.0


class DeviceDaemon:
    """A device's own commands, and its daemon."""

    def __init__(
        self, federation: Federation, device: SimulatedDevice, heartbeat_seconds: float
    ) -> None:
        self.folder = federation.folder
        self.name = device.name
        self.state = self.folder / f"{device.name}.state"
        self.ledger = self.folder / f"{device.name}.ledger"
        self.process: subprocess.Popen[bytes] | None = None
        self.settings = (
            *("--data", str(device.node_config()["dataset"]), "--memory", "256MiB"),
            *("--class", device.settings.name, "--checkpoint", "50ms"),
            *("--ledger", str(self.ledger)),
        )
        self.enrol(federation, heartbeat_seconds)

    def enrol(self, federation: Federation, heartbeat_seconds: float = HEARTBEAT_SECONDS) -> None:
        """Let the device join with a new key; its daemon does not run meanwhile."""
        federation.call("enroll", self.name)
        enrolment = self.folder / f"{self.name}.toml"
        with enrolment.open("a") as file:
            file.write(f"poll_seconds = {POLL_SECONDS}\n")
            file.write(f"heartbeat_seconds = {heartbeat_seconds}\n")
        self.call("join", str(enrolment), *self.settings)
        enrolment.unlink()

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

    def workers(self) -> list[psutil.Process]:
        """Return the processes that train for it now."""
        try:
            children = [(one, one.cmdline()) for one in self.family()[1:]]
        except psutil.Error:
            return []
        # One that has ended and was not waited for yet has no command line.
        return [one for one, words in children if words and "--probe" not in words]

    def sleep(self) -> None:
        """Stop all of the device's processes, as a device that sleeps does."""
        for one in self.family():
            one.suspend()

    def wake(self) -> None:
        """Let them go on."""
        for one in reversed(self.family()):
            one.resume()

    def family(self) -> list[psutil.Process]:
        """Return the daemon's process and what it has started."""
        assert self.process is not None
        parent = psutil.Process(self.process.pid)
        return [parent, *parent.children()]

    def kill(self) -> None:
        """End the daemon at once; what it started notices by itself."""
        assert self.process is not None
        assert self.process.poll() is None, "it has ended by itself"
        self.process.kill()
        self.process.wait(STOP_SECONDS)

    def stop(self) -> None:
        """End the daemon as an init system does."""
        assert self.process is not None
        family = self.family()
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(STOP_SECONDS) == 0
        _, alive = psutil.wait_procs(family, timeout=STOP_SECONDS)
        assert not alive


@contextmanager
def daemon(
    federation: Federation, device: SimulatedDevice, heartbeat_seconds: float = HEARTBEAT_SECONDS
) -> Iterator[DeviceDaemon]:
    """Let a device join, and run its daemon."""
    one = DeviceDaemon(federation, device, heartbeat_seconds)
    one.start()
    try:
        yield one
    finally:
        one.stop()
