"""Whole simulated fleets with real worker processes: what they learn, report and survive."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgetrain import FleetConfig, SimulationReport, simulate
from edgetrain.client.app import app
from edgetrain.coordinator.checkpoint import CheckpointFolder
from edgetrain.coordinator.history import DeviceRecord
from edgetrain.coordinator.loop import Event, Loop, RoundEnded
from edgetrain.coordinator.simulation.devices import build_devices
from edgetrain.coordinator.simulation.virtual_grid import VirtualGrid
from edgetrain.data import load
from edgetrain.errors import ConfigError, DataError, EdgetrainError

WATCH = Path(__file__).parents[2] / "examples" / "watch.toml"
CHANCE = 1 / 3
PREDICTION_ERROR = 0.05
"""Of a worker's measured peak; benchmarks/memory_prediction.py holds it over 144 plans."""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Return a folder of six people's examples of three classes that are easy to tell apart."""
    folder = tmp_path / "mine"
    folder.mkdir()
    draw = np.random.default_rng(8)
    labels = np.arange(360) % 3
    centres = draw.integers(-60, 60, (3, 24))
    samples = centres[labels] + draw.normal(0, 20, (360, 24))
    np.save(folder / "x.npy", samples.clip(-127, 127).astype(np.int8))
    np.save(folder / "y.npy", labels)
    np.save(folder / "group.npy", np.arange(360) // 60)
    return folder


def fleet(data: Path, devices: list[dict[str, Any]] | None = None, **training: Any) -> FleetConfig:
    """Return a fleet of four people who train and two who judge."""
    return FleetConfig.from_table(
        {
            "data": {"path": str(data), "test_groups": [2, 5]},
            "model": {"hidden": [32]},
            "training": {"rounds": 4, "batch": 16, **training},
            "device": devices or [{"name": "pi", "memory": "64MiB"}],
        }
    )


def final_model(folder: Path, config: FleetConfig) -> dict[str, Any]:
    """Return every bit of the newest model that a run has kept."""
    kept = CheckpointFolder(folder).newest(config.to_table())
    assert kept is not None
    return kept.model.to_tensors()


def modelled(device: DeviceRecord) -> DeviceRecord:
    """Return a device's record without what the kernel measured: all that is left is exact."""
    return replace(device, measured_peak_bytes=None)


@pytest.mark.parametrize(("mode", "codec"), [("bnn", "luq4"), ("bnn", "raw8"), ("fsb", "luq4")])
def test_a_fleet_learns_and_says_how(data: Path, mode: str, codec: str) -> None:
    config = fleet(data, codec=codec, rounds=8)
    report = simulate(replace(config, model=replace(config.model, mode=mode)))
    assert len(report.accuracy) == len(report.rounds) == 8
    assert report.final_accuracy is not None
    assert report.final_accuracy > 2 * CHANCE
    assert [device.role for device in report.devices] == ["train"] * 4 + ["evaluate"] * 2
    for device in report.devices:
        assert device.memory == 64 << 20
        assert device.examples == 8 * 60
        assert device.predicted_peak_bytes is not None
        assert device.measured_peak_bytes is not None
        assert device.measured_peak_bytes < device.memory
        error = device.measured_peak_bytes / device.predicted_peak_bytes - 1
        assert abs(error) < PREDICTION_ERROR
        assert device.joules is not None
    assert report.losses == []
    assert report.uplink_bytes > 8 * 4 * report.update_bytes / 2


def test_the_same_seed_gives_the_same_fleet(data: Path, tmp_path: Path) -> None:
    config = fleet(data, seed=3)
    one = simulate(config, checkpoints=tmp_path / "one", workers=1)
    other = simulate(config, checkpoints=tmp_path / "other", workers=3)
    assert final_model(tmp_path / "one", config) == final_model(tmp_path / "other", config)
    assert one.rounds == other.rounds
    assert [modelled(device) for device in one.devices] == [
        modelled(device) for device in other.devices
    ]
    assert one.rounds != simulate(fleet(data, seed=4)).rounds


class PowerCutError(Exception):
    """Ends a run in the middle."""


def test_a_run_that_was_cut_off_ends_at_the_same_model(data: Path, tmp_path: Path) -> None:
    config = fleet(data)

    def cut_off(event: Event) -> None:
        if isinstance(event, RoundEnded) and event.record.round == 2:
            raise PowerCutError

    straight = simulate(config, checkpoints=tmp_path / "straight")
    with pytest.raises(PowerCutError):
        simulate(config, checkpoints=tmp_path / "cut", notify=cut_off)
    resumed = simulate(config, checkpoints=tmp_path / "cut")
    assert final_model(tmp_path / "cut", config) == final_model(tmp_path / "straight", config)
    assert resumed.rounds == straight.rounds


def test_a_device_that_nothing_fits_declines_and_is_named(data: Path) -> None:
    devices = [
        {"name": "tiny", "memory": "2MiB", "count": 1},
        {"name": "pi", "memory": "64MiB", "count": 3},
    ]
    report = simulate(fleet(data, devices, rounds=2))
    tiny = next(device for device in report.devices if device.name == "tiny-0")
    assert (tiny.status, tiny.examples, tiny.measured_peak_bytes) == ("declined", 0, None)
    ((name, reason, times),) = [loss for loss in report.losses if loss[0] == "tiny-0"]
    assert (name, times) == ("tiny-0", 2)
    assert "2.0 MiB" in reason
    assert [record.reported for record in report.rounds] == [3, 3]
    assert report.classes()[0].plans == ()


def test_a_device_without_examples_declines(data: Path, tmp_path: Path) -> None:
    config = fleet(data, rounds=1)
    splits = load(config.dealt.path, test_groups=config.dealt.test_groups)
    devices = build_devices(config, splits, tmp_path)
    devices[1] = replace(devices[1], dataset=None, examples=0)
    with VirtualGrid(app, devices) as grid:
        loop = Loop(grid, config, clock=grid.clock)
        loop.run()
    record = loop.history.devices["pi-1"]
    assert (record.status, record.held) == ("declined", 0)
    assert list(record.reasons) == ["declined: no examples"]
    assert loop.history.rounds[0].reported == 3


def test_devices_come_and_go_by_their_availability(data: Path) -> None:
    devices = [{"name": "pi", "memory": "64MiB", "availability": 0.5}]
    report = simulate(fleet(data, devices, rounds=8))
    absent = sum(record.losses.get("absent", 0) for record in report.rounds)
    assert 0 < absent < 8 * 6
    assert all(device.status in ("trained", "evaluated", "absent") for device in report.devices)


def test_the_report_is_json_with_the_keys_that_others_rely_on(data: Path, tmp_path: Path) -> None:
    report = simulate(fleet(data, rounds=2))
    path = tmp_path / "report.json"
    found = json.loads(report.to_json(path))
    assert json.loads(path.read_text()) == found
    assert found["accuracy"] == report.accuracy
    for key in ("final_accuracy", "uplink_bytes", "downlink_bytes", "seconds"):
        assert isinstance(found[key], int | float)
    for device in found["devices"]:
        for key in ("name", "class", "predicted_peak_bytes", "measured_peak_bytes"):
            assert device[key]
        assert {"examples", "status"} <= device.keys()


def run_command(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run `edgetrain` as a user would."""
    return subprocess.run(
        [sys.executable, "-P", "-c", "from edgetrain.cli import main; main()", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def edited(name: str) -> Callable[[str], str]:
    """Return the change of a fleet's TOML that makes a mistake."""
    return {
        "unknown key": lambda text: text.replace("rounds", "ruonds"),
        "missing data": lambda text: text.replace("mine", "theirs"),
        "wrong count": lambda text: text + "count = 3\n",
        "not toml": lambda text: text + "]\n",
    }[name]


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        ("unknown key", "did you mean 'rounds'"),
        ("missing data", "theirs"),
        (
            "wrong count",
            "makes 4 devices that train and the counts of those [[device]] add up to 3",
        ),
        ("not toml", "is not TOML"),
    ],
)
def test_a_mistake_is_one_line_on_stderr(
    data: Path, tmp_path: Path, mistake: str, words: str
) -> None:
    text = (
        '[data]\npath = "mine"\ntest_groups = [2, 5]\n[training]\nrounds = 1\n'
        '[[device]]\nname = "pi"\nmemory = "64MiB"\n'
    )
    (tmp_path / "fleet.toml").write_text(edited(mistake)(text))
    done = run_command("simulate", "fleet.toml", "--report", "report.html", folder=tmp_path)
    assert done.returncode in range(10, 20)
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert words in line
    assert not (tmp_path / "report.html").exists()
    assert data.exists()


def test_the_command_prints_json_and_writes_the_page(data: Path, tmp_path: Path) -> None:
    (tmp_path / "fleet.toml").write_text(
        f'[data]\npath = "{data}"\n[model]\nhidden = [8]\n[training]\nrounds = 1\n'
        '[[device]]\nname = "pi"\nmemory = "64MiB"\n'
    )
    done = run_command(
        *("simulate", "fleet.toml", "--report", "report.html", "--json", "-"), folder=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["accuracy"]) == 1
    assert "<svg" in (tmp_path / "report.html").read_text()


def test_damaged_data_are_one_line(data: Path) -> None:
    (data / "y.npy").write_bytes(b"nothing of the kind")
    with pytest.raises(DataError, match=r"y\.npy") as caught:
        simulate(fleet(data))
    assert "\n" not in str(caught.value)


def test_nan_and_labels_out_of_range_are_refused(data: Path) -> None:
    x = np.load(data / "x.npy").astype(np.float32)
    x[3, 3] = np.nan
    np.save(data / "x.npy", x)
    with pytest.raises(EdgetrainError, match=r"x\.npy"):
        simulate(fleet(data))
    np.save(data / "x.npy", np.zeros((360, 24), np.int8))
    np.save(data / "y.npy", np.full(360, 300))
    with pytest.raises(EdgetrainError, match="300"):
        simulate(fleet(data))


def test_another_fleets_checkpoints_are_refused(data: Path, tmp_path: Path) -> None:
    simulate(fleet(data, rounds=1), checkpoints=tmp_path / "run")
    with pytest.raises(ConfigError, match=r"another \[training\] batch"):
        simulate(fleet(data, rounds=1, batch=8), checkpoints=tmp_path / "run")


@pytest.fixture(scope="module")
def watch() -> SimulationReport:
    """Return two rounds of the example."""
    config = FleetConfig.from_toml(WATCH)
    return simulate(replace(config, training=replace(config.training, rounds=2)))


def test_the_example_has_fourteen_devices_of_three_classes_and_six_judges(
    watch: SimulationReport,
) -> None:
    trainers = [device for device in watch.devices if device.role == "train"]
    assert len(trainers) == 14
    assert len(watch.devices) - len(trainers) == 6
    assert len({device.device_class for device in trainers}) == 3
    assert len({device.memory for device in trainers}) == 3


def test_the_example_learns_inside_its_budgets(watch: SimulationReport) -> None:
    assert watch.losses == []
    assert watch.final_accuracy is not None
    assert watch.final_accuracy > 2 / 7
    for device in watch.devices:
        assert device.measured_peak_bytes is not None
        assert device.memory is not None
        assert device.measured_peak_bytes <= device.memory
