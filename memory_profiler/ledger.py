"""A device's account book: what every task was promised and what it used, for anyone to check.

A ledger is a file of lines (see ledger_line) that only grows. Before a task runs, its `intent` is
on the disk; afterwards its `outcome` is. Whoever is ended in between leaves an intent without an
outcome, which the next opening closes as "interrupted"; a last line that was never written whole
is cut off. Every line vouches for the one before it, so that nothing can be changed, left out or
put in unseen, except at the end: who can write the file can also take off its last lines, and is
found out only by someone who remembers `Verdict.digest`.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from edgetrain.errors import DataError, PayloadError, StorageError
from edgetrain.memory_profiler.ledger_line import (
    MAX_LINE,
    PREFIX,
    START,
    Intent,
    Line,
    Outcome,
    Totals,
    digest,
)
from edgetrain.storage import append_whole, sync_folder

__all__ = ["Break", "Ledger", "Verdict", "read", "verify"]

INTERRUPTED = "whoever ran the task was ended, or failed, before it was known what became of it"

log = logging.getLogger(__name__)


class Ledger:
    """A ledger opened for one task; a context manager that holds it locked until it is left.

    Whoever else wants it waits, in this process or another: two tasks of one device at a time
    would exceed what its owner allows one. Opening creates the file, cuts off a torn last line
    and closes an interrupted task; `recovered` says what was done, in words. Raises StorageError
    when the file cannot be had or written (what it held is intact), PayloadError when its end is
    not that of a ledger.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.recovered: tuple[str, ...] = ()
        self._last: Line | None = None
        self._digest = START
        new = not self.path.exists()
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        with self._or_storage_error("open"):
            self._file = os.open(self.path, flags, 0o644)
        try:
            with self._or_storage_error("lock"):
                fcntl.flock(self._file, fcntl.LOCK_EX)
            if new:
                with self._or_storage_error("create"):
                    sync_folder(self.path.parent)
            self._size = os.fstat(self._file).st_size
            self._resume()
        except BaseException:
            os.close(self._file)
            raise

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file and its lock."""
        os.close(self._file)

    @property
    def totals(self) -> Totals:
        """The sums over all outcomes so far."""
        return self._last.totals if self._last else Totals()

    @property
    def lines(self) -> int:
        """How many lines there are."""
        return self._last.number + 1 if self._last else 0

    @property
    def head(self) -> str:
        """The sha256 of the last line, which stands for all of them."""
        return self._digest

    def begin(self, intent: Intent) -> None:
        """Write what a task is about to use, and wait until the disk holds it."""
        self._append(intent, self.totals)

    def end(self, outcome: Outcome) -> None:
        """Write what became of the task, and wait until the disk holds it."""
        self._append(outcome, self.totals.plus(outcome))

    def _append(self, entry: Intent | Outcome, totals: Totals) -> None:
        line = Line(self.lines, self._digest, round(time.time(), 3), entry, totals)
        if fault := misplaced(entry, self._last):
            raise ValueError(fault)
        raw = line.encode()
        # What is written must be readable: a rule that a caller broke shows here, not later.
        Line.decode(raw)
        with self._or_storage_error("write"):
            append_whole(self._file, raw, self._size)
        self._size += len(raw)
        self._last, self._digest = line, digest(raw)

    def _resume(self) -> None:
        """Read the end of the file, and mend what an interruption has left there."""
        with self._or_storage_error("read"):
            tail = os.pread(self._file, 2 * MAX_LINE, max(0, self._size - 2 * MAX_LINE))
        end = tail.rfind(b"\n") + 1
        torn = tail[end:]
        # A power cut may leave zeros where bytes should be; anything else is somebody's own file.
        if torn.rstrip(b"\0")[: len(PREFIX)] != PREFIX[: len(torn.rstrip(b"\0"))]:
            raise self._no_ledger("its last line is none of a ledger")
        if end:
            raw = tail[tail.rfind(b"\n", 0, end - 1) + 1 : end]
            try:
                self._last, self._digest = Line.decode(raw), digest(raw)
            except PayloadError as error:
                raise self._no_ledger(f"its last line is broken: {error}") from error
        if torn:
            with self._or_storage_error("mend"):
                os.ftruncate(self._file, self._size - len(torn))
                os.fsync(self._file)
            self._size -= len(torn)
            self._tell(f"cut off {len(torn)} bytes of a last line that was never written whole")
        if self._last and isinstance(self._last.entry, Intent):
            opened = self._last.entry
            self.end(Outcome("interrupted", INTERRUPTED))
            self._tell(f"version {opened.version} for {opened.device!r} was interrupted")

    def _tell(self, what: str) -> None:
        log.warning("%s: %s", self.path, what)
        self.recovered += (what,)

    def _no_ledger(self, reason: str) -> PayloadError:
        return PayloadError(
            f"{self.path}: {reason}: see `edgetrain-profile verify`, then move the file away to "
            "begin another"
        )

    @contextlib.contextmanager
    def _or_storage_error(self, verb: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StorageError(
                f"cannot {verb} the ledger {self.path}: {error.strerror}: what it held is intact; "
                "free some space or choose another folder"
            ) from error


@dataclass(frozen=True)
class Break:
    """The first line that is not what it should be, counted from 1, and why."""

    line: int
    reason: str


@dataclass(frozen=True)
class Verdict:
    """What checking a ledger has shown.

    Attributes:
        lines: whole lines that are right, before the first that is not.
        totals: the sums over their outcomes.
        running: whether the last of them is an intent: a task runs, or was interrupted.
        digest: sha256 of the last of them; who keeps it can tell later if the end was taken off.
        broken: the first line that is wrong, or None.
    """

    lines: int
    totals: Totals
    running: bool
    digest: str
    broken: Break | None


def verify(path: Path | str) -> Verdict:
    """Return whether a ledger's chain, order and sums are right, from its first line to its last.

    A ledger in use may be checked at any time. Raises DataError when it cannot be read.
    """
    last: Line | None = None
    before = START
    broken = None
    with opened(path) as file:
        for raw in raw_lines(file):
            try:
                line = checked(raw, last, before)
            except PayloadError as error:
                broken = Break(last.number + 2 if last else 1, str(error))
                break
            last, before = line, digest(raw)
    return Verdict(
        lines=last.number + 1 if last else 0,
        totals=last.totals if last else Totals(),
        running=last is not None and isinstance(last.entry, Intent),
        digest=before,
        broken=broken,
    )


def read(path: Path | str) -> Iterator[Line]:
    """Yield the lines of a ledger up to the first that `verify` would name.

    Raises DataError when it cannot be read.
    """
    last: Line | None = None
    before = START
    with opened(path) as file:
        for raw in raw_lines(file):
            try:
                last, before = checked(raw, last, before), digest(raw)
            except PayloadError:
                return
            yield last


def checked(raw: bytes, last: Line | None, before: str) -> Line:
    """Return the line in these bytes, which must follow `last`, whose digest is `before`.

    Raises PayloadError saying what is wrong.
    """
    line = Line.decode(raw)
    number = last.number + 1 if last else 0
    if line.number != number:
        raise PayloadError(f"it says that it is line {line.number + 1}")
    if line.previous != before:
        raise PayloadError("it does not follow from the line before it")
    if fault := misplaced(line.entry, last):
        raise PayloadError(fault)
    totals = last.totals if last else Totals()
    due = totals.plus(line.entry) if isinstance(line.entry, Outcome) else totals
    if line.totals != due:
        raise PayloadError("its sums are not those of the outcomes up to it")
    return line


def misplaced(entry: Intent | Outcome, last: Line | None) -> str:
    """Return why an entry cannot follow a line, or nothing."""
    running = last is not None and isinstance(last.entry, Intent)
    if isinstance(entry, Intent) and running:
        return "it is an intent, and the task before it has no outcome"
    if isinstance(entry, Outcome) and not running:
        return "it is an outcome, and no intent stands before it"
    return ""


@contextlib.contextmanager
def opened(path: Path | str) -> Iterator[BinaryIO]:
    """Open a ledger for reading. Raises DataError when it cannot be read."""
    try:
        with Path(path).open("rb") as file:
            yield file
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}: check the path") from error


def raw_lines(file: BinaryIO) -> Iterator[bytes]:
    """Yield the file's lines, newlines included; of one that is too long, a part."""
    while raw := file.readline(MAX_LINE):
        yield raw
