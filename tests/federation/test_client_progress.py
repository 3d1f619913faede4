"""A training that is cut off goes on where it was, and ends at the bits of one that never was."""

from __future__ import annotations

import random
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small_task import small_task, write_noise

from edgetrain import models
from edgetrain.checkpoint import read_checkpoint, trainer_fields
from edgetrain.client.job import Job
from edgetrain.client.worker import perform, prepare
from edgetrain.data import store
from edgetrain.errors import DataError, PayloadError
from edgetrain.memory_profiler.memory import WORKER, worker_command
from edgetrain.task import Report, Task
from edgetrain.train import Trainer

FEATURES, CLASSES, EXAMPLES, BATCH = 24, 3, 20_000, 30
MODEL = models.mlp(inputs=FEATURES, classes=CLASSES, hidden=(16, 16))
EPOCHS, LONG = 3, 150
"""Of a task that is cut off at a given moment, and of one that takes seconds, to be killed in."""
KILLS = 4
ENDS_WITHIN = 60.0
LOOK_SECONDS = 0.002


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_noise(tmp_path_factory.mktemp("data") / "device.etd", MODEL, EXAMPLES)


def a_task(**changes: Any) -> Task:
    return small_task(MODEL, **{"batch": BATCH, "local_epochs": EPOCHS} | changes)


def a_job(folder: Path, data: Path, task: Task, **changes: Any) -> Job:
    """Return the job of a worker that keeps what it does as often as it may."""
    folder.mkdir(exist_ok=True)
    (folder / "task").write_bytes(task.encode())
    fields: dict[str, Any] = {"micro_batch": BATCH, "checkpoint_seconds": 0.0}
    return Job(
        str(folder / "task"),
        str(data),
        str(folder / "report"),
        checkpoint=str(folder / "checkpoint"),
        **fields | changes,
    )


def done(job: Job, stop: Callable[[], bool] = lambda: False) -> Report:
    """Return what a worker reports, but for its time."""
    report, _ = perform(job, stop)
    return replace(report, seconds=0.0)


def cut_off(job: Job, data: Path, batches: int = 1000) -> Trainer:
    """Leave what a worker leaves that is cut off after so many micro-batches."""
    task = Task.decode(Path(job.task).read_bytes())
    left, trainer = iter(range(batches)), prepare(job, task)
    with store.open(data) as examples:
        trainer.fit(
            examples.features,
            examples.labels,
            task.local_epochs,
            should_stop=lambda: next(left, None) is None,
        )
    trainer.save(job.checkpoint or "")
    return trainer


def steps_kept(path: Path) -> int:
    """Return the micro-batches that a checkpoint holds; 0 for none."""
    try:
        return int(trainer_fields(path, read_checkpoint(path)[1])["steps"])
    except DataError:
        return 0


@pytest.fixture(scope="module")
def undisturbed(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Report:
    job = a_job(tmp_path_factory.mktemp("undisturbed"), data, a_task())
    return done(replace(job, checkpoint=None))


def test_a_worker_that_is_killed_again_and_again_ends_as_one_that_never_was(
    data: Path, tmp_path: Path
) -> None:
    task = a_task(local_epochs=LONG)
    draw, job = random.Random(3), a_job(tmp_path, data, task)
    checkpoint, before = Path(job.checkpoint or ""), 0
    for number in range(KILLS):
        command = worker_command(WORKER, replace(job, threads=1 + number % 2).to_json())
        with subprocess.Popen(command) as it:
            end = time.monotonic() + ENDS_WITHIN
            while steps_kept(checkpoint) <= before:
                assert it.poll() is None, "it ended before it could be killed"
                assert time.monotonic() < end, "it keeps nothing"
                threading.Event().wait(LOOK_SECONDS)
            # Any moment will do: that is the point.
            threading.Event().wait(draw.uniform(0.0, 0.1))
            it.kill()
        before = steps_kept(checkpoint)
        assert not Path(job.report).exists()
    assert before > 0
    assert prepare(job, task).steps == before
    subprocess.run(worker_command(WORKER, job.to_json()), check=True, timeout=ENDS_WITHIN)
    report = Report.decode(Path(job.report).read_bytes(), task)
    assert report.measured_peak_bytes is not None
    alone = done(replace(job, checkpoint=None))
    assert replace(report, seconds=0.0, measured_peak_bytes=None) == alone


@pytest.mark.parametrize("batches", [0, 1, 666, 667, 668, 1500])
def test_wherever_it_was_cut_off_the_report_is_the_same(
    batches: int, data: Path, undisturbed: Report, tmp_path: Path
) -> None:
    """An epoch has 667 micro-batches: beside its edge, at it, and in the middle."""
    job = a_job(tmp_path, data, a_task())
    cut_off(job, data, batches)
    assert prepare(job, a_task()).steps == batches, "it begins anew"
    assert done(job) == undisturbed


@pytest.mark.parametrize("batches", [667, 668])
def test_one_that_is_stopped_at_once_when_it_goes_on_reports_what_its_predecessor_did(
    batches: int, data: Path, tmp_path: Path
) -> None:
    job = a_job(tmp_path, data, a_task())
    trainer = cut_off(job, data, batches)
    report = done(job, lambda: True)
    assert (report.status, report.reason) == ("trained", "stopped early")
    assert (report.steps, report.loss) == (batches, trainer.metrics.loss)
    assert report.examples == EXAMPLES + trainer.metrics.examples % EXAMPLES


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "torn": lambda raw: raw[: len(raw) // 2],
    "a bit of the state": lambda raw: raw[:-40] + bytes([raw[-40] ^ 1]) + raw[-39:],
    "another version": lambda raw: raw.replace(b'"version":"2"', b'"version":"9"'),
    "garbage": lambda _: b"garbage" * 1000,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_none(
    damage: str, data: Path, undisturbed: Report, tmp_path: Path
) -> None:
    job = a_job(tmp_path, data, a_task())
    cut_off(job, data)
    raw = Path(job.checkpoint or "").read_bytes()
    damaged = DAMAGE[damage](raw)
    assert damaged != raw
    Path(job.checkpoint or "").write_bytes(damaged)
    with pytest.raises(PayloadError):
        trainer_fields("it", read_checkpoint(job.checkpoint or "")[1])
    assert prepare(job, a_task()).steps == 0
    assert done(job) == undisturbed


@pytest.mark.parametrize(
    "changes", [{"version": 2}, {"device": "right"}, {"learning_rate": 0.02}, {"seed": 6}], ids=str
)
def test_a_checkpoint_of_another_task_is_none(
    changes: dict[str, Any], data: Path, tmp_path: Path
) -> None:
    cut_off(a_job(tmp_path, data, a_task()), data)
    task = a_task(**changes)
    alone = done(replace(a_job(tmp_path, data, task), checkpoint=None))
    assert done(a_job(tmp_path, data, task)) == alone


def test_a_checkpoint_of_another_plan_is_none(data: Path, tmp_path: Path) -> None:
    task = a_task()
    cut_off(a_job(tmp_path, data, task), data)
    smaller = a_job(tmp_path, data, task, micro_batch=BATCH // 2)
    assert done(smaller) == done(replace(smaller, checkpoint=None))


def test_where_nothing_can_be_kept_training_goes_on(
    data: Path, undisturbed: Report, tmp_path: Path
) -> None:
    job = replace(a_job(tmp_path, data, a_task()), checkpoint=str(tmp_path / "absent" / "it"))
    assert done(job) == undisturbed


def test_an_evaluation_keeps_nothing(data: Path, tmp_path: Path) -> None:
    job = a_job(tmp_path, data, a_task(kind="evaluate"))
    assert done(job).status == "evaluated"
    assert not Path(job.checkpoint or "").exists()
