"""Meters that compute: joules by a law out of time, operations and bytes, and nothing measured."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from edgetrain.memory_profiler.energy.law import PRIOR, PRIOR_FACTOR, Joules, Usage, Work
from edgetrain.memory_profiler.energy.reading import Reading, Source
from edgetrain.memory_profiler.energy.site import Site

__all__ = ["CalibratedMeter", "ModelledMeter", "PriorMeter"]


class ModelledMeter(ABC):
    """A law that is told the work done; its readings say that they are modelled."""

    name: ClassVar[str]
    source: ClassVar[Source]
    path: ClassVar[str]

    def __init__(self, site: Site) -> None:
        self._site = site
        self._begun = site.clock()
        self._before = Work()
        self._reads = 0

    @property
    @abstractmethod
    def scope(self) -> str:
        """The part of the machine that the law is about."""

    @abstractmethod
    def joules(self, usage: Usage) -> Joules:
        """Return what the law says of some usage."""

    def obstacle(self) -> str:
        """Return why it does not work here, or nothing."""
        if self._site.work is None:
            return "it computes joules from operations and bytes, and nobody counts them here"
        return ""

    def start(self) -> None:
        """Count from now on."""
        self._reads = 0
        self._before = self._done()
        self._begun = self._site.clock()

    def read(self) -> Reading:
        """Return the energy that the law says was used since the start."""
        self._reads += 1
        seconds = self._site.clock() - self._begun
        work = self._done().since(self._before)
        if self.obstacle() or seconds <= 0:
            return Reading.unknown(self.scope, self.path, self._reads)
        found = self.joules(Usage(seconds, *work))
        period = seconds / self._reads
        if found.value <= 0:
            return Reading.unknown(self.scope, self.path, self._reads)
        return Reading(*found, self.source, self.scope, 1.0, self.path, self._reads, period)

    def _done(self) -> Work:
        return Work() if self._site.work is None else self._site.work()


class CalibratedMeter(ModelledMeter):
    """The law that was fitted to this very machine."""

    name = "calibrated"
    source = "calibrated_model"
    path = "calibration"

    @property
    def scope(self) -> str:
        """What the fit's joules were read from."""
        return self._site.fit.scope if self._site.fit else "system"

    def obstacle(self) -> str:
        """Return why it does not work here, or nothing."""
        if self._site.fit is None:
            return "this machine has no calibration: run `edgetrain-profile calibrate`"
        return super().obstacle()

    def joules(self, usage: Usage) -> Joules:
        """Return what the fit predicts."""
        assert self._site.fit is not None
        return self._site.fit.predict(usage)


class PriorMeter(ModelledMeter):
    """The law of the literature: an order of magnitude, for want of anything better."""

    name = "prior"
    source = "prior"
    path = "literature"
    scope = "system"

    def joules(self, usage: Usage) -> Joules:
        """Return the prior's energy, within a factor either way."""
        value = PRIOR.joules(usage)
        return Joules(value, value / PRIOR_FACTOR, value * PRIOR_FACTOR)
