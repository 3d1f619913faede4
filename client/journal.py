"""What a device has taken on: a file of events, each of them on the disk before the next step.

A line is a checksum, a space and one JSON object. A line that was cut off by a loss of power, and
whatever follows it, was never acted upon: it is taken off when the journal is opened.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgetrain.errors import StorageError
from edgetrain.storage import append_whole, replace_file, sync_folder

__all__ = ["Journal", "read_events"]

Event = Mapping[str, Any]


class Journal:
    """The events since the journal was last empty. Raises StorageError where it cannot be kept."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.events, self._size = read_events(path)
        if path.exists() and path.stat().st_size > self._size:
            self._cut()

    def append(self, event: Event) -> None:
        """Add an event, and return when the disk holds it."""
        line = write_line(event)
        is_new = not self.path.exists()
        try:
            with self.path.open("ab", buffering=0) as file:
                append_whole(file.fileno(), line, self._size)
        except OSError as error:
            raise StorageError(
                f"cannot write {self.path}: {error.strerror}: free some space"
            ) from error
        if is_new:
            sync_folder(self.path.parent)
        self.events.append(event)
        self._size += len(line)

    def clear(self) -> None:
        """Forget all events, in one step."""
        replace_file(self.path, [])
        self.events.clear()
        self._size = 0

    def _cut(self) -> None:
        """Take off what lies behind the last whole event."""
        try:
            os.truncate(self.path, self._size)
        except OSError as error:
            raise StorageError(f"cannot write {self.path}: {error.strerror}") from error


def read_events(path: Path) -> tuple[list[Event], int]:
    """Return the whole events in a file, none where there is none, and the bytes they take.

    Raises StorageError when it cannot be read.
    """
    try:
        raw = path.read_bytes() if path.exists() else b""
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}") from error
    events: list[Event] = []
    size = 0
    for line in raw.splitlines(keepends=True):
        event = read_line(line)
        if event is None:
            break
        events.append(event)
        size += len(line)
    return events, size


def write_line(event: Event) -> bytes:
    """Return an event as a line."""
    body = json.dumps(event, allow_nan=False, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(body), body)


def read_line(line: bytes) -> Event | None:
    """Return the event in a line, or None for one that is damaged or not whole."""
    checksum, _, body = line.partition(b" ")
    if not body.endswith(b"\n") or checksum != b"%08x" % zlib.crc32(body[:-1]):
        return None
    try:
        event = json.loads(body)
    except ValueError:
        return None
    return event if isinstance(event, dict) else None
