"""All versions of a run, also those that the run itself lets go of."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOOK_SECONDS = 0.2
"""A run keeps three versions, and a round takes longer than this."""


@contextmanager
def all_versions_kept(checkpoints: Path, folder: Path) -> Iterator[None]:
    """Keep every version and journal in `folder`, also those that the run lets go of."""
    folder.mkdir()
    ended = threading.Event()

    def keep() -> None:
        for path in checkpoints.glob("version-*"):
            if path.suffix in (".safetensors", ".reports"):
                with contextlib.suppress(FileExistsError, FileNotFoundError):
                    (folder / path.name).hardlink_to(path)

    def watch() -> None:
        while not ended.wait(LOOK_SECONDS):
            keep()

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        keep()
