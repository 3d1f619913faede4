"""What a person sees while a fleet runs and when it is done, on a terminal."""

from __future__ import annotations

from collections.abc import Callable

from rich.box import SIMPLE
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from edgetrain.coordinator.loop import Event, RoundBegun, RoundEnded, TaskAnswered
from edgetrain.coordinator.simulation.report import ClassSummary, SimulationReport
from edgetrain.sizes import format_size

__all__ = ["ProgressBar", "class_table", "print_report"]

MOST_REASONS = 20
"""Dropped devices that a terminal shows; the report in HTML names them all."""


class ProgressBar:
    """A bar on stderr over the rounds of a fleet; a context manager.

    Where stderr is no terminal, a line every tenth of the rounds takes its place.
    """

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("round {task.completed:.0f}/{task.total:.0f}"),
            BarColumn(),
            TextColumn("{task.description}"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task: TaskID | None = None
        self._accuracy = "training"
        self._lost = 0

    def __enter__(self) -> ProgressBar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def hear(self, event: Event) -> None:
        """Show one event of the loop."""
        if isinstance(event, RoundBegun) and self._task is None:
            done = event.round - 1
            self._task = self._progress.add_task("", total=event.rounds, completed=done)
        elif isinstance(event, TaskAnswered):
            self._lost += event.answer.status not in ("trained", "evaluated", "unneeded")
        elif isinstance(event, RoundEnded):
            self._end(event)
        if self._task is not None:
            self._progress.update(self._task, description=self._said())

    def _end(self, event: RoundEnded) -> None:
        record = event.record
        if record.accuracy is not None:
            self._accuracy = f"accuracy {record.accuracy:.1%}"
        if self._task is not None:
            self._progress.update(self._task, completed=record.round)
        every = max(1, event.rounds // 10)
        if not self._console.is_terminal and (record.round % every == 0 or record.round == 1):
            self._console.print(f"round {record.round}/{event.rounds}: {self._said()}")

    def _said(self) -> str:
        return f"{self._accuracy}, {self._lost} tasks lost" if self._lost else self._accuracy


def print_report(report: SimulationReport) -> None:
    """Print the final table and, below it, every device that was dropped and why."""
    console = Console()
    console.print(class_table(report))
    for name, reason, times in report.losses[:MOST_REASONS]:
        often = "once" if times == 1 else f"{times} times"
        console.print(f"{name}, {often}: {reason}", highlight=False, markup=False)
    if len(report.losses) > MOST_REASONS:
        console.print(f"... and {len(report.losses) - MOST_REASONS} more; see the report")


def class_table(report: SimulationReport) -> Table:
    """Return what each class of devices planned, used, sent and drew; a column a class.

    So the table of a usual fleet fits a terminal of 80 columns.
    """
    classes = report.classes()
    table = Table(title=headline(report), title_justify="left", box=SIMPLE)
    table.add_column("class")
    for one in classes:
        table.add_column(one.name, justify="right")
    rows: dict[str, Callable[[ClassSummary], str]] = {
        "role": lambda one: one.role,
        "devices": lambda one: str(one.devices),
        "plan": lambda one: (
            "\n".join(plan.replace(", ", "\n") for plan in one.plans) or "none fits"
        ),
        "budget": lambda one: size_text(one.memory),
        "predicted": lambda one: size_text(one.predicted_peak_bytes),
        "measured": lambda one: size_text(one.measured_peak_bytes),
        "energy": lambda one: "unknown" if one.joules is None else f"{one.joules:.1f} J",
        "up": lambda one: format_size(one.uplink_bytes),
        "down": lambda one: format_size(one.downlink_bytes),
        "examples": lambda one: f"{one.examples:,}",
    }
    for label, text in rows.items():
        table.add_row(label, *(text(one) for one in classes))
    return table


def headline(report: SimulationReport) -> str:
    """Return the result in one sentence."""
    accuracy = report.final_accuracy
    judged = "nobody judged" if accuracy is None else f"{accuracy:.1%} on held-out devices"
    return (
        f"{judged} after {len(report.rounds)} rounds; {report.seconds:.0f} s here, "
        f"{report.virtual_seconds:.0f} s for the fleet"
    )


def size_text(size: int | None) -> str:
    """Return a size as people read it, or a dash where it is unknown."""
    return "-" if size is None else format_size(size)
