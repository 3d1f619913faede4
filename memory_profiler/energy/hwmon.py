"""INA2xx and INA3221: power monitors on a board's rails, as Jetsons and many boards carry them.

Power is bus voltage (in*_input, mV) times current (curr*_input, mA). The chips' own power*_input
is left alone: drivers disagree about its unit. Rails nest, so that one is read and none are added.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from edgetrain.errors import DataError
from edgetrain.memory_profiler.energy.sampled import SampledMeter
from edgetrain.memory_profiler.energy.site import Site, read_count, read_line

__all__ = ["HwmonMeter"]

FOLDERS = (
    "sys/class/hwmon/hwmon*",
    "sys/bus/i2c/drivers/ina3221*/*/hwmon/hwmon*",
    "sys/bus/i2c/drivers/ina3221*/*/hwmon*",
)
CHIP = re.compile(r"ina(2\d\d|3221)x?")
CHANNELS = (1, 2, 3)
"""Bus voltages and their currents; further numbers are shunt voltages and sums."""
WHOLE = ("VDD_IN", "POM_5V_IN", "5V_IN")
"""Labels of rails that feed the whole module (Jetson Orin, Xavier NX, Nano)."""


class Rail(NamedTuple):
    """A channel of a chip: the folder of its files, its number, and its label or nothing."""

    folder: Path
    channel: int
    label: str

    def watts(self) -> float:
        """Return the power of the moment. Raises DataError where it cannot be read."""
        volts = read_count(self.folder / f"in{self.channel}_input") / 1e3
        return volts * read_count(self.folder / f"curr{self.channel}_input") / 1e3


class HwmonMeter(SampledMeter):
    """Energy of one rail: the one given, the one that feeds the module, or the only one."""

    name = "hwmon"

    def __init__(self, site: Site, rail: str | None = None) -> None:
        super().__init__(site)
        self._wanted = rail
        self._rail: Rail | None = None

    @property
    def scope(self) -> str:
        """The rail's label."""
        label = self._rail.label if self._rail else self._wanted
        return f"rail {label}" if label else "rail"

    @property
    def path(self) -> str:
        """The chip's folder."""
        return str(self._rail.folder if self._rail else self._site.root / "sys/class/hwmon")

    def watts(self) -> float:
        """Return the rail's power. Raises DataError where it cannot be told."""
        if self._rail is None:
            self._rail = self._choose()
        return self._rail.watts()

    def _choose(self) -> Rail:
        rails = list(find_rails(self._site.root))
        labels = [rail.label or "without a label" for rail in rails]
        if not rails:
            raise DataError(f"no INA2xx or INA3221 under {self._site.root / 'sys/class/hwmon'}")
        if self._wanted is not None:
            found = [rail for rail in rails if rail.label == self._wanted]
        else:
            found = [rail for rail in rails if rail.label in WHOLE] or rails
        if len(found) != 1:
            raise DataError(
                f"{len(found)} rails could be meant, of {', '.join(labels)}: name the one that "
                "feeds the board"
            )
        return found[0]


def find_rails(root: Path) -> Iterator[Rail]:
    """Yield every rail that a power monitor watches, once each."""
    seen = set[Path]()
    for pattern in FOLDERS:
        for folder in sorted(root.glob(pattern)):
            if folder.resolve() in seen or not is_monitor(folder):
                continue
            seen.add(folder.resolve())
            for channel in CHANNELS:
                files = (folder / f"in{channel}_input", folder / f"curr{channel}_input")
                if all(file.exists() for file in files):
                    yield Rail(folder, channel, label_of(folder / f"in{channel}_label"))


def is_monitor(folder: Path) -> bool:
    """Return whether a folder of hwmon is that of a power monitor."""
    try:
        return CHIP.fullmatch(read_line(folder / "name")) is not None
    except DataError:
        return False


def label_of(path: Path) -> str:
    """Return a channel's label, or nothing where it has none."""
    try:
        return read_line(path)
    except DataError:
        return ""
