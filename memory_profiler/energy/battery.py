"""A battery's gauge: what the whole machine drew, in coarse steps, and only while it discharges.

Gauges tell energy (energy_now, µWh) or charge (charge_now, µAh). Charge is turned into energy by
the mean of the voltages before and after, not by their difference: a load pulls the voltage down,
and that is no energy used.
"""

from __future__ import annotations

from pathlib import Path

from edgetrain.errors import DataError
from edgetrain.memory_profiler.energy.reading import Reading, Source
from edgetrain.memory_profiler.energy.site import Site, read_count, read_line

__all__ = ["BatteryMeter"]

FOLDER = "sys/class/power_supply"
JOULES_PER_UWH = 3600e-6
NEUTRAL = ("Discharging", "Not charging", "Unknown", "Full")
"""States in which nothing flows into a battery; of two, one may rest while the other gives."""


class Gauge:
    """One battery: its folder, and the energy or the charge with the volts that it told last."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._last = self._level()

    def drop(self) -> float:
        """Return the joules taken out since the last time; negative where some came in."""
        then, self._last = self._last, self._level()
        mean_volts = (then[1] + self._last[1]) / 2
        return (then[0] - self._last[0]) * mean_volts * JOULES_PER_UWH

    def state(self) -> str:
        """Return what it is doing, in the kernel's words."""
        return read_line(self.folder / "status")

    def _level(self) -> tuple[float, float]:
        """Return (µWh, 1) or (µAh, volts)."""
        if (self.folder / "energy_now").exists():
            return read_count(self.folder / "energy_now"), 1.0
        volts = read_count(self.folder / "voltage_now") / 1e6
        return read_count(self.folder / "charge_now"), volts


class BatteryMeter:
    """Energy of the whole machine out of its batteries.

    From the first moment that a charger is seen, or a battery gains, nothing is known any more
    until the next start. Until a gauge has moved, nothing is known yet; the bounds are one step of
    it, the smallest seen, either way.
    """

    name = "battery"
    scope = "system"
    source: Source = "battery"

    def __init__(self, site: Site) -> None:
        self._folder = site.root / FOLDER
        self._clock = site.clock
        self._gauges: list[Gauge] = []
        self._begun = 0.0
        self._reads = 0
        self._joules = 0.0
        self._step: float | None = None

    def obstacle(self) -> str:
        """Return why it does not work here, or nothing."""
        try:
            self._open()
        except DataError as error:
            return str(error)
        return ""

    def start(self) -> None:
        """Count from now on."""
        self._reads, self._joules, self._step = 0, 0.0, None
        try:
            self._gauges = self._open()
        except DataError:
            self._gauges = []
        self._begun = self._clock()

    def read(self) -> Reading:
        """Return the energy since the start, where only discharging has been seen since."""
        try:
            check_discharging(self._gauges)
            drops = [gauge.drop() for gauge in self._gauges]
        except DataError:
            drops = [-1.0]
        if min(drops, default=-1.0) < 0:
            self._gauges = []
            return Reading.unknown(self.scope, str(self._folder), self._reads)
        self._reads += 1
        taken = sum(drops)
        self._joules += taken
        if taken > 0:
            self._step = taken if self._step is None else min(self._step, taken)
        if self._step is None:
            return Reading.unknown(self.scope, str(self._folder), self._reads)
        elapsed = self._clock() - self._begun
        return Reading(
            self._joules,
            max(0.0, self._joules - self._step),
            self._joules + self._step,
            self.source,
            self.scope,
            1.0,
            str(self._folder),
            self._reads + 1,
            elapsed / self._reads if elapsed > 0 else None,
        )

    def _open(self) -> list[Gauge]:
        """Return the machine's batteries. Raises DataError where none tells what it gives."""
        folders = [path for path in sorted(self._folder.glob("*")) if is_battery(path)]
        if not folders:
            raise DataError(f"no battery under {self._folder}")
        gauges = [Gauge(folder) for folder in folders]
        check_discharging(gauges)
        return gauges


def is_battery(folder: Path) -> bool:
    """Return whether a power supply is a battery of the machine, and not that of a mouse."""
    try:
        kind = read_line(folder / "type")
        scope = read_line(folder / "scope") if (folder / "scope").exists() else "System"
    except DataError:
        return False
    return kind == "Battery" and scope != "Device"


def check_discharging(gauges: list[Gauge]) -> None:
    """Raise DataError unless a battery gives and none takes."""
    states = [gauge.state() for gauge in gauges]
    if "Discharging" not in states or any(state not in NEUTRAL for state in states):
        raise DataError(f"the battery is {', '.join(states) or 'gone'}: unplug the charger")
