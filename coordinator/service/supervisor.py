"""Processes that are kept running: who ends is started again, later each time that it fails soon.

One thread, one loop: whoever owns a Supervisor calls `tick` every second or so.
"""

from __future__ import annotations

import logging
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Program", "Supervisor"]

FIRST_WAIT, LONGEST_WAIT = 0.5, 60.0
"""Seconds before a program that ended is started again; doubled each time."""
STEADY_SECONDS = 60.0
"""A program that ran for so long has recovered: the next wait is the first again."""
STOP_SECONDS = 10.0
LARGEST_LOG = 16 << 20

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Program:
    """A command that is to be kept running; its output goes to `log`."""

    name: str
    command: tuple[str, ...]
    log: Path


class Child:
    """One program's process, if it runs, and what is known of the ones before."""

    def __init__(self, program: Program, environment: Mapping[str, str]) -> None:
        self.program = program
        self.environment = environment
        self.process: subprocess.Popen[bytes] | None = None
        self.restarts = -1
        self.wait = FIRST_WAIT
        self.due = 0.0
        self.begun = 0.0

    def tick(self, now: float) -> None:
        """Start the program when it is due; notice when it has ended."""
        if self.process is not None:
            code = self.process.poll()
            if code is None:
                return
            self.process = None
            self.wait = FIRST_WAIT if now - self.begun > STEADY_SECONDS else self.wait
            self.due = now + self.wait
            log.warning(
                "%s ended with %d; again in %.1f s; see %s",
                *(self.program.name, code, self.wait, self.program.log),
            )
            self.wait = min(2 * self.wait, LONGEST_WAIT)
        if now >= self.due:
            self._start(now)

    def _start(self, now: float) -> None:
        rotate(self.program.log)
        try:
            with self.program.log.open("ab") as output:
                self.process = subprocess.Popen(
                    self.program.command,
                    env=self.environment,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    cwd=self.program.log.parent,
                    # Ctrl-C is for whoever supervises, who then stops the rest in order.
                    start_new_session=True,
                )
        except OSError as error:
            log.error("cannot start %s: %s", self.program.name, error)
            self.due = now + LONGEST_WAIT
            return
        self.begun = now
        self.restarts += 1

    def seen(self) -> dict[str, Any]:
        """Return what there is to know about the program, as JSON has it."""
        pid = self.process.pid if self.process is not None else None
        return {"running": pid is not None, "pid": pid, "restarts": max(0, self.restarts)}


class Supervisor:
    """Programs that run together, started in their order and stopped in the opposite one."""

    def __init__(
        self,
        programs: Sequence[Program],
        environment: Mapping[str, str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.clock = clock
        self.children = [Child(program, environment) for program in programs]

    def tick(self) -> None:
        """Start what is due; to be called every second or so."""
        for child in self.children:
            child.tick(self.clock())

    def stop(self) -> None:
        """Ask all to end, then end them."""
        for child in reversed(self.children):
            if child.process is None:
                continue
            child.process.terminate()
            try:
                child.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                child.process.kill()
                child.process.wait()
            child.process = None

    def seen(self) -> dict[str, Any]:
        """Return every program by its name, as JSON has it."""
        return {child.program.name: child.seen() for child in self.children}


def rotate(path: Path) -> None:
    """Put a log aside that has grown too long; one older file is kept."""
    if path.exists() and path.stat().st_size > LARGEST_LOG:
        path.replace(path.with_name(path.name + ".1"))
