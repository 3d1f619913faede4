"""Checkpoints: one file a version, written whole or not at all, and read back only if it is whole.

A file holds the global model to its last bit, the history, and the fleet's configuration. It is a
safetensors file; `inspect` and other people's tools can open it. A crash at any moment leaves the
older versions as they were, so that a run goes on from the newest version that can be read.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

from edgetrain import tensorfile
from edgetrain.coordinator.global_model import GlobalModel
from edgetrain.coordinator.history import History
from edgetrain.coordinator.journal import Journal
from edgetrain.errors import (
    ConfigError,
    DataError,
    EdgetrainError,
    ModelError,
    PayloadError,
    StorageError,
)
from edgetrain.model import Model
from edgetrain.ops.op import Mode
from edgetrain.tensorfile import State, Tensor

__all__ = [
    "FORMAT",
    "Checkpoint",
    "CheckpointFolder",
    "newest_file",
    "read_checkpoint",
    "version_of",
]

FORMAT = "edgetrain-fleet"
FORMAT_VERSION = "1"
PREFIX, SUFFIX = "version-", ".safetensors"
PATTERN = f"{PREFIX}*{SUFFIX}"
JOURNAL_SUFFIX = ".reports"
KEPT = 3
TEXTS = ("history", "fleet")
"""What is stored as text, in tensors of bytes: a header has no room for a long history."""
FREE_TO_CHANGE = (
    *("rounds", "deadline", "evaluate_every"),
    *("aggregation", "buffer", "staleness", "over_selection"),
)
"""Settings of [training] that a run may change when it goes on."""
FREE_OF_DEVICES = ("total_energy", "total_seconds")
"""The same of a class of devices."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """All that a run needs to go on: the model, what happened so far, and for which fleet.

    `fleet` is FleetConfig.to_table() of the run that wrote it.
    """

    model: GlobalModel
    history: History
    fleet: Mapping[str, Any]

    def encode(self) -> tuple[State, dict[str, str]]:
        """Return the file's tensors and metadata."""
        model = self.model
        tensors = model.to_tensors()
        texts = {"history": self.history.to_json(), "fleet": json.dumps(self.fleet)}
        for name, text in texts.items():
            raw = text.encode("utf-8")
            tensors[name] = Tensor("U8", (len(raw),), raw)
        metadata = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "version": str(model.version),
            "mode": model.mode,
            "model": model.model.to_json(),
        }
        return tensors, {**metadata, "sha256": digest(tensors, metadata)}

    @classmethod
    def decode(cls, tensors: State, metadata: Mapping[str, str]) -> Checkpoint:
        """Return the checkpoint in a file's tensors and metadata. Raises PayloadError."""
        if metadata.get("format") != FORMAT or metadata.get("format_version") != FORMAT_VERSION:
            raise PayloadError(f"not an {FORMAT} of version {FORMAT_VERSION}")
        told = {name: text for name, text in metadata.items() if name != "sha256"}
        if metadata.get("sha256") != digest(tensors, told):
            raise PayloadError("its content does not match its checksum")
        try:
            texts = {name: bytes(tensors[name].data).decode("utf-8") for name in TEXTS}
            kept = {name: tensor for name, tensor in tensors.items() if name not in TEXTS}
            model = GlobalModel.from_tensors(
                Model.from_json(metadata["model"]),
                mode_of(metadata["mode"]),
                int(metadata["version"]),
                kept,
            )
            fleet = json.loads(texts["fleet"])
        except (KeyError, ValueError, ModelError) as error:
            raise PayloadError(f"it lacks or misspells a part: {error}") from error
        return cls(model, History.from_json(texts["history"]), fleet)


def mode_of(word: str) -> Mode:
    """Return a mode by its name. Raises ValueError for a name that is none."""
    for mode in get_args(Mode):
        if word == mode:
            return cast(Mode, mode)
    raise ValueError(f"mode {word!r} is unknown")


def digest(tensors: State, metadata: Mapping[str, str]) -> str:
    """Return the sha256 of all names, texts and bytes, in the order of the names."""
    state = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode("utf-8"))
    for name in sorted(tensors):
        tensor = tensors[name]
        state.update(f"\n{name} {tensor.dtype} {tensor.shape}\n".encode())
        state.update(tensor.data)
    return state.hexdigest()


def read_checkpoint(path: Path | str) -> Checkpoint:
    """Return one file's checkpoint. Raises DataError or PayloadError naming the file."""
    tensors, metadata = tensorfile.read(path)
    try:
        return Checkpoint.decode(tensors, metadata)
    except PayloadError as error:
        raise PayloadError(f"{path} is no checkpoint: {error}: use an older one") from error


def newest_file(place: Path) -> Path:
    """Return a file as it is, and of a folder its newest checkpoint. Raises DataError."""
    if not place.is_dir():
        return place
    files = sorted(place.glob(PATTERN))
    if not files:
        raise DataError(f"{place} holds no checkpoint: name a run's --checkpoints folder")
    return files[-1]


def version_of(path: Path) -> int:
    """Return the version that a checkpoint's file is named after; 0 for any other file."""
    number = path.name.removeprefix(PREFIX).removesuffix(SUFFIX)
    return int(number) if number.isdecimal() else 0


class CheckpointFolder:
    """A folder of one run: the newest few versions, each with the journal of the round about it.

    `kept` is how many. Raises StorageError when the folder cannot be made.
    """

    def __init__(self, folder: Path | str, kept: int = KEPT) -> None:
        self.folder = Path(folder)
        self.kept = kept
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(
                f"cannot make the folder {folder}: {error.strerror}: choose another one"
            ) from error

    def path_of(self, version: int) -> Path:
        """Return where a version is kept."""
        return self.folder / f"{PREFIX}{version:06d}{SUFFIX}"

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the folder for one run; whoever else wants it waits."""
        descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def versions(self) -> Iterator[Path]:
        """Yield the files, the newest version first."""
        yield from sorted(self.folder.glob(PATTERN), reverse=True)

    def save(self, checkpoint: Checkpoint) -> Path:
        """Write a version and return its file, then let go of versions that are too old.

        Raises StorageError (a full disk); every older version is then still there, as it was.
        """
        path = self.path_of(checkpoint.model.version)
        tensors, metadata = checkpoint.encode()
        tensorfile.write(path, tensors, metadata)
        for old in list(self.versions())[self.kept :]:
            old.unlink(missing_ok=True)
            self.journal_of(version_of(old)).unlink(missing_ok=True)
        return path

    def journal_of(self, version: int) -> Path:
        """Return where the reports are that the round about a version counts."""
        return self.path_of(version).with_suffix(JOURNAL_SUFFIX)

    def open_journal(self, model: GlobalModel) -> Journal:
        """Return the journal of the round about a version, to go on with. Raises StorageError."""
        version = {"version": str(model.version)}
        return Journal(self.journal_of(model.version), digest(model.to_tensors(), version))

    def newest(self, fleet: Mapping[str, Any]) -> Checkpoint | None:
        """Return the newest version that is whole, or None where there is none.

        Damaged files are left alone and named in the log. Raises ConfigError when the run was
        another fleet's.
        """
        for path in self.versions():
            try:
                checkpoint = read_checkpoint(path)
            except EdgetrainError as error:
                log.warning("skipped a checkpoint: %s", error)
                continue
            difference = first_difference(checkpoint.fleet, fleet)
            if difference is not None:
                raise ConfigError(
                    f"{self.folder} holds a run with another {difference}: "
                    "use its own configuration, or another folder"
                )
            return checkpoint
        return None


def first_difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> str | None:
    """Return the first setting in which two fleets differ so that a run cannot go on, or None."""
    for section in ("data", "model", "training"):
        left, right = one.get(section, {}), other.get(section, {})
        for key in sorted({*left, *right}):
            free = section == "training" and key in FREE_TO_CHANGE
            if not free and left.get(key) != right.get(key):
                return f"[{section}] {key} ({left.get(key)!r}, here {right.get(key)!r})"
    if fixed_devices(one) != fixed_devices(other):
        return "[[device]]"
    return None


def fixed_devices(fleet: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a fleet's classes of devices without the settings that a run may change."""
    return [
        {name: value for name, value in device.items() if name not in FREE_OF_DEVICES}
        for device in fleet.get("device", [])
    ]
