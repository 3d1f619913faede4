"""supervise: run a command within its limits, and tell how it ended and what it used.

Who is over a limit is asked to stop (SIGTERM) and has a grace to finish what it is at. Whoever is
far over its memory, or not gone when the grace has passed, is killed. What a command has started
ends with it.
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from edgetrain.errors import EnforceError
from edgetrain.memory_profiler.enforce.cgroup import ChildGroup, make_group
from edgetrain.memory_profiler.enforce.enforced import Cause, Enforced
from edgetrain.memory_profiler.enforce.launch import Stream, launch
from edgetrain.memory_profiler.enforce.limits import (
    EARLY_SECONDS,
    HASTY_SECONDS,
    OVERSHOOT,
    PERIOD_SECONDS,
    Belt,
    Limits,
)
from edgetrain.memory_profiler.enforce.socket_filter import socket_filter
from edgetrain.memory_profiler.enforce.watchdog import Look, Watchdog, descendants

__all__ = ["Joules", "Supervised", "supervise"]

ROOT = Path("/")
LAST_WORDS = 8192
"""Bytes kept of what a command says on stderr."""
Joules = Callable[[], float | None]
"""Returns the joules used since the command began, or None while nobody knows."""


def supervise(
    command: Sequence[str],
    limits: Limits,
    *,
    joules: Joules | None = None,
    root: Path = ROOT,
    env: Mapping[str, str] | None = None,
    stdin: Stream = None,
    stdout: Stream = None,
    stderr: Stream = None,
) -> Enforced:
    """Run a command within its limits, and return how it ended.

    The arguments are those of Supervised. Raises WorkerError when it cannot be started.
    """
    with Supervised(
        command,
        limits,
        joules=joules,
        root=root,
        env=env,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
    ) as running:
        running.watch()
        return running.end()


class Supervised:
    """A command that runs within its limits; a context manager that leaves nothing of it behind.

    joules is asked at every look; without it there is no belt for energy. The end of stderr is
    kept where that is subprocess.PIPE; the other streams are the caller's, through `process`.
    Control groups are looked for under `root`; `no_group` says why there is none, and `no_filter`
    why it can use the network, in which case the other belts hold. Raises WorkerError when the
    command cannot be started.
    """

    def __init__(
        self,
        command: Sequence[str],
        limits: Limits,
        *,
        joules: Joules | None = None,
        root: Path = ROOT,
        env: Mapping[str, str] | None = None,
        stdin: Stream = None,
        stdout: Stream = None,
        stderr: Stream = None,
    ) -> None:
        self.limits = limits
        self.no_group = ""
        self.no_filter = ""
        self._joules = joules
        self._group = self._make_group(root)
        self._stopped: Cause | None = None
        self._forced = False
        self._peak: int | None = None
        self._words = b""
        self._ended: Enforced | None = None
        self._began = time.monotonic()
        try:
            self.process, unfiltered = launch(
                command,
                limits,
                self._group,
                self._make_filter(),
                env=env,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
            )
        except BaseException:
            if self._group:
                self._group.remove()
            raise
        self.no_filter = self.no_filter or unfiltered
        self._watchdog = Watchdog(self.process.pid)
        self._poll = select.poll()
        self._life = self._register_life()
        if self.process.stderr:
            os.set_blocking(self.process.stderr.fileno(), False)
            self._poll.register(self.process.stderr, select.POLLIN)

    def __enter__(self) -> Supervised:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    @property
    def belts(self) -> tuple[Belt, ...]:
        """What holds the command to its limits."""
        at_hand: dict[Belt, bool] = {
            "group": self._group is not None,
            "data": True,
            "watchdog": True,
            "seconds": True,
            "energy": self._joules is not None,
            "network": not self.no_filter,
        }
        return tuple(belt for belt, had in at_hand.items() if had and self.limits.wants(belt))

    @property
    def running(self) -> bool:
        """Whether the command has not ended yet; what it leaves to be waited for stays there."""
        if self.process.returncode is not None:
            return False
        asked = os.WEXITED | os.WNOWAIT | os.WNOHANG
        return os.waitid(os.P_PID, self.process.pid, asked) is None

    def watch(self, limits: Limits | None = None, answer: int | None = None) -> Cause | None:
        """Return when the command has ended or the descriptor `answer` has something to read.

        Returns why it was asked to stop, or None if it was not. The limits are those of the
        command unless others are given for this watch; time counts from its beginning.
        """
        limits = limits or self.limits
        began = time.monotonic()
        kill_at = math.inf
        self._stopped = None
        if answer is not None:
            self._poll.register(answer, select.POLLIN)
        wait = 0.0
        look: Look | None = None
        while not self._wait(wait, answer):
            now = time.monotonic()
            before, look = look, self._look()
            if self._stopped is None:
                self._stopped = self._over(limits, look, now - began)
                if self._stopped:
                    kill_at = now + limits.grace
                    self._signal(signal.SIGTERM)
            if self._stopped and (now >= kill_at or far_over(limits, look)):
                self._forced = True
                self.kill()
            hasty = self._stopped is not None or nearly_over(limits, look, before)
            left = began + limits.seconds - now if limits.seconds else math.inf
            # A command that has just begun may soon be over: it is looked at more often.
            period = min(PERIOD_SECONDS, max(EARLY_SECONDS, now - began))
            wait = HASTY_SECONDS if hasty else max(0.0, min(period, left))
        if answer is not None:
            self._poll.unregister(answer)
        return self._stopped

    def kill(self) -> None:
        """Kill the command and what it has started."""
        if self._group:
            self._group.kill()
        if self.process.returncode is None:
            for number in descendants(self.process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(number, signal.SIGKILL)
            self._signal(signal.SIGKILL)

    def end(self) -> Enforced:
        """Kill what still runs, remove the control group, and return how it was."""
        if self._ended is None:
            seconds = time.monotonic() - self._began
            self.kill()
            code = self.process.wait()
            self._keep_words()
            for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
                if stream:
                    # Bytes that a dead process has not read cannot be delivered.
                    with contextlib.suppress(BrokenPipeError):
                        stream.close()
            self._watchdog.close()
            if self._life is not None:
                os.close(self._life)
            self._ended = Enforced(
                code=code,
                cause=self._cause(code),
                forced=self._forced,
                seconds=seconds,
                rss_peak=self._peak,
                cgroup_peak=self._group.peak_bytes() if self._group else None,
                belts=self.belts,
                no_group=self.no_group,
                no_filter=self.no_filter,
                words=self._words.decode(errors="replace"),
            )
            if self._group:
                self._group.remove()
        return self._ended

    def _make_group(self, root: Path) -> ChildGroup | None:
        if self.limits.memory is None or not self.limits.wants("group"):
            return None
        try:
            return make_group(self.limits.memory, root)
        except EnforceError as error:
            self.no_group = str(error)
            return None

    def _make_filter(self) -> bytes:
        if not self.limits.wants("network"):
            return b""
        try:
            return socket_filter()
        except EnforceError as error:
            self.no_filter = str(error)
            return b""

    def _register_life(self) -> int | None:
        """Let the poll wake when the process ends; without it, that shows at the next look."""
        try:
            life = os.pidfd_open(self.process.pid)
        except OSError:
            return None
        self._poll.register(life, select.POLLIN)
        return life

    def _wait(self, seconds: float, answer: int | None) -> bool:
        """Return whether the command has ended, or answered, after at most so many seconds."""
        ready = {descriptor for descriptor, _ in self._poll.poll(1000 * seconds)}
        if self.process.stderr and self.process.stderr.fileno() in ready:
            self._keep_words()
        return answer in ready or not self.running

    def _keep_words(self) -> None:
        stream = self.process.stderr
        if stream is None or stream.closed:
            return
        while chunk := stream.read(LAST_WORDS):
            self._words = (self._words + chunk)[-LAST_WORDS:]
        if chunk is not None:
            # Nobody can write there any more, which a poll would tell again and again.
            with contextlib.suppress(KeyError):
                self._poll.unregister(stream)

    def _look(self) -> Look | None:
        look = self._watchdog.look()
        if look is not None:
            self._peak = max(self._peak or 0, look.peak)
        return look

    def _over(self, limits: Limits, look: Look | None, seconds: float) -> Cause | None:
        """Return which limit has been passed, if any."""
        if self._group and self._group.kills():
            return "memory_hard"
        if limits.wants("watchdog") and look and look.resident > (limits.memory or math.inf):
            return "memory_soft"
        if limits.wants("seconds") and seconds >= (limits.seconds or math.inf):
            return "seconds"
        if limits.wants("energy") and self._joules:
            used = self._joules()
            if used is not None and used >= (limits.energy or math.inf):
                return "energy"
        return None

    def _cause(self, code: int) -> Cause:
        if self._group and self._group.kills():
            return "memory_hard"
        return self._stopped or ("killed" if code < 0 else "finished")

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)


def nearly_over(limits: Limits, look: Look | None, before: Look | None) -> bool:
    """Say whether another two periods of such growth would pass the limit of memory."""
    if limits.memory is None or look is None or before is None:
        return False
    return look.resident + 2 * (look.resident - before.resident) > limits.memory


def far_over(limits: Limits, look: Look | None) -> bool:
    """Say whether there is no time left to ask."""
    if limits.memory is None or look is None or not limits.wants("watchdog"):
        return False
    return look.resident > limits.memory + OVERSHOOT
