"""What a device has used in all: signed digests, totals that stay, and nobody over them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from flwr.proto.node_pb2 import NodeInfo

from edgetrain.client.app import app as edgetrain_app
from edgetrain.config import FleetConfig
from edgetrain.coordinator.admission import Standing, admitted
from edgetrain.coordinator.answer import Answer, Member
from edgetrain.coordinator.checkpoint import CheckpointFolder
from edgetrain.coordinator.history import DeviceRecord, History
from edgetrain.coordinator.loop import Event, TaskAnswered
from edgetrain.coordinator.members import Register
from edgetrain.coordinator.simulation.devices import build_devices
from edgetrain.coordinator.simulation.simulate import simulate
from edgetrain.coordinator.simulation.virtual_grid import VirtualGrid
from edgetrain.data import load
from edgetrain.digest import LedgerDigest
from edgetrain.memory_profiler.budget import Budget
from edgetrain.memory_profiler.key_files import fresh_key
from edgetrain.memory_profiler.ledger import Ledger
from edgetrain.memory_profiler.ledger_line import Intent, Outcome
from edgetrain.memory_profiler.signature import signed_digest
from edgetrain.signing import PrivateKey
from edgetrain.task import PlanSummary, Report

KEY, OTHER = (PrivateKey(fresh_key()) for _ in range(2))
INTENT = Intent("train", 3, "pi", PlanSummary("bnn", 30, 1, 9), 17 << 20, Budget())
FLEET = """
[data]
path = "examples"
test_groups = [9]

[model]
hidden = [8]

[training]
rounds = 4
local_epochs = 1

[[device]]
name = "pi"
memory = "64MiB"
watts = 2.0
examples_per_second = 100
"""


def digests(path: Path, count: int, key: PrivateKey = KEY) -> list[LedgerDigest]:
    """Return a ledger's digest after each of so many tasks of 2 J."""
    found = []
    with Ledger(path) as ledger:
        for _ in range(count):
            ledger.begin(INTENT)
            ledger.end(Outcome("evaluated", "", 1 << 20, 10, 1.0, 2.0, "modelled"))
            found.append(signed_digest(ledger, key))
    return found


def an_answer(digest: LedgerDigest | None, key: str | None = None) -> Answer:
    report = Report("evaluated", 1, "pi", examples=10, loss=1.0, accuracy=0.5, digest=digest)
    return Answer(Member(1, "pi", "pi", "train", 10, 4, 2, None, key), "evaluated", "", report)


def judged(answer: Answer, before: LedgerDigest | None) -> Answer:
    """Return an answer after it was judged by the digest that its device sent last."""
    known = DeviceRecord(answer.member.name, digest=before)
    return admitted(answer, Standing(known, answer.member.node_id, 1, 0, 0))


def test_a_digest_that_goes_on_from_the_last_is_taken(tmp_path: Path) -> None:
    first, second, third = digests(tmp_path / "ledger", 3)
    for found, before in ((first, None), (second, first), (third, first), (None, first)):
        answer = an_answer(found)
        assert judged(answer, before) == answer
    enrolled = an_answer(second, KEY.public_point.hex())
    assert judged(enrolled, first) == enrolled


def test_a_digest_that_cannot_be_believed_refuses_the_report(tmp_path: Path) -> None:
    first, second = digests(tmp_path / "ledger", 2)
    (foreign,) = digests(tmp_path / "foreign", 1, OTHER)
    mine, theirs = KEY.public_point.hex(), OTHER.public_point.hex()
    anew = digests(tmp_path / "anew", 1)[0]
    for found, before, key, why in (
        (first, second, None, "it is old"),
        (second, second, mine, "it is old"),
        (anew, second, mine, "the ledger was begun anew"),
        (replace(second, joules=3.0), first, None, "not signed"),
        (replace(first, key=theirs), None, None, "not signed"),
        (foreign, None, mine, "another key"),
        (foreign, first, None, "another key"),
    ):
        answer = judged(an_answer(found, key), before)
        assert answer.status == "refused"
        assert why in answer.reason
        assert answer.report is not None
        assert answer.report.digest is None


def test_sums_that_shrink_are_refused_even_when_they_are_signed(tmp_path: Path) -> None:
    before = digests(tmp_path / "longer", 3)[1]
    with Ledger(tmp_path / "ledger") as ledger:
        for _ in range(3):
            ledger.begin(INTENT)
            ledger.end(Outcome("evaluated", "", 1 << 20, 10, 1.0, 0.5, "modelled"))
        cheap = signed_digest(ledger, KEY)
    assert cheap.lines > before.lines
    answer = judged(an_answer(cheap), before)
    assert answer.status == "refused"
    assert "takes back joules" in answer.reason


def test_a_device_enrolled_anew_begins_a_new_account(tmp_path: Path) -> None:
    before = digests(tmp_path / "before", 3)[-1]
    (after,) = digests(tmp_path / "after", 1, OTHER)
    answer = an_answer(after, OTHER.public_point.hex())
    assert judged(answer, before) == answer


def fleet(folder: Path, **device: Any) -> FleetConfig:
    """Return a fleet of two devices, of 60 and 50 examples, and one that judges."""
    data = folder / "examples"
    data.mkdir(exist_ok=True)
    labels = np.arange(150) % 3
    samples = np.random.default_rng(1).integers(-40, 40, (150, 20)) + 25 * labels[:, None]
    np.save(data / "x.npy", samples.clip(-127, 127).astype(np.int8))
    np.save(data / "y.npy", labels.astype(np.uint8))
    np.save(data / "group.npy", np.repeat([4, 7, 9], [60, 50, 40]))
    lines = "\n".join(f"{name} = {value!r}" for name, value in device.items())
    (folder / "fleet.toml").write_text(f"{FLEET}{lines}\n")
    return FleetConfig.from_toml(folder / "fleet.toml")


@pytest.mark.parametrize(
    ("limit", "word"), [({"total_energy": "2.4J"}, "energy"), ({"total_seconds": "1.2s"}, "time")]
)
def test_a_device_over_its_budget_is_asked_no_more(
    tmp_path: Path, limit: dict[str, str], word: str
) -> None:
    heard: list[Event] = []
    report = simulate(fleet(tmp_path, **limit), notify=heard.append)
    trainers = [one for one in report.devices if one.role == "train"]
    ((name, allowed),) = limit.items()
    most = float(allowed.rstrip("Js"))
    for one in trainers:
        used = one.joules if name == "total_energy" else one.seconds
        assert used is not None
        # It was asked for the last time while it was under its budget.
        assert (used >= most) == (one.status == "withheld")
        assert used - used / one.asked < most
    out = [one for one in trainers if one.status == "withheld"]
    assert out
    reasons = [reason for one in out for reason in one.reasons]
    assert all(f"of {word} allowed" in reason for reason in reasons)
    said = [event.answer.reason for event in heard if isinstance(event, TaskAnswered)]
    assert set(reasons) <= set(said)
    report.to_html(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert all(reason in page for reason in reasons)


def test_totals_outlive_the_run_and_a_larger_budget_lets_it_go_on(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    stopped = simulate(fleet(tmp_path, total_energy="3J"), checkpoints=kept)
    assert 0 < len(stopped.rounds) < 4
    again = simulate(fleet(tmp_path, total_energy="3J"), checkpoints=kept)
    assert again.rounds == stopped.rounds
    assert {one.name: one.joules for one in again.devices} == {
        one.name: one.joules for one in stopped.devices
    }
    finished = simulate(fleet(tmp_path, total_energy="1kJ"), checkpoints=kept)
    assert len(finished.rounds) == 4
    assert finished.rounds[: len(stopped.rounds)] == stopped.rounds


def test_a_digest_lives_in_the_checkpoint(tmp_path: Path) -> None:
    config = fleet(tmp_path)
    simulate(config, checkpoints=tmp_path / "kept")
    folder = CheckpointFolder(tmp_path / "kept")
    checkpoint = folder.newest(config.to_table())
    assert checkpoint is not None
    (digest,) = digests(tmp_path / "ledger", 1)
    name, record = next(iter(checkpoint.history.devices.items()))
    history = History(
        checkpoint.history.rounds,
        {**checkpoint.history.devices, name: replace(record, digest=digest)},
    )
    folder.save(replace(checkpoint, history=history))
    read = folder.newest(config.to_table())
    assert read is not None
    assert read.history == history


class EnrolledGrid(VirtualGrid):
    """A grid whose operator enrolled every device by a name of his own, with one key."""

    names: Mapping[int, str] = MappingProxyType({})

    def get_nodes(self) -> list[NodeInfo]:
        pem = KEY.public_pem
        return [
            NodeInfo(node_id=one, name=name, public_key=pem) for one, name in self.names.items()
        ]


def test_an_enrolled_device_goes_by_its_name_and_its_key(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = fleet(tmp_path)
    splits = load(config.dealt.path, test_groups=config.dealt.test_groups)
    devices = build_devices(config, splits, tmp_path)
    with EnrolledGrid(edgetrain_app, devices) as grid:
        grid.names = {devices[0].node_id: devices[0].name, devices[1].node_id: "another"}
        register = Register(grid, grid.clock)
        register.update()
    members = register.members
    assert members[devices[0].name].key == KEY.public_point.hex()
    assert members[devices[2].name].key is None
    assert devices[1].name not in members
    assert "was enrolled as 'another'" in caplog.text
