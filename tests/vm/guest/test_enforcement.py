"""`edgetrain-profile run` under systemd and cgroup v2: the hard belt, and where there is none."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from unit import run_unit

from edgetrain.errors import BudgetError, OverBudgetError
from edgetrain.memory_profiler.enforce.limits import BELTS

HOST_TESTS = "/opt/host/test_enforce_supervise.py"
GROW = Path(__file__).with_name("grow.py")
LIMIT = 48 << 20
OVER, WITHIN = 2 * LIMIT, LIMIT // 2


def hold(
    held: int, belts: str = ",".join(BELTS), **properties: str
) -> subprocess.CompletedProcess[str]:
    """Let a unit without privileges hold a command that takes so many bytes to the limit."""
    profile = ("edgetrain-profile", "run", "--json", "--memory", str(LIMIT), "--belts", belts)
    command = (*profile, "--", sys.executable, str(GROW), str(held))
    return run_unit(*command, DynamicUser="yes", **properties)


def test_who_passes_the_limit_is_killed_there_and_whoever_supervises_is_not() -> None:
    done = hold(OVER, belts="group", Delegate="yes")
    assert done.returncode == OverBudgetError.exit_code
    told = json.loads(done.stdout)
    assert (told["cause"], told["code"]) == ("memory_hard", -9)
    assert (told["enforcement"], told["belts"]) == ("hard", ["group"])
    assert told["cgroup_peak"] <= LIMIT


def test_who_keeps_the_limit_finishes() -> None:
    done = hold(WITHIN, Delegate="yes")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["cause"], told["enforcement"]) == ("finished", "hard")
    assert WITHIN < told["cgroup_peak"] <= LIMIT
    # With --json the command's own words go to stderr.
    assert json.loads(done.stderr.splitlines()[0]) == {
        "memory.max": str(LIMIT),
        # Where there is no swap, a process over it would stall instead of end.
        "memory.high": "max",
        "memory.swap.max": "0",
        "memory.oom.group": "1",
    }


def test_all_belts_together_let_nothing_past_the_limit() -> None:
    done = hold(OVER, Delegate="yes")
    assert done.returncode == OverBudgetError.exit_code
    told = json.loads(done.stdout)
    assert told["cause"] == "memory_hard"
    assert set(told["belts"]) == {"group", "watchdog"}
    assert told["cgroup_peak"] <= LIMIT


def test_without_a_group_of_its_own_it_says_that_the_belts_are_soft() -> None:
    done = hold(WITHIN)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["enforcement"] == "soft"
    assert "not ours to write" in told["no_group"]


def test_nothing_begins_where_the_unit_has_less_memory_left() -> None:
    done = hold(WITHIN, Delegate="yes", MemoryMax=str(LIMIT))
    assert done.returncode == BudgetError.exit_code
    assert done.stderr.startswith("error: not now: ")


def test_what_the_host_tests_of_groups_is_so_with_version_2_as_well() -> None:
    pytest_here = (sys.executable, "-m", "pytest", "-c", "/dev/null", "-p", "no:cacheprovider")
    done = run_unit(
        *pytest_here, "-m", "usefixtures", HOST_TESTS, Delegate="yes", DynamicUser="yes"
    )
    assert done.returncode == 0, done.stdout
    assert "skipped" not in done.stdout
