"""A calibration on the disk: its runs and its fit, as JSON that is hostile until checked."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgetrain.errors import PayloadError
from edgetrain.fields import Rule, check_fields, real, text, whole
from edgetrain.memory_profiler.energy.fitting import FEWEST_RUNS, MOST_CONDITION, Run
from edgetrain.memory_profiler.energy.law import EnergyFit, EnergyLaw, Usage
from edgetrain.storage import map_file, replace_file
from edgetrain.tensorfile import parse_json

__all__ = ["Runs", "load_fit", "load_runs", "save_fit", "save_runs"]

VERSION = 1
LARGEST_FILE = 1 << 20
MOST_RUNS = 10_000
MOST_WATTS, MOST_RATE = 1e5, 1.0
"""Beyond any device: watts that it draws, and joules of one operation or byte."""
SLACK = 1e-9
"""Share by which rounding may break what a covariance matrix keeps."""


@dataclass(frozen=True)
class Runs:
    """Runs with the meter that was read, and the part of the machine that it measures."""

    runs: tuple[Run, ...]
    meter: str
    scope: str


def rows_of(name: str, value: Any) -> tuple[tuple[float, ...], ...]:
    """Return a covariance, 3 x 3; a rule like those of edgetrain.fields."""
    check = real(-(MOST_WATTS**2), MOST_WATTS**2)
    square = isinstance(value, list) and len(value) == 3
    if not square or not all(isinstance(row, list) and len(row) == 3 for row in value):
        raise PayloadError(f"{name} must be three rows of three numbers")
    rows = tuple(tuple(check(name, item) for item in row) for row in value)
    for i in range(3):
        for j in range(3):
            bound = rows[i][i] * rows[j][j] * (1 + SLACK)
            if rows[i][i] < 0 or rows[i][j] != rows[j][i] or rows[i][j] ** 2 > bound:
                raise PayloadError(f"{name} is no covariance: it is symmetric, its diagonal leads")
    return rows


LAW_RULES: Mapping[str, Rule] = {
    "static_watts": real(0, MOST_WATTS),
    "joules_per_operation": real(0, MOST_RATE),
    "joules_per_byte": real(0, MOST_RATE),
}
FIT_RULES: Mapping[str, Rule] = {
    "energy_fit": whole(VERSION, VERSION),
    "law": lambda name, value: EnergyLaw(**check_fields(value, LAW_RULES, name)),
    "covariance": rows_of,
    "relative_error": real(0, 1e3),
    "runs": whole(FEWEST_RUNS, MOST_RUNS),
    "condition": real(1 - SLACK, MOST_CONDITION),
    "meter": text(64),
    "scope": text(64),
}


def run_of(name: str, value: Any) -> Run:
    """Return a run; a rule like those of edgetrain.fields."""
    told = check_fields(value, Run.RULES, name)
    usage = Usage(told["seconds"], told["operations"], told["bytes_moved"])
    return Run(told["workload"], usage, told["joules"])


def runs_of(name: str, value: Any) -> tuple[Run, ...]:
    """Return a list of runs; a rule like those of edgetrain.fields."""
    if not isinstance(value, list) or not 1 <= len(value) <= MOST_RUNS:
        raise PayloadError(f"{name} must be a list of 1 to {MOST_RUNS} runs")
    return tuple(run_of(f"{name} {number}", run) for number, run in enumerate(value, start=1))


RUNS_RULES: Mapping[str, Rule] = {
    "energy_runs": whole(VERSION, VERSION),
    "meter": text(64),
    "scope": text(64),
    "runs": runs_of,
}


def save_fit(path: Path, fit: EnergyFit) -> None:
    """Write a fit, whole or not at all. Raises StorageError."""
    write(path, {"energy_fit": VERSION, **asdict(fit)})


def load_fit(path: Path) -> EnergyFit:
    """Return the fit in a file. Raises DataError if it cannot be read, PayloadError if wrong."""
    told = read(path, FIT_RULES)
    del told["energy_fit"]
    fit = EnergyFit(**told)
    if not any(fit.law.coefficients):
        raise PayloadError(f"{path}: a law by which nothing costs energy is none")
    return fit


def save_runs(path: Path, runs: Sequence[Run], meter: str, scope: str) -> None:
    """Write runs, whole or not at all. Raises StorageError."""
    listed = [run.to_fields() for run in runs]
    write(path, {"energy_runs": VERSION, "meter": meter, "scope": scope, "runs": listed})


def load_runs(path: Path) -> Runs:
    """Return the runs in a file. Raises DataError if it cannot be read, PayloadError if wrong."""
    told = read(path, RUNS_RULES)
    return Runs(told["runs"], told["meter"], told["scope"])


def write(path: Path, fields: Mapping[str, Any]) -> None:
    """Replace a file by fields as JSON that people can edit."""
    replace_file(path, [f"{json.dumps(fields, indent=1)}\n".encode("ascii")])


def read(path: Path, rules: Mapping[str, Rule]) -> dict[str, Any]:
    """Return the fields in a file by their rules; every error names the file."""
    raw = map_file(path)
    try:
        if len(raw) > LARGEST_FILE:
            raise PayloadError(f"it has {len(raw):,} bytes, more than {LARGEST_FILE:,}")
        return check_fields(parse_json(bytes(raw).decode("utf-8")), rules, "it")
    except (PayloadError, UnicodeDecodeError) as error:
        raise PayloadError(f"{path} is no calibration of this version: {error}") from error
