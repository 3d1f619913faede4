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
from pathlib import Path

from edgetrain.memory_profiler.control_groups import own_groups
from edgetrain.memory_profiler.kernel_files import table_bytes

__all__ = [
    "WORKER",
    "available_bytes",
    "peak_bytes",
    "private_bytes",
    "reset_peak",
    "resident_bytes",
    "worker_command",
    "worker_environment",
]

ROOT = Path("/")
WORKER = "edgetrain.client.worker"
# glibc's own first values, which it would raise by up to 64 MiB as buffers come and go. Held where
# they are, what a worker frees goes back to the system, and what it holds can be foretold.
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}


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
    return table_bytes(root / "proc/self/status", "VmHWM")


def resident_bytes(root: Path = ROOT) -> int | None:
    """Return the memory this process has resident now, in bytes, or None if unknown."""
    return table_bytes(root / "proc/self/status", "VmRSS")


def private_bytes(root: Path = ROOT) -> int | None:
    """Return the private writable memory of this process, in bytes, or None if unknown.

    It is what RLIMIT_DATA limits (VmData), whether it has been touched or not.
    """
    return table_bytes(root / "proc/self/status", "VmData")


def available_bytes(root: Path = ROOT) -> int | None:
    """Return the bytes that a new process could still use, or None if nothing is known.

    That is the least of the kernel's MemAvailable and, for every control group that this process
    is in (version 1 or 2, up to the root), its limit less what it uses and cannot give back.
    Raises DataError for a file that is there but makes no sense.
    """
    groups = (group for own in own_groups(root) for group in own.upwards())
    known = [
        table_bytes(root / "proc/meminfo", "MemAvailable"),
        *(group.room() for group in groups),
    ]
    return min((room for room in known if room is not None), default=None)


def worker_command(worker: str = WORKER, *arguments: str) -> list[str]:
    """Return the command line of a training worker, so that probe and training start alike.

    Neither the working folder (-P) nor the user's own packages (-s) can shadow what is installed.
    """
    return [sys.executable, "-P", "-s", "-m", worker, *arguments]


def worker_environment() -> dict[str, str]:
    """Return the environment of a training worker: this process's, and a frugal allocator."""
    return {**ALLOCATOR, **os.environ}
