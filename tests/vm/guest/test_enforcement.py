"""The hard belt: a worker over its budget is killed in its own cgroup, and nothing else is."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from unit import run_unit

PROGRAM = Path(__file__).with_name("supervise.py")
LIMIT = 48 << 20


def supervise(asked: int) -> dict[str, Any]:
    """Return what a daemon of no privileges says of a worker that touches so many bytes."""
    done = run_unit(
        sys.executable, str(PROGRAM), str(LIMIT), str(asked), Delegate="yes", DynamicUser="yes"
    )
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    assert told["user"] > 0
    return told


def events_of(told: dict[str, Any]) -> dict[str, int]:
    """Return the counters of memory.events by their names."""
    lines = (line.split() for line in told["events"].splitlines())
    return {name: int(count) for name, count in lines}


def test_a_worker_over_its_budget_is_killed_and_the_daemon_is_not() -> None:
    told = supervise(2 * LIMIT)
    assert told["status"] == -9
    assert int(told["peak"]) <= LIMIT
    # Linux 6.1 counts a process twice that is both the victim and one of the group.
    assert events_of(told)["oom_kill"] >= 1
    assert events_of(told)["oom_group_kill"] == 1


def test_a_worker_within_its_budget_finishes() -> None:
    told = supervise(LIMIT // 2)
    assert told["status"] == 0
    assert LIMIT // 2 < int(told["peak"]) <= LIMIT
    assert events_of(told)["oom_kill"] == 0


def test_the_limit_is_hard_and_nothing_stalls_before_it() -> None:
    told = supervise(LIMIT // 2)
    assert {name: told[name] for name in ("max", "high", "swap.max", "oom.group")} == {
        "max": str(LIMIT),
        "high": "max",
        "swap.max": "0",
        "oom.group": "1",
    }
