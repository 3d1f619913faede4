"""What a device keeps on its disk: safe from other users, from power cuts and from damage."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetrain.client.enrolment import Enrolment, read_enrolment
from edgetrain.client.journal import Journal, write_line
from edgetrain.client.state import StateFolder, default_state
from edgetrain.errors import ConfigError, DataError, PayloadError, StorageError

PEM = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"
CA = PEM.replace("PRIVATE KEY", "CERTIFICATE")
FIELDS = {"name": "pi-3", "address": "fleet.example:8443", "ca": CA, "key": PEM}
ENROLMENT = Enrolment(**FIELDS)
EVENTS = [{"event": "pulled", "number": 1}, {"event": "answered", "text": "ä"}, {"event": "pushed"}]


@pytest.fixture
def state(tmp_path: Path) -> StateFolder:
    folder = StateFolder(tmp_path / "state")
    folder.join(ENROLMENT, {"memory": "64MiB"})
    return folder


def toml(fields: dict[str, Any]) -> str:
    return "".join(
        f"{name} = {json.dumps(value)}\n" for name, value in fields.items() if value is not None
    )


def test_an_enrolment_is_read_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "pi-3.toml"
    path.write_text("# carry it to the device\n" + toml(FIELDS))
    assert read_enrolment(path) == ENROLMENT
    path.write_text(toml({**FIELDS, "address": "[::1]:80", "poll_seconds": 60}))
    assert read_enrolment(path).poll_seconds == 60.0
    assert PEM not in repr(ENROLMENT)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": None}, "lacks the field 'name'"),
        ({"name": "two\nlines"}, "one line"),
        ({"key": None}, "lacks the field 'key'"),
        ({"key": "secret"}, "no PEM"),
        ({"key": PEM + "A" * 20000}, "no PEM"),
        ({"address": "fleet.example"}, "host and port"),
        ({"address": "https://fleet.example:8443"}, "host and port"),
        ({"address": "a b:80"}, "host and port"),
        ({"address": "fleet.example:8443\nX-Header: 1"}, "host and port"),
        ({"heartbeat_seconds": 5}, "10 to 1800"),
        ({"poll_seconds": 0}, "poll_seconds"),
        ({"more": 1}, "'more'"),
    ],
)
def test_an_enrolment_that_makes_no_sense_is_refused(
    changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    path = tmp_path / "pi-3.toml"
    path.write_text(toml({**FIELDS, **changes}))
    with pytest.raises(PayloadError, match=said):
        read_enrolment(path)


def test_a_file_that_is_no_enrolment_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "pi-3.toml"
    with pytest.raises(DataError):
        read_enrolment(path)
    for raw in (b"\xff\xfe", b"= 1", b"#" * 100_000):
        path.write_bytes(raw)
        with pytest.raises(ConfigError):
            read_enrolment(path)


def test_what_was_joined_is_kept_and_the_key_is_nobody_elses(state: StateFolder) -> None:
    assert StateFolder(state.path).enrolment == ENROLMENT
    assert state.settings == {"memory": "64MiB"}
    assert stat.S_IMODE(state.key.stat().st_mode) == 0o600
    assert stat.S_IMODE(state.path.stat().st_mode) == 0o700
    others = [path for path in state.path.iterdir() if path != state.key]
    assert all(PEM not in path.read_text() for path in others)
    again = Enrolment(**{**FIELDS, "address": "other.example:1"})
    state.join(again, {})
    assert state.enrolment == again


def test_a_device_that_has_not_joined_is_told_how(tmp_path: Path) -> None:
    empty = StateFolder(tmp_path / "none")
    with pytest.raises(ConfigError, match="edgetrain-client join"):
        _ = empty.enrolment
    with pytest.raises(ConfigError, match="edgetrain-client join"), empty.hold():
        pass
    assert not empty.held
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        StateFolder(tmp_path / "file" / "state").join(ENROLMENT, {})


def test_leaving_leaves_nothing(state: StateFolder) -> None:
    state.work.mkdir()
    with state.hold():
        state.leave()
    assert not state.path.exists()


def test_the_node_has_a_number_once_it_was_given_one(state: StateFolder) -> None:
    assert state.node_id == 0
    state.node_id = (1 << 64) - 1
    assert StateFolder(state.path).node_id == (1 << 64) - 1


def test_under_another_key_it_is_another_node(state: StateFolder) -> None:
    state.node_id = 5
    state.journal().append({"event": "pulled"})
    state.join(ENROLMENT, {"memory": "32MiB"})
    assert (state.node_id, len(state.journal().events)) == (5, 1)
    state.join(Enrolment(**{**FIELDS, "key": PEM.replace("AAAA", "BBBB")}), {})
    assert (state.node_id, len(state.journal().events)) == (0, 0)


def test_what_the_daemon_does_is_told(state: StateFolder) -> None:
    assert state.told == {}
    state.tell({"state": "idle"})
    assert StateFolder(state.path).told == {"state": "idle"}
    (state.path / "status.json").write_text("{")
    assert state.told == {}


def test_a_full_disk_takes_nothing_on(state: StateFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    state.require_room()
    monkeypatch.setattr("edgetrain.client.state.ROOM", 1 << 62)
    with pytest.raises(StorageError, match="full"):
        state.require_room()


@pytest.mark.parametrize("raw", ["{", "[]", '{"node_id": -1}', '{"node_id": "5"}', "\x00"])
def test_damaged_state_is_refused(state: StateFolder, raw: str) -> None:
    (state.path / "node.json").write_text(raw)
    with pytest.raises(PayloadError):
        _ = state.node_id


def test_pausing_outlives_the_process(state: StateFolder) -> None:
    assert not state.paused
    state.paused = True
    state.paused = True
    assert StateFolder(state.path).paused
    state.paused = False
    state.paused = False
    assert not state.paused


def test_one_daemon_at_a_time(state: StateFolder) -> None:
    hold = (
        "import sys; from pathlib import Path; from edgetrain.client.state import StateFolder\n"
        f"with StateFolder(Path({str(state.path)!r})).hold(): print('held', flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        assert state.held
        with pytest.raises(ConfigError, match="is running"), state.hold():
            pass
        other.kill()
        other.wait()
    assert not state.held


def test_the_state_lies_where_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", "/srv/one:/srv/two")
    assert default_state() == Path("/srv/one")
    monkeypatch.delenv("STATE_DIRECTORY")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert default_state() == Path("/var/lib/edgetrain-client")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("HOME", "/home/me")
    assert default_state() == Path("/home/me/.local/state/edgetrain-client")


def test_a_journal_is_read_as_it_was_written(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    assert journal.events == []
    for event in EVENTS:
        journal.append(event)
    assert journal.events == EVENTS
    again = Journal(tmp_path / "journal")
    assert again.events == EVENTS
    again.clear()
    again.append(EVENTS[0])
    assert Journal(tmp_path / "journal").events == EVENTS[:1]


@given(st.integers(0, sum(len(write_line(event)) for event in EVENTS)))
def test_power_may_go_at_any_byte(cut: int) -> None:
    lines = [write_line(event) for event in EVENTS]
    whole = [index for index in range(4) if len(b"".join(lines[:index])) <= cut][-1]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal"
        path.write_bytes(b"".join(lines)[:cut])
        journal = Journal(path)
        assert journal.events == EVENTS[:whole]
        journal.append({"event": "next"})
        assert Journal(path).events == [*EVENTS[:whole], {"event": "next"}]


@given(st.data())
def test_a_changed_bit_ends_the_journal_there(data: st.DataObject) -> None:
    lines = [write_line(event) for event in EVENTS]
    raw = bytearray(b"".join(lines))
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= 1 << data.draw(st.integers(0, 7))
    before = [index for index in range(3) if len(b"".join(lines[:index])) <= at][-1]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal"
        path.write_bytes(raw)
        assert Journal(path).events == EVENTS[:before]


def test_a_full_disk_leaves_the_journal_as_it_was(tmp_path: Path) -> None:
    code = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from edgetrain.client.journal import Journal; from edgetrain.errors import StorageError\n"
        "journal = Journal(Path(sys.argv[1])); journal.append({'event': 'pulled'})\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (60, resource.RLIM_INFINITY))\n"
        "try: journal.append({'event': 'x' * 100})\n"
        "except StorageError: print('full')\n"
        "assert len(journal.events) == 1; journal.append({'e': 1})"
    )
    path = tmp_path / "journal"
    ended = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    assert ended.stdout == "full\n"
    assert Journal(path).events == [{"event": "pulled"}, {"e": 1}]
