"""Energy estimates of a device that carries a calibration: by its law, and honest about it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from edgetrain.client.node_settings import NodeSettings
from edgetrain.command import run_command
from edgetrain.errors import BudgetError, DataError
from edgetrain.memory_profiler.budget import Budget
from edgetrain.memory_profiler.choose import choose
from edgetrain.memory_profiler.cli import app
from edgetrain.memory_profiler.device import Device
from edgetrain.memory_profiler.energy.fit_file import save_fit
from edgetrain.memory_profiler.energy.law import SIMULATED, EnergyFit, EnergyLaw, Usage
from edgetrain.memory_profiler.estimate import estimate, work_of
from edgetrain.models import mlp
from edgetrain.planner import plan

FIT = EnergyFit(
    EnergyLaw(2.0, 2e-11, 1e-9),
    ((4e-4, 0.0, 0.0), (0.0, 1e-24, 0.0), (0.0, 0.0, 1e-20)),
    0.03,
    30,
    2.0,
    "rapl",
    "package",
)
CALIBRATED = Device(examples_per_second=100.0, base_bytes=10 * 2**20, fit=FIT)
PLAN = plan(mlp(33, 3, (65, 64)), 16, micro_batch=8)
NET = ("--inputs", "33", "--classes", "3", "--hidden", "65,64", "--batch", "16", "--base", "8MiB")


def test_work_is_the_plans_arithmetic() -> None:
    work = work_of(PLAN, 24)
    assert work.operations == 3 * PLAN.arithmetic.operations
    assert work.bytes_moved == 3 * PLAN.arithmetic.bytes_moved


def test_energy_follows_the_fit_at_the_shortest_and_the_longest_time() -> None:
    expected = estimate(PLAN, CALIBRATED, examples=1600)
    assert expected.seconds is not None
    assert expected.energy is not None
    work = work_of(PLAN, 1600)
    assert expected.energy.low == FIT.predict(Usage(expected.seconds.low, *work)).low
    assert expected.energy.high == FIT.predict(Usage(expected.seconds.high, *work)).high
    nominal = FIT.law.joules(Usage(16.0, *work))
    assert nominal in expected.energy
    assert expected.energy.high < 2 * nominal


def test_a_fit_is_preferred_to_a_power() -> None:
    with_both = estimate(PLAN, replace(CALIBRATED, watts=1000.0), examples=1600)
    assert with_both.energy == estimate(PLAN, CALIBRATED, examples=1600).energy


def test_what_is_calibrated_says_so_and_what_is_modelled_too() -> None:
    expected = estimate(PLAN, CALIBRATED)
    assert (expected.source, expected.energy_source) == ("modelled", "calibrated")
    explained = expected.explain().splitlines()
    assert explained[-2].endswith("(modelled)")
    assert explained[-1].endswith("(calibrated)")
    powered = estimate(PLAN, replace(CALIBRATED, fit=None, watts=2.0))
    assert powered.energy_source == "modelled"


def test_a_simulated_calibration_is_no_calibration_of_this_machine() -> None:
    simulated = replace(CALIBRATED, fit=replace(FIT, scope=SIMULATED))
    assert estimate(PLAN, simulated).energy_source == "modelled"


def test_without_a_speed_energy_is_unknown() -> None:
    assert estimate(PLAN, replace(CALIBRATED, examples_per_second=None)).energy is None


@pytest.mark.parametrize(
    ("device", "known"),
    [(CALIBRATED, True), (Device(watts=2.0), True), (Device(), False)],
)
def test_a_device_says_whether_it_knows_its_power(device: Device, known: bool) -> None:
    assert device.knows_power is known


def run(*arguments: str) -> int | str | None:
    with pytest.raises(SystemExit) as caught:
        run_command(app, arguments)
    return caught.value.code


def test_the_command_reads_a_calibration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "energy.json"
    save_fit(path, FIT)
    arguments = ("estimate", *NET, "--examples-per-second", "100", "--calibration", str(path))
    assert run(*arguments, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["energy_source"] == "calibrated"
    assert found["source"] == "modelled"
    assert found["energy"]["low"] < found["energy"]["high"]
    assert run(*arguments) == 0
    assert "(calibrated)" in capsys.readouterr().out


def test_a_calibration_that_is_not_there_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = tmp_path / "none.json"
    assert run("estimate", *NET, "--calibration", str(missing)) == DataError.exit_code
    assert str(missing) in capsys.readouterr().err


def test_a_device_is_told_of_its_calibration(tmp_path: Path) -> None:
    path = tmp_path / "energy.json"
    save_fit(path, FIT)
    assert NodeSettings.of({"device": "pi"}).machine.fit is None
    assert NodeSettings.of({"device": "pi", "calibration": str(path)}).machine.fit == FIT


def test_a_calibration_is_what_choose_counts_joules_by(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = mlp(33, 3, (65, 64))
    choice = choose(model, Budget(energy=1e3), CALIBRATED, batch=16, examples=1600)
    expected = estimate(choice.plan, CALIBRATED, examples=1600).energy
    assert expected is not None
    assert (choice.cost, choice.cost_unit) == (expected.middle, "joules")
    with pytest.raises(BudgetError, match="energy may reach"):
        choose(model, Budget(energy=1), CALIBRATED, batch=16, examples=1600)
    save_fit(tmp_path / "fit.json", FIT)
    told = ("choose", *NET, "--examples-per-second", "100", "--energy", "1kJ", "--json")
    with pytest.raises(SystemExit) as caught:
        run_command(app, [*told, "--calibration", str(tmp_path / "fit.json")])
    assert caught.value.code == 0
    assert json.loads(capsys.readouterr().out)["cost"]["unit"] == "joules"
