"""The operator's commands that go through the control service."""

from __future__ import annotations

import json as json_text
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from edgetrain.coordinator.control.client import Served, ask, follow
from edgetrain.coordinator.control.operator import fresh_operator, read_operator
from edgetrain.coordinator.service.commands import (
    DEFAULT_FOLDER,
    Folder,
    Json,
    checked_name,
    placed,
    tell,
)
from edgetrain.coordinator.service.operators import KnownOperator, OperatorFolder
from edgetrain.coordinator.service.place import Place
from edgetrain.coordinator.service.watch import show, status_table
from edgetrain.errors import ConfigError
from edgetrain.memory_profiler.budget import format_joules, format_seconds
from edgetrain.storage import replace_file

__all__ = ["register"]


OperatorFile = Annotated[
    Path | None,
    typer.Option(
        "--operator",
        envvar="EDGETRAIN_OPERATOR",
        help="A file by `operator`: ask the federation of another machine, over mutual TLS.",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands to an application."""
    for command in (pause, resume, stop, status, watch, budget, operator):
        app.command()(command)


def pause(
    *, folder: Folder = DEFAULT_FOLDER, operator: OperatorFile = None, json: Json = False
) -> None:
    """Let devices get no new tasks once the round at hand is over, until `resume`.

    The run stays on, and paused also when everything is started again.
    """
    told = ask(served(folder, operator), "Pause")
    text = f"run {told['run']} pauses after the round at hand; see `edgetrain-coordinator resume`"
    tell({"run": told["run"], "paused": True}, text, json=json)


def resume(
    *, folder: Folder = DEFAULT_FOLDER, operator: OperatorFile = None, json: Json = False
) -> None:
    """Let devices get tasks again."""
    told = ask(served(folder, operator), "Resume")
    tell({"run": told["run"], "paused": False}, f"run {told['run']} goes on", json=json)


def stop(
    *, folder: Folder = DEFAULT_FOLDER, operator: OperatorFile = None, json: Json = False
) -> None:
    """Stop training; what was learnt is kept, and `start` without a file goes on with it."""
    run = ask(served(folder, operator), "Stop")["run"]
    tell({"run": run, "stopped": True}, f"run {run} will stop", json=json)


def status(
    *, folder: Folder = DEFAULT_FOLDER, operator: OperatorFile = None, json: Json = False
) -> None:
    """Show whether the federation runs, what its processes do, and how far training has come."""
    found = ask(served(folder, operator), "Status")
    if json:
        typer.echo(json_text.dumps(found, indent=2))
    else:
        Console(highlight=False).print(status_table(found))


def watch(
    *, folder: Folder = DEFAULT_FOLDER, operator: OperatorFile = None, json: Json = False
) -> None:
    """Show the status and the latest rounds as they change, until the run is complete or Ctrl-C.

    With --json, one line of JSON a change: what `status` says at that moment.
    """
    place = served(folder, operator)
    if isinstance(place, Place):
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
    operator: OperatorFile = None,
    json: Json = False,
) -> None:
    """Show what devices may use in all, by their class; with a CLASS, allow it another total.

    A new total holds from the next round on: a device that has used it is asked no more, and one
    that was asked no more is asked again where it has some left.
    """
    place = served(folder, operator)
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


def operator(
    name: Annotated[str | None, typer.Argument(help="What the operator is called.")] = None,
    *,
    revoke: Annotated[
        bool, typer.Option("--revoke", help="Refuse the operator from now on.")
    ] = False,
    listed: Annotated[
        bool, typer.Option("--list", help="List who may operate, and until when.")
    ] = False,
    folder: Folder = DEFAULT_FOLDER,
    output: Annotated[
        Path | None, typer.Option(help="The file to write; NAME.operator.toml, unless given.")
    ] = None,
    json: Json = False,
) -> None:
    """Let someone operate the federation from another machine, for 90 days.

    Carry the file there, and run `edgetrain-coordinator status --operator FILE`. Whoever has it may
    do all that `status`, `watch`, `pause`, `resume`, `stop` and `budget` do. It needs a federation
    that is served with `up --control HOST:PORT`. With --revoke the file is worth nothing from that
    moment on, also where the service runs.
    """
    place = placed(folder)
    place.known_settings()
    if (name is None) != listed or (revoke and listed):
        raise ConfigError("name an operator, to make one or to --revoke it, or say --list alone")
    if name is None:
        show_operators(OperatorFolder(place.operators).known(), json=json)
        return
    name = checked_name(name)
    if revoke:
        OperatorFolder(place.operators).revoke(name)
        tell({"name": name, "revoked": True}, f"{name} may operate no more", json=json)
        return
    path = output or Path(f"{name}.operator.toml")
    if path.exists():
        raise ConfigError(f"{path} exists: name another --output, or move it away")
    made = fresh_operator(place, name)
    replace_file(path, [made.to_toml().encode("utf-8")], private=True)
    text = f"{name} may operate {made.address}: carry {path} there, and keep it secret"
    tell({"name": name, "file": str(path), "address": made.address}, text, json=json)


def show_operators(known: list[KnownOperator], *, json: bool) -> None:
    """Print who may operate the federation from other machines."""
    if json:
        found = [
            {
                "name": one.name,
                "expires": one.expires.isoformat(),
                "expired": one.expired,
                "fingerprint": one.fingerprint,
            }
            for one in known
        ]
        typer.echo(json_text.dumps({"operators": found}, indent=2))
        return
    table = Table("operator", "until", "SHA-256", box=None, padding=(0, 2, 0, 0))
    for one in known:
        until = f"{one.expires:%Y-%m-%d}{', ended' if one.expired else ''}"
        table.add_row(one.name, until, one.fingerprint[:16])
    Console(highlight=False).print(table)
    typer.echo(f"{len(known)} known")


def served(folder: Path, operator: Path | None) -> Served:
    """Return the federation to ask. Raises ConfigError for an operator's file that is none."""
    return placed(folder) if operator is None else read_operator(operator)
