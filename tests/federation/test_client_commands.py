"""The commands of a device's owner, and the daemon as a process that is really killed."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from fleet_server import FleetServer, make_certificates, private_pem, serve
from flwr.app import RecordDict
from small_task import small_task, write_noise

from edgetrain import models
from edgetrain.client.__main__ import make_parser
from edgetrain.client.flower_record import record_to_hello, record_to_report, task_to_record
from edgetrain.client.journal import Journal
from edgetrain.client.run import run_task
from edgetrain.client.state import StateFolder
from edgetrain.errors import ConfigError, DataError, EnforceError, PayloadError
from edgetrain.memory_profiler.budget import Budget
from edgetrain.memory_profiler.enforce import supervise
from edgetrain.memory_profiler.enforce.socket_filter import socket_filter
from edgetrain.task import Task

FEATURES, CLASSES, EXAMPLES = 10, 3, 400
MODEL = models.mlp(inputs=FEATURES, classes=CLASSES, hidden=(8,))
PROMPT = 60.0
"""Seconds in which a process on a busy machine does the next thing."""


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "edgetrain.client", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=PROMPT,
    )


def printed(*arguments: object) -> dict[str, Any]:
    ended = command(*arguments, "--json")
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert isinstance(found, dict)
    return found


@pytest.fixture(scope="module")
def superlink(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetServer]:
    folder = tmp_path_factory.mktemp("superlink")
    with serve(make_certificates(folder), folder / "superlink.db") as found:
        yield found


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_noise(tmp_path_factory.mktemp("data") / "device.etd", MODEL, EXAMPLES)


@pytest.fixture
def server(superlink: FleetServer) -> FleetServer:
    return superlink.another_run()


@pytest.fixture
def key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP384R1())


@pytest.fixture
def enrolment(server: FleetServer, key: ec.EllipticCurvePrivateKey, tmp_path: Path) -> Path:
    fields = {
        "name": "left",
        "address": server.address,
        "ca": server.certificates.authority_pem,
        "key": private_pem(key).decode(),
        "poll_seconds": 0.2,
    }
    path = tmp_path / "left.toml"
    path.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in fields.items()))
    return path


@pytest.fixture
def state(enrolment: Path, data: Path, tmp_path: Path) -> StateFolder:
    folder = tmp_path / "state"
    allowed = ("--memory", "256MiB", "--checkpoint", "10ms")
    printed("join", enrolment, "--state", folder, "--data", data, *allowed)
    return StateFolder(folder)


@contextmanager
def running(state: StateFolder, folder: Path) -> Iterator[tuple[subprocess.Popen[str], Any]]:
    """Run the daemon; yield it, and what waits for a datagram to systemd that begins so."""
    folder.mkdir(exist_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(folder / "notify"))
        systemd.settimeout(PROMPT)
        environment = {**os.environ, "NOTIFY_SOCKET": str(folder / "notify")}
        words = ["-m", "edgetrain.client", "run", "--state", str(state.path)]
        process = subprocess.Popen(
            [sys.executable, "-P", *words], env=environment, stdout=subprocess.PIPE, text=True
        )

        def until(wanted: str) -> None:
            end = time.monotonic() + PROMPT
            while not systemd.recv(10_000).decode().startswith(wanted):
                assert time.monotonic() < end, f"no {wanted} within {PROMPT} s"

        with process:
            try:
                yield process, until
            finally:
                process.kill()


def a_task(epochs: int = 1) -> Task:
    return small_task(MODEL, local_epochs=epochs)


def test_joining_keeps_what_was_said(state: StateFolder, data: Path) -> None:
    assert state.enrolment.name == "left"
    allowed = {"memory": "256MiB", "checkpoint": "10ms"}
    kept = {"dataset": str(data), "ledger": str(state.path / "ledger")}
    assert state.settings == {**kept, **allowed}
    found = printed("status", "--state", state.path)
    assert (found["name"], found["running"], found["paused"]) == ("left", False, False)
    assert found["doing"] is None
    assert found["node_id"] is None


def test_whether_workers_have_a_network_is_tried_and_told(
    state: StateFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = make_parser().parse_args(["status", "--state", str(state.path), "--json"])
    try:
        socket_filter()
    except EnforceError as error:
        pytest.skip(str(error))
    options.run(options)
    assert json.loads(capsys.readouterr().out)["worker_network"] == "none"
    # One that ends without an answer, which every kernel refuses as one without filters would.
    monkeypatch.setattr(supervise, "socket_filter", lambda: bytes(8))
    options.run(options)
    told = json.loads(capsys.readouterr().out)["worker_network"]
    assert told == "open: Invalid argument"


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ("file", DataError),
        ("data", DataError),
        ("memory", ConfigError),
        ("key", ConfigError),
        ("name", PayloadError),
    ],
)
def test_joining_fails_in_one_line_and_leaves_nothing(
    change: str, error: type[Exception], enrolment: Path, data: Path, tmp_path: Path
) -> None:
    words = {"file": enrolment, "data": data, "memory": "256MiB"}
    if change in words:
        words[change] = tmp_path / "nothing" if change != "memory" else "much"
    elif change == "key":
        enrolment.write_text(enrolment.read_text().replace("PRIVATE KEY", "STRANGE KEY"))
    else:
        enrolment.write_text(enrolment.read_text().replace('name = "left"', 'name = ""'))
    ended = command(
        *("join", words["file"], "--data", words["data"], "--memory", words["memory"]),
        *("--state", tmp_path / "state"),
    )
    assert ended.returncode == error.exit_code  # type: ignore[attr-defined]
    assert ended.stderr.startswith("error: ")
    assert ended.stderr.count("\n") == 1
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("name", ["run", "status", "pause", "resume", "leave"])
def test_who_has_not_joined_is_told_how(name: str, tmp_path: Path) -> None:
    ended = command(name, "--state", tmp_path / "none")
    assert ended.returncode == ConfigError.exit_code
    assert "edgetrain-client join FILE" in ended.stderr


@pytest.mark.parametrize("name", ["join", "run", "status", "pause", "resume", "leave", "run-task"])
def test_every_command_says_what_it_does(name: str) -> None:
    ended = command(name, "--help")
    assert ended.returncode == 0
    assert "--json" in ended.stdout
    assert len(ended.stdout.splitlines()[-1]) < 120
    assert "--debug" in command("--help").stdout


def test_pausing_is_for_as_long_as_one_likes(state: StateFolder) -> None:
    assert printed("pause", "--state", state.path)["paused"] is True
    assert printed("status", "--state", state.path)["paused"] is True
    assert printed("resume", "--state", state.path)["paused"] is False
    assert re.search(r"^paused +no$", command("status", "--state", state.path).stdout, re.MULTILINE)


def test_a_daemon_answers_and_is_a_new_process_after_it_and_stops_when_told(
    server: FleetServer,
    state: StateFolder,
    key: ec.EllipticCurvePrivateKey,
    tmp_path: Path,
) -> None:
    node_id = server.enrol(key, "left")
    with running(state, tmp_path / "systemd") as (process, until):
        until("READY=1")
        until("STATUS=idle")
        status = printed("status", "--state", state.path)
        assert (status["running"], status["doing"]) == (True, "idle")
        assert status["node_id"] == node_id
        refused = command("leave", "--state", state.path)
        assert refused.returncode == ConfigError.exit_code
        assert "is running" in refused.stderr
        message_id = server.send(node_id, RecordDict(), "query")
        until("READY=1")  # it has begun afresh
        until("STATUS=idle")
        reply = server.reply(message_id)
        assert reply is not None
        assert record_to_hello(reply.content)["examples"] == EXAMPLES
        process.send_signal(signal.SIGTERM)
        assert process.wait(PROMPT) == 0
    assert not state.held


def test_a_daemon_that_is_told_to_stop_while_it_begins_afresh_stops_in_good_order(
    state: StateFolder,
) -> None:
    words = ["-P", "-m", "edgetrain.client", "run", "--state", str(state.path)]
    code = (
        "import os, signal, sys\n"
        "from edgetrain.client import fleet_cli\n"
        "def told(*words):\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    execve(*words)\n"
        "execve, os.execve = os.execve, told\n"
        f"sys.orig_argv[1:] = {words!r}\n"
        "fleet_cli.start_afresh()\n"
    )
    again = subprocess.run([sys.executable, "-P", "-c", code], timeout=PROMPT, check=False)
    assert again.returncode == 0


def test_a_daemon_killed_at_work_goes_on_there_and_ends_with_the_same_bits(
    server: FleetServer,
    state: StateFolder,
    data: Path,
    key: ec.EllipticCurvePrivateKey,
    tmp_path: Path,
) -> None:
    node_id = server.enrol(key, "left")
    task = a_task(epochs=400)
    with running(state, tmp_path / "first") as (process, until):
        until("STATUS=idle")
        message_id = server.send(node_id, task_to_record(task))
        until("STATUS=training")
        while not list(state.work.glob("*.checkpoint")):
            assert process.poll() is None
            threading.Event().wait(0.01)
        process.kill()
        process.wait(PROMPT)
    assert [event["event"] for event in Journal(state.path / "journal").events] == [
        "pulled",
        "started",
    ]
    assert printed("status", "--state", state.path)["instruction"] == "started"
    with running(state, tmp_path / "second") as (process, until):
        until("STATUS=training: going on after")
        process.send_signal(signal.SIGTERM)
        assert process.wait(PROMPT) == 0
    with running(state, tmp_path / "third") as (_, until):
        until("STATUS=pushing")
        until("READY=1")
    reply = server.reply(message_id)
    assert reply is not None
    report = record_to_report(reply.content, task)
    assert report.reason == ""
    assert report.update == run_task(task, data, Budget()).update


def test_no_account_is_kept_where_none_is_wanted(enrolment: Path, tmp_path: Path) -> None:
    for words in (("--no-ledger",), ("--no-ledger", "--ledger", "elsewhere")):
        joined = printed("join", enrolment, "--state", tmp_path / "state", *words)
        assert joined["settings"] == {}


def test_a_daemon_serves_samples_as_soon_as_some_are_recorded(
    state: StateFolder, tmp_path: Path
) -> None:
    sample = tmp_path / "samples.jsonl"
    sample.write_text('{"x": [1, 2], "y": 1}\n')
    form = ("--shape", "2", "--classes", "2")
    with running(state, tmp_path) as (_, until):
        until("STATUS=")
        assert not state.socket.exists()
        printed("record", "--state", state.path, *form, sample)
        # The daemon has become a new one.
        until("READY=1")
        with socket.socket(socket.AF_UNIX) as application:
            application.settimeout(PROMPT)
            application.connect(str(state.socket))
            application.sendall(sample.read_bytes())
            assert json.loads(application.recv(1000)) == {"recorded": 2}


def test_leaving_says_goodbye_and_forgets(
    server: FleetServer,
    state: StateFolder,
    key: ec.EllipticCurvePrivateKey,
    tmp_path: Path,
) -> None:
    node_id = server.enrol(key, "left")
    with running(state, tmp_path / "systemd") as (_, until):
        until("STATUS=idle")
    assert server.status(node_id) == "online"
    assert printed("leave", "--state", state.path)["coordinator_told"] is True
    assert server.status(node_id) == "offline"
    assert not state.path.exists()
