"""`edgetrain-coordinator watch`: a federation as it goes, on a terminal or as lines of JSON."""

from __future__ import annotations

import json as json_text
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table

from edgetrain.coordinator.service.place import Place
from edgetrain.coordinator.service.status import progress_of, status_fields
from edgetrain.sizes import format_size

__all__ = ["events", "show", "status_table"]

LOOK_SECONDS = 1.0
ROUNDS_SHOWN = 10
ROUND = (
    *("round", "asked", "reported", "examples"),
    *("accuracy", "training_loss", "uplink_bytes", "downlink_bytes", "seconds"),
)
"""What an event tells of a round; see RoundRecord."""


def show(found: Iterable[dict[str, Any]], *, json: bool) -> None:
    """Show events as they come, until there are no more or Ctrl-C."""
    if json:
        for event in found:
            typer.echo(json_text.dumps(event["federation"]))
        return
    with Live(auto_refresh=False) as live:
        for event in found:
            shown = Group(status_table(event["federation"]), rounds_table(event["rounds"]))
            live.update(shown, refresh=True)


def events(place: Place, wait: Callable[[float], object]) -> Iterator[dict[str, Any]]:
    """Yield status and latest rounds at first and at every change; end when the run is complete.

    `wait` waits for some seconds, and says whether to end before.
    """
    last: dict[str, Any] | None = None
    while last is None or last["run"]["status"] != "completed":
        found = status_fields(place)
        if found != last:
            rounds = progress_of(place).history.rounds[-ROUNDS_SHOWN:]
            shown = [{name: getattr(one, name) for name in ROUND} for one in rounds]
            yield {"federation": found, "rounds": shown}
            last = found
        elif wait(LOOK_SECONDS):
            return


def status_table(found: dict[str, Any]) -> Table:
    """Return a status as people read it."""
    table = Table("", "", show_header=False, box=None)
    table.add_row("federation", f"{found['address']}, {'up' if found['up'] else 'down'}")
    for name, program in found["programs"].items():
        runs = f"process {program['pid']}" if program["running"] else "not running"
        table.add_row(name, f"{runs}, {program['restarts']} restarts")
    run = found["run"]
    if run["run"]:
        paused = ", paused" if run["paused"] else ""
        why = f": {run['reason']}" if run["reason"] else ""
        table.add_row(
            "run", f"{run['run']}, {run['status']}{paused}, attempt {run['attempts']}{why}"
        )
        wanted = "" if run["rounds"] is None else f" of {run['rounds']}"
        table.add_row("round", f"{run['version']}{wanted}")
        table.add_row("model", quality(run))
        for reason, times in run["lost"].items():
            table.add_row("not counted", f"{times} {reason}")
    return table


def quality(run: dict[str, Any]) -> str:
    """Return how good the model is, and on whose examples."""
    accuracy, loss = run["accuracy"], run["training_loss"]
    judged = "no device has judged it" if accuracy is None else f"accuracy {accuracy:.1%}"
    by = "" if accuracy is None else " on the devices that evaluate"
    trained = "" if loss is None else f"; loss {loss:.3f} while training"
    return f"{judged}{by}{trained}"


def rounds_table(rounds: list[dict[str, Any]]) -> RenderableType:
    """Return the latest rounds, one a row."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in (
        "round",
        "counted",
        "examples",
        "accuracy",
        "training loss",
        "up",
        "down",
        "took",
    ):
        table.add_column(heading, justify="right")
    for one in rounds:
        table.add_row(
            str(one["round"]),
            f"{one['reported']} of {one['asked']}",
            f"{one['examples']:,}",
            "" if one["accuracy"] is None else f"{one['accuracy']:.1%}",
            "" if one["training_loss"] is None else f"{one['training_loss']:.3f}",
            format_size(one["uplink_bytes"]),
            format_size(one["downlink_bytes"]),
            f"{one['seconds']:.1f} s",
        )
    return table
