"""Picks the plan that teaches a model most inside a budget, and says why not the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgetrain.choices import remakable
from edgetrain.errors import BudgetError, ConfigError, ModelError
from edgetrain.memory_profiler.budget import Budget, format_joules, format_seconds
from edgetrain.memory_profiler.device import Device
from edgetrain.memory_profiler.estimate import Estimate, estimate
from edgetrain.model import Model
from edgetrain.ops.op import Mode
from edgetrain.planner import Plan, micro_batches, plan
from edgetrain.sizes import format_size
from edgetrain.task import Kind

__all__ = ["Choice", "Rejection", "choose", "summarise"]

MODES: tuple[Mode, ...] = ("bnn", "fsb")


@dataclass(frozen=True)
class Rejection:
    """A plan that was not chosen, in words, and why.

    fits says that it would have kept the budget, but another was better.
    """

    plan: str
    reason: str
    fits: bool


@dataclass(frozen=True)
class Choice:
    """The plan chosen, what it is expected to use, and every plan that was not chosen."""

    plan: Plan
    estimate: Estimate
    rejected: tuple[Rejection, ...]

    def explain(self) -> str:
        """Return the choice, its expected use part by part, and a reason for each other plan."""
        width = max((len(rejection.plan) for rejection in self.rejected), default=0)
        return "\n".join(
            [
                f"chosen: {summarise(self.plan)}",
                *(f"  {line}" for line in self.estimate.explain().splitlines()),
                f"rejected: {len(self.rejected)}",
                *(f"  {other.plan:<{width}}  {other.reason}" for other in self.rejected),
            ]
        )


@dataclass(frozen=True)
class Shortfall:
    """One limit that a plan may exceed; quantities are in the limit's own unit."""

    name: str
    needed: float
    allowed: float

    def describe(self) -> str:
        """Return how much is missing, as one phrase."""
        text = {"memory": format_size, "energy": format_joules, "seconds": format_seconds}
        show = text[self.name]
        return (
            f"{self.name} may reach {show(self.needed)}, "
            f"{show(self.needed - self.allowed)} over the {show(self.allowed)} allowed"
        )


GROUNDS = (
    "fits, but learns from smaller micro-batches",
    "fits, but in a mode that comes later",
    "fits, but costs more energy or time",
    "fits, but makes more gradients twice",
    "fits, but needs more memory",
    "fits, but needs more threads",
)
"""Why a plan that fits is not chosen: one for each place of `Candidate.rank`."""


@dataclass(frozen=True)
class Candidate:
    """A plan with what it is expected to use and the limits it may exceed.

    preference is the place of its mode among those that may be chosen, 0 the first.
    """

    plan: Plan
    preference: int
    estimate: Estimate
    shortfalls: tuple[Shortfall, ...]

    @property
    def rank(self) -> tuple[float, ...]:
        """Best first; no two candidates of one search share a rank."""
        cost = self.estimate.energy or self.estimate.seconds
        return (
            -self.plan.micro_batch,
            self.preference,
            cost.middle if cost else 0.0,
            self.plan.recomputed,
            self.estimate.memory.high,
            self.plan.threads,
        )


def choose(
    model: Model,
    budget: Budget,
    device: Device,
    *,
    batch: int = 100,
    modes: Sequence[Mode] = MODES,
    examples: int | None = None,
    dataset_bytes: int = 0,
    codec: str = "luq4",
    kind: Kind = "train",
) -> Choice:
    """Return the best plan whose memory, energy and time are sure to stay inside the budget.

    Searched are modes, micro-batches (batch, batch/2, ... 2), threads (the device's, half of them,
    ... 1), and gradients of convolutions made once or twice. Memory is limited by the budget and by
    the device, whichever is less. Expected learning decides: a larger micro-batch, then the mode
    that comes first in `modes`; among those that learn alike, fewer joules (seconds, where power is
    unknown), then fewer gradients made twice, then less memory, then fewer threads. examples,
    dataset_bytes, codec and kind are as for `estimate`. Raises BudgetError naming the nearest plan
    and what it lacks when nothing fits, ModelError when no mode can train the model, and
    ConfigError when the budget limits what the device does not say.
    """
    _check(budget, device)
    plans, refused = _search(model, batch, modes, device.threads)
    found: list[Candidate] = []
    for compiled in plans:
        expected = estimate(
            compiled,
            device,
            examples=examples,
            dataset_bytes=dataset_bytes,
            codec=codec,
            kind=kind,
        )
        shortfalls = _shortfalls(expected, budget, device)
        found.append(Candidate(compiled, modes.index(compiled.mode), expected, shortfalls))
    fitting = sorted((c for c in found if not c.shortfalls), key=lambda c: c.rank)
    if not fitting:
        raise BudgetError(_nothing_fits(found, device))
    best = fitting[0]
    rejected = [_reject(other, best) for other in found if other is not best]
    return Choice(best.plan, best.estimate, (*refused, *rejected))


def summarise(plan: Plan) -> str:
    """Return a plan's choices in a phrase, e.g. "bnn, 25 of 100, 1 thread"."""
    threads = "1 thread" if plan.threads == 1 else f"{plan.threads} threads"
    twice = ", gradients made twice" if plan.recomputed else ""
    return f"{plan.mode}, {plan.micro_batch} of {plan.batch}, {threads}{twice}"


def _check(budget: Budget, device: Device) -> None:
    """Refuse a limit that nothing could be held against."""
    timed = device.operations_per_second is not None or device.examples_per_second is not None
    if budget.seconds is not None and not timed:
        raise ConfigError(
            f"the budget limits seconds, but nobody knows the speed of {device.name!r}: "
            "give examples_per_second"
        )
    if budget.energy is not None and not (timed and device.watts is not None):
        raise ConfigError(
            f"the budget limits energy, but nobody knows the power of {device.name!r}: "
            "give watts and examples_per_second"
        )


def _search(
    model: Model, batch: int, modes: Sequence[Mode], threads: int
) -> tuple[list[Plan], list[Rejection]]:
    """Return every plan, and the modes that cannot train the model."""
    counts = [threads]
    while counts[-1] > 1:
        counts.append(counts[-1] // 2)
    plans: list[Plan] = []
    refused: list[Rejection] = []
    for mode in modes:
        try:
            for micro_batch in micro_batches(batch):
                for count in counts:
                    plans += _made_once_and_twice(model, batch, mode, micro_batch, count)
        except ModelError as error:
            refused.append(Rejection(f"{mode}, any", str(error), fits=False))
    if not plans:
        reasons = "; ".join(rejection.reason for rejection in refused)
        raise ModelError(reasons or "there is no mode to choose from: give bnn, fsb or both")
    return plans, refused


def _made_once_and_twice(
    model: Model, batch: int, mode: Mode, micro_batch: int, threads: int
) -> list[Plan]:
    """Return the plan that makes no gradient twice, and the leanest where it is another."""
    once = plan(model, batch, mode, micro_batch=micro_batch, threads=threads, recompute="never")
    if not remakable(model):
        return [once]
    twice = plan(model, batch, mode, micro_batch=micro_batch, threads=threads, recompute="always")
    return [once, twice] if twice.recomputed else [once]


def _shortfalls(expected: Estimate, budget: Budget, device: Device) -> tuple[Shortfall, ...]:
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


def _reject(candidate: Candidate, best: Candidate) -> Rejection:
    if candidate.shortfalls:
        reason = "; ".join(shortfall.describe() for shortfall in candidate.shortfalls)
        return Rejection(summarise(candidate.plan), reason, fits=False)
    return Rejection(summarise(candidate.plan), _why_worse(candidate, best), fits=True)


def _why_worse(candidate: Candidate, best: Candidate) -> str:
    """Return the first ground on which a plan that fits ranks behind the best."""
    places = zip(GROUNDS, candidate.rank, best.rank, strict=True)
    return next(ground for ground, theirs, ours in places if theirs > ours)


def _nothing_fits(found: Sequence[Candidate], device: Device) -> str:
    """Return the line that names the plan nearest to the budget and what it lacks."""
    nearest = min(found, key=lambda c: max(s.needed / s.allowed for s in c.shortfalls))
    lacks = " and ".join(shortfall.describe() for shortfall in nearest.shortfalls)
    return (
        f"nothing fits {device.name!r}: even with the smallest of {len(found)} plans "
        f"({summarise(nearest.plan)}) {lacks}: allow more or choose a smaller model"
    )
