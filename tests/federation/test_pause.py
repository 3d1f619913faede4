"""A pause of a real run, over a kill of everything."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
from federation import Federation, assert_as_simulated, supernode
from small_fleet import write_fleet

LOOKS = 20
"""Of the status, each a command that starts anew: together they take longer than a round does."""


@pytest.mark.slow
def test_a_pause_outlives_a_kill_of_everything_and_nobody_trains_meanwhile(
    federation: Federation,
) -> None:
    fleet, devices = write_fleet(federation.folder, 2)
    federation.up()
    for device in devices:
        federation.call("enroll", device.name, "--supernode")
    federation.call("start", "fleet.toml")
    assert federation.call("pause")["paused"]
    with ExitStack() as stack:
        for device in devices:
            stack.enter_context(supernode(federation, device))
        federation.wait_for("a ServerApp", lambda found: found["run"]["status"] == "running")
        federation.kill_all()
        federation.up()
        status = federation.wait_for(
            "another ServerApp",
            lambda found: found["run"]["status"] == "running" and found["run"]["attempts"] > 1,
        )
        assert status["run"]["paused"]
        assert {federation.call("status")["run"]["version"] for _ in range(LOOKS)} == {0}
        assert not federation.call("resume")["paused"]
        federation.wait_for("the end", lambda found: found["run"]["status"] == "completed")
    assert_as_simulated(federation, fleet)
