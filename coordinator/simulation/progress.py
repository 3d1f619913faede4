"""What a person sees while a fleet runs and when it is done, on a terminal."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from edgetrain.coordinator.loop import Event, RoundBegun, RoundEnded, TaskAnswered
from edgetrain.coordinator.simulation.report import SimulationReport
from edgetrain.sizes import format_size

__all__ = ["ProgressBar", "class_table"]


class ProgressBar:
    """A bar on stderr over the rounds of a fleet; a context manager.

    Where stderr is no terminal, nothing is drawn.
    """

    def __init__(self) -> None:
        console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("round {task.completed}/{task.total}"),
            BarColumn(),
            TextColumn("{task.description}"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task: TaskID | None = None
        self._accuracy = "accuracy --"
        self._lost = 0

    def __enter__(self) -> ProgressBar:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def hear(self, event: Event) -> None:
        """Show one event of the loop."""
        if isinstance(event, RoundBegun):
            if self._task is None:
                done = event.round - 1
                self._task = self._progress.add_task("", total=event.rounds, completed=done)
        elif isinstance(event, TaskAnswered):
            self._lost += event.answer.status not in ("trained", "evaluated")
        elif isinstance(event, RoundEnded):
            if event.record.accuracy is not None:
                self._accuracy = f"accuracy {event.record.accuracy:.1%}"
            if self._task is not None:
                self._progress.update(self._task, completed=event.record.round)
        if self._task is not None:
            lost = f", {self._lost} tasks lost" if self._lost else ""
            self._progress.update(self._task, description=self._accuracy + lost)


def class_table(report: SimulationReport) -> Table:
    """Return the final table: what each class of devices planned, used, sent and drew."""
    table = Table(title=headline(report), title_justify="left")
    table.add_column("class")
    for heading in ("devices", "budget"):
        table.add_column(heading, justify="right")
    table.add_column("plan")
    for heading in ("predicted", "measured", "energy", "up", "down", "examples"):
        table.add_column(heading, justify="right")
    for one in report.classes():
        table.add_row(
            one.name if one.role == "train" else f"{one.name} (judges)",
            str(one.devices),
            size_text(one.memory),
            "\n".join(one.plans) or "none fits",
            size_text(one.predicted_peak_bytes),
            size_text(one.measured_peak_bytes),
            "unknown" if one.joules is None else f"{one.joules:.0f} J",
            format_size(one.uplink_bytes),
            format_size(one.downlink_bytes),
            f"{one.examples:,}",
        )
    return table


def headline(report: SimulationReport) -> str:
    """Return the result in one sentence."""
    accuracy = report.final_accuracy
    judged = "nobody judged" if accuracy is None else f"{accuracy:.1%} on held-out devices"
    return (
        f"{judged} after {len(report.rounds)} rounds; {report.seconds:.0f} s here, "
        f"{report.virtual_seconds / 60:.0f} min for the fleet"
    )


def size_text(size: int | None) -> str:
    """Return a size as people read it, or a dash where it is unknown."""
    return "-" if size is None else format_size(size)
