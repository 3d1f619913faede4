"""Files that are replaced whole or not at all, whatever happens in between."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from edgetrain.errors import StorageError

__all__ = ["Buffer", "replace_file"]

Buffer = bytes | bytearray | memoryview


def replace_file(path: Path, parts: Iterable[Buffer], *, durable: bool = True) -> None:
    """Write a file beside `path`, then put it in its place in one step.

    `durable` waits for the disk, so that a power cut leaves the old file or the new one. Raises
    StorageError (a full disk, a folder that is missing or read-only) with the old file intact.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with draft.open("wb") as file:
            file.writelines(parts)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        draft.replace(path)
        if durable:
            sync_folder(path.parent)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise StorageError(
            f"cannot write {path}: {error.strerror}: what was there before is intact; "
            "free some space or choose another folder"
        ) from error


def sync_folder(folder: Path) -> None:
    """Wait until the disk holds a folder's names."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
