"""The control groups that this process is in, of version 1 or 2, as the kernel tells them.

Readers take the `root` under which /proc and /sys lie, so that tests can give them a tree of
fixtures. Raises DataError for a file that is there but makes no sense.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from edgetrain.errors import DataError
from edgetrain.memory_profiler.kernel_files import bytes_in, counter_in, text_of

__all__ = ["Group", "own_groups"]

# cgroup v1 says "no limit" with the largest page-aligned int64; no machine has 2**60 bytes.
UNLIMITED = 2**60


class Names(NamedTuple):
    """How one version calls the files of a group's memory, and the line of idle file pages."""

    limit: str
    usage: str
    idle: str


NAMES = {
    1: Names("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    2: Names("memory.max", "memory.current", "inactive_file"),
}


class Group(NamedTuple):
    """A control group: its version, its folder, and the top of what can be seen of its tree."""

    version: int
    folder: Path
    top: Path

    def upwards(self) -> Iterator[Group]:
        """Yield this group and each above it, up to the topmost that can be seen."""
        folder = self.folder
        while True:
            yield Group(self.version, folder, self.top)
            if folder == self.top:
                break
            folder = folder.parent

    def room(self) -> int | None:
        """Return the bytes left in this group, or None where it sets no limit or does not say."""
        names = NAMES[self.version]
        limit = bytes_in(self.folder / names.limit)
        usage = bytes_in(self.folder / names.usage)
        if limit is None or usage is None or limit >= UNLIMITED:
            return None
        # Pages of files that nobody has used lately count as usage, but go when they are asked.
        idle = counter_in(self.folder / "memory.stat", names.idle) or 0
        return max(0, limit - max(0, usage - idle))


def own_groups(root: Path) -> Iterator[Group]:
    """Yield the groups of this process in each tree that may limit memory."""
    memberships = dict(_memberships(root))
    for version, shown, top in _mounts(root):
        if version in memberships:
            # Inside a container the mount shows a part of the tree; membership may lie above it.
            inside = memberships[version].removeprefix(shown.rstrip("/")).strip("/")
            yield Group(version, top / inside, top)


def _memberships(root: Path) -> Iterator[tuple[int, str]]:
    """Yield (version, path) of this process's memory groups from /proc/self/cgroup."""
    for line in (text_of(root / "proc/self/cgroup") or "").splitlines():
        fields = line.split(":", 2)
        if len(fields) != 3:
            raise DataError(f"{root / 'proc/self/cgroup'} says {line!r}: expected `id:names:path`")
        _, controllers, path = fields
        if ".." in path.split("/"):
            # A group outside of what this process's name space shows.
            continue
        if controllers == "":
            yield 2, path
        elif "memory" in controllers.split(","):
            yield 1, path


def _mounts(root: Path) -> Iterator[tuple[int, str, Path]]:
    """Yield (version, part of the tree shown, mount point) of each tree that limits memory."""
    for line in (text_of(root / "proc/self/mountinfo") or "").splitlines():
        before, dash, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if not dash or len(fields) < 5 or not kind:
            raise DataError(f"{root / 'proc/self/mountinfo'} has a line that is none: {line!r}")
        point = root / fields[4].lstrip("/")
        if kind[0] == "cgroup2":
            yield 2, fields[3], point
        elif kind[0] == "cgroup" and "memory" in kind[-1].split(","):
            yield 1, fields[3], point
