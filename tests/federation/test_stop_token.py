"""A stop is honoured within one micro-batch, on CNV, by a trainer and by a device's worker.

Time is the processor's, so that a busy machine does not fail: what passes between the request and
the end is at most one micro-batch and what little surrounds it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path

import pytest

from edgetrain import models
from edgetrain.client.job import Job
from edgetrain.data import store
from edgetrain.memory_profiler.memory import worker_command
from edgetrain.metrics import Metrics
from edgetrain.planner import plan
from edgetrain.task import Kind, Report, Task
from edgetrain.train import Trainer

MODEL = models.cnv()
BATCH, EXAMPLES = 20, 200
X, Y = bytes(EXAMPLES * MODEL.input_features), bytes(EXAMPLES)
EPOCHS = 1000
"""Far more than there is time for."""
DELAY = 0.5
"""Seconds of the processor until the request: several micro-batches."""
SLOWER = 1.5
"""One micro-batch against the slowest seen so far: a processor shared with others varies."""
AFTERWARDS = 0.3
"""Seconds to leave the loop and, in a worker, to encode and write a report of 1.6 MB."""
TICK = 1 / os.sysconf("SC_CLK_TCK")
PATIENCE, LOOK = 300.0, 0.05
"""Seconds until a worker that does not work is given up, and between looks at it."""
Run = Callable[[Trainer, Callable[[], bool]], Metrics]


def fit(trainer: Trainer, should_stop: Callable[[], bool]) -> Metrics:
    return trainer.fit(X, Y, EPOCHS, should_stop=should_stop)


def evaluate(trainer: Trainer, should_stop: Callable[[], bool]) -> Metrics:
    return trainer.evaluate(X * 100, Y * 100, should_stop=should_stop)


@contextmanager
def alarm(handle: Callable[[], None]) -> Iterator[float]:
    """Call the handler once the processor has worked for DELAY; yield when that will be."""
    before = signal.signal(signal.SIGPROF, lambda *_: handle())
    signal.setitimer(signal.ITIMER_PROF, DELAY)
    try:
        yield time.process_time() + DELAY
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


@pytest.mark.parametrize("run", [fit, evaluate])
def test_a_signal_stops_the_loop_within_one_micro_batch(run: Run) -> None:
    trainer = Trainer(plan(MODEL, BATCH))
    polls: list[float] = []
    asked: list[int] = []

    def should_stop() -> bool:
        polls.append(time.process_time())
        return bool(asked)

    with alarm(lambda: asked.append(len(polls))) as due:
        run(trainer, should_stop)
        took = time.process_time() - due
    assert len(polls) > 2
    assert asked == [len(polls) - 1]
    slowest = max(after - before for before, after in pairwise(polls))
    assert took < SLOWER * slowest + AFTERWARDS


def worked(pid: int) -> float:
    """Return the seconds that the processor has worked for a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK


@pytest.mark.parametrize("kind", ["train", "evaluate"])
def test_sigterm_stops_a_worker_within_one_micro_batch(kind: Kind, tmp_path: Path) -> None:
    examples = 20_000 if kind == "evaluate" else EXAMPLES
    features = bytes(examples * MODEL.input_features)
    store.write(tmp_path / "data", features, bytes(examples), 10, (32, 32, 3))
    state = Trainer(plan(MODEL, BATCH)).state()
    task = Task(kind, 1, "left", MODEL, "bnn", BATCH, EPOCHS, 0.04, "luq4", 5, None, state)
    (tmp_path / "task").write_bytes(task.encode())
    job = Job(*(str(tmp_path / name) for name in ("task", "data", "report")), BATCH, durable=False)
    process = subprocess.Popen(worker_command("edgetrain.client.worker", job.to_json()))
    began = time.monotonic()
    while worked(process.pid) < 4 * DELAY and time.monotonic() - began < PATIENCE:
        with suppress(subprocess.TimeoutExpired):
            process.wait(LOOK)
    before = worked(process.pid)
    process.send_signal(signal.SIGTERM)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    report = Report.decode((tmp_path / "report").read_bytes(), task)
    assert process.returncode == 0
    assert report.reason == "stopped early"
    assert 0 < report.examples < EPOCHS * EXAMPLES
    one = before / (report.examples / BATCH)
    assert usage.ru_utime + usage.ru_stime - before < SLOWER * one + AFTERWARDS
