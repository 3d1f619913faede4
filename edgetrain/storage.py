"""Files that are replaced, or grow, whole or not at all, whatever happens in between."""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Iterable
from pathlib import Path

from edgetrain.errors import DataError, StorageError

__all__ = [
    "Buffer",
    "append_whole",
    "forget_pages",
    "map_file",
    "replace_file",
    "sync_folder",
]

Buffer = bytes | bytearray | memoryview
PRIVATE, SHARED = 0o600, 0o666
"""Permissions of a new file, before the umask."""


def map_file(path: Path) -> memoryview:
    """Return a file's bytes as a read-only view of the mapped file.

    The file may be removed or replaced meanwhile; the view keeps what was mapped. Raises
    DataError when it cannot be opened.
    """
    try:
        with path.open("rb") as file:
            if not os.fstat(file.fileno()).st_size:
                return memoryview(b"")
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a regular file"
        raise DataError(f"cannot read {path}: {reason}: check the path") from error


def forget_pages(mapped: memoryview) -> None:
    """Give back the memory of what map_file returned; it is read anew where it is looked at."""
    if isinstance(mapped.obj, mmap.mmap):
        mapped.obj.madvise(mmap.MADV_DONTNEED)


def replace_file(
    path: Path, parts: Iterable[Buffer], *, durable: bool = True, private: bool = False
) -> None:
    """Write a file beside `path`, then put it in its place in one step.

    `durable` waits for the disk, so that a power cut leaves the old file or the new one. `private`
    is for a secret: nobody but the owner may ever read it. Raises StorageError (a full disk, a
    folder that is missing or read-only) with the old file intact.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        mode = PRIVATE if private else SHARED
        with open(draft, "wb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            file.writelines(parts)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        draft.replace(path)
        if durable:
            sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise StorageError(
            f"cannot write {path}: {error.strerror}: what was there before is intact; "
            "free some space or choose another folder"
        ) from error


def append_whole(descriptor: int, raw: bytes, size: int) -> None:
    """Write bytes at the end of a file of `size` bytes, opened to append, and wait for the disk.

    Raises OSError, with the file cut to what it held before where the system lets us.
    """
    try:
        rest = memoryview(raw)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    except OSError:
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, size)
        raise


def sync_folder(folder: Path) -> None:
    """Wait until the disk holds a folder's names."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
