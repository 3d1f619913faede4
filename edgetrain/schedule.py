"""Learning-rate schedules: pure functions of how far a run has come.

Standard library alone, because devices import it. SCHEDULES is the one list of names: trainer,
command line and configuration read it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from edgetrain.errors import ModelError

__all__ = ["FLOOR", "SCHEDULES", "check_schedule", "decay"]

FLOOR = 0.02
"""What a falling rate falls to, of itself: a step of nothing would teach nothing."""


def constant(share: float, floor: float) -> float:
    """Return 1: the rate stays."""
    del share, floor
    return 1.0


def linear(share: float, floor: float) -> float:
    """Return 1 at the start, falling by equal parts towards 0, but never below the floor."""
    return max(1 - share, floor)


def cosine(share: float, floor: float) -> float:
    """Return half a cosine from 1 to the floor: slow at both ends, fastest in the middle."""
    return floor + (1 - floor) * (1 + math.cos(math.pi * min(share, 1.0))) / 2


SCHEDULES: dict[str, Callable[[float, float], float]] = {
    "constant": constant,
    "linear": linear,
    "cosine": cosine,
}
"""Name -> factor of the rate, from the share of the run that is done (from 0) and the floor."""


def decay(schedule: str, step: int, span: int, *, warmup: int = 0, floor: float = FLOOR) -> float:
    """Return the factor of the learning rate at a step, the first of which is 0.

    Over the first `warmup` steps the factor rises by equal parts and reaches 1 at the step after
    them; from there the schedule runs to the end of the span, and stays where it ended.
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return SCHEDULES[schedule]((step - warmup) / max(span - warmup, 1), floor)


def check_schedule(schedule: str, span: float, warmup: float, unit: str = "epochs") -> None:
    """Refuse a schedule that is not known, or a warm-up that leaves nothing of the span.

    Raises ModelError.
    """
    if schedule not in SCHEDULES:
        *names, last = SCHEDULES
        raise ModelError(f"unknown schedule {schedule!r}: choose {', '.join(names)} or {last}")
    if not (warmup == 0 or 0 < warmup < span):
        raise ModelError(
            f"a warm-up of {warmup:g} {unit} does not fit a schedule of {span:g}: choose 0, or "
            f"less than {span:g}"
        )
