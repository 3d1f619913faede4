"""SimulationReport: what a simulated fleet did, for people, for programs and for a browser."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgetrain.coordinator.history import DeviceRecord, RoundRecord
from edgetrain.storage import replace_file

__all__ = ["ClassSummary", "SimulationReport"]


@dataclass(frozen=True)
class ClassSummary:
    """All devices of one class and role together.

    Peaks are the largest of any device in bytes, None where no process ran; bytes, joules and
    examples are sums over devices and rounds; `plans` are all that its devices chose.
    """

    name: str
    role: str
    devices: int
    memory: int | None
    plans: tuple[str, ...]
    predicted_peak_bytes: int | None
    measured_peak_bytes: int | None
    joules: float | None
    uplink_bytes: int
    downlink_bytes: int
    examples: int


@dataclass(frozen=True)
class SimulationReport:
    """The result of `simulate`.

    Attributes:
        fleet: the configuration, as FleetConfig.to_table() gives it.
        rounds: one record a round, in order.
        devices: one record a device, those that train first.
        parameters: weights of the model, in number.
        update_bytes: the most bytes of tensors that one update can have.
        seconds: how long the simulation took, by this machine's clock.
        virtual_seconds: how long the fleet took, by the simulated clock.
    """

    fleet: Mapping[str, Any]
    rounds: tuple[RoundRecord, ...]
    devices: tuple[DeviceRecord, ...]
    parameters: int
    update_bytes: int
    seconds: float
    virtual_seconds: float

    @property
    def accuracy(self) -> list[float | None]:
        """Accuracy on the held-out devices after each round, 0 to 1; None where not judged."""
        return [record.accuracy for record in self.rounds]

    @property
    def final_accuracy(self) -> float | None:
        """The last accuracy that was judged, or None."""
        judged = [value for value in self.accuracy if value is not None]
        return judged[-1] if judged else None

    @property
    def uplink_bytes(self) -> int:
        """Bytes of all reports."""
        return sum(record.uplink_bytes for record in self.rounds)

    @property
    def downlink_bytes(self) -> int:
        """Bytes of all tasks."""
        return sum(record.downlink_bytes for record in self.rounds)

    @property
    def losses(self) -> list[tuple[str, str, int]]:
        """Every (device, reason, times) for which a task did not count or was cut short."""
        return [
            (device.name, reason, times)
            for device in self.devices
            for reason, times in sorted(device.reasons.items())
        ]

    @property
    def refusals(self) -> dict[str, int]:
        """How many reports were refused, by the name of the rule: keys of admission.REFUSALS."""
        total: Counter[str] = Counter()
        for record in self.rounds:
            total.update(record.refusals)
        return dict(sorted(total.items()))

    def classes(self) -> tuple[ClassSummary, ...]:
        """Return the devices by class and role, in the order of the devices."""
        groups: dict[tuple[str, str], list[DeviceRecord]] = {}
        for device in self.devices:
            groups.setdefault((device.device_class, device.role), []).append(device)
        return tuple(summary(name, role, members) for (name, role), members in groups.items())

    def to_table(self) -> dict[str, Any]:
        """Return the report as JSON's types."""
        return {
            "accuracy": self.accuracy,
            "final_accuracy": self.final_accuracy,
            "uplink_bytes": self.uplink_bytes,
            "downlink_bytes": self.downlink_bytes,
            "seconds": self.seconds,
            "virtual_seconds": self.virtual_seconds,
            "parameters": self.parameters,
            "update_bytes": self.update_bytes,
            "refusals": self.refusals,
            "devices": [device_table(device) for device in self.devices],
            "classes": [class_table(one) for one in self.classes()],
            "rounds": [asdict(record) for record in self.rounds],
            "fleet": self.fleet,
        }

    def to_json(self, path: Path | str | None = None) -> str:
        """Return the report as JSON text, and write it to `path` if given.

        Raises StorageError when the file cannot be written.
        """
        text = json.dumps(self.to_table(), indent=2)
        if path is not None:
            replace_file(Path(path), [text.encode("utf-8"), b"\n"])
        return text

    def to_html(self, path: Path | str) -> None:
        """Write the report as one page that needs no network. Raises StorageError."""
        from edgetrain.coordinator.dashboard.page import render  # noqa: PLC0415

        replace_file(Path(path), [render(self).encode("utf-8")])

    def print(self) -> None:
        """Print the final table, class by class, and who was dropped, on standard output."""
        from edgetrain.coordinator.simulation.terminal import print_report  # noqa: PLC0415

        print_report(self)


def device_table(device: DeviceRecord) -> dict[str, Any]:
    """Return a device as JSON's types; "class" is a word of JSON's and not of Python's."""
    table = asdict(device)
    return {"name": table.pop("name"), "class": table.pop("device_class"), **table}


def class_table(one: ClassSummary) -> dict[str, Any]:
    """Return a class as JSON's types."""
    return {**asdict(one), "plans": list(one.plans)}


def summary(name: str, role: str, members: list[DeviceRecord]) -> ClassSummary:
    """Return the summary of the devices of one class and role."""
    joules = [device.joules for device in members if device.joules is not None]
    return ClassSummary(
        name,
        role,
        len(members),
        members[0].memory,
        tuple(sorted({device.plan for device in members if device.plan is not None})),
        greatest([device.predicted_peak_bytes for device in members]),
        greatest([device.measured_peak_bytes for device in members]),
        sum(joules) if joules else None,
        sum(device.uplink_bytes for device in members),
        sum(device.downlink_bytes for device in members),
        sum(device.examples for device in members),
    )


def greatest(values: list[int | None]) -> int | None:
    """Return the largest number, or None where none is known."""
    return max((value for value in values if value is not None), default=None)
