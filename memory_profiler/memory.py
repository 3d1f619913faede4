"""What the kernel says about memory: this process's peak, and what is left for a new one.

Peaks are VmHWM, the high-water mark of resident memory. `ru_maxrss` is not used anywhere: a child
inherits the peak of the parent that forked it, and would be blamed for it.

Every reader takes the `root` under which /proc and /sys lie, so that tests can give it a tree of
fixtures. What the kernel does not tell is None, never 0; what it tells in a form that nobody
understands is a DataError.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from edgetrain.errors import DataError, WorkerError

__all__ = [
    "PROBE_SAMPLES",
    "WORKER",
    "available_bytes",
    "peak_bytes",
    "probe_base",
    "reset_peak",
    "resident_bytes",
    "worker_command",
    "worker_environment",
]

ROOT = Path("/")
WORKER = "edgetrain.client.worker"
PROBE_SAMPLES = 5
PROBE_SECONDS = 60
# glibc's own first values, which it would raise by up to 64 MiB as buffers come and go. Held where
# they are, what a worker frees goes back to the system, and what it holds can be foretold.
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}
# cgroup v1 says "no limit" with the largest page-aligned int64; no machine has 2**60 bytes.
UNLIMITED = 2**60


def reset_peak(root: Path = ROOT) -> bool:
    """Restart this process's high-water mark at its present resident memory.

    Returns False where the kernel does not offer it (no CONFIG_PROC_PAGE_MONITOR, or not
    allowed): the next peak is then that of the whole life of the process.
    """
    try:
        (root / "proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def peak_bytes(root: Path = ROOT) -> int | None:
    """Return the most memory this process has had resident, in bytes, or None if unknown."""
    return _table_bytes(root / "proc/self/status", "VmHWM")


def resident_bytes(root: Path = ROOT) -> int | None:
    """Return the memory this process has resident now, in bytes, or None if unknown."""
    return _table_bytes(root / "proc/self/status", "VmRSS")


def available_bytes(root: Path = ROOT) -> int | None:
    """Return the bytes that a new process could still use, or None if nothing is known.

    That is the least of the kernel's MemAvailable and, for every control group that this process
    is in (version 1 or 2, up to the root), its limit less what it uses and cannot give back.
    Raises DataError for a file that is there but makes no sense.
    """
    known = [_table_bytes(root / "proc/meminfo", "MemAvailable"), *_group_rooms(root)]
    return min((room for room in known if room is not None), default=None)


def worker_command(worker: str = WORKER, *arguments: str) -> list[str]:
    """Return the command line of a training worker, so that probe and training start alike.

    Neither the working folder (-P) nor the user's own packages (-s) can shadow what is installed.
    """
    return [sys.executable, "-P", "-s", "-m", worker, *arguments]


def worker_environment() -> dict[str, str]:
    """Return the environment of a training worker: this process's, and a frugal allocator."""
    return {**ALLOCATOR, **os.environ}


@cache
def probe_base(worker: str = WORKER, samples: int = PROBE_SAMPLES) -> int:
    """Return the peak memory in bytes of a training worker that trains next to nothing.

    The median over fresh processes of the real worker, each of which does the smallest task there
    is, so that all of a task's code is in memory, and reports its own VmHWM. Probed once in the
    life of the calling process. Raises WorkerError when the worker cannot be started or does not
    answer with a number.
    """
    return sorted(_probe_once(worker) for _ in range(samples))[samples // 2]


def _probe_once(worker: str) -> int:
    # Imported here because a worker, which imports this module, must not pay for it.
    import subprocess  # noqa: PLC0415

    command = worker_command(worker, "--probe")
    try:
        answer = subprocess.run(
            command,
            env=worker_environment(),
            capture_output=True,
            text=True,
            timeout=PROBE_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise WorkerError(f"the memory probe `{' '.join(command)}` did not run: {error}") from error
    if answer.returncode != 0 or not answer.stdout.strip().isdigit():
        last = (answer.stderr.strip() or answer.stdout.strip() or "no output").splitlines()[-1]
        raise WorkerError(
            f"the memory probe `{' '.join(command)}` ended with {answer.returncode} ({last}): "
            "run it by hand to see why"
        )
    return int(answer.stdout)


def _read(path: Path) -> str | None:
    """Return a file's text, or None where there is no such file or it may not be read."""
    try:
        return path.read_text()
    except OSError:
        return None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not text: is it really the kernel's?") from error


def _table_bytes(path: Path, name: str) -> int | None:
    """Return the bytes in the line `name:  N kB` of a file of the proc file system."""
    for line in (_read(path) or "").splitlines():
        key, _, value = line.partition(":")
        if key != name:
            continue
        number, _, unit = value.strip().partition(" ")
        if not (number.isdecimal() and number.isascii() and unit.strip() == "kB"):
            raise DataError(f"{path} says {line.strip()!r}: expected `{name}: <count> kB`")
        return int(number) * 1024
    return None


def _group_rooms(root: Path) -> Iterator[int | None]:
    """Yield the room in each control group of this process, from its own to the topmost."""
    memberships = dict(_memberships(root))
    for version, top, point in _group_mounts(root):
        if version not in memberships:
            continue
        # Inside a container the mount shows a part of the tree only; membership may lie above it.
        inside = memberships[version].removeprefix(top.rstrip("/")).strip("/")
        folder = point / inside
        while True:
            yield _room(version, folder)
            if folder == point:
                break
            folder = folder.parent


def _memberships(root: Path) -> Iterator[tuple[int, str]]:
    """Yield (version, path) of this process's memory groups from /proc/self/cgroup."""
    for line in (_read(root / "proc/self/cgroup") or "").splitlines():
        fields = line.split(":", 2)
        if len(fields) != 3:
            raise DataError(f"{root / 'proc/self/cgroup'} says {line!r}: expected `id:names:path`")
        _, controllers, path = fields
        if controllers == "":
            yield 2, path
        elif "memory" in controllers.split(","):
            yield 1, path


def _group_mounts(root: Path) -> Iterator[tuple[int, str, Path]]:
    """Yield (version, part of the tree shown, mount point) of each tree that limits memory."""
    for line in (_read(root / "proc/self/mountinfo") or "").splitlines():
        before, dash, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if not dash or len(fields) < 5 or not kind:
            raise DataError(f"{root / 'proc/self/mountinfo'} has a line that is none: {line!r}")
        point = root / fields[4].lstrip("/")
        if kind[0] == "cgroup2":
            yield 2, fields[3], point
        elif kind[0] == "cgroup" and "memory" in kind[-1].split(","):
            yield 1, fields[3], point


FILES = {
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    2: ("memory.max", "memory.current", "inactive_file"),
}


def _room(version: int, folder: Path) -> int | None:
    """Return the bytes left in one group, or None where it sets no limit or does not say."""
    limit_file, usage_file, cached = FILES[version]
    limit = _group_bytes(folder / limit_file)
    usage = _group_bytes(folder / usage_file)
    if limit is None or usage is None or limit >= UNLIMITED:
        return None
    # Pages of files that nobody has used lately count as usage, but go as soon as they are asked.
    return max(0, limit - max(0, usage - _reclaimable(folder / "memory.stat", cached)))


def _group_bytes(path: Path) -> int | None:
    text = (_read(path) or "").strip()
    if text in ("", "max"):
        return None
    if not (text.isdecimal() and text.isascii()):
        raise DataError(f"{path} says {text!r}: expected a count of bytes or `max`")
    return int(text)


def _reclaimable(path: Path, name: str) -> int:
    """Return the group's bytes in idle file pages; 0, the careful side, where it does not say."""
    for line in (_read(path) or "").splitlines():
        key, _, value = line.partition(" ")
        if key == name and value.isdecimal():
            return int(value)
    return 0
