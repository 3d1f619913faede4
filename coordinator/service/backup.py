"""A federation's state in one archive, taken while it runs.

SuperLink's database is copied by SQLite itself, so that the copy is of one moment; every other file
is only ever replaced whole. Logs and what Flower can unpack again are left out.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import tarfile
import tempfile
from pathlib import Path

from edgetrain.coordinator.service.place import Place
from edgetrain.errors import StorageError

__all__ = ["back_up"]


def back_up(place: Place, archive: Path) -> int:
    """Write the state to a compressed tar, for its owner alone; return the archive's bytes.

    Unpacked into an empty folder, it is a federation again. Raises StorageError, and then no
    archive is left.
    """
    draft = archive.with_name(f".{archive.name}.{os.getpid()}.tmp")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file, tarfile.open(fileobj=file, mode="w:gz") as tar:
            if place.database.exists():
                add_database(tar, place.database)
            kept = [place.settings, place.wish, place.state, place.secret]
            for folder in (place.authority, place.runs):
                kept += [folder, *folder.rglob("*")]
            for path in kept:
                # Old checkpoints and drafts of new ones come and go.
                with contextlib.suppress(FileNotFoundError):
                    tar.add(path, path.relative_to(place.folder), recursive=False)
        draft.replace(archive)
    except (OSError, sqlite3.Error) as error:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise StorageError(f"cannot write {archive}: {error}: choose another place") from error
    return archive.stat().st_size


def add_database(tar: tarfile.TarFile, database: Path) -> None:
    """Add a copy of a database that may be in use."""
    with tempfile.TemporaryDirectory(dir=database.parent) as folder:
        copy = Path(folder) / database.name
        with (
            contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as source,
            contextlib.closing(sqlite3.connect(copy)) as target,
        ):
            source.backup(target)
        tar.add(copy, database.name)
