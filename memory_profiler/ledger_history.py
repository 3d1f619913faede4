"""The tasks that a ledger tells of: what each was promised, and what became of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from edgetrain.memory_profiler.ledger_line import Intent, Line, Outcome

__all__ = ["Task", "tasks_of"]


@dataclass(frozen=True)
class Task:
    """One task of a ledger: what was promised when, and what became of it, if that is known."""

    started: float
    intent: Intent
    outcome: Outcome | None

    @property
    def kept(self) -> bool | None:
        """Whether memory, energy and time stayed inside the budget, as far as it is known."""
        if self.outcome is None:
            return None
        budget = self.intent.budget
        pairs = (
            (self.outcome.measured_peak_bytes, budget.memory),
            (self.outcome.joules, budget.energy),
            (self.outcome.seconds, budget.seconds),
        )
        known = [used <= limit for used, limit in pairs if used is not None and limit is not None]
        return all(known) if known else None


def tasks_of(lines: Iterable[Line]) -> Iterator[Task]:
    """Yield the tasks of a ledger's lines in their order; the last may have no outcome yet."""
    begun: tuple[float, Intent] | None = None
    for line in lines:
        if isinstance(line.entry, Intent):
            begun = (line.time, line.entry)
        elif begun is not None:
            yield Task(*begun, line.entry)
            begun = None
    if begun is not None:
        yield Task(*begun, None)
