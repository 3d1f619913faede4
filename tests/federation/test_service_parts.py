"""The parts of a service, each on its own: certificates, enrolment, proxy, supervisor, keeper."""

from __future__ import annotations

import asyncio
import datetime
import json
import os
import socket
import sqlite3
import ssl
import stat
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator, Mapping
from http.client import HTTPSConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from door import served
from prometheus_client import CollectorRegistry

from edgetrain import models
from edgetrain.client.enrolment import read_enrolment
from edgetrain.command import run_command
from edgetrain.config import FleetConfig
from edgetrain.coordinator.__main__ import app as commands
from edgetrain.coordinator.checkpoint import Checkpoint, CheckpointFolder
from edgetrain.coordinator.global_model import GlobalModel
from edgetrain.coordinator.history import DeviceRecord, History, RoundRecord
from edgetrain.coordinator.service import authority as authority_module
from edgetrain.coordinator.service import proxy
from edgetrain.coordinator.service.authority import Authority
from edgetrain.coordinator.service.backup import back_up
from edgetrain.coordinator.service.control import RunState
from edgetrain.coordinator.service.enrolment import fresh_enrolment, openssh_key, public_key
from edgetrain.coordinator.service.holding import Holds
from edgetrain.coordinator.service.keeper import (
    CHECKPOINTS,
    MISSED_LOOKS,
    Keeper,
    RunRecord,
    Wish,
    run_folder,
)
from edgetrain.coordinator.service.leftovers import end_marked, marked
from edgetrain.coordinator.service.metrics import FederationCollector, serve_metrics
from edgetrain.coordinator.service.place import Place, write_json
from edgetrain.coordinator.service.supervisor import Program, Supervisor
from edgetrain.coordinator.service.watch import events, show
from edgetrain.errors import ConfigError, ServiceError, StorageError
from edgetrain.memory_profiler.signature import device_key
from edgetrain.memory_profiler.signature_check import point_of_pem

WAIT_SECONDS = 60.0
LOOK_SECONDS = 0.01
ROOT = Path(__file__).parents[2]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    found = Place(tmp_path / "federation")
    found.make()
    return found


# --- certificates and enrolment


def test_an_authority_is_made_once_and_signs_for_the_host(tmp_path: Path) -> None:
    one = Authority(tmp_path)
    one.prepare("192.0.2.7")
    ca, server = one.certificate.read_bytes(), one.server_certificate.read_bytes()
    one.prepare("192.0.2.7")
    assert one.server_certificate.read_bytes() == server
    one.prepare("coordinator.example")
    assert one.server_certificate.read_bytes() != server
    assert one.certificate.read_bytes() == ca
    for key in (one.key, one.server_key):
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
    found = x509.load_pem_x509_certificate(one.server_certificate.read_bytes())
    found.verify_directly_issued_by(x509.load_pem_x509_certificate(ca))


def test_a_certificate_is_replaced_before_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Authority(tmp_path)
    monkeypatch.setattr(authority_module, "SERVER_LIFE", datetime.timedelta(days=59))
    one.prepare("localhost")
    short = one.server_certificate.read_bytes()
    monkeypatch.undo()
    one.prepare("localhost")
    assert one.server_certificate.read_bytes() != short


def test_an_authority_that_is_damaged_is_one_line(tmp_path: Path) -> None:
    one = Authority(tmp_path)
    one.prepare("localhost")
    one.certificate.write_text("damaged")
    with pytest.raises(ConfigError, match="restore it from a backup"):
        one.prepare("other")


def test_an_enrolment_holds_the_key_that_was_registered(tmp_path: Path) -> None:
    one = fresh_enrolment("pi-0", "192.0.2.7:9443", "-----BEGIN CERTIFICATE-----\nx\n")
    (tmp_path / "pi-0.toml").write_text(one.to_toml())
    assert read_enrolment(tmp_path / "pi-0.toml") == one
    for content in (one.key.encode(), openssh_key(one)):
        path = tmp_path / "key"
        path.touch(0o600)
        path.write_bytes(content)
        assert device_key(path).public_point.hex() == point_of_pem(public_key(one))
    assert fresh_enrolment("pi-0", "", "").key != one.key


# --- the proxy


class Upstream(BaseHTTPRequestHandler):
    """Stands for SuperLink: says what it was asked."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        said = json.dumps({"path": self.path, "headers": dict(self.headers), "bytes": len(body)})
        self.send_response(201)
        self.send_header("x-told", "yes")
        self.end_headers()
        self.wfile.write(said.encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def upstream() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Upstream) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def ask(
    upstream: str, path: str, content: bytes = b"", headers: Any = None, method: str = "POST"
) -> httpx.Response:
    """Return the proxy's answer to a request."""

    async def talk() -> httpx.Response:
        async with httpx.AsyncClient(base_url=upstream, trust_env=False) as inner:
            transport = httpx.ASGITransport(proxy.application(inner, Holds()))
            async with httpx.AsyncClient(transport=transport, base_url="http://door") as outer:
                return await outer.request(method, path, content=content, headers=headers)

    return asyncio.run(talk())


def test_a_call_is_passed_on_whole_and_nothing_else_of_the_request_is(upstream: str) -> None:
    found = ask(upstream, "/v1/fleet/pull-messages?a=b", b"12345", {"x-mine": "1", "te": "x"})
    assert (found.status_code, found.headers["x-told"]) == (201, "yes")
    said = found.json()
    assert (said["path"], said["bytes"]) == ("/v1/fleet/pull-messages", 5)
    names = {name.lower() for name in said["headers"]}
    assert "x-mine" in names
    assert "te" not in names


@pytest.mark.parametrize(
    "path",
    [
        *("/v1/control/x", "/v1/fleet", "/v1/fleet/", "/v1/fleet/Pull", "/", "/v1/fleet/a.b"),
        *("/v1/fleet/%2e%2e", "/v1/fleet/..%2fcontrol", "/v1/fleet/a%00", "/v1/fleet/a%0d%0a"),
    ],
)
def test_what_is_no_call_never_gets_through(path: str, upstream: str) -> None:
    assert ask(upstream, path).status_code == 404


@pytest.mark.parametrize(
    ("length", "status"),
    [
        (str(proxy.MAX_BODY_BYTES + 1), 413),
        ("9" * 40, 413),
        ("-1", 411),
        ("0x1", 411),
        ("１", 411),
        ("", 411),
    ],
)
def test_a_body_has_a_length_and_not_any(length: str, status: int, upstream: str) -> None:
    headers = {"content-length": length.encode()}
    assert ask(upstream, "/v1/fleet/x", headers=headers).status_code == status
    assert ask(upstream, "/v1/fleet/x", method="GET").status_code == 405


def test_without_superlink_devices_are_told_to_come_again() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    answer = ask(f"http://127.0.0.1:{port}", "/v1/fleet/pull-messages")
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0


def test_who_dawdles_is_hung_up_on_and_others_are_served(tmp_path: Path, upstream: str) -> None:
    with served(tmp_path, upstream, header_seconds=0.5) as door:
        port = door.port
        trust = ssl.create_default_context(cafile=str(Authority(tmp_path).certificate))

        def dawdling() -> ssl.SSLSocket:
            raw = socket.create_connection(("127.0.0.1", port), timeout=WAIT_SECONDS)
            found = trust.wrap_socket(raw, server_hostname="127.0.0.1")
            found.sendall(b"POST /v1/fleet/pull-messages HTTP/1.1\r\nhost: x\r\nx-slow")
            return found

        idle = [dawdling() for _ in range(20)]
        connection = HTTPSConnection("127.0.0.1", port, context=trust, timeout=WAIT_SECONDS)
        for _ in range(2):  # the second uses the same connection again
            connection.request("POST", "/v1/fleet/pull-messages", b"")
            answer = connection.getresponse()
            assert answer.status == 201
            answer.read()
        connection.close()
        for one in idle:
            assert one.recv(1) == b""
            one.close()


# --- the supervisor


def test_a_program_that_ends_is_started_again_ever_later(tmp_path: Path) -> None:
    now = 0.0
    program = Program("short", (sys.executable, "-c", "print('here')"), tmp_path / "log")
    supervisor = Supervisor([program], os.environ, clock=lambda: now)
    waits, begun = [], 0.0
    supervisor.tick()
    for _ in range(4):
        process = supervisor.children[0].process
        assert process is not None
        process.wait(WAIT_SECONDS)
        while supervisor.children[0].process in (process, None):
            supervisor.tick()
            now += 0.125
        waits.append(now - begun)
        begun = now
    supervisor.stop()
    assert waits == sorted(waits)
    assert waits[-1] >= 4 * waits[0] > 0
    assert program.log.read_text().count("here") >= 4
    assert supervisor.seen()["short"]["restarts"] == 4


def test_stop_ends_also_what_does_not_listen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgetrain.coordinator.service.supervisor.STOP_SECONDS", 0.2)
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); print(1, flush=True)\n"
    code += "while True: time.sleep(60)"
    program = Program("deaf", (sys.executable, "-c", code), tmp_path / "log")
    supervisor = Supervisor([program], os.environ)
    supervisor.tick()
    process = supervisor.children[0].process
    assert process is not None
    end = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < end and not program.log.read_text():
        time.sleep(LOOK_SECONDS)
    supervisor.stop()
    assert process.returncode == -9
    assert not supervisor.seen()["deaf"]["running"]


def test_a_program_that_is_not_there_is_not_the_end(tmp_path: Path) -> None:
    supervisor = Supervisor([Program("absent", ("/nowhere",), tmp_path / "log")], os.environ)
    supervisor.tick()
    assert not supervisor.seen()["absent"]["running"]


def test_leftovers_are_found_by_their_mark_and_no_others(tmp_path: Path) -> None:
    code = "import time; print(1, flush=True); time.sleep(600)"
    command = [sys.executable, "-c", code]
    mark = f"EDGETRAIN_TEST_MARK={tmp_path}"
    name, _, value = mark.partition("=")
    ours = subprocess.Popen(command, env={**os.environ, name: value}, stdout=subprocess.PIPE)
    other = subprocess.Popen(
        command, env={**os.environ, name: f"{value}-2"}, stdout=subprocess.PIPE
    )
    with ours, other:
        assert ours.stdout is not None
        assert other.stdout is not None
        ours.stdout.readline()
        other.stdout.readline()
        assert list(marked(mark)) == [ours.pid]
        assert list(marked(mark, "no such command")) == []
        assert end_marked(mark, "time.sleep") == 1
        assert ours.wait(WAIT_SECONDS) == -9
        assert other.poll() is None
        assert end_marked(mark) == 0
        other.kill()


# --- the keeper


class FakeRuns:
    """SuperLink's runs, as a test would have them."""

    def __init__(self) -> None:
        self.states: dict[int, RunState] = {}
        self.stopped: list[int] = []
        self.settings: list[Mapping[str, str]] = []
        self.away = False

    def start(self, settings: Mapping[str, str]) -> int:
        if self.away:
            raise ServiceError("away")
        self.settings.append(settings)
        run_id = len(self.settings)
        self.put(run_id, "running")
        return run_id

    def put(self, run_id: int, status: str, outcome: str = "", details: str = "") -> None:
        self.states[run_id] = RunState(run_id, status, outcome, details)

    def stop(self, run_id: int) -> None:
        self.stopped.append(run_id)
        self.put(run_id, "finished", "stopped")

    def run(self, run_id: int) -> RunState | None:
        if self.away:
            raise ServiceError("away")
        return self.states.get(run_id)


class Kept:
    """A keeper with all that it looks at, and a clock that a test moves."""

    def __init__(self, place: Place) -> None:
        self.place, self.runs = place, FakeRuns()
        self.now, self.working, self.cleared = 0.0, True, 0
        self.keeper = self.fresh()

    def fresh(self) -> Keeper:
        return Keeper(
            self.place, self.runs, lambda: self.working, self.clear, clock=lambda: self.now
        )

    def clear(self) -> None:
        self.cleared += 1

    def wish(self, run: str = "0001", *, go_on: bool = True) -> None:
        write_json(self.place.wish, {"run": run, "go_on": go_on})

    def tick(self, times: int = 1, seconds: float = 1.0) -> RunRecord:
        for _ in range(times):
            self.now += seconds
            self.keeper.tick()
        return self.keeper.record

    def fail(self, reason: str) -> None:
        self.runs.put(len(self.runs.settings), "finished", "failed", reason)
        self.working = False


@pytest.fixture
def kept(place: Place) -> Kept:
    return Kept(place)


def test_nothing_is_begun_that_nobody_wants(kept: Kept) -> None:
    assert kept.tick(5).run == ""
    assert not kept.runs.settings
    kept.wish(go_on=False)
    assert kept.tick(5).status == "stopped"
    assert not kept.runs.settings


def test_a_run_is_begun_once_and_followed_to_its_end(kept: Kept) -> None:
    kept.wish()
    assert kept.tick(50).status == "running"
    assert len(kept.runs.settings) == 1
    kept.runs.put(1, "finished", "completed")
    kept.working = False
    record = kept.tick(50)
    assert (record.status, record.attempts, record.run_id) == ("completed", 1, None)


def test_a_run_that_fails_is_begun_again_ever_more_rarely_until_it_gets_further(
    kept: Kept,
) -> None:
    kept.wish()
    begun: list[float] = []
    for _ in range(6):
        while len(kept.runs.settings) == len(begun):
            kept.tick(seconds=0.5)
        begun.append(kept.now)
        kept.fail("out of luck")
    waits = [later - earlier for earlier, later in pairwise(begun)]
    assert waits == sorted(waits)
    assert waits[-1] > 8 * waits[0]
    assert kept.tick().reason == "out of luck"
    folder = run_folder(kept.place, "0001") / CHECKPOINTS
    folder.mkdir(parents=True)
    (folder / "version-000003.safetensors").touch()
    while len(kept.runs.settings) == len(begun):
        kept.tick()
    kept.fail("again")
    last = kept.now
    while len(kept.runs.settings) == len(begun) + 1:
        kept.tick(seconds=0.5)
    assert kept.now - last <= waits[0] + 1


def test_a_run_whose_serverapp_was_killed_is_begun_again_at_once(kept: Kept) -> None:
    kept.wish()
    kept.tick(3)
    kept.working = False
    kept.tick(MISSED_LOOKS - 1)
    assert kept.runs.stopped == []
    kept.tick(5)
    assert kept.runs.stopped == [1]
    assert len(kept.runs.settings) == 2
    # Whatever was left of the one before is ended before there is another.
    assert kept.cleared == 2


def test_a_run_goes_on_with_a_new_keeper_that_knows_it(kept: Kept) -> None:
    kept.wish()
    record = kept.tick(3)
    write_json(kept.place.state, {"run": record.to_fields()})
    kept.keeper = kept.fresh()
    assert kept.tick(3) == record
    assert len(kept.runs.settings) == 1


def test_a_run_that_superlink_has_forgotten_is_begun_again(kept: Kept) -> None:
    kept.wish()
    kept.tick(2)
    kept.runs.states.clear()
    kept.working = False
    assert kept.tick(4).run_id == 2


def test_stop_and_start_go_on_with_the_same_run(kept: Kept) -> None:
    kept.wish()
    kept.tick(2)
    kept.wish(go_on=False)
    assert kept.tick().status == "stopped"
    assert kept.runs.stopped == [1]
    assert kept.tick(20).status == "stopped"
    kept.wish()
    kept.tick(3)
    assert len(kept.runs.settings) == 2
    assert kept.runs.settings[0] == kept.runs.settings[1]
    assert Wish.read(kept.place) == Wish("0001", go_on=True)


def test_while_superlink_is_away_nothing_is_lost(kept: Kept) -> None:
    kept.runs.away = True
    kept.wish()
    kept.tick(5)
    kept.runs.away = False
    kept.tick(2)
    kept.runs.away, kept.working = True, False
    record = kept.tick(50)
    assert (record.run_id, record.attempts) == (1, 1)


# --- the folder and the commands


def test_one_service_at_a_time_works_in_a_folder(place: Place) -> None:
    assert not place.is_held()
    with place.held():
        assert place.is_held()
        with pytest.raises(ConfigError, match="works in"), place.held():
            pass
    assert not place.is_held()


def test_a_backup_is_a_federation_again(place: Place, tmp_path: Path) -> None:
    Authority(place.authority).prepare("localhost")
    write_json(place.settings, {"host": "localhost", "port": 1, "listen": "::1"})
    (place.runs / "0001").mkdir()
    (place.runs / "0001" / "fleet.toml").write_text("x")
    with sqlite3.connect(place.database) as database:
        database.execute("pragma journal_mode=wal")
        database.execute("create table nodes (name)")
        database.execute("insert into nodes values ('pi-0')")
        database.commit()
        assert back_up(place, tmp_path / "backup.tar.gz") > 0
    database.close()
    assert stat.S_IMODE((tmp_path / "backup.tar.gz").stat().st_mode) == 0o600
    with tarfile.open(tmp_path / "backup.tar.gz") as tar:
        tar.extractall(tmp_path / "restored", filter="data")
    again = Place(tmp_path / "restored")
    assert again.known_settings() == place.known_settings()
    assert (again.runs / "0001" / "fleet.toml").read_text() == "x"
    assert Authority(again.authority).certificate.read_bytes()
    with sqlite3.connect(again.database) as database:
        assert database.execute("select name from nodes").fetchall() == [("pi-0",)]
    database.close()
    with pytest.raises(StorageError):
        back_up(place, tmp_path / "absent" / "backup.tar.gz")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["status"], ConfigError.exit_code, "holds no federation"),
        (["devices"], ConfigError.exit_code, "holds no federation"),
        (["enroll", "../x"], ConfigError.exit_code, "write a name of letters"),
        (["stop"], ConfigError.exit_code, "no run to stop"),
        (["start"], ConfigError.exit_code, "holds no federation"),
        (["pause"], ConfigError.exit_code, "no run to pause"),
        (["resume"], ConfigError.exit_code, "no run to resume"),
        (["budget"], ConfigError.exit_code, "no run to budget"),
        (["export", "model"], ConfigError.exit_code, "has no run"),
        (["backup", "x.tar.gz"], ConfigError.exit_code, "holds no federation"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_mistake_is_one_line(
    arguments: list[str], code: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        run_command(commands, [*arguments, "--folder", str(tmp_path / "nothing")])
    assert caught.value.code == code
    shown = capsys.readouterr().err
    assert said in shown
    assert shown.count("\n") == 1


@pytest.mark.parametrize(
    "command",
    [
        *("up", "enroll", "devices", "revoke", "start", "stop", "status", "watch", "backup"),
        *("export", "pause", "resume", "budget", "operator"),
    ],
)
def test_every_command_has_help_and_json(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    with pytest.raises(SystemExit) as caught:
        run_command(commands, [command, "--help"])
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    assert "--json" in shown
    assert "--folder" in shown


def test_a_run_that_is_wanted_while_the_federation_is_down_waits(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    write_json(place.settings, {"host": "localhost", "port": 1, "listen": "::1"})
    fleet = ROOT / "examples" / "fleet.toml"
    for arguments, code in (
        (["start", str(fleet)], 0),
        (["start", str(fleet)], ConfigError.exit_code),
        (["stop"], 0),
        (["start"], 0),
    ):
        with pytest.raises(SystemExit) as caught:
            run_command(commands, [*arguments, "--folder", str(place.folder), "--json"])
        assert caught.value.code == code
    capsys.readouterr()
    assert Wish.read(place) == Wish("0001", go_on=True)
    with pytest.raises(SystemExit):
        run_command(commands, ["status", "--folder", str(place.folder), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert (found["up"], found["run"]["version"]) == (False, 0)


def scrape(place: Place) -> dict[str, float]:
    """Return every sample of a scrape by its name and labels."""
    registry = CollectorRegistry()
    registry.register(FederationCollector(place))
    return {
        " ".join([sample.name, *sample.labels.values()]): sample.value
        for family in registry.collect()
        for sample in family.samples
    }


def test_metrics_are_the_figures_of_status(place: Place) -> None:
    write_json(place.settings, {"host": "localhost", "port": 1, "listen": "::1"})
    found = scrape(place)
    assert "edgetrain_accuracy" not in found
    assert found["edgetrain_rounds_done"] == 0
    write_json(place.wish, {"run": "0001", "go_on": True})
    program = {"running": True, "pid": 1, "restarts": 3}
    record = RunRecord("0001", 7, 2, "running")
    write_json(place.state, {"programs": {"proxy": program}, "run": record.to_fields()})
    fleet = FleetConfig(data={"path": "watch"}, devices=({"name": "pi", "memory": "1MiB"},))
    model = GlobalModel.fresh(models.mlp(inputs=4, classes=2, hidden=(3,)), "bnn", 0)
    history = History(
        (RoundRecord(1, losses={"late": 2}, accuracy=0.5, training_loss=1.5, uplink_bytes=9),),
        {"pi-0": DeviceRecord("pi-0", "pi", answered=4, examples=80, status="late")},
    )
    folder = CheckpointFolder(run_folder(place, "0001") / CHECKPOINTS)
    folder.save(Checkpoint(model, history, fleet.to_table()))
    found = scrape(place)
    for name, value in {
        "edgetrain_program_running proxy": 0,  # nobody holds the folder
        "edgetrain_program_restarts_total proxy": 3,
        "edgetrain_run 0001 running": 1,
        "edgetrain_attempts_total": 2,
        "edgetrain_rounds_wanted": fleet.training.rounds,
        "edgetrain_accuracy": 0.5,
        "edgetrain_training_loss": 1.5,
        "edgetrain_reports_total": 4,
        "edgetrain_examples_total": 80,
        "edgetrain_uplink_bytes_total": 9,
        "edgetrain_lost_total late": 2,
        "edgetrain_devices pi late": 1,
    }.items():
        assert found[name] == value, name
    with place.held():
        assert scrape(place)["edgetrain_program_running proxy"] == 1


def test_metrics_are_served_on_the_loopback(place: Place) -> None:
    write_json(place.settings, {"host": "localhost", "port": 1, "listen": "::1"})
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with serve_metrics(place, port) as server:
        shown = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
        assert "edgetrain_rounds_done 0.0" in shown
        with pytest.raises(ConfigError, match="choose another --metrics"):
            serve_metrics(place, port)
        server.shutdown()


def test_watch_tells_every_change_and_ends_with_the_run(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    write_json(place.settings, {"host": "localhost", "port": 1, "listen": "::1"})
    write_json(place.wish, {"run": "0001", "go_on": True})
    story = ["waiting", "running", "running", "completed"]

    def tell(_: float = 0.0) -> None:
        write_json(place.state, {"run": RunRecord("0001", 7, 1, story.pop(0)).to_fields()})

    tell()
    seen = [event["federation"]["run"]["status"] for event in events(place, tell)]
    assert seen == ["waiting", "running", "completed"]
    for json_wanted in (True, False):
        show(events(place, tell), json=json_wanted)
        assert "completed" in capsys.readouterr().out
