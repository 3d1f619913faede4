"""A simulated machine that obeys the law exactly, with a meter that errs: for tests and drills."""

from __future__ import annotations

from edgetrain.memory_profiler.energy.law import SIMULATED, EnergyLaw, Joules, Usage
from edgetrain.memory_profiler.energy.modelled import ModelledMeter
from edgetrain.memory_profiler.energy.site import Site

__all__ = ["FAKE_LAW", "FAKE_NOISE", "FakeMeter"]

FAKE_LAW = EnergyLaw(static_watts=2.0, joules_per_operation=2e-11, joules_per_byte=1e-9)
FAKE_NOISE = 0.03
"""Standard deviation of the simulated meter's error, as a share of what it reads."""
DEVIATIONS = 2.0


class FakeMeter(ModelledMeter):
    """Joules of a machine that does not exist: each start draws one error for all that follows.

    Its scope is SIMULATED, so that what it reads can never be added to a measurement, and its
    source is that of the weakest, a prior.
    """

    name = "fake"
    source = "prior"
    path = "simulation"
    scope = SIMULATED

    def __init__(
        self, site: Site, law: EnergyLaw = FAKE_LAW, noise: float = FAKE_NOISE, seed: int = 0
    ) -> None:
        # Imported here because it brings megabytes of code that a device has no use for.
        from random import Random  # noqa: PLC0415

        super().__init__(site)
        self._law = law
        self._noise = noise
        self._random = Random(seed)
        self._error = 1.0

    def obstacle(self) -> str:
        """Return nothing: it works everywhere, and without work it counts time alone."""
        return ""

    def start(self) -> None:
        """Count from now on, with another error."""
        super().start()
        self._error = max(0.0, self._random.gauss(1.0, self._noise))

    def joules(self, usage: Usage) -> Joules:
        """Return the law's energy times the error at hand."""
        value = self._law.joules(usage) * self._error
        slack = DEVIATIONS * self._noise * value
        return Joules(value, max(0.0, value - slack), value + slack)
