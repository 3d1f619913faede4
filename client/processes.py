"""Worker processes: started, waited for, stopped when their time is up.

A device starts a fresh worker for each task, so that the memory of one is gone before the next.
A simulation of many devices on one machine uses warm ones, which do task after task: starting
Python is most of what a small task costs. What a task computes is the same in either, and so is
its memory, but for what the kernel's count of it drifts in a long life (see `client.run`).
"""

from __future__ import annotations

import atexit
import contextlib
import json
import select
import subprocess
from dataclasses import dataclass
from typing import IO

from edgetrain.client.worker import SERVE, Job, debug_wanted
from edgetrain.errors import WorkerError
from edgetrain.memory_profiler.memory import WORKER, worker_command, worker_environment

__all__ = ["GRACE_SECONDS", "Outcome", "end_idle", "run_fresh", "run_warm"]

GRACE_SECONDS = 2.0
"""From the request to stop to the end of the process: time for one micro-batch and the report."""
TASKS_A_WORKER = 100
"""A warm worker makes room for a fresh one after so many tasks, whatever it has gathered."""


@dataclass(frozen=True)
class Outcome:
    """How a task ended in its process: exit code, the line that says why, and whether in time.

    A code below zero is that of a signal which ended the process. `stopped_after` is the limit in
    seconds at which the process was asked to stop, or None.
    """

    code: int
    line: str = ""
    stopped_after: float | None = None


def run_fresh(job: Job, limit: float) -> Outcome:
    """Do a job in a process of its own, and stop it when `limit` seconds have passed.

    SIGTERM lets it report what it has; GRACE_SECONDS later SIGKILL ends it.
    """
    try:
        process = start(job.to_json(), answers=False)
    except OSError as error:
        return cannot_start(error)
    stopped_after = None
    try:
        for seconds, stop in ((limit, process.terminate), (GRACE_SECONDS, process.kill)):
            try:
                _, text = process.communicate(timeout=seconds)
                break
            except subprocess.TimeoutExpired:
                stopped_after = limit
                stop()
        else:
            _, text = process.communicate()
    except BaseException:
        process.kill()
        process.wait()
        raise
    line = (text or "").strip().rpartition("\n")[2]
    return Outcome(process.returncode, line.removeprefix("error: "), stopped_after)


def run_warm(job: Job, limit: float) -> Outcome:
    """Do a job in a process that has done others before, if one is idle; otherwise as run_fresh."""
    worker = take_idle()
    try:
        worker = worker or WarmWorker()
    except OSError as error:
        return cannot_start(error)
    outcome = worker.do(job, limit)
    if worker.usable:
        IDLE.append(worker)
    else:
        worker.end()
    return outcome


class WarmWorker:
    """A worker process that takes jobs, one a line, and answers each with its outcome."""

    def __init__(self) -> None:
        self.process = start(SERVE, answers=True)
        self.usable = True
        self._tasks = 0

    def do(self, job: Job, limit: float) -> Outcome:
        """Return the outcome of a job; afterwards `usable` says whether there may be another."""
        self._tasks += 1
        self.usable = False
        stopped_after = None
        try:
            self._send(job)
            for seconds, stop in (
                (limit, self.process.terminate),
                (GRACE_SECONDS, self.process.kill),
            ):
                if self._has_answered(seconds):
                    break
                stopped_after = limit
                stop()
            answer = pipe(self.process.stdout).readline()
        except BaseException:
            self.process.kill()
            self.process.wait()
            raise
        if not answer:
            return Outcome(self.process.wait(), "", stopped_after)
        code, line, again = json.loads(answer)
        self.usable = again and stopped_after is None and self._tasks < TASKS_A_WORKER
        return Outcome(code, line, stopped_after)

    def end(self) -> None:
        """Let the process end: it does when there is nobody who could send another job."""
        for stream in (self.process.stdin, self.process.stdout):
            # A process that died with a job unread leaves bytes that closing cannot deliver.
            with contextlib.suppress(BrokenPipeError):
                pipe(stream).close()
        try:
            self.process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _send(self, job: Job) -> None:
        # If it has just died there will be no answer, which is what the caller looks for.
        with contextlib.suppress(BrokenPipeError):
            print(job.to_json(), file=pipe(self.process.stdin), flush=True)

    def _has_answered(self, seconds: float) -> bool:
        poll = select.poll()
        poll.register(pipe(self.process.stdout), select.POLLIN)
        return bool(poll.poll(1000 * seconds))


IDLE: list[WarmWorker] = []
"""Warm workers that wait for a job; any thread may take one out or put one in."""


def take_idle() -> WarmWorker | None:
    """Return a warm worker that lives, out of those that are idle, or None."""
    while True:
        try:
            worker = IDLE.pop()
        except IndexError:
            return None
        if worker.process.poll() is None:
            return worker
        worker.end()


@atexit.register
def end_idle() -> None:
    """End the warm workers that are idle."""
    while worker := take_idle():
        worker.end()


def start(argument: str, *, answers: bool) -> subprocess.Popen[str]:
    """Start a worker process, with pipes to talk to it or with one for its last words.

    A group of its own keeps it from a terminal's Ctrl-C, which is this process's to handle.
    """
    last_words = subprocess.DEVNULL if answers else subprocess.PIPE
    return subprocess.Popen(
        worker_command(WORKER, argument),
        env=worker_environment(),
        stdin=subprocess.PIPE if answers else subprocess.DEVNULL,
        stdout=subprocess.PIPE if answers else subprocess.DEVNULL,
        stderr=None if debug_wanted() else last_words,
        text=True,
        errors="replace",
        process_group=0,
    )


def cannot_start(error: OSError) -> Outcome:
    """Return the outcome of a job for which there was no process."""
    return Outcome(WorkerError.exit_code, f"cannot start a process: {error.strerror}")


def pipe(stream: IO[str] | None) -> IO[str]:
    """Return a stream that is known to be there."""
    assert stream is not None
    return stream
