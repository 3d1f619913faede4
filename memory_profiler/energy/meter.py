"""The meters there are, in the order in which they are tried, and how one is opened."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from edgetrain.errors import ConfigError
from edgetrain.memory_profiler.energy.battery import BatteryMeter
from edgetrain.memory_profiler.energy.fake import FakeMeter
from edgetrain.memory_profiler.energy.hwmon import HwmonMeter
from edgetrain.memory_profiler.energy.law import EnergyFit, Work
from edgetrain.memory_profiler.energy.modelled import CalibratedMeter, PriorMeter
from edgetrain.memory_profiler.energy.pmic import PmicMeter
from edgetrain.memory_profiler.energy.rapl import RaplMeter
from edgetrain.memory_profiler.energy.reading import Reading, Source
from edgetrain.memory_profiler.energy.site import Site

__all__ = ["MEASURING", "METERS", "ORDER", "Meter", "Opened", "open_meter"]


class Meter(Protocol):
    """Tells the joules that were used since it was started.

    `scope` says of which part of the machine, `source` how they are had. Neither `start` nor `read`
    raises: what cannot be told is an unknown reading, so that a meter that fails never ends the
    work it watches.
    """

    @property
    def name(self) -> str: ...
    @property
    def scope(self) -> str: ...
    @property
    def source(self) -> Source: ...
    def obstacle(self) -> str:
        """Return why the meter does not work here, or nothing."""

    def start(self) -> None:
        """Count from now on."""

    def read(self) -> Reading:
        """Return the energy since the start. Meters of power sample here: read often."""


METERS: dict[str, Callable[[Site], Meter]] = {
    "rapl": RaplMeter,
    "hwmon": HwmonMeter,
    "pmic": PmicMeter,
    "battery": BatteryMeter,
    "calibrated": CalibratedMeter,
    "prior": PriorMeter,
    "fake": FakeMeter,
}
"""By name, the most trustworthy first."""
MEASURING = ("rapl", "hwmon", "pmic", "battery")
"""Those that measure; the others compute."""
ORDER = (*MEASURING, "calibrated", "prior")
"""Those that are tried unless others are named: what is simulated must be asked for."""


@dataclass(frozen=True)
class Opened:
    """The first meter that works, or None, and by name why those before it do not."""

    meter: Meter | None
    obstacles: Mapping[str, str] = field(default_factory=dict)


def open_meter(
    order: Sequence[str] = ORDER,
    root: Path = Path("/"),
    *,
    clock: Callable[[], float] = time.monotonic,
    work: Callable[[], Work] | None = None,
    fit: EnergyFit | None = None,
) -> Opened:
    """Return the first meter of the order that works here, not started yet.

    root, clock, work and fit are as in Site. Raises ConfigError for a name that is no meter's.
    """
    if unknown := [name for name in order if name not in METERS]:
        raise ConfigError(f"no meter is called {unknown[0]!r}: choose of {', '.join(METERS)}")
    site = Site(root, clock, work, fit)
    obstacles: dict[str, str] = {}
    for name in order:
        meter = METERS[name](site)
        reason = meter.obstacle()
        if not reason:
            return Opened(meter, obstacles)
        obstacles[name] = reason
    return Opened(None, obstacles)
