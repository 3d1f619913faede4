"""RAPL: the counters of a processor's own energy, through the kernel's powercap files.

Zones nest (cores and DRAM lie inside a package, packages inside the platform), and one package may
show twice, by register and by memory map. Only packages are added, each once. Reading is for root
alone since CVE-2020-8694.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

from edgetrain.errors import DataError
from edgetrain.memory_profiler.energy.reading import Reading, Source
from edgetrain.memory_profiler.energy.site import Site, read_count, read_line

__all__ = ["RaplMeter"]

FOLDER = "sys/class/powercap"
ZONE = re.compile(r"intel-rapl:\d+")
"""A zone that lies in no other, of the control type that AMD's processors use as well."""
PACKAGE = re.compile(r"package-\d+(-die-\d+)?")
NONE_HERE = "virtual machines and kernels without CONFIG_INTEL_RAPL have none"
CLOSED = "run as root, or let a udev rule `chgrp` the file to a group of yours and `chmod g+r` it"
UPDATE_S = 1e-3
"""Seconds between two updates of the counter (AMD's and Intel's manuals)."""
MOST_WATTS = 1000.0
"""No package draws more: it bounds how often a counter may have wrapped unseen."""


class Zone:
    """One package's counter, unrolled: it starts again at 0 beyond its range."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "energy_uj"
        self.range = read_count(folder / "max_energy_range_uj")
        if self.range == 0:
            raise DataError(f"{folder / 'max_energy_range_uj'} says 0: a counter has a range")
        self.joules = 0.0
        self.unseen = 0.0
        self._last = self._count()

    def advance(self, seconds: float) -> None:
        """Read the counter once more, that many seconds after the last time."""
        count = self._count()
        used = (count - self._last) % self.range
        self._last = count
        self.joules += used / 1e6
        wraps = math.floor(max(0.0, MOST_WATTS * 1e6 * seconds - used) / self.range)
        self.unseen += wraps * self.range / 1e6

    def _count(self) -> int:
        count = read_count(self.path, CLOSED)
        if count > self.range:
            raise DataError(f"{self.path} says {count}, beyond its range of {self.range}")
        return count


class RaplMeter:
    """Energy of all processor packages, cores and their caches included; not of the board."""

    name = "rapl"
    scope = "package"
    source: Source = "counter"

    def __init__(self, site: Site) -> None:
        self._folder = site.root / FOLDER
        self._clock = site.clock
        self._zones: list[Zone] = []
        self._begun = self._last = 0.0
        self._reads = 0

    def obstacle(self) -> str:
        """Return why it does not work here, or nothing."""
        try:
            self._open()
        except DataError as error:
            return str(error)
        return ""

    def start(self) -> None:
        """Count from now on."""
        self._reads = 0
        try:
            self._zones = self._open()
        except DataError:
            self._zones = []
        self._begun = self._last = self._clock()

    def read(self) -> Reading:
        """Return the energy since the start; unknown where a counter cannot be read, or stands.

        The bounds hold one update of the counter at either end, and every wrap that may have gone
        unseen since the reading before.
        """
        now = self._clock()
        path = str(self._folder)
        try:
            for zone in self._zones:
                zone.advance(now - self._last)
        except DataError:
            return Reading.unknown(self.scope, path, self._reads)
        self._last = now
        self._reads += 1
        joules, elapsed = sum(zone.joules for zone in self._zones), now - self._begun
        if joules == 0 or elapsed <= 0:
            return Reading.unknown(self.scope, path, self._reads)
        slack = joules * min(1.0, 2 * UPDATE_S / elapsed)
        high = joules + slack + sum(zone.unseen for zone in self._zones)
        period = elapsed / self._reads
        return Reading(
            joules,
            joules - slack,
            high,
            self.source,
            self.scope,
            1.0,
            path,
            self._reads + 1,
            period,
        )

    def _open(self) -> list[Zone]:
        """Return the counters of all packages. Raises DataError where there is none to read."""
        if not self._folder.is_dir():
            raise DataError(f"no {self._folder}: {NONE_HERE}")
        folders = (path for path in self._folder.iterdir() if ZONE.fullmatch(path.name))
        named = {read_line(folder / "name"): folder for folder in sorted(folders)}
        packages = [folder for name, folder in named.items() if PACKAGE.fullmatch(name)]
        if not packages:
            raise DataError(f"{self._folder} has no zone of a package: {NONE_HERE}")
        return [Zone(folder) for folder in packages]
