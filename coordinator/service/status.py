"""What a federation does and how far it has come, as JSON has it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from edgetrain.coordinator.checkpoint import CheckpointFolder, read_checkpoint
from edgetrain.coordinator.directions import Directions
from edgetrain.coordinator.history import DeviceRecord, History
from edgetrain.coordinator.service.keeper import (
    CHECKPOINTS,
    RunRecord,
    Wish,
    directions_of,
    run_folder,
)
from edgetrain.coordinator.service.place import Place, read_json
from edgetrain.errors import ConfigError, EdgetrainError

__all__ = ["Progress", "checkpoints_of", "device_fields", "progress_of", "status_fields"]


@dataclass(frozen=True)
class Progress:
    """How far a run has come: the version of its model, the rounds it is to do, what happened."""

    version: int = 0
    rounds: int | None = None
    history: History = field(default_factory=History)


def status_fields(place: Place) -> dict[str, Any]:
    """Return the federation's address, its processes, and its run. Raises ConfigError."""
    settings = place.known_settings()
    up = place.is_held()
    state = read_json(place.state)
    programs = state.get("programs", {})
    if not up:
        programs = {name: {**one, "running": False, "pid": None} for name, one in programs.items()}
    return {
        "address": settings.address,
        "folder": str(place.folder),
        "up": up,
        "ready": up and state.get("ready", False),
        "programs": programs,
        "run": {
            **RunRecord.read(place).to_fields(),
            "paused": is_paused(place),
            **progress_fields(progress_of(place)),
        },
    }


def is_paused(place: Place) -> bool:
    """Say whether the operator wants the run to pause."""
    wish = Wish.read(place)
    return wish is not None and Directions.read(directions_of(place, wish.run)).paused


def progress_fields(progress: Progress) -> dict[str, Any]:
    """Return what a run has done in all."""
    rounds, devices = progress.history.rounds, progress.history.devices.values()
    judged = [record.accuracy for record in rounds if record.accuracy is not None]
    trained = [record.training_loss for record in rounds if record.training_loss is not None]
    lost: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    for record in rounds:
        lost.update(record.losses)
        refused.update(record.refusals)
    ended = Counter((device.device_class, device.status) for device in devices)
    return {
        "version": progress.version,
        "rounds": progress.rounds,
        "accuracy": judged[-1] if judged else None,
        "training_loss": trained[-1] if trained else None,
        "reports": sum(device.answered for device in devices),
        "examples": sum(device.examples for device in devices),
        "uplink_bytes": sum(record.uplink_bytes for record in rounds),
        "downlink_bytes": sum(record.downlink_bytes for record in rounds),
        "lost": dict(lost),
        "refused": dict(refused),
        "last_tasks": [
            {"class": name, "status": status, "devices": count}
            for (name, status), count in sorted(ended.items())
        ],
    }


def device_fields(device: DeviceRecord) -> dict[str, Any]:
    """Return what one device has done in all."""
    return {
        "class": device.device_class,
        "role": device.role,
        "last_task": device.status,
        "tasks": device.answered,
        "asked": device.asked,
        "examples": device.examples,
        "seconds": device.seconds,
        "joules": device.joules,
        "energy_source": device.energy_source,
        "ledger": None if device.digest is None else device.digest.to_fields(),
        "reasons": dict(device.reasons),
    }


def checkpoints_of(place: Place) -> Path:
    """Return the folder of the wanted run's checkpoints. Raises ConfigError where there is none."""
    wish = Wish.read(place)
    if wish is None:
        raise ConfigError(f"{place.folder} has no run: see `edgetrain-coordinator start`")
    return run_folder(place, wish.run) / CHECKPOINTS


def progress_of(place: Place) -> Progress:
    """Return how far the wanted run has come, as its newest whole checkpoint has it."""
    try:
        folder = checkpoints_of(place)
    except ConfigError:
        return Progress()
    if not folder.is_dir():
        return Progress()
    for path in CheckpointFolder(folder).versions():
        try:
            return read_progress(path, path.stat().st_mtime_ns)
        except (EdgetrainError, OSError):
            continue
    return Progress()


@lru_cache(maxsize=1)
def read_progress(path: Path, _changed: int) -> Progress:
    """Return what a checkpoint says; read once for every change, and without the model kept."""
    checkpoint = read_checkpoint(path)
    rounds = checkpoint.fleet["training"]["rounds"]
    return Progress(checkpoint.model.version, rounds, checkpoint.history)
