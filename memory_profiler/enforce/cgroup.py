"""A control group of its own for one command, with a memory limit that nothing in it can pass.

Versions 1 and 2. The command must be born inside: charges do not move with a process, so that one
which is moved in later has used memory that its group never counts. Swap is off, and memory.high
is never set: where there is no swap a process over it is stalled for minutes instead of stopped.

Everything takes the `root` under which /proc and /sys lie, so that tests can give a tree of
fixtures.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from edgetrain.errors import EnforceError
from edgetrain.memory_profiler.control_groups import Group, own_groups
from edgetrain.memory_profiler.kernel_files import bytes_in, counter_in, text_of

__all__ = ["SUPERVISOR", "ChildGroup", "make_group"]

ROOT = Path("/")
SUPERVISOR = "edgetrain-supervisor"
"""The group that holds whoever makes groups beside it, where version 2 wants it out of the way."""
PREFIX = "edgetrain-"
PATIENCE_SECONDS = 2.0
"""Processes that were killed are gone within this time, unless the kernel holds them."""
LOOK_SECONDS = 0.002
NUMBERS = itertools.count()


class Files(NamedTuple):
    """How a version calls what we write (name, value; {} is the limit) and read.

    What is optional may be missing from a kernel that was built without it.
    """

    limit: str
    optional: tuple[tuple[str, str], ...]
    usage: str
    peak: str
    kills: str


FILES = {
    1: Files(
        "memory.limit_in_bytes",
        (("memory.memsw.limit_in_bytes", "{}"), ("memory.swappiness", "0")),
        "memory.usage_in_bytes",
        "memory.max_usage_in_bytes",
        "memory.oom_control",
    ),
    2: Files(
        "memory.max",
        (("memory.swap.max", "0"), ("memory.oom.group", "1")),
        "memory.current",
        "memory.peak",
        "memory.events",
    ),
}


class ChildGroup:
    """A control group that was made for one command; whoever made it removes it.

    Attributes:
        version: 1 or 2.
        folder: where its files lie.
        procs: the file to write a process's number to, which is then inside.
    """

    def __init__(self, version: int, folder: Path) -> None:
        self.version = version
        self.folder = folder
        self.procs = folder / "cgroup.procs"
        self._files = FILES[version]

    def limit(self, memory: int) -> None:
        """Set the limit, in bytes, which the kernel rounds down to pages.

        Raises EnforceError where the kernel refuses, as it does below what is in use.
        """
        try:
            (self.folder / self._files.limit).write_text(f"{memory}")
        except OSError as error:
            raise EnforceError(
                f"{self.folder} takes no limit of {memory} bytes: {error.strerror}"
            ) from error
        for name, value in self._files.optional:
            with contextlib.suppress(OSError):
                (self.folder / name).write_text(value.format(memory))

    def usage_bytes(self) -> int | None:
        """Return the bytes charged to the group now, or None if unknown."""
        return bytes_in(self.folder / self._files.usage)

    def peak_bytes(self) -> int | None:
        """Return the most bytes ever charged to the group, or None where no kernel tells."""
        return bytes_in(self.folder / self._files.peak)

    def kills(self) -> int | None:
        """Return how many processes the kernel has killed here for want of memory, or None."""
        return counter_in(self.folder / self._files.kills, "oom_kill")

    def processes(self) -> list[int]:
        """Return the numbers of the processes inside, this one never among them."""
        words = (text_of(self.procs) or "").split()
        numbers = {int(word) for word in words if word.isdecimal() and word.isascii()}
        return sorted(numbers - {0, 1, os.getpid()})

    def kill(self) -> None:
        """End every process inside, however many there are and whatever they start meanwhile."""
        with contextlib.suppress(OSError):
            # Version 2 since Linux 5.14; elsewhere there is no such file, and none can be made.
            descriptor = os.open(self.folder / "cgroup.kill", os.O_WRONLY)
            with os.fdopen(descriptor, "w") as file:
                file.write("1")
            return
        for _ in patience():
            inside = self.processes()
            if not inside:
                return
            for number in inside:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(number, signal.SIGKILL)

    def remove(self) -> bool:
        """Remove the group, which must be empty by now, and return whether it is gone."""
        for _ in patience():
            try:
                self.folder.rmdir()
            except FileNotFoundError:
                return True
            except OSError:
                # A process that has just ended still stands in its group for a moment.
                continue
            return True
        return False


def make_group(memory: int, root: Path = ROOT) -> ChildGroup:
    """Return a new group with a limit of so many bytes, made inside or beside our own.

    Tried are the trees that this process is in; the first that lets us wins. Raises EnforceError,
    saying why for each of them, where there is none, and DataError for files that make no sense.
    """
    reasons = []
    for own in own_groups(root):
        try:
            parent = parent_of(own)
            remove_abandoned(parent, root)
            folder = parent / f"{PREFIX}{os.getpid()}-{next(NUMBERS)}"
            folder.mkdir()
        except EnforceError as error:
            reasons.append(str(error))
            continue
        except OSError as error:
            reasons.append(f"{own.folder} is not ours to write: {error.strerror}")
            continue
        group = ChildGroup(own.version, folder)
        try:
            group.limit(memory)
        except EnforceError as error:
            group.remove()
            reasons.append(str(error))
            continue
        return group
    raise EnforceError("; ".join(reasons) or "this process is in no group that counts memory")


def parent_of(own: Group) -> Path:
    """Return the folder in which groups with a limit can be made, and make it ready.

    Raises EnforceError saying why there is none, and OSError where we may not.
    """
    if own.version == 1:
        if bytes_in(own.folder / FILES[1].limit) is None:
            raise EnforceError(f"{own.folder} does not count memory")
        return own.folder
    folder = own.folder.parent if own.folder.name == SUPERVISOR else own.folder
    if "memory" not in words_in(folder / "cgroup.controllers"):
        raise EnforceError(f"{folder} does not count memory")
    if "memory" not in words_in(folder / "cgroup.subtree_control"):
        # No group but the topmost may hold both processes and groups that are limited.
        if (folder / "cgroup.type").exists():
            step_aside(folder)
        (folder / "cgroup.subtree_control").write_text("+memory")
    return folder


def step_aside(folder: Path) -> None:
    """Move the processes of a group of version 2 into a group inside it.

    Raises EnforceError where they are not ours to move: they are if the group was delegated to us
    (systemd's Delegate=yes), or if nobody but this process is in it.
    """
    inside = words_in(folder / "cgroup.procs")
    if not delegated(folder) and inside != {str(os.getpid())}:
        raise EnforceError(
            f"{folder} holds processes of others: start this in a unit with Delegate=yes"
        )
    aside = folder / SUPERVISOR
    aside.mkdir(exist_ok=True)
    for number in inside:
        with contextlib.suppress(ProcessLookupError):
            (aside / "cgroup.procs").write_text(number)


def delegated(folder: Path) -> bool:
    """Say whether systemd has marked a group as its service's own."""
    for name in ("user.delegate", "trusted.delegate"):
        with contextlib.suppress(OSError):
            if os.getxattr(folder, name) == b"1":
                return True
    return False


def remove_abandoned(parent: Path, root: Path) -> None:
    """Remove the empty groups that a supervisor left behind when it was killed."""
    for folder in parent.glob(f"{PREFIX}[0-9]*-[0-9]*"):
        maker = folder.name.removeprefix(PREFIX).partition("-")[0]
        if not (root / "proc" / maker).exists():
            with contextlib.suppress(OSError):
                folder.rmdir()


def words_in(path: Path) -> set[str]:
    """Return the words of a file, of which there are none where it cannot be read."""
    return set((text_of(path) or "").split())


def patience() -> Iterator[None]:
    """Yield at short intervals until PATIENCE_SECONDS have passed."""
    end = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < end:
        yield
        time.sleep(LOOK_SECONDS)
