"""A plan that is compared with others: what it is expected to teach, to use, and to lack."""

from __future__ import annotations

from dataclasses import dataclass

from edgetrain.memory_profiler.budget import Budget, format_joules, format_seconds
from edgetrain.memory_profiler.device import Device
from edgetrain.memory_profiler.estimate import Estimate, work_of
from edgetrain.memory_profiler.variants import Variant
from edgetrain.planner import Plan
from edgetrain.sizes import format_size

__all__ = ["Candidate", "Shortfall", "cost_of", "shortfalls_of"]

TEXT = {"memory": format_size, "energy": format_joules, "seconds": format_seconds}


@dataclass(frozen=True)
class Shortfall:
    """One limit that a plan may exceed; quantities are in the limit's own unit."""

    name: str
    needed: float
    allowed: float

    def describe(self) -> str:
        """Return how much is missing, as one phrase."""
        show = TEXT[self.name]
        return (
            f"{self.name} may reach {show(self.needed)}, "
            f"{show(self.needed - self.allowed)} over the {show(self.allowed)} allowed"
        )

    def missing(self) -> str:
        """Return what more would have to be allowed."""
        more = TEXT[self.name](self.needed - self.allowed)
        return more if self.name == "seconds" else f"{more} of {self.name}"


@dataclass(frozen=True)
class Candidate:
    """A plan with what it is expected to teach and to use, and the limits that it may exceed.

    learning is in examples x layers; cost is what it costs, in cost_unit; place is where its
    variant stands in the order of the search.
    """

    variant: Variant
    plan: Plan
    estimate: Estimate
    shortfalls: tuple[Shortfall, ...]
    learning: float
    cost: float
    cost_unit: str
    place: int

    @property
    def fits(self) -> bool:
        """Whether the plan is sure to keep the budget."""
        return not self.shortfalls

    @property
    def lacks_memory(self) -> bool:
        """Whether the plan may use more memory than is allowed."""
        return any(shortfall.name == "memory" for shortfall in self.shortfalls)

    @property
    def rank(self) -> tuple[float, ...]:
        """Best first; no two candidates of one search share a rank."""
        return (
            -self.learning,
            self.cost,
            self.plan.recomputed,
            -self.plan.threads,
            self.estimate.memory.high,
            self.place,
        )

    def why_worse(self, best: Candidate) -> str:
        """Return the first ground on which a plan that fits ranks behind the best."""
        grounds = (
            "teaches less",
            f"costs more {self.cost_unit}",
            "makes more again",
            "uses fewer threads",
            "needs more memory",
            "comes later in the search",
        )
        places = zip(grounds, self.rank, best.rank, strict=True)
        return "fits, but " + next(ground for ground, theirs, ours in places if theirs > ours)


def shortfalls_of(expected: Estimate, budget: Budget, device: Device) -> tuple[Shortfall, ...]:
    """Return the limits that an upper bound exceeds; both budget and device limit memory."""
    limits = [limit for limit in (budget.memory, device.memory) if limit is not None]
    bounds = (
        ("memory", expected.memory, min(limits, default=None)),
        ("energy", expected.energy, budget.energy),
        ("seconds", expected.seconds, budget.seconds),
    )
    return tuple(
        Shortfall(name, interval.high, allowed)
        for name, interval, allowed in bounds
        if interval is not None and allowed is not None and interval.high > allowed
    )


def cost_of(compiled: Plan, expected: Estimate) -> tuple[float, str]:
    """Return what a plan costs, and in what: joules, or else seconds, or else operations."""
    if expected.energy is not None:
        return expected.energy.middle, "joules"
    if expected.seconds is not None:
        return expected.seconds.middle, "seconds"
    return work_of(compiled, expected.examples).operations, "operations"
