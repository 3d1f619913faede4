"""Any process of a federation is killed, every few seconds: each report counts once, none is lost.

FAULT_ROUNDS and FAULT_SEED say how long it goes on and what is killed: make fault-test.
"""

from __future__ import annotations

import contextlib
import os
import random
import threading
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest
from device_daemon import DeviceDaemon, daemon
from federation import Federation, kept_checkpoint
from kept_versions import all_versions_kept
from small_fleet import write_fleet

from edgetrain.config import FleetConfig
from edgetrain.coordinator.audit import audit_folder
from edgetrain.coordinator.checkpoint import CheckpointFolder, read_checkpoint
from edgetrain.coordinator.global_model import GlobalModel
from edgetrain.coordinator.journal import read_journal
from edgetrain.errors import EdgetrainError
from edgetrain.memory_profiler.ledger import verify

ROUNDS = int(os.environ.get("FAULT_ROUNDS", "2"))
SEED = int(os.environ.get("FAULT_SEED", "0"))
DEVICES = 3
LONGEST_LIFE = 4.0
"""Seconds from one kill to the next; a round takes two or three."""
DEADLINE = 60.0
"""Seconds of a round. An instruction whose only copy was in a process that was killed is lost,
and its round waits no longer than this."""
GLANCE_SECONDS, GLANCES = 0.01, 200
"""A worker lives for tenths of a second: how often one is looked for, and how many times."""
PROGRAMS = ("superlink", "superexec", "proxy")
COORDINATOR = (*PROGRAMS, "serverapp", "everything")
DEVICE = ("daemon", "worker")

Reports = Counter[tuple[str, int]]
"""By device, and by the version of the model that they began with."""


class Faults:
    """Kills processes of a federation, and counts whom."""

    def __init__(self, federation: Federation, daemons: list[DeviceDaemon], seed: int) -> None:
        self.federation = federation
        self.daemons = daemons
        self.draw = random.Random(seed)
        self.killed: Counter[str] = Counter()

    def strike(self, victims: tuple[str, ...]) -> str:
        """Kill one of these kinds of process, if it is there; return which."""
        # A worker that is killed is taken for the kernel's victim, and its plan is put aside until
        # its owner says that it was not.
        for quarantine in self.federation.folder.glob("*.quarantine"):
            quarantine.unlink()
        victim = self.draw.choice(victims)
        if victim == "everything":
            self.federation.kill_all()
            self.federation.up()
            hit = True
        elif victim == "daemon":
            one = self.draw.choice(self.daemons)
            one.kill()
            one.start()
            hit = True
        elif victim == "worker":
            hit = self.kill_a_worker()
        elif victim == "serverapp":
            hit = self.federation.kill("flwr-serverapp", certain=False)
        else:
            pid = self.federation.call("status")["programs"][victim]["pid"]
            hit = pid is not None and killed(psutil.Process(pid))
        self.killed[victim] += hit
        return victim

    def kill_a_worker(self) -> bool:
        """Kill a process that trains, as soon as there is one; say whether one came."""
        nothing = threading.Event()
        for _ in range(GLANCES):
            if any(killed(one) for device in self.daemons for one in device.workers()):
                return True
            nothing.wait(GLANCE_SECONDS)
        return False


def killed(process: psutil.Process) -> bool:
    """End a process at once; say whether it was still there."""
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return False
    return True


def counted(folder: Path) -> Reports:
    """Return whose report on which version the journals hold, and how often."""
    found: Reports = Counter()
    for path in folder.glob("*.reports"):
        with contextlib.suppress(EdgetrainError):  # its head is just being written
            for entry in read_journal(path):
                assert entry.answer.report is not None
                found[entry.answer.member.name, entry.answer.report.version] += 1
    return found


def killed_until_it_ends(federation: Federation, faults: Faults, kept: Path) -> Reports:
    """Kill processes until the run is complete; return the reports that were counted meanwhile."""
    acknowledged: Reports = Counter()
    struck = -1
    while (run := federation.call("status")["run"])["status"] != "completed":
        threading.Event().wait(faults.draw.uniform(0, LONGEST_LIFE))
        acknowledged |= counted(kept)
        # A coordinator that is killed again before it has made a round would never end.
        victim = faults.strike(DEVICE + COORDINATOR if run["version"] > struck else DEVICE)
        if victim in COORDINATOR:
            struck = run["version"]
    return acknowledged


@pytest.mark.slow
def test_whatever_is_killed_each_report_counts_once_and_the_model_is_their_sum(
    federation: Federation,
) -> None:
    training = f"deadline = {DEADLINE}\nstaleness = 0"
    fleet, devices = write_fleet(federation.folder, ROUNDS, devices=DEVICES, training=training)
    kept = federation.folder / "kept"
    federation.up()
    with ExitStack() as stack:
        daemons = [stack.enter_context(daemon(federation, device)) for device in devices]
        federation.call("start", "fleet.toml")
        stack.enter_context(all_versions_kept(federation.checkpoints, kept))
        faults = Faults(federation, daemons, SEED)
        acknowledged = killed_until_it_ends(federation, faults, kept)
    history = kept_checkpoint(federation, fleet).history
    lost = sum((Counter(one.losses) for one in history.rounds), Counter())
    print("killed:", dict(faults.killed), "not counted:", dict(lost))
    print("seconds of the rounds:", [round(one.seconds) for one in history.rounds])
    assert set(lost) <= {"failed", "declined", "late"}
    assert lost["failed"] <= faults.killed["worker"]

    reports = counted(kept)
    assert set(reports.values()) == {1}
    assert acknowledged <= reports
    assert {version for _, version in reports} == set(range(ROUNDS))
    for name, known in history.devices.items():
        assert known.answered == sum(device == name for device, _ in reports)
    for record in history.rounds:
        assert record.reported == sum(version == record.round - 1 for _, version in reports)
        assert record.reported + sum(record.losses.values()) == DEVICES
    assert_a_sum_of_reports(CheckpointFolder(kept), fleet)
    for one in daemons:
        assert verify(one.ledger).broken is None


def assert_a_sum_of_reports(kept: CheckpointFolder, fleet: FleetConfig) -> None:
    """Add up every version again, from the first one on."""
    drawn = read_checkpoint(kept.path_of(0)).model
    fresh = GlobalModel.fresh(drawn.model, drawn.mode, fleet.training.seed)
    assert drawn.to_tensors() == fresh.to_tensors()
    audits = list(audit_folder(kept.folder))
    assert [one.version for one in audits] == list(range(1, fleet.training.rounds + 1))
    assert all(one.same for one in audits)
