"""The device's unit as deployed: it starts, is restarted, and its belts let a worker train."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgetrain.coordinator.service.authority import Authority
from edgetrain.coordinator.service.enrolment import fresh_enrolment

NAME = "edgetrain-client"
USER = NAME
UNITS = Path("/opt/units")
STATE = Path("/var/lib") / NAME
INSTALLED = Path("/opt/edgetrain/bin")
NOBODY = "127.0.0.1:9"
"""Where no coordinator is."""
PROMPT = 120.0
"""Seconds in which an emulated machine does the next thing."""
TRAINER = f"""[Service]
Type=oneshot
Restart=no
ExecStart=
ExecStart={sys.executable} /opt/vm/device.py {STATE} well
"""


def output(*command: object) -> str:
    done = subprocess.run(map(str, command), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def shown(name: str) -> str:
    return output("systemctl", "show", "--value", f"--property={name}", NAME).strip()


def status() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        output("runuser", "-u", USER, "--", INSTALLED / NAME, "status", "--json", "--state", STATE)
    )
    return found


def until_running(but: str = "0") -> str:
    """Return the daemon's number once it tells what it does, under another one than before."""
    end = time.monotonic() + PROMPT
    while time.monotonic() < end:
        number = shown("MainPID")
        if number not in ("0", but) and status()["doing"] == "unreachable":
            return number
        time.sleep(0.5)
    raise AssertionError(output("journalctl", "--unit", NAME, "--no-pager"))


@pytest.fixture(scope="module", autouse=True)
def joined(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Install the unit as docs/raspberry-pi.md has it, and join."""
    INSTALLED.parent.mkdir()
    INSTALLED.symlink_to("/usr/local/bin")
    shutil.copy(UNITS / f"{NAME}.service", "/etc/systemd/system")
    output("systemd-sysusers", UNITS / "sysusers.conf")
    output("systemctl", "daemon-reload")
    output("install", "-d", "-o", USER, "-g", USER, "-m", "0750", STATE)
    authority = Authority(tmp_path_factory.mktemp("authority"))
    authority.prepare("localhost")
    enrolment = Path("/run/pi.toml")
    enrolment.write_text(fresh_enrolment("pi", NOBODY, authority.certificate.read_text()).to_toml())
    shutil.chown(enrolment, USER)
    join = (INSTALLED / NAME, "join", enrolment, "--state", STATE, "--memory", "48MiB")
    output("runuser", "-u", USER, "--", *join)
    yield
    output("systemctl", "stop", NAME)


def test_it_starts_and_waits_for_a_coordinator_and_stops_in_good_order() -> None:
    output("systemctl", "start", NAME)
    until_running()
    assert shown("NRestarts") == "0"
    output("systemctl", "stop", NAME)
    assert (shown("Result"), shown("ActiveState")) == ("success", "inactive")


def test_it_is_restarted_when_it_is_killed() -> None:
    output("systemctl", "start", NAME)
    number = until_running()
    output("systemctl", "kill", "--kill-whom=main", "--signal=KILL", NAME)
    assert until_running(but=number) != number
    output("systemctl", "stop", NAME)


def test_a_worker_trains_inside_its_belts() -> None:
    drop_in = Path(f"/etc/systemd/system/{NAME}.service.d/train.conf")
    drop_in.parent.mkdir()
    drop_in.write_text(TRAINER)
    output("systemctl", "daemon-reload")
    output("systemctl", "start", NAME)
    told = json.loads((STATE / "told.json").read_text())
    assert [report["status"] for report in told["reports"]] == ["trained"]
    entries = [json.loads(line) for line in (STATE / "ledger").read_text().splitlines()]
    (outcome,) = (entry["outcome"] for entry in entries if "outcome" in entry)
    assert (outcome["enforcement"], outcome["network"]) == ("hard", "none")
