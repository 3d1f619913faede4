"""How fast a plan infers, and on how much energy: one run, from which every measure follows.

The measures are those of the ICASSP 2023 comparison of edge devices: inferences a second, watts,
inferences a second a watt, and millijoules an inference. They are derived from three quantities
alone, so that no two of them can disagree.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from edgetrain.errors import ConfigError
from edgetrain.memory_profiler.budget import Interval
from edgetrain.memory_profiler.energy.meter import Meter
from edgetrain.memory_profiler.energy.reading import Source
from edgetrain.train import Trainer

__all__ = ["GIVEN", "InferenceReport", "measure_inference"]

GIVEN: Literal["given"] = "given"
"""The source of joules that follow from a power which somebody gave."""
SAMPLE_SECONDS = 0.05
"""Between two readings of a meter: one costs as much as some inferences."""


@dataclass(frozen=True)
class InferenceReport:
    """Inferences, the seconds that they took, and the joules; unknown is None, never 0.

    joules_source says where the joules come from, GIVEN or one of energy.reading.SOURCES, and
    joules_scope of which part of the machine they are; both are "none" where joules are unknown.
    A measure is None where what it follows from is unknown, or where its bound is not finite.
    Raises ConfigError for a run that cannot have been.
    """

    inferences: int
    seconds: Interval | None = None
    joules: Interval | None = None
    joules_source: Source | Literal["given"] = "none"
    joules_scope: str = "none"

    def __post_init__(self) -> None:
        if self.inferences < 1:
            raise ConfigError(f"a report of {self.inferences} inferences tells nothing: do some")
        if self.seconds is not None and self.seconds.low <= 0:
            raise ConfigError(f"{self.inferences} inferences took no time: run for longer")
        if (self.joules is None) != (self.joules_source == "none"):
            raise ConfigError(
                f"joules of {self.joules} have source {self.joules_source!r}: what is known has a "
                f"source, and nothing else"
            )

    @property
    def inferences_per_second(self) -> Interval | None:
        """The throughput."""
        return quotient(self._count, self.seconds)

    @property
    def watts(self) -> Interval | None:
        """The mean power."""
        return quotient(self.joules, self.seconds)

    @property
    def inferences_per_second_per_watt(self) -> Interval | None:
        """The efficiency: the inferences of a joule."""
        return quotient(self._count, self.joules)

    @property
    def millijoules_per_inference(self) -> Interval | None:
        """The energy of an inference: 1000 over the efficiency."""
        joules = quotient(self.joules, self._count)
        return None if joules is None else joules.scaled(1000)

    def powered(self, watts: float) -> InferenceReport:
        """Return the report of a machine that drew this power all the while, as somebody says.

        Raises ConfigError for a power that is not positive.
        """
        if not watts > 0:
            raise ConfigError(f"no machine infers on {watts} W: give more than 0")
        if self.seconds is None:
            return self
        joules = self.seconds.scaled(watts)
        return replace(self, joules=joules, joules_source=GIVEN, joules_scope="system")

    @property
    def _count(self) -> Interval:
        return Interval(self.inferences, self.inferences)


def measure_inference(
    trainer: Trainer,
    x: Any,
    y: Any,
    seconds: float = 3.0,
    *,
    meter: Meter | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> InferenceReport:
    """Infer (x, y) again and again for a while, once at least, and report what it took.

    A first time, before the clock starts, brings the data and the weights in. Raises ConfigError
    for a time that is not positive, DataError for data that do not fit the trainer's model.
    """
    if not seconds > 0:
        raise ConfigError(f"nothing can be measured in {seconds} s: give more than 0")
    trainer.evaluate(x, y)
    inferences, reading = 0, None
    if meter is not None:
        meter.start()
    begun = clock()
    while (passed := clock() - begun) < seconds or not inferences:
        inferences += _infer(trainer, x, y, min(seconds, SAMPLE_SECONDS), clock)
        if meter is not None:
            reading = meter.read()
    report = InferenceReport(inferences, Interval(passed, passed))
    if reading is None or reading.interval is None:
        return report
    return replace(
        report,
        joules=reading.interval,
        joules_source=reading.source,
        joules_scope=reading.scope,
    )


def _infer(trainer: Trainer, x: Any, y: Any, seconds: float, clock: Callable[[], float]) -> int:
    """Infer (x, y) for a while, once at least, and return how many inferences that were."""
    inferences, begun = 0, clock()
    while not inferences or clock() - begun < seconds:
        inferences += trainer.evaluate(x, y).examples
    return inferences


def quotient(over: Interval | None, under: Interval | None) -> Interval | None:
    """Return the bounds of one quantity over another, None where either is unknown or may be 0."""
    if over is None or under is None or under.low <= 0:
        return None
    return Interval(over.low / under.high, over.high / under.low)
