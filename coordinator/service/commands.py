"""The operator's commands: begin a federation, let devices in and out, start and stop training."""

from __future__ import annotations

import json as json_text
import logging
from pathlib import Path
from typing import Annotated, Any

import typer
from flwr.proto.node_pb2 import NodeInfo
from rich.console import Console
from rich.table import Table

from edgetrain.client.enrolment import host_and_port
from edgetrain.config import FleetConfig
from edgetrain.coordinator.dashboard.words import as_toml
from edgetrain.coordinator.service.authority import Authority
from edgetrain.coordinator.service.backup import back_up
from edgetrain.coordinator.service.enrolment import fresh_enrolment, openssh_key, public_key
from edgetrain.coordinator.service.keeper import FLEET, RunRecord, Wish, run_folder
from edgetrain.coordinator.service.place import (
    FOLDER_VARIABLE,
    Place,
    Settings,
    read_json,
    write_json,
)
from edgetrain.coordinator.service.service import control_of, serve
from edgetrain.coordinator.service.status import device_fields, progress_of
from edgetrain.errors import ConfigError, EdgetrainError
from edgetrain.settings import word
from edgetrain.sizes import format_size
from edgetrain.storage import replace_file

__all__ = ["DEFAULT_FOLDER", "Folder", "Json", "checked_name", "placed", "register", "tell"]

DEFAULT_FOLDER = Path("federation")
DEFAULT = Settings("127.0.0.1", 9443, "0.0.0.0")
UNREGISTERED = "unregistered"

Folder = Annotated[
    Path,
    typer.Option(
        "--folder", envvar=FOLDER_VARIABLE, help="Where the federation keeps all of its state."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]


def register(app: typer.Typer) -> None:
    """Add the commands to an application."""
    for command in (up, enroll, devices, revoke, start, backup):
        app.command()(command)


def up(
    *,
    folder: Folder = DEFAULT_FOLDER,
    host: Annotated[
        str | None, typer.Option(help="This machine's name or address, as devices reach it.")
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="The one port that devices need.")
    ] = None,
    listen: Annotated[
        str | None, typer.Option(help="The address to listen on; all of this machine's, else.")
    ] = None,
    metrics: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="Serve Prometheus on this port of the loopback."),
    ] = None,
    control: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Serve operators of other machines here; they show a certificate by `operator`.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Run a federation on this machine until Ctrl-C or SIGTERM.

    The first time, this makes the folder, a private certificate authority and a database; later it
    goes on with what is there, also after everything was killed, and options left out are what
    they were. Devices reach the port given and, through it, Flower's Fleet API alone.

    Exit code 11: the port is taken, or another service works in the folder.
    """
    place = placed(folder)
    known = read_json(place.settings)
    stored = place.known_settings() if known else DEFAULT
    settings = Settings(
        host or stored.host,
        port or stored.port,
        listen or stored.listen,
        metrics or stored.metrics,
        control or stored.control,
    )
    if settings.control is not None:
        checked_control(settings.control)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    for chatty in ("httpx", "flwr"):
        logging.getLogger(chatty).setLevel(logging.WARNING)

    def ready() -> None:
        told = {"ready": True, "address": settings.address, "folder": str(place.folder)}
        text = f"ready: devices connect to {settings.address}; state is in {place.folder}"
        typer.echo(json_text.dumps(told) if json else text)

    serve(place, settings, ready)


def enroll(
    name: Annotated[str, typer.Argument(help="What to call the device: letters, digits, . - _")],
    *,
    folder: Folder = DEFAULT_FOLDER,
    output: Annotated[
        Path | None, typer.Option(help="The enrolment file to write; NAME.toml, unless given.")
    ] = None,
    supernode: Annotated[
        bool,
        typer.Option(
            "--supernode", help="Write NAME.key and NAME.crt too, as flower-supernode reads them."
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Let a device join: make its key and write its enrolment file.

    Carry the file to the device and run `edgetrain-client join FILE` there. It holds the only copy
    of the device's key; whoever has it is the device.
    """
    place, name = placed(folder), checked_name(name)
    path = output or Path(f"{name}.toml")
    if path.exists():
        raise ConfigError(f"{path} exists: name another --output, or move it away")
    ca = Authority(place.authority).certificate
    with control_of(place) as control:
        if any(node.name == name for node in enrolled(control.nodes())):
            raise ConfigError(f"{name!r} is enrolled already: revoke it first, or choose a name")
        address = place.known_settings().address
        enrolment = fresh_enrolment(name, address, ca.read_text(encoding="ascii"))
        replace_file(path, [enrolment.to_toml().encode("utf-8")], private=True)
        if supernode:
            replace_file(path.with_name(f"{name}.key"), [openssh_key(enrolment)], private=True)
            replace_file(path.with_name(f"{name}.crt"), [enrolment.ca.encode("ascii")])
        node_id = control.register(name, public_key(enrolment))
    tell(
        {"name": name, "node_id": node_id, "file": str(path), "address": address},
        f"{name} may join: carry {path} to it, and keep it secret",
        json=json,
    )


def devices(*, folder: Folder = DEFAULT_FOLDER, json: Json = False) -> None:
    """List the devices that are enrolled, whether they are here, and how far they have come."""
    place = placed(folder)
    with control_of(place) as control:
        nodes = enrolled(control.nodes())
    known = progress_of(place).history.devices
    found = [
        {
            "name": node.name,
            "node_id": node.node_id,
            "status": node.status,
            "since": node.last_activated_at or None,
            **(device_fields(known[node.name]) if node.name in known else {}),
        }
        for node in nodes
    ]
    if json:
        typer.echo(json_text.dumps({"devices": found}, indent=2))
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("device", "status", "class", "role", "last task", "tasks", "examples"):
        table.add_column(heading)
    for one in found:
        cells = ("name", "status", "class", "role", "last_task", "tasks", "examples")
        table.add_row(*(str(one.get(cell, "-")) for cell in cells))
    Console(highlight=False).print(table)
    typer.echo(f"{len(found)} enrolled")


def revoke(
    name: Annotated[str, typer.Argument(help="The device that may not come any more.")],
    *,
    folder: Folder = DEFAULT_FOLDER,
    json: Json = False,
) -> None:
    """Let a device join no more: its key is worth nothing from now on.

    What it has contributed stays. It can be enrolled again, with a new key.
    """
    with control_of(placed(folder)) as control:
        found = [node for node in enrolled(control.nodes()) if node.name == name]
        if not found:
            raise ConfigError(f"{name!r} is not enrolled: see `edgetrain-coordinator devices`")
        for node in found:
            control.unregister(node.node_id)
    tell({"name": name, "revoked": len(found)}, f"{name} may not join any more", json=json)


def start(
    config: Annotated[
        Path | None, typer.Argument(help="The fleet's TOML; the run that was stopped, without.")
    ] = None,
    *,
    folder: Folder = DEFAULT_FOLDER,
    json: Json = False,
) -> None:
    """Begin to train a model, or go on with the run that was stopped.

    The service keeps the run going until it is complete, whatever is killed meanwhile; see
    `edgetrain-coordinator status`.

    Exit code 11: the TOML is wrong, or a run is on already.
    """
    place = placed(folder)
    place.known_settings()
    wish, record = Wish.read(place), RunRecord.read(place)
    ended = wish is not None and record.run == wish.run and record.status == "completed"
    if wish is not None and wish.go_on and not ended:
        raise ConfigError(f"run {wish.run} is on: stop it first with `edgetrain-coordinator stop`")
    if config is not None:
        run = new_run(place, FleetConfig.from_toml(config.resolve()))
    elif wish is None or ended:
        raise ConfigError("there is no run to go on with: name a fleet's TOML")
    else:
        run = wish.run
    write_json(place.wish, {"run": run, "go_on": True})
    text = f"run {run} is wanted" + ("" if place.is_held() else ", once the federation is up")
    tell({"run": run, "running": place.is_held()}, text, json=json)


def backup(
    archive: Annotated[Path, typer.Argument(help="The archive to write, a .tar.gz.")],
    *,
    folder: Folder = DEFAULT_FOLDER,
    json: Json = False,
) -> None:
    """Write all state to one archive, while the federation runs or not.

    To restore it, unpack it into an empty folder and run `edgetrain-coordinator up` on that. It
    holds the federation's secrets: keep it as you keep keys.
    """
    place = placed(folder)
    place.known_settings()
    size = back_up(place, archive)
    text = f"wrote {format_size(size)} to {archive}"
    tell({"file": str(archive), "bytes": size}, text, json=json)


def placed(folder: Path) -> Place:
    """Return the federation's place by its absolute path."""
    return Place(folder.expanduser().resolve())


def checked_name(name: str) -> str:
    """Return a device's name. Raises ConfigError for one that could not be a file's."""
    try:
        return str(word(name))
    except (ValueError, EdgetrainError) as error:
        raise ConfigError(f"{name!r}: {error}") from None


def checked_control(address: str) -> None:
    """Raise ConfigError for what is no host and port."""
    try:
        host_and_port("--control", address)
    except EdgetrainError as error:
        raise ConfigError(str(error)) from None


def enrolled(nodes: list[NodeInfo]) -> list[NodeInfo]:
    """Return the nodes that may join, by their names."""
    return sorted(
        (node for node in nodes if node.status != UNREGISTERED), key=lambda node: node.name
    )


def new_run(place: Place, fleet: FleetConfig) -> str:
    """Make a folder for a new run of a fleet; return its name."""
    number = max((int(one.name) for one in place.runs.iterdir() if one.name.isdecimal()), default=0)
    run = f"{number + 1:04d}"
    run_folder(place, run).mkdir(mode=0o700)
    text = as_toml(fleet.to_table()) + "\n"
    replace_file(run_folder(place, run) / FLEET, [text.encode("utf-8")])
    return run


def tell(fields: dict[str, Any], text: str, *, json: bool) -> None:
    """Print a result, for a program or for a person."""
    typer.echo(json_text.dumps(fields) if json else text)
