"""A federation as a service: real processes, and kills at the worst moments."""

from __future__ import annotations

import stat
import tomllib
from contextlib import ExitStack

import pytest
from device_daemon import daemon
from federation import Federation, assert_as_simulated, reached
from small_fleet import write_fleet


@pytest.mark.slow
def test_a_federation_survives_every_kill_and_ends_where_a_simulation_ends(
    federation: Federation,
) -> None:
    folder = federation.folder
    fleet, devices = write_fleet(folder)
    federation.up()
    with ExitStack() as stack:
        for device in devices:
            stack.enter_context(daemon(federation, device))
        federation.call("start", "fleet.toml")
        federation.wait_for("the first round", reached(1))
        federation.kill("flwr-serverapp")
        federation.wait_for("a round without its first ServerApp", reached(2))
        federation.kill("flower-superlink")
        federation.wait_for("a round on a new SuperLink", reached(3))
        federation.kill_all()
        federation.up()
        status = federation.wait_for("the end", lambda found: found["run"]["status"] == "completed")
        listed = federation.call("devices")["devices"]
    assert status["run"]["version"] == fleet.training.rounds
    assert status["run"]["attempts"] > 1

    assert_as_simulated(federation, fleet)
    assert [one["name"] for one in listed] == [one.name for one in devices]
    for one in listed:
        assert one["status"] == "online"
        assert one["tasks"] == fleet.training.rounds
        # Rounds that were begun twice have cost the device twice, and its ledger says so.
        assert one["ledger"]["tasks"] >= fleet.training.rounds


@pytest.mark.slow
def test_through_the_device_port_there_is_the_fleet_api_and_nothing_else(
    federation: Federation,
) -> None:
    federation.up()
    for path in (
        "/v1/control/list-runs",
        "/v1/control/start-run",
        "/v1/runtime/acquire-task",
        "/v1/fleet/../control/list-runs",
        "/v1/fleet/%2e%2e/control/list-runs",
        "/v1/fleet/..%2fcontrol%2flist-runs",
        "/v1/fleet//v1/control/list-runs",
        "/v1/fleet/",
        "/v1/fleet",
        "//v1/control/list-runs",
        "/health",
        "/docs",
        "/openapi.json",
        "/",
    ):
        for method in ("POST", "GET", "PUT"):
            assert federation.ask(method, path) in (404, 405), (method, path)
    assert federation.ask("GET", "/v1/fleet/pull-messages") == 405
    assert federation.ask("POST", "/v1/fleet/pull-messages", {"content-length": "9" * 11}) == 413
    assert federation.ask("POST", "/v1/fleet/pull-messages", {"content-length": "1e3"}) == 400
    content = {"content-type": "application/protobuf"}
    assert federation.ask("POST", "/v1/fleet/pull-messages", content) == 401


@pytest.mark.slow
def test_a_device_that_is_revoked_is_refused_and_may_be_enrolled_anew(
    federation: Federation,
) -> None:
    federation.up()
    first = federation.call("enroll", "pi-0", "--output", "first.toml")
    assert stat.S_IMODE((federation.folder / "first.toml").stat().st_mode) == 0o600
    told = tomllib.loads((federation.folder / "first.toml").read_text())
    assert federation.activate(told) == 200
    assert federation.call("revoke", "pi-0")["revoked"] == 1
    assert federation.call("devices")["devices"] == []
    assert federation.activate(told) != 200
    second = federation.call("enroll", "pi-0", "--output", "second.toml")
    assert second["node_id"] != first["node_id"]
    assert federation.activate(told) != 200
    again = tomllib.loads((federation.folder / "second.toml").read_text())
    assert federation.activate(again) == 200
    assert federation.call("backup", "backup.tar.gz")["bytes"] > 0
