"""When a round asks whom, and when it has enough: synchronous or buffered.

Synchronous (FedAvg, McMahan et al. 2017, with the over-selection of Bonawitz et al. 2019): a round
asks its devices once and waits for their reports. Buffered (FedBuff, Nguyen et al. 2022): devices
are always at work, and every K reports make a version. Both are one rule with other numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgetrain.config import TrainingConfig
from edgetrain.coordinator.aggregate import Accumulator

__all__ = ["Rule", "rule_of"]


@dataclass(frozen=True)
class Rule:
    """How one round gathers reports.

    Attributes:
        at_work: how many devices may be at work at a time.
        enough: reports that end the round.
        continuous: whether a device that has answered is replaced by another at once, and
            whether a report counts towards `enough` whatever version it began with.
    """

    at_work: int
    enough: int
    continuous: bool

    def satisfied(self, accumulator: Accumulator) -> bool:
        """Say whether the round has enough reports."""
        counted = accumulator.reports if self.continuous else accumulator.fresh
        return counted >= self.enough


def rule_of(training: TrainingConfig, trainers: int) -> Rule:
    """Return the rule of a round for which `trainers` devices may be asked to train."""
    share = max(1, round_half_up(training.fraction * trainers))
    if training.aggregation == "buffered":
        return Rule(at_work=share, enough=training.buffer, continuous=True)
    more = math.ceil(share * training.over_selection)
    return Rule(at_work=share + more, enough=share, continuous=False)


def round_half_up(value: float) -> int:
    """Return the nearest whole number, halves upwards."""
    return int(value + 0.5)
