"""Devices behind a bad link, under 64 MiB each, train the watch fleet to the end.

The federation runs on the host, see host/links.py. For these units /usr lies on disks, one for
each, so that the pages of programs and libraries are charged to them as they are on a device; the
machine's own files are in its memory, and charged to nobody.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

FILES = Path("/opt/beside/links")
UNIT = Path("/opt/units/edgetrain-client.service")
USER = "edgetrain-client"
INSTALLED = Path("/opt/edgetrain/bin")
DISK, DISKS = Path("/run/usr.img"), Path("/run/disks")
MODULES = ("virtio_pci", "virtio_net", "sch_netem", "loop")
CARD, ADDRESS = "eth0", "10.0.2.15/24"
LINK = ("delay", "300ms", "loss", "10%", "rate", "64kbit")
LIMIT = 64 << 20
PATIENCE = 750.0
"""Seconds in which an emulated fleet trains on a busy computer."""
LOOK_SECONDS = 2.0
DROP_IN = """[Unit]
ConditionPathExists=
[Service]
StateDirectory=
StateDirectory={name}
MemoryMax={limit}
BindReadOnlyPaths={disk}:/usr
"""


def output(*command: object) -> str:
    done = subprocess.run(map(str, command), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class Device:
    """A device of the fleet, as a unit of its own."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.state = Path("/var/lib") / name
        self.group = Path("/sys/fs/cgroup/system.slice") / f"{name}.service"

    def install(self) -> None:
        """Make the deployed unit this device's, with a disk of its own and 64 MiB."""
        disk = DISKS / self.name
        disk.mkdir(parents=True)
        # Whoever shares a loop device shares its pages as well.
        loop = output("losetup", "--find", "--show", "--read-only", DISK).strip()
        output("mount", "-o", "ro", loop, disk)
        unit = Path("/etc/systemd/system") / f"{self.name}.service"
        shutil.copy(UNIT, unit)
        folder = unit.with_name(f"{unit.name}.d")
        folder.mkdir()
        changes = DROP_IN.format(name=self.name, limit=LIMIT, disk=disk)
        (folder / "changes.conf").write_text(changes)

    def join(self) -> None:
        """Join as docs/raspberry-pi.md has it."""
        output("install", "-d", "-o", USER, "-g", USER, "-m", "0750", self.state)
        enrolment, data = self.state / "enrolment.toml", self.state / "data.etd"
        for source, path in ((".toml", enrolment), (".etd", data)):
            shutil.copy(FILES / f"{self.name}{source}", path)
            shutil.chown(path, USER)
        join = (INSTALLED / "edgetrain-client", "join", enrolment, "--state", self.state)
        allowed = ("--memory", "24MiB", "--class", "pi-zero", "--watts", "1.6")
        kept = ("--data", data, "--ledger", self.state / "ledger")
        output("runuser", "-u", USER, "--", *join, *allowed, *kept)

    @property
    def outcomes(self) -> list[str]:
        """How the tasks in its ledger have ended."""
        ledger = self.state / "ledger"
        lines = ledger.read_text().splitlines() if ledger.exists() else []
        entries = [json.loads(line) for line in lines]
        return [entry["outcome"]["status"] for entry in entries if "outcome" in entry]

    @property
    def doing(self) -> str:
        """What its daemon does."""
        path = self.state / "status.json"
        return str(json.loads(path.read_text())["state"]) if path.exists() else ""

    def limit(self, name: str) -> str:
        """Return what a file of the unit's control group says."""
        return (self.group / name).read_text().strip()


@pytest.fixture(scope="module")
def devices() -> Iterator[list[Device]]:
    """Put the devices behind the bad link, and start them."""
    output("modprobe", "--all", *MODULES)
    output("ip", "address", "add", ADDRESS, "dev", CARD)
    output("ip", "link", "set", CARD, "up")
    output("tc", "qdisc", "add", "dev", CARD, "root", "netem", *LINK)
    output("mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-d", "/usr", DISK, "200M")
    if not INSTALLED.exists():
        INSTALLED.parent.mkdir(exist_ok=True)
        INSTALLED.symlink_to("/usr/local/bin")
    output("systemd-sysusers", "/opt/units/sysusers.conf")
    found = [Device(path.stem) for path in sorted(FILES.glob("*.etd"))]
    for device in found:
        device.install()
        device.join()
    output("systemctl", "daemon-reload")
    output("systemctl", "start", *(device.name for device in found))
    yield found
    output("systemctl", "stop", *(device.name for device in found))


def test_devices_under_64_mib_and_behind_a_bad_link_train_to_the_end(
    devices: list[Device], record_property: Callable[[str, object], None]
) -> None:
    rounds = tomllib.loads((FILES / "fleet.toml").read_text())["training"]["rounds"]
    end = time.monotonic() + PATIENCE
    while not all(len(one.outcomes) >= rounds and one.doing == "idle" for one in devices):
        assert time.monotonic() < end, output("journalctl", "--no-pager")
        time.sleep(LOOK_SECONDS)
    record_property("link", output("tc", "-s", "qdisc", "show", "dev", CARD))
    for device in devices:
        record_property(f"{device.name} memory.peak", device.limit("memory.peak"))
        assert device.outcomes == ["trained"] * rounds
        assert (device.limit("memory.max"), device.limit("memory.swap.max")) == (str(LIMIT), "0")
        events = dict(line.split() for line in device.limit("memory.events").splitlines())
        assert (events["oom"], events["oom_kill"]) == ("0", "0")
        assert output("systemctl", "show", "--value", "--property=NRestarts", device.name) == "0\n"
