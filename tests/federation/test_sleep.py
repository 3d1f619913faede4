"""A device that sleeps while it trains: the others go on, and it takes part again when it wakes."""

from __future__ import annotations

import os
import threading

import pytest
from device_daemon import daemon
from federation import Federation, kept_checkpoint, reached
from small_fleet import write_fleet

ROUNDS = 8
DEADLINE = 16.0
"""Seconds of a round, after which it goes on without whoever sleeps."""
HEARTBEAT_SECONDS = 15.0
"""Who is silent for twice as long is taken for offline, after the first deadline that passes."""
GLANCE_SECONDS = 0.01


@pytest.mark.slow
@pytest.mark.skipif("FAULT_ROUNDS" not in os.environ, reason="long: make fault-test")
def test_a_device_that_sleeps_is_waited_for_until_the_deadline_and_taken_back_when_it_wakes(
    federation: Federation,
) -> None:
    training = f"deadline = {DEADLINE}\nstaleness = 0"
    fleet, (other, sleeper) = write_fleet(federation.folder, ROUNDS, training=training)
    federation.up()

    def sleeper_is(status: str) -> bool:
        listed = federation.call("devices")["devices"]
        return (sleeper.name, status) in {(one["name"], one["status"]) for one in listed}

    with daemon(federation, other), daemon(federation, sleeper, HEARTBEAT_SECONDS) as device:
        federation.call("start", "fleet.toml")
        federation.wait_for("the first round", reached(1))
        while not device.workers():
            threading.Event().wait(GLANCE_SECONDS)
        device.sleep()
        federation.wait_for("it to be missed", lambda _: sleeper_is("offline"))
        federation.call("pause")  # so that there are rounds left when it wakes
        device.wake()
        federation.wait_for("it to be back", lambda _: sleeper_is("online"))
        federation.call("resume")
        federation.wait_for("the end", lambda found: found["run"]["status"] == "completed")
    history = kept_checkpoint(federation, fleet).history
    reported = [record.reported for record in history.rounds]
    missed = reported.count(1)
    # It took part in the first round, perhaps in one or two more, and in all after it woke.
    assert 1 <= missed <= ROUNDS - 2
    before = reported.index(1)
    assert reported == [2] * before + [1] * missed + [2] * (ROUNDS - before - missed)
    for record in history.rounds[before : before + missed]:
        assert sum(record.losses.values()) == 1
        assert set(record.losses) <= {"late", "absent"}
    assert history.devices[other.name].answered == ROUNDS
    assert history.devices[sleeper.name].answered == ROUNDS - missed
    # What it had begun before it slept nobody waits for: it is told so, and counts nowhere.
    assert "train: dropped" in (federation.folder / f"{sleeper.name}.log").read_text()
