"""A device's ledger as one page of HTML, which needs no network and runs no script."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path

from edgetrain.memory_profiler.budget import format_joules, format_seconds
from edgetrain.memory_profiler.ledger import Verdict
from edgetrain.memory_profiler.ledger_history import Task
from edgetrain.memory_profiler.ledger_line import Outcome, Totals
from edgetrain.page.charts import Bar, Series, bar_rows, line_chart
from edgetrain.page.parts import fill, table, tile
from edgetrain.sizes import format_size

__all__ = ["render"]

TEMPLATE = Path(__file__).parent / "ledger.html"
MOST_BARS = 30
"""The latest tasks that have a bar; the table has all."""
UNKNOWN = "unknown"


def render(verdict: Verdict, tasks: Sequence[Task]) -> str:
    """Return the page of a ledger's tasks, as far as they are right."""
    devices = sorted({task.intent.device for task in tasks})
    parts = {
        "title": escape(f"ledger of {', '.join(devices) or 'nobody yet'}"),
        "heading": escape(heading(tasks)),
        "lead": escape(lead(verdict, devices)),
        "tiles": "\n".join(tile(*figure) for figure in figures(verdict.totals)),
        "memory_about": escape(memory_about(tasks)),
        "memory_bars": bar_rows([memory_bar(*one) for one in numbered(tasks)[-MOST_BARS:]]),
        "energy_about": escape(energy_about(verdict.totals)),
        "energy_chart": chart(tasks, "energy", "joules", format_joules),
        "seconds_about": escape("By the device's own clock, in its training process."),
        "seconds_chart": chart(tasks, "time", "seconds", format_seconds),
        "tasks_table": tasks_table(tasks),
        "footer": escape(
            f"{verdict.lines:,} lines, each of which vouches for the one before it. Digest of the "
            f"last: {verdict.digest}. This file needs no network."
        ),
    }
    return fill(TEMPLATE, parts)


def heading(tasks: Sequence[Task]) -> str:
    """Return whether the owner's budget was kept, as a headline."""
    over = sum(task.kept is False for task in tasks)
    if over:
        return f"{over:,} of {len(tasks):,} tasks used more than they were allowed"
    judged = sum(task.kept is True for task in tasks)
    return f"{len(tasks):,} tasks; {judged:,} were measured, and each kept its budget"


def lead(verdict: Verdict, devices: Sequence[str]) -> str:
    """Return whose ledger it is and whether it is whole."""
    whose = f"The ledger of {', '.join(devices)}" if devices else "An empty ledger"
    if verdict.broken is None:
        return f"{whose}: every line is as it was written."
    return (
        f"{whose}. Line {verdict.broken.line} is wrong: {verdict.broken.reason}. Only what stands "
        "before it is shown."
    )


def figures(totals: Totals) -> list[tuple[str, str]]:
    """Return the sums that lead the page, each with what it covers."""
    return [
        (f"{totals.tasks:,}", "tasks that ended"),
        (size(totals.measured_peak_bytes), "largest training process, measured"),
        (
            quantity(totals.joules, format_joules),
            f"energy, {totals.joules_source}{missing(totals.joules_unknown)}",
        ),
        (quantity(totals.seconds, format_seconds), f"at work{missing(totals.seconds_unknown)}"),
        (
            UNKNOWN if totals.examples is None else f"{totals.examples:,}",
            f"examples used{missing(totals.examples_unknown)}",
        ),
    ]


def missing(count: int) -> str:
    """Return how many tasks a sum leaves out, as the end of a label."""
    if not count:
        return ""
    return f", {UNKNOWN} for {count:,} {'task' if count == 1 else 'tasks'}"


def memory_about(tasks: Sequence[Task]) -> str:
    """Return what the bars are, and which tasks have one."""
    latest = f" The latest {MOST_BARS} of {len(tasks):,} tasks." if len(tasks) > MOST_BARS else ""
    return f"The peak of each task's training process, interpreter included.{latest}"


def energy_about(totals: Totals) -> str:
    """Return where the joules come from."""
    if totals.joules is None:
        return "Nobody knows: this device has no meter and no figures to model it by."
    return f"Joules a task, {totals.joules_source}; a task of which they are unknown has no point."


def numbered(tasks: Sequence[Task]) -> list[tuple[int, Task]]:
    """Return tasks with their numbers, from 1."""
    return list(enumerate(tasks, 1))


def memory_bar(number: int, task: Task) -> Bar:
    """Return what one task used, was expected to use and was allowed."""
    intent, outcome = task.intent, task.outcome
    measured = outcome.measured_peak_bytes if outcome else None
    limit = intent.budget.memory
    ended = outcome.status if outcome else "running"
    note = f"{size(measured)} of {'any' if limit is None else size(limit)}"
    return Bar(
        f"{number} {intent.kind}",
        measured,
        intent.predicted_peak_bytes,
        limit,
        note if measured is not None else ended,
        measured is not None and limit is not None and measured > limit,
    )


def chart(tasks: Sequence[Task], label: str, name: str, text: Callable[[float], str]) -> str:
    """Return one quantity of every task of which it is known, as a line."""
    points = [
        (float(number), float(value))
        for number, task in numbered(tasks)
        if task.outcome and (value := getattr(task.outcome, name)) is not None
    ]
    line = Series(label, "a", points)
    return line_chart([line], title=f"{label} of each task", y_format=text, x_label="task")


def tasks_table(tasks: Sequence[Task]) -> str:
    """Return every task with its own figures, the latest first."""
    headings = (
        *("task, version", "when (UTC)", "how it ended", "held", "plan", "expected", "measured"),
        *("control group", "allowed", "time", "energy", "examples"),
    )
    return table(headings, [row(*one) for one in reversed(numbered(tasks))], 7)


def row(number: int, task: Task) -> tuple[str, ...]:
    """Return a task's cells."""
    intent, outcome = task.intent, task.outcome or Outcome("interrupted")
    plan = intent.plan
    started = datetime.fromtimestamp(task.started, UTC)
    return (
        f"{number} {intent.kind} {intent.version}",
        started.strftime("%Y-%m-%d %H:%M"),
        ended(task),
        outcome.held or UNKNOWN,
        f"{plan.mode}, {plan.micro_batch} at a time",
        size(intent.predicted_peak_bytes),
        size(outcome.measured_peak_bytes),
        size(outcome.cgroup_peak_bytes),
        "any" if intent.budget.memory is None else size(intent.budget.memory),
        quantity(outcome.seconds, format_seconds),
        quantity(outcome.joules, format_joules),
        UNKNOWN if outcome.examples is None else f"{outcome.examples:,}",
    )


def ended(task: Task) -> str:
    """Return how a task ended, and why not well."""
    if task.outcome is None:
        return "running"
    over = "used more than it was allowed" if task.kept is False else ""
    why = "; ".join(filter(None, (over, task.outcome.reason)))
    return f"{task.outcome.status}: {why}" if why else task.outcome.status


def size(value: int | None) -> str:
    """Return bytes as people read them, or that nobody knows."""
    return UNKNOWN if value is None else format_size(value)


def quantity(value: float | None, text: Callable[[float], str]) -> str:
    """Return seconds or joules as people read them, or that nobody knows."""
    return UNKNOWN if value is None else text(value)
