"""run_task and its worker: real processes on real data files."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from small_task import small_task

from edgetrain import models
from edgetrain.client.job import Job, Workplace
from edgetrain.client.run import plan_task, run_task
from edgetrain.data import store
from edgetrain.errors import (
    BudgetError,
    DataError,
    EdgetrainError,
    ModelError,
    PayloadError,
    WorkerError,
)
from edgetrain.keys import derive_key
from edgetrain.memory_profiler.budget import Budget
from edgetrain.memory_profiler.device import Device
from edgetrain.memory_profiler.memory import worker_command
from edgetrain.model import Model
from edgetrain.planner import plan
from edgetrain.task import Report, Task
from edgetrain.train import Trainer
from edgetrain.update import CODECS, update_bytes

FEATURES, CLASSES, EXAMPLES = 24, 3, 90
MODEL = models.mlp(inputs=FEATURES, classes=CLASSES, hidden=(16, 16))
ROOMY = Budget(memory=256 << 20)
# Of the predicted peak; what the profiler promises of its predictions (at most 5 % over, at most
# 2 % under), on a process this small, where a page here or there counts.
PEAK_TOLERANCE = 0.10
# Seconds in which any of these small workers has started, even on a busy machine.
STARTED_WITHIN = 60.0


def write_data(path: Path, examples: int = EXAMPLES, classes: int = CLASSES) -> Path:
    """Write examples whose class shows in which third of the features is large."""
    generator = random.Random(0)
    labels = bytes(generator.randrange(classes) for _ in range(examples))
    third = FEATURES // classes
    rows = b"".join(
        bytes(
            generator.randrange(60, 120) if column // third == label else generator.randrange(40)
            for column in range(FEATURES)
        )
        for label in labels
    )
    store.write(path, memoryview(rows).cast("b"), labels, classes, (FEATURES,))
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data") / "device.etd")


def a_task(model: Model = MODEL, **changes: Any) -> Task:
    return small_task(model, **{"batch": 30, "local_epochs": 2} | changes)


def worker(job: Job, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        worker_command("edgetrain.client.worker", job.to_json()),
        capture_output=True,
        text=True,
        check=False,
        timeout=STARTED_WITHIN,
        **options,
    )


def a_job(folder: Path, task: Task | None = None, **fields: Any) -> Job:
    (folder / "task").write_bytes((task or a_task()).encode())
    places = {"task": str(folder / "task"), "report": str(folder / "report"), "micro_batch": 30}
    return Job(**places | fields)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("mode", ["bnn", "fsb"])
def test_a_task_is_trained(mode: str, codec: str, data: Path) -> None:
    task = a_task(mode=mode, codec=codec)
    report = run_task(task, data, ROOMY)
    assert (report.status, report.reason) == ("trained", "")
    assert report.examples == 2 * EXAMPLES
    assert report.steps == 2 * EXAMPLES // 30
    assert report.accuracy is not None
    assert report.accuracy > 1 / CLASSES
    assert report.plan is not None
    assert (report.plan.mode, report.plan.micro_batch) == (mode, 30)
    assert sum(len(t.data) for t in report.update.values()) <= update_bytes(MODEL, mode, codec)
    assert Report.decode(report.encode(), task) == report


def test_what_is_learnt_is_a_function_of_the_task(data: Path) -> None:
    first = run_task(a_task(), data, ROOMY)
    assert run_task(a_task(), data, ROOMY, Device(threads=2)).update == first.update
    for other in (a_task(version=2), a_task(device="right"), a_task(seed=6)):
        assert run_task(other, data, ROOMY).update != first.update


def test_the_update_is_what_the_trainer_learnt(data: Path) -> None:
    """raw8 carries the new values themselves: they are those of a trainer in this process."""
    task = a_task(codec="raw8")
    report = run_task(task, data, ROOMY)
    trainer = Trainer(
        plan(MODEL, 30, "bnn"), seed=5, stream=derive_key("train", 5, 1, "left"), learning_rate=0.04
    )
    trainer.load_state(task.state)
    with store.open(data) as stored:
        trainer.fit(stored.features, stored.labels, epochs=2)
    assert report.update == trainer.state()


def test_an_evaluation_judges_the_state_and_sends_nothing(data: Path) -> None:
    task = a_task(kind="evaluate")
    report = run_task(task, data, ROOMY)
    assert (report.status, report.examples, report.update) == ("evaluated", EXAMPLES, {})
    trainer = Trainer(plan(MODEL, 30, "bnn"), seed=5)
    trainer.load_state(task.state)
    with store.open(data) as stored:
        metrics = trainer.evaluate(stored.features, stored.labels)
    assert (report.loss, report.accuracy) == (metrics.loss, metrics.accuracy)


def test_peak_memory_is_predicted_and_measured(data: Path) -> None:
    report = run_task(a_task(), data, ROOMY)
    assert report.predicted_peak_bytes is not None
    assert report.measured_peak_bytes is not None
    error = report.predicted_peak_bytes / report.measured_peak_bytes - 1
    assert abs(error) < PEAK_TOLERANCE


def test_energy_is_modelled_and_says_so(data: Path) -> None:
    pi = Device(name="pi", examples_per_second=1000, watts=2.5)
    report = run_task(a_task(), data, ROOMY, pi)
    assert report.joules is not None
    assert report.joules >= 2.5 * report.seconds
    assert report.energy_source == "modelled"
    simulated = run_task(a_task(), data, ROOMY, pi, simulated=True)
    assert simulated.joules == pytest.approx(2 * EXAMPLES / 1000 * 2.5, rel=0.3)
    assert simulated.energy_source == "modelled"
    assert run_task(a_task(), data, ROOMY).joules is None


def test_a_device_that_nothing_fits_declines_politely(data: Path) -> None:
    report = run_task(a_task(), data, Budget(memory=1 << 20))
    assert (report.status, report.examples, report.update) == ("declined", 0, {})
    assert "nothing fits" in report.reason


def test_a_device_trains_the_layers_and_latents_of_its_task_however_tight(data: Path) -> None:
    """A fleet averages int8 latents of the layers that all devices train."""
    task, device = a_task(), Device(base_bytes=8 << 20)
    found = plan_task(task, data, ROOMY, device)
    while found is not None:
        assert found.plan.model == task.model
        assert (found.plan.mode, found.plan.latent) == (task.mode, "int8")
        least, budget = found, Budget(memory=int(found.estimate.memory.high) - 1)
        try:
            found = plan_task(task, data, budget, device)
        except BudgetError:
            found = None
    assert least.plan.micro_batch == 2


def test_a_device_without_examples_declines() -> None:
    report = run_task(a_task(), None, ROOMY)
    assert (report.status, report.reason) == ("declined", "no examples")
    assert plan_task(a_task(), None, ROOMY, Device()) is None


def test_a_limit_that_cannot_be_judged_declines(data: Path) -> None:
    report = run_task(a_task(), data, Budget(energy=5.0))
    assert report.status == "declined"
    assert "watts" in report.reason


def test_a_simulated_device_judges_seconds_by_the_model(data: Path) -> None:
    slow = Device(name="slow", examples_per_second=1)
    report = run_task(a_task(), data, Budget(seconds=1), slow, simulated=True)
    assert report.status == "declined"
    assert "seconds" in report.reason
    quick = Device(name="quick", examples_per_second=1e9)
    report = run_task(a_task(), data, Budget(seconds=1e-3), quick, simulated=True)
    assert report.status == "trained"


BAD_DATA = {
    "missing": (Path.exists, "No such file"),
    "garbage": (lambda path: path.write_bytes(b"garbage"), "not an edgetrain data file"),
    "cut off": (lambda path: path.write_bytes(write_data(path).read_bytes()[:-1]), "damaged"),
}


@pytest.mark.parametrize("case", BAD_DATA)
def test_bad_data_is_a_failed_report(case: str, tmp_path: Path) -> None:
    make, message = BAD_DATA[case]
    make(tmp_path / "bad.etd")
    report = run_task(a_task(), tmp_path / "bad.etd", ROOMY)
    assert report.status == "failed"
    assert message in report.reason


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (models.mlp(inputs=FEATURES + 1, classes=CLASSES, hidden=(4,)), "24 features"),
        (models.mlp(inputs=FEATURES, classes=CLASSES - 1, hidden=(4,)), "3 classes"),
    ],
)
def test_a_model_that_does_not_fit_the_data_is_named(
    model: Model, message: str, data: Path
) -> None:
    report = run_task(a_task(model), data, ROOMY)
    assert report.status == "failed"
    assert message in report.reason


def test_an_instruction_set_nobody_has_is_named(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = a_task()
    monkeypatch.setenv("EDGETRAIN_ISA", "abacus")
    report = run_task(task, data, ROOMY)
    assert report.status == "failed"
    assert "abacus" in report.reason


def test_task_and_report_stay_in_a_folder_that_is_named(data: Path, tmp_path: Path) -> None:
    task = a_task()
    report = run_task(task, data, ROOMY, workplace=Workplace(tmp_path))
    assert Task.decode((tmp_path / "task").read_bytes()) == task
    assert Report.decode((tmp_path / "report").read_bytes(), task).update == report.update


def test_an_old_report_is_not_taken_for_a_new_one(data: Path, tmp_path: Path) -> None:
    run_task(a_task(), data, ROOMY, workplace=Workplace(tmp_path))
    report = run_task(a_task(), tmp_path / "absent.etd", ROOMY, workplace=Workplace(tmp_path))
    assert report.status == "failed"


ENDLESS = {"local_epochs": 1000, "batch": 2}


def test_the_deadline_stops_training_and_keeps_what_was_learnt(tmp_path: Path) -> None:
    large = write_data(tmp_path / "large.etd", examples=20_000)
    report = run_task(a_task(**ENDLESS, deadline=2.0), large, ROOMY)
    assert report.status == "trained", report.reason
    assert "stopped early, after 2 s" in report.reason
    assert 0 < report.examples < 1000 * 20_000


def test_a_deadline_too_short_to_learn_anything_is_a_failure(data: Path) -> None:
    report = run_task(a_task(deadline=1e-3), data, ROOMY)
    assert report.status == "failed"
    assert report.reason


def worker_of(folder: Path) -> int:
    """Return the process id of the worker whose files lie in a folder, once it trains."""
    end = time.monotonic() + STARTED_WITHIN
    while time.monotonic() < end:
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                command = (entry / "cmdline").read_bytes()
                mapped = (entry / "maps").read_text()
            except OSError:
                continue
            if str(folder).encode() in command and "large.etd" in mapped:
                return int(entry.name)
    raise AssertionError("no worker came up")


@pytest.mark.parametrize(
    ("number", "message"),
    [(signal.SIGKILL, "want of memory"), (signal.SIGSEGV, "SIGSEGV")],
    ids=["SIGKILL", "SIGSEGV"],
)
def test_a_worker_that_dies_is_a_failed_report(
    number: signal.Signals, message: str, tmp_path: Path
) -> None:
    large = write_data(tmp_path / "large.etd", examples=20_000)
    folder = tmp_path / "work"
    folder.mkdir()
    reports: list[Report] = []
    thread = threading.Thread(
        target=lambda: reports.append(
            run_task(a_task(**ENDLESS), large, ROOMY, workplace=Workplace(folder))
        )
    )
    thread.start()
    os.kill(worker_of(folder), number)
    thread.join(STARTED_WITHIN)
    assert reports[0].status == "failed"
    assert message in reports[0].reason


def test_a_report_that_cannot_be_read_is_a_failed_report(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    imposter = "import json, sys; open(json.loads(sys.argv[1])['report'], 'w').write('{}')"
    monkeypatch.setattr(
        "edgetrain.client.processes.worker_command",
        lambda _, job: [sys.executable, "-c", imposter, job],
    )
    report = run_task(a_task(), data, ROOMY)
    assert report.status == "failed"
    assert "cannot be read" in report.reason


def test_a_worker_that_ignores_the_deadline_is_killed(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); signal.pause()"
    monkeypatch.setattr(
        "edgetrain.client.processes.worker_command", lambda *_: [sys.executable, "-c", deaf]
    )
    monkeypatch.setattr("edgetrain.client.processes.GRACE_SECONDS", 0.1)
    report = run_task(a_task(deadline=1.0), data, ROOMY)
    assert report.status == "failed"
    assert "did not stop" in report.reason


@pytest.mark.parametrize(
    ("broken", "kind"),
    [("data", DataError), ("micro_batch", ModelError), ("report", EdgetrainError)],
)
def test_a_worker_fails_in_one_line(
    broken: str, kind: type[EdgetrainError], data: Path, tmp_path: Path
) -> None:
    changes: dict[str, Any] = {
        "data": str(tmp_path / "absent.etd"),
        "micro_batch": 31,
        "report": str(tmp_path / "absent" / "report"),
    }
    ended = worker(a_job(tmp_path, **{"data": str(data), broken: changes[broken]}))
    assert ended.stderr.startswith("error: ")
    assert ended.stderr.count("\n") == 1
    assert ended.stdout == ""
    if kind is not EdgetrainError:
        assert ended.returncode == kind.exit_code
        report = Report.decode((tmp_path / "report").read_bytes(), a_task())
        assert report.status == "failed"
        assert f"error: {report.reason}\n" == ended.stderr


def test_a_worker_without_a_task_says_so(data: Path, tmp_path: Path) -> None:
    job = a_job(tmp_path, data=str(data))
    Path(job.task).write_bytes(b"nonsense")
    ended = worker(job)
    assert ended.returncode == PayloadError.exit_code
    assert ended.stderr.startswith("error: ")
    assert not Path(job.report).exists()


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"task": 1}'])
def test_a_worker_refuses_a_job_that_is_none(text: str) -> None:
    ended = subprocess.run(
        worker_command("edgetrain.client.worker", text), capture_output=True, text=True, check=False
    )
    assert ended.returncode == PayloadError.exit_code
    assert ended.stderr.count("\n") == 1


def test_debugging_shows_the_traceback(tmp_path: Path) -> None:
    job = a_job(tmp_path, data=str(tmp_path / "absent.etd"))
    ended = worker(job, env={**os.environ, "EDGETRAIN_DEBUG": "1"})
    assert "Traceback" in ended.stderr


def test_a_worker_stopped_at_once_reports_that(tmp_path: Path) -> None:
    large = write_data(tmp_path / "large.etd", examples=20_000)
    job = a_job(tmp_path, a_task(**ENDLESS), data=str(large), micro_batch=2)
    process = subprocess.Popen(worker_command("edgetrain.client.worker", job.to_json()))
    os.kill(worker_of(tmp_path), signal.SIGTERM)
    assert process.wait(STARTED_WITHIN) in (0, WorkerError.exit_code)
    report = Report.decode((tmp_path / "report").read_bytes(), a_task(**ENDLESS))
    assert report.status in ("trained", "failed")
    assert "stopped" in report.reason


def test_a_worker_imports_nothing_heavy() -> None:
    heavy = {"numpy", "flwr", "torch", "rich", "typer", "hashlib", "subprocess", "argparse"}
    code = "import edgetrain.client.worker, sys; print(*sys.modules)"
    ended = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True
    )
    loaded = {name.partition(".")[0] for name in ended.stdout.split()}
    assert "edgetrain" in loaded
    assert not heavy & loaded


def test_run_task_needs_neither_numpy_nor_flower() -> None:
    code = "import edgetrain.client.run, sys; print(*sys.modules)"
    ended = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True
    )
    loaded = {name.partition(".")[0] for name in ended.stdout.split()}
    assert not {"numpy", "flwr", "torch", "rich", "typer"} & loaded
