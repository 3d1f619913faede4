"""What a process and all that descend from it need: memory in two figures, and processor time."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import psutil

TOOLS = Path(sys.executable).parent
MEGABYTE = 1e6
PAGE = os.sysconf("SC_PAGE_SIZE")
PRESENT, FRAME = 1 << 63, (1 << 55) - 1
"""Of an entry of /proc/PID/pagemap: whether a page is in memory, and in which frame."""
LOOK_SECONDS = 0.01
"""A worker holds the most for tens of milliseconds: as it takes a task over, and at its end."""
STOP_SECONDS = 60.0
NANOSECONDS = 1e9


@dataclass(frozen=True)
class Memory:
    """The memory of a family of processes, in MB (10^6 bytes)."""

    pss: float
    alone: float


def memory_of(family: list[psutil.Process]) -> Memory:
    """Return the memory of processes; what has just ended counts nothing."""
    pss, frames = 0, [np.empty(0, np.uint64)]
    for process in family:
        try:
            pss += process.memory_full_info().pss
            frames.extend(frames_of(process.pid))
        except (psutil.NoSuchProcess, OSError):
            continue
    return Memory(pss / MEGABYTE, np.unique(np.concatenate(frames)).size * PAGE / MEGABYTE)


def frames_of(pid: int) -> Iterator[npt.NDArray[np.uint64]]:
    """Yield the frames of the pages that a process has in memory, mapping by mapping."""
    with Path(f"/proc/{pid}/pagemap").open("rb") as pages:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            first, _, last = line.partition(" ")[0].partition("-")
            if line.endswith("[vsyscall]"):
                continue
            begin, end = int(first, 16) // PAGE, int(last, 16) // PAGE
            pages.seek(8 * begin)
            entries = np.frombuffer(pages.read(8 * (end - begin)), dtype=np.uint64)
            yield entries[entries >= PRESENT] & np.uint64(FRAME)


def family_of(pid: int) -> list[psutil.Process]:
    """Return a process and all that descend from it; none if it has gone."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


class Device:
    """One device: its processes, and the most memory that was seen of them."""

    def __init__(self, name: str, command: list[str | Path], folder: Path) -> None:
        self.name = name
        self.command = command
        self.folder = folder
        self.peak = Memory(0, 0)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start its service."""
        environment = {
            **os.environ,
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
        }
        environment["FLWR_HOME"] = str(self.folder / f"{self.name}.home")
        environment["PATH"] = f"{TOOLS}{os.pathsep}{os.environ['PATH']}"
        with (self.folder / f"{self.name}.log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command, cwd=self.folder, env=environment, stdout=log, stderr=log
            )

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run it while the context is open."""
        self.start()
        try:
            yield
        finally:
            self.close()

    def close(self) -> None:
        """End it and all that it started."""
        if self.process is None:
            return
        family = family_of(self.process.pid)
        self.process.terminate()
        _, alive = psutil.wait_procs(family, STOP_SECONDS)
        for one in alive:
            one.kill()
        self.process.wait()

    @property
    def family(self) -> list[psutil.Process]:
        """Its processes now."""
        return [] if self.process is None else family_of(self.process.pid)

    def look(self) -> None:
        """Measure, and keep what is more than was seen before."""
        now = memory_of(self.family)
        self.peak = Memory(max(now.pss, self.peak.pss), max(now.alone, self.peak.alone))


@contextmanager
def watching(devices: list[Device]) -> Iterator[None]:
    """Keep looking at devices, whose peaks begin anew, while the context is open."""
    ended = threading.Event()

    def look(device: Device) -> None:
        while not ended.wait(LOOK_SECONDS):
            device.look()

    for device in devices:
        device.peak = Memory(0, 0)
    # One each: a large family takes long to look at, and must not hide what a small one does.
    threads = [threading.Thread(target=look, args=(device,)) for device in devices]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def processor_seconds(family: list[psutil.Process]) -> float:
    """Return the seconds that all threads of processes have been on a processor."""
    files = [path for one in family for path in Path(f"/proc/{one.pid}/task").glob("*/schedstat")]
    return sum(int(path.read_text().split()[0]) for path in files) / NANOSECONDS
