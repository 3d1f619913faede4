"""`edgetrain-client record`: what an application hands over is what the next task trains on."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgetrain.client.answer import introduction
from edgetrain.client.node_settings import NodeSettings
from edgetrain.client.own_samples import exported, served
from edgetrain.client.sample_ring import Sample, SampleForm, SampleRing
from edgetrain.client.state import StateFolder
from edgetrain.data import store
from edgetrain.errors import ConfigError, DataError

FORM = ("--shape", "2,3", "--classes", "3")
ENOUGH_SECONDS = 30.0


def sample(number: int) -> Sample:
    return Sample(bytes((number + column) % 100 for column in range(6)), number % 3)


def line(number: int) -> str:
    features = list(sample(number).features)
    return json.dumps({"x": features, "y": number % 3}) + "\n"


def record(
    state: Path, *arguments: str, text: str | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            sys.executable,
            "-P",
            "-m",
            "edgetrain.client",
            "record",
            "--state",
            str(state),
            *arguments,
        ],
        input=text,
        capture_output=True,
        text=True,
        check=False,
        timeout=ENOUGH_SECONDS,
    )


def test_samples_come_from_a_file_and_from_stdin(tmp_path: Path) -> None:
    state, file = tmp_path / "state", tmp_path / "samples.jsonl"
    file.write_text("".join(line(number) for number in range(3)))
    made = record(state, *FORM, "--json", str(file))
    assert made.returncode == 0, made.stderr
    told = json.loads(made.stdout)
    assert (told["recorded"], told["held"], told["shape"], told["classes"]) == (3, 3, [2, 3], 3)
    more = record(state, text=line(3) + "\n" + line(4))
    assert more.returncode == 0, more.stderr
    assert "recorded  2" in more.stdout
    with SampleRing.open(StateFolder(state).ring) as ring:
        assert ring.samples() == [sample(number) for number in range(5)]
        assert ring.form == SampleForm((2, 3), "b", 3)


def test_a_ring_holds_as_much_as_was_allowed(tmp_path: Path) -> None:
    text = "".join(line(number) for number in range(700))
    made = record(tmp_path, *FORM, "--limit", "1KiB", "--format", "uint8", "--json", text=text)
    told = json.loads(made.stdout)
    ring = StateFolder(tmp_path).ring
    assert told["recorded"] == 700
    assert told["held"] == told["capacity"] < 60
    assert ring.stat().st_size <= 1024
    with SampleRing.open(ring) as found:
        assert found.samples() == [sample(n) for n in range(700 - found.capacity, 700)]
        assert found.form.format == "B"


def test_what_stands_before_a_line_that_is_none_is_recorded(tmp_path: Path) -> None:
    ended = record(tmp_path, *FORM, text=line(0) + line(1) + "nonsense\n" + line(2))
    assert ended.returncode == DataError.exit_code
    assert ended.stderr.startswith("error: line 3: ")
    assert ended.stderr.count("\n") == 1
    with SampleRing.open(StateFolder(tmp_path).ring) as ring:
        assert ring.samples() == [sample(0), sample(1)]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ((), DataError.exit_code, "--shape"),
        (("--shape", "2,3"), ConfigError.exit_code, "--classes"),
        (("--classes", "3"), ConfigError.exit_code, "--shape"),
        (("--shape", "2x3", "--classes", "3"), ConfigError.exit_code, "--shape 6,128"),
        (("--shape", "0", "--classes", "3"), DataError.exit_code, "cannot be"),
        ((*FORM, "--limit", "much"), ConfigError.exit_code, "much"),
        ((*FORM, "/nowhere/samples"), DataError.exit_code, "/nowhere/samples"),
    ],
)
def test_what_makes_no_sense_is_one_line(
    arguments: tuple[str, ...], code: int, said: str, tmp_path: Path
) -> None:
    ended = record(tmp_path, *arguments, text="")
    assert ended.returncode == code, ended.stderr
    assert said in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_a_ring_of_another_form_is_not_written_to(tmp_path: Path) -> None:
    assert record(tmp_path, *FORM, text=line(0)).returncode == 0
    assert record(tmp_path, *FORM, text=line(1)).returncode == 0
    ended = record(tmp_path, "--shape", "6", "--classes", "3", text=line(2))
    assert ended.returncode == ConfigError.exit_code
    with SampleRing.open(StateFolder(tmp_path).ring) as ring:
        assert ring.recorded() == 2


def test_a_recording_that_is_killed_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    record(tmp_path, *FORM, text="")
    command = [sys.executable, "-P", "-m", "edgetrain.client", "record", "--state", str(tmp_path)]
    ring = SampleRing.open(StateFolder(tmp_path).ring)
    with subprocess.Popen(command, stdin=subprocess.PIPE, text=True) as process, ring:
        assert process.stdin is not None
        number, end = 0, time.monotonic() + ENOUGH_SECONDS
        while ring.recorded() < 1000:
            assert time.monotonic() < end
            process.stdin.write("".join(line(n) for n in range(number, number + 256)))
            process.stdin.flush()
            number += 256
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        recorded = ring.recorded()
        assert recorded >= 1000
        assert ring.samples() == [sample(n) for n in range(recorded)]


def test_a_task_trains_on_what_was_recorded(tmp_path: Path) -> None:
    state = StateFolder(tmp_path)
    assert exported(state) is None
    with SampleRing.create(state.ring, SampleForm((2, 3), "b", 3), 4096) as ring:
        assert exported(state) is None
        ring.append([sample(0), sample(1)])
        path = exported(state)
        assert path is not None
        # One instruction sees one state of the data, however often it is begun.
        ring.append([sample(2)])
        assert exported(state) == path
        with store.open(path) as data:
            assert (data.examples, data.feature_count, data.classes) == (2, 6, 3)
        assert introduction(NodeSettings("pi", dataset=str(path)))["examples"] == 2
        state.clear_work()
        path = exported(state)
        assert path is not None
        with store.open(path) as data:
            assert data.examples == 3


def test_applications_hand_samples_to_the_daemon(tmp_path: Path) -> None:
    state = StateFolder(tmp_path)
    with served(state):
        assert not state.socket.exists()
    with SampleRing.create(state.ring, SampleForm((2, 3), "b", 3), 4096) as ring:
        with served(state), socket.socket(socket.AF_UNIX) as application:
            application.settimeout(ENOUGH_SECONDS)
            application.connect(str(state.socket))
            application.sendall(line(0).encode())
            assert json.loads(application.recv(1000)) == {"recorded": 1}
        assert ring.samples() == [sample(0)]
        assert not state.socket.exists()
