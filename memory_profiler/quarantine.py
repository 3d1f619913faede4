"""Quarantine: what a killed plan teaches, so that no plan is tried again as it was.

Beside its ledger a device keeps a small file: for each kind of task the memory below which the next
plan must stay, because one that may take so much was killed. It only ever falls, and so a plan is
never retried unchanged. Removing the file forgives everything.
"""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

from edgetrain.errors import PayloadError
from edgetrain.fields import check_fields, whole
from edgetrain.storage import replace_file
from edgetrain.task import Task
from edgetrain.tensorfile import parse_json

__all__ = ["Quarantine"]

SUFFIX = ".quarantine"
MOST_ENTRIES = 64
"""The oldest makes room: a device trains few models at a time."""
MAX_BYTES = 1 << 14
DIGEST_CHARACTERS = 32


class Quarantine:
    """The file beside a ledger, read and written whole."""

    def __init__(self, ledger: Path) -> None:
        self.path = ledger.with_name(ledger.name + SUFFIX)

    def ceiling(self, task: Task) -> int | None:
        """Return the bytes below which a plan for such a task must stay, or None for any.

        Raises PayloadError for a file that is damaged.
        """
        return self._read().get(key_of(task))

    def lower(self, task: Task, may_take: float) -> None:
        """Remember that a plan which may take so many bytes was killed.

        Raises PayloadError for a file that is damaged, StorageError where it cannot be written.
        """
        entries, key = self._read(), key_of(task)
        below = min(int(may_take) - 1, entries.pop(key, int(may_take)))
        entries[key] = max(below, 1)
        kept = dict(list(entries.items())[-MOST_ENTRIES:])
        replace_file(self.path, [json.dumps(kept).encode() + b"\n"])

    def _read(self) -> dict[str, int]:
        try:
            with self.path.open("rb") as file:
                raw = file.read(MAX_BYTES + 1)
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise PayloadError(f"cannot read {self.path}: {error.strerror}") from error
        try:
            if len(raw) > MAX_BYTES:
                raise PayloadError("it is too long")
            fields: Any = parse_json(raw.decode("ascii"))
            rules = dict.fromkeys(fields, whole(1, 1 << 50)) if isinstance(fields, dict) else {}
            return check_fields(fields, rules, "quarantine")
        except (PayloadError, UnicodeDecodeError) as error:
            raise PayloadError(
                f"{self.path} is damaged ({error}): remove it, and killed plans may be tried again"
            ) from None


def key_of(task: Task) -> str:
    """Return what tasks have in common whose plans take the same memory."""
    told = f"{task.model.to_json()} {task.mode} {task.batch} {task.kind} {task.codec}"
    return sha256(told.encode()).hexdigest()[:DIGEST_CHARACTERS]
