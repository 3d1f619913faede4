"""A reading: joules since a meter was started, how sure they are, and where they come from."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from edgetrain.errors import ConfigError
from edgetrain.memory_profiler.budget import Interval

__all__ = ["SOURCES", "Reading", "Source"]

Source = Literal["counter", "sampled", "battery", "calibrated_model", "prior", "none"]
SOURCES: tuple[Source, ...] = get_args(Source)
"""Where joules come from, the most trustworthy first; "none" is that of what is not known."""


@dataclass(frozen=True)
class Reading:
    """The energy of one part of a machine over a span of time.

    Unknown is None and never 0: a machine that is on uses energy, so that a value of 0 is refused.
    Raises ConfigError for a reading that contradicts itself.

    Attributes:
        value, low, high: joules, and the bounds that the meter's own resolution and gaps leave;
            all three are known or none is.
        source: how they were had, see SOURCES.
        scope: the part of the machine that was measured, e.g. "package" or "battery". Energies of
            different scopes overlap, and are never added.
        coverage: the share of the time, 0 to 1, that the value covers; `high` covers all of it.
        path: what was read, for whoever doubts it.
        samples: how often it was read.
        period_s: mean seconds between two samples, or None.
        unit: always "J".
    """

    value: float | None
    low: float | None
    high: float | None
    source: Source
    scope: str
    coverage: float
    path: str
    samples: int
    period_s: float | None = None
    unit: str = "J"

    def __post_init__(self) -> None:
        if fault := self._fault():
            raise ConfigError(f"a reading of {self.scope or 'nothing'} from {self.path}: {fault}")

    @classmethod
    def unknown(cls, scope: str, path: str, samples: int = 0) -> Reading:
        """Return the reading of a meter that could not tell."""
        return cls(None, None, None, "none", scope, 0.0, path, samples)

    @property
    def interval(self) -> Interval | None:
        """The bounds, or None where nothing is known."""
        return None if self.low is None or self.high is None else Interval(self.low, self.high)

    def __add__(self, later: Reading) -> Reading:
        """Return the energy of two spans of time, one after the other, in the same scope.

        The sum is unknown where a part of it is, no better than the weaker of the two sources, and
        covers no less than the lower of the two shares. Raises ConfigError for another scope.
        """
        if self.scope != later.scope:
            raise ConfigError(
                f"{self.scope} and {later.scope} are two scopes, which overlap: report each alone"
            )
        path = self.path if self.path == later.path else f"{self.path}, {later.path}"
        samples = self.samples + later.samples
        ours, theirs = self.interval, later.interval
        if self.value is None or later.value is None or ours is None or theirs is None:
            return Reading.unknown(self.scope, path, samples)
        return Reading(
            self.value + later.value,
            ours.low + theirs.low,
            ours.high + theirs.high,
            max(self.source, later.source, key=SOURCES.index),
            self.scope,
            min(self.coverage, later.coverage),
            path,
            samples,
            mean_period(self, later),
        )

    def to_fields(self) -> dict[str, Any]:
        """Return the reading as JSON holds it; what is unknown is null."""
        return asdict(self)

    def _fault(self) -> str:
        """Return what is wrong, or nothing."""
        known = [part for part in (self.value, self.low, self.high) if part is not None]
        period = self.period_s
        faults = (
            (self.source not in SOURCES, f"source {self.source!r} is none of {', '.join(SOURCES)}"),
            (self.unit != "J", f"its unit is {self.unit!r}, not J"),
            (not self.scope, "it says no scope"),
            (not 0 <= self.coverage <= 1, f"its coverage is {self.coverage}, not 0 to 1"),
            (self.samples < 0, f"it has {self.samples} samples"),
            (period is not None and not 0 < period < math.inf, f"its period is {period} s"),
            (len(known) not in (0, 3), "value, low and high are known together or not at all"),
            (
                bool(known) == (self.source == "none"),
                "what is known has a source, and nothing else",
            ),
            (not ordered(*known), f"{known} is not a value above 0 and two bounds around it"),
        )
        return next((fault for wrong, fault in faults if wrong), "")


def ordered(value: float = 1.0, low: float = 0.0, high: float = 2.0) -> bool:
    """Return whether a value above 0 lies between finite bounds."""
    return 0 <= low <= value <= high < math.inf and value > 0


def mean_period(*readings: Reading) -> float | None:
    """Return the mean period of the readings, each weighed by its samples, or None."""
    known = [(one.period_s, one.samples) for one in readings if one.period_s is not None]
    total = sum(samples for _, samples in known)
    return sum(period * samples for period, samples in known) / total if total else None
