"""From measured runs to a law: relative non-negative least squares, and when it is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from edgetrain.errors import DataError
from edgetrain.fields import Rule, maybe, real, text
from edgetrain.memory_profiler.energy.law import EnergyFit, EnergyLaw, Usage
from edgetrain.memory_profiler.energy.least_squares import Solution, solve_nonnegative

__all__ = ["FEWEST_RUNS", "MOST_CONDITION", "Run", "fit_runs"]

FEWEST_RUNS = 8
"""Below this, five degrees of freedom, the scatter of the runs is a guess itself."""
MOST_CONDITION = 30.0
"""Beyond this, time, operations and bytes rose together, and nobody can tell which one costs."""
MOST_SECONDS, MOST_AMOUNT, MOST_JOULES = 1e7, 1e21, 1e12
LEAST = 1e-9
"""A run took time and energy: a share of a microjoule is neither."""
REWEIGHINGS = 2


@dataclass(frozen=True)
class Run:
    """One run of a workload: what it took, and the joules that a meter read, or None."""

    workload: str
    usage: Usage
    joules: float | None

    RULES: ClassVar[Mapping[str, Rule]] = {
        "workload": text(64),
        "seconds": real(LEAST, MOST_SECONDS),
        "operations": real(0, MOST_AMOUNT),
        "bytes_moved": real(0, MOST_AMOUNT),
        "joules": maybe(real(LEAST, MOST_JOULES)),
    }

    def to_fields(self) -> dict[str, Any]:
        """Return the run as JSON holds it."""
        return {"workload": self.workload, **self.usage._asdict(), "joules": self.joules}


def fit_runs(runs: Sequence[Run], meter: str, scope: str) -> EnergyFit:
    """Return the law that fits the runs best, each weighed by its own energy.

    What is minimised is the sum of squared relative differences. Weighing by measured joules alone
    would favour runs whose meter erred downwards (1.7 % too low at a meter of 10 %, simulated), so
    that they are weighed again by what the law says. Raises DataError for runs that are too few,
    lack joules, or do not tell time, operations and bytes apart.
    """
    measured = [run.joules for run in runs if run.joules is not None]
    if len(measured) < len(runs):
        raise DataError(
            f"{len(runs) - len(measured)} of {len(runs)} runs have no joules: fill them in, or "
            "leave those runs out"
        )
    if len(runs) < FEWEST_RUNS:
        raise DataError(f"{len(runs)} runs are too few for a fit: measure {FEWEST_RUNS} or more")
    found = solve(runs, measured, measured)
    for _ in range(REWEIGHINGS):
        law = EnergyLaw(*found.values)
        modelled = [law.joules(run.usage) for run in runs]
        # A run to which the law gives nothing keeps the weight that it was measured with.
        found = solve(runs, measured, [m or j for m, j in zip(modelled, measured, strict=True)])
    if not found.condition <= MOST_CONDITION:
        raise DataError(
            f"the runs do not tell static power, operations and bytes apart: their condition "
            f"number is {found.condition:.3g}, beyond {MOST_CONDITION:g}: add workloads of other "
            "operations a byte, and idle time"
        )
    variance = found.residual / (len(runs) - 3)
    return EnergyFit(
        EnergyLaw(*found.values),
        tuple(tuple(variance * value for value in row) for row in found.covariance),
        variance**0.5,
        len(runs),
        found.condition,
        meter,
        scope,
    )


def solve(runs: Sequence[Run], joules: Sequence[float], weights: Sequence[float]) -> Solution:
    """Return the least squares of joules = usage . coefficients, both divided by the weights."""
    rows = [
        [amount / weight for amount in run.usage] for run, weight in zip(runs, weights, strict=True)
    ]
    return solve_nonnegative(rows, [j / w for j, w in zip(joules, weights, strict=True)])
