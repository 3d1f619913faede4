"""Looks at what a command and all that it has started have resident, fifty times a second.

Resident memory counts pages that are shared with others, and so errs on the careful side. A look
takes some 20 microseconds, because the file that tells is opened once: a device has better to do.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

__all__ = ["Look", "Watchdog", "descendants"]

ROOT = Path("/")
MAX_FILE = 1 << 16
PEAK = re.compile(rb"^VmHWM:\s*([0-9]{1,15}) kB$", re.MULTILINE)
RESIDENT = re.compile(rb"^VmRSS:\s*([0-9]{1,15}) kB$", re.MULTILINE)


class Look(NamedTuple):
    """Bytes of a process and its descendants: resident now, and the most the process ever had."""

    resident: int
    peak: int


class Watchdog:
    """Looks at one process and its descendants.

    Where the kernel does not tell children (no CONFIG_PROC_CHILDREN) it sees the process alone.
    """

    def __init__(self, process: int, root: Path = ROOT) -> None:
        self._process = process
        self._proc = str(root / "proc")
        self._status: int | None = None
        with contextlib.suppress(OSError):
            self._status = os.open(f"{self._proc}/{process}/status", os.O_RDONLY | os.O_CLOEXEC)

    def look(self) -> Look | None:
        """Return what is resident, or None if the process has ended or nobody tells."""
        if self._status is None:
            return None
        try:
            text = os.pread(self._status, MAX_FILE, 0)
        except OSError:
            return None
        resident, peak = kilobytes(RESIDENT, text), kilobytes(PEAK, text)
        if resident is None or peak is None:
            return None
        for descendant in descendants(self._process, self._proc):
            status = content(f"{self._proc}/{descendant}/status")
            resident += kilobytes(RESIDENT, status) or 0
        return Look(resident, max(peak, resident))

    def close(self) -> None:
        """Let go of the file."""
        if self._status is not None:
            os.close(self._status)
        self._status = None


def descendants(process: int, proc: str = "/proc") -> Iterator[int]:
    """Yield the numbers of the processes that a process has started, and those of theirs."""
    seen, waiting = {process}, [process]
    while waiting:
        for child in children(waiting.pop(), proc):
            if child not in seen:
                seen.add(child)
                waiting.append(child)
                yield child


def children(process: int, proc: str) -> Iterator[int]:
    """Yield the numbers of the processes that any thread of a process has started."""
    try:
        threads = os.listdir(f"{proc}/{process}/task")  # noqa: PTH208 - pathlib is slow
    except OSError:
        return
    for thread in threads:
        for word in content(f"{proc}/{process}/task/{thread}/children").split():
            if word.isdigit():
                yield int(word)


def content(path: str) -> bytes:
    """Return what a file of the kernel's holds, or nothing where it cannot be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(descriptor, MAX_FILE)
    except OSError:
        return b""
    finally:
        os.close(descriptor)


def kilobytes(pattern: re.Pattern[bytes], text: bytes) -> int | None:
    """Return the bytes in a line of kilobytes, or None where there is no such line."""
    found = pattern.search(text)
    return 1024 * int(found[1]) if found else None
