"""Rounds end: when they have enough, when nobody is left to wait for, and at their deadline."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message
from stand_in_fleet import fleet, run

from edgetrain.config import TrainingConfig
from edgetrain.coordinator.aggregate import staleness_weight
from edgetrain.coordinator.checkpoint import CheckpointFolder
from edgetrain.coordinator.global_model import FRACTION_BITS, GlobalModel
from edgetrain.coordinator.loop import Event, TaskAnswered
from edgetrain.coordinator.rounds import Rule, rule_of
from edgetrain.task import Task

SLOW = {"examples_per_second": 1.0}
"""Thirty seconds a task for pi-2, where others take a tenth or two."""
STEP = 1 << FRACTION_BITS


def rise(model: GlobalModel) -> set[int]:
    """Return by how much the latents rose that had room to, in units of 2**-16 of a step."""
    first = GlobalModel.fresh(model.model, "bnn", 0)
    found: set[int] = set()
    for name, before in first.weights.items():
        free = before < (100 << FRACTION_BITS)
        found |= set(np.unique(model.weights[name][free] - before[free]).tolist())
    return found


@pytest.mark.parametrize(
    ("settings", "trainers", "rule"),
    [
        ({}, 14, Rule(14, 14, continuous=False)),
        ({"fraction": 0.5}, 14, Rule(7, 7, continuous=False)),
        ({"fraction": 0.5, "over_selection": 0.3}, 14, Rule(10, 7, continuous=False)),
        ({"fraction": 0.01}, 14, Rule(1, 1, continuous=False)),
        ({"aggregation": "buffered", "buffer": 4}, 14, Rule(14, 4, continuous=True)),
        (
            {"aggregation": "buffered", "buffer": 4, "fraction": 0.5},
            14,
            Rule(7, 4, continuous=True),
        ),
    ],
)
def test_the_settings_say_who_works_and_what_is_enough(
    settings: dict[str, Any], trainers: int, rule: Rule
) -> None:
    assert rule_of(TrainingConfig(**settings), trainers) == rule


def test_a_synchronous_round_ends_with_the_reports_it_wants_and_needs_no_more() -> None:
    loop, _ = run(fleet(fraction=0.4, over_selection=2.0, staleness=0), pi_2=SLOW)
    for record in loop.history.rounds:
        assert (record.asked, record.reported, record.losses) == (3, 1, {"unneeded": 2})
        assert record.seconds < 1
    assert loop.history.devices["pi-2"].status == "unneeded"
    assert loop.history.devices["pi-2"].reasons == {}


def test_what_comes_at_the_same_moment_as_the_last_one_needed_is_not_needed() -> None:
    same = {f"pi_{number}": {"examples_per_second": 10.0 * (number + 1)} for number in range(3)}
    loop, _ = run(fleet(fraction=0.4, over_selection=2.0, staleness=0), **same)
    assert [record.reported for record in loop.history.rounds] == [1] * 3
    assert [record.losses for record in loop.history.rounds] == [{"unneeded": 2}] * 3
    for record in loop.history.rounds:
        assert record.refusals == {}


def test_a_late_report_is_folded_for_less_and_its_device_left_in_peace_until_then() -> None:
    judging = {"examples_per_second": 1.4}  # 40 examples at three times that: ten seconds
    loop, model = run(fleet(rounds=4, deadline=12.0, staleness=3), pi_2=SLOW, judge_0=judging)
    asked = [record.asked for record in loop.history.rounds]
    folded = [(record.reported, record.stale) for record in loop.history.rounds]
    assert asked == [3, 2, 2, 3]
    assert folded == [(2, 0), (2, 0), (3, 1), (2, 0)]
    assert loop.history.devices["pi-2"].answered == 1
    # 10 and 20 examples rise a step, and 30 that are two versions old rise less.
    third = STEP * 30 / 60 + STEP * staleness_weight(2) / 1024 * 30 / 60
    (found,) = rise(model)
    assert found == 3 * STEP + round(third)


def test_a_report_that_comes_later_than_allowed_is_given_up() -> None:
    loop, _ = run(fleet(rounds=4, deadline=2.0, staleness=1), pi_2=SLOW)
    assert [record.losses.get("late", 0) for record in loop.history.rounds] == [0, 1, 0, 1]
    assert [record.reported for record in loop.history.rounds] == [2] * 4


def test_a_round_that_finds_everybody_busy_begins_with_whoever_ends_first() -> None:
    slow = {f"pi_{number}": {"examples_per_second": 1.0} for number in range(3)}
    loop, _ = run(fleet(rounds=3, deadline=8.0, staleness=5), **slow)
    assert sum(record.reported for record in loop.history.rounds) >= 2
    assert loop.history.rounds[1].stale >= 1


BUFFERED = {"aggregation": "buffered", "buffer": 2, "staleness": 50}


def test_every_two_reports_make_a_version_and_nobody_waits_for_the_slowest() -> None:
    loop, model = run(fleet(rounds=30, **BUFFERED), pi_2=SLOW)
    assert model.version == 30
    assert {record.reported for record in loop.history.rounds} == {2}
    assert loop.history.seconds < 30
    assert loop.history.devices["pi-2"].answered == 0


def test_the_slowest_device_counts_in_the_end() -> None:
    settings = {**BUFFERED, "staleness": 1000, "evaluate_every": 50}
    loop, _ = run(fleet(rounds=200, **settings), pi_2=SLOW)
    assert loop.history.devices["pi-2"].answered >= 1
    assert sum(record.stale for record in loop.history.rounds) >= 1


def test_a_device_trains_each_version_once() -> None:
    asked: Counter[tuple[str, int]] = Counter()

    def note(event: Event) -> None:
        if isinstance(event, TaskAnswered) and event.answer.status == "trained":
            assert event.answer.task is not None
            asked[event.answer.member.name, event.answer.task.version] += 1

    run(fleet(rounds=20, **BUFFERED), notify=note)
    assert set(asked.values()) == {1}


def test_buffered_rounds_do_not_depend_on_the_machine() -> None:
    one, model = run(fleet(rounds=12, **BUFFERED), workers=1)
    other, same = run(fleet(rounds=12, **BUFFERED), workers=4)
    assert one.history == other.history
    assert model.to_tensors() == same.to_tensors()


def test_a_buffer_larger_than_the_fleet_does_not_hang() -> None:
    loop, _ = run(fleet(rounds=3, aggregation="buffered", buffer=10))
    assert [record.reported for record in loop.history.rounds] == [3, 3, 3]


def test_only_a_share_of_the_fleet_is_at_work_at_a_time() -> None:
    loop, _ = run(fleet(rounds=6, aggregation="buffered", buffer=3, fraction=0.4))
    assert [record.asked for record in loop.history.rounds] == [3] * 6
    assert max(record.seconds for record in loop.history.rounds) > 0.1 + 0.2 + 0.3


def test_a_buffered_version_is_made_at_its_deadline_from_what_there_is() -> None:
    settings = {**BUFFERED, "buffer": 3}
    loop, _ = run(fleet(rounds=3, deadline=5.0, **settings), pi_2=SLOW)
    assert [record.reported for record in loop.history.rounds] == [2, 2, 2]
    assert all(5.0 <= record.seconds < 6.0 for record in loop.history.rounds)


def failing(_: Message, task: Task) -> Message:
    raise RuntimeError(task.device)


def test_devices_that_fail_and_devices_that_are_away_do_not_stop_buffered_rounds() -> None:
    loop, model = run(fleet(rounds=5, **BUFFERED), {"pi-0": failing}, pi_1={"availability": 0.0})
    assert model.version == 5
    assert [record.reported for record in loop.history.rounds] == [1] * 5
    assert loop.history.rounds[0].losses == {"absent": 1, "failed": 1}


def test_a_fleet_that_sleeps_does_not_use_up_its_rounds_in_a_moment() -> None:
    away = {f"pi_{number}": {"availability": 0.0} for number in range(3)}
    loop, _ = run(fleet(rounds=3), **away)
    assert all(record.seconds >= 60 for record in loop.history.rounds)


def test_in_buffered_rounds_nobody_who_trains_waits_while_others_judge() -> None:
    slow_judge = {"judge_0": {"examples_per_second": 1.0}}
    loop, _ = run(fleet(rounds=2), **slow_judge)
    other, _ = run(fleet(rounds=2, aggregation="buffered", buffer=3), **slow_judge)
    judging = other.history.rounds[1].seconds
    assert loop.history.rounds[1].seconds == pytest.approx(judging + 0.3, abs=0.05)


def test_a_run_may_change_how_it_gathers(tmp_path: Path) -> None:
    run(fleet(rounds=2), checkpoints=CheckpointFolder(tmp_path))
    loop, model = run(fleet(rounds=4, **BUFFERED), checkpoints=CheckpointFolder(tmp_path))
    assert model.version == 4
    assert [record.reported for record in loop.history.rounds] == [3, 3, 2, 2]
