"""What a round has gathered so far."""

from __future__ import annotations

from dataclasses import replace

from edgetrain.coordinator.accounts import Means, tallied
from edgetrain.coordinator.aggregate import Accumulator
from edgetrain.coordinator.answer import Answer
from edgetrain.coordinator.global_model import GlobalModel
from edgetrain.coordinator.history import RoundRecord
from edgetrain.tensorfile import State

__all__ = ["Gathering"]


class Gathering:
    """The sum of a round's reports, their means, and what became of the tasks."""

    def __init__(self, model: GlobalModel) -> None:
        self.accumulator = Accumulator(model)
        self._means = Means()
        self._record = RoundRecord(model.version + 1)

    def take(self, answer: Answer, sent: State | None = None) -> None:
        """Take in an answer that was admitted or refused; `sent` is what its device was sent."""
        self._means.add(answer, "trained")
        self._record = tallied(self._record, answer)
        if answer.status == "trained" and answer.report is not None:
            self.accumulator.fold(answer.report, sent)

    def record(self, asked: int) -> RoundRecord:
        """Return the record of the round, for which so many devices were asked."""
        return replace(
            self._record,
            asked=asked,
            reported=self.accumulator.reports,
            stale=self.accumulator.stale,
            examples=self.accumulator.examples,
            training_loss=self._means.loss,
        )
