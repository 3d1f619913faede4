"""A federation as a service: real processes, driven by the commands that an operator has."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import signal
import ssl
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any

import psutil
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from flwr.common.constant import TIMESTAMP_HEADER
from flwr.proto.fleet_pb2 import ActivateNodeRequest
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
from flwr.supercore.primitives.asymmetric import public_key_to_bytes, sign_message
from small_fleet import node_config

from edgetrain.config import FleetConfig
from edgetrain.coordinator.checkpoint import Checkpoint, CheckpointFolder
from edgetrain.coordinator.service.service import free_port
from edgetrain.coordinator.simulation.devices import SimulatedDevice
from edgetrain.coordinator.simulation.simulate import simulate

TOOLS = Path(sys.executable).parent
# Everything here is quick on a quiet machine; these only bound a broken one.
READY_SECONDS = 90
RUN_SECONDS = 240
STOP_SECONDS = 20
LOOK_SECONDS = 0.2


class Federation:
    """A service in a folder, driven by its own commands."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = folder / "federation"
        self.checkpoints = self.state / "runs" / "0001" / "checkpoints"
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self.environment = {
            **os.environ,
            "EDGETRAIN_FEDERATION": str(self.state),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "PATH": f"{TOOLS}{os.pathsep}{os.environ['PATH']}",
        }

    def call(self, *arguments: str) -> dict[str, Any]:
        """Return what a command says; fail where it ends with an error."""
        done = subprocess.run(
            [TOOLS / "edgetrain-coordinator", *arguments, "--json"],
            env=self.environment, cwd=self.folder, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert isinstance(found, dict)
        return found

    def up(self, listen: str = "127.0.0.1", host: str | None = None) -> None:
        """Start the service, which devices reach as `host`, and wait until it is ready."""
        with (self.folder / "up.log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *(TOOLS / "edgetrain-coordinator", "up", "--listen", listen),
                    *("--port", str(self.port), *(("--host", host) if host else ())),
                ],
                env=self.environment, cwd=self.folder, stdout=log, stderr=log,
            )  # fmt: skip
        self.wait_for("the service", lambda status: status["ready"], READY_SECONDS)

    def wait_for(
        self, what: str, done: Callable[[dict[str, Any]], bool], seconds: float = RUN_SECONDS
    ) -> dict[str, Any]:
        """Return the first status that is as wanted; fail with the logs when none comes."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.process is not None and (self.state / "settings.json").exists():
                status = self.call("status")
                if done(status):
                    return status
            time.sleep(LOOK_SECONDS)
        pytest.fail(f"{what} did not come about: {self.logs()}")

    def logs(self) -> str:
        """Return the ends of all logs."""
        paths = [*self.folder.glob("*.log"), *(self.state / "logs").glob("*.log")]
        return "\n".join(f"--- {path.name}\n{path.read_text()[-3000:]}" for path in paths)

    def processes(self) -> list[psutil.Process]:
        """Return the service's own process and all that it started."""
        assert self.process is not None
        parent = psutil.Process(self.process.pid)
        return [parent, *parent.children(recursive=True)]

    def kill(self, command: str, *, certain: bool = True) -> bool:
        """Kill the processes in whose command line a word stands; if `certain` there is one.

        Return whether there was.
        """
        doomed = [one for one in self.processes() if any(command in word for word in one.cmdline())]
        assert doomed or not certain, command
        for one in doomed:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.send_signal(signal.SIGKILL)
        return bool(doomed)

    def kill_all(self) -> None:
        """Kill everything at once."""
        assert self.process is not None
        for one in self.processes():
            one.send_signal(signal.SIGKILL)
        self.process.wait(STOP_SECONDS)

    def close(self) -> None:
        """Stop the service as an operator would."""
        if self.process is None or self.process.poll() is not None:
            return
        family = self.processes()
        self.process.terminate()
        assert self.process.wait(2 * STOP_SECONDS) == 0
        _, alive = psutil.wait_procs(family, timeout=STOP_SECONDS)
        assert not alive, alive

    def activate(self, enrolment: dict[str, str]) -> int:
        """Ask to come online with the key of an enrolment; return the answer's status."""
        key = load_pem_private_key(enrolment["key"].encode(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        public = public_key_to_bytes(key.public_key())
        now = datetime.datetime.now(datetime.UTC).isoformat()
        headers = {
            "content-type": "application/protobuf",
            FLEET_HTTP_PUBLIC_KEY_HEADER: b64encode(public).decode(),
            FLEET_HTTP_SIGNATURE_HEADER: b64encode(sign_message(key, now.encode())).decode(),
            TIMESTAMP_HEADER: now,
        }
        request = ActivateNodeRequest(public_key=public, heartbeat_interval=30)
        return self.ask("POST", "/v1/fleet/activate-node", headers, request.SerializeToString())

    def ask(
        self, method: str, path: str, headers: dict[str, str] | None = None, body: bytes = b""
    ) -> int:
        """Return the status of a request to the device port."""
        trust = ssl.create_default_context(cafile=str(self.state / "authority" / "ca.crt"))
        connection = HTTPSConnection("127.0.0.1", self.port, context=trust, timeout=READY_SECONDS)
        try:
            connection.request(method, path, body, headers or {})
            return connection.getresponse().status
        finally:
            connection.close()


@contextmanager
def supernode(federation: Federation, device: SimulatedDevice) -> Iterator[None]:
    """Run a stock SuperNode with the key of the device's enrolment."""
    folder = federation.folder
    config = node_config(
        device,
        ledger=str(folder / f"{device.name}.ledger"),
        ledger_key=str(folder / f"{device.name}.key"),
    )
    command = [
        TOOLS / "flower-supernode",
        *("--superlink", f"127.0.0.1:{federation.port}"),
        *("--root-certificates", folder / f"{device.name}.crt"),
        *("--auth-supernode-private-key", folder / f"{device.name}.key"),
        *("--host", "127.0.0.1", "--port", str(free_port())),
        *("--node-config", config),
    ]
    environment = {**federation.environment, "FLWR_HOME": str(folder / f"{device.name}.home")}
    with (folder / f"{device.name}.log").open("wb") as log:
        process = psutil.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log)
    try:
        yield
    finally:
        family = [process, *process.children(recursive=True)]
        process.terminate()
        _, alive = psutil.wait_procs(family, timeout=STOP_SECONDS)
        for one in alive:
            one.kill()
        process.wait(STOP_SECONDS)


def reached(version: int) -> Callable[[dict[str, Any]], bool]:
    """Return the question whether the run has come so far."""
    return lambda status: status["run"]["version"] >= version


def kept_checkpoint(federation: Federation, fleet: FleetConfig) -> Checkpoint:
    """Return the newest version that the federation's first run has kept."""
    kept = CheckpointFolder(federation.checkpoints)
    found = kept.newest(fleet.to_table())
    assert found is not None
    return found


def assert_as_simulated(federation: Federation, fleet: FleetConfig) -> None:
    """Compare the federation's model with that of a simulation, bit for bit."""
    real = kept_checkpoint(federation, fleet)
    simulate(fleet, checkpoints=federation.folder / "simulated")
    simulated = CheckpointFolder(federation.folder / "simulated").newest(fleet.to_table())
    assert simulated is not None
    assert real.model.to_tensors() == simulated.model.to_tensors()
