"""Calibrations on the disk: what was written is read, and what is wrong is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgetrain.errors import DataError, PayloadError, StorageError
from edgetrain.memory_profiler.energy.fit_file import (
    LARGEST_FILE,
    Runs,
    load_fit,
    load_runs,
    save_fit,
    save_runs,
)
from edgetrain.memory_profiler.energy.fitting import Run
from edgetrain.memory_profiler.energy.law import EnergyFit, EnergyLaw, Usage

FIT = EnergyFit(
    EnergyLaw(2.0, 2e-11, 1e-9),
    ((4e-4, -1e-14, 0.0), (-1e-14, 1e-22, 0.0), (0.0, 0.0, 1e-20)),
    0.03,
    24,
    8.5,
    "rapl",
    "package",
)
RUNS = (Run("idle", Usage(2.0, 0.0, 0.0), 4.0), Run("copy", Usage(2.0, 0.0, 1e9), None))


def changed(path: Path, key: str, value: Any) -> None:
    """Rewrite one field of a file."""
    fields = json.loads(path.read_text())
    *folders, last = key.split(".")
    place = fields
    for folder in folders:
        place = place[folder]
    place[last] = value
    path.write_text(json.dumps(fields))


def test_a_fit_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "energy.json"
    save_fit(path, FIT)
    assert load_fit(path) == FIT
    assert not FIT.simulated


def test_runs_come_back_and_unknown_joules_are_null(tmp_path: Path) -> None:
    path = tmp_path / "runs.json"
    save_runs(path, RUNS, "rapl", "package")
    assert load_runs(path) == Runs(RUNS, "rapl", "package")
    assert [run["joules"] for run in json.loads(path.read_text())["runs"]] == [4.0, None]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("energy_fit", 2),
        ("energy_fit", "1"),
        ("law", None),
        ("law", {}),
        ("law.static_watts", -1),
        ("law.static_watts", 1e9),
        ("law.joules_per_operation", "2e-11"),
        ("law.joules_per_byte", True),
        ("law.more", 1.0),
        ("law", {"static_watts": 0, "joules_per_operation": 0, "joules_per_byte": 0}),
        ("covariance", [[1.0]]),
        ("covariance", "wide"),
        ("covariance", [[1.0, 0.0, 0.0], [0.5, 1.0, 0.0], [0.0, 0.0, 1.0]]),
        ("covariance", [[-1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]),
        ("covariance", [[1.0, 2.0, 0.0], [2.0, 1.0, 0.0], [0.0, 0.0, 1.0]]),
        ("relative_error", -0.1),
        ("relative_error", None),
        ("runs", 3),
        ("runs", 24.0),
        ("condition", 31.0),
        ("condition", 0.5),
        ("meter", ""),
        ("scope", "a\nb"),
        ("extra", 1),
    ],
)
def test_a_fit_that_is_wrong_is_refused(key: str, value: Any, tmp_path: Path) -> None:
    path = tmp_path / "energy.json"
    save_fit(path, FIT)
    changed(path, key, value)
    with pytest.raises(PayloadError, match=str(path)):
        load_fit(path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("energy_runs", 0),
        ("runs", []),
        ("runs", {}),
        ("runs", [3]),
        ("runs", [{"workload": "idle"}]),
        ("runs", [RUNS[0].to_fields() | {"seconds": 0}]),
        ("runs", [RUNS[0].to_fields() | {"joules": 0}]),
        ("runs", [RUNS[0].to_fields() | {"joules": "4"}]),
        ("runs", [RUNS[0].to_fields() | {"operations": -1}]),
        ("runs", [RUNS[0].to_fields() | {"bytes_moved": 1e300}]),
        ("meter", 5),
    ],
)
def test_runs_that_are_wrong_are_refused(key: str, value: Any, tmp_path: Path) -> None:
    path = tmp_path / "runs.json"
    save_runs(path, RUNS, "rapl", "package")
    changed(path, key, value)
    with pytest.raises(PayloadError, match=str(path)):
        load_runs(path)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"energy_fit": NaN}',
        b'{"energy_fit": 1, "energy_fit": 1}',
        b"[" * 100_000,
        b" " * (LARGEST_FILE + 1),
    ],
)
def test_bytes_that_are_no_calibration_are_refused(raw: bytes, tmp_path: Path) -> None:
    path = tmp_path / "energy.json"
    path.write_bytes(raw)
    for load in (load_fit, load_runs):
        with pytest.raises(PayloadError, match=str(path)):
            load(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.json"):
        load_fit(tmp_path / "none.json")


def test_a_fit_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot write"):
        save_fit(tmp_path / "no" / "energy.json", FIT)
