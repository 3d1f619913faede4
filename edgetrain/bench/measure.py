"""What both sides of a measurement share: the request, the clock and the memory counter.

Each side is a module that runs in a fresh process, `python -m edgetrain.bench.ours REQUEST` or
`... rival REQUEST`: it takes a Request as JSON and prints a Sample as JSON. The data is one
batch, held before the baseline is taken on both sides, so that the growth is that of training
alone.
"""

from __future__ import annotations

import json
import sys
import time
from array import array
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

__all__ = ["Request", "Sample", "Stopwatch", "answer", "memory_baseline", "peak_bytes"]

WARM_STEPS = 10
LEAST_STEPS = 20
MOST_STEPS = 20_000
PATIENCE = 10.0
"""Seconds after which slow steps are not waited for: warm or timed, a few must do."""
FEWEST_STEPS = 3
STATUS = Path("/proc/self/status")
CLEAR_REFS = Path("/proc/self/clear_refs")
RESET_PEAK = "5"
"""What the kernel wants written to clear_refs to bring VmHWM down to VmRSS (man 5 proc)."""


@dataclass(frozen=True)
class Request:
    """What one process is to measure.

    mode, gradient and draws are how ours trains, recompute what its plan makes twice, variant which
    of the rival's ways to run (rival.VARIANTS); seconds is how long to time.
    """

    network: str
    batch: int
    threads: int
    seconds: float = 1.0
    mode: str = "bnn"
    gradient: str = "luq4"
    draws: int = 1
    recompute: str = "never"
    variant: str = ""


@dataclass(frozen=True)
class Sample:
    """What one process measured; planned_bytes and isa are ours alone."""

    step_ms: float
    peak_growth_bytes: int
    planned_bytes: int = 0
    isa: str = ""


def answer(measure: Callable[[Request], Sample]) -> None:
    """Measure what the first argument asks for, and print the sample."""
    print(json.dumps(asdict(measure(Request(**json.loads(sys.argv[1]))))))


def status_bytes(field: str) -> int:
    """Return a field of /proc/self/status, such as VmRSS or VmHWM, in bytes."""
    for line in STATUS.read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise KeyError(field)


def peak_bytes() -> int:
    """Return the peak of resident memory since the last baseline."""
    return status_bytes("VmHWM")


def memory_baseline() -> int:
    """Bring the peak down to what is resident now, and return that in bytes."""
    status_bytes("VmRSS")  # the reading itself needs a few pages the first time
    CLEAR_REFS.write_text(RESET_PEAK)
    return status_bytes("VmRSS")


class Stopwatch:
    """Times steps. Made before the memory baseline, because what it notes takes memory too."""

    def __init__(self) -> None:
        self.taken = array("d", bytes(8 * MOST_STEPS))
        self.steps = 0

    def run(self, step: Callable[[], object], seconds: float) -> None:
        """Run steps for a while and time each, once warm.

        They are LEAST_STEPS at least, or FEWEST_STEPS of a network whose step takes seconds.
        """
        begun = time.perf_counter()
        for step_number in range(WARM_STEPS):
            if step_number >= FEWEST_STEPS and time.perf_counter() - begun > PATIENCE:
                break
            step()
        begun = time.perf_counter()
        self.steps = 0
        while self.wanted(time.perf_counter() - begun, seconds):
            start = time.perf_counter()
            step()
            self.taken[self.steps] = time.perf_counter() - start
            self.steps += 1

    def wanted(self, passed: float, seconds: float) -> bool:
        """Return whether another step is to be timed."""
        if self.steps == MOST_STEPS:
            return False
        least = LEAST_STEPS if passed < PATIENCE else FEWEST_STEPS
        return self.steps < least or passed < seconds

    @property
    def median_ms(self) -> float:
        """The median step in milliseconds."""
        return 1e3 * sorted(self.taken[: self.steps])[self.steps // 2]
