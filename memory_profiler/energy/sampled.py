"""What meters of power share: each reading takes a sample, and energy is the integral of all."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from edgetrain.errors import DataError
from edgetrain.memory_profiler.energy.integral import LONGEST_GAP, PowerIntegral
from edgetrain.memory_profiler.energy.reading import Reading, Source
from edgetrain.memory_profiler.energy.site import Site

__all__ = ["SampledMeter"]


class SampledMeter(ABC):
    """A meter that can tell the power of the moment.

    It has no thread of its own: `read` takes a sample, so that whoever supervises the work reads
    it as often as it looks. How much of the time that watched is the reading's coverage.
    """

    name: ClassVar[str]
    source: ClassVar[Source] = "sampled"

    longest_gap: ClassVar[float] = LONGEST_GAP
    """Seconds between two samples beyond which the time between them was not watched."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._integral = PowerIntegral(site.clock(), self.longest_gap)

    @property
    @abstractmethod
    def scope(self) -> str:
        """The part of the machine whose power it is."""

    @property
    @abstractmethod
    def path(self) -> str:
        """What is read."""

    @abstractmethod
    def watts(self) -> float:
        """Return the power of the moment. Raises DataError where it cannot be told."""

    def obstacle(self) -> str:
        """Return why it does not work here, or nothing."""
        try:
            self.watts()
        except DataError as error:
            return str(error)
        return ""

    def start(self) -> None:
        """Integrate from the first sample on."""
        watts, now = self._sample()
        self._integral = PowerIntegral(now, self.longest_gap)
        self._integral.add(now, watts)

    def read(self) -> Reading:
        """Take a sample and return the energy since the start; unknown until two are close."""
        watts, now = self._sample()
        integral = self._integral
        integral.add(now, watts)
        if integral.value <= 0:
            return Reading.unknown(self.scope, self.path, integral.samples)
        return Reading(
            integral.value,
            *integral.bounds,
            self.source,
            self.scope,
            integral.coverage,
            self.path,
            integral.samples,
            integral.period,
        )

    def _sample(self) -> tuple[float | None, float]:
        """Return the power of the moment, or None where it cannot be told, and the moment."""
        try:
            watts = self.watts()
        except DataError:
            return None, self._site.clock()
        return watts, self._site.clock()
