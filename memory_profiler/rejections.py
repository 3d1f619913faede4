"""Why plans were not chosen, and the cheapest way to make each fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from operator import attrgetter

from edgetrain.memory_profiler.candidates import Candidate
from edgetrain.memory_profiler.search import Findings, Search
from edgetrain.memory_profiler.variants import Variant, change, describe, summarise

__all__ = ["Rejection", "rejections"]


@dataclass(frozen=True)
class Rejection:
    """One or more plans that were not chosen, in words, and why.

    fits says that they would have kept the budget, but another was better; None, that nobody
    looked, because they teach less than what was chosen whatever they use. cures are the single
    changes with which a plan that does not fit would, the cheapest first: the one that teaches
    most, and of those that teach alike the one that costs least; then what else to allow. plans
    is how many plans these are.
    """

    plan: str
    reason: str
    fits: bool | None
    cures: tuple[str, ...] = ()
    plans: int = 1

    def explain(self) -> str:
        """Return the reason, and what would help."""
        return f"{self.reason}; cheapest: {', or '.join(self.cures)}" if self.cures else self.reason


def rejections(search: Search, found: Findings, best: Candidate) -> Iterator[Rejection]:
    """Yield every plan of a search but the best; those that were not planned by their kind."""
    for reason, variants in found.refused.items():
        yield Rejection(describe(variants, search.batch), reason, False, plans=len(variants))
    for variants in found.hopeless.values():
        yield _hopeless(variants, search)
    for other in found.compared:
        if other is not best:
            yield _rejection(other, best, search)
    yield from _lesser(found.lesser, best, search)


def _rejection(other: Candidate, best: Candidate, search: Search) -> Rejection:
    """Return why a plan was not chosen, and what would make it fit."""
    name = summarise(other.plan)
    if other.fits:
        return Rejection(name, other.why_worse(best), True)
    reason = "; ".join(shortfall.describe() for shortfall in other.shortfalls)
    return Rejection(
        summarise(other.plan), reason, False, tuple(_cures(other, search, attrgetter("rank")))
    )


def _hopeless(variants: Sequence[Variant], search: Search) -> Rejection:
    """Return why none of a kind of plans fits: its leanest does not."""
    leanest = search.leanest(variants[0])
    assert leanest is not None
    lacks = "; ".join(shortfall.describe() for shortfall in leanest.shortfalls)

    def rank(other: Candidate) -> tuple[float, ...]:
        # Two examples at a time teach nothing: what counts is what the kind teaches at its best.
        return -search.promise(replace(other.variant, micro_batch=search.batch)), *other.rank

    return Rejection(
        describe(variants, search.batch),
        f"even with {summarise(leanest.plan)} {lacks}",
        False,
        tuple(_cures(leanest, search, rank)),
        len(variants),
    )


def _cures(
    candidate: Candidate, search: Search, rank: Callable[[Candidate], tuple[float, ...]]
) -> Iterator[str]:
    """Yield the single changes with which a plan fits, the cheapest first, then what to allow."""
    found: list[tuple[tuple[float, ...], str]] = []
    for field, variants in search.space.changes(candidate.variant):
        changed = map(search.candidate, variants)
        nearest = next((other for other in changed if other is not None and other.fits), None)
        if nearest is not None:
            found.append((rank(nearest), change(field, nearest.variant)))
    part = search.shortened(candidate.plan)
    if part is not None:
        learning = candidate.learning * part.examples / search.examples
        found.append(((-learning,), f"{part.examples:,} of the {search.examples:,} examples"))
    yield from (text for _, text in sorted(found))
    yield "allow " + " and ".join(shortfall.missing() for shortfall in candidate.shortfalls)


def _lesser(variants: Sequence[Variant], best: Candidate, search: Search) -> Iterator[Rejection]:
    """Yield the variants that were not planned, those of a kind together."""

    def kind(variant: Variant) -> tuple[str, str, bool]:
        return variant.mode, variant.latent, variant.frozen > best.variant.frozen

    chosen = search.layers_taught(best.variant)
    for _, group in groupby(sorted(variants, key=kind), key=kind):
        members = list(group)
        most = max(map(search.layers_taught, members))
        reason = f"teaches less: {most:.2f} layers' worth an example, not {chosen:.2f}"
        yield Rejection(describe(members, search.batch), reason, None, plans=len(members))
