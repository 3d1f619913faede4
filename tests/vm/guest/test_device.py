"""A device's daemon as a systemd service: it outlives its workers, and its ledger closes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from unit import run_unit

from edgetrain.memory_profiler.enforce.cgroup import SUPERVISOR

PROGRAM = Path(__file__).with_name("device.py")
STATE = Path("/var/lib")


def serve(name: str, *ways: str, **properties: str) -> dict[str, Any]:
    """Run the daemon as its unit would, and return what it told at its end."""
    folder = STATE / name
    unit = {"Delegate": "yes", "DynamicUser": "yes", "StateDirectory": name}
    done = run_unit(sys.executable, str(PROGRAM), str(folder), *ways, **unit, **properties)
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads((folder / "told.json").read_text())
    assert told["user"] > 0
    return told


def outcomes(name: str) -> list[dict[str, Any]]:
    """Return the outcomes in a ledger that `edgetrain-profile verify` finds whole and closed."""
    ledger = STATE / name / "ledger"
    checked = subprocess.run(
        ["edgetrain-profile", "verify", "--json", ledger],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stderr
    assert json.loads(checked.stdout)["running"] is False
    entries = [json.loads(line) for line in ledger.read_text().splitlines()]
    return [entry["outcome"] for entry in entries if "outcome" in entry]


def test_a_worker_over_its_budget_dies_in_its_own_group_and_the_daemon_goes_on() -> None:
    told = serve("overgrown", "overgrown", "well")
    assert [report["status"] for report in told["reports"]] == ["failed", "trained"]
    # Linux 6.1 counts a process twice that is both the victim and a member of a doomed group.
    assert told["unit"]["oom_kill"] > 0
    assert told["own"]["oom_kill"] == 0
    killed, trained = outcomes("overgrown")
    assert (killed["cause"], killed["enforcement"]) == ("memory_hard", "hard")
    assert (trained["cause"], trained["enforcement"]) == ("finished", "hard")


def test_a_daemon_that_is_killed_is_restarted_and_closes_what_it_had_begun() -> None:
    told = serve("murdered", "murder", "well", Restart="on-failure")
    assert [report["status"] for report in told["reports"]] == ["trained"]
    assert told["groups"] == [SUPERVISOR]
    interrupted, trained = outcomes("murdered")
    assert interrupted["status"] == "interrupted"
    assert (trained["cause"], trained["enforcement"]) == ("finished", "hard")
