"""Finding and ending the processes of a service, also those that nobody supervises any more.

A service marks the environment of every process that it starts, and so of all that these start in
turn. A mark, unlike a list of process ids, outlives whoever was to keep the list.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from edgetrain.errors import ServiceError

__all__ = ["end_marked", "marked"]

PROCESSES = Path("/proc")
END_SECONDS = 10.0
LOOK_SECONDS = 0.02


def marked(mark: str, command: str = "") -> Iterator[int]:
    """Yield the ids of all processes but this one that have a mark, "NAME=VALUE".

    With `command`, of those in whose command line it stands.
    """
    for folder in PROCESSES.iterdir():
        if not folder.name.isdecimal() or int(folder.name) == os.getpid():
            continue
        try:
            # Of a process that has ended and was not waited for yet, both are empty.
            known = (folder / "environ").read_bytes().split(b"\0")
            if mark.encode() in known and command.encode() in (folder / "cmdline").read_bytes():
                yield int(folder.name)
        except OSError:
            continue


def end_marked(mark: str, command: str = "") -> int:
    """Kill what `marked` yields and return how many there were, once all of them are gone.

    Raises ServiceError for one that does not go.
    """
    doomed: set[int] = set()
    deadline = time.monotonic() + END_SECONDS
    while found := set(marked(mark, command)):
        if time.monotonic() > deadline:
            raise ServiceError(
                f"processes {sorted(found)} of an older service do not end: kill them"
            )
        for process in found:
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                continue
        doomed |= found
        time.sleep(LOOK_SECONDS)
    return len(doomed)
