"""Tasks keep account: real workers, real kills, and what the ledger says of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from small_task import small_task, write_noise

from edgetrain import models
from edgetrain.client.job import Workplace
from edgetrain.client.run import run_task
from edgetrain.errors import DataError, PayloadError, StorageError
from edgetrain.memory_profiler.budget import Budget
from edgetrain.memory_profiler.device import Device
from edgetrain.memory_profiler.ledger import read, verify
from edgetrain.memory_profiler.ledger_line import Intent, Outcome
from edgetrain.memory_profiler.signature import device_key
from edgetrain.memory_profiler.signature_check import is_signed
from edgetrain.task import Report, Task

FEATURES, CLASSES, EXAMPLES = 12, 3, 60
MODEL = models.mlp(inputs=FEATURES, classes=CLASSES, hidden=(8,))
ROOMY = Budget(memory=256 << 20)
PI = Device(name="pi", examples_per_second=1000, watts=2.5)
# Seconds in which a small process has started, even on a busy machine.
STARTED_WITHIN = 60.0


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_noise(tmp_path_factory.mktemp("data") / "device.etd", MODEL, EXAMPLES)


def a_task(**changes: Any) -> Task:
    return small_task(MODEL, **changes)


def pairs(path: Path) -> list[tuple[Intent, Outcome]]:
    """Return the tasks of a ledger that verifies."""
    assert verify(path).broken is None
    entries = [line.entry for line in read(path)]
    found = []
    for intent, outcome in zip(entries[::2], entries[1::2], strict=True):
        assert isinstance(intent, Intent)
        assert isinstance(outcome, Outcome)
        found.append((intent, outcome))
    return found


def test_a_task_is_accounted_for_as_its_report_says(data: Path, tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    reports = [
        run_task(a_task(kind=kind), data, ROOMY, PI, ledger=path) for kind in ("train", "evaluate")
    ]
    for report, (intent, outcome) in zip(reports, pairs(path), strict=True):
        assert report.plan == intent.plan
        assert report.predicted_peak_bytes == intent.predicted_peak_bytes
        assert intent.budget == ROOMY
        assert intent.joules_source == outcome.joules_source == "modelled"
        assert (report.status, report.measured_peak_bytes) == (
            outcome.status,
            outcome.measured_peak_bytes,
        )
        assert (report.examples, report.seconds, report.joules) == (
            outcome.examples,
            outcome.seconds,
            outcome.joules,
        )
    assert verify(path).totals.examples == 2 * EXAMPLES
    first, last = (report.digest for report in reports)
    assert first is not None
    assert last is not None
    assert is_signed(first)
    assert is_signed(last)
    assert (first.tasks, last.tasks) == (1, 2)
    assert last.head == verify(path).digest
    assert last.peak_bytes == max(report.measured_peak_bytes or 0 for report in reports)
    assert last.key == first.key == device_key(tmp_path / "ledger.key").public_point.hex()
    for report in reports:
        assert Report.decode(report.encode(), a_task(kind=kind_of(report))) == report


def kind_of(report: Report) -> str:
    return {"trained": "train", "evaluated": "evaluate"}[report.status]


def test_of_a_failed_task_the_energy_alone_is_known(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "ledger"
    command = [sys.executable, "-c", "raise SystemExit(3)"]
    monkeypatch.setattr("edgetrain.client.processes.worker_command", lambda *_: command)
    report = run_task(a_task(), data, ROOMY, PI, ledger=path)
    assert (report.status, report.energy_source) == ("failed", "modelled")
    assert report.joules is not None
    ((intent, outcome),) = pairs(path)
    assert intent.joules is not None
    assert (outcome.cause, outcome.joules_source) == ("finished", "modelled")
    assert (outcome.status, outcome.reason) == ("failed", report.reason)
    used = (outcome.measured_peak_bytes, outcome.examples, outcome.seconds, outcome.joules)
    assert used == (None, None, None, report.joules)


def test_a_task_that_declines_uses_nothing_and_is_not_written(data: Path, tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    for given, budget in ((None, ROOMY), (data, Budget(memory=1 << 20))):
        assert run_task(a_task(), given, budget, ledger=path).status == "declined"
    assert not path.exists()


def test_without_its_ledger_a_task_does_not_run(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    with pytest.raises(StorageError):
        run_task(
            a_task(),
            data,
            ROOMY,
            workplace=Workplace(folder),
            ledger=tmp_path / "absent" / "ledger",
        )
    (tmp_path / "notes").write_text("not a ledger\n")
    with pytest.raises(PayloadError):
        run_task(a_task(), data, ROOMY, workplace=Workplace(folder), ledger=tmp_path / "notes")
    assert list(folder.iterdir()) == []


def wait_until_running(path: Path) -> None:
    """Return once an intent stands at the end of the ledger."""
    end = time.monotonic() + STARTED_WITHIN
    while time.monotonic() < end:
        try:
            if verify(path).running:
                return
        except DataError:
            continue
    raise AssertionError("the task did not begin")


def test_a_device_killed_at_work_closes_the_task_when_it_comes_back(
    data: Path, tmp_path: Path
) -> None:
    path = tmp_path / "ledger"
    endless = a_task(local_epochs=1000, batch=2, version=7)
    (tmp_path / "task").write_bytes(endless.encode())
    command = [sys.executable, "-m", "edgetrain.client", "run-task", "--ledger", str(path)]
    command += ["--task", str(tmp_path / "task"), "--data", str(data)]
    with subprocess.Popen(command, cwd="/", stdout=subprocess.DEVNULL) as process:
        wait_until_running(path)
        os.kill(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert run_task(a_task(), data, ROOMY, ledger=path).status == "trained"
    (killed, interrupted), (_, trained) = pairs(path)
    assert (killed.version, interrupted.status) == (7, "interrupted")
    assert (interrupted.joules, interrupted.examples) == (None, None)
    assert (trained.status, trained.examples) == ("trained", EXAMPLES)
    assert verify(path).totals.examples_unknown == 1


def test_a_worker_loads_nothing_of_the_ledger_and_run_task_only_where_it_keeps_one() -> None:
    for module in ("client.worker", "client.run"):
        code = f"import edgetrain.{module}, sys; print(*sys.modules)"
        ended = subprocess.run(
            [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True
        )
        assert "hashlib" not in ended.stdout.split()
        assert "ledger" not in ended.stdout
        assert "cryptography" not in ended.stdout
