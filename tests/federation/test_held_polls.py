"""Questions for work that are held: who waits, who is woken, and that nothing is lost by it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from door import Door, served
from fleet_server import Certificates, FleetServer, private_pem, serve
from flwr.app import RecordDict
from small_task import write_noise

from edgetrain import models
from edgetrain.client.daemon import connect
from edgetrain.client.enrolment import Enrolment
from edgetrain.client.fleet.hold import LONGEST_HOLD, Hold, wanted_seconds
from edgetrain.client.fleet_api import FleetApi
from edgetrain.client.state import StateFolder
from edgetrain.coordinator.service.authority import Authority
from edgetrain.coordinator.service.holding import Holds
from edgetrain.coordinator.wake import wake
from edgetrain.errors import FleetError

PROMPT = 30.0
"""Seconds in which anything happens on a busy machine; whoever is held waits for much longer."""
LONG = 390.0
HEARTBEAT_SECONDS = 300.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("authority")


@pytest.fixture(scope="module")
def superlink(folder: Path) -> Iterator[FleetServer]:
    authority = Authority(folder)
    authority.prepare("127.0.0.1")
    paths = (authority.certificate, authority.server_certificate, authority.server_key)
    with serve(Certificates(*paths), folder / "superlink.db") as found:
        yield found


@pytest.fixture(scope="module")
def door(superlink: FleetServer, folder: Path) -> Iterator[Door]:
    with served(folder, f"https://{superlink.address}") as found:
        yield found


@pytest.fixture
def server(superlink: FleetServer) -> FleetServer:
    return superlink.another_run()


def enrolled(server: FleetServer, port: int, poll_seconds: float = 3600) -> Enrolment:
    """Return what a device would join with that asks at this port, and seldom of itself."""
    key = ec.generate_private_key(ec.SECP384R1())
    server.enrol(key)
    ca, pem = server.certificates.authority_pem, private_pem(key).decode()
    address = f"127.0.0.1:{port}"
    return Enrolment("left", address, ca, pem, poll_seconds, hold_seconds=LONG)


@pytest.fixture
def device(server: FleetServer, door: Door) -> Iterator[FleetApi]:
    api = connect(enrolled(server, door.port), 0)
    api.activate(HEARTBEAT_SECONDS)
    yield api
    api.transport.close()


class Waiting:
    """A device that asks for work in a thread of its own, for as long as it is held."""

    def __init__(self, api: FleetApi) -> None:
        self.api = api
        self.unwanted = threading.Event()
        self.held = threading.Event()
        self.hold = Hold(LONG, 0.01, self.wanted)
        self.thread = threading.Thread(target=self.ask)
        self.thread.start()
        assert self.held.wait(PROMPT)

    def wanted(self) -> bool:
        self.held.set()
        return not self.unwanted.is_set()

    def ask(self) -> None:
        assert self.api.pull_message(self.hold) is None
        self.api.transport.close()

    def ends(self) -> bool:
        self.thread.join(PROMPT)
        return not self.thread.is_alive()


def test_who_waits_is_woken_and_asks_again(
    server: FleetServer, door: Door, device: FleetApi
) -> None:
    waiting = Waiting(device)
    message_id = server.send(device.node_id, RecordDict(), "query")
    wake(door.waker, [device.node_id + 1])
    assert waiting.thread.is_alive()
    wake(door.waker, [1, device.node_id])
    assert waiting.ends()
    assert waiting.hold.applied
    hold = Hold(LONG, PROMPT, lambda: True)
    found = device.pull_message(hold)
    assert found is not None
    assert found.message_id == message_id
    assert not hold.applied


def test_a_message_is_never_taken_for_who_does_not_wait_any_more(
    server: FleetServer, door: Door, device: FleetApi
) -> None:
    waiting = Waiting(device)
    waiting.unwanted.set()
    assert waiting.ends()
    message_id = server.send(device.node_id, RecordDict(), "query")
    wake(door.waker, [device.node_id])
    found = device.pull_message()
    assert found is not None
    assert found.message_id == message_id


def test_a_node_waits_once(device: FleetApi) -> None:
    first = Waiting(device.another())
    second = Waiting(device.another())
    assert first.ends()
    assert second.thread.is_alive()
    second.unwanted.set()
    assert second.ends()


def test_a_wait_ends_by_itself(device: FleetApi) -> None:
    hold = Hold(1, PROMPT, lambda: True)
    assert device.pull_message(hold) is None
    assert hold.applied


def test_who_is_refused_or_does_not_ask_for_it_is_not_held(
    server: FleetServer, door: Door, device: FleetApi
) -> None:
    assert device.pull_message() is None
    assert device.pull_message(Hold(0, PROMPT, lambda: True)) is None
    stranger = connect(enrolled(server, door.port), device.node_id)
    hold = Hold(LONG, PROMPT, lambda: True)
    with pytest.raises(FleetError) as caught:
        stranger.pull_message(hold)
    stranger.transport.close()
    assert caught.value.status == 401
    assert not hold.applied


def test_a_coordinator_that_knows_no_waiting_is_asked_as_before(server: FleetServer) -> None:
    api = connect(enrolled(server, server.port), 0)
    api.activate(HEARTBEAT_SECONDS)
    hold = Hold(LONG, PROMPT, lambda: True)
    assert api.pull_message(hold) is None
    assert not hold.applied
    api.transport.close()


def test_nobody_waits_at_a_door_that_stops(
    server: FleetServer, folder: Path, tmp_path: Path
) -> None:
    paths = [path for path in folder.iterdir() if path.is_file()]
    for path in paths:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    with served(tmp_path, f"https://{server.address}") as own:
        api = connect(enrolled(server, own.port), 0)
        api.activate(HEARTBEAT_SECONDS)
        waiting = Waiting(api)
        own.process.terminate()
        assert waiting.ends()
        assert own.process.wait(PROMPT) is not None
        api.transport.close()


# --- the daemon


@pytest.fixture
def state(server: FleetServer, door: Door, tmp_path: Path) -> StateFolder:
    data = write_noise(tmp_path / "data.etd", models.mlp(inputs=4, classes=2, hidden=(4,)), 8)
    found = StateFolder(tmp_path / "state")
    found.join(enrolled(server, door.port), {"dataset": str(data)})
    return found


@pytest.fixture
def daemon(state: StateFolder) -> Iterator[subprocess.Popen[str]]:
    with idle(state) as found:
        yield found


@contextmanager
def idle(state: StateFolder) -> Iterator[subprocess.Popen[str]]:
    """Run a daemon; yield it when it has nothing to do."""
    words = ["-m", "edgetrain.client", "run", "--state", str(state.path)]
    with subprocess.Popen([sys.executable, "-P", *words], stdout=subprocess.PIPE, text=True) as one:
        try:
            assert one.stdout is not None
            assert one.stdout.readline() == "idle\n"
            yield one
        finally:
            one.kill()


@pytest.mark.usefixtures("daemon")
def test_a_daemon_that_waits_works_at_once(
    server: FleetServer, door: Door, state: StateFolder
) -> None:
    message_id = server.send(state.node_id, RecordDict(), "query")
    wake(door.waker, [state.node_id])
    end = time.monotonic() + PROMPT
    while server.take(message_id) is None:
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_daemon_that_waits_is_told_to_stop(daemon: subprocess.Popen[str]) -> None:
    daemon.terminate()
    assert daemon.wait(PROMPT) == 0


def test_a_daemon_that_waits_is_paused(server: FleetServer, door: Door, state: StateFolder) -> None:
    state.join(enrolled(server, door.port, poll_seconds=0.2), state.settings)
    with idle(state) as daemon:
        state.paused = True
        assert daemon.stdout is not None
        assert daemon.stdout.readline() == "paused\n"


# --- the parts


def test_who_is_woken_while_its_question_is_on_its_way_does_not_wait() -> None:
    async def ask() -> None:
        holds = Holds()
        holds.wake([7])
        asked = holds.wakes
        holds.wake([7])
        await holds.until_woken(7, asked, LONG)
        waiting = asyncio.create_task(holds.until_woken(7, holds.wakes, LONG))
        while not len(holds):
            await asyncio.sleep(0)
        holds.wake([8])
        assert not waiting.done()
        holds.wake([7])
        await waiting
        assert not len(holds)

    asyncio.run(asyncio.wait_for(ask(), PROMPT))


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("wait=5", 5),
        ("wait=9999", LONGEST_HOLD),
        ("wait=0", 0),
        *((value, 0) for value in (None, "", "wait=", "wait=-1", "wait=99999", "wait=٣", "x")),
    ],
)
def test_what_is_no_wish_to_wait_is_none(value: str | None, seconds: int) -> None:
    assert wanted_seconds(value) == seconds


def test_nobody_listening_is_no_error(tmp_path: Path) -> None:
    wake(tmp_path / "wake.sock", [1, 2])
