"""The joules that a command has used, as the belt of energy wants to know them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from edgetrain.memory_profiler.energy.meter import MEASURING, Meter, open_meter
from edgetrain.memory_profiler.energy.reading import Reading
from edgetrain.memory_profiler.enforce.supervise import Joules

__all__ = ["METER_SECONDS", "Counted", "count", "joules_at", "metered", "modelled"]

METER_SECONDS = 0.25
"""Between two readings: some meters start a program for each, and none is free."""


class Reader(Protocol):
    """A meter that has been started."""

    def read(self) -> Reading:
        """Return the energy since the start."""


@dataclass(frozen=True)
class Counted:
    """Joules that are being counted: what a limit is held against, and the meter if there is one.

    source is "measured" or "modelled".
    """

    joules: Joules
    source: str
    meter: Meter | None = None

    def used(self) -> float | None:
        """Return the joules until now, the best that is known, or None."""
        return self.joules() if self.meter is None else self.meter.read().value


def count() -> Counted | None:
    """Return a meter that measures here, started, or None where there is none."""
    meter = open_meter(MEASURING).meter
    if meter is None:
        return None
    meter.start()
    return Counted(metered(meter), "measured", meter)


def modelled(watts: float) -> Counted:
    """Return the joules from now on at a power that somebody knows."""
    return Counted(joules_at(watts), "modelled")


def metered(meter: Reader, clock: Callable[[], float] = time.monotonic) -> Joules:
    """Return what tells the most that a meter, which was started, may have missed nothing of.

    That is the upper bound of its reading: who must not use more counts what may have been used.
    """
    due = clock()
    high: float | None = None

    def joules() -> float | None:
        nonlocal due, high
        if clock() >= due:
            high = meter.read().high
            due = clock() + METER_SECONDS
        return high

    return joules


def joules_at(watts: float, clock: Callable[[], float] = time.monotonic) -> Joules:
    """Return what tells the joules since this call at a power that somebody knows: modelled."""
    began = clock()
    return lambda: watts * (clock() - began)
