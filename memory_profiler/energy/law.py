"""The law that energy is modelled by: E = P_static t + e_op operations + e_byte bytes.

A law's coefficients come from a calibration of this very machine (`EnergyFit`), or from the
literature (`PRIOR`), which tells the order of magnitude and no more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

__all__ = [
    "PRIOR",
    "PRIOR_FACTOR",
    "SIMULATED",
    "EnergyFit",
    "EnergyLaw",
    "Joules",
    "Usage",
    "Work",
]

SIMULATED = "simulated"
"""The scope of joules that no machine has used."""

NORMAL_QUANTILE = 1.959963984540054
"""Deviations that bound 95 % of a normal distribution."""


class Work(NamedTuple):
    """What was done: operations (a plan's arithmetic) and bytes moved."""

    operations: float = 0.0
    bytes_moved: float = 0.0

    def since(self, before: Work) -> Work:
        """Return what was done after that."""
        return Work(self.operations - before.operations, self.bytes_moved - before.bytes_moved)


class Usage(NamedTuple):
    """What energy is paid for: seconds, operations and bytes moved."""

    seconds: float
    operations: float = 0.0
    bytes_moved: float = 0.0


class Joules(NamedTuple):
    """A modelled energy and the bounds that it is expected in."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class EnergyLaw:
    """Watts that are drawn whatever is done, joules an operation and joules a byte moved."""

    static_watts: float
    joules_per_operation: float
    joules_per_byte: float

    @property
    def coefficients(self) -> tuple[float, float, float]:
        """The three, in the order of a Usage."""
        return self.static_watts, self.joules_per_operation, self.joules_per_byte

    def joules(self, usage: Usage) -> float:
        """Return the energy of some usage."""
        return sum(rate * amount for rate, amount in zip(self.coefficients, usage, strict=True))


@dataclass(frozen=True)
class EnergyFit:
    """A law fitted to runs on one machine, with what is needed to say how sure it is.

    Attributes:
        law: the coefficients, none negative.
        covariance: of the three coefficients, 3 x 3, in the products of their units.
        relative_error: standard deviation of a run's measured energy from the law's, as a share.
        runs: how many runs it was fitted to.
        condition: condition number of the fit's equations, columns scaled to one length.
        meter, scope: what the joules were read from.
    """

    law: EnergyLaw
    covariance: tuple[tuple[float, ...], ...]
    relative_error: float
    runs: int
    condition: float
    meter: str
    scope: str

    @property
    def simulated(self) -> bool:
        """Whether its joules were those of no machine; such a fit proves nothing about one."""
        return self.scope == SIMULATED

    def predict(self, usage: Usage) -> Joules:
        """Return the energy of some usage, and the bounds of 95 % of what the meter would read.

        The width holds both the uncertainty of the coefficients and the scatter of single runs
        about the law: the prediction interval of linear regression.
        """
        value = self.law.joules(usage)
        spread = sum(
            usage[row] * usage[column] * self.covariance[row][column]
            for row in range(3)
            for column in range(3)
        )
        deviation = math.sqrt(max(0.0, spread) + (self.relative_error * value) ** 2)
        half = student_quantile(self.runs - 3) * deviation
        return Joules(value, max(0.0, value - half), value + half)


def student_quantile(freedom: int) -> float:
    """Return how many deviations bound 95 % of Student's distribution.

    The expansion of Abramowitz and Stegun, 26.7.5; within 1 % from 3 degrees of freedom on.
    """
    z = NORMAL_QUANTILE
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / math.pow(freedom, power + 1) for power, term in enumerate(terms))


PRIOR = EnergyLaw(static_watts=2.0, joules_per_operation=3.2e-12, joules_per_byte=2e-11)
"""Operations: an int32 multiply and add in 45 nm (Horowitz, ISSCC 2014). Bytes: half way, by ratio,
between a small cache and DRAM there. Watts: a judgement of what a small board draws when idle."""
PRIOR_FACTOR = 10.0
"""How far off the prior may be, either way."""
