"""`edgetrain-client join, run, status, pause, resume, leave`: a device's life in a federation."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from edgetrain.client.console import Commands, add_command, show
from edgetrain.client.state import StateFolder, default_state
from edgetrain.client.task_cli import add_budget

__all__ = ["add_commands", "add_state", "folder"]

SETTINGS = (
    *("dataset", "role", "device_class", "memory", "energy", "seconds", "threads"),
    *("examples_per_second", "watts", "battery", "charger", "celsius", "checkpoint", "ledger"),
)
"""Options of `join` that go into the device's settings."""
ENDINGS = (signal.SIGTERM, signal.SIGINT)
STOP_SECONDS = 60
"""From SIGTERM to the end: for saying goodbye to a coordinator that may not answer."""


def add_commands(commands: Commands) -> None:
    """Add the commands to a parser."""
    parsers = {
        function.__name__: add_command(commands, function.__name__, function)
        for function in (join, run, status, pause, resume, leave)
    }
    for parser in parsers.values():
        add_state(parser)
    add_settings(parsers["join"])


def add_state(parser: argparse.ArgumentParser) -> None:
    """Add the option that says which device a command is about; `folder` reads it."""
    parser.add_argument(
        "--state",
        type=Path,
        metavar="FOLDER",
        help="where the device keeps its state; $STATE_DIRECTORY, else "
        "/var/lib/edgetrain-client for root and ~/.local/state/edgetrain-client for others",
    )


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Add what an owner says when a device joins."""
    parser.add_argument("file", type=Path, help="the enrolment file, from the coordinator")
    parser.add_argument(
        "--data",
        dest="dataset",
        metavar="FILE",
        help="the device's data, a .etd file; what was recorded, unless said",
    )
    parser.add_argument(
        "--role", choices=("train", "evaluate"), help="what it does for the fleet: train, if unsaid"
    )
    parser.add_argument(
        "--class", dest="device_class", metavar="NAME", help="its kind, e.g. pi-zero"
    )
    parser.add_argument(
        "--checkpoint",
        metavar="TIME",
        help="how often a long task's work is kept on the disk, to go on from after a kill: 5min, "
        "if unsaid",
    )
    add_budget(parser)
    parser.add_argument(
        "--no-ledger",
        action="store_true",
        help="keep no account; one is kept in the file `ledger` of the state folder, unless said",
    )


def join(options: argparse.Namespace) -> None:
    """Join a federation with an enrolment file, and say what a task may use here.

    The key goes into a file that nobody else can read; the enrolment file is not needed
    any more. Whoever joins again changes what was said before. An account is kept of what
    was promised and what was used, for `edgetrain-profile report`.
    """
    # Only who joins pays for reading it all.
    from edgetrain.client.enrolment import read_enrolment  # noqa: PLC0415
    from edgetrain.client.fleet.transport import trust  # noqa: PLC0415
    from edgetrain.client.node_settings import NodeSettings  # noqa: PLC0415
    from edgetrain.data import store  # noqa: PLC0415
    from edgetrain.signing import PrivateKey  # noqa: PLC0415

    enrolment = read_enrolment(options.file)
    PrivateKey(enrolment.key.encode())
    trust(enrolment.ca)
    given = {name: getattr(options, name) for name in SETTINGS}
    settings = {name: value for name, value in given.items() if value is not None}
    state = folder(options)
    if options.no_ledger:
        settings.pop("ledger", None)
    else:
        settings.setdefault("ledger", state.path / "ledger")
    for name in ("dataset", "ledger"):
        if name in settings:
            settings[name] = str(Path(settings[name]).absolute())
    node = NodeSettings.of({**settings, "device": enrolment.name})
    if node.dataset is not None:
        with store.open(node.dataset):
            pass
    state.join(enrolment, settings)
    joined = {"name": enrolment.name, "address": enrolment.address, "state": str(state.path)}
    show({**joined, "settings": settings}, as_json=options.json)


def run(options: argparse.Namespace) -> None:
    """Work for the federation, in the foreground, until SIGTERM or SIGINT.

    It may be killed at any moment, and goes on where it was. Under systemd it says when it
    is ready and feeds the watchdog (Type=notify). Where samples have been recorded,
    applications may hand it more at the socket samples.sock in the state folder.
    """
    from edgetrain.client.daemon import Daemon  # noqa: PLC0415
    from edgetrain.client.own_samples import served  # noqa: PLC0415

    for number in ENDINGS:
        signal.signal(number, stop)
    # One that came while this process began afresh has waited.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDINGS)
    state = folder(options)
    daemon = Daemon(state)
    with served(state):
        daemon.run()
    start_afresh()


def status(options: argparse.Namespace) -> None:
    """Say who this device is, what its daemon does, and whether its workers have a network."""
    from edgetrain.client.journal import read_events  # noqa: PLC0415

    state = folder(options)
    enrolment = state.enrolment
    events, _ = read_events(state.path / "journal")
    told = state.told
    running = state.held
    fields: dict[str, Any] = {
        "name": enrolment.name,
        "address": enrolment.address,
        "node_id": state.node_id or None,
        "running": running,
        "paused": state.paused,
        "doing": told.get("state") if running else None,
        "detail": told.get("detail") if running else None,
        "since": moment(told.get("since")) if running else None,
        "instruction": events[-1]["event"] if events else None,
        "settings": state.settings,
        "worker_network": worker_network(),
    }
    show(fields, as_json=options.json)


def worker_network() -> str:
    """Return "none", or "open" and why this system keeps no worker from the network."""
    from edgetrain.memory_profiler.enforce.limits import Limits  # noqa: PLC0415
    from edgetrain.memory_profiler.enforce.supervise import supervise  # noqa: PLC0415

    tried = supervise(["true"], Limits(network="none"))
    return ": ".join(filter(None, (tried.network, tried.no_filter)))


def pause(options: argparse.Namespace) -> None:
    """Take no more work on, until `resume`; what was begun is finished."""
    set_paused(options, paused=True)


def resume(options: argparse.Namespace) -> None:
    """Take work on again, after `pause`."""
    set_paused(options, paused=False)


def leave(options: argparse.Namespace) -> None:
    """Leave the federation: say goodbye if it can be reached, and forget it and the key.

    The whole state folder goes, with the samples and the ledger that lie there.
    The coordinator's operator should revoke the device as well.
    """
    from edgetrain.client.daemon import connect  # noqa: PLC0415
    from edgetrain.errors import EdgetrainError  # noqa: PLC0415

    state = folder(options)
    told = False
    with state.hold():
        api = connect(state.enrolment, state.node_id)
        if api.node_id:
            with contextlib.suppress(EdgetrainError):
                api.deactivate()
                told = True
            with contextlib.suppress(EdgetrainError):
                api.unregister()
        api.transport.close()
        state.leave()
    show({"left": str(state.path), "coordinator_told": told}, as_json=options.json)


def folder(options: argparse.Namespace) -> StateFolder:
    """Return the state that a command is about."""
    return StateFolder(options.state or default_state())


def moment(seconds: Any) -> str | None:
    """Return seconds since 1970 as a date and a time."""
    if not isinstance(seconds, int | float):
        return None
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def set_paused(options: argparse.Namespace, *, paused: bool) -> None:
    """Say whether work is wanted. Raises ConfigError for a device that has not joined."""
    state = folder(options)
    name = state.enrolment.name
    state.paused = paused
    show({"name": name, "paused": paused}, as_json=options.json)


def stop(number: int, _: FrameType | None) -> NoReturn:
    """End the process in good order, or after STOP_SECONDS in any: it may be killed as well."""
    signal.signal(number, signal.SIG_IGN)
    signal.alarm(STOP_SECONDS)
    raise SystemExit(0)


def start_afresh() -> NoReturn:
    """Become a new process of the same command, with the memory of one."""
    from edgetrain.memory_profiler.memory import worker_environment  # noqa: PLC0415

    sys.stdout.flush()
    # Until the next one can say goodbye, nobody listens: a signal waits for it.
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDINGS)
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], worker_environment())
