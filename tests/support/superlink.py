"""A SuperLink, stock SuperNodes and our own daemons as processes, and a fleet to run on them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from fleet_server import Certificates, private_pem
from small_fleet import node_config

from edgetrain.client.enrolment import Enrolment
from edgetrain.config import FleetConfig
from edgetrain.coordinator.checkpoint import Checkpoint, CheckpointFolder
from edgetrain.coordinator.service.service import free_port
from edgetrain.coordinator.simulation.devices import SimulatedDevice

APP = Path(__file__).parents[2] / "coordinator" / "flower_app"
TOOLS = Path(sys.executable).parent
RUN_SECONDS = 300
START_SECONDS = 90
STOP_SECONDS = 10


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


class SuperLink:
    """A SuperLink that listens; with certificates it wants TLS, and nodes that are registered."""

    def __init__(self, folder: Path, certificates: Certificates | None) -> None:
        self.folder = folder
        self.certificates = certificates
        self.address = f"127.0.0.1:{free_port()}"
        self.environment = {
            **os.environ,
            "FLWR_HOME": str(folder / "flower"),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "PATH": f"{TOOLS}{os.pathsep}{os.environ['PATH']}",
        }
        (folder / "flower").mkdir()
        trust = f'root-certificates = "{certificates.authority}"' if certificates else ""
        (folder / "flower" / "config.toml").write_text(
            f'[superlink]\ndefault = "edge"\n[superlink.edge]\naddress = "{self.address}"\n'
            f"{trust or 'insecure = true'}\n"
        )

    @property
    def command(self) -> list[str]:
        """What starts it."""
        host, _, port = self.address.rpartition(":")
        words = ["--host", host, "--port", port, "--disable-runtime-dependency-installation"]
        if self.certificates is None:
            words.append("--insecure")
        else:
            words += ["--ssl-certfile", str(self.certificates.certificate)]
            words += ["--ssl-keyfile", str(self.certificates.key)]
            words += ["--ssl-ca-certfile", str(self.certificates.authority)]
            words.append("--enable-supernode-auth")
        return [str(TOOLS / "flower-superlink"), *words]

    def register(self, name: str) -> ec.EllipticCurvePrivateKey:
        """Return the key of a node that is now registered."""
        key = ec.generate_private_key(ec.SECP384R1())
        public = self.folder / f"{name}.pub"
        openssh = (serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        public.write_bytes(key.public_key().public_bytes(*openssh))
        self.call("supernode", "register", str(public), "edge", "--name", name)
        return key

    def call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Do a command of Flower's; fail where it fails."""
        done = subprocess.run(
            [str(TOOLS / "flwr"), *arguments],
            env=self.environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=RUN_SECONDS,
            check=False,
        )
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{self.logs}"
        return done

    @contextmanager
    def supernode(self, device: SimulatedDevice) -> Iterator[None]:
        """Run a device as a stock SuperNode, registered where that is wanted."""
        words = ["--superlink", self.address, "--node-config", node_config(device)]
        words += ["--host", "127.0.0.1", "--port", str(free_port())]
        if self.certificates is None:
            words.append("--insecure")
        else:
            key = self.folder / f"{device.name}.key"
            key.write_bytes(
                self.register(device.name).private_bytes(
                    serialization.Encoding.PEM,
                    serialization.PrivateFormat.OpenSSH,
                    serialization.NoEncryption(),
                )
            )
            words += ["--root-certificates", str(self.certificates.authority)]
            words += ["--auth-supernode-private-key", str(key)]
        command = [str(TOOLS / "flower-supernode"), *words]
        with running(command, self.environment, self.folder / f"{device.name}.log"):
            yield

    @contextmanager
    def lean(self, device: SimulatedDevice) -> Iterator[subprocess.Popen[bytes]]:
        """Run a device as our own daemon, which has joined as an owner would have it join."""
        assert self.certificates is not None
        state = self.folder / f"{device.name}.state"
        key = private_pem(self.register(device.name)).decode()
        authority = self.certificates.authority_pem
        enrolment = self.folder / f"{device.name}.toml"
        one = Enrolment(device.name, self.address, authority, key, poll_seconds=0.5)
        enrolment.write_text(one.to_toml())
        ours = [sys.executable, "-P", "-m", "edgetrain.client"]
        words = [*ours, "join", str(enrolment), "--state", str(state)]
        for name, value in device.node_config().items():
            if name not in ("device", "clock"):
                words += [f"--{'data' if name == 'dataset' else name}", str(value)]
        subprocess.run(words, check=True, capture_output=True, cwd=self.folder)
        command = [*ours, "run", "--state", str(state)]
        log = self.folder / f"{device.name}.log"
        with running(command, self.environment, log) as process:
            yield process

    def run(self, fleet: FleetConfig) -> Checkpoint:
        """Run the fleet in the file fleet.toml to its end; return its last version."""
        settings = {
            "fleet": self.folder / "fleet.toml",
            "checkpoints": self.folder / "real",
            "result": self.folder / "result.json",
        }
        words = " ".join(f'{key}="{value}"' for key, value in settings.items())
        done = self.call("run", str(APP), "edge", "--stream", "--run-config", words)
        assert (self.folder / "result.json").exists(), f"{done.stdout}\n{done.stderr}\n{self.logs}"
        kept = CheckpointFolder(self.folder / "real").newest(fleet.to_table())
        assert kept is not None
        return kept

    @property
    def logs(self) -> str:
        """The end of every process's log."""
        paths = sorted(self.folder.glob("*.log"))
        return "\n".join(f"--- {path.name}\n{path.read_text()[-3000:]}" for path in paths)


@contextmanager
def superlink(folder: Path, certificates: Certificates | None = None) -> Iterator[SuperLink]:
    """Run a SuperLink while the context is open."""
    link = SuperLink(folder, certificates)
    log = folder / "superlink.log"
    with running(link.command, link.environment, log) as process:
        wait_for_port(int(link.address.rpartition(":")[2]), process, log)
        yield link
