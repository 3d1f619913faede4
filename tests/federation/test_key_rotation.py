"""A device's key is changed as docs/operating.md has it, while a run of a real fleet goes on."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace

import pytest
from device_daemon import DeviceDaemon, daemon
from federation import Federation, reached
from small_fleet import write_fleet

from edgetrain.client.state import StateFolder
from edgetrain.coordinator.dashboard.words import as_toml

ROUNDS = 1000
"""More than the test waits for: it stops the run."""


def tasks(federation: Federation) -> dict[str, int]:
    """Return how many tasks every device has done."""
    found = federation.call("devices")["devices"]
    return {one["name"]: one.get("tasks", 0) for one in found}


@pytest.mark.slow
def test_a_device_works_on_under_a_new_key_and_its_old_one_is_worth_nothing(
    federation: Federation,
) -> None:
    fleet, devices = write_fleet(federation.folder, ROUNDS)
    # What devices bring is all there is: a real fleet has no [data].
    (federation.folder / "fleet.toml").write_text(as_toml(replace(fleet, data=None).to_table()))
    federation.up()
    with ExitStack() as stack:
        left, right = (stack.enter_context(daemon(federation, one)) for one in devices)
        federation.call("start", "fleet.toml")
        run = federation.wait_for("a round", reached(1))["run"]
        assert run["accuracy"] is None, "no device has judged the model"
        assert run["training_loss"] is not None
        rotate(federation, left)
        done = tasks(federation)
        assert set(done) == {left.name, right.name}

        def both_work(_: object) -> bool:
            return all(now > done[name] for name, now in tasks(federation).items())

        federation.wait_for("work by both", both_work)


def rotate(federation: Federation, device: DeviceDaemon) -> None:
    """Change a device's key; fail where the old one is still good for anything."""
    old = StateFolder(device.state).key.read_bytes()
    federation.call("revoke", device.name)
    federation.wait_for(
        "a refusal", lambda _: str(device.call("status")["detail"]).endswith("the new file")
    )
    device.stop()
    device.enrol(federation)
    assert StateFolder(device.state).key.read_bytes() != old
    device.start()
