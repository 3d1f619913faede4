"""Runs the suite of a calibration beside a meter, and notes what each run took."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from edgetrain.errors import DataError
from edgetrain.memory_profiler.energy.fitting import Run
from edgetrain.memory_profiler.energy.law import Usage, Work
from edgetrain.memory_profiler.energy.meter import Meter
from edgetrain.memory_profiler.energy.reading import Reading
from edgetrain.memory_profiler.workloads import SUITE, Step

__all__ = ["Instruments", "Schedule", "Tally", "measure", "run_suite"]

LEAST_COVERAGE = 0.95
"""A run that was watched less than this tells nothing about the rest of it."""
LEAST_RESOLUTION = 0.5
"""Lower bound of a run's joules as a share of them, below which a meter's steps are too coarse."""


@dataclass(frozen=True)
class Schedule:
    """How long each run lasts, how often every workload runs, and with how many threads.

    Workloads take turns, so that a machine that warms up does not favour any.
    """

    seconds: float = 2.0
    repeats: int = 6
    threads: int = 1
    suite: Mapping[str, Callable[[int], Step]] = field(default_factory=lambda: SUITE)

    @property
    def runs(self) -> int:
        """How many runs there are."""
        return self.repeats * len(self.suite)


class Tally:
    """Counts the work done; called, it returns the sum, as a Site's `work` does."""

    def __init__(self) -> None:
        self._done = Work()

    def __call__(self) -> Work:
        return self._done

    def add(self, work: Work) -> None:
        """Count some more."""
        self._done = Work(
            self._done.operations + work.operations, self._done.bytes_moved + work.bytes_moved
        )


@dataclass(frozen=True)
class Instruments:
    """What a run is measured with: a meter or None, the count of work, and a clock of seconds."""

    meter: Meter | None
    tally: Tally
    clock: Callable[[], float] = time.monotonic


def run_suite(
    schedule: Schedule,
    instruments: Instruments,
    starting: Callable[[str], object] = str,
) -> Iterator[Run]:
    """Yield the runs of a schedule as they are done, with joules where there is a meter.

    starting is told each workload before it runs. Raises DataError where the meter cannot tell
    what a run took.
    """
    for _ in range(schedule.repeats):
        for workload, make in schedule.suite.items():
            starting(workload)
            step = make(schedule.threads)
            # The first step finds cold caches and pages that were never touched.
            instruments.tally.add(step())
            yield measure(workload, step, instruments, schedule.seconds)


def measure(workload: str, step: Step, instruments: Instruments, seconds: float) -> Run:
    """Repeat a step for some seconds, reading the meter after each, and return what it took."""
    meter, tally, clock = instruments.meter, instruments.tally, instruments.clock
    before = tally()
    if meter is not None:
        meter.start()
    begun, elapsed, reading = clock(), 0.0, None
    while elapsed < seconds:
        tally.add(step())
        if meter is not None:
            reading = meter.read()
        elapsed = clock() - begun
    joules = None if reading is None else checked_joules(workload, reading)
    return Run(workload, Usage(elapsed, *tally().since(before)), joules)


def checked_joules(workload: str, reading: Reading) -> float:
    """Return a reading's joules. Raises DataError where they do not stand for the whole run."""
    trouble = ""
    if reading.value is None or reading.low is None:
        trouble = f"{reading.path} told no joules"
    elif reading.coverage < LEAST_COVERAGE:
        trouble = f"{reading.path} was read for {reading.coverage:.0%} of the time only"
    elif reading.low < LEAST_RESOLUTION * reading.value:
        trouble = f"the steps of {reading.path} are too coarse for so short a run"
    if trouble or reading.value is None:
        raise DataError(f"a run of {workload!r}: {trouble}: make runs longer with --seconds")
    return reading.value
