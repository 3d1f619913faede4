"""`edgetrain-coordinator up`: all that a federation needs on one machine, kept running.

    devices ──HTTPS──> proxy ──> SuperLink <── SuperExec ──> ServerApp
                                     ^
                          operator's commands, and the keeper of runs

SuperLink listens on the loopback alone. State lies in one folder; whatever is killed, even all of
it at once, goes on from there when it is started again.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import signal
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgetrain.coordinator.service.authority import Authority
from edgetrain.coordinator.service.control import Control
from edgetrain.coordinator.service.keeper import Keeper
from edgetrain.coordinator.service.leftovers import end_marked, marked
from edgetrain.coordinator.service.metrics import serve_metrics
from edgetrain.coordinator.service.place import Place, Settings, read_json, write_json
from edgetrain.coordinator.service.supervisor import Program, Supervisor
from edgetrain.errors import ConfigError, ServiceError
from edgetrain.storage import replace_file

__all__ = ["control_of", "serve"]

MARK = "EDGETRAIN_SERVICE_OF"
"""Set to the folder for every process of a service, so that leftovers are found."""
SERVERAPP = "flwr-serverapp"
LOCAL = "127.0.0.1"
TICK_SECONDS = 1.0
SECRET_BYTES = 32

log = logging.getLogger(__name__)


def serve(place: Place, settings: Settings, ready: Callable[[], None]) -> None:
    """Run the federation until SIGTERM or SIGINT; `ready` is called once devices may come.

    Raises ConfigError where another service works in the folder or the port is taken.
    """
    from edgetrain.coordinator.control.server import (  # noqa: PLC0415 - for `up` alone
        serve_control,
    )

    place.make()
    with place.held():
        if left := end_marked(mark(place)):
            log.warning("ended %d processes that a service before had left", left)
        prepare(place, settings)
        stopping = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stopping.set())
        port = free_port()
        write_json(place.state, read_json(place.state) | {"control_port": port})
        supervisor = Supervisor(programs(place, settings, port), environment(place))
        served = serve_metrics(place, settings.metrics) if settings.metrics else None
        try:
            with serve_control(place, settings.control):
                watch(place, supervisor, port, stopping, ready)
        finally:
            if served is not None:
                served.shutdown()
            supervisor.stop()
            end_marked(mark(place))
            write_state(place, read_json(place.state) | {"programs": supervisor.seen()})


def watch(
    place: Place,
    supervisor: Supervisor,
    port: int,
    stopping: threading.Event,
    ready: Callable[[], None],
) -> None:
    """Keep programs and the run going until told to stop."""
    supervisor.tick()
    with Control(port, Authority(place.authority).certificate) as control:
        keeper = Keeper(
            place,
            control,
            working=lambda: any(marked(mark(place), SERVERAPP)),
            clear=lambda: end_marked(mark(place), SERVERAPP),
        )
        announced = False
        while not stopping.wait(TICK_SECONDS):
            supervisor.tick()
            if not announced and answers(control):
                announced = True
                ready()
            if announced:
                keeper.tick()
            write_state(
                place,
                {
                    "control_port": port,
                    "ready": announced,
                    "programs": supervisor.seen(),
                    "run": keeper.record.to_fields(),
                },
            )


def write_state(place: Place, state: dict[str, Any]) -> None:
    """Store what the service sees of itself, where it has changed."""
    if state != read_json(place.state):
        write_json(place.state, state)


def answers(control: Control) -> bool:
    """Say whether SuperLink serves yet."""
    try:
        control.nodes()
    except ServiceError:
        return False
    return True


def mark(place: Place) -> str:
    """Return the variable that every process of a service has in its environment."""
    return f"{MARK}={place.folder}"


def prepare(place: Place, settings: Settings) -> None:
    """Make what is missing before anything starts. Raises ConfigError for a port that is taken."""
    Authority(place.authority).prepare(settings.host)
    if not place.secret.exists():
        replace_file(place.secret, [secrets.token_bytes(SECRET_BYTES)], private=True)
    try:
        family = socket.AF_INET6 if ":" in settings.listen else socket.AF_INET
        with socket.create_server((settings.listen, settings.port), family=family):
            pass
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {settings.listen}:{settings.port}: {error.strerror}: "
            "choose another --port or --listen"
        ) from None
    write_json(place.settings, asdict(settings))


def programs(place: Place, settings: Settings, port: int) -> Sequence[Program]:
    """Return what is kept running, in the order of starting; `port` is SuperLink's own."""
    authority = Authority(place.authority)
    superlink = (
        tool("flower-superlink"),
        *("--host", LOCAL, "--port", str(port)),
        *("--database", str(place.database)),
        *("--ssl-certfile", str(authority.server_certificate)),
        *("--ssl-keyfile", str(authority.server_key)),
        *("--ssl-ca-certfile", str(authority.certificate)),
        *("--isolation", "process", "--superexec-auth-secret-file", str(place.secret)),
        *("--enable-supernode-auth", "--disable-runtime-dependency-installation"),
    )
    superexec = (
        tool("flower-superexec"),
        *("--runtime-api-address", f"{LOCAL}:{port}"),
        *("--root-certificates", str(authority.certificate)),
        *("--superexec-auth-secret-file", str(place.secret)),
    )
    proxy = (
        *(sys.executable, "-m", "edgetrain.coordinator.service.proxy"),
        *(str(place.authority), settings.listen, str(settings.port), f"https://{LOCAL}:{port}"),
        str(place.waker),
    )
    return [
        Program(name, command, place.logs / f"{name}.log")
        for name, command in (("superlink", superlink), ("superexec", superexec), ("proxy", proxy))
    ]


def tool(name: str) -> str:
    """Return the path of a command of Flower's. Raises ConfigError where it is not installed."""
    found = shutil.which(name, path=search_path())
    if found is None:
        raise ConfigError(f"{name} is not installed: pip install 'edgetrain[fleet]'")
    return found


def search_path() -> str:
    """Return where commands are looked for: beside this Python first."""
    return f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"


def environment(place: Place) -> dict[str, str]:
    """Return the environment of all processes: Flower tells nobody about us and fetches nothing."""
    return {
        **os.environ,
        "PATH": search_path(),
        "FLWR_HOME": str(place.flower_home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "NO_PROXY": LOCAL,
        MARK: str(place.folder),
    }


def free_port() -> int:
    """Return a port of the loopback that nobody listens on."""
    with socket.create_server((LOCAL, 0)) as probe:
        return int(probe.getsockname()[1])


def control_of(place: Place) -> Control:
    """Return a connection to the federation's SuperLink. Raises ServiceError where none runs."""
    place.known_settings()
    port = read_json(place.state).get("control_port")
    if port is None or not place.is_held():
        raise ServiceError(
            f"the federation in {place.folder} does not run: edgetrain-coordinator up"
        )
    return Control(port, Authority(place.authority).certificate)
