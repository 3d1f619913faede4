"""What a federation does and how far it has come, as JSON has it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from edgetrain.coordinator.checkpoint import Checkpoint, CheckpointFolder, read_checkpoint
from edgetrain.coordinator.service.keeper import CHECKPOINTS, RunRecord, Wish, run_folder
from edgetrain.coordinator.service.place import Place, read_json
from edgetrain.errors import ConfigError, EdgetrainError

__all__ = ["checkpoints_of", "newest_checkpoint", "progress", "status_fields"]


def status_fields(place: Place) -> dict[str, Any]:
    """Return the federation's address, its processes, and its run. Raises ConfigError."""
    settings = place.known_settings()
    up = place.is_held()
    state = read_json(place.state)
    found = progress(place)
    del found["devices"]
    programs = state.get("programs", {})
    if not up:
        programs = {name: {**one, "running": False, "pid": None} for name, one in programs.items()}
    return {
        "address": settings.address,
        "folder": str(place.folder),
        "up": up,
        "ready": up and state.get("ready", False),
        "programs": programs,
        "run": RunRecord.read(place).to_fields() | found,
    }


def progress(place: Place) -> dict[str, Any]:
    """Return how far the wanted run has come: version, accuracy, what was lost, every device."""
    checkpoint = newest_checkpoint(place)
    if checkpoint is None:
        nothing = {"version": 0, "rounds": None, "accuracy": None, "examples": 0}
        return {**nothing, "lost": {}, "devices": {}}
    history = checkpoint.history
    judged = [record.accuracy for record in history.rounds if record.accuracy is not None]
    lost: Counter[str] = Counter()
    for record in history.rounds:
        lost.update(record.losses)
    return {
        "version": checkpoint.model.version,
        "rounds": checkpoint.fleet["training"]["rounds"],
        "accuracy": judged[-1] if judged else None,
        "examples": sum(record.examples for record in history.rounds),
        "lost": dict(lost),
        "devices": {
            name: {
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
            for name, device in history.devices.items()
        },
    }


def checkpoints_of(place: Place) -> Path:
    """Return the folder of the wanted run's checkpoints. Raises ConfigError where there is none."""
    wish = Wish.read(place)
    if wish is None:
        raise ConfigError(f"{place.folder} has no run: see `edgetrain-coordinator start`")
    return run_folder(place, wish.run) / CHECKPOINTS


def newest_checkpoint(place: Place) -> Checkpoint | None:
    """Return the newest whole checkpoint of the wanted run, or None before the first."""
    try:
        folder = checkpoints_of(place)
    except ConfigError:
        return None
    if not folder.is_dir():
        return None
    for path in CheckpointFolder(folder).versions():
        try:
            return read_checkpoint(path)
        except EdgetrainError:
            continue
    return None
