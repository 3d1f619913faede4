"""The sentences and figures of a report, as plain text: nothing here is HTML yet."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edgetrain.coordinator.history import NOT_ASKED, DeviceRecord
from edgetrain.digest import LedgerDigest
from edgetrain.sizes import format_size

if TYPE_CHECKING:
    from edgetrain.coordinator.simulation.report import SimulationReport

FLOAT_BYTES = 4
"""Bytes of a weight in float32, which an ordinary federated update would send."""

LOSS_ABOUT = (
    "Cross-entropy, a mean over examples. The training line is what devices saw on their own data "
    "while they learnt."
)
CLASSES_ABOUT = (
    "Memory is the whole training process. Energy and time are modelled from the class's own "
    "figures; predicted and measured are the largest of any of its devices."
)
FOOTER = (
    "Training was real: every task ran in a process of its own on this machine. Time, energy, "
    "links and absence were modelled. This file needs no network."
)


def title(report: SimulationReport) -> str:
    """Return what a browser's tab says."""
    return f"edgetrain: {report.fleet['data']['path']}, {len(report.rounds)} rounds"


def heading(report: SimulationReport) -> str:
    """Return the result as a headline."""
    trained = sum(d.role == "train" and d.answered > 0 for d in report.devices)
    judged = sum(d.role == "evaluate" and d.answered > 0 for d in report.devices)
    accuracy = report.final_accuracy
    if accuracy is None:
        return f"{trained} devices trained together"
    return f"{trained} devices trained together; {judged} unseen ones judge: {accuracy:.1%} right"


def lead(report: SimulationReport) -> str:
    """Return what was trained, on what and how."""
    model, training = report.fleet["model"], report.fleet["training"]
    hidden = "-".join(str(width) for width in model["hidden"])
    return (
        f"Data {report.fleet['data']['path']}, {model['name']} with hidden layers {hidden} "
        f"({report.parameters:,} weights), mode {model['mode']}, batch {training['batch']}, "
        f"local epochs {training['local_epochs']}, codec {training['codec']}, "
        f"seed {training['seed']}. {gathered(report)}"
    )


def gathered(report: SimulationReport) -> str:
    """Return how reports made versions of the model."""
    training = report.fleet["training"]
    reports = sum(one.reported for one in report.rounds)
    stale = sum(one.stale for one in report.rounds)
    late = f"; {stale:,} of {reports:,} reports began with an older one" if stale else ""
    if training["aggregation"] == "buffered":
        return f"Buffered: every {training['buffer']} reports made a version{late}."
    return f"Synchronous: a round waited for the devices that it asked{late}."


def tiles(report: SimulationReport) -> list[tuple[str, str]]:
    """Return the figures that lead the page, each with its label."""
    accuracy = report.final_accuracy
    classes = {device.device_class for device in report.devices}
    measured = [d.measured_peak_bytes for d in report.devices if d.measured_peak_bytes is not None]
    ratio = FLOAT_BYTES * report.parameters / report.update_bytes
    return [
        ("-" if accuracy is None else f"{accuracy:.1%}", "accuracy on held-out devices"),
        (str(len(report.rounds)), f"rounds, {duration(report.virtual_seconds)} for the fleet"),
        (str(len(report.devices)), f"devices of {len(classes)} classes"),
        (
            format_size(max(measured)) if measured else "-",
            "largest training process, whole, measured",
        ),
        (format_size(report.update_bytes), f"an update, {ratio:.1f} times less than float32"),
        (f"{report.seconds:.0f} s", "to simulate, on this machine"),
    ]


def accuracy_about(judges: Sequence[DeviceRecord]) -> str:
    """Return whose data the accuracy is about."""
    held = sum(device.held for device in judges)
    return f"{held:,} examples on {len(judges)} devices whose owners never train."


def memory_about(report: SimulationReport) -> str:
    """Return whether budgets were kept, and how good the predictions were."""
    ran = [device for device in report.devices if device.measured_peak_bytes is not None]
    over = [
        device.name
        for device in ran
        if device.memory is not None and (device.measured_peak_bytes or 0) > device.memory
    ]
    errors = [
        abs((device.measured_peak_bytes or 0) / device.predicted_peak_bytes - 1)
        for device in ran
        if device.predicted_peak_bytes
    ]
    kept = "every process stayed inside its budget" if not over else f"over: {', '.join(over)}"
    missed = f"; predictions were right to {max(errors):.1%} or better" if errors else ""
    return (
        f"The peak of each training process over all rounds, interpreter included: {kept}{missed}. "
        "Each device chooses the plan that learns best inside its own budget."
    )


def bytes_about(report: SimulationReport) -> str:
    """Return what travelled in all."""
    return (
        f"{format_size(report.uplink_bytes)} up and {format_size(report.downlink_bytes)} down in "
        f"{len(report.rounds)} rounds, all devices and judging included. Data never travel."
    )


def judges_about(report: SimulationReport, judges: Sequence[DeviceRecord]) -> str:
    """Return how far the held-out devices lie apart."""
    known = [device.accuracy for device in judges if device.accuracy is not None]
    if not known:
        return "No device is held out in this fleet."
    return (
        f"Accuracy of the last version that each judged: {min(known):.1%} to {max(known):.1%}, "
        f"{report.final_accuracy or 0:.1%} over all examples."
    )


def size(value: int | None) -> str:
    """Return bytes as people read them, or a dash where nobody knows."""
    return "-" if value is None else format_size(value)


def energy(joules: float | None) -> str:
    """Return joules as people read them, or a dash where nobody knows."""
    if joules is None:
        return "-"
    return f"{joules / 1000:.2f} kJ" if joules >= 1000 else f"{joules:.1f} J"


def ledger(digest: LedgerDigest | None) -> str:
    """Return what a device's ledger says in all, or a dash where it keeps none."""
    if digest is None:
        return "-"
    return f"{digest.tasks:,} tasks, {energy(digest.joules)}"


def how_often(reason: str, times: int, asked: int) -> str:
    """Return how often a reason held, of the tasks or rounds that it could have."""
    if reason.startswith(NOT_ASKED):
        return "1 round" if times == 1 else f"{times} rounds"
    return f"{times} of {asked} tasks"


def number(value: float | None) -> str:
    """Return a number with three decimals, or nothing where there is none."""
    return "" if value is None else f"{value:.3f}"


def duration(seconds: float) -> str:
    """Return seconds as people read them."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def as_toml(fleet: Mapping[str, Any]) -> str:
    """Return the fleet's configuration as TOML."""
    parts = []
    for section, found in fleet.items():
        for one in found if isinstance(found, list) else [found]:
            mark = f"[[{section}]]" if isinstance(found, list) else f"[{section}]"
            # JSON's way to write texts, numbers and lists of them is TOML's as well.
            lines = [f"{key} = {json.dumps(value)}" for key, value in one.items()]
            parts.append("\n".join([mark, *lines]))
    return "\n\n".join(parts)
