"""Warm workers: many tasks in one process, each as if it were alone in it."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from small_task import small_task, write_noise

from edgetrain import models
from edgetrain.client import processes
from edgetrain.client.job import Job
from edgetrain.client.processes import WarmWorker, end_idle, run_fresh, run_warm
from edgetrain.errors import DataError, EnforceError
from edgetrain.memory_profiler.enforce import supervise
from edgetrain.memory_profiler.enforce.limits import Limits
from edgetrain.memory_profiler.enforce.socket_filter import socket_filter
from edgetrain.task import Report, Task

FEATURES, CLASSES, EXAMPLES = 64, 4, 200
MODEL = models.mlp(inputs=FEATURES, classes=CLASSES, hidden=(64,))
WAIT = 60.0
UNHURRIED = Limits(seconds=WAIT)
# A warm worker may hold this much more than a fresh one: what its heap keeps of earlier tasks.
GATHERED = 0.03


@pytest.fixture(autouse=True)
def none_idle() -> Iterator[None]:
    end_idle()
    yield
    end_idle()


def a_task(local_epochs: int = 1) -> Task:
    return small_task(MODEL, version=0, local_epochs=local_epochs)


def a_job(folder: Path, task: Task | None = None, examples: int = EXAMPLES) -> Job:
    write_noise(folder / "data.etd", MODEL, examples)
    (folder / "task").write_bytes((task or a_task()).encode())
    names = (folder / "task", folder / "data.etd", folder / "report")
    return Job(*map(str, names), micro_batch=20, durable=False)


def report_of(job: Job, task: Task | None = None) -> Report:
    return Report.decode(Path(job.report).read_bytes(), task or a_task())


def test_a_warm_worker_computes_what_a_fresh_one_does(tmp_path: Path) -> None:
    job = a_job(tmp_path)
    assert run_fresh(job, UNHURRIED).code == 0
    fresh = report_of(job)
    for _ in range(3):
        Path(job.report).unlink()
        assert run_warm(job, UNHURRIED).code == 0
        warm = report_of(job)
        assert (warm.update, warm.loss, warm.steps) == (fresh.update, fresh.loss, fresh.steps)
    assert len(processes.IDLE) == 1


def test_no_worker_has_a_network_and_each_computes_what_one_with_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        socket_filter()
    except EnforceError as error:
        pytest.skip(str(error))
    job = a_job(tmp_path)
    enforced = run_fresh(job, UNHURRIED).enforced
    assert enforced is not None
    assert (enforced.network, enforced.no_filter) == ("none", "")
    without = report_of(job)
    warm = WarmWorker()
    assert "network" in warm.running.belts
    warm.end()
    monkeypatch.setattr(supervise, "socket_filter", bytes)
    run_fresh(job, UNHURRIED)
    assert report_of(job).update == without.update


def test_a_warm_worker_takes_the_memory_that_a_fresh_one_takes(tmp_path: Path) -> None:
    (tmp_path / "large").mkdir()
    job, large = a_job(tmp_path), a_job(tmp_path / "large", examples=20 * EXAMPLES)
    run_fresh(job, UNHURRIED)
    fresh = report_of(job).measured_peak_bytes
    worker = WarmWorker()
    for other in [large, job] * 10:
        worker.do(other, UNHURRIED)
    worker.end()
    warm = report_of(job).measured_peak_bytes
    assert fresh is not None
    assert warm is not None
    assert abs(warm / fresh - 1) < GATHERED


def test_a_failure_is_told_and_harms_no_later_task(tmp_path: Path) -> None:
    job = a_job(tmp_path)
    content = Path(job.data).read_bytes()
    Path(job.data).write_bytes(content[:-1])
    failed = run_warm(job, UNHURRIED)
    assert failed.code == DataError.exit_code
    assert "damaged" in failed.line
    Path(job.data).write_bytes(content)
    assert run_warm(job, UNHURRIED).code == 0
    assert report_of(job).status == "trained"


def test_a_warm_worker_stops_in_time_and_is_not_used_again(tmp_path: Path) -> None:
    task = a_task(local_epochs=1000)
    job = a_job(tmp_path, task, examples=100 * EXAMPLES)
    outcome = run_warm(job, Limits(seconds=1.0))
    assert outcome.cause == "seconds"
    assert report_of(job, task).reason == "stopped early"
    assert not processes.IDLE


def test_a_worker_that_died_idle_is_replaced(tmp_path: Path) -> None:
    job = a_job(tmp_path)
    run_warm(job, UNHURRIED)
    (worker,) = processes.IDLE
    worker.process.kill()
    worker.process.wait()
    assert run_warm(job, UNHURRIED).code == 0
    assert [worker] != processes.IDLE


def test_a_worker_that_dies_at_work_says_by_what(tmp_path: Path) -> None:
    job = a_job(tmp_path, a_task(local_epochs=1000), examples=100 * EXAMPLES)
    worker = WarmWorker()
    killer = threading.Timer(0.5, lambda: os.kill(worker.process.pid, signal.SIGKILL))
    killer.start()
    outcome = worker.do(job, UNHURRIED)
    killer.join()
    assert (outcome.code, worker.usable) == (-signal.SIGKILL, False)
    worker.end()


def test_a_worker_retires_after_its_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "TASKS_A_WORKER", 2)
    job = a_job(tmp_path)
    run_warm(job, UNHURRIED)
    (first,) = processes.IDLE
    run_warm(job, UNHURRIED)
    assert not processes.IDLE
    assert first.process.returncode == 0


def test_threads_share_the_idle_workers(tmp_path: Path) -> None:
    jobs = []
    for name in "abcd":
        (tmp_path / name).mkdir()
        jobs.append(a_job(tmp_path / name))
    threads = [threading.Thread(target=run_warm, args=(job, UNHURRIED)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
    updates = [report_of(job).update for job in jobs]
    assert all(update == updates[0] for update in updates)
    assert 1 <= len(processes.IDLE) <= len(jobs)


def test_a_worker_ends_with_whoever_started_it() -> None:
    worker = WarmWorker()
    stdin = worker.process.stdin
    assert stdin is not None
    stdin.close()
    assert worker.process.wait(WAIT) == 0
    worker.end()


def test_what_cannot_be_started_is_an_outcome(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "worker_command", lambda *_: [str(tmp_path / "absent")])
    job = a_job(tmp_path)
    for run in (run_fresh, run_warm):
        outcome = run(job, UNHURRIED)
        assert outcome.code != 0
        assert "cannot start" in outcome.line


def test_a_worker_that_ends_without_an_answer_is_not_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(processes, "worker_command", lambda *_: ["true"])
    worker = WarmWorker()
    worker.process.wait()
    outcome = worker.do(Job("a", "b", "c", 1), UNHURRIED)
    assert (outcome.code, worker.usable) == (0, False)
    worker.end()
