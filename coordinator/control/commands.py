"""The operator's commands that go through the control service."""

from __future__ import annotations

import json as json_text
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from edgetrain.coordinator.control.client import ask, follow
from edgetrain.coordinator.service.commands import (
    DEFAULT_FOLDER,
    Folder,
    Json,
    placed,
    tell,
)
from edgetrain.coordinator.service.watch import show, status_table
from edgetrain.memory_profiler.budget import format_joules, format_seconds

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the commands to an application."""
    for command in (pause, resume, stop, status, watch, budget):
        app.command()(command)


def pause(*, folder: Folder = DEFAULT_FOLDER, json: Json = False) -> None:
    """Let devices get no new tasks once the round at hand is over, until `resume`.

    The run stays on, and paused also when everything is started again.
    """
    told = ask(placed(folder), "Pause")
    text = f"run {told['run']} pauses after the round at hand; see `edgetrain-coordinator resume`"
    tell({"run": told["run"], "paused": True}, text, json=json)


def resume(*, folder: Folder = DEFAULT_FOLDER, json: Json = False) -> None:
    """Let devices get tasks again."""
    told = ask(placed(folder), "Resume")
    tell({"run": told["run"], "paused": False}, f"run {told['run']} goes on", json=json)


def stop(*, folder: Folder = DEFAULT_FOLDER, json: Json = False) -> None:
    """Stop training; what was learnt is kept, and `start` without a file goes on with it."""
    run = ask(placed(folder), "Stop")["run"]
    tell({"run": run, "stopped": True}, f"run {run} will stop", json=json)


def status(*, folder: Folder = DEFAULT_FOLDER, json: Json = False) -> None:
    """Show whether the federation runs, what its processes do, and how far training has come."""
    found = ask(placed(folder), "Status")
    if json:
        typer.echo(json_text.dumps(found, indent=2))
    else:
        Console(highlight=False).print(status_table(found))


def watch(*, folder: Folder = DEFAULT_FOLDER, json: Json = False) -> None:
    """Show the status and the latest rounds as they change, until the run is complete or Ctrl-C.

    With --json, one line of JSON a change: what `status` says at that moment.
    """
    place = placed(folder)
    place.known_settings()
    show(follow(place, "Watch"), json=json)


def budget(
    device_class: Annotated[
        str | None, typer.Argument(metavar="CLASS", help="The class of devices to allow a total.")
    ] = None,
    *,
    energy: Annotated[
        float | None, typer.Option(help="Joules that a device of the class may use in all.")
    ] = None,
    seconds: Annotated[float | None, typer.Option(help="Seconds that it may work in all.")] = None,
    folder: Folder = DEFAULT_FOLDER,
    json: Json = False,
) -> None:
    """Show what devices may use in all, by their class; with a CLASS, allow it another total.

    A new total holds from the next round on: a device that has used it is asked no more, and one
    that was asked no more is asked again where it has some left.
    """
    place = placed(folder)
    if device_class is None:
        found = ask(place, "Budgets")
    else:
        wanted = {"device_class": device_class, "total_energy": energy, "total_seconds": seconds}
        found = ask(place, "SetBudget", wanted)
    if json:
        typer.echo(json_text.dumps(found))
        return
    table = Table("class", "energy in all", "time in all", box=None, padding=(0, 2, 0, 0))
    for one in found["budgets"]:
        joules, used = one["total_energy"], one["total_seconds"]
        table.add_row(
            one["device_class"],
            "no limit" if joules is None else format_joules(joules),
            "no limit" if used is None else format_seconds(used),
        )
    Console(highlight=False).print(table)
