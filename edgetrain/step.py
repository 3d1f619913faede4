"""The numbers of one training step, as engine and oracle both take them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from edgetrain.planner import Plan

__all__ = [
    "FLIP_THRESHOLD",
    "StepSettings",
    "batch_begin",
    "batch_bounds",
    "batches_of",
    "step_settings",
]

SHIFT_RATE = 0.025
"""The learning rate of the shifts, and of Adam on half floats, as a share of the weights': 1e-3 at
0.04."""
LATENT_LEVELS = 127
SCALE_LEVELS = 255
STEP_FRACTIONS = 256
NIBBLE_LEVELS = 7
AVERAGE_LEVELS = 127
AVERAGE_FRACTIONS = 65536
AVERAGE_RATE = 0.125
"""The rate of Bop's moving average, as a share of the weights': 5e-3 at 0.04."""
HELD_STEPS: dict[str, float] = {
    "int8": 0,
    "int4": NIBBLE_LEVELS * STEP_FRACTIONS,
    "bop": AVERAGE_RATE * AVERAGE_FRACTIONS,
    "adam16": 0,
}
"""What a whole range is in the units of held_step."""
FLIP_THRESHOLD = 0.1
"""Of Bop's average of signs, which lies in [-1, 1]."""
DECAY1, DECAY2 = 0.9, 0.999
STATISTICS_MOMENTUM = 0.1


@dataclass(frozen=True)
class StepSettings:
    """What one step needs beside its examples.

    step keys the random draws; latent_step and scale_step are in 1/256 of a level;
    statistics_momentum is the weight of the micro-batch in the running statistics; the rest is
    Adam for the shifts and for latents of half floats, with the corrections of its two moments.
    held_step is the step of int4 latents in 1/256 of a level, or the rate of Bop's average in
    1/65536; threshold the level, of 127, beyond which the average flips a sign.
    """

    step: int
    latent_step: int
    scale_step: int
    statistics_momentum: float
    shift_learning_rate: float
    correction1: float
    correction2: float
    held_step: int
    threshold: int


def step_settings(
    plan: Plan,
    learning_rate: float,
    step: int,
    steps_since_load: int,
    flip_threshold: float = FLIP_THRESHOLD,
) -> StepSettings:
    """Return the settings of a step.

    A micro-batch takes its share of the batch's step: there is no gradient to accumulate in.
    steps_since_load counts from 1; flip_threshold is Bop's, of an average in [-1, 1].
    """
    share = learning_rate * plan.micro_batch / plan.batch
    return StepSettings(
        step,
        round(share * LATENT_LEVELS * STEP_FRACTIONS),
        round(share * SCALE_LEVELS * STEP_FRACTIONS),
        # The first steps average from nothing, so that no stale statistic lingers.
        max(STATISTICS_MOMENTUM, 1 / steps_since_load),
        share * SHIFT_RATE,
        1 - DECAY1**steps_since_load,
        1 - DECAY2**steps_since_load,
        round(min(share * HELD_STEPS[plan.latent], AVERAGE_FRACTIONS)),
        round(flip_threshold * AVERAGE_LEVELS),
    )


def batches_of(count: int, micro_batch: int) -> int:
    """Return how many micro-batches take so many examples: as few as may be."""
    return -(-count // micro_batch)


def batch_begin(count: int, batches: int, index: int) -> int:
    """Return where a micro-batch begins, and the one before it ends: sizes are equal within one."""
    return count * index // batches


def batch_bounds(count: int, micro_batch: int) -> Iterator[tuple[int, int]]:
    """Yield the begin and end of each micro-batch."""
    batches = batches_of(count, micro_batch)
    return pairwise(batch_begin(count, batches, index) for index in range(batches + 1))
