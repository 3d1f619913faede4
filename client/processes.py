"""Worker processes: started inside their limits, waited for, stopped where they pass one.

A device starts a fresh worker for each task, so that the memory of one is gone before the next.
A simulation of many devices on one machine uses warm ones, which do task after task: starting
Python is most of what a small task costs. What a task computes is the same in either, and so is
its memory, but for what the kernel's count of it drifts in a long life (see `client.run`).
"""

from __future__ import annotations

import atexit
import contextlib
import json
import subprocess
from dataclasses import dataclass, replace
from typing import IO

from edgetrain.client.job import SERVE, Job, debug_wanted
from edgetrain.errors import BudgetError, WorkerError
from edgetrain.memory_profiler.enforce.enforced import Cause, Enforced
from edgetrain.memory_profiler.enforce.limits import GRACE_SECONDS, Limits
from edgetrain.memory_profiler.enforce.supervise import Joules, Supervised, supervise
from edgetrain.memory_profiler.memory import WORKER, worker_command, worker_environment

__all__ = ["Ended", "end_idle", "run_fresh", "run_warm"]

TASKS_A_WORKER = 100
"""A warm worker makes room for a fresh one after so many tasks, whatever it has gathered."""


@dataclass(frozen=True)
class Ended:
    """How a task ended in its process.

    Attributes:
        code: exit code; below zero it is that of a signal which ended the process.
        line: the line that says why it failed, or empty.
        cause: why it was stopped or killed, or "finished" where it ended by itself.
        enforced: what held it to its limits, and what it used; None of a warm worker, which has
            none but time, and where there was no process.
    """

    code: int
    line: str = ""
    cause: Cause = "finished"
    enforced: Enforced | None = None


def run_fresh(job: Job, limits: Limits, joules: Joules | None = None) -> Ended:
    """Do a job in a process of its own, held to its limits.

    One that passes a limit is asked to stop, so that it reports what it has, and killed when its
    grace has passed. No worker has a network, whatever the limits say.
    """
    try:
        enforced = supervise(
            worker_command(WORKER, job.to_json()),
            replace(limits, network="none"),
            joules=joules,
            env=worker_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=None if debug_wanted() else subprocess.PIPE,
        )
    except WorkerError as error:
        return Ended(error.exit_code, str(error))
    line = enforced.words.strip().rpartition("\n")[2]
    cause = enforced.cause
    if cause == "finished" and enforced.code == BudgetError.exit_code:
        cause = "memory_data"
    return Ended(enforced.code, line.removeprefix("error: "), cause, enforced)


def run_warm(job: Job, limits: Limits) -> Ended:
    """Do a job in a process that has done others before, if one is idle; otherwise in a new one.

    It is held to its time alone.
    """
    worker = take_idle()
    try:
        worker = worker or WarmWorker()
    except WorkerError as error:
        return Ended(error.exit_code, str(error))
    ended = worker.do(job, limits)
    if worker.usable:
        IDLE.append(worker)
    else:
        worker.end()
    return ended


class WarmWorker:
    """A worker process that takes jobs, one a line, and answers each with how it ended."""

    def __init__(self) -> None:
        self.running = Supervised(
            worker_command(WORKER, SERVE),
            Limits(network="none"),
            env=worker_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if debug_wanted() else subprocess.DEVNULL,
        )
        self.process = self.running.process
        self.usable = True
        self._tasks = 0

    def do(self, job: Job, limits: Limits) -> Ended:
        """Return how a job ended; afterwards `usable` says whether there may be another."""
        self._tasks += 1
        self.usable = False
        try:
            self._send(job)
            answers = pipe(self.process.stdout)
            stopped = self.running.watch(
                Limits(seconds=limits.seconds, grace=limits.grace), answers.fileno()
            )
            answer = answers.readline()
        except BaseException:
            self.running.end()
            raise
        if not answer:
            enforced = self.running.end()
            return Ended(enforced.code, cause=enforced.cause)
        code, line, again = json.loads(answer)
        self.usable = again and stopped is None and self._tasks < TASKS_A_WORKER
        return Ended(code, line, stopped or "finished")

    def end(self) -> None:
        """Let the process end: it does when there is nobody who could send another job."""
        for stream in (self.process.stdin, self.process.stdout):
            # A process that died with a job unread leaves bytes that closing cannot deliver.
            with contextlib.suppress(BrokenPipeError):
                pipe(stream).close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(GRACE_SECONDS)
        self.running.end()

    def _send(self, job: Job) -> None:
        # If it has just died there will be no answer, which is what the caller looks for.
        with contextlib.suppress(BrokenPipeError):
            stdin = pipe(self.process.stdin)
            stdin.write(job.to_json().encode() + b"\n")
            stdin.flush()


IDLE: list[WarmWorker] = []
"""Warm workers that wait for a job; any thread may take one out or put one in."""


def take_idle() -> WarmWorker | None:
    """Return a warm worker that lives, out of those that are idle, or None."""
    while True:
        try:
            worker = IDLE.pop()
        except IndexError:
            return None
        if worker.running.running:
            return worker
        worker.end()


@atexit.register
def end_idle() -> None:
    """End the warm workers that are idle."""
    while worker := take_idle():
        worker.end()


def pipe(stream: IO[bytes] | None) -> IO[bytes]:
    """Return a stream that is known to be there."""
    assert stream is not None
    return stream
