"""Every refusal happens, is counted by its name and shown, and the round goes on without it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message, RecordDict
from stand_in_fleet import Behaviour, client, devices, fleet, run, stepped, train

from edgetrain import SimulationReport, tensorfile
from edgetrain.coordinator.admission import REFUSALS, Standing, admitted
from edgetrain.coordinator.aggregate import MAXIMUM_EXAMPLES
from edgetrain.coordinator.answer import Answer, Member
from edgetrain.coordinator.dashboard.page import render
from edgetrain.coordinator.history import DeviceRecord
from edgetrain.coordinator.loop import Loop, RoundBegun
from edgetrain.coordinator.simulation.virtual_grid import VirtualGrid
from edgetrain.digest import LedgerDigest
from edgetrain.task import Report, Task
from edgetrain.tensorfile import Tensor

DOCUMENT = Path(__file__).parents[2] / "docs" / "rounds.md"


def payload(message: Message) -> bytes:
    """Return the bytes that a reply carries."""
    return bytes(message.content["payload"]["payload"].data)


def carrying(message: Message, raw: bytes) -> Message:
    """Reply with these bytes."""
    array = Array("uint8", (len(raw),), "edgetrain.tensorfile", raw)
    return Message(RecordDict({"payload": ArrayRecord({"payload": array})}), reply_to=message)


def with_update(message: Message, task: Task, **changes: Tensor) -> Message:
    """Answer with an update of which some tensors are others."""
    metadata = tensorfile.decode(payload(train(message, task, 5)))[1]
    return carrying(message, tensorfile.encode(stepped(task) | changes, metadata))


def floats(task: Task, name: str, value: float) -> Tensor:
    """Return a statistic of the task's model that holds one value only."""
    values = np.full(task.state[name].shape, value, "<f4")
    return Tensor("F32", values.shape, values.tobytes())


def from_elsewhere(message: Message, task: Task) -> Message:
    reply = train(message, task, 5)
    reply.metadata.__dict__["_src_node_id"] = 999
    return reply


def oversized(message: Message, task: Task) -> Message:
    return with_update(message, task, more=Tensor("U8", (1 << 24,), bytes(1 << 24)))


def torn(message: Message, task: Task) -> Message:
    return carrying(message, payload(train(message, task, 5))[:-1])


def empty(message: Message, _: Task) -> Message:
    return Message(RecordDict(), reply_to=message)


def without_work(message: Message, task: Task) -> Message:
    tensors, metadata = tensorfile.decode(payload(train(message, task, 5)))
    fields = json.loads(metadata["fields"]) | {"examples": 0}
    return carrying(message, tensorfile.encode(tensors, {**metadata, "fields": json.dumps(fields)}))


def not_a_number(message: Message, task: Task) -> Message:
    tensors, metadata = tensorfile.decode(payload(train(message, task, 5)))
    fields = metadata["fields"].replace('"loss":1.0', '"loss":NaN')
    assert fields != metadata["fields"]
    return carrying(message, tensorfile.encode(tensors, {**metadata, "fields": fields}))


def judging(message: Message, task: Task) -> Message:
    report = Report("evaluated", task.version, task.device, examples=5, loss=1.0, accuracy=0.5)
    return carrying(message, report.encode())


def impostor(message: Message, task: Task) -> Message:
    return train(message, replace(task, device="pi-0"), 5)


def prophetic(message: Message, task: Task) -> Message:
    return train(message, replace(task, version=task.version + 1), 5)


def misshapen(message: Message, task: Task) -> Message:
    return with_update(message, task, **{"layer0.mean": Tensor("F32", (1,), bytes(4))})


def mistyped(message: Message, task: Task) -> Message:
    raw = bytes(len(task.state["layer0.mean"].data))
    return with_update(message, task, **{"layer0.mean": Tensor("U8", (len(raw),), raw)})


def adding(message: Message, task: Task) -> Message:
    return with_update(message, task, more=Tensor("U8", (1,), b"1"))


def lacking(message: Message, task: Task) -> Message:
    metadata = tensorfile.decode(payload(train(message, task, 5)))[1]
    update = stepped(task)
    del update["layer1.shift"]
    return carrying(message, tensorfile.encode(update, metadata))


def not_finite(message: Message, task: Task) -> Message:
    return with_update(message, task, **{"layer0.mean": floats(task, "layer0.mean", np.nan)})


def endless(message: Message, task: Task) -> Message:
    return with_update(message, task, **{"layer0.shift": floats(task, "layer0.shift", np.inf)})


def huge(message: Message, task: Task) -> Message:
    return with_update(message, task, **{"layer0.mean": floats(task, "layer0.mean", 1e30)})


def negative(message: Message, task: Task) -> Message:
    name = "layer0.deviation"
    return with_update(message, task, **{name: floats(task, name, -1)})


def without_opposite(message: Message, task: Task) -> Message:
    shape = task.state["layer0.latent"].shape
    raw = b"\x80" * len(task.state["layer0.latent"].data)
    return with_update(message, task, **{"layer0.latent": Tensor("I8", shape, raw)})


ON_ARRIVAL: list[tuple[Behaviour, str]] = [
    (from_elsewhere, "unknown"),
    (oversized, "oversize"),
    (torn, "malformed"),
    (empty, "malformed"),
    (without_work, "malformed"),
    (not_a_number, "malformed"),
    (judging, "malformed"),
    (impostor, "device"),
    (prophetic, "version"),
    (misshapen, "shape"),
    (mistyped, "shape"),
    (adding, "shape"),
    (lacking, "shape"),
    (not_finite, "number"),
    (endless, "number"),
    (huge, "number"),
    (negative, "number"),
    (without_opposite, "number"),
]


@pytest.mark.parametrize(("behaviour", "refusal"), ON_ARRIVAL)
def test_a_report_that_breaks_a_rule_is_refused_and_the_round_goes_on(
    behaviour: Behaviour, refusal: str, caplog: pytest.LogCaptureFixture
) -> None:
    loop, model = run(fleet(rounds=2), {"pi-1": behaviour})
    assert model.version == 2
    for record in loop.history.rounds:
        assert (record.reported, record.losses) == (2, {"refused": 1})
        assert record.refusals == {refusal: 1}
    device = loop.history.devices["pi-1"]
    assert (device.status, device.answered, device.examples) == ("refused", 0, 0)
    assert sum(device.reasons.values()) == 2
    for reason in device.reasons:
        assert reason.startswith(f"refused, {refusal}: ")
        assert reason in caplog.text
        assert "\n" not in reason


def test_what_is_refused_changes_nothing() -> None:
    """The others' mean is what it would be if the device had not answered at all."""
    _, model = run(fleet(rounds=2), {"pi-1": not_finite})
    _, without = run(fleet(rounds=2), pi_1={"availability": 0.0})
    assert model.to_tensors() == without.to_tensors()


def test_a_report_that_is_sent_again_does_not_count_again() -> None:
    first: list[bytes] = []

    def replaying(message: Message, task: Task) -> Message:
        if not first:
            first.append(payload(train(message, task, 5)))
        return carrying(message, first[0])

    loop, _ = run(fleet(), {"pi-1": replaying})
    assert [record.reported for record in loop.history.rounds] == [3, 2, 2]
    outdated = {"version": 1}
    assert [record.refusals for record in loop.history.rounds] == [{}, outdated, outdated]
    assert loop.history.devices["pi-1"].examples == 5


def answer(**changes: Any) -> Answer:
    """Return an answer of a device on node 1 that trained version 5."""
    fields = {"examples": 10, "loss": 1.0, "accuracy": 0.5, "update": {"a": Tensor("U8", (), b"1")}}
    report = Report("trained", 5, "pi", **{**fields, **changes})
    return Answer(Member(1, "pi", "pi", "train", 10, 4, 2, None), "trained", "", report)


UNSIGNED = LedgerDigest(
    *(1, "00" * 32, 1, None, 0, None, 0, "none", None, "02" + "00" * 48, "00" * 8)
)
GOOD = Standing(DeviceRecord("pi", counted=4), node_id=1, version=7, staleness=2, examples=0)
BEFORE_COUNTING: list[tuple[Answer, Standing, str]] = [
    (answer(), replace(GOOD, node_id=2), "unknown"),
    (answer(digest=UNSIGNED), GOOD, "digest"),
    (answer(), replace(GOOD, known=DeviceRecord("pi", counted=5)), "replayed"),
    (answer(), replace(GOOD, known=DeviceRecord("pi", counted=6)), "replayed"),
    (answer(), replace(GOOD, staleness=1), "stale"),
    (answer(), replace(GOOD, examples=MAXIMUM_EXAMPLES - 9), "weight"),
    (answer(examples=MAXIMUM_EXAMPLES + 1), GOOD, "weight"),
]


@pytest.mark.parametrize(("found", "standing", "refusal"), BEFORE_COUNTING)
def test_a_report_that_must_not_count_is_refused(
    found: Answer, standing: Standing, refusal: str
) -> None:
    judged = admitted(found, standing)
    assert (judged.status, judged.refusal) == ("refused", refusal)
    assert judged.reason.startswith(f"refused, {refusal}: ")


def test_a_report_that_breaks_no_rule_is_admitted_as_it_is() -> None:
    found = answer(examples=9)
    assert admitted(found, replace(GOOD, examples=MAXIMUM_EXAMPLES - 9)) == found
    absent = replace(found, status="absent", report=None)
    assert admitted(absent, replace(GOOD, node_id=2)) == absent


def test_every_refusal_is_tested_here() -> None:
    tested = {name for _, name in ON_ARRIVAL} | {name for _, _, name in BEFORE_COUNTING}
    assert tested == set(REFUSALS)


def test_the_document_lists_every_refusal_in_its_order_and_words() -> None:
    _, section = DOCUMENT.read_text().split("## Reports that are refused")
    rows = re.findall(r"^\| `([a-z]+)` \| (.+) \|$", section, re.MULTILINE)
    assert rows == list(REFUSALS.items())


def test_a_device_that_came_again_is_another_node_and_its_old_one_is_refused() -> None:
    """The old node's report arrives after the same name was enrolled on another node."""
    config = fleet(rounds=1)
    members = devices(config, pi_2={"examples_per_second": 1.0})
    ordinary = client(members)
    with VirtualGrid(ordinary, members) as grid:

        def enrol_anew(event: Any) -> None:
            if isinstance(event, RoundBegun):
                old = loop.register.members["pi-2"]
                loop.register.members["pi-2"] = replace(old, node_id=old.node_id + 50)

        loop = Loop(grid, config, clock=grid.clock, notify=enrol_anew)
        loop.run()
    assert loop.history.rounds[0].refusals == {"unknown": 1}
    assert loop.history.devices["pi-2"].answered == 0


def test_refusals_are_shown_in_the_reports_page_and_json() -> None:
    loop, _ = run(fleet(rounds=2), {"pi-1": not_finite, "pi-0": torn})
    report = SimulationReport(
        fleet().to_table(), loop.history.rounds, tuple(loop.history.devices.values()),
        parameters=1, update_bytes=1, seconds=1.0, virtual_seconds=1.0,
    )  # fmt: skip
    assert report.refusals == {"malformed": 2, "number": 2}
    assert json.loads(report.to_json())["refusals"] == report.refusals
    page = render(report)
    for name in REFUSALS:
        assert (REFUSALS[name] in page) == (name in report.refusals)
