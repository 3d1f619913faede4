"""Where a federation keeps what: all of its state lies in one folder."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgetrain.errors import ConfigError, StorageError
from edgetrain.storage import replace_file

__all__ = ["FOLDER_VARIABLE", "Place", "Settings"]

FOLDER_VARIABLE = "EDGETRAIN_FEDERATION"
"""Names the folder to commands; every process of the service has it, and is known by it."""


@dataclass(frozen=True)
class Settings:
    """How devices reach the federation: this machine's name or address, and the port.

    `listen` is the address that the port is opened on; `metrics` a port of the loopback on which
    Prometheus is served, `control` the HOST:PORT where operators are served over mutual TLS; None
    for none.
    """

    host: str
    port: int
    listen: str
    metrics: int | None = None
    control: str | None = None

    @property
    def address(self) -> str:
        """What a device connects to."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def control_address(self) -> str:
        """What an operator of another machine connects to. Raises ConfigError without `control`."""
        if self.control is None:
            raise ConfigError(
                "the federation serves operators of this machine alone: "
                "run `edgetrain-coordinator up --control HOST:PORT` first"
            )
        return f"{self.address.rpartition(':')[0]}:{self.control.rpartition(':')[2]}"


@dataclass(frozen=True)
class Place:
    """A federation's folder, and every file in it by its name."""

    folder: Path

    @property
    def settings(self) -> Path:
        """How devices reach the federation."""
        return self.folder / "settings.json"

    @property
    def authority(self) -> Path:
        """The private certificate authority and what it has signed."""
        return self.folder / "authority"

    @property
    def operators(self) -> Path:
        """The certificates of operators of other machines."""
        return self.authority / "operators"

    @property
    def database(self) -> Path:
        """SuperLink's database: nodes, runs and messages."""
        return self.folder / "superlink.db"

    @property
    def secret(self) -> Path:
        """What SuperExec shows SuperLink, to be given work."""
        return self.folder / "superexec.secret"

    @property
    def flower_home(self) -> Path:
        """Where Flower's processes keep their own files."""
        return self.folder / "flower"

    @property
    def logs(self) -> Path:
        """One log a process."""
        return self.folder / "logs"

    @property
    def runs(self) -> Path:
        """A folder a run: its fleet, its checkpoints, its result."""
        return self.folder / "runs"

    @property
    def wish(self) -> Path:
        """What the operator wants: which run, and whether it should go on."""
        return self.folder / "wish.json"

    @property
    def state(self) -> Path:
        """What the service last saw of itself."""
        return self.folder / "state.json"

    @property
    def control(self) -> Path:
        """The socket on which operators of this machine are answered while the service runs."""
        return self.folder / "control.sock"

    @property
    def waker(self) -> Path:
        """The socket on which the proxy is told which nodes have been sent messages."""
        return self.folder / "wake.sock"

    @property
    def lock(self) -> Path:
        """Held by the one service that works in the folder."""
        return self.folder / "lock"

    def make(self) -> None:
        """Make the folders, for the owner alone. Raises StorageError."""
        try:
            for folder in (self.folder, self.authority, self.flower_home, self.logs, self.runs):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(
                f"cannot make the folder {error.filename}: {error.strerror}: choose another one"
            ) from error

    def known_settings(self) -> Settings:
        """Return the settings that `up` has stored. Raises ConfigError where it never ran."""
        found = read_json(self.settings)
        if not found:
            raise ConfigError(
                f"{self.folder} holds no federation: begin one with `edgetrain-coordinator up`, or "
                f"name its folder with --folder or {FOLDER_VARIABLE}"
            )
        return Settings(**found)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the folder for one service. Raises ConfigError where another has it."""
        descriptor = os.open(self.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise ConfigError(
                f"a service works in {self.folder} already: see `edgetrain-coordinator status`"
            ) from None
        try:
            yield
        finally:
            os.close(descriptor)

    def is_held(self) -> bool:
        """Say whether a service works in the folder."""
        if not self.lock.exists():
            return False
        try:
            with self.held():
                return False
        except ConfigError:
            return True


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a file of ours; an empty one where there is no file, or a broken one."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def write_json(path: Path, fields: Mapping[str, Any], *, durable: bool = True) -> None:
    """Replace a file of ours. Raises StorageError."""
    text = json.dumps(fields, indent=2) + "\n"
    replace_file(path, [text.encode("utf-8")], durable=durable)
