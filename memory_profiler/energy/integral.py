"""Energy out of samples of power, and how much of the time they watched."""

from __future__ import annotations

import math

__all__ = ["LONGEST_GAP", "PowerIntegral"]

LONGEST_GAP = 0.25
"""Seconds between two samples beyond which nobody knows what happened meanwhile. A judgement: at
one sample a second errors up to 80 % are reported (arXiv 2206.10377), and a supervisor looks fifty
times a second."""


class PowerIntegral:
    """The integral of power over time by the trapezoid rule.

    Power between two samples is taken to lie between them. Where they are further apart than the
    longest gap, or the last lies further back than that, the time counts as not covered: nothing
    is added to the value or to the lower bound, and the most power ever seen to the upper.
    """

    def __init__(self, begun: float, longest_gap: float = LONGEST_GAP) -> None:
        self.samples = 0
        self.value = 0.0
        self._begun = begun
        self._longest_gap = longest_gap
        self._now = begun
        self._last: tuple[float, float] | None = None
        self._low = self._high = self._covered = self._most = 0.0

    def add(self, now: float, watts: float | None) -> None:
        """Take a sample at a time in seconds; None is one that failed."""
        self._now = now
        if watts is None:
            return
        self.samples += 1
        self._most = max(self._most, watts)
        if self._last is not None and now - self._last[0] <= self._longest_gap:
            then, before = self._last
            span = now - then
            self._covered += span
            self.value += span * (before + watts) / 2
            self._low += span * min(before, watts)
            self._high += span * max(before, watts)
        self._last = (now, watts)

    @property
    def elapsed(self) -> float:
        """Seconds since it was begun."""
        return self._now - self._begun

    @property
    def coverage(self) -> float:
        """The share of those that was watched."""
        return min(1.0, self._covered / self.elapsed) if self.elapsed > 0 else 0.0

    @property
    def bounds(self) -> tuple[float, float]:
        """The least and the most joules; rounding never puts the value outside them."""
        missed = max(0.0, self.elapsed - self._covered) * self._most
        return min(self._low, self.value), max(self._high + missed, self.value)

    @property
    def period(self) -> float | None:
        """Mean seconds between samples, or None where there were none to speak of."""
        mean = self.elapsed / (self.samples - 1) if self.samples > 1 else 0.0
        return mean if mean > 0 and math.isfinite(mean) else None
