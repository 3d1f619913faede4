"""The folder in which a device keeps who it is, what its owner allows and what it has taken on."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from edgetrain.client.enrolment import Enrolment
from edgetrain.client.journal import Journal
from edgetrain.errors import ConfigError, PayloadError, StorageError
from edgetrain.fields import check_fields, whole
from edgetrain.storage import replace_file

__all__ = ["StateFolder", "default_state"]

SYSTEM, USER = Path("/var/lib/edgetrain-client"), ".local/state/edgetrain-client"
LARGEST_NODE_ID = (1 << 64) - 1
ROOM = 1 << 20
"""Bytes that must be free before a device asks for work."""
MOMENT = 2.0
"""Seconds in which whoever only looks whether a daemon is running has let go again."""


def default_state() -> Path:
    """Return where the state lies unless it is said: systemd's choice, or the system's, or mine."""
    if given := os.environ.get("STATE_DIRECTORY"):
        return Path(given.partition(":")[0])
    return SYSTEM if os.geteuid() == 0 else Path.home() / USER


class StateFolder:
    """The files of one device; each is replaced whole, and a loss of power leaves one or the other.

    enrolment.json, node.key   the federation, and the key that it knows this device by
    settings.json              what the owner allows, as edgetrain.client.node_settings has it
    node.json                  the number that the coordinator gave it
    journal, work/             the instruction that it is at, and the files of that
    samples, samples.sock      what it has recorded, and where applications hand more of that over
    paused                     is there while the owner wants no work done
    lock                       is held by the daemon
    status.json                what the daemon does; for people, and not kept safe
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.key = path / "node.key"
        self.work = path / "work"
        self.ring = path / "samples"
        self.socket = path / "samples.sock"
        self._status = path / "status.json"
        self._enrolment = path / "enrolment.json"
        self._settings = path / "settings.json"
        self._node = path / "node.json"
        self._paused = path / "paused"

    def join(self, enrolment: Enrolment, settings: Mapping[str, Any]) -> None:
        """Keep an enrolment, the key for its owner's eyes alone, and what the owner allows.

        Under another key the device is another node: what it had taken on is forgotten. Raises
        StorageError when it cannot be written, ConfigError while the daemon runs.
        """
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"cannot make {self.path}: {error.strerror}") from error
        public = asdict(enrolment)
        key = public.pop("key").encode()
        with self.hold():
            if self.key.exists() and self.key.read_bytes() != key:
                self._enrolment.unlink(missing_ok=True)
                self._node.unlink(missing_ok=True)
                self.journal().clear()
            replace_file(self.key, [key], private=True)
            self._write(self._settings, settings)
            # It comes last: a device is enrolled when it is there.
            self._write(self._enrolment, public)

    def leave(self) -> None:
        """Forget everything, the key first. Raises StorageError when something stays.

        To be called by who holds the folder.
        """
        try:
            for path in (self.key, self._enrolment):
                path.unlink(missing_ok=True)
            remove_tree(self.path)
        except OSError as error:
            raise StorageError(f"cannot remove {self.path}: {error.strerror}") from error

    @property
    def enrolment(self) -> Enrolment:
        """What was joined. Raises ConfigError for a device that has not joined, PayloadError."""
        fields = self._read(self._enrolment)
        if fields is None or not self.key.exists():
            raise ConfigError(f"{self.path} holds no enrolment: edgetrain-client join FILE")
        return Enrolment.from_fields({**fields, "key": self.key.read_text(encoding="utf-8")})

    @property
    def settings(self) -> dict[str, Any]:
        """What the owner allows, as it was written."""
        return self._read(self._settings) or {}

    @property
    def node_id(self) -> int:
        """The number that the coordinator gave this device; 0 before it did."""
        fields = self._read(self._node)
        if fields is None:
            return 0
        checked = check_fields(fields, {"node_id": whole(0, LARGEST_NODE_ID)}, "node.json")
        return int(checked["node_id"])

    @node_id.setter
    def node_id(self, number: int) -> None:
        self._write(self._node, {"node_id": number})

    @property
    def paused(self) -> bool:
        """Whether the owner wants no work done."""
        return self._paused.exists()

    @paused.setter
    def paused(self, wanted: bool) -> None:
        if wanted:
            replace_file(self._paused, [])
        else:
            self._paused.unlink(missing_ok=True)

    @property
    def told(self) -> dict[str, Any]:
        """What the daemon last said that it does; nothing where it has not, or only in part."""
        with contextlib.suppress(PayloadError):
            found = self._read(self._status)
            return found if isinstance(found, dict) else {}
        return {}

    def tell(self, fields: Mapping[str, Any]) -> None:
        """Say what the daemon does; a full disk keeps nobody from working."""
        with contextlib.suppress(StorageError):
            replace_file(self._status, [json.dumps(fields).encode()], durable=False)

    def require_room(self) -> None:
        """Raise StorageError unless there is room to take something on."""
        found = os.statvfs(self.path)
        if found.f_bavail * found.f_frsize < ROOM:
            raise StorageError(f"the disk of {self.path} is full: free some space")

    def journal(self) -> Journal:
        """Return the journal, as it was left."""
        return Journal(self.path / "journal")

    def clear_work(self) -> None:
        """Remove the files of an instruction that is done with."""
        if self.work.exists():
            with contextlib.suppress(OSError):
                remove_tree(self.work)

    @contextlib.contextmanager
    def hold(self, patience: float = MOMENT) -> Iterator[None]:
        """Be the only one who works here. Raises ConfigError where another is for `patience` s."""
        if not self.path.is_dir():
            raise ConfigError(f"{self.path} holds no enrolment: edgetrain-client join FILE")
        with (self.path / "lock").open("a+b") as file:
            end = time.monotonic() + patience
            while not locked(file):
                if time.monotonic() >= end:
                    raise ConfigError(f"the daemon of {self.path} is running: stop it first")
                time.sleep(0.02)
            yield

    @property
    def held(self) -> bool:
        """Whether a daemon is at work here."""
        try:
            with self.hold(patience=0):
                return False
        except ConfigError:
            return self.path.is_dir()

    def _read(self, path: Path) -> Any:
        """Return the JSON in a file, or None where there is no such file."""
        try:
            return json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StorageError(f"cannot read {path}: {error.strerror}") from error
        except ValueError as error:
            raise PayloadError(f"{path} is damaged: join again") from error

    def _write(self, path: Path, fields: Mapping[str, Any]) -> None:
        replace_file(path, [json.dumps(fields, indent=2).encode() + b"\n"], private=True)


def locked(file: IO[bytes]) -> bool:
    """Lock a file, if nobody else has."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def remove_tree(folder: Path) -> None:
    """Remove a folder and all that is in it. Raises OSError."""
    # It is seldom needed, and brings three compressors along.
    import shutil  # noqa: PLC0415

    shutil.rmtree(folder)
