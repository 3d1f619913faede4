"""The report of a fleet as one page of HTML, which needs no network and runs no script.

Everything that comes from a configuration, a device or a file is escaped on its way in.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from edgetrain.coordinator.admission import REFUSALS
from edgetrain.coordinator.dashboard import words
from edgetrain.coordinator.history import DeviceRecord, RoundRecord
from edgetrain.page.charts import Bar, Series, bar_rows, line_chart
from edgetrain.page.parts import fill, table, tile
from edgetrain.sizes import format_size

if TYPE_CHECKING:
    from edgetrain.coordinator.simulation.report import SimulationReport

__all__ = ["render"]

TEMPLATE = Path(__file__).parent / "report.html"
MOST_ROWS = 40
"""With more devices than this, bars stand for classes (their worst device) instead."""
MEBIBYTE = 2**20


def render(report: SimulationReport) -> str:
    """Return the page."""
    trainers = [device for device in report.devices if device.role == "train"]
    judges = [device for device in report.devices if device.role == "evaluate"]
    parts = {
        "title": escape(words.title(report)),
        "heading": escape(words.heading(report)),
        "lead": escape(words.lead(report)),
        "tiles": "\n".join(tile(value, label) for value, label in words.tiles(report)),
        "accuracy_about": escape(words.accuracy_about(judges)),
        "accuracy_chart": accuracy_chart(report.rounds),
        "loss_about": escape(words.LOSS_ABOUT),
        "loss_chart": loss_chart(report.rounds),
        "memory_about": escape(words.memory_about(report)),
        "memory_bars": memory_bars(report.devices),
        "classes_about": escape(words.CLASSES_ABOUT),
        "classes_table": classes_table(report),
        "bytes_about": escape(words.bytes_about(report)),
        "bytes_bars": bytes_bars(trainers),
        "judges_about": escape(words.judges_about(report, judges)),
        "judges_bars": judges_bars(judges),
        "dropped": dropped(report) + refusals(report),
        "devices_table": devices_table(report.devices),
        "rounds_table": rounds_table(report.rounds),
        "configuration": escape(words.as_toml(report.fleet)),
        "footer": escape(words.FOOTER),
    }
    return fill(TEMPLATE, parts)


def accuracy_chart(rounds: Sequence[RoundRecord]) -> str:
    """Return accuracy over the rounds, in per cent."""
    points = [(r.round, 100 * r.accuracy) for r in rounds if r.accuracy is not None]
    line = Series("held-out accuracy", "a", points)
    return line_chart(
        [line], title="Accuracy on held-out devices after each round", y_format=percent
    )


def loss_chart(rounds: Sequence[RoundRecord]) -> str:
    """Return the loss while training and on the held-out devices."""
    held = [(r.round, r.loss) for r in rounds if r.loss is not None]
    training = [(r.round, r.training_loss) for r in rounds if r.training_loss is not None]
    lines = [Series("held out", "a", held), Series("while training", "b", training)]
    return line_chart(
        lines, title="Mean loss an example after each round", y_format="{:.2f}".format
    )


def percent(value: float) -> str:
    """Return a number of per cent, with a decimal where it has one."""
    return f"{value:.1f}".removesuffix(".0") + " %"


def memory_bars(devices: Sequence[DeviceRecord]) -> str:
    """Return what each device's process used, was promised to use and was allowed."""
    shown = devices if len(devices) <= MOST_ROWS else worst_of_classes(devices)
    return bar_rows([memory_bar(device) for device in shown])


def memory_bar(device: DeviceRecord) -> Bar:
    """Return one device's row."""
    measured, promised = device.measured_peak_bytes, device.predicted_peak_bytes
    if measured is None:
        note = "never ran"
    else:
        note = f"{mebibytes(measured)}, predicted {mebibytes(promised)} MiB"
    over = measured is not None and device.memory is not None and measured > device.memory
    return Bar(device.name, measured, promised, device.memory, note, over)


def mebibytes(size: int | None) -> str:
    """Return a size in MiB as a bare number, or a question mark."""
    return "?" if size is None else f"{size / MEBIBYTE:.2f}"


def worst_of_classes(devices: Sequence[DeviceRecord]) -> list[DeviceRecord]:
    """Return the device of each class and role whose process was the largest."""
    worst: dict[tuple[str, str], DeviceRecord] = {}
    for device in devices:
        key = (device.device_class, device.role)
        if key not in worst or (device.measured_peak_bytes or 0) > (
            worst[key].measured_peak_bytes or 0
        ):
            worst[key] = device
    return list(worst.values())


def bytes_bars(trainers: Sequence[DeviceRecord]) -> str:
    """Return the mean bytes of a task and of a report, class by class."""
    rows = []
    for name in dict.fromkeys(device.device_class for device in trainers):
        members = [device for device in trainers if device.device_class == name]
        tasks = sum(device.asked - device.absences for device in members) or 1
        up = sum(device.uplink_bytes for device in members) / tasks
        down = sum(device.downlink_bytes for device in members) / tasks
        rows.append((name, up, down))
    full = max((max(up, down) for _, up, down in rows), default=1.0)
    bars = "".join(
        bar_rows([Bar(name, up, limit=full, note=f"{format_size(up)} up")], "a")
        + bar_rows([Bar("", down, limit=full, note=f"{format_size(down)} down")], "b")
        for name, up, down in rows
    )
    return bars or '<p class="empty">Nobody was asked to train.</p>'


def judges_bars(judges: Sequence[DeviceRecord]) -> str:
    """Return the last accuracy of each device that judges."""
    shown = [device for device in judges if device.accuracy is not None][:MOST_ROWS]
    if not shown:
        return '<p class="empty">No device has judged the model.</p>'
    return bar_rows(
        [
            Bar(
                device.name,
                device.accuracy,
                limit=1.0,
                note=f"{device.accuracy or 0:.1%} of {device.held}",
            )
            for device in shown
        ]
    )


def classes_table(report: SimulationReport) -> str:
    """Return the classes with what their devices chose, used, drew and sent."""
    headings = (
        *("class", "role", "plan chosen", "devices", "budget", "predicted", "measured"),
        *("energy", "up", "down", "examples"),
    )
    rows = [
        (
            one.name,
            one.role,
            "; ".join(one.plans) or "none fits",
            str(one.devices),
            words.size(one.memory),
            words.size(one.predicted_peak_bytes),
            words.size(one.measured_peak_bytes),
            words.energy(one.joules),
            format_size(one.uplink_bytes),
            format_size(one.downlink_bytes),
            f"{one.examples:,}",
        )
        for one in report.classes()
    ]
    return table(headings, rows, 8)


def devices_table(devices: Sequence[DeviceRecord]) -> str:
    """Return every device with its own figures."""
    headings = (
        *("device", "class", "last task", "plan", "holds", "asked", "did", "predicted"),
        *("measured", "energy", "ledger", "up", "down"),
    )
    rows = [
        (
            device.name,
            device.device_class,
            device.status,
            device.plan or "none",
            f"{device.held:,}",
            str(device.asked),
            str(device.answered),
            words.size(device.predicted_peak_bytes),
            words.size(device.measured_peak_bytes),
            words.energy(device.joules),
            words.ledger(device.digest),
            format_size(device.uplink_bytes),
            format_size(device.downlink_bytes),
        )
        for device in devices
    ]
    return table(headings, rows, 9)


def rounds_table(rounds: Sequence[RoundRecord]) -> str:
    """Return every round with its own figures."""
    headings = (
        *("round", "lost", "asked", "counted", "of them late", "examples"),
        *("training loss", "loss", "accuracy"),
        *("up", "down", "took"),
    )
    rows = [
        (
            str(one.round),
            ", ".join(f"{times} {status}" for status, times in sorted(one.losses.items())),
            str(one.asked),
            str(one.reported),
            str(one.stale),
            f"{one.examples:,}",
            words.number(one.training_loss),
            words.number(one.loss),
            "" if one.accuracy is None else f"{one.accuracy:.1%}",
            format_size(one.uplink_bytes),
            format_size(one.downlink_bytes),
            words.duration(one.seconds),
        )
        for one in rounds
    ]
    return table(headings, rows, 10)


def dropped(report: SimulationReport) -> str:
    """Return the tasks that did not count, with the reason of each."""
    if not report.losses:
        return '<p class="empty">Nobody: every task was answered and every answer counted.</p>'
    asked = {device.name: device.asked for device in report.devices}
    rows = [
        (name, reason, words.how_often(reason, times, asked[name]))
        for name, reason, times in report.losses
    ]
    return f'<div class="scroll">{table(("device", "why", "how often"), rows, 1)}</div>'


def refusals(report: SimulationReport) -> str:
    """Return the reports that were refused, by rule, or nothing where none was."""
    if not report.refusals:
        return ""
    rows = [(name, REFUSALS[name], str(times)) for name, times in report.refusals.items()]
    return table(("refused reports", "why", "how many"), rows, 2)
