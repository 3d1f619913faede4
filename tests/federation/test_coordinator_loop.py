"""The loop over a grid of modelled devices whose training is a stand-in: every way it can go."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Error, Message, RecordDict
from stand_in_fleet import FEATURES, Behaviour, client, devices, fleet, run

from edgetrain.client.flower_record import report_to_record
from edgetrain.coordinator.checkpoint import CheckpointFolder
from edgetrain.coordinator.directions import Directions
from edgetrain.coordinator.global_model import FRACTION_BITS, GlobalModel
from edgetrain.coordinator.loop import Event, Loop, Paused, RoundBegun, RoundEnded, TaskAnswered
from edgetrain.coordinator.members import Register
from edgetrain.coordinator.simulation.virtual_grid import VirtualGrid
from edgetrain.errors import ConfigError, DataError, StorageError
from edgetrain.task import Report, Task


def test_every_round_moves_the_model_and_judges_it() -> None:
    loop, model = run(fleet())
    assert model.version == 3
    first = GlobalModel.fresh(model.model, "bnn", 0)
    for name, before in first.weights.items():
        expected = np.minimum(before + (3 << FRACTION_BITS), 127 << FRACTION_BITS)
        assert np.array_equal(model.weights[name], expected)
    for number, record in enumerate(loop.history.rounds, 1):
        assert (record.round, record.asked, record.reported) == (number, 3, 3)
        assert (record.examples, record.judged) == (60, 90)
        assert (record.accuracy, record.training_loss) == (0.5, 1.0)
        assert record.uplink_bytes > 0
        assert record.losses == {}
    record = loop.history.devices["pi-1"]
    assert (record.asked, record.answered, record.examples, record.held) == (3, 3, 60, 20)
    assert (record.joules, record.status, record.energy_source) == (6.0, "trained", "modelled")
    assert loop.history.devices["judge-0"].accuracy == 0.5


def test_events_tell_the_story_in_order() -> None:
    events: list[Event] = []
    run(fleet(rounds=1), notify=events.append)
    kinds = [type(event) for event in events]
    assert kinds == [RoundBegun, *[TaskAnswered] * 5, RoundEnded]


def test_a_round_takes_as_long_as_its_slowest_device() -> None:
    loop, _ = run(fleet(rounds=1))
    slowest = 30 / 100
    assert loop.history.rounds[0].seconds > slowest
    assert loop.history.rounds[0].seconds == pytest.approx(slowest, rel=0.5)


def raising(_: Message, task: Task) -> Message:
    raise RuntimeError(f"{task.device} fell\nover")


def declining(message: Message, task: Task) -> Message:
    report = Report("declined", task.version, task.device, reason="nothing fits")
    return Message(report_to_record(report), reply_to=message)


def erring(message: Message, _: Task) -> Message:
    return Message(Error(12, "the data file is damaged"), reply_to=message)


@pytest.mark.parametrize(
    ("behaviour", "status", "reason"),
    [
        (raising, "failed", "failed: RuntimeError: pi-1 fell over"),
        (declining, "declined", "declined: nothing fits"),
        (erring, "failed", "failed: the data file is damaged"),
    ],
)
def test_a_device_that_goes_wrong_is_left_out_and_named(
    behaviour: Behaviour, status: str, reason: str
) -> None:
    loop, model = run(fleet(), {"pi-1": behaviour})
    assert model.version == 3
    assert [record.reported for record in loop.history.rounds] == [2, 2, 2]
    assert [record.losses for record in loop.history.rounds] == [{status: 1}] * 3
    record = loop.history.devices["pi-1"]
    assert (record.status, record.answered, record.examples) == (status, 0, 0)
    assert sum(record.reasons.values()) == 3
    for said in record.reasons:
        assert reason in said
        assert "\n" not in said


def test_a_device_cannot_fill_the_records_with_reasons() -> None:
    def inventive(message: Message, task: Task) -> Message:
        report = Report("declined", task.version, task.device, reason=f"excuse {task.version}")
        return Message(report_to_record(report), reply_to=message)

    loop, _ = run(fleet(rounds=20), {"pi-1": inventive})
    reasons = loop.history.devices["pi-1"].reasons
    assert sum(reasons.values()) == 20
    assert len(reasons) < 10


def test_a_device_that_is_away_is_absent() -> None:
    loop, _ = run(fleet(), pi_2={"availability": 0.0})
    assert [record.losses for record in loop.history.rounds] == [{"absent": 1}] * 3
    record = loop.history.devices["pi-2"]
    assert (record.status, record.absences, record.downlink_bytes) == ("absent", 3, 0)


def test_a_slow_device_is_late_and_the_round_ends_at_its_deadline() -> None:
    loop, _ = run(fleet(deadline=2.0, staleness=0), pi_2={"examples_per_second": 1.0})
    for record in loop.history.rounds:
        assert record.losses == {"late": 1}
        assert (record.reported, record.examples) == (2, 30)
        assert record.seconds >= 2.0
        assert record.seconds < 2.5
    assert loop.history.devices["pi-2"].status == "late"


def test_a_message_that_outlives_its_time_does_not_hold_the_round_for_ever() -> None:
    loop, _ = run(fleet(rounds=1), pi_0={"examples_per_second": 1e-5})
    assert loop.history.rounds[0].losses == {"late": 1}


def test_nobody_answers_and_the_model_stays() -> None:
    odd = {f"pi-{number}": declining for number in range(3)}
    loop, model = run(fleet(rounds=2), odd)
    fresh = GlobalModel.fresh(model.model, "bnn", 0)
    assert model.state() == fresh.state()
    assert model.version == 2
    assert [record.examples for record in loop.history.rounds] == [0, 0]
    assert [record.training_loss for record in loop.history.rounds] == [None, None]


def test_a_fraction_is_asked_and_the_grid_has_no_say_in_it() -> None:
    one, model = run(fleet(fraction=0.4))
    other, same = run(fleet(fraction=0.4), workers=1)
    assert [record.asked for record in one.history.rounds] == [1, 1, 1]
    assert one.history.rounds == other.history.rounds
    assert model.state() == same.state()
    asked = {name: record.asked for name, record in one.history.devices.items()}
    assert sum(asked[f"pi-{number}"] for number in range(3)) == 3


def test_judging_can_be_rarer_and_always_happens_at_the_end() -> None:
    loop, _ = run(fleet(rounds=5, evaluate_every=2))
    judged = [record.accuracy is not None for record in loop.history.rounds]
    assert judged == [False, True, False, True, True]


class PowerCutError(Exception):
    """Ends a run in the middle."""


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_a_run_that_was_cut_off_goes_on_as_if_it_had_not_been(tmp_path: Path, cut: int) -> None:
    config = fleet(rounds=4)
    straight, model = run(config)

    def cut_off(event: Event) -> None:
        if isinstance(event, TaskAnswered) and event.round == cut + 1:
            raise PowerCutError

    with pytest.raises(PowerCutError):
        run(config, checkpoints=CheckpointFolder(tmp_path), notify=cut_off)
    rounds: list[int] = []
    resumed, again = run(
        config,
        checkpoints=CheckpointFolder(tmp_path),
        notify=lambda event: rounds.append(event.round) if isinstance(event, RoundBegun) else None,
    )
    assert rounds == list(range(cut + 1, 5))
    assert again.to_tensors() == model.to_tensors()
    assert resumed.history.devices == straight.history.devices
    # The round that was cut off went on from its journal, and whoever was at work began anew.
    for number, (one, other) in enumerate(
        zip(resumed.history.rounds, straight.history.rounds, strict=True), 1
    ):
        assert replace(one, seconds=0.0) == replace(other, seconds=0.0)
        assert (one.seconds > other.seconds) == (number == cut + 1)


def test_a_disk_that_is_full_ends_the_run_and_keeps_what_there_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = CheckpointFolder(tmp_path)
    saved = folder.save

    def save(checkpoint: Any) -> Path:
        if checkpoint.model.version == 2:
            raise StorageError("no space left")
        return saved(checkpoint)

    monkeypatch.setattr(folder, "save", save)
    with pytest.raises(StorageError):
        run(fleet(), checkpoints=folder)
    monkeypatch.undo()
    kept = folder.newest(fleet().to_table())
    assert kept is not None
    assert kept.model.version == 1


def test_devices_with_different_data_do_not_start() -> None:
    config = fleet()
    members = devices(config)
    ordinary = client(members)

    def app(message: Message, context: Context) -> Message:
        reply = ordinary(message, context)
        if context.node_config["device"] == "pi-2" and message.metadata.message_type == "query":
            reply.content["hello"]["features"] = FEATURES + 1
        return reply

    with (
        VirtualGrid(app, members) as grid,
        pytest.raises(DataError, match="pi-0 6 features and 3 classes, pi-2 7"),
    ):
        Loop(grid, config, clock=grid.clock).run()


def test_a_fleet_without_anyone_who_trains_says_so_after_a_while() -> None:
    config = fleet()
    judges = [member for member in devices(config) if member.role == "evaluate"]
    with (
        VirtualGrid(client(judges), judges) as grid,
        pytest.raises(ConfigError, match="no device that trains has come within 50 s"),
    ):
        Register(grid, grid.clock).gather(expected=5, patience=50)


def test_a_node_that_runs_something_else_is_not_a_member(
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = fleet(rounds=1)
    members = devices(config)
    ordinary = client(members)

    def app(message: Message, context: Context) -> Message:
        if context.node_config["device"] == "pi-2":
            return Message(RecordDict(), reply_to=message)
        return ordinary(message, context)

    with VirtualGrid(app, members) as grid:
        loop = Loop(grid, config, clock=grid.clock)
        loop.run()
    assert "pi-2" not in loop.history.devices
    assert loop.history.rounds[0].asked == 2
    assert "does this node run edgetrain" in caplog.text


class ForgetfulGrid(VirtualGrid):
    """A grid whose SuperLink takes no second training message."""

    def push_messages(self, messages: Iterable[Message]) -> list[Any]:
        found: list[Any] = list(super().push_messages(messages))
        if len(found) == 3:
            found[1] = None
        return found


def test_a_task_that_was_not_taken_is_a_failure() -> None:
    config = fleet(rounds=1)
    members = devices(config)
    with ForgetfulGrid(client(members), members) as grid:
        loop = Loop(grid, config, clock=grid.clock)
        loop.run()
    assert loop.history.rounds[0].losses == {"failed": 1}
    assert "did not take the task" in next(iter(loop.history.devices["pi-1"].reasons))


# --- what the operator directs


def test_nobody_is_asked_while_the_run_pauses_and_it_goes_on_where_it_was() -> None:
    events: list[Event] = []
    looks = iter([True] * 50)

    def directions() -> Directions:
        over = any(isinstance(event, RoundEnded) for event in events)
        return Directions(paused=over and next(looks, False))

    loop, model = run(fleet(), notify=events.append, directions=directions)
    assert next(looks, None) is None, "it must be asked until it is told to go on"
    paused_at = next(at for at, event in enumerate(events) if isinstance(event, Paused))
    before, after = events[paused_at - 1], events[paused_at + 1]
    assert isinstance(before, RoundEnded)
    assert isinstance(after, RoundBegun)
    assert (events[paused_at], after.round) == (Paused(before.record.round), 2)
    assert model.version == 3
    untouched, _ = run(fleet())
    paused, never = loop.history.rounds, untouched.history.rounds
    assert [record.reported for record in paused] == [record.reported for record in never]


@pytest.mark.parametrize("aggregation", ["synchronous", "buffered"])
def test_the_round_at_hand_is_the_last_before_a_pause(aggregation: str) -> None:
    events: list[Event] = []
    seen: list[int] = []

    def directions() -> Directions:
        if any(isinstance(event, RoundEnded) for event in events):
            seen.append(sum(not isinstance(event, Paused) for event in events))
        return Directions(paused=bool(events) and len(seen) < 9)

    run(fleet(aggregation=aggregation), notify=events.append, directions=directions)
    assert len(seen) > 9
    assert len(set(seen[:9])) == 1, "something happened during the pause"


@pytest.mark.parametrize(("raised_after", "rounds"), [(2, 3), (3, 2)])
def test_a_total_that_the_operator_changes_holds_from_the_next_round_on(
    raised_after: int, rounds: int
) -> None:
    events: list[Event] = []

    def directions() -> Directions:
        over = sum(isinstance(event, RoundEnded) for event in events)
        # A task takes 2 J: after two of them, 3 J are used up.
        return Directions(budgets={"pi": {"total_energy": 3.0 if over < raised_after else 1e6}})

    loop, _ = run(fleet(), notify=events.append, directions=directions)
    assert [record.reported for record in loop.history.rounds] == [3] * rounds
