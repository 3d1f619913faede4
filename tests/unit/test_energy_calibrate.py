"""`edgetrain-profile calibrate`: the whole path, with a fake meter or a simulated power chip.

The workloads run for real, through the native engine; only their joules do not.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgetrain.command import run_command
from edgetrain.errors import ConfigError, DataError
from edgetrain.memory_profiler.calibrate import Instruments, Schedule, Tally, run_suite
from edgetrain.memory_profiler.cli import app
from edgetrain.memory_profiler.energy.fake import FAKE_LAW, FAKE_NOISE, FakeMeter
from edgetrain.memory_profiler.energy.fit_file import load_fit, load_runs
from edgetrain.memory_profiler.energy.fitting import MOST_CONDITION
from edgetrain.memory_profiler.energy.law import Work
from edgetrain.memory_profiler.energy.meter import Meter
from edgetrain.memory_profiler.energy.pmic import PmicMeter
from edgetrain.memory_profiler.energy.reading import Reading
from edgetrain.memory_profiler.energy.site import Site
from edgetrain.memory_profiler.workloads import SUITE, Step

SHORT = ("--seconds", "0.05", "--repeats", "2")
RUNS = 2 * len(SUITE)
# Ten runs of 3 % noise: a coefficient that bears a tenth of the energy is known to about 20 %.
NEAR = 0.3


def run(*arguments: str) -> int | str | None:
    with pytest.raises(SystemExit) as caught:
        run_command(app, ("calibrate", *arguments))
    return caught.value.code


def chip(root: Path) -> None:
    """Give a tree a power chip whose rails always draw 3 W."""
    path = root / "usr/bin/vcgencmd"
    path.parent.mkdir(parents=True)
    path.write_text("#!/bin/sh\necho 'A_A current(0)=1.0A'; echo 'A_V volt(8)=3.0V'\n")
    path.chmod(0o755)


# The suite.


class Clock:
    """A clock that workloads of a test move."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def stub(clock: Clock, work: Work, seconds: float = 0.5) -> Callable[[int], Step]:
    """Return a workload that takes half a second of that clock."""

    def make(threads: int) -> Step:
        def step() -> Work:
            clock.now += seconds
            return Work(work.operations * threads, work.bytes_moved)

        return step

    return make


class Told:
    """A meter that says what it is told to."""

    name, scope, source = "told", "system", "sampled"

    def __init__(self, reading: Reading) -> None:
        self.reading = reading

    def obstacle(self) -> str:
        return ""

    def start(self) -> None: ...

    def read(self) -> Reading:
        return self.reading


def test_workloads_take_turns_and_are_counted() -> None:
    clock, tally, begun = Clock(), Tally(), list[str]()
    suite = {"a": stub(clock, Work(10, 2)), "b": stub(clock, Work(0, 7))}
    schedule = Schedule(2.0, 3, threads=4, suite=suite)
    meter = FakeMeter(Site(clock=clock, work=tally), noise=0.0)
    runs = list(run_suite(schedule, Instruments(meter, tally, clock), begun.append))
    assert begun == [one.workload for one in runs] == ["a", "b"] * 3
    assert schedule.runs == len(runs) == 6
    assert runs[0].usage == (2.0, 160.0, 8.0)
    assert runs[1].usage == (2.0, 0.0, 28.0)
    for one in runs:
        assert one.joules == pytest.approx(FAKE_LAW.joules(one.usage))


def test_without_a_meter_joules_are_unknown() -> None:
    clock = Clock()
    schedule = Schedule(1.0, 1, suite={"a": stub(clock, Work(1, 1))})
    runs = list(run_suite(schedule, Instruments(None, Tally(), clock)))
    assert [one.joules for one in runs] == [None]


@pytest.mark.parametrize(
    ("reading", "reason"),
    [
        (Reading.unknown("system", "/sys/x"), "/sys/x told no joules"),
        (Reading(5.0, 4.0, 9.0, "sampled", "system", 0.6, "/sys/x", 3), "60% of the time"),
        (Reading(5.0, 1.0, 9.0, "battery", "system", 1.0, "/sys/x", 3), "too coarse"),
    ],
)
def test_joules_that_do_not_stand_for_the_run_are_refused(reading: Reading, reason: str) -> None:
    clock = Clock()
    schedule = Schedule(1.0, 1, suite={"a": stub(clock, Work(1, 1))})
    meter: Meter = Told(reading)  # type: ignore[assignment]
    with pytest.raises(DataError, match=f"{reason}.*--seconds"):
        list(run_suite(schedule, Instruments(meter, Tally(), clock)))


@pytest.mark.parametrize("workload", SUITE)
def test_every_workload_does_what_it_counts(workload: str) -> None:
    work = SUITE[workload](1)()
    assert (work.operations > 0) == (workload not in ("idle", "copy"))
    assert (work.bytes_moved > 0) == (workload != "idle")


def test_the_suite_spans_operations_a_byte() -> None:
    found = {name: make(1)() for name, make in SUITE.items() if name not in ("idle", "copy")}
    intensity = {name: work.operations / work.bytes_moved for name, work in found.items()}
    assert intensity["product"] > 5 * intensity["thin product"]
    assert intensity["product"] > 5 * intensity["depthwise"]


# The command.


def test_a_simulated_device_is_calibrated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "energy.json"
    assert run("--meter", "fake", *SHORT, "--out", str(out), "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["simulated"] is True
    assert found["condition"] < MOST_CONDITION
    assert len(found["measured"]) == found["runs"] == RUNS
    assert found["relative_error"] < 3 * FAKE_NOISE
    fit = load_fit(out)
    assert fit.simulated
    assert fit.law.static_watts == pytest.approx(FAKE_LAW.static_watts, rel=NEAR)
    assert fit.law.joules_per_byte == pytest.approx(FAKE_LAW.joules_per_byte, rel=NEAR)


def test_the_table_says_that_it_was_simulated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--meter", "fake", *SHORT, "--out", str(tmp_path / "energy.json")) == 0
    shown = capsys.readouterr().out
    assert "says nothing about this machine" in shown
    assert all(name.split()[0] in shown for name in SUITE)


def test_the_first_meter_that_measures_is_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # A busy machine may not look for a while; that is not what is tested here.
    monkeypatch.setattr(PmicMeter, "longest_gap", 60.0)
    chip(tmp_path)
    out = tmp_path / "energy.json"
    assert run("--root", str(tmp_path), *SHORT, "--out", str(out), "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["meter"], found["scope"], found["simulated"]) == ("pmic", "board", False)
    # Always 3 W, whatever is done: operations and bytes cost nothing.
    assert found["law"]["static_watts"] == pytest.approx(1.1451 * 3 + 0.5879, rel=0.1)


def test_without_a_meter_it_says_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "energy.json"
    assert run("--root", str(tmp_path), "--out", str(out)) == ConfigError.exit_code
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    for expected in ("rapl", "hwmon", "pmic", "battery", "--meter none", "--readings"):
        assert expected in shown
    assert not out.exists()


def test_joules_may_be_written_in_by_hand(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs, out = tmp_path / "runs.json", tmp_path / "energy.json"
    assert run("--meter", "none", *SHORT, "--save-runs", str(runs), "--json") == 0
    assert json.loads(capsys.readouterr().out)["fit"] is None
    assert run("--readings", str(runs), "--out", str(out)) == DataError.exit_code
    assert "have no joules" in capsys.readouterr().err
    told: dict[str, Any] = json.loads(runs.read_text())
    assert {one["joules"] for one in told["runs"]} == {None}
    for one, loaded in zip(told["runs"], load_runs(runs).runs, strict=True):
        one["joules"] = FAKE_LAW.joules(loaded.usage)
    told["meter"], told["scope"] = "UM25C", "plug"
    runs.write_text(json.dumps(told))
    assert run("--readings", str(runs), "--out", str(out), "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["meter"], found["scope"], found["simulated"]) == ("UM25C", "plug", False)
    assert tuple(found["law"].values()) == pytest.approx(FAKE_LAW.coefficients, rel=1e-6)


def test_readings_that_tell_nothing_apart_leave_the_old_fit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs, out = tmp_path / "runs.json", tmp_path / "energy.json"
    out.write_text("the old one")
    one = {"workload": "product", "seconds": 2, "operations": 1e10, "bytes_moved": 1e8}
    fields = {"energy_runs": 1, "meter": "rapl", "scope": "package"}
    fields["runs"] = [one | {"joules": 4.0 + number / 10} for number in range(12)]
    runs.write_text(json.dumps(fields))
    assert run("--readings", str(runs), "--out", str(out)) == DataError.exit_code
    assert "condition number" in capsys.readouterr().err
    assert out.read_text() == "the old one"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--meter", "wattmeter"), "rapl, hwmon"),
        (("--meter", "calibrated"), "rapl, hwmon"),
        (("--meter", "none"), "--save-runs"),
    ],
)
def test_a_mistake_is_one_line_that_helps(
    arguments: tuple[str, ...], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == ConfigError.exit_code
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert named in shown
