"""`edgetrain-profile verify` and `report`: is a ledger whole, and what does it say."""

from __future__ import annotations

import json as json_text
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from edgetrain.errors import PayloadError
from edgetrain.memory_profiler.budget import format_joules, format_seconds
from edgetrain.memory_profiler.ledger import Verdict, read, verify
from edgetrain.memory_profiler.ledger_history import Task, tasks_of
from edgetrain.memory_profiler.ledger_line import Outcome, Totals
from edgetrain.memory_profiler.ledger_page import render
from edgetrain.sizes import format_size
from edgetrain.storage import replace_file

__all__ = ["report_command", "verify_command"]

UNKNOWN = "unknown"
LedgerFile = Annotated[Path, typer.Argument(help="The ledger that a device keeps.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def verify_command(ledger: LedgerFile, json: Json = False) -> None:
    """Check a ledger's chain, order and sums, and name the first line that is wrong.

    LEDGER is the file that a device keeps (`edgetrain-client run-task --ledger`).

    The digest stands for all lines so far: keep it, to see whether any are taken off later.

    Exit code 16: a line is wrong. Exit code 12: the file cannot be read.
    """
    verdict = verify(ledger)
    if json:
        typer.echo(json_text.dumps(verdict_fields(verdict), indent=2))
    else:
        show_verdict(ledger, verdict)
    if verdict.broken is not None:
        raise PayloadError(
            f"{ledger}: line {verdict.broken.line} is wrong: {verdict.broken.reason}: trust only "
            "what stands before it"
        )


def report_command(
    ledger: LedgerFile,
    *,
    last: Annotated[int, typer.Option(min=1, help="Show only so many of the latest tasks.")] = 20,
    html: Annotated[
        Path | None, typer.Option(help="Write all tasks to this file, a page for a browser.")
    ] = None,
    json: Json = False,
) -> None:
    """Show a device's history: what each task was promised, what it used, and the sums.

    LEDGER is the file that a device keeps (`edgetrain-client run-task --ledger`).

    With --json all tasks are printed, whatever --last says; with --html they are drawn as well.

    Exit code 16: a line is wrong; what stands before it is shown. Exit code 12: no such file.
    """
    verdict = verify(ledger)
    tasks = list(tasks_of(read(ledger)))
    if html is not None:
        replace_file(html, [render(verdict, tasks).encode("utf-8")])
    if json:
        told = verdict_fields(verdict) | {"tasks": [task_fields(task) for task in tasks]}
        typer.echo(json_text.dumps(told, indent=2))
    else:
        show_tasks(ledger, tasks, last)
        show_verdict(ledger, verdict)
    if verdict.broken is not None:
        raise PayloadError(f"{ledger}: line {verdict.broken.line} is wrong: run verify to see why")


def verdict_fields(verdict: Verdict) -> dict[str, Any]:
    """Return a verdict as JSON holds it."""
    return {"valid": verdict.broken is None, **asdict(verdict)}


def task_fields(task: Task) -> dict[str, Any]:
    """Return a task as JSON holds it; what is unknown is null."""
    return {
        "started": task.started,
        "intent": asdict(task.intent),
        "outcome": None if task.outcome is None else asdict(task.outcome),
        "within_budget": task.kept,
    }


def show_verdict(path: Path, verdict: Verdict) -> None:
    """Print the sums and whether the file is whole."""
    totals = verdict.totals
    table = Table("", "", show_header=False, box=None)
    table.add_row("tasks", f"{totals.tasks:,}{', one running' if verdict.running else ''}")
    for name in ("examples", "seconds", "joules"):
        table.add_row(name, sum_text(totals, name))
    table.add_row("digest", verdict.digest)
    console = Console(highlight=False)
    console.print(table)
    if verdict.broken is None:
        console.print(f"{path}: {verdict.lines:,} lines, each as it was written", soft_wrap=True)


def sum_text(totals: Totals, name: str) -> str:
    """Return a sum, and how many tasks it does not cover."""
    value, missing = getattr(totals, name), getattr(totals, f"{name}_unknown")
    text = quantity_text(name, value)
    return f"{text}, {UNKNOWN} for {missing:,} more" if missing and value is not None else text


def quantity_text(name: str, value: float | None) -> str:
    """Return a number of examples, seconds or joules as people read it."""
    if value is None:
        return UNKNOWN
    if name == "examples":
        return f"{value:,}"
    return format_seconds(value) if name == "seconds" else format_joules(value)


def show_tasks(path: Path, tasks: list[Task], last: int) -> None:
    """Print the latest tasks, one a row."""
    shown = tasks[-last:]
    sources = sorted({task.outcome.joules_source for task in shown if task.outcome} - {"none"})
    table = Table(box=None, padding=(0, 1, 0, 0))
    for name in ("when (UTC)", "task", "status", "held"):
        table.add_column(name, no_wrap=True)
    for name in ("expected", "measured", "allowed", "time", "energy"):
        table.add_column(name, justify="right", no_wrap=True)
    for task in shown:
        table.add_row(*row(task), style="red" if task.kept is False else None)
    console = Console(highlight=False)
    console.print(f"{path}: {len(shown)} of {len(tasks)} tasks", soft_wrap=True)
    console.print(table)
    console.print("expected, measured and allowed: peak memory of the training process")
    console.print(
        "held: hard by the kernel, in a control group; soft by a watch; "
        "network open: it could make sockets"
    )
    if sources:
        console.print(f"energy is {' or '.join(sources)}")


def row(task: Task) -> tuple[str, ...]:
    """Return a task's cells."""
    intent, outcome = task.intent, task.outcome or Outcome("interrupted")
    peak, limit = outcome.measured_peak_bytes, intent.budget.memory
    return (
        datetime.fromtimestamp(task.started, UTC).strftime("%m-%d %H:%M"),
        f"{intent.kind} {intent.version}",
        outcome.status if task.outcome else "running",
        outcome.held or UNKNOWN,
        format_size(intent.predicted_peak_bytes),
        UNKNOWN if peak is None else format_size(peak),
        "any" if limit is None else format_size(limit),
        quantity_text("seconds", outcome.seconds),
        quantity_text("joules", outcome.joules),
    )
