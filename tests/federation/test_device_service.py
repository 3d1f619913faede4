"""The device's daemon in a real federation, beside a stock SuperNode."""

from __future__ import annotations

import pytest
from device_daemon import daemon
from federation import Federation, assert_as_simulated, kept_checkpoint, supernode
from small_fleet import write_fleet


@pytest.mark.slow
def test_a_daemon_and_a_stock_supernode_end_where_a_simulation_ends(
    federation: Federation,
) -> None:
    fleet, (ours, stock) = write_fleet(federation.folder)
    federation.up()
    federation.call("enroll", stock.name, "--supernode")
    with supernode(federation, stock), daemon(federation, ours) as one:
        federation.call("start", "fleet.toml")
        federation.wait_for("the end", lambda found: found["run"]["status"] == "completed")
        assert one.call("status")["doing"] == "idle"
        listed = federation.call("devices")["devices"]
    assert_as_simulated(federation, fleet)
    for record in kept_checkpoint(federation, fleet).history.rounds:
        assert (record.reported, dict(record.losses)) == (2, {})
    assert {one["name"]: one["tasks"] for one in listed} == {
        ours.name: fleet.training.rounds,
        stock.name: fleet.training.rounds,
    }
