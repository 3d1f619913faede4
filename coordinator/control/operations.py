"""The operations of the control service, on the files that are a federation's truth.

Each takes and returns the fields of the messages that control.proto declares for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgetrain.config import DeviceConfig, FleetConfig
from edgetrain.coordinator.directions import BUDGETS, Directions
from edgetrain.coordinator.service.keeper import FLEET, Wish, directions_of, run_folder
from edgetrain.coordinator.service.place import Place, write_json
from edgetrain.coordinator.service.status import status_fields
from edgetrain.coordinator.service.watch import events
from edgetrain.errors import ConfigError

__all__ = ["OPERATIONS", "STREAMS", "Fields"]

Fields = dict[str, Any]


def status(place: Place, _: Fields) -> Fields:
    """Return what the federation does."""
    return status_fields(place)


def pause(place: Place, _: Fields) -> Fields:
    """Let devices get no new tasks once the round at hand is over."""
    return directed(place, paused=True)


def resume(place: Place, _: Fields) -> Fields:
    """Let devices get tasks again."""
    return directed(place, paused=False)


def stop(place: Place, _: Fields) -> Fields:
    """End training, and keep what was learnt."""
    wish = replace(wanted(place, "stop"), go_on=False)
    write_json(place.wish, {"run": wish.run, "go_on": wish.go_on})
    return training(place, wish)


def budgets(place: Place, _: Fields) -> Fields:
    """Return what every class of devices may use in all; None is without limit."""
    run = wanted(place, "budget").run
    directions = Directions.read(directions_of(place, run))
    found = [directions.allowed(device) for device in classes(run_folder(place, run))]
    shown = [
        {"device_class": device.name, **{name: getattr(device, name) for name in BUDGETS}}
        for device in found
    ]
    return {"run": run, "budgets": shown}


def set_budget(place: Place, fields: Fields) -> Fields:
    """Allow a class of devices another total, and return all."""
    run, name = wanted(place, "budget").run, fields["device_class"]
    known = {device.name: device for device in classes(run_folder(place, run))}
    if name not in known:
        raise ConfigError(f"the fleet has no class {name!r}: it has {', '.join(known)}")
    totals = {total: fields[total] for total in BUDGETS if fields.get(total) is not None}
    if not totals:
        raise ConfigError("there is nothing to set: name a total of energy, of seconds, or both")
    path = directions_of(place, run)
    Directions.read(path).allowing(known[name], totals).store(path)
    return budgets(place, {})


OPERATIONS: dict[str, Callable[[Place, Fields], Fields]] = {
    "Status": status,
    "Pause": pause,
    "Resume": resume,
    "Stop": stop,
    "Budgets": budgets,
    "SetBudget": set_budget,
}
"""What is answered once, by the name of the method."""

STREAMS: dict[str, Callable[[Place, Callable[[float], object]], Iterator[Fields]]] = {
    "Watch": events
}
"""What is answered over and over; the callable waits some seconds, and ends the stream if true."""


def wanted(place: Place, action: str) -> Wish:
    """Return the run that is wanted. Raises ConfigError where there is none to do this with."""
    wish = Wish.read(place)
    if wish is None:
        raise ConfigError(f"there is no run to {action}: see `edgetrain-coordinator start`")
    return wish


def directed(place: Place, *, paused: bool) -> Fields:
    """Change whether the run pauses."""
    wish = wanted(place, "pause" if paused else "resume")
    path = directions_of(place, wish.run)
    replace(Directions.read(path), paused=paused).store(path)
    return training(place, wish)


def training(place: Place, wish: Wish) -> Fields:
    """Return what is wanted of the run."""
    directions = Directions.read(directions_of(place, wish.run))
    return {"run": wish.run, "go_on": wish.go_on, "paused": directions.paused}


def classes(folder: Path) -> tuple[DeviceConfig, ...]:
    """Return the classes of devices of a run. Raises ConfigError."""
    return FleetConfig.from_toml(folder / FLEET).devices
