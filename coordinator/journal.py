"""The reports that a round counts, on the disk before they count: none is lost, none counts twice.

A file belongs to one version of the model. It has a head and, one after another, frames:

    head     "edgetrain-reports 1 SHA256\\n", of the model's version to its last bit
    frame    lengths of fields, report and sent (u32, u64, u64, little endian)
             sha256 of these three, and the three themselves:
      fields   JSON: who sent it, how many bytes travelled, when in the round
      report   the Report as it came (edgetrain.task)
      sent     a tensor file: what the device was sent of the tensors that travel whole, where that
               was an older version; so that a file and its checkpoint are all that a fold needs

What is torn at the end was never counted, and is cut off.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import struct
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from edgetrain import tensorfile
from edgetrain.coordinator.answer import Answer, Member
from edgetrain.errors import PayloadError, StorageError
from edgetrain.storage import append_whole, map_file, sync_folder
from edgetrain.task import Report
from edgetrain.tensorfile import State

__all__ = ["Entry", "Journal", "read_journal"]

HEAD = "edgetrain-reports 1 "
LENGTHS = struct.Struct("<IQQ")
DIGEST_BYTES = hashlib.sha256().digest_size

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Entry:
    """A report that counts, all that a fold needs beside the model, and when in the round it came.

    `sent` is None for a report about the round's own version.
    """

    answer: Answer
    seconds: float
    sent: State | None = field(default=None, repr=False)

    @classmethod
    def of(cls, answer: Answer, version: int, seconds: float) -> Entry:
        """Return the entry of an answer with a report, in the round about a version."""
        report, task = answer.report, answer.task
        if report is None or task is None or task.version == version:
            return cls(answer, seconds)
        whole = {name: tensor for name, tensor in task.state.items() if name in report.update}
        return cls(answer, seconds, whole)

    def encode(self) -> bytes:
        """Return the entry's frame. Raises ValueError where there is no report."""
        answer = self.answer
        if answer.report is None:
            raise ValueError("an entry without a report")
        fields = {
            "member": asdict(answer.member),
            "status": answer.status,
            "reason": answer.reason,
            "uplink_bytes": answer.uplink_bytes,
            "downlink_bytes": answer.downlink_bytes,
            "seconds": self.seconds,
        }
        parts = [
            json.dumps(fields).encode("utf-8"),
            answer.report.encode(),
            tensorfile.encode(self.sent, {}) if self.sent else b"",
        ]
        lengths = LENGTHS.pack(*map(len, parts))
        return b"".join([lengths, digest_of(lengths, *parts), *parts])

    @classmethod
    def decode(cls, fields: memoryview, report: memoryview, sent: memoryview) -> Entry:
        """Return the entry in a frame's parts; its tensors are views. Raises PayloadError."""
        try:
            found: dict[str, Any] = json.loads(bytes(fields))
            seconds = float(found.pop("seconds"))
            member = Member(**found.pop("member"))
            answer = Answer(member=member, report=Report.read(report), **found)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise PayloadError(f"a journal's entry is not one: {error}") from error
        return cls(answer, seconds, tensorfile.decode(sent)[0] if sent else None)


def digest_of(*parts: bytes | memoryview) -> bytes:
    """Return the sha256 of bytes one after another."""
    state = hashlib.sha256()
    for part in parts:
        state.update(part)
    return state.digest()


class Journal:
    """The journal of a round, opened to go on with it; a context manager.

    `model` is the sha256 of the version that the round is about: what was written about another
    is no part of it and is dropped. Raises StorageError when the file cannot be had.
    """

    def __init__(self, path: Path, model: str) -> None:
        self.path = path
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        with self._or_storage_error("open"):
            self._file = os.open(path, flags, 0o644)
        try:
            self._recover(f"{HEAD}{model}\n".encode("ascii"))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._file)

    def entries(self) -> Iterator[Entry]:
        """Yield what the file held, one at a time."""
        yield from read_journal(self.path)

    def append(self, entry: Entry) -> None:
        """Write an entry and wait until the disk holds it.

        Raises StorageError, and then the file is as it was.
        """
        raw = entry.encode()
        with self._or_storage_error("write"):
            append_whole(self._file, raw, self._size)
        self._size += len(raw)

    def _recover(self, head: bytes) -> None:
        """Cut off what is torn or about another model, and write the head where there is none."""
        with self._or_storage_error("read"):
            size = os.fstat(self._file).st_size
        content = map_file(self.path)
        if bytes(content[: len(head)]) == head:
            self._size = max((end for _, end in frames(content, len(head))), default=len(head))
            kept = self._size
        else:
            self._size, kept = len(head), 0
        if kept < size:
            log.warning("%s: dropped %d bytes that are no part of it", self.path, size - kept)
        with self._or_storage_error("write"):
            os.ftruncate(self._file, kept)
            if not kept:
                append_whole(self._file, head, 0)
                sync_folder(self.path.parent)

    @contextlib.contextmanager
    def _or_storage_error(self, verb: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StorageError(
                f"cannot {verb} {self.path}: {error.strerror}: what was counted before is intact; "
                "free some space or choose another folder"
            ) from error


def read_journal(path: Path) -> Iterator[Entry]:
    """Yield a journal's entries, one at a time, up to what is torn.

    Raises DataError for a file that cannot be read, PayloadError for one that is no journal.
    """
    content = map_file(path)
    head = bytes(content[: len(HEAD) + 64 + 1])
    if not head.startswith(HEAD.encode("ascii")) or not head.endswith(b"\n"):
        raise PayloadError(f"{path} is no journal of reports")
    for parts, _ in frames(content, len(head)):
        yield Entry.decode(*parts)


def frames(content: memoryview, start: int) -> Iterator[tuple[list[memoryview], int]]:
    """Yield the parts of each whole frame, and where it ends."""
    while True:
        begin = start + LENGTHS.size + DIGEST_BYTES
        if begin > len(content):
            return
        lengths = LENGTHS.unpack_from(content, start)
        ends = [begin + sum(lengths[: count + 1]) for count in range(len(lengths))]
        if ends[-1] > len(content):
            return
        starts = [begin, *ends[:-1]]
        parts = [content[one:other] for one, other in zip(starts, ends, strict=True)]
        told = content[start + LENGTHS.size : begin]
        if digest_of(content[start : start + LENGTHS.size], *parts) != told:
            return
        yield parts, ends[-1]
        start = ends[-1]
