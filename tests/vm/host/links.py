"""The host's side of guest/test_links.py: the federation that units in the machine train for.

Three of the watch fleet's devices are enrolled, with one side of a person each; a fourth side is
held out. The machine gets their enrolments, their data and the fleet's TOML.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from federation import Federation, assert_as_simulated, kept_checkpoint
from small_fleet import trainees

from edgetrain.config import FleetConfig
from edgetrain.data import load

HOST = "10.0.2.2"
"""What QEMU's network calls the loopback of the computer that it runs on."""
SIDES, HELD_OUT = (2, 4, 8), 9
UNUSED = (3, 6, 9)
"""The people whom examples/watch.toml holds out."""
WINDOWS = 32
"""Of a side's hundred or two: a step of 32 takes an emulated device seconds."""
ROUNDS = 3
POLL_SECONDS = 2.0
FLEET = f"""
[data]
path = "sides"
test_groups = [{HELD_OUT}]

[model]
name = "har_cnn"
mode = "fsb"
first = "int8"
last = "int8"

[training]
rounds = {ROUNDS}
local_epochs = 2
batch = 32

[[device]]
name = "pi-zero"
count = {len(SIDES)}
memory = "24MiB"
"""


@dataclass(frozen=True)
class Links:
    """The federation, its fleet, and the files that the machine gets."""

    federation: Federation
    fleet: FleetConfig
    files: Path

    def check(self) -> None:
        """Hold what the coordinator has to the reports that came, and to a simulation."""
        self.federation.wait_for("the end", lambda found: found["run"]["status"] == "completed")
        for record in kept_checkpoint(self.federation, self.fleet).history.rounds:
            assert (record.reported, dict(record.losses)) == (len(SIDES), {})
        assert_as_simulated(self.federation, self.fleet)


@contextmanager
def beside(folder: Path) -> Iterator[Links]:
    """Run the federation, with its devices enrolled and training wanted."""
    fleet = write_fleet(folder)
    federation = Federation(folder)
    federation.up(host=HOST)
    try:
        files = folder / "machine"
        files.mkdir()
        for device in trainees(fleet, folder):
            federation.call("enroll", device.name)
            with (folder / f"{device.name}.toml").open("a") as enrolment:
                enrolment.write(f"poll_seconds = {POLL_SECONDS}\n")
            for suffix in (".toml", ".etd"):
                shutil.copy(folder / f"{device.name}{suffix}", files)
        shutil.copy(folder / "fleet.toml", files)
        federation.call("start", "fleet.toml")
        yield Links(federation, fleet, files)
    finally:
        federation.close()


def write_fleet(folder: Path) -> FleetConfig:
    """Write the watches' data and the fleet; return the fleet."""
    known = load("watch", test_groups=UNUSED).train
    assert known.groups is not None
    chosen = np.concatenate(
        [np.flatnonzero(known.groups == side)[:WINDOWS] for side in (*SIDES, HELD_OUT)]
    )
    sides = folder / "sides"
    sides.mkdir()
    for name, rows in (("x", known.samples), ("y", known.labels), ("group", known.groups)):
        np.save(sides / f"{name}.npy", rows[chosen])
    path = folder / "fleet.toml"
    path.write_text(FLEET)
    return FleetConfig.from_toml(path)
