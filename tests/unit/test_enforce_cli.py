"""`edgetrain-profile run` and the joules it counts: real commands held to real budgets."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from edgetrain.errors import (
    BudgetError,
    ConfigError,
    EnforceError,
    OverBudgetError,
    WorkerError,
)
from edgetrain.memory_profiler.energy.reading import Reading
from edgetrain.memory_profiler.enforce.joules import METER_SECONDS, joules_at, metered
from edgetrain.memory_profiler.enforce_cli import run_command

MIB = 1 << 20
HOLD = [sys.executable, "-I", "-S", "-c", "held = b'x' * (90 << 20); input()"]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edgetrain.memory_profiler.cli", "run", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")


def told(*arguments: str) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads(run("--json", *arguments).stdout)
    return fields


def test_the_exit_code_and_the_output_are_the_commands_own() -> None:
    ended = run("--memory", "64MiB", "--", "sh", "-c", "echo --json; exit 3")
    assert (ended.returncode, ended.stdout) == (3, "--json\n")
    for word in ("exit code 3", "rss_peak", "cgroup_peak", "64.0 MiB", "belts"):
        assert word in ended.stderr


def test_a_signal_is_told_as_shells_tell_it() -> None:
    ended = run("sh", "-c", "kill -9 $$")
    assert ended.returncode == 128 + 9
    assert "SIGKILL" in ended.stderr


def test_json_stands_on_stdout_alone() -> None:
    ended = run("--json", "--memory", "64MiB", "--seconds", "1min", "--", "echo", "--said")
    fields = json.loads(ended.stdout)
    assert ended.stderr == "--said\n"
    assert fields["command"] == ["echo", "--said"]
    assert fields["limits"]["memory"] == 64 * MIB
    assert (fields["code"], fields["cause"], fields["joules"]) == (0, "finished", None)
    assert fields["enforcement"] == ("soft" if fields["no_group"] else "hard")
    assert {"watchdog", "seconds"} <= set(fields["belts"])


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [
        (["--memory", "60MiB", "--belts", "watchdog", "--", *HOLD], "memory_soft"),
        (["--seconds", "0.2", "--", "sleep", "60"], "seconds"),
        (["--energy", "1J", "--watts", "10", "--", "sleep", "60"], "energy"),
    ],
)
def test_who_passes_the_budget_is_stopped(arguments: list[str], cause: str) -> None:
    ended = run("--json", *arguments)
    assert ended.returncode == OverBudgetError.exit_code
    assert json.loads(ended.stdout)["cause"] == cause
    assert ended.stderr.startswith("error: stopped: ")
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize("belts", [[], ["--belts", "watchdog"]], ids=["all", "one"])
def test_a_command_is_without_a_network_where_that_is_asked(belts: list[str]) -> None:
    makes_a_socket = ("--", sys.executable, "-c", "import socket; socket.socket()")
    refused = told("--no-network", *belts, *makes_a_socket)
    if refused["no_filter"]:
        pytest.skip(f"no filter here: {refused['no_filter']}")
    assert (refused["code"], refused["network"], refused["belts"]) == (1, "none", ["network"])
    made = told(*belts, *makes_a_socket)
    assert (made["code"], made["network"], made["belts"]) == (0, "open", [])


def test_energy_is_modelled_where_a_power_is_given() -> None:
    fields = told("--watts", "10", "--", "true")
    assert fields["joules"] == pytest.approx(10 * fields["seconds"], rel=1)
    assert fields["joules_source"] == "modelled"


def test_private_memory_has_a_limit_of_its_own() -> None:
    ended = run("--data", "40MiB", "--", *HOLD)
    assert ended.returncode == 1
    assert "MemoryError" in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        (["--memory", "900TiB", "true"], ConfigError, "not a size"),
        (["--memory", "900000GiB", "true"], BudgetError, "not now"),
        (["--belts", "braces", "true"], ConfigError, "choose of group"),
        (["--belts", "energy", "--energy", "1J", "true"], EnforceError, "--watts"),
        (["--battery", "30", "true"], ConfigError, "0 to 1"),
        (["/nonexistent"], WorkerError, "No such file"),
    ],
)
def test_what_cannot_be_is_one_line(
    arguments: list[str], kind: type[Exception], message: str
) -> None:
    ended = run(*arguments)
    if kind is EnforceError and ended.returncode == 0:
        pytest.skip("this machine has a meter")
    assert ended.returncode == getattr(kind, "exit_code", None)
    assert message in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_every_exit_code_of_ours_is_documented() -> None:
    for kind in (OverBudgetError, BudgetError, WorkerError, EnforceError):
        assert f"{kind.exit_code}" in (run_command.__doc__ or ""), kind


# Joules.


class FixedMeter:
    """Tells readings one after the other."""

    def __init__(self, *readings: Reading) -> None:
        self.readings = list(readings)

    def read(self) -> Reading:
        return self.readings.pop(0)


def a_reading(value: float, high: float) -> Reading:
    return Reading(value, 0.0, high, "sampled", "board", 1.0, "x", 2)


def test_the_most_that_may_have_been_used_counts_and_a_meter_is_not_worn_out() -> None:
    now = [0.0]
    meter = FixedMeter(Reading.unknown("board", "x"), a_reading(3.0, 4.0))
    joules = metered(meter, lambda: now[0])
    assert (joules(), joules()) == (None, None)
    now[0] = METER_SECONDS
    assert (joules(), joules()) == (4.0, 4.0)
    assert meter.readings == []


def test_a_known_power_makes_joules_of_time() -> None:
    now = [5.0]
    joules = joules_at(2.5, lambda: now[0])
    now[0] = 9.0
    assert joules() == 10.0
