"""Heartbeats in a thread of their own, systemd's datagrams, and waits that grow."""

from __future__ import annotations

import os
import queue
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from edgetrain.client import heart as heart_module
from edgetrain.client.backoff import Backoff, jittered
from edgetrain.client.fleet.identity import since_boot
from edgetrain.client.fleet_api import FleetApi
from edgetrain.client.heart import Heart
from edgetrain.client.systemd import notify, watchdog_seconds
from edgetrain.errors import FleetError

PROMPT = 10.0
"""Seconds within which a busy machine gets to a thread that is due."""


class Api:
    """Counts heartbeats, and fails those that it is told to."""

    def __init__(self, *failing: bool) -> None:
        self.beats: queue.Queue[threading.Thread] = queue.Queue()
        self.failing = iter(failing)
        self.transport = self

    def another(self) -> FleetApi:
        return cast(FleetApi, self)

    def heartbeat(self, _: float) -> bool:
        self.beats.put(threading.current_thread())
        if next(self.failing, False):
            raise FleetError("away")
        return True

    def close(self) -> None:
        pass


def start(heart: Heart, api: Api) -> None:
    heart.beat_from(cast(FleetApi, api))


def test_a_heart_beats_while_the_main_thread_does_something_else() -> None:
    api = Api()
    with Heart(0.01) as heart:
        start(heart, api)
        threads = {api.beats.get(timeout=PROMPT) for _ in range(3)}
    assert threads.isdisjoint({threading.current_thread()})


def test_a_heart_that_fails_goes_on() -> None:
    api = Api(True, True)
    with Heart(0.01) as heart:
        start(heart, api)
        for _ in range(4):
            api.beats.get(timeout=PROMPT)


def test_a_heart_rests_when_it_is_told_to() -> None:
    first, second = Api(), Api()
    with Heart(0.01) as heart:
        start(heart, first)
        first.beats.get(timeout=PROMPT)
        heart.rest()
        start(heart, second)
        # Once the second one beats, nothing that the first one had begun is left.
        second.beats.get(timeout=PROMPT)
        beaten = first.beats.qsize()
        second.beats.get(timeout=PROMPT)
        assert first.beats.qsize() == beaten


def test_a_heart_is_heard_of_at_the_first_step_after_an_hour_of_sleep(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slept = 0.0
    monkeypatch.setattr(heart_module, "since_boot", lambda: since_boot() + slept)
    api = Api()
    with Heart(300.0) as heart:
        start(heart, api)
        heart.step()
        assert api.beats.empty()
        slept = 3600.0
        heart.step()
        api.beats.get(timeout=PROMPT)


@pytest.fixture
def listener(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """Systemd's end."""
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as found:
        found.bind(str(path))
        found.settimeout(PROMPT)
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        yield found


def test_systemd_is_told(listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    notify("READY=1", "STATUS=idle")
    assert listener.recv(1000) == b"READY=1\nSTATUS=idle"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as abstract:
        name = f"edgetrain-test-{os.getpid()}"
        abstract.bind(f"\0{name}")
        abstract.settimeout(PROMPT)
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
        notify("READY=1")
        assert abstract.recv(1000) == b"READY=1"


@pytest.mark.parametrize("address", ["", "relative", "/nowhere/at/all"])
def test_without_systemd_nothing_happens(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    notify("READY=1")


@pytest.mark.parametrize(
    ("variables", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog_is_systemds(
    variables: dict[str, str], seconds: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WATCHDOG_USEC", "WATCHDOG_PID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert watchdog_seconds() == seconds


def test_the_watchdog_is_fed_while_the_main_thread_goes_on(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "20000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    with Heart(300.0):
        assert [listener.recv(100) for _ in range(2)] == [b"WATCHDOG=1"] * 2


def test_the_watchdog_is_not_fed_for_a_main_thread_that_hangs(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "20000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    monkeypatch.setattr(heart_module, "LONGEST_STEP", 0.0)
    api = Api()
    with Heart(0.01) as heart:
        start(heart, api)
        for _ in range(5):
            api.beats.get(timeout=PROMPT)
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.recv(100)


def test_waits_double_up_to_a_limit_and_begin_anew_after_a_success() -> None:
    backoff = Backoff(first=2.0, limit=30.0)
    for most in (2, 4, 8, 16, 30, 30):
        assert most / 2 <= backoff.next() <= most
    for _ in range(5000):
        assert backoff.next() <= 30
    backoff.reset()
    assert backoff.next() <= 2


def test_devices_do_not_wait_alike() -> None:
    waits: list[Any] = [jittered(60.0) for _ in range(2000)]
    assert min(waits) >= 30
    assert max(waits) <= 90
    assert sum(waits) / len(waits) == pytest.approx(60, abs=3)
